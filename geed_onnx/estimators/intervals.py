"""Intervals from leave-one-out changes: the unit of uncertainty is the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from geed_onnx.estimators.deviations import Floats

METHOD = "jackknife over images, Hall's skewness correction, Student t"


@dataclass(frozen=True)
class Estimate:
    """A value with its interval: `low`, `high` are None where one image tells nothing of uncertainty."""

    value: float
    low: float | None
    high: float | None
    level: float
    method: str
    n: int


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
    """

    value: float
    ids: tuple[str, ...]
    changes: Floats
    block: npt.NDArray[np.int8]

    @classmethod
    def of(cls, value: float, ids: tuple[str, ...], changes: Floats, block: npt.NDArray[Any]) -> Change:
        """Return the changes as they are."""
        return cls(value, ids, np.asarray(changes, dtype=np.float64), np.asarray(block, dtype=np.int8))

    @property
    def blocks(self) -> tuple[Floats, ...]:
        """The changes block by block."""
        parts = (self.changes[self.block == b] for b in (REFERENCE, SAMPLE, AROUND))
        return tuple(part for part in parts if len(part))

    @property
    def _centred(self) -> tuple[Floats, ...]:
        return tuple(u - u.mean() for u in self.blocks if len(u) > 1)

    @property
    def variance(self) -> float:
        """Jackknife variance: Σ over blocks of (n−1)/n Σ change²."""
        return float(sum((len(u) - 1) / len(u) * float(u @ u) for u in self._centred))

    @property
    def degrees(self) -> float:
        """Welch-Satterthwaite degrees of freedom of `variance`."""
        parts = [((len(u) - 1) / len(u) * float(u @ u), len(u) - 1) for u in self._centred]
        low = sum(v * v / d for v, d in parts)
        return sum(v for v, _ in parts) ** 2 / low if low > 0 else 1.0

    @property
    def skewness(self) -> float:
        """Third standardised cumulant of the statistic itself (n^−½ of one image's)."""
        third = sum(float((u**3).sum()) for u in self._centred)
        return third / self.variance**1.5 if self.variance > 0 else 0.0


def interval(
    change: Change,
    level: float,
    n: int,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    *,
    hidden: tuple[float, float] | None = None,
    exact: bool = False,
) -> Estimate:
    """Return the two-sided interval at `level` from leave-one-out changes.

    Student's t with Hall's (1992) monotone correction for skewness, which deviations always have; kept within the
    bounds that no value can leave.  Without variance (a perfect model) it is `[v, v]`.
    """
    v = change.value
    if n < 2:
        return Estimate(v, None, None, level, "none: one image", n)
    error = math.sqrt(change.variance)
    if error <= 1e-12 * max(1.0, abs(v)):
        return Estimate(v, v, v, level, METHOD, n)
    t = float(special.stdtrit(max(change.degrees, 1.0), 0.5 + level / 2))
    skew = change.skewness
    low, high = v - error * _hall(t, skew), v - error * _hall(-t, skew)
    return Estimate(v, min(max(low, bounds[0]), v), max(min(high, bounds[1]), v), level, METHOD, n)


def reach(change: Change, level: float) -> float:
    """Return the half width of Student's interval at `level`; infinite where the changes tell nothing of it."""
    if not np.isfinite(change.changes).all() or len(change.ids) < 2:
        return math.inf
    return float(special.stdtrit(max(change.degrees, 1.0), 0.5 + level / 2)) * math.sqrt(change.variance)


def _hall(y: float, skew: float) -> float:
    """Invert Hall's transformation g(T) = T + s(T²/3 + 1/6) + s²T³/27 of a Student statistic T at y."""
    if abs(skew) < 1e-8:
        return y
    return float(3 / skew * (np.cbrt(1 + skew * (y - skew / 6)) - 1))
