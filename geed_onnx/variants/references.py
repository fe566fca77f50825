"""Broken orbits: element g is taken from another image, so that nothing relates an orbit's elements but the network.

Images are taken in blocks; the partner of image i for an element of class c is image i + s(c) of its block, cyclically,
with s(0) = 0: elements that move nothing apart partner alike, and those that move nothing stay with their own image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geed_onnx.actions import Action
from geed_onnx.distances import Distance
from geed_onnx.variants.family import compared, kernel_mean

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]


class Null(NamedTuple):
    """What `Broken` holds of one block, each (n, |G|)."""

    values: Floats
    taken: Floats
    lost: Floats


def shifts(classes: Sequence[int], n: int) -> tuple[int, ...]:
    """Return s for every element from the classes of elements that partner alike: distinct while n allows, never i."""
    order = sorted({0, *classes})
    return tuple(0 if c == 0 or n < 2 else 1 + (order.index(c) - 1) % (n - 1) for c in classes)


def anchored_null(values: Floats, steps: Sequence[int]) -> Null:
    """Return the null of an action whose f̂ is f(x) alone, from its deviations (n, |G|) by broken orbit."""
    taken, lost = np.zeros_like(values), np.zeros_like(values)
    _leave_cells(values, steps, taken, lost)
    return Null(values, taken, lost)


def broken_null(
    orbit: Callable[[int, npt.NDArray[np.intp]], Array],
    n: int,
    steps: Sequence[int],
    action: Action,
    distance: Distance,
    rows: int,
) -> Null:
    """Return the null of an action whose f̂ is a mean over several elements.

    Parameters
    ----------
    orbit
        (g, images) → f(g x) of these images of the block, `(k, *shape)`.
    n
        Images of the block.
    steps
        As `shifts` gives them.
    rows
        How many broken orbits may be in memory at once.
    """
    order = action.group.order
    values, taken, lost = (np.zeros((n, order)) for _ in range(3))
    for start in range(0, n, max(1, rows)):
        images = np.arange(start, min(start + max(1, rows), n))
        elements = [orbit(g, (images + s) % n) for g, s in enumerate(steps)]

        def around(kernel: Sequence[int], wanted: Sequence[int], elements: Sequence[Array] = elements) -> Floats:
            return compared(elements, kernel_mean(elements, kernel, distance.mean), action, distance, wanted)

        values[images] = around(action.kernel, range(order))
        for s in sorted({*steps} - {0}):
            # f̂ without the image that stands s further on; the identity, which is never its, stays in the kernel
            kernel = [k for k in action.kernel if steps[k] != s]
            left = [g for g in range(order) if steps[g] != s]
            gone = ((images + s) % n)[:, None]
            if len(kernel) < len(action.kernel):
                taken[gone, left] += values[images[:, None], left] - around(kernel, left)
    _leave_cells(values, steps, taken, lost)
    return Null(values, taken, lost)


def _leave_cells(values: Floats, steps: Sequence[int], taken: Floats, lost: Floats) -> None:
    """Add what goes with an image for certain: its own broken orbit, and the entries in which it is the partner."""
    n = len(values)
    taken += values
    lost += 1
    for g, s in enumerate(steps):
        if s % n:
            gone = (np.arange(n) + s) % n
            taken[gone, g] += values[:, g]
            lost[gone, g] += 1
