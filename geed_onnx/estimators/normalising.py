"""The spread M of eq. (6), and how a mean deviation becomes a value, given M."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import spatial

from geed_onnx.estimators.deviations import Array, Floats
from geed_onnx.registry import Registry

#: Spread features are compared in float64 a span of dimensions at a time.
SPAN = 1 << 14


@dataclass(frozen=True)
class Spread:
    """M of eq. (6): the mean over pairs i < j of distinct un-transformed points.

    Attributes
    ----------
    value : float
    ids : tuple[str, ...]
        Sorted.
    pairs : (len(ids), len(ids)) float64
        The value of every pair, 0 on the diagonal.
    scale : float
        Root mean square norm of the features: what `value` is small or large against.
    """

    value: float
    ids: tuple[str, ...]
    pairs: Floats
    scale: float

    def left(self, units: npt.NDArray[np.intp], count: int) -> Floats:
        """Return M without each of `count` units, whose numbers by point are `units`; NaN without a pair left."""
        sums = self.pairs.sum(axis=1)
        within = (self.pairs * (units[:, None] == units)).sum(axis=1) / 2
        gone = np.bincount(units, sums - within, count)
        k = len(self.ids) - np.bincount(units, minlength=count)
        with np.errstate(divide="ignore", invalid="ignore"):
            left: Floats = np.where(k > 1, (float(sums.sum()) / 2 - gone) / (k * (k - 1) / 2), np.nan)
        return left


def spread(features: Mapping[str, Array], kind: str) -> Spread:
    """Return M over features keyed by image id, each flattened; `kind` is `l2` or `cosine` (positive similarity).

    The result depends on the set of points, not on their order.  Two zero vectors have similarity 1, a zero vector and
    another 0, as in `distances`.
    """
    ids = tuple(sorted(features))
    if len(ids) < 2:
        return Spread(math.nan, ids, np.zeros((len(ids), len(ids))), math.nan)
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
    square = spatial.distance.squareform(pairs, checks=False)
    return Spread(float(pairs.mean()), ids, square, float(np.sqrt(squares.mean())))


@dataclass(frozen=True)
class Normaliser:
    """How a mean deviation E becomes a value, given M.

    Attributes
    ----------
    spread : str or None
        Which M it needs: `l2`, `cosine`, or none.
    apply : (E, M) -> value
        Vectorised over both.
    signed : bool
        Whether M may be of either sign, so that it must be told from 0 before anything is divided by it.
    problem : (M) -> str or None
        Why no value comes of this M, in words.
    """

    name: str
    spread: str | None
    apply: Callable[[Any, Any], Any]
    problem: Callable[[Spread], str | None]
    about: str
    signed: bool = False


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
    Normaliser(
        "spread-cosine",
        "cosine",
        lambda e, m: e / m,
        _no_spread_cosine,
        "E / M, M the mean cosine similarity",
        signed=True,
    ),
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
