"""Symmetry on arrays: an `Action` is ρ: G → linear maps, bound to one shape.

Bound to a shape, an action computes its own kernel (which elements do nothing *here*: all of C4 on a 1×1 map) and its
own law defect (a turn by 45° on a grid is no action). Input and output actions are the same thing at two shapes.

>>> from geed_onnx.groups import parse_group
>>> output_action("pixels", parse_group("C4"), (16, 1, 1)).kernel
(0, 1, 2, 3)
>>> output_action("permute:1:1,0", parse_group("C4"), (2,)).kernel  # C4 acting through its half-turn's quotient
(0, 2)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from geed_onnx.actions.alignment import Alignment, alignment_of, motion_classes, scratch
from geed_onnx.actions.axes import (
    Action,
    AxisAction,
    JointAction,
    LogAction,
    TrivialAction,
    on_logs,
    permutation_action,
)
from geed_onnx.actions.fields import ChannelAction, Declared, parse_declared, regular
from geed_onnx.actions.grid import GridAction, masked
from geed_onnx.actions.interpolation import INTERPOLATIONS, Interpolation, interpolation_of
from geed_onnx.actions.masking import MASKS, DiscAction, Mask, mask_of, within, within_disc
from geed_onnx.actions.operators import Array, disc, resample, turn_matrix
from geed_onnx.errors import ActionError, UsageError
from geed_onnx.groups import Group
from geed_onnx.registry import Registry

#: (group, shape without the batch, text after the name) → Action
Factory = Callable[[Group, tuple[int, ...], str], Action]
actions: Registry[Factory] = Registry("actions", "action")


@actions.registers("trivial")
def _trivial(group: Group, shape: tuple[int, ...], text: str) -> Action:
    """Nothing moves: invariance."""
    _nothing_after("trivial", text)
    return TrivialAction(group, shape)


@actions.registers("pixels")
def _pixels(group: Group, shape: tuple[int, ...], text: str) -> Action:
    """The grid of a map moves as the image does."""
    _nothing_after("pixels", text)
    if len(shape) != 3:
        raise ActionError(
            f"the action 'pixels' moves the grid of a map (C, H, W), but this tensor is (batch,"
            f" {', '.join(map(str, shape))}); use trivial, permute:AXIS:… or roll:AXIS:STEPS"
        )
    return GridAction(group, shape)


@actions.registers("permute")
def _permute(group: Group, shape: tuple[int, ...], text: str) -> Action:
    """permute:AXIS:i,j,k,…: (ρ(g) y)[c] = y[perm[c]] along an axis, for each generator (D<n>: rotation; reflection)."""
    axis, _, rest = text.partition(":")
    try:
        number = int(axis)
        images = [[int(c) for c in part.split(",")] for part in rest.split(";")]
    except ValueError:
        raise UsageError(
            f"permute:{text}: expected permute:AXIS:i,j,k,… with whole numbers (a further permutation after ';' for a"
            " second generator), as in permute:1:1,0"
        ) from None
    return permutation_action(group, shape, number, images, f"permute:{text}")


@actions.registers("roll")
def _roll(group: Group, shape: tuple[int, ...], text: str) -> Action:
    """roll:AXIS:STEPS: an axis is rolled, by STEPS for each generator."""
    axis, _, rest = text.partition(":")
    try:
        number, steps = int(axis), [int(part) for part in rest.split(";")]
    except ValueError:
        raise UsageError(f"roll:{text}: expected roll:AXIS:STEPS with whole numbers, as in roll:1:-4") from None
    size = shape[number - 1] if 1 <= number <= len(shape) else 1
    images = [np.roll(np.arange(size), s).tolist() for s in steps]
    return permutation_action(group, shape, number, images, f"roll:{text}")


@actions.registers("regular")
def _regular(group: Group, shape: tuple[int, ...], text: str) -> Action:
    """regular:AXIS: an axis is made of regular fields, one entry per element: entry gh of a field takes what h had."""
    try:
        axis = int(text)
    except ValueError:
        raise UsageError(f"regular:{text}: expected regular:AXIS with a whole number, as in regular:1") from None
    size, order = shape[axis - 1] if 1 <= axis <= len(shape) else 0, group.order
    if size % order and size:
        raise ActionError(
            f"regular:{text}: axis {axis} holds {size} entries, which is no multiple of the {order} elements of"
            f" {group.name}"
        )
    starts = order * np.arange(size // order)[:, None]
    return AxisAction(group, shape, axis, tuple((starts + i).ravel() for i in regular(group)), f"regular:{text}")


def _nothing_after(name: str, text: str) -> None:
    if text:
        raise UsageError(f"the action {name!r} takes nothing after its name, got {name}:{text}")


def output_action(
    spec: str | Declared, group: Group, shape: tuple[int, ...], interpolation: Interpolation = "bilinear"
) -> Action:
    """Return the action that `spec` names, or that a file declares, bound to a tap's shape (without the batch).

    `trivial`, `pixels`, `permute:AXIS:i,j,…`, `roll:AXIS:STEPS`, `regular:AXIS` (AXIS counts the batch as 0), or
    several on different axes joined by `+`, as in `pixels+permute:1:1,0`.

    Raises
    ------
    UnknownName, UsageError
        If the text names no action, or is malformed.
    ActionError
        If the action does not fit this shape, breaks the group's law, or cannot resample in this way.
    """
    return interpolated(_output_action(spec, group, shape), interpolation)


def _output_action(spec: str | Declared, group: Group, shape: tuple[int, ...]) -> Action:
    if isinstance(spec, Declared):
        return spec.bound(group, shape)
    parts = []
    for text in spec.split("+"):
        name, _, rest = text.partition(":")
        parts.append(actions[name](group, shape, rest))
    if len(parts) == 1:
        return parts[0]
    axes = [a for part in parts for a in _axes(part)]
    if len(axes) != len(set(axes)):
        raise UsageError(f"action {spec!r}: its parts move the same axis; join only actions on different axes")
    return JointAction(tuple(parts))


def _axes(action: Action) -> tuple[int, ...]:
    if isinstance(action, AxisAction):
        return (action.axis,)
    return () if isinstance(action, TrivialAction) else (2, 3)


def interpolated(action: Action, interpolation: Interpolation) -> Action:
    """Return the action with its pixels resampled in this way; itself for `bilinear`, and where no pixels move.

    Raises
    ------
    ActionError
        If it resamples and is no action of this library, so that it cannot be told how.
    """
    if interpolation == "bilinear":
        return action
    if isinstance(action, GridAction):
        return replace(action, interpolation=interpolation)
    if isinstance(action, JointAction):
        return JointAction(tuple(interpolated(part, interpolation) for part in action.parts))
    if any(action.resampled_by):
        raise ActionError(
            f"the action {action.name!r} resamples in a way of its own, so it cannot do so by {interpolation}"
            " interpolation: leave --interpolation out"
        )
    return action


def input_action(group: Group, shape: tuple[int, ...], interpolation: Interpolation = "bilinear") -> Action:
    """Return ρ_X, the action of the group on one input array of this shape: pixels, and an axis where S_n names one.

    Raises
    ------
    ActionError
        If the group moves pixels but the input `(C, H, W)` is no grid, or an element does not map the grid to itself,
        or the named axis has another length.
    """
    parts: list[Action] = []
    if any(m.turn or m.mirror or any(m.roll) for motions in group.motions for m in motions):
        if len(shape) != 3:
            raise ActionError(
                f"{group.name} moves the pixels of an image (channels, height, width), but the model's input is"
                f" (batch, {', '.join(map(str, shape))}); choose a group on an axis (S<n>@<axis>), or another input"
                " (--input NAME)"
            )
        parts.append(GridAction(group, shape, interpolation))
    axes = sorted({m.axis for motions in group.motions for m in motions if m.axis})
    parts += [_axis_part(group, shape, axis) for axis in axes] or ([] if parts else [TrivialAction(group, shape)])
    return parts[0] if len(parts) == 1 else JointAction(tuple(parts))


def _axis_part(group: Group, shape: tuple[int, ...], axis: int) -> AxisAction:
    size = shape[axis - 1] if axis <= len(shape) else 0
    indices = []
    for motions in group.motions:
        index = np.arange(size, dtype=np.intp)
        for motion in (m for m in motions if m.axis == axis):
            if len(motion.permutation) != size:
                raise ActionError(
                    f"{group.name} permutes {len(motion.permutation)} entries of axis {axis}, but the model's input is"
                    f" (batch, {', '.join(map(str, shape))})"
                )
            index = np.asarray(motion.permutation, dtype=np.intp)[index]
        indices.append(index)
    return AxisAction(group, shape, axis, tuple(indices), f"axis {axis}")


def orbit_of(action: Action, x: Array) -> Array:
    """Return the orbits `(B, |G|, *shape)` of x `(B, *shape)`, element 0 first (and equal to x)."""
    out = np.empty((len(x), action.group.order, *x.shape[1:]), dtype=x.dtype)
    for g, gx in action.orbit(x):
        out[:, g] = gx
    return out
