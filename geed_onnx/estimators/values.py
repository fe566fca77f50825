"""Values, floors, nulls, calibration; what leaving each image out changes in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from geed_onnx.estimators.deviations import Deviations, Floats
from geed_onnx.estimators.intervals import AROUND, REFERENCE, SAMPLE, Change, Estimate, interval
from geed_onnx.estimators.normalising import Normaliser, Spread


@dataclass(frozen=True, eq=False)
class LeftOut:
    """The four means that a number is made of, with all images, and without each.

    Attributes
    ----------
    whole : (E, M, floor, null)
    without : (E, M, floor, null), each (images,)
    ids : tuple[str, ...]
        Of the images, sorted.
    block : (images,) int
        `SAMPLE` or `AROUND`.
    reference : (images,) bool
        Which of them are reference images.
    """

    whole: tuple[Floats, Floats, Floats, Floats]
    without: tuple[Floats, Floats, Floats, Floats]
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
    floor, null : Deviations or None
        The same statistic on resampled and on broken orbits of the reference images.
    reference : tuple[str, ...]
        Ids of the reference images in the sample's order: row i of a broken orbit takes element g from image i + g.
    optimum : float
        The distance's value at equality.
    largest : float
        The distance's least upper bound.
    elements : tuple[int, ...] or None
        The group's elements that the tables' columns stand for; None for all of them.
    """

    sample: Deviations
    normaliser: Normaliser
    optimum: float
    largest: float
    spread: Spread | None = None
    floor: Deviations | None = None
    null: Deviations | None = None
    reference: tuple[str, ...] = ()
    elements: tuple[int, ...] | None = None

    @property
    def m(self) -> float:
        """M, or 1 where nothing is normalised."""
        return 1.0 if self.spread is None else self.spread.value

    def normalised(self, mean: float) -> float:
        """Return the value that a mean deviation stands for."""
        return float(self.normaliser.apply(mean, self.m))

    @cached_property
    def left_out(self) -> LeftOut:
        """Each image left out in turn, from the sample, the spread, the floor and the null at once; made once."""
        sample, m = self.sample, self.spread
        ids = sorted({*sample.ids, *(m.ids if m else ())})
        place = {name: i for i, name in enumerate(ids)}
        inside = np.array([place[i] for i in sample.ids], dtype=np.intp)
        n = len(sample)
        per_image = sample.per_image
        mean = float(per_image.mean())
        e = np.full(len(ids), mean)
        e[inside] = (n * mean - per_image) / max(n - 1, 1)
        spreads = np.full(len(ids), self.m)
        if m is not None and len(m.ids) > 2:
            spreads[[place[i] for i in m.ids]] = m.without_each()
        floor, floors = _reference_means(self.floor, self, place, own_row=True)
        null, nulls = _reference_means(self.null, self, place, own_row=False)
        block = np.full(len(ids), AROUND)
        block[inside] = SAMPLE
        reference = np.zeros(len(ids), dtype=np.bool_)
        reference[[place[i] for i in self.reference]] = True
        whole = np.array(mean), np.array(self.m), np.array(floor), np.array(null)
        return LeftOut(whole, (e, spreads, floors, nulls), tuple(ids), block, reference)


def restricted(tables: Tables, elements: Sequence[int]) -> Tables:
    """Return what the same number over some elements of the group alone is made of; f̂, M and the images stay.

    E of eq. (4) is a mean over the group and a value is affine in E, so over the parts of a partition the values'
    mean, weighted by the numbers of elements, is the value over the whole.
    """
    columns = list(elements)

    def of(table: Deviations | None) -> Deviations | None:
        return None if table is None else Deviations(table.ids, table.values[:, columns])

    known = range(tables.sample.values.shape[1]) if tables.elements is None else tables.elements
    return replace(
        tables,
        sample=Deviations(tables.sample.ids, tables.sample.values[:, columns]),
        floor=of(tables.floor),
        null=of(tables.null),
        elements=tuple(known[c] for c in columns),
    )


def value_change(tables: Tables) -> Change:
    """Return how leaving each image out changes the G-EED."""
    return leaving_out(tables, lambda e, m, floor, null: tables.normaliser.apply(e, m), with_reference=False)


def calibrated_change(tables: Tables) -> Change:
    """Return how leaving each image out changes the calibrated value."""
    apply = tables.normaliser.apply
    return leaving_out(
        tables, lambda e, m, floor, null: (apply(e, m) - apply(floor, m)) / (apply(null, m) - apply(floor, m))
    )


def value_of(tables: Tables, level: float) -> Estimate:
    """Return the G-EED with its interval, which carries M's uncertainty too."""
    change = value_change(tables)
    hard = (tables.optimum, tables.largest)
    if tables.spread is not None:
        # E/M is bounded only where the optimum is 0 (M is uncertain itself)
        hard = (0.0 if tables.normalised(tables.optimum) == 0 else -np.inf, np.inf)
    return interval(change, level, len(tables.sample), hard, one_image(tables))


def one_image(tables: Tables) -> tuple[float, float]:
    """Return the (least, largest) value that one image could have, at the M that was measured."""
    ends = [tables.normalised(m) for m in (tables.optimum, tables.largest)]
    return min(ends), max(ends)


@dataclass(frozen=True)
class Calibration:
    """(value − floor)/(null − floor), or the reason why there is none."""

    estimate: Estimate | None
    reason: str | None


def calibrated(tables: Tables, level: float, resolution: float) -> Calibration:
    """Return the calibrated value: 0 as equivariant as the grid allows, 1 no better than unrelated images.

    Where null − floor is below `resolution`, or its own interval holds 0, there is none: an insensitive network.
    """
    if tables.null is None or len(tables.reference) < 2:
        return Calibration(None, "not calibrated: a null needs at least two reference images (--reference-samples)")
    apply = tables.normaliser.apply
    # a negative M (centred features) turns the scale over, which says nothing of sensitivity
    way = -1.0 if apply(1.0, tables.m) < apply(0.0, tables.m) else 1.0
    gap = leaving_out(tables, lambda e, m, floor, null: way * (apply(null, m) - apply(floor, m)))
    # the floor of perfect resampling is the optimum itself; 'told from 0' is judged on the reference images
    error = math.sqrt(gap.variance)
    t = float(special.stdtrit(max(gap.degrees, 1.0), 0.5 + level / 2))
    if not gap.value > resolution or gap.value <= t * error:
        return Calibration(
            None,
            f"not calibrated: null − floor is {gap.value:.3g} (± {t * error:.2g}), not told from 0: the network hardly"
            " tells one image from another here, so its value says little of symmetry",
        )
    floor, null = (tables.optimum if t is None else t.mean for t in (tables.floor, tables.null))
    floor, null = tables.normalised(floor), tables.normalised(null)
    hidden = sorted((end - floor) / (null - floor) for end in one_image(tables))
    return Calibration(
        interval(calibrated_change(tables), level, len(tables.sample), hidden=(hidden[0], hidden[1])), None
    )


def leaving_out(
    tables: Tables,
    statistic: Callable[[Floats, Floats, Floats, Floats], Any],
    *,
    with_reference: bool = True,
) -> Change:
    """Leave out each image in turn, from the sample, the spread, the floor and the null at once.

    `statistic` maps the four means (E, M, floor, null), each (images,), to values.
    """
    left = tables.left_out
    value = float(statistic(*left.whole))
    with np.errstate(divide="ignore", invalid="ignore"):
        without = np.asarray(statistic(*left.without), dtype=np.float64)
    change = np.where(np.isfinite(without), value - without, 0.0)
    block = np.where(left.reference, REFERENCE, left.block) if with_reference else left.block
    return Change.of(value, left.ids, change, block)


def _reference_means(
    table: Deviations | None, tables: Tables, place: Mapping[str, int], *, own_row: bool
) -> tuple[float, Floats]:
    """Return a reference level and its value without each image (all images; unchanged where one is not in it)."""
    if table is None:
        return tables.optimum, np.full(len(place), tables.optimum)
    mean = float(table.values.mean())
    without = np.full(len(place), mean)
    row_of = {name: i for i, name in enumerate(table.ids)}
    values = table.values[[row_of[i] for i in tables.reference]]
    n, order = values.shape
    if n > 1:
        rows, elements = np.indices((n, order))
        if tables.elements is not None:
            elements = np.broadcast_to(np.array(tables.elements, dtype=np.intp), (n, order))
        source = rows if own_row else (rows + elements) % n
        for i, name in enumerate(tables.reference):
            kept = (rows != i) & (source != i)
            if kept.any():
                without[place[name]] = values[kept].mean()
    return mean, without
