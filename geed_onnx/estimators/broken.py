"""The null's table: deviations on broken orbits, and what each column loses when an image is left out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geed_onnx.estimators.deviations import Deviations, Floats, merge


@dataclass(frozen=True, eq=False)
class Broken:
    """Deviations on broken orbits by image and element: a commutative monoid under `merge`, as `Deviations` is.

    An image stands in several broken orbits.  Leaving it out takes its own orbit away, and its elements out of those of
    its block; the deviations of these are formed again around an f̂ without it.

    Attributes
    ----------
    values : Deviations
        (R, |G|): row i is the broken orbit around image i.
    taken : Deviations
        (R, |G|): by how much each column's sum falls when image i is left out.
    lost : Deviations
        (R, |G|): how many entries of each column go with it.
    """

    values: Deviations
    taken: Deviations
    lost: Deviations

    @classmethod
    def of(cls, ids: Sequence[str], values: Floats, taken: Floats, lost: Floats) -> Broken:
        """Return the table of these rows, sorted by id."""
        return cls(*(Deviations.of(ids, part) for part in (values, taken, lost)))

    def __len__(self) -> int:
        return len(self.values)

    def merge(self, other: Broken) -> Broken:
        """Return the union by image id; `MeasureError` where one image has two different rows."""
        return Broken(
            merge(self.values, other.values), merge(self.taken, other.taken), merge(self.lost, other.lost)
        )

    def columns(self, elements: Sequence[int]) -> Broken:
        """Return the table of some elements alone; f̂ stays as it was."""
        return Broken(*(Deviations(t.ids, t.values[:, list(elements)]) for t in (self.values, self.taken, self.lost)))

    def without(self, rows: Sequence[int]) -> float:
        """Return the null without the images of these rows: for each element the mean over what is left, then the mean.

        NaN where an element has nothing left.
        """
        total = self.values.values.sum(axis=0) - self.taken.values[rows].sum(axis=0)
        count = len(self) - self.lost.values[rows].sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.where(count > 0, total / count, np.nan).mean())
