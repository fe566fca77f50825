"""Intervals from leave-one-out changes: the unit of uncertainty is the image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from geed_onnx.estimators.deviations import Floats

METHOD = "jackknife over images, Hall's skewness correction, Student t"
#: Of a difference: the farther end of two intervals, to either side.
HULL = "jackknife over images, hull of Student's t and Hall's skewness correction"
EXACT = "none needed: exact by construction"
#: How the method of an interval begins that no variance went into.
NO_VARIANCE = "no variance"


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; an end that is not known is None (one image; a distance without a largest value)."""

    value: float
    low: float | None
    high: float | None
    level: float
    method: str
    n: int


#: What float64 cannot tell from 0, relative to a value (or to 1).
ROUNDING = 1e-12
#: Blocks of images that were drawn alike: those of the reference levels, the rest of the sample, points for M alone.
REFERENCE, SAMPLE, AROUND = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Change:
    """How far a statistic moves when one image is left out: value minus the value without it, image by image.

    Images of one block were drawn alike; blocks differ in which parts of the statistic they enter.  Changes of two
    statistics over the same images subtract: the change of a difference is the difference of the changes, which is what
    makes comparisons paired.

    Attributes
    ----------
    value : float
    ids : tuple[str, ...]
        Sorted.
    changes : (len(ids),) float64
    block : (len(ids),) int
        `REFERENCE`, `SAMPLE` or `AROUND`.
    shared : (len(ids),) float64
        What of the changes is counted with several images, as numbers of the same variance (`Broken.twice`).
    """

    value: float
    ids: tuple[str, ...]
    changes: Floats
    block: npt.NDArray[np.int8]
    shared: Floats

    @classmethod
    def of(
        cls,
        value: float,
        ids: tuple[str, ...],
        changes: Floats,
        block: npt.NDArray[Any],
        shared: Floats | float = 0.0,
    ) -> Change:
        """Return the changes as they are; by default nothing of them is shared."""
        some = np.asarray(changes, dtype=np.float64)
        return cls(
            value,
            ids,
            some,
            np.asarray(block, dtype=np.int8),
            np.broadcast_to(np.asarray(shared, dtype=np.float64), some.shape),
        )

    @property
    def blocks(self) -> tuple[Floats, ...]:
        """The changes block by block."""
        parts = (self.changes[self.block == b] for b in (REFERENCE, SAMPLE, AROUND))
        return tuple(part for part in parts if len(part))

    @cached_property
    def jackknife(self) -> float:
        """Jackknife variance: Σ over blocks of (n−1)/n Σ(u − ū)², the changes u centred within their block."""
        return sum(v for v, _ in self._parts)

    @cached_property
    def variance(self) -> float:
        """The jackknife variance, less what it counts twice (Efron and Stein 1981).

        Of a statistic with main effects a of the images and interplay b of two, the jackknife has Var a + 2 Var b.

        - Broken orbits of three images and more: Var b is that of `shared`, see `broken_null`.
        - Of two, an orbit goes whole with its image and loses an entry with its partner.  h_i the orbit around i and
          s how far on the partner stands, the mean of h has the variance (Var h + 2 Cov(h_i, h_i+s))/n, and the
          jackknife (2 Var h + 2 Cov)/n: one Var h too much, and `shared` is h.

        Of chance the difference can come near 0 in small samples; half of the jackknife variance, which is what is left
        of pure interplay, always stays.
        """
        n = int((self.block == REFERENCE).sum())
        own = self.shared[self.block == REFERENCE]
        twice = (n - 1) / n * float(((own - own.mean()) ** 2).sum()) if n > 1 else 0.0
        return max(self.jackknife - twice, self.jackknife / 2)

    @cached_property
    def degrees(self) -> float:
        """Welch-Satterthwaite degrees of freedom of `jackknife`."""
        low = sum(v * v / d for v, d in self._parts)
        return self.jackknife**2 / low if low > 0 else 1.0

    @cached_property
    def degrees_kurtic(self) -> float:
        """Satterthwaite's degrees of freedom 2 V²/Var V of `jackknife`, with the kurtosis that the changes show.

        Var s² = σ⁴ (2/(n − 1) + γ₂/n), γ₂ the excess kurtosis by its unbiased cumulants (Box 1953), no less than 0: a
        variance to which few of the images contribute is known as well as one of so few.
        """
        low = 0.0
        for u, (v, d) in zip((u for u in self._centred if len(u) > 1), self._parts, strict=True):
            n, square = len(u), float(u @ u)
            excess = 0.0
            if n > 3 and square > 0:
                heavy = n * float((u**4).sum()) / square**2 - 3
                excess = max((n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * heavy + 6), 0.0)
            low += v * v * (2 / d + excess / n)
        return 2 * self.jackknife**2 / low if low > 0 else 1.0

    @cached_property
    def skewness(self) -> float:
        """Third standardised cumulant of the statistic itself (n^−½ of one image's)."""
        third = sum(float((u**3).sum()) for u in self._centred)
        return third / self.jackknife**1.5 if self.jackknife > 0 else 0.0

    @cached_property
    def skewness_jackknifed(self) -> float:
        """`skewness` less its bias (Quenouille 1956): Σ over blocks of (n−1)(s − mean of s without each image).

        The skewness of a small sample of a skewed population is far too small: its tail is seldom in it.
        """
        blocks, whole, variance = self._centred, self.skewness, self.jackknife
        if variance == 0:
            return 0.0
        found = whole
        for u in blocks:
            n = len(u)
            if n < 4:
                continue
            mean = -u / (n - 1)  # of the rest of a centred block
            second, third = float(u @ u), float((u**3).sum())
            squares = second - u * u * n / (n - 1)
            cubes = third - u**3 - 3 * mean * (second - u * u) - 3 * mean**2 * u - (n - 1) * mean**3
            # both as k-statistics of n − 1 images, on the scale of n
            v = variance - (n - 1) / n * second + (n - 1) ** 2 / (n * (n - 2)) * squares
            k = whole * variance**1.5 - third + (n - 1) ** 2 / (n * (n - 3)) * cubes
            known = v > 1e-9 * variance
            without = np.where(known, k, 0.0) / np.where(known, v, 1.0) ** 1.5
            found += (n - 1) * (whole - float(without.mean()))
        return found

    @cached_property
    def _centred(self) -> tuple[Floats, ...]:
        return tuple(u - u.mean() for u in self.blocks)

    @cached_property
    def _parts(self) -> list[tuple[float, int]]:
        """Return (variance, degrees of freedom) of each block that has any."""
        return [((len(u) - 1) / len(u) * float(u @ u), len(u) - 1) for u in self._centred if len(u) > 1]


def interval(
    change: Change,
    level: float,
    n: int,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    hidden: tuple[float, float] | None = None,
    *,
    exact: bool = False,
) -> Estimate:
    """Return the two-sided interval at `level` of a statistic over n images (or clusters of them).

    Student's t with Hall's (1992) monotone correction for skewness, which deviations always have; kept within the
    bounds that no value can leave.  A sample without variance proves nothing of the images that are not in it: see
    `without_variance`.

    Parameters
    ----------
    change
        What leaving each image out changes.
    n
        Number of images, or of clusters where those are the unit.
    bounds
        What no value can leave.
    hidden : (least, largest)
        The values that one image could have, on the statistic's scale; infinite or None where they are not known.
    exact
        Whether the value is what it is by construction, whatever the images: `[v, v]`.
    """
    v = change.value
    if exact:
        return Estimate(v, v, v, level, EXACT, n)
    if n < 2:
        return Estimate(v, None, None, level, "none: one image", n)
    error = math.sqrt(change.variance)
    if not math.isfinite(error):
        return Estimate(v, None, None, level, "none: without some image nothing is left to compare", n)
    if is_constant(change):
        return without_variance(v, level, n, hidden)
    t, skew = student(change.degrees, level), change.skewness
    low, high = v - error * _hall(t, skew), v - error * _hall(-t, skew)
    return Estimate(v, min(max(low, bounds[0]), v), max(min(high, bounds[1]), v), level, METHOD, n)


def is_constant(change: Change) -> bool:
    """Say whether all images of a sample share one value, to what float64 can tell."""
    return math.sqrt(change.variance) <= ROUNDING * max(1.0, abs(change.value))


def wider(a: Estimate, b: Estimate) -> Estimate:
    """Return a with ends that reach as far as those of b too; an end that either does not know is unknown."""
    low = None if a.low is None or b.low is None else min(a.low, b.low)
    high = None if a.high is None or b.high is None else max(a.high, b.high)
    return replace(a, low=low, high=high, method=b.method if (low, high) != (a.low, a.high) else a.method)


def reach(change: Change, level: float) -> float:
    """Return the half width of Student's interval at `level`; infinite where the changes tell nothing of it."""
    if not np.isfinite(change.changes).all() or len(change.ids) < 2:
        return math.inf
    return student(change.degrees, level) * math.sqrt(change.variance)


def hull(change: Change, level: float, n: int, hidden: tuple[float, float] | None = None) -> Estimate:
    """Return the interval at `level` of a difference of two statistics over the same n images.

    A difference is skewed to either side, or heavy-tailed on both, and a small sample does not show which: Hall's
    correction alone calls 7 to 27 % of differences real that are not, t alone up to 19 %.  So each end reaches as far
    as the farthest of

    - Student's t, here as below with the degrees of freedom that the kurtosis of the changes leaves (`degrees_kurtic`):
      where 5 % of 50 images carry all, the others' zeros tell nothing of the variance;
    - Hall's (1992) correction at the sample's skewness, and at that less its jackknifed bias;
    - the first-order correction of Johnson (1978), t + |s| (2t² + 1)/6, to either side: the sign of the skewness s is
      seldom certain.

    The other way round it is the mirror image.  Without variance: see `without_variance`; `hidden` are the (least,
    largest) differences that one image could have.
    """
    v, error = change.value, math.sqrt(change.variance)
    if n < 2:
        return Estimate(v, None, None, level, "none: one image", n)
    if is_constant(change):
        return without_variance(v, level, n, hidden)
    t, skew = student(change.degrees_kurtic, level), change.skewness
    either = t + abs(skew) * (2 * t * t + 1) / 6
    skews = skew, change.skewness_jackknifed
    below = max(either, *(_hall(t, s) for s in skews))
    above = max(either, *(-_hall(-t, s) for s in skews))
    return Estimate(v, v - error * below, v + error * above, level, HULL, n)


def without_variance(v: float, level: float, n: int, hidden: tuple[float, float] | None) -> Estimate:
    """Return the interval of a value v that all n images of a sample share.

    Of all images at most p = 1 − ((1 − level)/2)^(1/n) can be unlike these with that chance of having missed them all
    (Clopper and Pearson 1934), and those may have the least or the largest value that there is: v + p (extreme − v).
    Where that is not known, so is the end: None.
    """
    p = 1 - ((1 - level) / 2) ** (1 / n)
    low, high = (v + p * (extreme - v) for extreme in hidden or (-math.inf, math.inf))
    said = f"{NO_VARIANCE} among {n} images: up to {100 * p:.3g} % of all images may be unlike them"
    ends = min(low, v) if math.isfinite(low) else None, max(high, v) if math.isfinite(high) else None
    if None in ends:
        said += ", by how much is not bounded"
    return Estimate(v, *ends, level, said, n)


def student(degrees: float, level: float) -> float:
    """Return Student's t at `level`, two-sided."""
    return float(special.stdtrit(max(degrees, 1.0), 0.5 + level / 2))


def _hall(y: float, skew: float) -> float:
    """Invert Hall's transformation g(T) = T + s(T²/3 + 1/6) + s²T³/27 of a Student statistic T at y."""
    if abs(skew) < 1e-8:
        return y
    return float(3 / skew * (np.cbrt(1 + skew * (y - skew / 6)) - 1))
