"""Who is compared: models with their results and tables, or families of models that differ by chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from geed_onnx.errors import DataError, UnknownName, UsageError
from geed_onnx.results import CellTables, Collection, Result, place_of

Tables = Callable[[Result], CellTables | None]
#: What of a Result is a number or None.
NUMBERS = ("value", "low", "high", "spread", "calibrated", "calibrated_low", "calibrated_high")


@dataclass(frozen=True, eq=False)
class Model:
    """One model, all that was measured of it, and what those numbers are made of.

    Attributes
    ----------
    name : str
        Its name in the suite, else its path; with the head of its hash where one source holds two of that name.
    source : str
        The folder, file or model that it came from.
    results : tuple[Result, ...]
    tables : (Result) -> CellTables or None
    """

    name: str
    source: str
    results: tuple[Result, ...] = field(repr=False)
    tables: Tables = field(repr=False)

    @property
    def facts(self) -> Mapping[str, Any]:
        """`model` of its results: path, sha256, and what a suite says of it."""
        return next((r for r in self.results if not r.failed), self.results[0]).model


@dataclass(frozen=True, eq=False)
class Participant:
    """One side of a comparison: a model, or a family of models that differ by chance (seeds)."""

    name: str
    models: tuple[Model, ...]
    family: bool = False

    @property
    def source(self) -> str:
        """Where it came from."""
        return self.models[0].source

    def to_json(self) -> dict[str, Any]:
        """Return what a comparison's line says of it: name, path and sha256 (None for a family), source."""
        facts = self.models[0].facts
        said: dict[str, Any] = {"name": self.name, "source": self.source}
        if self.family:
            said |= {"path": None, "sha256": None, "models": [m.name for m in self.models]}
        else:
            said |= {"path": facts.get("path"), "sha256": facts.get("sha256")}
        known = ("family", "step") if self.family else ("family", "seed", "step")
        return said | {k: facts[k] for k in known if facts.get(k) is not None}


Pair = tuple[Participant, Participant]


# --- from results to models -------------------------------------------------------------------------------------


def models_of(collection: Collection) -> tuple[Model, ...]:
    """Return the models of a folder or file of results, in the order in which they first occur.

    Two files of one name are two models.  A failed cell belongs to the model of its name.

    Raises
    ------
    DataError
        If there is no result, or one is not what a Result holds.
    """
    if not collection.results:
        raise DataError(f"{collection.uri}: there are no results in it")
    named: dict[str, list[Result]] = {}
    for result in collection.results:
        check(result, collection.uri)
        named.setdefault(result.label, []).append(result)
    found = []
    for label, rows in named.items():
        hashes = list(dict.fromkeys(r.model.get("sha256") for r in rows if not r.failed)) or [None]
        for sha in hashes:
            own = tuple(r for r in rows if r.failed or r.model.get("sha256") == sha)
            name = label if len(hashes) == 1 else f"{label} ({str(sha)[:8]})"
            found.append(Model(name, collection.uri, own, collection.tables))
    return tuple(found)


def model_of(name: str, measured: Iterable[tuple[Result, CellTables]]) -> Model:
    """Return a model that was measured now, its tables in memory."""
    rows = list(measured)
    tables = {place_of(result): found for result, found in rows}
    return Model(name, name, tuple(result for result, _ in rows), lambda result: tables.get(place_of(result)))


def check(result: Result, uri: str) -> None:
    """Refuse a result whose fields are not what they must be: files come from other people.

    Raises
    ------
    DataError
        With the file, the field and what was expected.
    """

    def refuse(what: str, got: object) -> None:
        raise DataError(f"{uri}: a damaged result: {what}, got {str(got)[:60]!r}; measure again")

    for name in ("model", "data", "group", "tap"):
        if not isinstance(getattr(result, name), Mapping):
            refuse(f"{name} must be an object", getattr(result, name))
    for owner, known in (("data", ("uri", "fingerprint", "samples")), ("group", ("name",)), ("tap", ("name", "kind"))):
        for name in known:
            if name not in getattr(result, owner):
                refuse(f"{owner} must hold {name!r}", dict(getattr(result, owner)))
    for what, count in (("seed", result.seed), ("data.samples", result.data["samples"])):
        if not isinstance(count, int):
            refuse(f"{what} must be a whole number", count)
    if not isinstance(result.group.get("order"), (int, type(None))):
        refuse("group.order must be a whole number", result.group.get("order"))
    texts = {"variant": result.variant, "group.name": result.group["name"]}
    asides = {"data.mask": result.data.get("mask"), "group.interpolation": result.group.get("interpolation")}
    for what, text in (texts | asides).items():
        if not isinstance(text, str) and (text is not None or what not in asides):
            refuse(f"{what} must be a text", text)
    for name in (*NUMBERS, "level"):
        value = getattr(result, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number and (value is not None or name == "level"):
            refuse(f"{name} must be a finite number{'' if name == 'level' else ' or null'}", value)


# --- who takes part ---------------------------------------------------------------------------------------------


def picked(models: Sequence[Model], globs: Sequence[str]) -> tuple[Model, ...]:
    """Return the models whose name one of the globs matches; all of them without globs.

    Raises
    ------
    UnknownName
        If a glob matches none.
    """
    if not globs:
        return tuple(models)
    for glob in globs:
        if not any(_matches(m.name, glob) for m in models):
            raise UnknownName("model", glob, [m.name for m in models])
    return tuple(m for m in models if any(_matches(m.name, glob) for glob in globs))


def _matches(name: str, glob: str) -> bool:
    return name == glob or fnmatchcase(name, glob)


def participants_of(models: Sequence[Model], *, families: bool = False) -> tuple[Participant, ...]:
    """Return a participant for each model; with `families`, one for all models of a family (and training step).

    Raises
    ------
    UsageError
        If families are asked for and no model has one.
    """
    if not families:
        return tuple(Participant(m.name, (m,)) for m in models)
    if not any(m.facts.get("family") is not None for m in models):
        raise UsageError(
            "--families: none of the models has a family; a suite gives it (model.family), or compare them one by one"
        )
    members: dict[tuple[object, ...], list[Model]] = {}
    for m in models:
        family = m.facts.get("family")
        step = m.facts.get("step")
        place = (m.source, str(family), str(step)) if family is not None else (m.source, m.name, id(m))
        members.setdefault(place, []).append(m)
    found = []
    for some in members.values():
        facts = some[0].facts
        if facts.get("family") is None:
            found.append(Participant(some[0].name, tuple(some)))
            continue
        step = facts.get("step")
        name = str(facts["family"]) + ("" if step is None else f" @ step {step}")
        found.append(Participant(name, tuple(some), family=True))
    return tuple(found)


def pairs_of(
    sources: Sequence[Sequence[Participant]], *, reference: str | None = None, by_name: bool = False
) -> tuple[Pair, ...]:
    """Return who is compared with whom: the reference, by default the first of all, with each of the others.

    With `by_name` each participant of the first source is compared with those of its name in the others, as one run is
    with an earlier one.

    Raises
    ------
    UsageError
        If there is nobody to compare with, or the sources have no name in common.
    UnknownName
        If there is no participant of the reference's name.
    """
    everyone = [p for some in sources for p in some]
    names = [p.name for p in everyone]
    if by_name:
        if reference is not None:
            raise UsageError("--by-name and --reference exclude one another: by name, each has a reference of its own")
        if len(sources) < 2:
            raise UsageError("--by-name compares the models of one run with those of another: give two")
        first, others = sources[0], [p for some in sources[1:] for p in some]
        pairs = tuple((a, b) for b in others for a in first if a.name == b.name)
        if not pairs:
            raise UsageError(
                f"--by-name: no model of {first[0].source} has its name elsewhere ({listed([p.name for p in first])}"
                f" and {listed([p.name for p in others])})"
            )
        return pairs
    if len(everyone) < 2:
        raise UsageError(
            f"there is only {names[0]!r} to compare; give two or more models, run folders or files of results"
            if everyone
            else "there is nothing to compare; give two or more models, run folders or files of results"
        )
    if reference is not None and reference not in names:
        raise UnknownName("reference", reference, names)
    one = everyone[0] if reference is None else everyone[names.index(reference)]
    return tuple((one, p) for p in everyone if p is not one)


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return the first names, each once, and how many there are."""
    shown = ", ".join(dict.fromkeys(names[:most]))
    return shown + (f", … ({len(names)} in all)" if len(names) > most else "")
