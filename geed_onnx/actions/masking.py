"""ρ on arrays that are 0 outside the inscribed disc: what a turn smears over the rim is set to 0 again.

A turn by no multiple of 90° brings corners in and out of the frame; inside the disc nothing comes or goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from geed_onnx.actions.axes import Action, AxisAction, JointAction, of_inner
from geed_onnx.actions.fields import ChannelAction
from geed_onnx.actions.grid import GridAction, law_defect, masked
from geed_onnx.actions.operators import Array, disc
from geed_onnx.errors import ActionError, one_of

#: Where everything happens: `disc`, inside the inscribed disc; `none`, on the whole frame; `auto`, inside the disc
#: where an element of the group resamples, since a turn by another angle than 90 degrees brings corners in and out.
Mask = Literal["auto", "disc", "none"]
MASKS: tuple[Mask, ...] = get_args(Mask)


def mask_of(word: str) -> Mask:
    """Return the mask of this name.

    Raises
    ------
    UnknownName
        If there is none.
    """
    return one_of("mask", word, MASKS)


@dataclass(frozen=True)
class DiscAction:
    """M ρ(g) for masked arrays x = M x, shape `(…, H, W)`, M being the inscribed disc.

    Raises
    ------
    ActionError
        If an exact element moves the disc itself (a cyclic shift does).
    """

    inner: Action
    group, shape, name, resampled_by, by_channel = map(
        of_inner, ("group", "shape", "name", "resampled_by", "by_channel")
    )

    def __post_init__(self) -> None:
        if _on_channels(self.inner):
            return
        inside = np.broadcast_to(disc(*self.shape[-2:]), self.shape)[None]
        for g, turn in enumerate(self.inner.resampled_by):
            if not turn and not np.array_equal(self.inner(g, inside), inside):
                raise ActionError(
                    f"element {g} of {self.group.name} moves the disc of the mask on a"
                    f" {self.shape[-2]}×{self.shape[-1]} grid: leave the mask out, or use turns and reflections only"
                )

    @cached_property
    def kernel(self) -> tuple[int, ...]:
        """The elements that do nothing within the disc, which may hide all that one of them moves."""
        if _on_channels(self.inner):
            return self.inner.kernel
        numbered = np.arange(1, np.prod(self.shape) + 1, dtype=np.float64).reshape(1, *self.shape)
        inside = masked(numbered, True)
        still = {
            g
            for g, turn in enumerate(self.inner.resampled_by)
            if not turn and np.array_equal(self.inner(g, inside), inside)
        }
        return tuple(g for g in self.group.elements if g in still or g in self.inner.kernel)

    @property
    def law_defect(self) -> float:
        """`max ‖M ρ(g) M ρ(h) M − M ρ(gh) M‖₂ / ‖M ρ(gh) M‖₂` over all pairs, as `geed_onnx.actions.grid.law_defect`.

        0 without resampling; of an action of another kind than this library's, its own, without the disc.
        """
        if isinstance(self.inner, GridAction) and any(self.resampled_by):
            return law_defect(self.group, self.shape[-1], self.inner.interpolation, True)
        return self.inner.law_defect

    def __call__(self, g: int, x: Array) -> Array:
        """Return M ρ(g) x."""
        return self._inside(g, self.inner(g, x))

    def orbit(self, x: Array, only: Sequence[int] | None = None) -> Iterator[tuple[int, Array]]:
        """Yield (g, M ρ(g) x) once for every g (of `only`), in any order."""
        return ((g, self._inside(g, moved)) for g, moved in self.inner.orbit(x, only))

    def _inside(self, g: int, moved: Array) -> Array:
        # exact elements keep the disc, so only a resampling leaves anything outside it
        return masked(moved, True) if self.inner.resampled_by[g] else moved


def within_disc(action: Action, mask: bool) -> Action:
    """Return the action on masked arrays, or the action itself where there is no mask or no grid."""
    if not mask or len(action.shape) != 3:
        return action
    if isinstance(action, JointAction) and not _on_channels(action):
        return JointAction(tuple(part if _on_channels(part) else DiscAction(part) for part in action.parts))
    return DiscAction(action)


def _on_channels(action: Action) -> bool:
    if isinstance(action, JointAction):
        return all(_on_channels(part) for part in action.parts)
    return isinstance(action, ChannelAction) or (isinstance(action, AxisAction) and action.axis == 1)


def within(action: Action, x: Array) -> Array:
    """Return x `(B, *shape)` with what lies outside the action's disc set to 0; x itself where it has none."""
    parts = action.parts if isinstance(action, JointAction) else (action,)
    return masked(x, any(isinstance(part, DiscAction) for part in parts))
