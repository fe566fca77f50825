"""Deviations of maps whose pixels move and whose channels do not, f̂ being f(x): one resampling a turn, no map moved.

::

    ⟨f(gx), P_g R_t y⟩ = ⟨P_g⁻¹ f(gx), R_t y⟩

See `geed_onnx.actions.alignment`.  R_t f(x) serves as f̂ for the image's own orbit and as another image's f for the
next one's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from geed_onnx.actions import Action, Alignment, alignment_of, scratch
from geed_onnx.distances import Distance, row_dots, row_squares

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: Values of one slice of channels, of which three are held side by side in float64.
ALIGNED_VALUES = 1 << 16


class Readings(NamedTuple):
    """What one batch of orbits tells, each `(B, |G|)` float64.

    Attributes
    ----------
    deviations
        m(f(gx), ρ(g) f̂(x)).
    floor
        m(ρ(g⁻¹)ρ(g) f̂(x), f̂(x)): what resampling alone costs; the optimum for exact elements.
    null
        m(f(gx), ρ(g) f(x')) for another image x'; None where none was given.
    """

    deviations: Floats
    floor: Floats | None
    null: Floats | None


@dataclass(frozen=True, eq=False)
class LinedUp:
    """R_t f(x) of some images for every turn t of an alignment, each `(B, C, P)`."""

    turned: tuple[Array, ...]

    @property
    def last(self) -> LinedUp:
        """The last image alone, apart from what it is a part of."""
        return self if len(self.turned[0]) == 1 else LinedUp(tuple(y[-1:].copy() for y in self.turned))


def lined_up(action: Action, distance: Distance, dtype: npt.DTypeLike) -> Alignment | None:
    """Return the alignment with which `aligned_readings` compares; None where it cannot."""
    form = distance.per_channel
    return alignment_of(action, dtype) if form is not None and form.raw and action.kernel == (0,) else None


def line_up(alignment: Alignment, y: Array) -> LinedUp:
    """Return R_t y for maps y `(B, C, H, W)` and every turn t."""
    inside = alignment.inside(y)
    return LinedUp(tuple(alignment.turned(turn, inside) for turn in range(len(alignment.turns))))


def aligned_readings(
    elements: Sequence[Array],
    alignment: Alignment,
    distance: Distance,
    own: LinedUp,
    before: LinedUp | None = None,
    *,
    floor: bool = False,
) -> Readings:
    """Return the readings of maps `(B, C, H, W)` whose f̂ is f(x), with the image before each as the other of its null.

    Slice by slice of the channels, so that all of it stays in the cache.

    Parameters
    ----------
    elements
        f(gx), for every g.
    own, before
        f(x), and f(x') of the one image that comes before them, lined up; without it there is no null.
    floor
        Whether it is wanted.
    """
    form = distance.per_channel
    if form is None:
        raise TypeError(f"{distance.name} is no distance of channels")
    count, channels, order = *elements[0].shape[:2], len(elements)
    # images at these places of what is held: f̂ of each, and the one before it
    kinds = [slice(0, count)] if before is None else [slice(1, count + 1), slice(0, count)]
    found = np.full((len(kinds) + floor, count, order), distance.optimum)
    for turn in range(len(alignment.turns)):
        moving = [g for g, its in enumerate(alignment.turn_of) if its == turn and g]
        if not moving:
            continue
        # sums (3, kind, element, B, C), and those of f̂ there and back with f̂
        sums, lost = np.empty((3, len(kinds), len(moving), count, channels)), np.empty((3, count, channels))
        # resampled whole, since a product of few planes costs as much as one of many
        back = alignment.returned(turn, own.turned[turn]) if turn and floor else None
        rows = [own.turned[turn]] if before is None else [before.turned[turn], own.turned[turn]]
        for part in channel_slices(elements[0], ALIGNED_VALUES):
            f = _widened("held", [some[:, part] for some in rows])
            y = scratch("elements", (len(moving), count, *f.shape[1:]))
            for out, g in zip(y, moving, strict=True):
                alignment.take(g, elements[g][:, part], out)
            y_squares, f_squares = row_squares(y), row_squares(f)
            for kind, images in enumerate(kinds):
                sums[0, kind, ..., part] = row_dots(y, f[images])
                sums[1, kind, ..., part], sums[2, kind, ..., part] = y_squares, f_squares[images]
            if back is not None:
                a = _widened("back", [back[:, part], own.turned[0][:, part]])
                lost[0, :, part] = row_dots(a[:count], a[count:])
                lost[1:, :, part] = row_squares(a).reshape(2, count, -1)
        found[: len(kinds), :, moving] = form.combine(sums).swapaxes(1, 2)
        if back is not None:
            found[-1, :, [g for g, its in enumerate(alignment.turn_of) if its == turn]] = form.combine(lost)
    return Readings(found[0], found[-1] if floor else None, None if before is None else found[1])


def _widened(name: str, planes: Sequence[Array]) -> Floats:
    """Return planes (…, c, P), one after another, in float64: this thread's own, until the next so named."""
    out = scratch(name, (sum(map(len, planes)), *planes[0].shape[1:]))
    return np.concatenate(planes, out=out, casting="same_kind")


def channel_slices(x: Array, values: int) -> Iterator[slice]:
    """Yield slices of the channels of `(B, C, H, W)` of so many values, so that an orbit of one stays in the cache."""
    step = max(1, values // max(x[:, :1].size, 1))
    for start in range(0, x.shape[1], step):
        yield slice(start, min(start + step, x.shape[1]))
