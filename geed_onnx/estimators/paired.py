"""Differences of two numbers with intervals: paired by image, by seed, or not at all; and their equivalence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geed_onnx.errors import MeasureError, UsageError
from geed_onnx.estimators.intervals import ROUNDING, Change, Estimate, hull, student

PAIRED = "paired by image: "
MOVER = "unpaired: MOVER (Zou and Donner 2008) of the two intervals"
WELCH = "Welch t over models"
#: What an interval over models does not cover.
SHARED = "the models share their images, so it says nothing of other images"


# --- two numbers over the same images ---------------------------------------------------------------------------


def change_of_difference(a: Change, b: Change) -> Change:
    """Return how leaving each image out changes a − b.

    Raises
    ------
    MeasureError
        If the two are not over the same images, or the images do not enter them alike.
    """
    if a.ids != b.ids:
        raise MeasureError(
            f"a paired difference needs the same images: {len(a.ids)} and {len(b.ids)}, of which"
            f" {len(set(a.ids) & set(b.ids))} are in both"
        )
    if not np.array_equal(a.block, b.block):
        raise MeasureError("a paired difference needs the same reference images and the same spread points")
    return Change.of(a.value - b.value, a.ids, a.changes - b.changes, a.block, a.shared - b.shared)


def difference(a: Change, b: Change, level: float, n: int, hidden: tuple[float, float] | None = None) -> Estimate:
    """Return a − b over the same n images, with the two-sided interval at `level` (`hull`).

    `difference(b, a)` is its mirror image.  What float64 cannot tell from 0 is not called different: such an interval
    holds 0.  Two numbers that differ on no image of the sample may differ on others, by what `hidden` says: the (least,
    largest) difference that one image could have.

    Raises
    ------
    MeasureError
        If the two are not over the same images.
    """
    change = change_of_difference(a, b)
    found = hull(change, level, n, hidden)
    low, high = found.low, found.high
    rounding = ROUNDING * max(1.0, abs(a.value), abs(b.value))
    if abs(found.value) <= rounding and math.sqrt(change.variance) <= rounding:
        low, high = low if low is None else min(low, 0.0), high if high is None else max(high, 0.0)
    method = found.method if found.n < 2 else PAIRED + found.method
    return Estimate(found.value, low, high, level, method, n)


# --- two numbers with nothing but their intervals ---------------------------------------------------------------


def unpaired(a: Estimate, b: Estimate) -> Estimate:
    """Return a − b with an interval recovered from those of a and b, which need not be symmetric (MOVER).

    The two are taken as uncorrelated: over the same images they seldom are, and then the interval is wider than the
    paired one.  Without one of the intervals there is none.

    Raises
    ------
    MeasureError
        If the intervals are of different levels.
    """
    if a.level != b.level:
        raise MeasureError(f"intervals at {a.level:g} and {b.level:g} do not combine; give both at one level")
    value, n = a.value - b.value, min(a.n, b.n)
    if a.low is None or a.high is None or b.low is None or b.high is None:
        why = "none: one image" if n < 2 else "none: an end of one of the two intervals is not known"
        return Estimate(value, None, None, a.level, why, n)
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, value - below, value + above, a.level, MOVER, n)


# --- families: the unit of uncertainty is the model -------------------------------------------------------------


def over_models(values: Sequence[float], level: float, what: str = "models", images: Change | None = None) -> Estimate:
    """Return the mean over models with Student's t interval, as in the paper's figures; for one model, no interval.

    The models share their images, so it covers other models on these images and says nothing of other images.  With
    `images`, what leaving each image out changes in that mean, its jackknife variance is added and the degrees of
    freedom are Welch and Satterthwaite's: the interval, never narrower, then covers other models on other images.
    """
    count, mean = len(values), math.fsum(values) / len(values)
    if count < 2:
        return Estimate(mean, None, None, level, "none: one model", count)
    variance = math.fsum((v - mean) ** 2 for v in values) / (count - 1) / count
    return _over_parts(mean, [(variance, count - 1)], images, level, f"Student t over {count} {what}", count)


def paired_by_model(a: Sequence[float], b: Sequence[float], level: float, images: Change | None = None) -> Estimate:
    """Return mean(a) − mean(b) of models that belong together two by two (the same seeds): t over their differences.

    `images`: what leaving each image out changes in it (see `over_models`).
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return over_models(differences, level, "seeds, paired by seed", images)


def welch(a: Sequence[float], b: Sequence[float], level: float, images: Change | None = None) -> Estimate:
    """Return mean(a) − mean(b) of two families with Welch's interval; none where a family is a single model.

    `images`: what leaving each image out changes in it (see `over_models`).
    """
    value, count = (math.fsum(a) / len(a)) - (math.fsum(b) / len(b)), len(a) + len(b)
    if len(a) < 2 or len(b) < 2:
        return Estimate(value, None, None, level, "none: one model in a family", count)
    parts = [(float(np.var(some, ddof=1)) / len(some), len(some) - 1) for some in (a, b)]
    return _over_parts(value, parts, images, level, f"{WELCH} ({len(a)} and {len(b)})", count)


def _over_parts(
    value: float, parts: list[tuple[float, int]], images: Change | None, level: float, method: str, count: int
) -> Estimate:
    """Return value ± t √(Σ variance), from the (variance, degrees of freedom) of its parts and of the images."""
    said = f"{method}; {SHARED}"
    known: list[tuple[float, float]] = [*parts]
    if images is not None:
        known.append((images.variance, images.degrees))
        said = f"{method}, and jackknife over images"
    if not any(v for v, _ in known):
        return Estimate(value, None, None, level, f"none: no variance among {count} models", count)

    def reach_of(some: Sequence[tuple[float, float]]) -> float:
        total, below = math.fsum(v for v, _ in some), math.fsum(v * v / d for v, d in some)
        return student(total**2 / below, level) * math.sqrt(total) if total > 0 else 0.0

    # the degrees of freedom of many images would make that of few models narrower than it is without them
    reach = max(reach_of(known), reach_of(parts))
    return Estimate(value, value - reach, value + reach, level, said, count)


# --- equivalence ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Equivalence:
    """What an interval of a difference says; both can be true (a difference that is real, and too small to matter)."""

    different: bool
    """whether the interval at `level` leaves out 0"""
    equivalent: bool | None
    """whether two one-sided tests place the difference within (−δ, δ); None without a δ"""

    @property
    def word(self) -> str:
        """`equivalent`, `different`, `different but equivalent` or `undecided`."""
        if self.equivalent:
            return "different but equivalent" if self.different else "equivalent"
        return "different" if self.different else "undecided"


def equivalence(found: Estimate, delta: float | None = None) -> Equivalence:
    """Judge a difference by its interval: is it told from 0, is it within (−δ, δ)?

    The interval lies within (−δ, δ) exactly where two one-sided tests (Schuirmann 1987), each at (1 − level)/2, reject
    both "≤ −δ" and "≥ δ".  That is half of what is usual, because at 1 − level skewed differences at the margin pass in
    8 to 13 % of samples of 20 to 50 images; and so the verdict is what the printed interval shows.

    Parameters
    ----------
    found
        The difference with its two-sided interval at the level of the verdict; an end that is not known proves nothing.
    delta
        δ; None asks only whether they differ.

    Raises
    ------
    UsageError
        If δ is no positive number, or the level is no more than 0.5 with a δ.
    """
    low = -math.inf if found.low is None else found.low
    high = math.inf if found.high is None else found.high
    different = low > 0 or high < 0
    if delta is None:
        return Equivalence(different, None)
    check_margin(delta, found.level)
    return Equivalence(different, -delta < low and high < delta)


def check_margin(delta: float, level: float) -> None:
    """Refuse a δ and a level with which nothing can be shown equivalent.

    Raises
    ------
    UsageError
        If δ is no positive number, or the level is no more than 0.5.
    """
    if not (delta > 0 and math.isfinite(delta)):
        raise UsageError(f"the margin of equivalence must be a positive number, not {delta:g}")
    if level <= 0.5:
        raise UsageError(f"equivalence is tested at a level above 0.5 (0.95 is 95 %), not {level:g}")
