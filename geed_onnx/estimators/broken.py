"""The null's table: deviations on broken orbits, and what each column loses when an image is left out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geed_onnx.estimators.deviations import Deviations, Floats, merge


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
        return Broken(
            *(Deviations(t.ids, t.values[:, list(elements)]) for t in (self.values, self.taken, self.lost, self.twice))
        )

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
