"""What a report is about: models, image sets and groups, taps side by side, families and training runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from geed_onnx.errors import DataError
from geed_onnx.reports.page.elements import Elements, elements_of
from geed_onnx.reports.page.families import Mean, mean_of
from geed_onnx.reports.page.slots import Slot, slots_of
from geed_onnx.reports.table import IN_DISC, clean, images_of
from geed_onnx.results import Result

#: As many lines as a chart can tell apart by colour.
MOST_LINES = 8
#: Lines drawn before anybody chooses.
FIRST_LINES = 5


class Others(NamedTuple):
    """What numbers that may stand side by side have in common beside images and group."""

    seed: int
    level: float
    masked: bool
    """whether images and maps were cut to the inscribed disc"""
    interpolation: str
    units: int | None
    """number of clusters, where those are the unit of uncertainty"""


@dataclass(frozen=True)
class Context:
    """What numbers have in common that may stand side by side: the images and the group."""

    label: str
    data: str
    group: str
    elements: Elements
    samples: str
    fingerprints: int
    """how many different sets of images the models saw under these words; more than 1 is not paired"""
    name: str
    """of the images in the suite, else the last part of `data`"""
    spread: int | None
    """over how many points M was taken, where the same images were measured with several numbers of them"""
    others: Others
    """what else the numbers have in common"""

    @property
    def images(self) -> str:
        """How many images, in words; nobody knows of failed cells."""
        return "images" if self.samples == "0" else images_of(self.samples, self.others.units)

    @property
    def settings(self) -> tuple[Any, ...]:
        """Everything that the numbers have in common but the images and how many they are."""
        return self.group, *self.others, self.spread


@dataclass(frozen=True)
class Entity:
    """What a line is drawn for: a model, or the mean over a family."""

    label: str
    family: str | None = None
    seed: int | None = None
    step: float | None = None
    members: tuple[int, ...] = ()
    """the family's models; empty for a model"""
    model: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Cell:
    """One number: a model's Result, or a family's mean."""

    entity: int
    context: int
    slot: int | None
    """None for a failed cell whose taps were never known"""
    tap: str
    kind: str
    variant: str
    reading: Result | Mean


@dataclass(frozen=True)
class Run:
    """Checkpoints of one training, or of a family of them: (step, entity) by step."""

    label: str
    points: tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class Contents:
    """Everything that is shown, with all names made printable."""

    contexts: tuple[Context, ...]
    entities: tuple[Entity, ...]
    slots: tuple[Slot, ...]
    cells: tuple[Cell, ...]
    """one for each Result, in their order"""
    means: tuple[Cell, ...]
    runs: tuple[Run, ...]
    chosen: tuple[int, ...]
    """the entities to look at first"""
    repeated: int
    """lines left out because the same number stands there twice"""

    @property
    def models(self) -> tuple[Entity, ...]:
        """The models, without the families."""
        return tuple(e for e in self.entities if not e.members)


Identity = tuple[Any, ...]


def contents_of(results: Sequence[Result]) -> Contents:
    """Return what a page and its figures show of these results.

    Raises
    ------
    DataError
        If a record holds something else than its schema says; the model and tap are named.
    """
    for r in results:
        _check(r)
    keys = _context_keys(results)
    contexts = _contexts(results, keys)
    hashes = {_who(r): r.model["sha256"] for r in results if r.model.get("sha256")}
    places: dict[Identity, int] = {}
    models: list[Mapping[str, Any]] = []
    once: dict[Identity, tuple[Any, ...]] = {}
    repeated = 0
    kept: list[tuple[int, int, Result]] = []
    for r, key in zip(results, keys, strict=True):
        context = contexts[key][0]
        # a failed cell may not know the file's hash
        who = (*_who(r), r.model.get("sha256") or hashes.get(_who(r)))
        copy = 0
        # the same cell a second time is another reading of the model, unless it is the same number
        while (again := (who, copy, context, str(r.tap["name"]), r.variant)) in once and once[again] != _same(r):
            copy += 1
        if again in once:
            repeated += 1
            continue
        once[again] = _same(r)
        if (who, copy) not in places:
            places[who, copy] = len(models)
            models.append({**r.model, "copy": copy})
        kept.append((places[who, copy], context, r))
    entities = _entities(models)
    taps: dict[int, list[tuple[str, str]]] = {}
    for entity, _, r in kept:
        if r.tap["name"] != "*":
            taps.setdefault(entity, []).append((_kind(r), clean(r.tap["name"])))
    slots = slots_of(taps)
    cells = []
    for e, c, r in kept:
        tap, kind = clean(r.tap["name"]), _kind(r)
        cells.append(Cell(e, c, slots.places.get((e, (kind, tap))), tap, kind, clean(r.variant), r))
    families = _families(entities)
    first = len(entities)
    entities = [*entities, *families]
    means = tuple(_means(cells, families, first))
    runs = _runs(entities)
    return Contents(
        tuple(_labelled([c for _, c in contexts.values()])),
        tuple(entities),
        slots.slots,
        tuple(cells),
        means,
        runs,
        _chosen(entities, runs, cells, means),
        repeated,
    )


def _kind(r: Result) -> str:
    return clean(r.tap.get("kind") or "")


def _same(r: Result) -> tuple[Any, ...]:
    return r.key, r.value, r.low, r.high, r.calibrated, r.reason, r.calibrated_reason


def _check(r: Result) -> None:
    """Refuse a record whose fields are not of the kinds that the schema gives them."""

    def wrong(what: str, value: object, expected: str) -> DataError:
        tap = r.tap.get("name") if isinstance(r.tap, Mapping) else r.tap
        name = clean(str(r.model.get("path"))[:80] if isinstance(r.model, Mapping) else r.model)
        return DataError(f"the result of {name!r}, tap {clean(tap)!r}: {what} is {value!r:.60}; expected {expected}")

    for name in ("model", "data", "group", "tap", "runtime"):
        if not isinstance(getattr(r, name), Mapping):
            raise wrong(name, getattr(r, name), "an object")
    for where, name in ((r.tap, "name"), (r.group, "name"), (r.data, "uri")):
        if not isinstance(where.get(name), str):
            raise wrong(name, where.get(name), "a text")
    if not isinstance(r.variant, str):
        raise wrong("variant", r.variant, "a text")
    for name in ("value", "low", "high", "level", "optimum", "spread", "floor", "null", "calibrated", "calibrated_low",
                 "calibrated_high", "sensitivity", "zero_channels", "law_defect"):  # fmt: skip
        if not _number(value := getattr(r, name), nothing=name != "level"):
            raise wrong(name, value, "a number or null")
    for name in ("per_element", "floor_per_element", "null_per_element"):
        rows = getattr(r, name)
        if rows is not None and not (isinstance(rows, tuple) and rows and all(_number(v, nothing=False) for v in rows)):
            raise wrong(name, rows, "a list of numbers")
        if rows is not None and len(rows) != len(r.per_element or ()):
            raise wrong(name, rows, f"{len(r.per_element or ())} numbers, as many as in per_element")
    step = r.model.get("step")
    if not _number(step):
        raise wrong("model.step", step, "a number")
    for name in ("samples", "seed"):
        if not isinstance(getattr(r, name), int):
            raise wrong(name, getattr(r, name), "a whole number")
    for name in ("spread_samples", "units"):
        if not isinstance(getattr(r, name), int | None):
            raise wrong(name, getattr(r, name), "a whole number or null")


def _number(value: object, *, nothing: bool = True) -> bool:
    if value is None:
        return nothing
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _who(r: Result) -> Identity:
    return (r.label, *(str(r.model.get(k)) for k in ("path", "family", "seed", "step")))


def _context_keys(results: Sequence[Result]) -> list[Identity]:
    """Return what each result has in common with those beside it; a failed cell is counted to where it was meant."""
    keys: list[Identity] = [
        (r.data["uri"], r.group["name"], r.seed, r.samples, r.level, str(r.data.get("mask")), r.interpolation, r.units)
        for r in results
    ]
    # relative to M over 10 points and over 200 are two things; where all have the same, it goes without saying
    spreads: dict[Identity, set[int]] = {}
    for r, key in zip(results, keys, strict=True):
        if r.spread_samples is not None:
            spreads.setdefault(key, set()).add(r.spread_samples)
    keys = [
        (*key, r.spread_samples if len(spreads.get(key, ())) > 1 else None)
        for r, key in zip(results, keys, strict=True)
    ]
    meant: dict[Identity, Identity] = {}
    for r, key in zip(results, keys, strict=True):
        if not r.failed:
            meant.setdefault(key[:3], key)
    return [meant.get(key[:3], key) if r.failed else key for r, key in zip(results, keys, strict=True)]


def _contexts(results: Sequence[Result], keys: Sequence[Identity]) -> dict[Identity, tuple[int, Context]]:
    prints: dict[Identity, set[str]] = {}
    orders: dict[Identity, int] = {}
    for r, key in zip(results, keys, strict=True):
        prints.setdefault(key, set())
        if r.data.get("fingerprint"):
            prints[key].add(str(r.data["fingerprint"]))
        order = len(r.per_element) if r.per_element else r.group.get("order")
        if isinstance(order, int):
            orders[key] = max(order, orders.get(key, 0))
    found: dict[Identity, tuple[int, Context]] = {}
    for r, key in zip(results, keys, strict=True):
        if key in found:
            continue
        data, group = clean(r.data["uri"]), clean(r.group["name"])
        mask = f", {IN_DISC}" if r.data.get("mask") else ""
        resampled = f", {clean(r.interpolation)}" if r.interpolation != "bilinear" else ""
        at = "" if r.level == 0.95 else f", intervals at {r.level:g}"
        count = images_of(r.samples, r.units) if r.samples else "images"
        spread = "" if key[-1] is None else f", M over {key[-1]} points"
        label = f"{group} on {count} of {data}{mask}{resampled}{spread}, seed {r.seed}{at}"
        elements = elements_of(r.group["name"], orders.get(key, 0))
        context = Context(
            label,
            data,
            group,
            elements,
            str(r.samples),
            len(prints[key]),
            clean(r.data.get("name") or data.rstrip("/").rpartition("/")[2] or data),
            key[-1],
            Others(r.seed, r.level, bool(r.data.get("mask")), clean(r.interpolation), r.units),
        )
        found[key] = (len(found), context)
    return found


def _labelled(contexts: Sequence[Context]) -> list[Context]:
    """Shorten labels to what tells contexts apart, with the file's name for the data."""
    names = [c.data.rstrip("/").rpartition("/")[2] or c.data for c in contexts]
    distinct = len(set(zip(names, [c.data for c in contexts], strict=True))) == len(set(names))
    short = [c.label.replace(c.data, n if distinct else c.data, 1) for c, n in zip(contexts, names, strict=True)]
    seeds = {c.others.seed for c in contexts}
    if len(seeds) == 1:
        short = [s.replace(f", seed {c.others.seed}", "", 1) for s, c in zip(short, contexts, strict=True)]
    if len(set(short)) < len(short):
        return list(contexts)
    return [replace(c, label=s) for c, s in zip(contexts, short, strict=True)]


def _entities(models: Sequence[Mapping[str, Any]]) -> list[Entity]:
    paths = [str(m.get("path")) for m in models]
    stems = [p.replace("\\", "/").rpartition("/")[2].removesuffix(".onnx") or p for p in paths]
    unique = dict(zip(paths, stems, strict=True))
    short = len(set(unique.values())) == len(unique)
    labels = [
        str(m.get("name") or (stem if short else path)) for m, stem, path in zip(models, stems, paths, strict=True)
    ]
    seen: dict[str, int] = {}
    found = []
    for m, label in zip(models, labels, strict=True):
        seen[label] = seen.get(label, 0) + 1
        shown = clean(label) if seen[label] == 1 else f"{clean(label)} ({seen[label]})"
        family, seed = m.get("family"), m.get("seed")
        found.append(
            Entity(
                shown,
                None if family is None else clean(family),
                seed if isinstance(seed, int) else None,
                m.get("step"),
                model=m,
            )
        )
    return found


def _families(entities: Sequence[Entity]) -> list[Entity]:
    """Return the families of two models or more, at each step."""
    groups: dict[tuple[str, float | None], list[int]] = {}
    for i, e in enumerate(entities):
        if e.family is not None:
            groups.setdefault((e.family, e.step), []).append(i)
    found = []
    for (family, step), members in groups.items():
        seeds = {entities[i].seed for i in members}
        # one seed measured twice is no family
        if len(members) > 1 and (len(seeds) == len(members) or seeds == {None}):
            at = "" if step is None else f" at step {step:g}"
            found.append(Entity(f"{family}, mean of {len(members)}{at}", family, None, step, tuple(members)))
    return found


def _means(cells: Sequence[Cell], families: Sequence[Entity], first: int) -> list[Cell]:
    of = {m: first + i for i, f in enumerate(families) for m in f.members}
    groups: dict[tuple[int, int, int, str], list[Cell]] = {}
    for c in cells:
        if c.entity in of and c.slot is not None:
            groups.setdefault((of[c.entity], c.context, c.slot, c.variant), []).append(c)
    found = []
    for (entity, context, slot, variant), some in groups.items():
        results = [c.reading for c in some if isinstance(c.reading, Result)]
        found.append(Cell(entity, context, slot, some[0].tap, some[0].kind, variant, mean_of(results)))
    return found


def _runs(entities: Sequence[Entity]) -> tuple[Run, ...]:
    """Return the trainings: a family's means over its seeds, else one family and seed, else names but for the step."""
    groups: dict[str, dict[float, int]] = {}
    within = {m for e in entities for m in e.members}
    for i, e in sorted(enumerate(entities), key=lambda one: not one[1].members):
        if e.step is None or (i in within and not e.members):
            continue
        if e.members:
            label = f"{e.family}, mean of {len(e.members)}"
        elif e.family is not None:
            label = e.family if e.seed is None else f"{e.family}, seed {e.seed}"
        else:
            label = re.sub(rf"0*{re.escape(f'{e.step:g}')}(?!\d)", "·", e.label)
        groups.setdefault(label, {}).setdefault(e.step, i)
    return tuple(Run(label, tuple(sorted(points.items()))) for label, points in groups.items() if len(points) > 1)


def _chosen(
    entities: Sequence[Entity], runs: Sequence[Run], cells: Sequence[Cell], means: Sequence[Cell]
) -> tuple[int, ...]:
    """Return what to draw first: of families and single models, trainings at their last step, the most unlike.

    The first one comes first, then time and again the one furthest from those taken: its calibrated values differ.
    """
    within = {m for e in entities for m in e.members}
    early = {i for run in runs for _, i in run.points[:-1]}
    order = sorted(range(len(entities)), key=lambda i: not entities[i].members)
    left = [i for i in order if i not in within and i not in early]
    if len(left) <= FIRST_LINES:
        return tuple(left)
    values: dict[int, dict[Identity, float]] = {i: {} for i in left}
    for c in (*cells, *means):
        if c.entity in values and c.reading.calibrated is not None:
            values[c.entity][c.context, c.slot, c.variant] = c.reading.calibrated
    taken = [left.pop(0)]
    while left and len(taken) < FIRST_LINES:
        apart = {i: min(_apart(values[i], values[t]) for t in taken) for i in left}
        taken.append(max(left, key=apart.__getitem__))
        left.remove(taken[-1])
    return tuple(sorted(taken, key=order.index))


def _apart(a: Mapping[Identity, float], b: Mapping[Identity, float]) -> float:
    """Return the mean difference of what both have, 0 where they have nothing in common."""
    both = a.keys() & b.keys()
    return sum(abs(a[k] - b[k]) for k in both) / len(both) if both else 0.0
