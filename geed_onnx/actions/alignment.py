"""ρ(g) = P_g R_t on a pixel grid, taken apart: so that f(gx) is lined up with one resampling R_t for all g of one turn.

⟨f(gx), P_g R_t y⟩ = ⟨P_g⁻¹ f(gx), R_t y⟩: instead of moving y once for every g, y is resampled once for every turn t
below 90 degrees, and the pixels of f(gx) are read in the order that P_g⁻¹ puts them in.  Inside the disc only its
pixels are read at all.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import sparse

from geed_onnx.actions.axes import Action
from geed_onnx.actions.grid import GridAction
from geed_onnx.actions.interpolation import Interpolation
from geed_onnx.actions.masking import DiscAction
from geed_onnx.actions.operators import Array, IntArray, disc, turn_matrix
from geed_onnx.groups import Group

Floats = npt.NDArray[np.float64]

#: Values of the planes that are resampled at once, and how many planes at most: enough to pay for a product.
PLANE_VALUES, PLANES = 200_000, 431


@dataclass(frozen=True, eq=False)
class Alignment:
    """How an action on planes is taken apart; arrays of planes `(…, P)` hold the pixels inside its disc alone.

    Attributes
    ----------
    turns : tuple of Fraction
        The different turns t below 90 degrees, 0 first.
    turn_of : (|G|) of int
        For every g the place of its turn in `turns`.
    kept : (P,) int or None
        The pixels inside the disc; None: all of them.
    pixels : (|G|) of (P,) int or None
        For every g the pixels of f(gx) in the order of `kept` pixels of R_t y; None: as they are.
    there, back : by turn, (P, P) sparse or None
        R_t, and ρ(g⁻¹) P_g for the g of that turn, which is the same for all of them; None: nothing is resampled.
    """

    turns: tuple[Fraction, ...]
    turn_of: tuple[int, ...]
    kept: IntArray | None
    pixels: tuple[IntArray | None, ...]
    there: tuple[sparse.csr_array | None, ...]
    back: tuple[sparse.csr_array | None, ...]

    def inside(self, y: Array) -> Array:
        """Return the kept pixels of maps `(B, C, H, W)`, `(B, C, P)`, in float32 at the least."""
        flat = y.reshape(*y.shape[:2], -1)
        flat = flat.astype(np.float32) if flat.dtype.itemsize < 4 else flat
        return flat if self.kept is None else np.take(flat, self.kept, axis=-1)

    def turned(self, turn: int, inside: Array) -> Array:
        """Return R_t y for what is `inside`, t being the turn of this number."""
        return _product(self.there[turn], inside)

    def returned(self, turn: int, turned: Array) -> Array:
        """Return ρ(g⁻¹)ρ(g) y from R_t y, t being the turn of g."""
        return _product(self.back[turn], turned)

    def take(self, g: int, y: Array, out: Floats) -> None:
        """Put f(gx) `(B, c, H, W)` into `out` `(B, c, P)`, lined up with R_t f(x): pixels in the order of `inside`."""
        flat, pixels = y.reshape(*y.shape[:2], -1), self.pixels[g]
        if pixels is None:
            np.copyto(out, flat)
            return
        taken = scratch("taken", out.shape, flat.dtype)
        np.take(flat, pixels, axis=-1, mode="clip", out=taken)
        np.copyto(out, taken)


def _product(matrix: sparse.csr_array | None, planes: Array) -> Array:
    """Return planes (…, P) each multiplied by a matrix; to the last bit the same whatever planes come with it."""
    if matrix is None:
        return planes
    flat = planes.reshape(-1, planes.shape[-1])
    out = np.empty_like(flat, order="C")
    # an odd number of them, since strides of a power of two share lines of a cache
    step = min(PLANES, PLANE_VALUES // flat.shape[1]) | 1
    for start in range(0, len(flat), step):
        out[start : start + step] = (matrix @ np.ascontiguousarray(flat[start : start + step].T)).T
    return out.reshape(planes.shape)


_OWN = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float64) -> Array:
    """Return an array of this thread's own by that name; a fresh one would cost more than what is done in it."""
    rooms: dict[tuple[str, str], Array] = _OWN.__dict__.setdefault("rooms", {})
    place, size = (name, np.dtype(dtype).str), math.prod(shape)
    if place not in rooms or rooms[place].size < size:
        rooms[place] = np.empty(size, dtype)
    return rooms[place][:size].reshape(shape)


def alignment_of(action: Action, dtype: npt.DTypeLike) -> Alignment | None:
    """Return how an action that moves pixels, and nothing else, is taken apart, for values of a type."""
    inner, masked = (action.inner, True) if isinstance(action, DiscAction) else (action, False)
    if not isinstance(inner, GridAction) or len(inner.shape) != 3:
        return None
    precision = "float64" if np.dtype(dtype).itemsize > 4 else "float32"
    return _alignment(inner.group, *inner.shape[-2:], inner.interpolation, masked, precision)


@lru_cache(maxsize=128)
def _alignment(
    group: Group, height: int, width: int, interpolation: Interpolation, masked: bool, precision: str
) -> Alignment:
    grid = GridAction(group, (1, height, width), interpolation)
    kept = np.flatnonzero(disc(height, width)) if masked else None
    every = np.arange(height * width) if kept is None else kept
    turns = tuple(dict.fromkeys(grid.resampled_by))

    def matrix(turn: Fraction, rows: IntArray | None = None, columns: IntArray | None = None) -> sparse.csr_array:
        """Return R_t between kept pixels, after a permutation that reads pixel p at columns[p], then one by rows."""
        whole = sparse.csr_array(turn_matrix(turn, height, width, interpolation).astype(precision))
        if columns is not None:
            whole = sparse.csr_array((whole.data, columns.astype(np.int32)[whole.indices], whole.indptr), whole.shape)
        found = sparse.csr_array(whole[every if rows is None else rows[every]][:, every])
        found.sort_indices()
        return found

    def back(turn: Fraction) -> sparse.csr_array:
        g = grid.resampled_by.index(turn)
        element, inverse = grid.elements[g], grid.elements[group.inverse(g)]
        return matrix(inverse.turn, inverse.index, element.index)

    pixels: list[IntArray | None] = []
    for element in grid.elements:
        if element.index is None:
            pixels.append(kept)
            continue
        # (P y)[p] = y[index[p]], so pixel q of y is seen at the p with index[p] = q
        seen = np.empty_like(element.index)
        seen[element.index] = np.arange(len(seen))
        pixels.append(seen if kept is None else seen[kept])
    return Alignment(
        turns,
        tuple(turns.index(turn) for turn in grid.resampled_by),
        kept,
        tuple(pixels),
        tuple(matrix(turn) if turn else None for turn in turns),
        tuple(back(turn) if turn else None for turn in turns),
    )


def motion_classes(action: Action) -> tuple[int, ...]:
    """Return for every g the first element that moves an array of the bound shape exactly as g does.

    Elements that move nothing apart (C2×C2 through one reflection) share a class; those that move nothing have class 0.
    """
    import hashlib

    probe = np.random.default_rng(0).integers(1, 1 << 20, size=(1, *action.shape)).astype(np.float32)
    first: dict[bytes, int] = {}
    found = dict.fromkeys(action.group.elements, 0)
    for g in action.group.elements:
        moved = np.ascontiguousarray(action(g, probe))
        found[g] = first.setdefault(hashlib.blake2b(moved.tobytes(), digest_size=16).digest(), g)
    return tuple(found[g] for g in action.group.elements)
