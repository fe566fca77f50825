"""Deviations keyed by image: the tables that every statistic is a pure function of, and their union.

The null's is of broken orbits, and knows what each column loses when an image is left out of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geed_onnx.errors import MeasureError

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Deviations:
    """m(f(gx), ρ(g) f̂(x)) for every image and element: a commutative monoid under `merge`.

    `merge(a, b) == merge(b, a)`; `merge(empty(n), a) == a`; merging a table with itself changes nothing.

    Attributes
    ----------
    ids : tuple[str, ...]
        Sorted, each once.
    values : (len(ids), |G|) float64
    """

    ids: tuple[str, ...]
    values: Floats

    @classmethod
    def empty(cls, order: int) -> Deviations:
        """Return the neutral element for a group of this order."""
        return cls((), np.zeros((0, order)))

    @classmethod
    def of(cls, ids: Sequence[str], values: Floats) -> Deviations:
        """Return the table of these rows, sorted by id.

        Raises
        ------
        MeasureError
            If an id occurs twice with different values.
        """
        table = cls.empty(values.shape[1])
        return merge(table, cls(tuple(ids), np.asarray(values, dtype=np.float64)))

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        # the generated comparison of two arrays has no truth value
        if not isinstance(other, Deviations) or self.ids != other.ids:
            return False
        return np.array_equal(self.values, other.values, equal_nan=True)

    def columns(self, elements: Sequence[int]) -> Deviations:
        """Return the table of some elements alone; f̂ stays as it was."""
        return Deviations(self.ids, self.values[:, list(elements)])

    @property
    def per_image(self) -> Floats:
        """Mean over the group for every image, (n,): the paper's inner sum of eq. (4), identity included."""
        means: Floats = self.values.mean(axis=1)
        return means

    @property
    def per_element(self) -> Floats:
        """Mean over the images for every element, (|G|,)."""
        means: Floats = self.values.mean(axis=0)
        return means

    @property
    def mean(self) -> float:
        """E(f, G) of eq. (4), before any normaliser."""
        return float(self.per_image.mean())


def merge(a: Deviations, b: Deviations) -> Deviations:
    """Return the union of two tables by image id.

    Raises
    ------
    MeasureError
        If the two hold different values for one image, or are of groups of different order.
    """
    if a.values.shape[1] != b.values.shape[1]:
        raise MeasureError(f"tables of groups of order {a.values.shape[1]} and {b.values.shape[1]} do not merge")
    rows: dict[str, Floats] = {}
    for table in (a, b):
        for name, row in zip(table.ids, table.values, strict=True):
            if name in rows and not np.array_equal(rows[name], row, equal_nan=True):
                raise MeasureError(f"image {name!r} occurs twice with different deviations; ids must be unique")
            rows[name] = row
    ids = tuple(sorted(rows))
    values = np.array([rows[i] for i in ids]) if ids else np.zeros((0, a.values.shape[1]))
    return Deviations(ids, values)


@dataclass(frozen=True, eq=False)
class Broken:
    """Deviations on broken orbits by image and element: a commutative monoid under `merge`, as `Deviations` is.

    An image stands in several broken orbits.  Leaving it out takes its elements out of them, and their deviations are
    formed again around an f̂ without it; its own orbit goes whole where no f̂ is left, or no other two images.

    Attributes
    ----------
    values : Deviations
        (R, |G|): row i is the broken orbit around image i.
    taken : Deviations
        (R, |G|): by how much each column's sum falls when image i is left out.
    lost : Deviations
        (R, |G|): how many entries of each column go with it.
    twice : Deviations
        (R, |G|): Σ over images of its square is the variance of a column's sum that leaving images out counts twice.
    """

    values: Deviations
    taken: Deviations
    lost: Deviations
    twice: Deviations

    @classmethod
    def of(cls, ids: Sequence[str], values: Floats, taken: Floats, lost: Floats, twice: Floats) -> Broken:
        """Return the table of these rows, sorted by id."""
        return cls(*(Deviations.of(ids, part) for part in (values, taken, lost, twice)))

    def __len__(self) -> int:
        return len(self.values)

    def merge(self, other: Broken) -> Broken:
        """Return the union by image id; `MeasureError` where one image has two different rows."""
        return Broken(
            merge(self.values, other.values),
            merge(self.taken, other.taken),
            merge(self.lost, other.lost),
            merge(self.twice, other.twice),
        )

    def columns(self, elements: Sequence[int]) -> Broken:
        """Return the table of some elements alone; f̂ stays as it was."""
        return Broken(*(t.columns(elements) for t in (self.values, self.taken, self.lost, self.twice)))

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the images, sorted."""
        return self.values.ids

    def left(self, units: npt.NDArray[np.intp], count: int) -> tuple[float, Floats]:
        """Return the null, and the null without each of `count` units, whose numbers by image are `units`, (R,).

        For each element the mean over what is left, then the mean over the elements; NaN where one has nothing left.
        """
        taken, lost = (np.zeros((count, self.values.values.shape[1])) for _ in range(2))
        np.add.at(taken, units, self.taken.values)
        np.add.at(lost, units, self.lost.values)
        total, rows = self.values.values.sum(axis=0), len(self) - lost
        with np.errstate(divide="ignore", invalid="ignore"):
            without: Floats = np.where(rows > 0, (total - taken) / rows, np.nan).mean(axis=1)
        return float(self.values.per_element.mean()), without

    def left_twice(self, units: npt.NDArray[np.intp], count: int) -> Floats:
        """Return the null without what leaving each unit out counts twice, (count,).

        Where an orbit goes whole with its image, that is the orbit; else a number with the variance of the interplay.
        """
        own, rows = np.bincount(units, self.twice.per_image, count), np.bincount(units, minlength=count)
        with np.errstate(divide="ignore", invalid="ignore"):
            left = self.values.mean - (own - rows * self.twice.mean) / (len(self) - rows)
        found: Floats = np.where(rows < len(self), left, np.nan)
        return found
