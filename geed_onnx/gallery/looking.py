"""One job looked at: orbits run through the model again, held against the tables, and kept as exhibits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geed_onnx.actions import masked
from geed_onnx.distances import CHANNEL_COSINE
from geed_onnx.engine import Plan
from geed_onnx.engine.passes import Runner
from geed_onnx.errors import MeasureError
from geed_onnx.gallery.exhibits import Array, Bytes, Exhibit, FeatureMaps, Floats
from geed_onnx.gallery.jobs import Job, worst_element
from geed_onnx.gallery.opening import ROWS, Bound, Reopened, checked_finite, class_names
from geed_onnx.gallery.pictures import element_names, pictures, shown_elements
from geed_onnx.variants import compared, kernel_mean, log_probabilities

#: Elements of a large group whose pictures are kept.
MOST_SHOWN = 24
#: How far a deviation may be from the one in the table, relative to the largest of its image: on the same provider,
#: and on another one.
REPEATS, ELSEWHERE = 1e-3, 5e-2
#: The same relative to what is compared, which float32 rounds.
ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Response:
    """What one tap makes of one orbit."""

    centre: Array
    """(1, …) f̂(x)"""
    outputs: Mapping[int, Array]
    """{g: (1, …) f(gx)} of the elements that were kept"""
    deviations: Mapping[int, float]
    """{g: m(f(gx), ρ(g) f̂(x))} of the same"""


def look(job: Job, opened: Reopened, channels: int) -> Iterator[Exhibit | FeatureMaps]:
    """Yield the exhibits of a job, the worst image first, then its feature maps for that image.

    Raises
    ------
    GeedError
        If the model does not run, or does not give what was measured.
    """
    maps: FeatureMaps | None = None
    for rank, image in enumerate(job.images, 1):
        x = opened.plan.prepare(opened.raw[image])
        bounds = [opened.exhibit, *([opened.map] if opened.map is not None and rank == 1 else [])]
        kept = [_kept(b, image, opened.plan.group.order) for b in bounds]
        responses = respond(opened.plan, bounds, x, kept)
        for bound, response in zip(bounds, responses, strict=True):
            _repeats(opened.plan, bound, image, response)
        if len(bounds) > 1:
            maps = _feature_maps(opened.plan, bounds[1], image, x, responses[1], channels)
        yield _exhibit(opened, bounds[0], image, rank, x, responses[0])
    if maps is not None:
        yield maps


def _kept(bound: Bound, image: str, order: int) -> tuple[int, ...]:
    """Return the elements whose f(gx) is kept: all of them, unless the tap is a map and the group is large."""
    if _whole(bound):
        return tuple(range(order))
    return shown_elements(order, [worst_element(_row(bound, image))], MOST_SHOWN)


def _whole(bound: Bound) -> bool:
    """Return whether f(gx) is kept for every g: of anything but a map."""
    return bool(bound.cell.result.tap["kind"] != "map")


def _is_raw(bound: Bound) -> bool:
    """Return whether the tap's values are as they came, and no logarithms of probabilities."""
    return bool(bound.cell.result.tap["kind"] != "probability")


def _row(bound: Bound, image: str) -> Floats:
    """Return the deviations of an image in the table, (|G|,)."""
    table = bound.cell.deviations
    row: Floats = table.values[table.ids.index(image)]
    return row


# --- forward passes ---------------------------------------------------------------------------------------------


def respond(plan: Plan, bounds: Sequence[Bound], x: Array, kept: Sequence[Sequence[int]]) -> list[Response]:
    """Run the orbit of x `(*shape)` and return what each tap makes of it; one micro-batch is in memory at a time."""
    runner = Runner(plan, None, plan.group.order)
    outputs: list[dict[int, Array]] = [{} for _ in bounds]
    totals: list[Array | None] = [None for _ in bounds]
    for start in range(0, plan.group.order, ROWS):
        elements = range(start, min(start + ROWS, plan.group.order))
        found = runner.run(np.concatenate([plan.acting(g, x[None]) for g in elements]))
        for i, bound in enumerate(bounds):
            y = _understood(plan, bound, found[bound.tap])
            for g, row in zip(elements, y, strict=True):
                if not _whole(bound) and g in bound.action.kernel and len(bound.action.kernel) > 1:
                    before = totals[i]
                    totals[i] = row.astype(np.float64) if before is None else before + row
                if g == 0 or g in kept[i]:
                    outputs[i][g] = row[None].copy()
    responses = []
    for bound, some, total, wanted in zip(bounds, outputs, totals, kept, strict=True):
        if _whole(bound):
            centre = kernel_mean([some[g] for g in range(len(some))], bound.action.kernel, bound.variant.m.mean)
        else:
            centre = some[0] if total is None else total[None] / len(bound.action.kernel)
        values = compared(some, centre, bound.action, bound.variant.m, list(wanted))[0]
        responses.append(Response(centre, some, {g: float(v) for g, v in zip(wanted, values, strict=True)}))
    return responses


def _understood(plan: Plan, bound: Bound, y: Array) -> Array:
    """Return a tap's values `(rows, …)` as they were understood when they were measured."""
    result = bound.cell.result
    if list(y.shape[1:]) != list(result.tap["shape"]):
        raise MeasureError(
            f"tap {bound.tap!r} comes as {y.shape[1:]} now, and came as {tuple(result.tap['shape'])} when measured"
        )
    checked_finite(bound.tap, y)
    if result.tap["kind"] == "map":
        return masked(y, plan.masked)
    return log_probabilities(y, logits=bool(result.logits)) if result.tap["kind"] == "probability" else y


def _repeats(plan: Plan, bound: Bound, image: str, response: Response) -> None:
    """Refuse a response that is not the one that was measured."""
    row, result = _row(bound, image), bound.cell.result
    same = plan.session.facts.provider == result.runtime.get("provider")
    size = float(np.linalg.norm(response.centre)) if bound.variant.m.homogeneous and _is_raw(bound) else 1.0
    room = (REPEATS if same else ELSEWHERE) * float(np.abs(row).max()) + (1 if same else 100) * ROUNDING * size
    for g, value in response.deviations.items():
        if not abs(value - row[g]) <= room:
            raise MeasureError(
                f"image {image!r} does not give what was measured: at {bound.tap!r}, element {g}, {value:.6g} now and"
                f" {row[g]:.6g} then; what the measurement was told (--constant, --input, --layout, --act) may differ"
            )


# --- exhibits ---------------------------------------------------------------------------------------------------


def _exhibit(opened: Reopened, bound: Bound, image: str, rank: int, x: Array, response: Response) -> Exhibit:
    plan, result, table = opened.plan, bound.cell.result, bound.cell.deviations
    row = _row(bound, image)
    shown = shown_elements(plan.group.order, [worst_element(row)], MOST_SHOWN)
    orbit, notes = _pictures(plan, x, shown)
    if len(shown) < plan.group.order:
        notes = (*notes, f"{len(shown)} of {plan.group.order} elements are shown, the worst among them")
    scores, expected = _scores(bound, response)
    return Exhibit(
        model=result.label,
        data=str(result.data["uri"]),
        group=plan.group.name,
        tap=bound.tap,
        kind=str(result.tap["kind"]),
        variant=result.variant,
        image=image,
        rank=rank,
        samples=len(table),
        deviation=float(row.mean()),
        average=table.mean,
        optimum=bound.variant.m.optimum,
        elements=element_names(plan.group),
        per_element=row.copy(),
        shown=shown,
        orbit=orbit,
        scores=scores,
        expected=expected,
        classes=None if scores is None else class_names(opened.metadata, opened.folder, scores.shape[1]),
        notes=notes,
    )


def _pictures(plan: Plan, x: Array, elements: Sequence[int]) -> tuple[Bytes | None, tuple[str, ...]]:
    """Return pictures of gx for these elements, and notes on how they were made; None where x is no image."""
    if x.ndim != 3:
        return None, ("the model's input is no image, so there are no pictures",)
    return pictures(np.concatenate([plan.acting(g, x[None]) for g in elements]), plan.feed.preprocessing)


def _scores(bound: Bound, response: Response) -> tuple[Floats | None, tuple[int, ...] | None]:
    """Return the class probabilities `(|G|, classes)` along the orbit and the class of ρ(g) f(x) for every g."""
    if _is_raw(bound) or response.outputs[0].ndim != 2:
        return None, None
    elements = bound.action.group.elements
    scores = np.exp(np.concatenate([response.outputs[g] for g in elements]))
    moved = [bound.action(g, response.outputs[0])[0] for g in elements]
    return scores, tuple(int(np.argmax(m)) for m in moved)


def _feature_maps(plan: Plan, bound: Bound, image: str, x: Array, response: Response, channels: int) -> FeatureMaps:
    result, row = bound.cell.result, _row(bound, image)
    g = worst_element(row)
    moved, after = bound.action(g, response.centre), response.outputs[g]
    gaps = after.astype(np.float64) - moved
    cosines: Floats = -CHANNEL_COSINE(after, moved)[0]
    # channels that agree alike, as all do in an equivariant network, are told apart by how far they are off
    off = np.linalg.norm(gaps[0].reshape(len(cosines), -1), axis=1)
    order = np.lexsort((np.arange(len(cosines)), -off, np.round(cosines, 6)))[:channels]
    three = [part[0][order].astype(np.float32) for part in (response.centre, moved, after)]
    return FeatureMaps(
        model=result.label,
        data=str(result.data["uri"]),
        group=plan.group.name,
        tap=bound.tap,
        variant=result.variant,
        image=image,
        element=g,
        element_name=element_names(plan.group)[g],
        deviation=float(row[g]),
        optimum=bound.variant.m.optimum,
        action=bound.action.name,
        averaged=len(bound.action.kernel),
        total=len(cosines),
        channels=tuple(int(c) for c in order),
        before=three[0],
        moved=three[1],
        after=three[2],
        difference=gaps[0][order].astype(np.float32),
        low=tuple(min(float(p[i].min()) for p in three) for i in range(len(order))),
        high=tuple(max(float(p[i].max()) for p in three) for i in range(len(order))),
        images=_pictures(plan, x, (0, g))[0],
        cosines=tuple(float(c) for c in cosines[order]),
    )
