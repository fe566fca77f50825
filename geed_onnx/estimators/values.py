"""Values, floors, nulls, calibration; what leaving each image (or cluster of images) out changes in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from geed_onnx.estimators.deviations import Broken, Deviations, Floats
from geed_onnx.estimators.intervals import (
    AROUND,
    REFERENCE,
    SAMPLE,
    Change,
    Estimate,
    interval,
    is_constant,
    reach,
    wider,
    without_variance,
)
from geed_onnx.estimators.normalising import Normaliser, Spread

#: A null that lies above the floor by less than this share of what the distance can tell is that of alike images.
ALIKE = 0.01


@dataclass(frozen=True, eq=False)
class LeftOut:
    """The four means that a number is made of, with all images, and without each unit.

    Attributes
    ----------
    whole : (E, M, floor, null)
    without : (E, M, floor, null), each (units,)
    own : (units,)
        The null without what leaving each unit out counts twice alone (`Broken.left_twice`).
    ids : tuple[str, ...]
        Of the units, sorted: images, or clusters of them.
    block : (units,) int
        `SAMPLE` or `AROUND`.
    reference : (units,) bool
        Which of them hold reference images.
    """

    whole: tuple[Floats, Floats, Floats, Floats]
    without: tuple[Floats, Floats, Floats, Floats]
    own: Floats
    ids: tuple[str, ...]
    block: npt.NDArray[np.intp]
    reference: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Tables:
    """Everything one number is made of.

    Attributes
    ----------
    sample : Deviations
        The measured table.
    spread : Spread or None
        M, where the normaliser wants one.
    floor : Deviations or None
        The same statistic on resampled orbits of the reference images.
    null : Broken or None
        The same statistic on their broken orbits.
    optimum, largest : float
        The distance's value at equality, and the most that it can be for one image.
    scale : float
        Root mean square norm of the features, where the distance is not free of their scale.
    exact : bool
        Whether the value is exact by construction: no element moves anything, so that no image could show more.
    elements : tuple[int, ...] or None
        The group's elements that the tables' columns stand for; None for all of them.
    units : {image id: cluster}
        What is left out together; an image that is not in here is a unit by itself.
    """

    sample: Deviations
    normaliser: Normaliser
    optimum: float
    largest: float
    scale: float = 1.0
    spread: Spread | None = None
    floor: Deviations | None = None
    null: Broken | None = None
    exact: bool = False
    elements: tuple[int, ...] | None = None
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def m(self) -> float:
        """M, or 1 where nothing is normalised."""
        return 1.0 if self.spread is None else self.spread.value

    @property
    def n(self) -> int:
        """The number of units in the sample."""
        return len(set(self._units(self.sample.ids)))

    def normalised(self, mean: float) -> float:
        """Return the value that a mean deviation stands for."""
        return float(self.normaliser.apply(mean, self.m))

    @cached_property
    def left_out(self) -> LeftOut:
        """Each unit left out in turn, from the sample, the spread, the floor and the null at once; made once."""
        m = self.spread
        inside, around = self._units(self.sample.ids), self._units(m.ids if m else ())
        names = tuple(sorted({*inside, *around}))
        place = {name: i for i, name in enumerate(names)}

        def rows(ids: Sequence[str]) -> npt.NDArray[np.intp]:
            return np.array([place[u] for u in self._units(ids)], dtype=np.intp)

        per_image, own = self.sample.per_image, rows(self.sample.ids)
        total, n = float(per_image.sum()), len(per_image)
        count = np.bincount(own, minlength=len(names))
        e = (total - np.bincount(own, per_image, len(names))) / np.maximum(n - count, 1)
        nothing = np.full(len(names), self.optimum)
        floor, floors = (self.optimum, nothing) if self.floor is None else _left(self.floor, rows, len(names))
        null, nulls = (self.optimum, nothing) if self.null is None else self.null.left(rows(self.null.ids), len(names))
        spreads = np.full(len(names), self.m) if m is None else m.left(rows(m.ids), len(names))
        levels = self.null.ids if self.null else self.floor.ids if self.floor else ()
        return LeftOut(
            (np.array(total / n), np.array(self.m), np.array(floor), np.array(null)),
            (e, spreads, floors, nulls),
            np.full(len(names), null) if self.null is None else self.null.left_twice(rows(self.null.ids), len(names)),
            names,
            np.where(count > 0, SAMPLE, AROUND),
            np.isin(np.arange(len(names)), rows(levels)),
        )

    def _units(self, ids: Sequence[str]) -> Sequence[str]:
        """Return the unit of every image."""
        return [self.units.get(name, name) for name in ids] if self.units else ids


def restricted(tables: Tables, elements: Sequence[int]) -> Tables:
    """Return what the same number over some elements of the group alone is made of; f̂, M and the images stay.

    E of eq. (4) is a mean over the group and a value is affine in E, so over the parts of a partition the values'
    mean, weighted by the numbers of elements, is the value over the whole.
    """
    known = range(tables.sample.values.shape[1]) if tables.elements is None else tables.elements
    return replace(
        tables,
        sample=tables.sample.columns(elements),
        floor=None if tables.floor is None else tables.floor.columns(elements),
        null=None if tables.null is None else tables.null.columns(elements),
        elements=tuple(known[c] for c in elements),
    )


def value_change(tables: Tables) -> Change:
    """Return how leaving each unit out changes the G-EED."""
    return leaving_out(tables, lambda e, m, floor, null: tables.normaliser.apply(e, m), with_reference=False)


def calibrated_change(tables: Tables) -> Change:
    """Return how leaving each unit out changes the calibrated value."""
    return leaving_out(tables, lambda e, m, floor, null: _calibrate(tables, e, m, floor, null))


def _calibrate(tables: Tables, e: Any, m: Any, floor: Any, null: Any) -> Any:
    apply = tables.normaliser.apply
    return (apply(e, m) - apply(floor, m)) / (apply(null, m) - apply(floor, m))


def value_of(tables: Tables, level: float) -> Estimate:
    """Return the G-EED with its interval, which carries M's uncertainty too."""
    change = value_change(tables)
    hard = (tables.optimum, tables.largest)
    if tables.spread is not None:
        # E/M is bounded only where the optimum is 0 (M is uncertain itself)
        hard = (0.0 if tables.normalised(tables.optimum) == 0 else -np.inf, np.inf)
    low, high = sorted(tables.normalised(end) for end in (tables.optimum, tables.largest))
    return interval(change, level, tables.n, hard, hidden=(low, high), exact=tables.exact)


def no_spread(tables: Tables, level: float) -> str | None:
    """Return why a value relative to M has none: M is no divisor, or may have either sign and is not told from 0."""
    if tables.spread is None:
        return None
    if len(tables.spread.ids) < 2:
        return "the spread M needs at least two distinct images"
    if (problem := tables.normaliser.problem(tables.spread)) is not None:
        return problem
    if not tables.normaliser.signed:
        return None
    error = reach(leaving_out(tables, lambda e, m, floor, null: m, with_reference=False), level)
    if abs(tables.m) > error:
        return None
    return (
        f"the spread M is {tables.m:.3g} ± {error:.2g}, not told from 0 on {len(tables.spread.ids)} images, and a value"
        " divided by it says nothing: use latent-cosine-bounded, or more points (--spread-samples)"
    )


@dataclass(frozen=True)
class Calibration:
    """(value − floor)/(null − floor), or the reason why there is none."""

    estimate: Estimate | None
    reason: str | None


def calibrated(tables: Tables, level: float, resolution: float) -> Calibration:
    """Return the calibrated value: 0 as equivariant as the grid allows, 1 no better than unrelated images.

    There is none where null − floor is not told from 0 at the level, and the reason is one of three: unrelated images
    are alike here (`insensitive`), there are too few of them to tell (`few images`), or the grid loses more than they
    differ by (`floor above null`).

    Parameters
    ----------
    resolution
        What rounding makes of null − floor, for features of scale 1.
    """
    if tables.null is None:
        return Calibration(None, "not computed: a null needs reference images (--reference-samples), two at the least")
    apply = tables.normaliser.apply
    # a negative M (centred features) turns the scale over, which says nothing of sensitivity
    way = -1.0 if apply(1.0, tables.m) < apply(0.0, tables.m) else 1.0
    gap = leaving_out(tables, lambda e, m, floor, null: way * (apply(null, m) - apply(floor, m)))
    unit = abs(float(apply(1.0, tables.m) - apply(0.0, tables.m)))
    rounding = resolution * tables.scale * unit
    error = reach(gap, level)
    told = f"null − floor is {gap.value:.3g} ± {error:.2g}"
    n = len(tables.null)
    if not math.isfinite(error):
        return Calibration(
            None, f"few images: {n} reference images are too few for an interval of null − floor ({gap.value:.3g})"
        )
    if gap.value < -max(error, rounding):
        return Calibration(
            None,
            f"floor above null: {told}: turning features there and back loses more than unrelated images differ by, so"
            " the grid is too coarse here",
        )
    if gap.value > max(error, rounding):
        found = calibrated_change(tables)
        ends = [float(_calibrate(tables, end, *tables.left_out.whole[1:])) for end in (tables.optimum, tables.largest)]
        hidden = min(ends), max(ends)
        # a floor that no image moves from the optimum is what no value can be below
        least = 0.0 if np.all(tables.left_out.without[2] == tables.optimum) else -np.inf
        estimate = interval(found, level, tables.n, (least, np.inf), hidden, exact=tables.exact)
        if not tables.exact and is_constant(value_change(tables)):
            # only floor and null vary: the value's own sample hides as much here as it does in the value
            estimate = wider(estimate, without_variance(found.value, level, tables.n, hidden))
        return Calibration(estimate, None)
    if gap.value + error <= max(ALIKE * _room(tables) * unit, rounding):
        small = f"below rounding ({rounding:.1g})" if gap.value > error else "not told from 0"
        return Calibration(
            None,
            f"insensitive: {told}, {small}: unrelated images are alike here, so the value says little of symmetry",
        )
    return Calibration(
        None,
        f"few images: {told}, not told from 0 on {n} reference images: unrelated images may or may not be alike here;"
        " more images tell (--samples, --reference-samples)",
    )


def _room(tables: Tables) -> float:
    """Return how far apart the distance can place two things: its range, or else what the features' size makes it."""
    if math.isfinite(tables.largest):
        return tables.largest - tables.optimum
    return tables.scale if tables.spread is None else tables.m


def leaving_out(
    tables: Tables,
    statistic: Callable[[Floats, Floats, Floats, Floats], Any],
    *,
    with_reference: bool = True,
) -> Change:
    """Leave out each unit in turn, from the sample, the spread, the floor and the null at once.

    `statistic` maps the four means (E, M, floor, null), each (units,), to values.  Where what is left gives no value
    (a null of two images without one of them) the change is NaN.
    """
    left = tables.left_out
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*left.whole))
        without = np.asarray(statistic(*left.without), dtype=np.float64)
        own = np.asarray(statistic(*left.whole[:3], left.own), dtype=np.float64)
    change, shared = (value - np.broadcast_to(some, (len(left.ids),)) for some in (without, own))
    block = np.where(left.reference, REFERENCE, left.block) if with_reference else left.block
    return Change.of(value, left.ids, change, block, shared)


def _left(table: Deviations, rows: Callable[[Sequence[str]], npt.NDArray[np.intp]], units: int) -> tuple[float, Floats]:
    """Return the floor, and the floor without each unit, (units,); NaN where nothing is left."""
    per_image, own = table.per_image, rows(table.ids)
    total, left = float(per_image.sum()), len(per_image) - np.bincount(own, minlength=units)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = np.where(left > 0, (total - np.bincount(own, per_image, units)) / left, np.nan)
    return total / len(per_image), without
