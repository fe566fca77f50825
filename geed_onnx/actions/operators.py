"""Turns, reflections and rolls of a pixel grid as cached operators: permutations where exact, CSR where not.

Pixel centres lie at half-integers, the centre of the frame is fixed, samples outside the frame contribute 0: what
ONNX GridSample does with `linear` (or `nearest`, or `cubic`), `zeros`, `align_corners=0`. Exact elements are
permutations; any other turn is an exact quarter turn of one resampling by less than 90 degrees *of the original*, which
is the same operator (a quarter turn maps the grid and the weights to themselves), so that a group needs one sparse
product per coset of its exact part, not one per element.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from geed_onnx.actions.interpolation import Interpolation, axis_weights
from geed_onnx.errors import ActionError
from geed_onnx.groups import Motion

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.intp]

#: Values resampled at once: the dense block and its result then stay in the second-level cache.
BLOCK_VALUES = 1 << 18


def grid_permutation(motion: Motion, height: int, width: int) -> IntArray:
    """Return source indices (H·W,) with `(ρ y)[p] = y[index[p]]` for an exact motion.

    Raises
    ------
    ActionError
        If the motion does not map this grid to itself, with advice.
    """
    quarters = motion.turn * 4
    if quarters.denominator != 1:
        raise ActionError(f"a turn by {float(motion.turn * 360):g} degrees is no permutation of a grid")
    if quarters % 2 and height != width:
        raise ActionError(rectangle_message(motion.turn, height, width))
    index = np.arange(height * width, dtype=np.intp).reshape(height, width)
    if motion.mirror:
        index = index[:, ::-1]
    index = np.rot90(index, int(quarters))
    index = np.roll(index, (_steps(motion.roll[0], height), _steps(motion.roll[1], width)), axis=(0, 1))
    return np.ascontiguousarray(index).reshape(-1)


def rectangle_message(turn: Fraction, height: int, width: int) -> str:
    """Say why a turn cannot act on a rectangle, and what to do."""
    return (
        f"a turn by {float(turn * 360):g} degrees does not map a {height}×{width} grid to itself: use a square input"
        f" (--size {max(height, width)}x{max(height, width)}, cropped or padded), or a group that keeps the rectangle"
        " (C2, flip, flip-ud, D2)"
    )


def _steps(share: Fraction, size: int) -> int:
    """Return the roll in pixels; an axis of one pixel rolls to itself."""
    steps = share * size
    if size == 1 or share == 0:
        return 0
    if steps.denominator != 1:
        raise ActionError(
            f"a cyclic shift by {share} of {size} pixels is {float(steps):g} pixels, no whole number: use a size that"
            f" {share.denominator} divides, or another group T<k> where k divides {size}"
        )
    return int(steps)


@lru_cache(maxsize=256)
def turn_matrix(turn: Fraction, height: int, width: int, interpolation: Interpolation = "bilinear") -> sparse.csr_array:
    """Return the (H·W, H·W) operator of a counter-clockwise turn about the centre of the frame, float64.

    Row p holds the weights with which the pixels around R⁻¹p enter pixel p (`axis_weights`: at most 4, for `bicubic`
    16, for `nearest` 1, or 2 on a tie); fractions within 1e-12 of a whole pixel are rounding and are snapped to it, so
    that an exact turn comes out as the permutation it is.
    """
    angle = 2 * math.pi * float(turn)
    cos, sin = math.cos(angle), math.sin(angle)
    rows, cols = np.divmod(np.arange(height * width), width)
    y, x = rows - (height - 1) / 2, cols - (width - 1) / 2
    source_y = sin * x + cos * y
    source_x = cos * x - sin * y
    # np.rot90 (counter-clockwise, rows downwards) reads out[i, j] = in[j, N-1-i]: source_y = x, source_x = -y
    source_y, source_x = source_y + (height - 1) / 2, source_x + (width - 1) / 2
    top, left = np.floor(source_y), np.floor(source_x)
    down, right = source_y - top, source_x - left
    down, right = (np.where(np.abs(part - np.rint(part)) < 1e-12, np.rint(part), part) for part in (down, right))
    entries = []
    along_y, along_x = axis_weights(down, interpolation), axis_weights(right, interpolation)
    for (dy, weight_y), (dx, weight_x) in product(along_y, along_x):
        weight = weight_y * weight_x
        i, j = top + dy, left + dx
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width) & (weight != 0)
        # 32-bit indices: half the memory traffic of the product
        entries.append(
            (np.flatnonzero(inside).astype(np.int32), (i * width + j)[inside].astype(np.int32), weight[inside])
        )
    row, col, weight = (np.concatenate(part) for part in zip(*entries, strict=True))
    size = height * width
    matrix = sparse.csr_array((weight, (row, col)), shape=(size, size))
    matrix.sort_indices()
    return matrix


@lru_cache(maxsize=256)
def _turn_matrix_as(
    turn: Fraction, height: int, width: int, interpolation: Interpolation, dtype: str
) -> sparse.csr_array:
    return sparse.csr_array(turn_matrix(turn, height, width, interpolation).astype(dtype))


def resample(
    turn: Fraction, planes: Array, height: int, width: int, interpolation: Interpolation = "bilinear"
) -> Array:
    """Turn planes (n, H·W), float32 or float64, by one resampling; returns (n, H·W) of the same type.

    Each plane's result is the same to the last bit whatever planes come with it.
    """
    matrix = _turn_matrix_as(turn, height, width, interpolation, planes.dtype.name)
    out = np.empty_like(planes, order="C")
    step = max(1, BLOCK_VALUES // (height * width))
    for start in range(0, len(planes), step):
        block = planes[start : start + step]
        out[start : start + step] = (matrix @ np.ascontiguousarray(block.T)).T
    return out


@lru_cache(maxsize=64)
def disc(height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return the (H, W) mask of the pixels whose centre lies in the inscribed disc of diameter min(H, W)."""
    y = np.arange(height) - (height - 1) / 2
    x = np.arange(width) - (width - 1) / 2
    mask = y[:, None] ** 2 + x**2 <= (min(height, width) / 2) ** 2
    mask.setflags(write=False)
    return mask
