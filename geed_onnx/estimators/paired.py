"""Differences of two numbers with intervals: paired by image, by seed, or not at all; and their equivalence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from geed_onnx.errors import MeasureError, UsageError
from geed_onnx.estimators.intervals import METHOD, Change, Estimate, interval

PAIRED = f"paired by image: {METHOD}"
MOVER = "unpaired: MOVER (Zou and Donner 2008) of the two intervals"
WELCH = "Welch t over models"
#: What float64 cannot tell from 0, relative to the two values (or to 1).
ROUNDING = 1e-12


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
    return Change.of(a.value - b.value, a.ids, a.changes - b.changes, a.block)


def difference(a: Change, b: Change, level: float, n: int) -> Estimate:
    """Return a − b over the same n images, with the two-sided interval at `level`.

    `difference(b, a)` is its mirror image, and a number against itself is 0 with the interval [0, 0].  What float64
    cannot tell from 0 is not called different: such an interval holds 0.

    Raises
    ------
    MeasureError
        If the two are not over the same images.
    """
    change = change_of_difference(a, b)
    found = interval(change, level, n)
    if found.low is None or found.high is None:
        return found
    low, high = found.low, found.high
    rounding = ROUNDING * max(1.0, abs(a.value), abs(b.value))
    if abs(found.value) <= rounding and math.sqrt(change.variance) <= rounding:
        low, high = min(low, 0.0), max(high, 0.0)
    return Estimate(found.value, low, high, level, PAIRED, n)


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
        return Estimate(value, None, None, a.level, "none: one image", n)
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, value - below, value + above, a.level, MOVER, n)


# --- families: the unit of uncertainty is the model -------------------------------------------------------------


def over_models(values: Sequence[float], level: float, what: str = "models") -> Estimate:
    """Return the mean over models with Student's t interval, as in the paper's figures; for one model, no interval."""
    count, mean = len(values), math.fsum(values) / len(values)
    if count < 2:
        return Estimate(mean, None, None, level, "none: one model", count)
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1) / count)
    reach = _t(count - 1, level) * error
    return Estimate(mean, mean - reach, mean + reach, level, f"Student t over {count} {what}", count)


def paired_by_model(a: Sequence[float], b: Sequence[float], level: float) -> Estimate:
    """Return mean(a) − mean(b) of models that belong together two by two (the same seeds): t over their differences."""
    found = over_models([x - y for x, y in zip(a, b, strict=True)], level, "seeds, paired by seed")
    return Estimate(found.value, found.low, found.high, level, found.method, len(a))


def welch(a: Sequence[float], b: Sequence[float], level: float) -> Estimate:
    """Return mean(a) − mean(b) of two families with Welch's interval; none where a family is a single model."""
    one, other = over_models(a, level), over_models(b, level)
    value, count = one.value - other.value, len(a) + len(b)
    if len(a) < 2 or len(b) < 2:
        return Estimate(value, None, None, level, "none: one model in a family", count)
    parts = [(float(np.var(some, ddof=1)) / len(some), len(some) - 1) for some in (a, b)]
    variance = parts[0][0] + parts[1][0]
    if variance == 0:
        return Estimate(value, value, value, level, WELCH, count)
    degrees = variance**2 / sum(v * v / d for v, d in parts)
    reach = _t(degrees, level) * math.sqrt(variance)
    return Estimate(value, value - reach, value + reach, level, f"{WELCH} ({len(a)} and {len(b)})", count)


def _t(degrees: float, level: float) -> float:
    return float(special.stdtrit(degrees, 0.5 + level / 2))


# --- equivalence ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Equivalence:
    """What an interval of a difference says; both can be true (a difference that is real, and too small to matter)."""

    different: bool
    """whether the interval at `level` leaves out 0"""
    equivalent: bool | None
    """whether two one-sided tests at 1 − level place the difference within (−δ, δ); None without a δ"""

    @property
    def word(self) -> str:
        """`equivalent`, `different`, `different but equivalent` or `undecided`."""
        if self.equivalent:
            return "different but equivalent" if self.different else "equivalent"
        return "different" if self.different else "undecided"


def equivalence(at: Callable[[float], Estimate], level: float, delta: float | None = None) -> Equivalence:
    """Judge a difference: is it told from 0, is it within (−δ, δ)?

    Two one-sided tests (Schuirmann 1987), each at 1 − level, reject both "≤ −δ" and "≥ δ" exactly where the two-sided
    interval at 2·level − 1 (90 % for 95 %) lies within (−δ, δ).

    Parameters
    ----------
    at
        The difference with its two-sided interval at any level, as `partial(difference, a, b, n=n)`.
    level
        Of the verdict.
    delta
        δ; None asks only whether they differ.

    Raises
    ------
    UsageError
        If δ is no positive number, or the level is no more than 0.5 with a δ.
    """
    outer = at(level)
    different = outer.low is not None and outer.high is not None and (outer.low > 0 or outer.high < 0)
    if delta is None:
        return Equivalence(different, None)
    check_margin(delta, level)
    inner = at(2 * level - 1)
    within = inner.low is not None and inner.high is not None and -delta < inner.low and inner.high < delta
    return Equivalence(different, within)


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
