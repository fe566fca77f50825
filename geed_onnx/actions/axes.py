"""ρ that does nothing, ρ that permutes one axis, ρ that does several things at once, and ρ on logarithms.

Distributions may come as their logarithms: what permutes them does so as ever, what mixes them acts on exp.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from operator import attrgetter
from typing import Any, ClassVar, Protocol

import numpy as np

from geed_onnx.actions.operators import Array, IntArray
from geed_onnx.errors import ActionError, UsageError
from geed_onnx.groups import Group, extend

#: Entries of a distribution below this are no rounding of 0.
ROUNDING = 1e-6


class Action(Protocol):
    """ρ: G → linear maps on arrays of one shape; `x` is `(B, *shape)`."""

    @property
    def group(self) -> Group:
        """The group that acts."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape it is bound to, without the batch."""
        ...

    @property
    def name(self) -> str:
        """How `--act` spells it."""
        ...

    @property
    def kernel(self) -> tuple[int, ...]:
        """The elements g with ρ(g) = 1, computed at the bound shape; a subgroup."""
        ...

    @property
    def law_defect(self) -> float:
        """`max ‖ρ(g)ρ(h) − ρ(gh)‖₂ / ‖ρ(gh)‖₂` over pairs of elements; 0 for a true action."""
        ...

    @property
    def resampled_by(self) -> tuple[Fraction, ...]:
        """The turn by which each element resamples before it permutes; 0 for exact elements.

        Elements of one turn lose the same: ρ(g⁻¹)ρ(g) is one and the same operator for all of them.
        """
        ...

    @property
    def by_channel(self) -> bool:
        """Whether it moves the channels of a map one by one and all alike, so that it acts on any slice of them."""
        ...

    def __call__(self, g: int, x: Array) -> Array:
        """Return ρ(g) x."""
        ...

    def orbit(self, x: Array, only: Sequence[int] | None = None) -> Iterator[tuple[int, Array]]:
        """Yield (g, ρ(g) x) once for every g (of `only`), in any order."""
        ...


def each_alone(action: Action, x: Array, only: Sequence[int] | None) -> Iterator[tuple[int, Array]]:
    """Yield (g, ρ(g) x) for every g (of `only`): the orbit where no element's work serves another."""
    return ((g, action(g, x)) for g in (action.group.elements if only is None else only))


def of_inner(name: str) -> Any:
    """Return a property that is the same of `inner`, for an action made of another."""
    return property(attrgetter(f"inner.{name}"))


@dataclass(frozen=True)
class TrivialAction:
    """ρ(g) y = y: invariance."""

    group: Group
    shape: tuple[int, ...]
    name: ClassVar[str] = "trivial"
    law_defect: ClassVar[float] = 0.0
    by_channel: ClassVar[bool] = True

    @property
    def kernel(self) -> tuple[int, ...]:
        """The whole group."""
        return tuple(self.group.elements)

    @property
    def resampled_by(self) -> tuple[Fraction, ...]:
        """Zero: nothing is resampled."""
        return (Fraction(0),) * self.group.order

    def __call__(self, g: int, x: Array) -> Array:
        """Return x."""
        return x

    def orbit(self, x: Array, only: Sequence[int] | None = None) -> Iterator[tuple[int, Array]]:
        """Yield (g, x) for every g."""
        return each_alone(self, x, only)


@dataclass(frozen=True)
class AxisAction:
    """ρ(g) permutes one axis: `(ρ(g) y)[…, c, …] = y[…, indices[g][c], …]`.

    Raises
    ------
    ActionError
        If the permutations are no homomorphism of the group, or do not fit the axis.
    """

    group: Group
    shape: tuple[int, ...]
    axis: int  # batch is axis 0
    indices: tuple[IntArray, ...]  # n permutations of the axis
    name: str
    kernel: tuple[int, ...] = field(init=False)
    law_defect: ClassVar[float] = 0.0  # the law is checked entry by entry

    def __post_init__(self) -> None:
        if not 1 <= self.axis <= len(self.shape):
            raise ActionError(
                f"{self.name}: axis {self.axis} is none of this tensor's; it is (batch, "
                f"{', '.join(map(str, self.shape))}), so an axis from 1 to {len(self.shape)} (0 is the batch)"
            )
        size = self.shape[self.axis - 1]
        for index in self.indices:
            if len(index) != size or not np.array_equal(np.sort(index), np.arange(size)):
                raise ActionError(
                    f"{self.name}: expected a permutation of 0..{size - 1} (axis {self.axis} holds {size} entries),"
                    f" got {len(index)} entries: {_short(index)}"
                )
        for s in self.group.generators:
            for g in self.group.elements:
                if not np.array_equal(self.indices[self.group.product(g, s)], self.indices[s][self.indices[g]]):
                    raise ActionError(
                        f"{self.name} is no action of {self.group.name}: ρ({g})ρ({s}) ≠ ρ({self.group.product(g, s)});"
                        " the permutations must satisfy the group's relations (rⁿ = 1; for D<n> also s² = 1 and"
                        " s r s = r⁻¹)"
                    )
        still = np.arange(size)
        kernel = tuple(g for g, index in enumerate(self.indices) if np.array_equal(index, still))
        object.__setattr__(self, "kernel", kernel)

    @property
    def resampled_by(self) -> tuple[Fraction, ...]:
        """Zero: nothing is resampled."""
        return (Fraction(0),) * self.group.order

    @property
    def by_channel(self) -> bool:
        """Whether the permuted axis is none of the channels'."""
        return self.axis > 1

    def __call__(self, g: int, x: Array) -> Array:
        """Return ρ(g) x, shape of x."""
        return np.take(x, self.indices[g], axis=self.axis)

    def orbit(self, x: Array, only: Sequence[int] | None = None) -> Iterator[tuple[int, Array]]:
        """Yield (g, ρ(g) x) for every g."""
        return each_alone(self, x, only)


def _short(index: Sequence[int] | IntArray) -> str:
    text = ",".join(str(int(i)) for i in index[:12])
    return text + (",…" if len(index) > 12 else "")


def permutation_action(
    group: Group, shape: tuple[int, ...], axis: int, images: Sequence[Sequence[int]], name: str
) -> AxisAction:
    """Return the action in which the group's generators permute an axis, one permutation each.

    Raises
    ------
    UsageError
        If there are not as many permutations as generators.
    ActionError
        If they are no permutations of that axis, or break the group's relations.
    """
    if len(images) != len(group.generators):
        raise UsageError(
            f"{name}: {group.name} has {len(group.generators)} generator(s), so expected as many permutations separated"
            f" by ';' (D<n>: rotation, then reflection), got {len(images)}"
        )
    if not 1 <= axis <= len(shape):
        return AxisAction(group, shape, axis, (), name)  # raises, in the one place that words it
    size = shape[axis - 1]
    arrays = [np.asarray(p, dtype=np.intp) for p in images]
    for p in arrays:
        if not np.array_equal(np.sort(p), np.arange(size)):
            return AxisAction(group, shape, axis, (p,), name)
    indices = extend(group, arrays, lambda a, b: b[a], np.arange(size, dtype=np.intp))
    return AxisAction(group, shape, axis, tuple(indices), name)


@dataclass(frozen=True)
class JointAction:
    """ρ(g) = ρ₁(g) ρ₂(g) … on different axes of one array, so that the order does not matter."""

    parts: tuple[Action, ...]

    @property
    def group(self) -> Group:
        """The group that acts."""
        return self.parts[0].group

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape it is bound to."""
        return self.parts[0].shape

    @property
    def name(self) -> str:
        """How `--act` spells it."""
        return "+".join(p.name for p in self.parts)

    @property
    def kernel(self) -> tuple[int, ...]:
        """The elements that every part leaves alone (the parts move different axes)."""
        return tuple(g for g in self.group.elements if all(g in p.kernel for p in self.parts))

    @property
    def law_defect(self) -> float:
        """The worst of the parts'; exact where no more than one part has any, since norms of the others cancel."""
        return max(p.law_defect for p in self.parts)

    @property
    def resampled_by(self) -> tuple[Fraction, ...]:
        """The grid part's turns (at most one part resamples)."""
        return tuple(max(turns) for turns in zip(*(p.resampled_by for p in self.parts), strict=True))

    @property
    def by_channel(self) -> bool:
        """Whether all parts do."""
        return all(p.by_channel for p in self.parts)

    def __call__(self, g: int, x: Array) -> Array:
        """Return ρ(g) x."""
        for part in self.parts:
            x = part(g, x)
        return x

    def orbit(self, x: Array, only: Sequence[int] | None = None) -> Iterator[tuple[int, Array]]:
        """Yield (g, ρ(g) x) for every g."""
        first, *rest = self.parts
        for g, moved in first.orbit(x, only):
            for part in rest:
                moved = part(g, moved)
            yield g, moved


@dataclass(frozen=True)
class LogAction:
    """log ρ(g) exp, for arrays `(B, *shape)` of the logarithms of what ρ(g) mixes; −inf for 0.

    Raises
    ------
    ActionError
        If ρ makes negative numbers of distributions.
    """

    inner: Action
    group, shape, name, kernel, law_defect, resampled_by, by_channel = map(
        of_inner, ["group", "shape", "name", "kernel", "law_defect", "resampled_by", "by_channel"]
    )

    def __post_init__(self) -> None:
        # it is linear: what it makes of each class alone tells all
        each = np.eye(prod(self.shape)).reshape(-1, *self.shape)
        for g, moved in self.inner.orbit(each):
            if moved.min() < -ROUNDING:
                raise ActionError(
                    f"the action {self.name} makes negative numbers ({moved.min():.3g}) of probabilities at element"
                    f" {g} of {self.group.name}: give one that permutes classes, or measure the tap as a vector"
                )

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
