"""Which models, images and taps are worth a look: settled from a collection's tables, before any file is opened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from geed_onnx.errors import UnknownName
from geed_onnx.estimators import Deviations
from geed_onnx.results import Collection, Result
from geed_onnx.variants import KINDS

#: A map smaller than this is a handful of numbers, not a picture.
LEAST_SIDE = 4
#: Data sets and groups of each model that are shown, in the mean.
PER_MODEL = 2
MODELS_NAMED = 5
_NOT_KEPT = ", so that the worst images are not known: measure with geed-onnx run, which keeps them"


@dataclass(frozen=True, eq=False)
class Cell:
    """One result with its deviations by image and element."""

    result: Result
    deviations: Deviations

    @property
    def tap(self) -> str:
        """Name of the tensor."""
        return str(self.result.tap["name"])


@dataclass(frozen=True, eq=False)
class Job:
    """One model, data set and group that is opened again."""

    exhibit: Cell
    """by which images are ranked: the class scores, else the latent, else the last map"""
    map: Cell | None
    """whose feature maps are shown"""
    images: tuple[str, ...]
    """ids, the worst first"""

    @property
    def result(self) -> Result:
        """The result that says which model, data and group."""
        return self.exhibit.result

    @property
    def label(self) -> str:
        """Model and group, as they are named in reasons."""
        return f"{self.result.label} · {self.result.group['name']}"


def choose_jobs(collection: Collection, *, limit: int, models: int, tap: str | None) -> tuple[list[Job], list[str]]:
    """Return what to open, and reasons for what is left out.

    Raises
    ------
    UnknownName
        If no result is of the tap asked for; the message says which near names there are.
    """
    if tap is not None:
        _known(tap, collection.results)
    reasons: list[str] = []
    rows = [r for r in collection.results if r.value is not None and not r.failed and _complete(r)]
    if rows and not collection.files:
        return [], [f"the deviations by image were not kept{_NOT_KEPT}"]
    by_model = _last_first(_grouped(rows, _model))
    left = [some[0].label for some in by_model[models:]]
    if left:
        listed = ", ".join(left[:MODELS_NAMED]) + (", …" if len(left) > MODELS_NAMED else "")
        reasons.append(f"the first {models} of {len(by_model)} models are shown; left out: {listed}")
    # every model's first data set and group come before any model's second
    turns = zip_longest(*(_grouped(some, _place) for some in by_model[:models]))
    places = [some for turn in turns for some in turn if some is not None]
    most = PER_MODEL * models
    if len(places) > most:
        said = ", ".join(f"{some[0].label} · {some[0].group['name']}" for some in places[most : most + MODELS_NAMED])
        more = ", …" if len(places) > most + MODELS_NAMED else ""
        reasons.append(f"{most} of {len(places)} pairs of model and group are shown; left out: {said}{more}")
    jobs = []
    for some in places[:most]:
        job = _job(collection, some, limit, tap)
        if isinstance(job, str):
            reasons.append(job)
        else:
            jobs.append(job)
            if job.map is None:
                reasons.append(f"{job.label}: no feature maps: {_no_map(tap)}")
    # those of one model lie together
    order = {_model(some[0]): i for i, some in enumerate(by_model)}
    return sorted(jobs, key=lambda job: order[_model(job.result)]), reasons


def _last_first(by_model: list[list[Result]]) -> list[list[Result]]:
    """Return the models, of each training run its last checkpoint before every earlier one of any run."""

    def run(result: Result) -> tuple[str, str]:
        return str(result.model.get("family")), str(result.model.get("seed"))

    def step(result: Result) -> float:
        found = result.model.get("step")
        return float(found) if isinstance(found, (int, float)) else float("inf")

    last: dict[tuple[str, str], float] = {}
    for some in by_model:
        last[run(some[0])] = max(step(some[0]), last.get(run(some[0]), 0.0))
    return sorted(by_model, key=lambda some: step(some[0]) < last[run(some[0])])


def _complete(result: Result) -> bool:
    """Say whether a line says what it takes to open it again; a file that others made may hold anything."""
    tap, shape = result.tap, result.tap.get("shape")
    return (
        all(isinstance(text, str) for text in (result.data.get("uri"), result.group.get("name"), tap.get("name")))
        and tap.get("kind") in KINDS
        and isinstance(shape, list)
        and all(isinstance(side, int) for side in shape)
    )


def _job(collection: Collection, results: Sequence[Result], limit: int, tap: str | None) -> Job | str:
    cells = []
    for result in results:
        tables = collection.tables(result)
        if tables is not None and len(tables.deviations):
            cells.append(Cell(result, tables.deviations))
    if not cells:
        first = results[0]
        return f"{first.label} · {first.group['name']}: the deviations by image were not kept{_NOT_KEPT}"
    exhibit = _ranking(cells)
    return Job(exhibit, _map(cells, tap), worst_images(exhibit.deviations, limit))


def worst_images(table: Deviations, limit: int) -> tuple[str, ...]:
    """Return the ids of the images that deviate most in the mean over the group, the worst first, ties by id."""
    order = np.argsort(-table.per_image, kind="stable")
    return tuple(table.ids[int(i)] for i in order[:limit])


def worst_element(row: Iterable[float]) -> int:
    """Return the element that deviates most among those that are not the identity; 0 in the trivial group."""
    others = list(row)[1:]
    return 1 + int(np.argmax(others)) if others else 0


def _ranking(cells: Sequence[Cell]) -> Cell:
    for kind in ("probability", "vector", "map"):
        some = [c for c in cells if c.result.tap["kind"] == kind]
        if some:
            # the last tap of its kind, the first of its variants: softmax, latent-l2, channelwise
            return next(c for c in some if c.tap == some[-1].tap)
    return cells[-1]


def _map(cells: Sequence[Cell], tap: str | None) -> Cell | None:
    maps = [c for c in cells if c.result.tap["kind"] == "map" and len(c.result.tap["shape"]) == 3]
    if tap is not None:
        return next((c for c in maps if _named(tap, c.result)), None)
    large = [c for c in maps if min(c.result.tap["shape"][1:]) >= LEAST_SIDE]
    return next((c for c in large if c.tap == large[-1].tap), None)


def _no_map(tap: str | None) -> str:
    if tap is not None:
        return f"no map of the name {tap!r} was measured"
    return f"no map of at least {LEAST_SIDE}×{LEAST_SIDE} was measured"


def _named(tap: str, result: Result) -> bool:
    names = [n for n in (result.tap.get("name"), result.tap.get("module")) if n]
    return tap in names or tap in [f"{n}:map" for n in names]


def _known(tap: str, results: Sequence[Result]) -> None:
    if any(_named(tap, r) for r in results):
        return
    maps = [r for r in results if r.tap.get("kind") == "map"]
    names = {str(n) for r in maps for n in (r.tap["name"], r.tap.get("module")) if n}
    raise UnknownName("tap", tap, names, "feature maps are shown of maps that were measured")


def _grouped(results: Sequence[Result], key: Callable[[Result], str]) -> list[list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(key(result), []).append(result)
    return list(found.values())


def _model(result: Result) -> str:
    return json.dumps([result.label, result.model.get("sha256"), result.model.get("path")])


def _place(result: Result) -> str:
    data = {k: result.data.get(k) for k in ("uri", "fingerprint", "samples", "preprocessing", "mask")}
    return json.dumps([data, result.group["name"], result.interpolation, result.seed], sort_keys=True)
