"""From deviations to numbers: tables keyed by image, the spread M, jackknife intervals, calibration.

Every statistic here is a pure function of tables keyed by image id, sorted by id before anything is added up, so that
it does not depend, to the last bit, on batch size, order, shards or workers.  The unit of uncertainty is the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import spatial, special

from geed_onnx.errors import MeasureError
from geed_onnx.registry import Registry

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

#: Spread features are compared in float64 a span of dimensions at a time.
SPAN = 1 << 14


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


# --- the spread M -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """M of eq. (6): the mean over pairs i < j of distinct un-transformed points.

    Attributes
    ----------
    value : float
    ids : tuple[str, ...]
        Sorted.
    row_sums : (len(ids),) float64
        Sum over j ≠ i of the pair values of point i: what leaving i out takes away.
    scale : float
        Root mean square norm of the features: what `value` is small or large against.
    """

    value: float
    ids: tuple[str, ...]
    row_sums: Floats
    scale: float

    def without_each(self) -> Floats:
        """Return M without point i, for every i, (K,)."""
        k = len(self.ids)
        total = self.row_sums.sum() / 2
        without: Floats = (total - self.row_sums) / max((k - 1) * (k - 2) / 2, 1)
        return without


def spread(features: Mapping[str, Array], kind: str) -> Spread:
    """Return M over features keyed by image id, each flattened; `kind` is `l2` or `cosine` (positive similarity).

    The result depends on the set of points, not on their order.  Two zero vectors have similarity 1, a zero vector and
    another 0, as in `distances`.
    """
    ids = tuple(sorted(features))
    if len(ids) < 2:
        return Spread(math.nan, ids, np.zeros(len(ids)), math.nan)
    points = np.stack([np.ravel(features[i]) for i in ids])
    squares = np.zeros(len(ids))
    pairs = np.zeros(len(ids) * (len(ids) - 1) // 2)
    for left in range(0, points.shape[1], SPAN):
        part = points[:, left : left + SPAN].astype(np.float64)
        squares += np.vecdot(part, part)
        if kind == "l2":
            pairs += spatial.distance.pdist(part, "sqeuclidean")
        else:
            pairs += (part @ part.T)[np.triu_indices(len(ids), 1)]
    if kind == "l2":
        pairs = np.sqrt(pairs)
    else:
        norms = np.sqrt(squares)
        i, j = np.triu_indices(len(ids), 1)
        scale = norms[i] * norms[j]
        similar = np.clip(pairs / np.where(scale > 0, scale, 1.0), -1.0, 1.0)
        pairs = np.where(scale > 0, similar, np.where((norms[i] == 0) & (norms[j] == 0), 1.0, 0.0))
    sums = spatial.distance.squareform(pairs, checks=False).sum(axis=1)
    return Spread(float(pairs.mean()), ids, sums, float(np.sqrt(squares.mean())))


@dataclass(frozen=True)
class Normaliser:
    """How a mean deviation E becomes a value, given M.

    Attributes
    ----------
    spread : str or None
        Which M it needs: `l2`, `cosine`, or none.
    apply : (E, M) -> value
        Vectorised over both.
    problem : (M) -> str or None
        Why no value comes of this M, in words.
    """

    name: str
    spread: str | None
    apply: Callable[[Any, Any], Any]
    problem: Callable[[Spread], str | None]
    about: str


def _no_spread_l2(m: Spread) -> str | None:
    if not m.value > 1e-6 * m.scale:
        return (
            f"the spread M is {m.value:.3g}, zero beside features of norm {m.scale:.3g}: all images have the same"
            " features here, and a distance relative to their spread has no meaning"
        )
    return None


def _no_spread_cosine(m: Spread) -> str | None:
    if not abs(m.value) > 1e-9:
        return f"the mean cosine similarity M is {m.value:.3g}: −c/M has no meaning; use latent-cosine-bounded"
    return None


def _no_spread_bounded(m: Spread) -> str | None:
    if not 1 - m.value > 1e-12:
        return "the mean cosine similarity M is 1: all images have features of the same direction here"
    return None


normalisers: Registry[Normaliser] = Registry("normalisers", "normaliser")
normalisers.register("none", Normaliser("none", None, lambda e, m: e + 0 * m, lambda m: None, "the value itself"))
normalisers.register(
    "spread-l2", Normaliser("spread-l2", "l2", lambda e, m: e / m, _no_spread_l2, "E / M, M the mean ℓ2 distance")
)
normalisers.register(
    "spread-cosine",
    Normaliser("spread-cosine", "cosine", lambda e, m: e / m, _no_spread_cosine, "E / M, M the mean cosine similarity"),
)
normalisers.register(
    "spread-cosine-bounded",
    Normaliser(
        "spread-cosine-bounded",
        "cosine",
        lambda e, m: (1 + e) / (1 - m),
        _no_spread_bounded,
        "(1 + E) / (1 − M) for E = −cosine: 0 invariant, 1 as unlike as two images",
    ),
)

# --- intervals --------------------------------------------------------------------------------------------------

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


@dataclass(frozen=True)
class Change:
    """How far a statistic moves when one image is left out: value minus the value without it, block by block.

    Images of one block were drawn alike; blocks differ in which parts of the statistic they enter.
    """

    value: float
    blocks: tuple[Floats, ...]

    @property
    def variance(self) -> float:
        """Jackknife variance: Σ over blocks of (n−1)/n Σ change²."""
        return float(sum((len(u) - 1) / len(u) * float(u @ u) for u in self.blocks if len(u) > 1))

    @property
    def degrees(self) -> float:
        """Welch-Satterthwaite degrees of freedom of `variance`."""
        parts = [((len(u) - 1) / len(u) * float(u @ u), len(u) - 1) for u in self.blocks if len(u) > 1]
        low = sum(v * v / d for v, d in parts)
        return sum(v for v, _ in parts) ** 2 / low if low > 0 else 1.0

    @property
    def skewness(self) -> float:
        """Third standardised cumulant of the statistic itself (n^−½ of one image's)."""
        third = sum(float((u**3).sum()) for u in self.blocks)
        return third / self.variance**1.5 if self.variance > 0 else 0.0


def interval(change: Change, level: float, n: int, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
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


def _hall(y: float, skew: float) -> float:
    """Invert Hall's transformation g(T) = T + s(T²/3 + 1/6) + s²T³/27 of a Student statistic T at y."""
    if abs(skew) < 1e-8:
        return y
    return float(3 / skew * (np.cbrt(1 + skew * (y - skew / 6)) - 1))


# --- values, floors, nulls --------------------------------------------------------------------------------------


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
    """

    sample: Deviations
    normaliser: Normaliser
    optimum: float
    largest: float
    spread: Spread | None = None
    floor: Deviations | None = None
    null: Deviations | None = None
    reference: tuple[str, ...] = ()

    @property
    def m(self) -> float:
        """M, or 1 where nothing is normalised."""
        return 1.0 if self.spread is None else self.spread.value

    def normalised(self, mean: float) -> float:
        """Return the value that a mean deviation stands for."""
        return float(self.normaliser.apply(mean, self.m))


def value_of(tables: Tables, level: float) -> Estimate:
    """Return the G-EED with its interval, which carries M's uncertainty too."""
    change = _change(tables, lambda e, m, floor, null: tables.normaliser.apply(e, m), with_reference=False)
    hard = (tables.optimum, tables.largest)
    if tables.spread is not None:
        # E/M is bounded only where the optimum is 0 (M is uncertain itself)
        hard = (0.0 if tables.normalised(tables.optimum) == 0 else -np.inf, np.inf)
    return interval(change, level, len(tables.sample), hard)


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
    gap = _change(tables, lambda e, m, floor, null: way * (apply(null, m) - apply(floor, m)))
    # the floor of perfect resampling is the optimum itself; 'told from 0' is judged on the reference images
    error = math.sqrt(gap.variance)
    t = float(special.stdtrit(max(gap.degrees, 1.0), 0.5 + level / 2))
    if not gap.value > resolution or gap.value <= t * error:
        return Calibration(
            None,
            f"not calibrated: null − floor is {gap.value:.3g} (± {t * error:.2g}), not told from 0: the network hardly"
            " tells one image from another here, so its value says little of symmetry",
        )
    change = _change(
        tables, lambda e, m, floor, null: (apply(e, m) - apply(floor, m)) / (apply(null, m) - apply(floor, m))
    )
    return Calibration(interval(change, level, len(tables.sample)), None)


def _change(
    tables: Tables,
    statistic: Callable[[Floats, Floats, Floats, Floats], Any],
    *,
    with_reference: bool = True,
) -> Change:
    """Leave out each image in turn, from the sample, the spread, the floor and the null at once.

    `statistic` maps the four means (E, M, floor, null), each (images,), to values.
    """
    sample, m = tables.sample, tables.spread
    ids = sorted({*sample.ids, *(m.ids if m else ())})
    place = {name: i for i, name in enumerate(ids)}
    inside = np.array([place[i] for i in sample.ids], dtype=np.intp)
    n = len(sample)
    per_image = sample.per_image
    mean = float(per_image.mean())
    e = np.full(len(ids), mean)
    e[inside] = (n * mean - per_image) / max(n - 1, 1)
    spreads = np.full(len(ids), tables.m)
    if m is not None and len(m.ids) > 2:
        spreads[[place[i] for i in m.ids]] = m.without_each()
    floor, floors = _reference_means(tables.floor, tables, place, own_row=True)
    null, nulls = _reference_means(tables.null, tables, place, own_row=False)
    value = float(statistic(np.array(mean), np.array(tables.m), np.array(floor), np.array(null)))
    with np.errstate(divide="ignore", invalid="ignore"):
        without = np.asarray(statistic(e, spreads, floors, nulls), dtype=np.float64)
    change = np.where(np.isfinite(without), value - without, 0.0)
    block = np.full(len(ids), 2)
    block[inside] = 1
    if with_reference:
        block[[place[i] for i in tables.reference]] = 0
    return Change(value, tuple(change[block == b] for b in (0, 1, 2) if (block == b).any()))


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
        source = rows if own_row else (rows + elements) % n
        for i, name in enumerate(tables.reference):
            kept = (rows != i) & (source != i)
            if kept.any():
                without[place[name]] = values[kept].mean()
    return mean, without
