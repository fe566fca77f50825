"""ρ on distributions that come as their logarithms: what permutes them does so as ever, what mixes them acts on exp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from geed_onnx.actions.axes import Action, AxisAction, JointAction, TrivialAction
from geed_onnx.actions.operators import Array
from geed_onnx.errors import ActionError
from geed_onnx.groups import Group

#: Entries below this are no rounding of 0.
ROUNDING = 1e-6


@dataclass(frozen=True)
class LogAction:
    """log ρ(g) exp, for arrays `(B, *shape)` of the logarithms of what ρ(g) mixes; −inf for 0.

    Raises
    ------
    ActionError
        If ρ makes negative numbers of distributions.
    """

    inner: Action

    def __post_init__(self) -> None:
        # it is linear: what it makes of each class alone tells all
        each = np.eye(prod(self.shape)).reshape(-1, *self.shape)
        for g, moved in self.inner.orbit(each):
            if moved.min() < -ROUNDING:
                raise ActionError(
                    f"the action {self.name} makes negative numbers ({moved.min():.3g}) of probabilities at element"
                    f" {g} of {self.group.name}: give one that permutes classes, or measure the tap as a vector"
                )

    @property
    def group(self) -> Group:
        """The group that acts."""
        return self.inner.group

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape it is bound to, without the batch."""
        return self.inner.shape

    @property
    def name(self) -> str:
        """How `--act` spells it."""
        return self.inner.name

    @property
    def kernel(self) -> tuple[int, ...]:
        """The elements that do nothing."""
        return self.inner.kernel

    @property
    def law_defect(self) -> float:
        """The inner action's."""
        return self.inner.law_defect

    @property
    def resampled_by(self) -> tuple[Fraction, ...]:
        """The turn by which each element resamples before it permutes; 0 for exact elements."""
        return self.inner.resampled_by

    @property
    def by_channel(self) -> bool:
        """Whether the inner action does."""
        return self.inner.by_channel

    def __call__(self, g: int, x: Array) -> Array:
        """Return log ρ(g) exp(x)."""
        return _logarithm(self.inner(g, np.exp(x)))

    def orbit(self, x: Array, only: Sequence[int] | None = None) -> Iterator[tuple[int, Array]]:
        """Yield (g, log ρ(g) exp(x)) once for every g (of `only`), in any order."""
        return ((g, _logarithm(moved)) for g, moved in self.inner.orbit(np.exp(x), only))


def _logarithm(p: Array) -> Array:
    with np.errstate(divide="ignore"):
        logs: Array = np.log(np.maximum(p, 0.0))
    return logs


def on_logs(action: Action) -> Action:
    """Return the action on logarithms of distributions: itself where it only permutes.

    Raises
    ------
    ActionError
        If it makes negative numbers of distributions.
    """
    return action if _permutes(action) else LogAction(action)


def _permutes(action: Action) -> bool:
    if isinstance(action, JointAction):
        return all(map(_permutes, action.parts))
    return isinstance(action, (TrivialAction, AxisAction))
