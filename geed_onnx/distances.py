"""m of the paper: `(B, …), (B, …) -> (B,)` float64; bigger means less equivariant, always.

Each distance knows its value at equality (`optimum`), its bounds, and which laws it keeps (`laws`), so that a new entry
inherits the tests of its laws.  Everything is accumulated in float64, and one row's value does not depend, to the last
bit, on which rows come with it.

>>> a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
>>> float(distances["l2"](a, b)[0]), float(distances["cosine"](a, b)[0])
(2.23606797749979, -0.0)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from geed_onnx.registry import Registry

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: float64 values converted at once, so that a block of both operands stays in the second-level cache.
BLOCK_VALUES = 1 << 17
#: Longer dot products are split, so that no BLAS spreads one over threads and changes its rounding.
SPAN = 1 << 13


@dataclass(frozen=True)
class ChannelForm:
    """A distance of two channels as a function of sums over their pixels.

    Attributes
    ----------
    sums : (B, c, …), (B, c, …) -> (k, B, c) float64
        For any slice of the channels.
    value : (k, …) -> (…) float64
        From the sums, for arrays of any further shape.
    raw : bool
        Whether the sums are the products (a·b, a·a, b·b) of the channels as they are.
    """

    sums: Callable[[Array, Array], Floats]
    value: Callable[[Floats], Floats]
    raw: bool = False

    def combine(self, sums: Floats) -> Floats:
        """Return m from the sums of all channels, (k, …, C) -> (…)."""
        means: Floats = self.value(sums).mean(axis=-1)
        return means

    def __call__(self, a: Array, b: Array) -> Floats:
        """Return the value of every channel of (B, c, …), shape (B, c)."""
        return self.value(self.sums(a, b))


@dataclass(frozen=True)
class Distance:
    """A named m with what is known about it.

    Attributes
    ----------
    name : str
    compute : (B, …), (B, …) -> (B,) float64
    optimum : float
        The value at equality, which an exactly equivariant model scores.
    largest : float
        The least upper bound, `inf` where there is none.
    kinds : tuple[str, ...]
        The kinds of tap it is meant for.
    laws : frozenset[str]
        Of `symmetric` (m(a, b) = m(b, a)), `metric` (triangle inequality), `scale-free` (m(sa, tb) = m(a, b) for
        positive s, t), `shift-free` (adding a constant per channel changes nothing), `definite` (optimum only where
        a = b).
    resolution : float
        Differences below this are not told from rounding of float32 features.
    about : str
        One line for `geed-onnx list distances`.
    per_channel : ChannelForm or None
        Where m is a mean over channels: how each one's value is made, so that a large map is compared slice by slice.
    """

    name: str
    compute: Callable[[Array, Array], Floats]
    optimum: float
    largest: float
    kinds: tuple[str, ...]
    laws: frozenset[str]
    about: str
    resolution: float = 1e-6
    quadratic: bool = False
    homogeneous: bool = False
    per_channel: ChannelForm | None = None

    def __call__(self, a: Array, b: Array) -> Floats:
        """Return m(a, b), shape (B,), float64."""
        return self.compute(a, b)


distances: Registry[Distance] = Registry("distances", "distance")


def row_products(a: Array, b: Array) -> tuple[Floats, Floats, Floats]:
    """Return (a·b, a·a, b·b) for every row of two (n, …) arrays, each (n,) float64, in blocks that fit the cache."""
    n = len(a)
    rows = max(1, BLOCK_VALUES // max(a[:1].size, 1))
    if n <= rows:
        return _block_products(a, b)
    blocks = [_block_products(a[start : start + rows], b[start : start + rows]) for start in range(0, n, rows)]
    ab, aa, bb = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return ab, aa, bb


def _block_products(a: Array, b: Array) -> tuple[Floats, Floats, Floats]:
    # copied in C order: strided rows are added up in another order, and a view's strides depend on the batch
    x, y = _scratch(len(a), a[:1].size)
    np.copyto(x.reshape(a.shape), a)
    np.copyto(y.reshape(b.shape), b)
    u, v = x[:, :SPAN], y[:, :SPAN]
    ab, aa, bb = np.vecdot(u, v), np.vecdot(u, u), np.vecdot(v, v)
    for left in range(SPAN, x.shape[1], SPAN):
        u, v = x[:, left : left + SPAN], y[:, left : left + SPAN]
        ab += np.vecdot(u, v)
        aa += np.vecdot(u, u)
        bb += np.vecdot(v, v)
    return ab, aa, bb


def row_dots(a: Floats, b: Floats) -> Floats:
    """Return Σ a b over the last axis of two float64 arrays, in spans that no BLAS spreads over threads."""
    total: Floats = np.vecdot(a[..., :SPAN], b[..., :SPAN])
    for left in range(SPAN, a.shape[-1], SPAN):
        total += np.vecdot(a[..., left : left + SPAN], b[..., left : left + SPAN])
    return total


def row_squares(a: Floats) -> Floats:
    """Return Σ a² over the last axis of a float64 array."""
    return row_dots(a, a)


_OWN = threading.local()


def _scratch(rows: int, width: int) -> Floats:
    """Return two (rows, width) arrays of this thread's own; fresh ones each time would cost more than the products."""
    room: Floats | None = getattr(_OWN, "room", None)
    if room is None or room.shape[1] < rows * width:
        room = _OWN.room = np.empty((2, max(BLOCK_VALUES, rows * width)))
    return room[:, : rows * width].reshape(2, rows, width)


def cosines(ab: Floats, aa: Floats, bb: Floats) -> Floats:
    """Return ab/√(aa·bb) within [−1, 1]; two zero vectors are equal (1), one zero vector is unlike anything (0)."""
    # √(aa·bb) is exactly aa where a = b, so that equality gives exactly 1; the product may leave the range of float64
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        square = aa * bb
    norms = np.where(np.isfinite(square) & (square > 1e-290), np.sqrt(square), np.sqrt(aa) * np.sqrt(bb))
    safe = np.where(norms > 0, norms, 1.0)
    value = np.clip(np.where(norms > 0, ab / safe, 0.0), -1.0, 1.0)
    value = np.where((aa == 0) & (bb == 0), 1.0, value)
    # no silent number: what was not finite stays so
    return np.where(np.isfinite(ab) & np.isfinite(aa) & np.isfinite(bb), value, np.nan)


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def _channels(x: Array) -> Array:
    return x.reshape(x.shape[0] * x.shape[1], -1)


def l2(a: Array, b: Array) -> Floats:
    """ℓ2: ‖a − b‖₂, eq. (6)."""
    difference = np.subtract(_flat(a), _flat(b), dtype=np.float64, order="C")
    size: Floats = np.linalg.norm(difference, axis=1)
    return size


def relative_l2(a: Array, b: Array) -> Floats:
    """Relative ℓ2: ‖a − b‖₂ / ‖b‖₂; 0 where both are zero, infinite where only b is."""
    size, gap = np.linalg.norm(_flat(b).astype(np.float64, order="C"), axis=1), l2(a, b)
    return np.where(size > 0, gap / np.where(size > 0, size, 1.0), np.where(gap > 0, np.inf, 0.0))


def negative_cosine(a: Array, b: Array) -> Floats:
    """Negative cosine: −a·b / (‖a‖ ‖b‖) of the whole tensor."""
    return -cosines(*row_products(_flat(a), _flat(b)))


def _product_sums(a: Array, b: Array) -> Floats:
    """Return (a·b, a·a, b·b) of every channel of (B, c, …), shape (3, B, c)."""
    rows = (a.shape[0] * a.shape[1], *a.shape[2:])
    return np.stack(row_products(a.reshape(rows), b.reshape(rows))).reshape(3, *a.shape[:2])


def _centred_sums(a: Array, b: Array) -> Floats:
    """Return the same of the centred channels."""
    return np.stack(row_products(_centred(_channels(a)), _centred(_channels(b)))).reshape(3, *a.shape[:2])


def _negative_cosines(sums: Floats) -> Floats:
    """Return −cos from (a·b, a·a, b·b)."""
    return -cosines(sums[0], sums[1], sums[2])


CHANNEL_COSINE = ChannelForm(_product_sums, _negative_cosines, raw=True)
CHANNEL_CORRELATION = ChannelForm(_centred_sums, _negative_cosines)


def channelwise_cosine(a: Array, b: Array) -> Floats:
    """Channelwise negative cosine, eq. (5): −(1/C) Σ_i cos(a_i, b_i) for (B, C, …)."""
    means: Floats = CHANNEL_COSINE(a, b).mean(axis=1)
    return means


def channelwise_correlation(a: Array, b: Array) -> Floats:
    """Channelwise negative correlation: eq. (5) with every channel centred; two constant channels are equal."""
    means: Floats = CHANNEL_CORRELATION(a, b).mean(axis=1)
    return means


def _centred(x: Array) -> Floats:
    x64 = x.astype(np.float64, order="C")
    centred = x64 - x64.mean(axis=1, keepdims=True)
    # a constant channel leaves rounding behind, which has a direction but no meaning
    rounding = 1e-12 * np.abs(x64).max(axis=1, initial=0.0, keepdims=True)
    return np.where(np.abs(centred).max(axis=1, initial=0.0, keepdims=True) <= rounding, 0.0, centred)


def _distributions(p: Array) -> Floats:
    """View `(B, …, classes)` as float64 `(B, positions, classes)`."""
    return p.astype(np.float64, order="C").reshape(len(p), -1, p.shape[-1])


def kullback_leibler(p: Array, q: Array) -> Floats:
    """KL(p ‖ q) = Σ p log(p/q) along the last axis, natural logarithm, 0·log 0 = 0, mean over positions."""
    divergence: Floats = special.rel_entr(_distributions(p), _distributions(q)).sum(axis=2).mean(axis=1)
    return divergence


def jensen_shannon(p: Array, q: Array) -> Floats:
    """Jensen-Shannon divergence ½KL(p ‖ m) + ½KL(q ‖ m), m = (p + q)/2; at most log 2."""
    p64, q64 = _distributions(p), _distributions(q)
    middle = (p64 + q64) / 2
    both = special.rel_entr(p64, middle) + special.rel_entr(q64, middle)
    divergence: Floats = both.sum(axis=2).mean(axis=1) / 2
    return divergence


def total_variation(p: Array, q: Array) -> Floats:
    """Total variation ½ Σ |p − q| along the last axis, mean over positions."""
    variation: Floats = np.abs(_distributions(p) - _distributions(q)).sum(axis=2).mean(axis=1) / 2
    return variation


def disagreement(p: Array, q: Array) -> Floats:
    """Same-argmax disagreement: the share of positions whose highest class differs."""
    differ = np.argmax(_distributions(p), axis=2) != np.argmax(_distributions(q), axis=2)
    share: Floats = differ.mean(axis=1)
    return share


def _add(
    name: str,
    compute: Callable[[Array, Array], Floats],
    optimum: float,
    largest: float,
    kinds: tuple[str, ...],
    laws: str,
    about: str,
    per_channel: ChannelForm | None = None,
) -> Distance:
    return distances.register(
        name,
        Distance(
            name,
            compute,
            optimum,
            largest,
            kinds,
            frozenset(laws.split()),
            about,
            quadratic="cos" in name or "channelwise" in name or name in ("kl", "jensen-shannon"),
            homogeneous=name == "l2",
            per_channel=per_channel,
        ),
    )


EVERY = ("map", "vector", "probability")
_add("l2", l2, 0.0, np.inf, EVERY, "symmetric metric definite", "‖a − b‖")
_add("relative-l2", relative_l2, 0.0, np.inf, EVERY, "definite", "‖a − b‖ / ‖b‖")
_add("cosine", negative_cosine, -1.0, 1.0, EVERY, "symmetric scale-free", "−cos(a, b)")
_add(
    "channelwise-cosine",
    channelwise_cosine,
    -1.0,
    1.0,
    ("map",),
    "symmetric scale-free",
    "−(1/C) Σ cos(a_i, b_i) over channels, eq. (5)",
    CHANNEL_COSINE,
)
_add(
    "channelwise-correlation",
    channelwise_correlation,
    -1.0,
    1.0,
    ("map",),
    "symmetric scale-free shift-free",
    "eq. (5) with centred channels",
    CHANNEL_CORRELATION,
)
_add("kl", kullback_leibler, 0.0, np.inf, ("probability",), "definite", "Σ a log(a/b), natural logarithm")
_add(
    "jensen-shannon",
    jensen_shannon,
    0.0,
    float(np.log(2)),
    ("probability",),
    "symmetric definite",
    "½KL(a ‖ m) + ½KL(b ‖ m), m = (a + b)/2",
)
_add("total-variation", total_variation, 0.0, 1.0, ("probability",), "symmetric metric definite", "½ Σ |a − b|")
_add(
    "disagreement", disagreement, 0.0, 1.0, ("probability",), "symmetric metric", "1 where argmax a ≠ argmax b, else 0"
)
