"""The models and the data sets of a suite: every pattern followed, every name unique."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from geed_onnx.errors import ActionError, UsageError
from geed_onnx.requests import Data, Model, of_fields
from geed_onnx.suites.faults import Fault, place, unexpected
from geed_onnx.suites.paths import PLACEHOLDERS, Match, existing, filled, find_models, is_remote, stem_parts

if TYPE_CHECKING:
    from geed_onnx.groups import Group
    from geed_onnx.suites.schema import Table

IN_NAMES = (*PLACEHOLDERS, "stem")
#: Forms of address that the file system answers for.
OF_FILES = ("array", "table", "folder")


@dataclass(frozen=True)
class Place:
    """Where the tables of a suite are read from.

    Attributes
    ----------
    folder : str
        What paths are relative to.
    files : bool
        Whether the file system is looked at; if not, paths stay as they are written.
    """

    folder: str
    files: bool


@dataclass(frozen=True)
class Found:
    """A model with the table it comes from; the name is empty where the suite gives none."""

    entry: Model
    where: str


# --- models -----------------------------------------------------------------------------------------------------


def models_of(
    tables: Sequence[tuple[str, Table, Mapping[str, Any]]],
    taps: tuple[str, ...] | None,
    at: Place,
    faults: list[Fault],
) -> list[Model]:
    """Return every model of the tables (path in the suite, table, preprocessing); the faults go into `faults`.

    `taps` are those of the suite, for the models that have none of their own.
    """
    found: list[Found] = []
    for where, table, preprocessing in tables:
        try:
            matches = find_models(at.folder, table.path) if at.files else [Match(table.path, {})]
        except UsageError as error:
            expected = "the path of an ONNX file, or a pattern that matches some"
            faults.append(Fault(place(where, "path"), table.path, expected, str(error)))
            continue
        constants = _constants(table, where, at, faults)
        for match in matches:
            entry = _model(match, table, where, taps, constants, preprocessing, faults)
            if entry is None:
                break  # the other files of the pattern have the same fault
            found.append(Found(entry, where))
    named = _named(_each_once(found, faults), faults)
    faults += _alike(named)
    return [f.entry for f in named]


def _constants(table: Table, where: str, at: Place, faults: list[Fault]) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for name, value in table.constants.items():
        if isinstance(value, str) and at.files:
            try:
                value = existing(at.folder, value, folders=False)
            except UsageError as error:
                expected = "a number, or the path of a .npy file"
                faults.append(Fault(place(where, "constants", name), value, expected, str(error)))
        found[name] = value
    return found


def _model(
    match: Match,
    table: Table,
    where: str,
    taps: tuple[str, ...] | None,
    constants: Mapping[str, float | str],
    preprocessing: Mapping[str, Any],
    faults: list[Fault],
) -> Model | None:
    values: dict[str, Any] = {
        "stem": stem_parts(match.path)[-1],
        "name": match.captured.get("name"),
        "family": match.captured.get("family"),
    }
    for key in ("seed", "step", "family"):
        given, captured = getattr(table, key), match.captured.get(key)
        if given is not None and captured is not None:
            more = f": path has {{{key}}} already ({captured!r} in {match.path!r}); give one"
            faults.append(Fault(place(where, key), given, "it once", f"given twice{more}"))
            return None
        values[key] = given if captured is None else captured if key == "family" else int(captured)
    for key, known in (("family", ("name", "seed", "step", "stem")), ("name", IN_NAMES)):
        template = getattr(table, key)
        if template:
            try:
                values[key] = filled(template, values, known)
            except UsageError as error:
                expected = "a text, with " + ", ".join("{" + k + "}" for k in known) + " filled in"
                faults.append(Fault(place(where, key), template, expected, str(error)))
                return None
    values |= {"path": match.path, "name": values["name"] or "", "constants": constants}
    own = {"taps": table.taps or taps, "preprocessing": preprocessing}
    return of_fields(Model, {**table.model_dump(), **values, **own})


def _each_once(found: Iterable[Found], faults: list[Fault]) -> list[Found]:
    """Return the models without those that are there already with the same settings, which are faults."""
    kept: list[Found] = []
    seen: dict[str, list[Found]] = {}
    again: dict[tuple[str, str], list[str]] = {}
    for f in found:
        known = seen.setdefault(_identity(f.entry.path), [])
        bare = replace(f.entry, path="", name="", family=None, seed=None, step=None)
        for other in known:
            if replace(other.entry, path="", name="", family=None, seed=None, step=None) == bare:
                again.setdefault((f.where, other.where), []).append(f.entry.path)
                break
        else:
            known.append(f)
            kept.append(f)
    expected = "each model once, or with other settings"
    faults += [
        Fault(
            place(where, "path"),
            paths[0],
            expected,
            f"the same model with the same settings is in {first} already"
            + (f", and {len(paths) - 1} more" if len(paths) > 1 else "")
            + "; leave it out, or measure it in another way",
        )
        for (where, first), paths in again.items()
    ]
    return kept


def _identity(path: str) -> str:
    return path if is_remote(path) else os.path.abspath(path)


def _named(found: Sequence[Found], faults: list[Fault]) -> list[Found]:
    """Return the models with a name each: without one, as many parts of the path as tell it from the others."""
    parts = [stem_parts(f.entry.path) for f in found]
    names = distinct([f.entry.name for f in found], parts, [f.where for f in found])
    named = [replace(f, entry=replace(f.entry, name=name)) for f, name in zip(found, names, strict=True)]
    first: dict[str, Found] = {}
    told = set[tuple[str, str]]()
    for f in named:
        other = first.setdefault(f.entry.name, f)
        if other is not f and (f.where, other.where) not in told:
            told.add((f.where, other.where))
            whose = "the same file" if other.entry.path == f.entry.path else repr(other.entry.path)
            faults.append(
                Fault(
                    place(f.where, "name"),
                    f.entry.name,
                    "a name that no other model has",
                    f"{f.entry.path!r} gets the name that {whose} has already ({other.where}); names must differ:"
                    " give each its own, or put {family}, {seed}, {step}, {name} or {stem} into name",
                )
            )
    return named


def distinct(names: Sequence[str], parts: Sequence[Sequence[str]], kin: Sequence[Hashable]) -> list[str]:
    """Return a name for each, those given as they are, the others as the fewest last parts of a path that differ.

    Those of one kin (the files of one pattern) get the same number of parts. Where no number of parts makes two differ,
    the names stay equal.
    """
    depth = [0 if name else 1 for name in names]
    while True:
        made = [name or "/".join(p[-d:]) for name, p, d in zip(names, parts, depth, strict=True)]
        count: dict[str, int] = {}
        for name in made:
            count[name] = count.get(name, 0) + 1
        deeper = {kin[i] for i, name in enumerate(made) if count[name] > 1 and 0 < depth[i] < len(parts[i])}
        if not deeper:
            return made
        depth = [d + (d > 0 and k in deeper) for d, k in zip(depth, kin, strict=True)]


def _alike(named: Iterable[Found]) -> list[Fault]:
    """Return the faults of models that are the same copy of one family."""
    first: dict[tuple[str, int | None, int | None], Found] = {}
    faults: dict[tuple[str, str], Fault] = {}
    for f in named:
        entry = f.entry
        if entry.family is None:
            continue
        other = first.setdefault((entry.family, entry.seed, entry.step), f)
        if other is not f:
            seed = "no seed" if entry.seed is None else f"seed {entry.seed}"
            step = "no step" if entry.step is None else f"step {entry.step}"
            faults.setdefault(
                (f.where, entry.family),
                Fault(
                    place(f.where, "family"),
                    entry.family,
                    "a family whose models differ in seed or step",
                    f"{entry.path!r} and {other.entry.path!r} both have {seed} and {step}: give seed and step,"
                    " or {seed} and {step} in path",
                ),
            )
    return list(faults.values())


def check_acts(tables: Iterable[tuple[str, Table]], groups: Sequence[Group], faults: list[Fault]) -> None:
    """Hold the words of every action against the groups; whether it fits a tap's shape shows when it is measured."""
    from geed_onnx.actions import output_action
    from geed_onnx.suites.schema import said_of

    expected = "trivial, pixels, permute:AXIS:i,j,…, roll:AXIS:STEPS or regular:AXIS"
    for where, table in tables:
        for tap, act in table.acts.items():
            wrong: dict[str, None] = {}
            for group in groups:
                for part in act.split("+"):
                    try:
                        output_action(part, group, (1, 1, 1))
                    except UsageError as error:
                        wrong.setdefault(said_of(error, part))
                    except ActionError:
                        pass  # of the shape, which is not known here
            if wrong:
                faults.append(Fault(place(where, "acts", tap), act, expected, next(iter(wrong))))


# --- data -------------------------------------------------------------------------------------------------------


def data_of(
    tables: Sequence[tuple[str, Table, Mapping[str, Any]]], at: Place, faults: list[Fault]
) -> list[tuple[Data, str]]:
    """Return every data set of the tables, each with its address as it is written; the faults go into `faults`."""
    expected = "a file or a folder of images, or hf:NAME[:SPLIT]"
    found: list[tuple[str, Table, Data]] = []
    for where, table, preprocessing in tables:
        try:
            source = data_address(table.source, at)
        except UsageError as error:
            faults.append(Fault(place(where, "source"), table.source, expected, str(error)))
            continue
        own = {"source": source, "name": table.name or "", "preprocessing": preprocessing}
        entry = of_fields(Data, {**table.model_dump(), **own})
        if any(replace(e, name=entry.name) == entry for _, _, e in found):
            faults.append(
                Fault(place(where, "source"), table.source, "each data set once", "the same data set is there already")
            )
            continue
        found.append((where, table, entry))
    parts = [stem_parts(e.source.removeprefix("hf:")) for *_, e in found]
    names = distinct([e.name for *_, e in found], parts, range(len(found)))
    for i, (where, _, entry) in enumerate(found):
        if names[i] in names[:i]:
            more = f"; {entry.source!r} and {found[names.index(names[i])][2].source!r} have the same: give each a name"
            faults.append(unexpected(place(where, "name"), names[i], "a name that no other data set has", more))
    return [(replace(e, name=name), t.source) for (_, t, e), name in zip(found, names, strict=True)]


def data_address(source: str, at: Place) -> str:
    """Return the address of a data set as it is opened from here.

    Raises
    ------
    UsageError
        If it is a file or folder, and nothing is there or nobody can read it.
    """
    from geed_onnx.sources import sources

    elsewhere = (form for name, form in sources.items() if name not in OF_FILES)
    if not at.files or is_remote(source) or any(form.recognises(source) for form in elsewhere):
        return source
    try:
        found = existing(at.folder, source, folders=True)
    except UsageError as error:
        pattern = "; a data set is one file or one folder: patterns are for models" if "*" in source else ""
        raise UsageError(f"{error}{pattern}") from None
    if not any(form.recognises(found) for form in sources.values()):
        raise UsageError("nobody reads this as images; there are " + ", ".join(f.example for f in sources.values()))
    return found
