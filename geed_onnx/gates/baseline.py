"""Held against a baseline: the same cell of an earlier measurement, and how much worse the new one is.

With d = value − optimum (the deviation above the optimum; for calibrated values d is the value itself), a result is
worse by more than r where d_new − (1 + r) d_base > 0, judged at the lower end of that statistic's interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from geed_onnx.errors import UsageError, suggestion
from geed_onnx.estimators import Change, hull, interval
from geed_onnx.gates.threshold import Threshold
from geed_onnx.results import CellTables, Collection, Result, finite
from geed_onnx.variants import parse_variant, range_of

#: Differences below this are none, whatever a distance says of itself.
SLACK = 1e-9


class Found(NamedTuple):
    """The baseline's result of a cell, or the reason why there is none to hold it against."""

    result: Result | None
    reason: str | None


@dataclass(frozen=True)
class Excess:
    """d_new − (1 + r) d_base with its interval.

    Attributes
    ----------
    value : float
    low, high : float or None
        None where an end is not known.
    limit : float
        optimum + (1 + r) d_base: what the value may be at most.
    paired : bool
        Whether the two were compared image by image, or their intervals taken as independent.
    """

    value: float
    low: float | None
    high: float | None
    limit: float
    paired: bool
    rescaled: bool = False
    """whether the ends were made of printed intervals at another level"""


class Ends(NamedTuple):
    """Both ends of an interval, None where one is not known."""

    low: float | None
    high: float | None
    rescaled: bool = False
    """whether they were made of the printed interval by Student's t, for want of tables"""


def ends_at(result: Result, on: Literal["value", "calibrated"], level: float, tables: CellTables | None) -> Ends:
    """Return the ends of a result's interval at a level.

    At its own level they are those of the result; so are they where the value is exact.  At others they are made anew
    from the tables, and without those moved away from the value as Student's t over the images moves them.
    """
    prefix = "calibrated_" if on == "calibrated" else ""
    low, high = (finite(getattr(result, f"{prefix}{end}")) for end in ("low", "high"))
    value = finite(getattr(result, on))
    if level == result.level or value is None or low == value == high:
        return Ends(low, high)
    change, n = None if tables is None else getattr(tables, on), result.unit_count
    if change is not None:
        found = interval(change, level, n, hidden=range_of(result, on))
        return Ends(finite(found.low), finite(found.high))
    wider = float(
        special.stdtrit(max(n - 1, 1), 0.5 + level / 2) / special.stdtrit(max(n - 1, 1), 0.5 + result.level / 2)
    )
    low, high = (None if end is None else value + wider * (end - value) for end in (low, high))
    return Ends(low, high, rescaled=True)


def find(result: Result, baseline: Collection) -> Found:
    """Return the baseline's result of the same cell: model, tap, variant, group, and the same images.

    The model is the one of the same name; where the baseline holds one model only, it is that one, whatever its name
    (yesterday's release beside today's).  The tap is the one of the same name, else of the same module path.
    """
    models = {r.label for r in baseline.results}
    if result.label in models:
        label = result.label
    elif len(models) == 1:
        [label] = models
    else:
        near = suggestion(result.label, models)
        return Found(None, f"the baseline has no model {result.label!r}{near}")
    wanted = f"{result.variant} for {result.group['name']}"
    same = [
        r
        for r in baseline.results
        if r.label == label and r.variant in (result.variant, "*") and r.group["name"] == result.group["name"]
    ]
    taps = _same_tap(result, same)
    if not taps:
        failed = next((r for r in same if r.failed), None)
        if failed is not None:
            return Found(None, f"the baseline's {label!r} was not measured: {failed.reason}")
        if not same:
            return Found(None, f"the baseline's {label!r} has no {wanted}")
        near = suggestion(str(result.tap["name"]), [str(r.tap["name"]) for r in same])
        return Found(None, f"the baseline's {label!r} has no {wanted} of {result.tap['name']!r}{near}")
    return _one_of(result, taps)


def _same_tap(result: Result, candidates: Sequence[Result]) -> list[Result]:
    named = [r for r in candidates if r.tap["name"] == result.tap["name"]]
    module = result.tap.get("module")
    return named or [r for r in candidates if module and r.tap.get("module") == module]


def _one_of(result: Result, taps: Sequence[Result]) -> Found:
    """Return the one of these that was measured on the same images, alike."""
    failed = [r for r in taps if r.failed or r.value is None]
    if len(failed) == len(taps):
        return Found(None, f"the baseline has no value: {failed[-1].reason}")
    images = [r for r in taps if r.value is not None and r.data.get("fingerprint") == result.data.get("fingerprint")]
    if not images or result.data.get("fingerprint") is None:
        other = next(r for r in taps if r.value is not None)
        return Found(
            None,
            f"not the same images: {_images(result)} here, {_images(other)} in the baseline; measure both with the same"
            " data, --samples and --seed",
        )
    alike = [r for r in images if r.data.get("mask") == result.data.get("mask")]
    if not alike:
        return Found(
            None, f"measured with mask {result.data.get('mask')} here and {images[0].data.get('mask')} in the baseline"
        )
    alike = [r for r in alike if r.data.get("cluster") == result.data.get("cluster")]
    if not alike:
        return Found(None, f"clusters of {result.data.get('cluster')!r} here, and others in the baseline (--cluster)")
    found = [r for r in alike if r.interpolation == result.interpolation]
    if not found:
        said = f"{result.interpolation} interpolation here and {alike[0].interpolation} in the baseline"
        return Found(None, f"measured with {said}")
    # the same seed and reference images tell repeated measurements apart
    same = [r for r in found if (r.seed, r.reference_samples) == (result.seed, result.reference_samples)] or found
    if len({(r.value, r.calibrated) for r in same}) > 1:
        return Found(None, f"the baseline holds {len(same)} results for it, with different values; keep one")
    return Found(same[-1], None)


def _images(result: Result) -> str:
    mark = str(result.data.get("fingerprint"))[:8]
    return f"{result.data.get('samples')} of {result.data.get('uri')} ({mark}…)"


def refuse_moving_optimum(threshold: Threshold) -> None:
    """Refuse a relative threshold on raw values whose optimum depends on the network.

    Raises
    ------
    UsageError
        For variants such as `latent-cosine`, whose optimum is −1/M: a deviation above it is on the scale of each
        network's own M, and "2 % worse" would compare two scales.
    """
    if not threshold.relative or threshold.on == "calibrated":
        return
    if parse_variant(threshold.variant).optimum_moves:
        raise UsageError(
            f"threshold {threshold.text}: the optimum of {threshold.variant} moves with the network's own spread M, so"
            " raw values of two networks have no common scale to be worse on; use latent-cosine-bounded, or"
            f" calibrated:{threshold.variant}"
        )


def excess(
    threshold: Threshold,
    new: Result,
    base: Result,
    tables: tuple[CellTables | None, CellTables | None],
    level: float,
) -> Excess | str:
    """Return how much worse than (1 + r) times the baseline's deviation a result's is, at a level, or why not.

    With tables on both sides the two are compared image by image: leaving out an image changes d_new − (1 + r) d_base
    by the one change minus (1 + r) times the other (`hull`).  Without, the intervals are taken as independent and
    combined by MOVER (Zou & Donner 2008), which for images in common is wider, so that less is shown to be worse.  A
    result against itself is exact.
    """
    on = threshold.on
    value, before = finite(getattr(new, on)), finite(getattr(base, on))
    if value is None:
        return "there is no value"
    if before is None:
        why = (base.calibrated_reason if on == "calibrated" else None) or base.reason
        return f"the baseline has no {'calibrated ' if on == 'calibrated' else ''}value: {why}"
    optimum, best = (0.0, 0.0) if on == "calibrated" else (finite(new.optimum), finite(base.optimum))
    if optimum is None or best is None:
        return "no optimum to measure the deviation from"
    factor = 1 + threshold.limit
    # rounding can leave a perfect baseline a hair below its optimum
    limit = optimum + factor * max(before - best, 0.0)
    worse = value - limit
    if new.key is not None and new.key == base.key and value == before:
        return Excess(worse, worse, worse, limit, True)
    pairs = _paired(on, new, tables)
    if pairs is not None:
        (least, most), (least_base, most_base) = range_of(new, on), range_of(base, on)
        hidden = least - limit - factor * (most_base - before), most - limit - factor * (least_base - before)
        found = hull(weighted(*pairs.changes, worse, factor), level, pairs.units, hidden)
        return Excess(worse, found.low, found.high, limit, True)
    ends, base_ends = ends_at(new, on, level, tables[0]), ends_at(base, on, level, tables[1])
    low, high, base_low, base_high = *ends[:2], *base_ends[:2]
    rescaled = ends.rescaled or base_ends.rescaled
    if low is None or high is None or base_low is None or base_high is None:
        return Excess(worse, None, None, limit, False, rescaled)
    down = math.hypot(value - low, factor * (base_high - before))
    up = math.hypot(high - value, factor * (before - base_low))
    return Excess(worse, worse - down, worse + up, limit, False, rescaled)


class _Pairs(NamedTuple):
    changes: tuple[Change, Change]
    units: int


def _paired(on: str, result: Result, tables: tuple[CellTables | None, CellTables | None]) -> _Pairs | None:
    """Return the changes of both, where both are known over the same images."""
    new, base = tables
    if new is None or base is None or new.deviations.ids != base.deviations.ids:
        return None
    a, b = getattr(new, on), getattr(base, on)
    return None if a is None or b is None else _Pairs((a, b), result.unit_count)


def weighted(new: Change, base: Change, value: float, factor: float) -> Change:
    """Return how leaving each image out changes new − factor · base, which is `value`.

    An image that one of the two does not hold (a spread point of the other alone) changes nothing in it.
    """
    ids = tuple(sorted({*new.ids, *base.ids}))
    place = {name: i for i, name in enumerate(ids)}
    changes, shared = np.zeros(len(ids)), np.zeros(len(ids))
    block = np.full(len(ids), np.iinfo(np.int8).max, dtype=np.int8)
    for change, weight in ((new, 1.0), (base, -factor)):
        rows = [place[i] for i in change.ids]
        changes[rows] += weight * change.changes
        shared[rows] += weight * change.shared
        block[rows] = np.minimum(block[rows], change.block)
    return Change.of(value, ids, changes, block, shared)


def resolution(threshold: Threshold, result: Result) -> float:
    """Return the difference that rounding of float32 features can make, on the scale that is judged.

    A network that is equivariant by construction has deviations of that size, and 2 % of them is noise.
    """
    size = parse_variant(threshold.variant).m.resolution
    if threshold.on == "calibrated" and result.null is not None and result.floor is not None:
        size /= max(abs(result.null - result.floor), size)
    return max(SLACK, size)
