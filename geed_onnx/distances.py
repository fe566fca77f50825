"""m of the paper: `(B, …), (B, …) -> (B,)` float64; bigger means less equivariant, always.

Each distance knows its value at equality (`optimum`), its bounds, and which laws it keeps (`laws`), so that a new entry
inherits the tests of its laws.  Everything is accumulated in float64, and one row's value does not depend, to the last
bit, on which rows come with it.

Probabilities have two forms.  `distances["kl"](p, q)` takes them as they are; `distances["kl"].in_logs()` takes their
natural logarithms, in which a class of probability 1e-30000 is a number like any other, and its `mean` is the logarithm
of the arithmetic mean.

>>> a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
>>> float(distances["l2"](a, b)[0]), float(distances["cosine"](a, b)[0])
(2.23606797749979, -0.0)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
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
    weights : (k, …, C) -> (…, C) float64, or None
        How much each channel counts, from the sums of all of them; None: all alike.
    raw : bool
        Whether the sums are the products (a·b, a·a, b·b) of the channels as they are.
    """

    sums: Callable[[Array, Array], Floats]
    value: Callable[[Floats], Floats]
    weights: Callable[[Floats], Floats] | None = None
    raw: bool = False

    def __call__(self, a: Array, b: Array) -> Floats:
        """Return the value of every channel of (B, c, …), shape (B, c)."""
        return self.value(self.sums(a, b))

    def combine(self, sums: Floats) -> Floats:
        """Return m from the sums of all channels, `(k, …, C) -> (…)`: the (weighted) mean of their values."""
        values = self.value(sums)
        if self.weights is None:
            mean: Floats = values.mean(axis=-1)
            return mean
        weights = self.weights(sums)
        weighted: Floats = (weights * values).sum(axis=-1) / weights.sum(axis=-1)
        return weighted

    def distance(self, a: Array, b: Array) -> Floats:
        """Return m(a, b) for whole maps (B, C, …), shape (B,)."""
        return self.combine(self.sums(a, b))


def arithmetic_mean(arrays: Sequence[Array]) -> Floats:
    """Return the mean of arrays of one shape, accumulated in float64."""
    total = arrays[0].astype(np.float64)
    for x in arrays[1:]:
        total += x
    total /= len(arrays)
    return total


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
    about : str
        One line for `geed-onnx list distances`.
    resolution : float
        Differences below this are not told from rounding of float32 features; times their norm where `homogeneous`.
    homogeneous : bool
        Whether m(sa, sb) = s·m(a, b) for positive s: it has the features' unit, and rounding is relative to their norm.
    quadratic : bool
        Whether small errors count by their square (1 − cos, KL), not by their size.
    per_channel : ChannelForm or None
        Where m is a mean over channels: how each one's value is made, so that a large map is compared slice by slice.
    of_logs : (B, …), (B, …) -> (B,) float64, or None
        m of distributions from their logarithms; None: `compute` of their exponentials.
    mean : Sequence[(B, …)] -> (B, …) float64
        The mean of what it compares, for f̂ of eq. (2).
    """

    name: str
    compute: Callable[[Array, Array], Floats]
    optimum: float
    largest: float
    kinds: tuple[str, ...]
    laws: frozenset[str]
    about: str
    resolution: float = 1e-6
    homogeneous: bool = False
    quadratic: bool = False
    per_channel: ChannelForm | None = None
    of_logs: Callable[[Array, Array], Floats] | None = None
    mean: Callable[[Sequence[Array]], Floats] = arithmetic_mean

    def __call__(self, a: Array, b: Array) -> Floats:
        """Return m(a, b), shape (B,), float64."""
        return self.compute(a, b)

    def in_logs(self) -> Distance:
        """Return the same distance of distributions that come as their natural logarithms, −inf for 0."""
        return _in_logs(self)


@cache
def _in_logs(distance: Distance) -> Distance:
    def of_exponentials(a: Array, b: Array) -> Floats:
        return distance.compute(np.exp(a), np.exp(b))

    return replace(distance, compute=distance.of_logs or of_exponentials, mean=log_mean_exp, per_channel=None)


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
    if square.size and square.min() > 1e-290 and square.max() < np.inf and np.isfinite(ab).all():
        # nothing of what follows is needed, which costs more than the products themselves where they are few
        usual: Floats = np.sqrt(square, out=square)
        np.divide(ab, usual, out=usual)
        return np.clip(usual, -1.0, 1.0, out=usual)
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
    size: Floats = np.sqrt(row_squares(difference))
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


def _shares_of_norm(sums: Floats) -> Floats:
    """Return ½(‖a_i‖/Σ‖a‖ + ‖b_i‖/Σ‖b‖) from (a·b, a·a, b·b); all alike where every channel of both is zero."""
    norms = np.sqrt(sums[1:])
    totals = norms.sum(axis=-1, keepdims=True)
    shares: Floats = (norms / np.where(totals == 0, 1.0, totals)).mean(axis=0)
    return np.where((totals == 0).all(axis=0), 1.0, shares)


#: −cos(a_i, b_i) of the channels, whose mean is eq. (5).
CHANNEL_COSINE = ChannelForm(_product_sums, _negative_cosines, raw=True)
#: The same with every channel centred; two constant channels are equal.
CHANNEL_CORRELATION = ChannelForm(_centred_sums, _negative_cosines)
#: Eq. (5) with channels that count by their share of the norm, so that a dead or nearly dead one decides nothing.
CHANNEL_SHARES = ChannelForm(_product_sums, _negative_cosines, _shares_of_norm, raw=True)


def _centred(x: Array) -> Floats:
    x64 = x.astype(np.float64, order="C")
    centred = x64 - x64.mean(axis=1, keepdims=True)
    # a constant channel leaves rounding behind, which has a direction but no meaning
    rounding = 1e-12 * np.abs(x64).max(axis=1, initial=0.0, keepdims=True)
    return np.where(np.abs(centred).max(axis=1, initial=0.0, keepdims=True) <= rounding, 0.0, centred)


def _distributions(p: Array) -> Floats:
    """View `(B, …, classes)` as float64 `(B, positions, classes)`."""
    return p.astype(np.float64, order="C", copy=False).reshape(len(p), -1, p.shape[-1])


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
    """Same-argmax disagreement: the share of positions whose highest class differs; logarithms tell the same."""
    differ = np.argmax(_distributions(p), axis=2) != np.argmax(_distributions(q), axis=2)
    share: Floats = differ.mean(axis=1)
    return share


# ---- distributions in logarithms -----------------------------------------------------------------------------------

#: Logarithms above this are of probabilities near 1, and are computed as what these lack of 1.
NEAR_ONE = -0.1


def log_softmax(y: Array) -> Floats:
    """Return the logarithm of the softmax along the last axis, float64; exact to its last bits even next to 0."""
    logs = y.astype(np.float64, order="C")
    with np.errstate(over="ignore"):  # of float64 logits 1e308 apart
        logs -= logs.max(axis=-1, keepdims=True)
    others = np.exp(logs)
    # log(1 + the others): their sum is lost where the highest class, which is 1, is added to it first
    np.put_along_axis(others, logs.argmax(axis=-1, keepdims=True), 0.0, axis=-1)
    logs -= np.log1p(others.sum(axis=-1, keepdims=True))
    return logs


def log_mean_exp(logs: Sequence[Array]) -> Floats:
    """Return log of the mean of exp over arrays of one shape, float64; −inf where all are."""
    top = logs[0].astype(np.float64)
    for x in logs[1:]:
        np.maximum(top, x, out=top)
    level = np.where(top == -np.inf, 0.0, top)
    mean, room = np.zeros_like(level), np.empty_like(level)
    for x in logs:
        np.subtract(x, level, out=room)
        mean += np.exp(room, out=room)
    mean /= len(logs)
    with np.errstate(divide="ignore"):
        np.log(mean, out=mean)
    mean += level
    near = top > NEAR_ONE
    if near.any():
        level = top[near]
        mean[near] = level + np.log1p(sum(np.expm1(x[near] - level) for x in logs) / len(logs))
    return mean


def _relative_entropy(p: Floats, q: Floats) -> Floats:
    """Return Σ exp(p)·(p − q) along the last axis of logarithms; never below 0."""
    with np.errstate(invalid="ignore", under="ignore"):
        terms = p - q
        terms *= np.exp(p)
    total: Floats = terms.sum(axis=-1)
    if not np.isfinite(total).all():
        # 0·log 0 = 0, and what q rules out and p does not is infinitely far, however small exp(p)
        terms[p == -np.inf] = 0.0
        terms[(p > -np.inf) & (q == -np.inf)] = np.inf
        total = terms.sum(axis=-1)
    return np.maximum(total, 0.0)


def kullback_leibler_of_logs(p: Array, q: Array) -> Floats:
    """KL of distributions from their logarithms: finite wherever q rules nothing out that p does not."""
    divergence: Floats = _relative_entropy(_distributions(p), _distributions(q)).mean(axis=1)
    return divergence


def jensen_shannon_of_logs(p: Array, q: Array) -> Floats:
    """Jensen-Shannon divergence of distributions from their logarithms."""
    p64, q64 = _distributions(p), _distributions(q)
    middle = log_mean_exp([p64, q64])
    divergence: Floats = (_relative_entropy(p64, middle) + _relative_entropy(q64, middle)).mean(axis=1) / 2
    return divergence


# ---- the registry --------------------------------------------------------------------------------------------------


def _add(name: str, compute: Callable[[Array, Array], Floats], about: str, laws: str, **known: Any) -> None:
    distances.register(name, Distance(name, compute, laws=frozenset(laws.split()), about=about, **known))


EVERY: dict[str, Any] = {"optimum": 0.0, "largest": np.inf, "kinds": ("map", "vector", "probability")}
MAPS: dict[str, Any] = {"optimum": -1.0, "largest": 1.0, "kinds": ("map",), "quadratic": True}
SCORES: dict[str, Any] = {"optimum": 0.0, "kinds": ("probability",)}
_add("l2", l2, "‖a − b‖", "symmetric metric definite", homogeneous=True, **EVERY)
_add("relative-l2", relative_l2, "‖a − b‖ / ‖b‖", "definite", **EVERY)
_add(
    "cosine", negative_cosine, "−cos(a, b)", "symmetric scale-free",
    **EVERY | {"optimum": -1.0, "largest": 1.0, "quadratic": True},
)  # fmt: skip
_add(
    "channelwise-cosine", CHANNEL_COSINE.distance, "−(1/C) Σ cos(a_i, b_i) over channels, eq. (5)",
    "symmetric scale-free", per_channel=CHANNEL_COSINE, **MAPS,
)  # fmt: skip
_add(
    "channelwise-correlation", CHANNEL_CORRELATION.distance, "eq. (5) with centred channels",
    "symmetric scale-free shift-free", per_channel=CHANNEL_CORRELATION, **MAPS,
)  # fmt: skip
_add(
    "channelwise-weighted-cosine", CHANNEL_SHARES.distance, "−Σ w_i cos(a_i, b_i), w_i = ½(‖a_i‖/Σ‖a‖ + ‖b_i‖/Σ‖b‖)",
    "symmetric scale-free", per_channel=CHANNEL_SHARES, **MAPS,
)  # fmt: skip
_add(
    "kl", kullback_leibler, "Σ a log(a/b), natural logarithm", "definite",
    largest=np.inf, quadratic=True, of_logs=kullback_leibler_of_logs, **SCORES,
)  # fmt: skip
_add(
    "jensen-shannon", jensen_shannon, "½KL(a ‖ m) + ½KL(b ‖ m), m = (a + b)/2", "symmetric definite",
    largest=float(np.log(2)), quadratic=True, of_logs=jensen_shannon_of_logs, **SCORES,
)  # fmt: skip
_add("total-variation", total_variation, "½ Σ |a − b|", "symmetric metric definite", largest=1.0, **SCORES)
_add(
    "disagreement", disagreement, "1 where argmax a ≠ argmax b, else 0", "symmetric metric",
    largest=1.0, of_logs=disagreement, **SCORES,
)  # fmt: skip
