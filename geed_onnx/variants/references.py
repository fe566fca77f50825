"""Broken orbits: element g is taken from another image, so that nothing relates an orbit's elements but the network.

Images are taken in blocks; the partner of image i for an element of class c is image i + s(c) of its block, cyclically,
with s(0) = 0: elements that move nothing apart partner alike, and those that move nothing stay with their own image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geed_onnx.actions import Action
from geed_onnx.distances import Distance
from geed_onnx.variants.family import compared_by, kernel_mean

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.intp]
#: An f̂ of a broken orbit: how far on the image stands that it is without, its elements.
Centre = tuple[int, list[int]]

#: Values of broken orbits that are compared in one call, where they are few: they stay in the cache.
AT_ONCE = 1 << 15
#: Pairs of mixed blocks that tell how much of a null is the interplay of images.
MIXED = 4
#: Blocks that are mixed, for all of them: more would tell little more.
MIXED_BLOCKS = 4


class Null(NamedTuple):
    """What `Broken` holds of one block, each (n, |G|)."""

    values: Floats
    taken: Floats
    lost: Floats
    twice: Floats


def shifts(classes: Sequence[int], n: int) -> tuple[int, ...]:
    """Return s for every element from the classes of elements that partner alike: distinct while n allows, never i."""
    order = sorted({0, *classes})
    return tuple(0 if c == 0 or n < 2 else 1 + (order.index(c) - 1) % (n - 1) for c in classes)


def anchored_null(values: Floats, steps: Sequence[int]) -> Null:
    """Return the null of an action whose f̂ is f(x) alone, from its deviations (n, |G|) by broken orbit."""
    found = Null(values, np.zeros_like(values), np.zeros_like(values), values)
    _leave_cells(found, steps, whole=True)
    return found


def broken_null(
    orbit: Callable[[Numbers, Numbers], Array],
    n: int,
    steps: Sequence[int],
    action: Action,
    distance: Distance,
    rows: int,
    place: tuple[int, int] = (0, 1),
) -> Null:
    """Return what `broken_nulls` does, for one distance."""
    return broken_nulls(orbit, n, steps, action, [distance], rows, place)[0]


def broken_nulls(
    orbit: Callable[[Numbers, Numbers], Array],
    n: int,
    steps: Sequence[int],
    action: Action,
    several: Sequence[Distance],
    rows: int,
    place: tuple[int, int] = (0, 1),
) -> list[Null]:
    """Return the nulls of an action whose f̂ is a mean over several elements, for distances that form it alike.

    An image that is left out leaves every broken orbit that it stands in, and f̂ is formed again over the others.  Of an
    orbit of two images, and where f̂ was of that image alone, nothing can be formed again: the orbit around it goes
    whole, and with it the entries of the others.

    Then the jackknife counts main effects once, Σ_j Var a(x_j), and the interplay b of two images with either of them:
    twice (Efron and Stein 1981).  How large it is, is seen where main effects cannot vary: give a random half of the
    block's images another image's f for all their elements, one that no orbit shares with them, then the rest instead.
    In the sum of both nulls each image has each role as often, whatever the half (σ_j = ±1).  What varies is
    ½ Σ_{j<l} σ_j σ_l c_jl, where c_jl = b(j, l) − b(j', l) − b(j, l') + b(j', l') has four times the variance of b;
    so its variance over halves is Σ Var b.  Leaving two out would not do: without one image the elements of the others
    deviate from another mean, where f(gx) differs from turn to turn.  Blocks with less than two images for each that an
    orbit has hold no such other image; there the interval stays the wider one.  Of many blocks the first few are mixed,
    and stand for the others, whose images were drawn alike.

    Parameters
    ----------
    orbit
        (g, images), `(|G|, 1)` and `(|G|, k)` → f(g x) of these images of the block, `(|G|, k, *shape)`.
    n
        Images of the block.
    steps
        As `shifts` gives them.
    several
        Distances of one `mean`.
    rows
        How many broken orbits may be in memory at once.
    place
        Which block this is, and of how many.
    """
    order, on, apart = action.group.order, np.array(steps)[:, None], sorted({*steps})
    everyone, group = np.arange(n) + on, np.arange(order)[:, None]
    whole = len(apart) < 3 or not any(steps[k] for k in action.kernel)
    # f̂ of all its elements, and without the image that stands s further on, where there is another f̂ then
    kernels = {s: [k for k in action.kernel if steps[k] != s] for s in (apart[1:] if whole else apart)}
    centres = [(s, kernel) for s, kernel in kernels.items() if len(kernel) < len(action.kernel)]
    found = [Null(*np.zeros((4, n, order))) for _ in several]
    # several small orbits in one call, which costs more than what is computed in it, as long as they stay in the cache
    fits = AT_ONCE // orbit(group, on % n).size

    def around(images: Numbers, centres: Sequence[Sequence[int]]) -> list[Floats]:
        """Return by distance deviations (len(centres), k, |G|) of orbits of images (|G|, k), f̂ over equally many."""
        elements, kernel = orbit(group, images % n), np.array(centres)
        shape, repeated = elements.shape[2:], len(centres) > 1
        means = [elements[k] for k in (kernel.T if repeated else kernel[0])]
        centre = kernel_mean(means, range(len(means)), several[0].mean).reshape(-1, *shape)
        every = np.tile(elements, (1, len(centres), *(1 for _ in shape))) if repeated else elements
        values = compared_by(several, every, centre, action, range(order))
        return [found.reshape(len(centres), -1, order) for found in values]

    for start in range(0, n, rows):
        images = everyone[:, start : start + rows]
        for null, values in zip(found, around(images, [action.kernel]), strict=True):
            null.values[images[0] % n] = values[0]
        for some in _runs(centres, max(1, fits // images.shape[1])):
            without = around(images, [k for _, k in some])
            for i, (s, _) in enumerate(some):
                left, gone = np.flatnonzero(on[:, 0] != s), (images.T[:, :1] + s) % n
                for null, values in zip(found, without, strict=True):
                    null.taken[gone, left] += null.values[images.T[:, :1] % n, left] - values[i][:, left]
    if not whole and 2 * len(apart) <= n and place[0] < MIXED_BLOCKS:
        weight = max(place[1] / MIXED_BLOCKS, 1.0)
        mixed = np.concatenate([everyone + n // 2 * half[everyone % n] for half in _halves(n)], axis=1)
        step = min(rows, max(n, fits))
        parts = [around(mixed[:, i : i + step], [action.kernel]) for i in range(0, mixed.shape[1], step)]
        for null, every in zip(found, zip(*parts, strict=True), strict=True):
            sums = np.concatenate(every, axis=1).reshape(-1, 2, n, order).sum(axis=(1, 2))
            if np.isfinite(sums).all():  # images that lie infinitely far apart tell nothing of how the others do
                null.twice[: len(sums)] = (sums - sums.mean(axis=0)) * math.sqrt(weight / (len(sums) - 1))
    for null in found:
        if whole:
            null.twice[:] = null.values
        _leave_cells(null, steps, whole=whole)
    return found


@cache
def _halves(n: int) -> npt.NDArray[np.bool_]:
    """Return random halves of n images, each followed by the rest, (2 MIXED, n)."""
    some = np.random.default_rng(0).random((MIXED, 1, n)) < 0.5
    return np.concatenate([some, ~some], axis=1).reshape(-1, n)


def _runs(centres: Sequence[Centre], most: int) -> Iterator[list[Centre]]:
    """Yield f̂ that are means over equally many elements together, at most so many, in their order."""
    for _, run in groupby(centres, lambda centre: len(centre[1])):
        alike = list(run)
        yield from (alike[i : i + most] for i in range(0, len(alike), most))


def _leave_cells(found: Null, steps: Sequence[int], *, whole: bool) -> None:
    """Add what goes with an image for certain: the entries that are its own, and its own broken orbit if that does."""
    (n, order), on = found.values.shape, np.array(steps)
    own = (np.arange(n)[:, None] - on) % n, np.arange(order)
    moved = on % n != 0 if whole else np.ones(order, dtype=bool)
    found.taken[:] += np.where(moved, found.values[own], 0.0)
    found.lost[:] += moved
    if whole:
        found.taken[:] += found.values
        found.lost[:] += 1
