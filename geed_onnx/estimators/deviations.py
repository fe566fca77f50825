"""Deviations keyed by image: the table that every statistic is a pure function of, and its union."""

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
