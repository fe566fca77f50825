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

from geed_onnx.actions.axes import Action
from geed_onnx.actions.grid import GridAction
from geed_onnx.actions.interpolation import Interpolation
from geed_onnx.actions.masking import DiscAction
from geed_onnx.actions.operators import Array, IntArray, disc, resample
from geed_onnx.groups import Group

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Alignment:
    """How an action on planes is taken apart.

    Attributes
    ----------
    grid : GridAction
        The action, without its disc.
    kept : (P,) int or None
        The pixels inside the disc; None: all of them.
    pixels : (|G|) of (P,) int or None
        For every g the pixels of f(gx) in the order of `kept` pixels of R_t y; None: as they are.
    """

    grid: GridAction
    kept: IntArray | None
    pixels: tuple[IntArray | None, ...]

    def turned(self, turn: Fraction, y: Array) -> Array:
        """Return R_t y for planes `(…, H, W)` as `(…, H·W)`; what `inside` does not keep may be anything."""
        height, width = self.grid.shape[-2:]
        flat = y.reshape(-1, height * width)
        if turn:
            flat = flat.astype(np.float32) if flat.dtype.itemsize < 4 else flat
            flat = resample(turn, self._masked(flat), height, width, self.grid.interpolation)
        return flat.reshape(*y.shape[:-2], height * width)

    def back(self, g: int, turned: Array) -> Array:
        """Return ρ(g⁻¹)ρ(g) y from R_t y `(…, H·W)`, t being the turn of g; the same for all g of one turn."""
        height, width = self.grid.shape[-2:]
        element, inverse = (self.grid.elements[h] for h in (g, self.grid.group.inverse(g)))
        moved = element.permuted(turned.reshape(-1, height * width), height, width)
        flat = self._masked(moved.reshape(len(moved), -1))
        if inverse.turn:
            flat = resample(inverse.turn, flat, height, width, self.grid.interpolation)
        found: Array = inverse.permuted(flat, height, width)
        return found.reshape(turned.shape)

    def _masked(self, flat: Array) -> Array:
        return flat if self.kept is None else flat * disc(*self.grid.shape[-2:]).reshape(-1)

    def inside(self, flat: Array, out: Floats | None = None) -> Floats:
        """Return the kept pixels of planes `(…, H·W)` in float64, into `out` where it is given."""
        return _chosen(flat, self.kept, out)

    def taken(self, g: int, y: Array, out: Floats | None = None) -> Floats:
        """Return f(gx) `(B, c, H, W)` lined up with R_t f(x): its pixels in the order of `inside`, in float64."""
        return _chosen(y.reshape(*y.shape[:2], -1), self.pixels[g], out)


def _chosen(flat: Array, pixels: IntArray | None, out: Floats | None) -> Floats:
    if out is None:
        out = np.empty((*flat.shape[:-1], flat.shape[-1] if pixels is None else len(pixels)))
    if pixels is None:
        np.copyto(out, flat)
        return out
    room = scratch("chosen", out.shape, flat.dtype)
    np.take(flat, pixels, axis=-1, out=room, mode="clip")
    np.copyto(out, room)
    return out


_OWN = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float64) -> Array:
    """Return an array of this thread's own by that name; a fresh one would cost more than what is done in it."""
    rooms: dict[tuple[str, str], Array] = _OWN.__dict__.setdefault("rooms", {})
    place, size = (name, np.dtype(dtype).str), math.prod(shape)
    if place not in rooms or rooms[place].size < size:
        rooms[place] = np.empty(size, dtype)
    return rooms[place][:size].reshape(shape)


def alignment_of(action: Action) -> Alignment | None:
    """Return how an action that moves pixels, and nothing else, is taken apart; None for any other."""
    inner, masked = (action.inner, True) if isinstance(action, DiscAction) else (action, False)
    if not isinstance(inner, GridAction) or len(inner.shape) != 3:
        return None
    return _alignment(inner.group, *inner.shape[-2:], inner.interpolation, masked)


@lru_cache(maxsize=128)
def _alignment(group: Group, height: int, width: int, interpolation: Interpolation, masked: bool) -> Alignment:
    grid = GridAction(group, (1, height, width), interpolation)
    kept = np.flatnonzero(disc(height, width)) if masked else None
    pixels: list[IntArray | None] = []
    for element in grid.elements:
        if element.index is None:
            pixels.append(kept)
            continue
        # (P y)[p] = y[index[p]], so pixel q of y is seen at the p with index[p] = q
        seen = np.empty_like(element.index)
        seen[element.index] = np.arange(len(seen))
        pixels.append(seen if kept is None else seen[kept])
    return Alignment(grid, kept, tuple(pixels))


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
