"""ρ on pixel grids: turns, reflections and rolls of the last two axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from geed_onnx.actions.interpolation import Interpolation
from geed_onnx.actions.operators import (
    Array,
    IntArray,
    disc,
    grid_permutation,
    rectangle_message,
    resample,
    turn_matrix,
)
from geed_onnx.actions.spectral import spectral_norm
from geed_onnx.errors import ActionError
from geed_onnx.groups import Group, Motion

#: Pairs × pixels × weights of a sample up to which the law defect is computed on the grid itself.
EXACT_WORK = 160 * 160 * 4
WEIGHTS: dict[Interpolation, int] = {"nearest": 1, "bilinear": 4, "bicubic": 16}
LEAST_SIDE = 32
MOST_PAIRS = 16


@dataclass(frozen=True)
class GridElement:
    """One element bound to a grid: an exact permutation after one resampling by `turn` < 90 degrees."""

    turn: Fraction
    index: IntArray | None  # source indices (H·W,), None where nothing moves
    view: tuple[bool, int] | None  # the same permutation as (mirror, quarter turns), where it is one

    def permuted(self, flat: Array, height: int, width: int) -> Array:
        """Return the planes (n, H, W) of (n, H·W) with their pixels permuted: a view where one will do."""
        planes = flat.reshape(-1, height, width)
        if self.index is None:
            return planes
        if self.view is None:
            return np.take(flat, self.index, axis=1).reshape(planes.shape)
        mirror, quarters = self.view
        return np.rot90(planes[:, :, ::-1] if mirror else planes, quarters, axes=(1, 2))


@dataclass(frozen=True)
class GridAction:
    """ρ(g) moves the pixels of `(…, H, W)`: at most one resampling of the original, then a permutation.

    Attributes
    ----------
    group : Group
    shape : tuple[int, ...]
        The shape it is bound to, without the batch: `(…, H, W)`.
    interpolation : "nearest", "bilinear" or "bicubic"
        How elements that are no permutation resample.
    kernel : tuple[int, ...]
        The elements that do nothing on this grid; the whole group on a single pixel. A turn so small that `nearest`
        moves no pixel is not counted: its multiples do move some, and the kernel is a subgroup.

    Raises
    ------
    ActionError
        If an element does not map this grid to itself.
    """

    group: Group
    shape: tuple[int, ...]
    interpolation: Interpolation = "bilinear"
    name: ClassVar[str] = "pixels"
    by_channel: ClassVar[bool] = True
    elements: tuple[GridElement, ...] = field(init=False, repr=False)
    kernel: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        height, width = self.shape[-2:]
        elements, kernel = _bound(self.group, height, width)
        object.__setattr__(self, "elements", elements)
        object.__setattr__(self, "kernel", kernel)

    @property
    def law_defect(self) -> float:
        """`max ‖ρ(g)ρ(h) − ρ(gh)‖₂ / ‖ρ(gh)‖₂` over all pairs: see the function of this name.

        0 where this is an action of the group: where nothing is resampled, and for C8 by `nearest` on a 3×3 grid.
        """
        # only a square is resampled
        return law_defect(self.group, self.shape[-1], self.interpolation, False) if any(self.resampled_by) else 0.0

    @property
    def resampled_by(self) -> tuple[Fraction, ...]:
        """The turn by which each element resamples before it permutes; 0 for exact elements."""
        return tuple(e.turn for e in self.elements)

    def __call__(self, g: int, x: Array) -> Array:
        """Return ρ(g) x, shape and type of x: `(B, …, H, W)`.

        Integers are rounded to the nearest and held within the range of their type, which `bicubic` leaves at edges;
        what it over- and undershoots in floats is kept.
        """
        element = self.elements[g]
        turned = self._turned(element.turn, _planes(x, self.shape))
        moved = element.permuted(turned, *self.shape[-2:])
        return np.ascontiguousarray(moved, dtype=x.dtype).reshape(x.shape)

    def orbit(self, x: Array, only: Sequence[int] | None = None) -> Iterator[tuple[int, Array]]:
        """Yield (g, ρ(g) x) for every g (of `only`), grouped so that each resampling is done once.

        What is yielded may be a view, of x or of one array with another.
        """
        flat = _planes(x, self.shape)
        wanted = self.group.elements if only is None else only
        for turn in dict.fromkeys(self.elements[g].turn for g in wanted):
            turned = self._turned(turn, flat)
            for g in wanted:
                element = self.elements[g]
                if element.turn == turn:
                    moved = element.permuted(turned, *self.shape[-2:])
                    yield g, moved.reshape(x.shape).astype(x.dtype, copy=False)

    def _turned(self, turn: Fraction, flat: Array) -> Array:
        if turn == 0:
            return flat
        height, width = self.shape[-2:]
        if flat.dtype.kind == "f" and flat.dtype.itemsize >= 4:
            return resample(turn, flat, height, width, self.interpolation)
        turned = resample(turn, flat.astype(np.float32), height, width, self.interpolation)
        if flat.dtype.kind not in "iu":
            return turned
        return _in_range(np.rint(turned), flat.dtype)


def _in_range(x: Array, integer: npt.DTypeLike) -> Array:
    """Hold float32 values within what an integer type holds."""
    limits = np.iinfo(np.dtype(integer))
    low, high = np.float32(limits.min), np.float32(limits.max)
    # the largest of a wide type is no float32, and the next float32 is too large for it
    return np.clip(x, low, high if int(high) <= limits.max else np.nextafter(high, np.float32(0)))


def _planes(x: Array, shape: tuple[int, ...]) -> Array:
    if x.ndim != len(shape) + 1 or x.shape[-2:] != shape[-2:]:
        raise ActionError(f"this action is bound to arrays (B, {', '.join(map(str, shape))}), but got {x.shape}")
    return x.reshape(-1, shape[-2] * shape[-1])


def bind_element(motions: tuple[Motion, ...], height: int, width: int) -> GridElement:
    """Bind one element's commuting motions to a grid.

    r^t s = s r^(−t), so a reflected turn by an odd angle is a resampling of the same family, then a permutation.
    """
    rest, index = Fraction(0), np.arange(height * width, dtype=np.intp)
    for motion in (m for m in motions if m != Motion() and not m.axis):
        turn = -motion.turn % 1 if motion.mirror else motion.turn
        left_over = turn % Fraction(1, 4)
        if left_over:
            if height != width and height * width > 1:
                raise ActionError(rectangle_message(motion.turn, height, width))
            quarter = grid_permutation(Motion(turn=turn - left_over), height, width)
            after = grid_permutation(Motion(mirror=motion.mirror, roll=motion.roll), height, width)
            rest, step = left_over, quarter[after]
        else:
            step = grid_permutation(motion, height, width)
        index = index[step]
    if height * width == 1:
        rest = Fraction(0)  # on a single pixel every turn is the identity, and on no other grid a turn below 90 degrees
    still = np.array_equal(index, np.arange(height * width))
    return GridElement(rest, None if still else index, None if still else _as_view(index, height, width))


def _as_view(index: IntArray, height: int, width: int) -> tuple[bool, int] | None:
    """Return the mirror and the quarter turns that a permutation of a square grid amounts to, if it does."""
    plain = np.arange(height * width, dtype=np.intp).reshape(height, width)
    for mirror in (False, True):
        for quarters in range(4):
            seen = np.rot90(plain[:, ::-1] if mirror else plain, quarters)
            if seen.shape == plain.shape and np.array_equal(seen.reshape(-1), index):
                return mirror, quarters
    return None


@lru_cache(maxsize=128)
def _bound(group: Group, height: int, width: int) -> tuple[tuple[GridElement, ...], tuple[int, ...]]:
    elements = tuple(bind_element(m, height, width) for m in group.motions)
    kernel = tuple(g for g, e in enumerate(elements) if e.turn == 0 and e.index is None)
    _check_exact(group, elements, height, width)
    return elements, kernel


def _check_exact(group: Group, elements: tuple[GridElement, ...], height: int, width: int) -> None:
    """Compare ρ(g)ρ(s) with ρ(gs) where none of them resamples, as permutations, index by index."""
    everything = np.arange(height * width, dtype=np.intp)
    index = [everything if e.index is None else e.index for e in elements]
    exact = [e.turn == 0 for e in elements]
    for s in group.generators:
        for g in group.elements:
            gs = group.product(g, s)
            if exact[g] and exact[s] and exact[gs] and not np.array_equal(index[gs], index[s][index[g]]):
                raise ActionError(f"{group.name} does not act on a {height}×{width} grid: ρ({g})ρ({s}) ≠ ρ({gs})")


@lru_cache(maxsize=256)
def law_defect(group: Group, side: int, interpolation: Interpolation, inside: bool) -> float:
    """Return `max ‖ρ(g)ρ(h) − ρ(gh)‖₂ / ‖ρ(gh)‖₂` over all pairs, on a square grid; `inside`: of M ρ(g) M, M the disc.

    These are operator norms: what the law misses for the worst of all images in the worst pair, relative to what ρ(gh)
    can make of an image. `bilinear` is near 1: it wipes out the finest of checkerboards, which an exact gh keeps.

    Exact to 6 digits where that is a matter of tenths of a second (`EXACT_WORK`: C8 up to 160×160 pixels and D8 up to
    113×113 by `bilinear`; a fourth of the pixels by `bicubic`, four times as many by `nearest`). A larger grid takes
    the value of the largest about the same centre for which it is, and at least of `LEAST_SIDE` pixels a side: a bound
    from below, rim aside, since both are one operator there. Of more than `MOST_PAIRS` pairs that differ (C5 has as
    many), those next to 45° twice are looked at. `bilinear` and `bicubic` miss less than 1 % by either; `nearest` takes
    few values, and may miss one of them.
    """
    elements, _ = _bound(group, side, side)
    # ρ(g) = P_g R_t with P_g a turn or reflection of the square, and R_t P_h = P_h R_±t: − where P_h reflects.
    # So a pair is told by the two turns and by whether h reflects; where either turn is 0 the law holds
    first = {e.turn: g for g, e in enumerate(elements) if e.turn}
    second = {(e.turn, e.view is not None and e.view[0]): h for h, e in enumerate(elements) if e.turn}
    pairs = sorted(product(first.values(), second.values()), key=lambda pair: _from_45(elements, *pair))[:MOST_PAIRS]
    if not pairs:
        return 0.0
    largest = max(LEAST_SIDE, math.isqrt(EXACT_WORK // (len(pairs) * WEIGHTS[interpolation])))
    if side > largest:
        return law_defect(group, largest - (side - largest) % 2, interpolation, inside)
    rho = _Operators(elements, side, interpolation, inside)
    sizes = {Fraction(0): 1.0}  # a permutation's
    worst = 0.0
    for g, h in pairs:
        gh = group.product(g, h)
        turn = elements[gh].turn
        if turn not in sizes:
            sizes[turn] = spectral_norm(rho(gh))
        worst = max(worst, spectral_norm(sparse.csr_array(rho(g) @ rho(h) - rho(gh))) / sizes[turn])
    return float(f"{worst:.6g}")


def _from_45(elements: Sequence[GridElement], *some: int) -> Fraction:
    return sum((abs(elements[g].turn - Fraction(1, 8)) for g in some), Fraction(0))


@dataclass(frozen=True)
class _Operators:
    """g → ρ(g) as a sparse matrix (n, n) on the n pixels of a square grid, or on those inside its disc."""

    elements: tuple[GridElement, ...]
    side: int
    interpolation: Interpolation
    inside: bool

    def __call__(self, g: int) -> sparse.csr_array:
        element, side = self.elements[g], self.side
        matrix = turn_matrix(element.turn, side, side, self.interpolation)
        if element.index is not None:
            matrix = matrix[element.index]
        if self.inside:
            within = np.flatnonzero(disc(side, side))
            matrix = matrix[within][:, within]
        return sparse.csr_array(matrix)


def masked(x: Array, mask: bool) -> Array:
    """Return x `(…, H, W)` with everything outside the inscribed disc set to 0, or x itself without a mask."""
    return x * disc(*x.shape[-2:]) if mask else x
