"""ρ on channels, as a file declares it: fields of a group's representations, one after another.

The channels of a steerable network form fields. Under g the grid of a field moves, and its channels are permuted
(regular and quotient fields), left alone (trivial ones) or multiplied by a small matrix (irreducible ones)::

    {"group": "C8",
     "pixels": true,                 the grid moves too; by default true for a map and false for anything else
     "fields": [{"type": "regular", "count": 24},
                {"type": "trivial", "count": 16},
                {"type": "quotient", "subgroup": [0, 4], "count": 8},
                {"type": "permutation", "generators": [[1, 2, 0]], "count": 4},
                {"type": "matrix", "generators": [[[0, -1], [1, 0]]], "count": 2}],
     "order": [0, 2, 1, …]}          entry i of the fields, end to end, is channel order[i]; by default i

A regular field has one channel per element, in the order of the elements: `(ρ(g) f)[gh] = f[h]`. A quotient field has
one per left coset of the subgroup, in the order of their least elements, and `ρ(g)` takes hH to ghH. Permutations
(`(ρ(g) f)[c] = f[perm[c]]`) and matrices (`(ρ(g) f)[c] = Σ_d m[c][d] f[d]`) are given for each generator (D<n>: the
rotation, then the reflection).

The declared group may be larger than the one that is measured: C8's fields tell how C4 moves them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from geed_onnx.actions.axes import Action, AxisAction, JointAction, each_alone, permutation_action
from geed_onnx.actions.grid import GridAction
from geed_onnx.actions.operators import Array, IntArray
from geed_onnx.errors import ActionError, GeedError
from geed_onnx.groups import Group, Motion, cosets, extend, is_subgroup, parse_group

Floats = npt.NDArray[np.float64]
Subscript = IntArray | Floats

#: How far a declared matrix representation may be from the group's law, relative; float32 rounds to about 1e-7.
LAW_TOLERANCE = 1e-5
#: A tap of more channels than this is a mistake in the declaration, not a network.
MOST_CHANNELS = 1 << 20
_KEYS = frozenset({"group", "pixels", "fields", "order"})
_FIELD_KEYS = {
    "trivial": frozenset[str](),
    "regular": frozenset[str](),
    "quotient": frozenset({"subgroup"}),
    "permutation": frozenset({"generators"}),
    "matrix": frozenset({"generators"}),
}


@dataclass(frozen=True)
class Fields:
    """`count` equal fields on consecutive channels.

    Attributes
    ----------
    type : str
        As it was declared.
    count : int
    images : tuple of |G| arrays
        What each element does to one field: source indices `(width,)` or a matrix `(width, width)`.
    """

    type: str
    count: int
    images: tuple[Subscript, ...]

    @property
    def width(self) -> int:
        """Channels of one field."""
        return len(self.images[0])

    @property
    def permutes(self) -> bool:
        """Whether every element permutes the channels."""
        return self.images[0].ndim == 1

    def moved(self, g: int, x: Array) -> Array:
        """Return ρ(g) x for x `(B, count · width, P)`."""
        image = self.images[g]
        split = x.reshape(len(x), self.count, self.width, -1)
        out = split[:, :, image] if self.permutes else np.matmul(image.astype(x.dtype), split)
        return out.reshape(x.shape)


@dataclass(frozen=True)
class ChannelAction:
    """ρ(g) acts on axis 1 of `(B, C, …)` by fields, at least one of which is no permutation; `Declared.bound` makes it.

    Attributes
    ----------
    shape : tuple[int, ...]
        `(C, …)`, without the batch; the fields fill the C channels.
    order : (C,) int array
        Entry i of the fields, laid end to end, is channel order[i].
    """

    group: Group
    shape: tuple[int, ...]
    fields: tuple[Fields, ...]
    order: IntArray
    name: str
    by_channel: ClassVar[bool] = False  # it mixes them

    @cached_property
    def kernel(self) -> tuple[int, ...]:
        """The elements that leave every field as it is, up to rounding."""
        return tuple(g for g in self.group.elements if all(_still(f.images[g]) for f in self.fields))

    @cached_property
    def law_defect(self) -> float:
        """The worst of the matrix fields', as the function of this name: rounding of what was declared."""
        return max(law_defect(self.group, f.images) for f in self.fields if not f.permutes)

    @property
    def resampled_by(self) -> tuple[Fraction, ...]:
        """Zero: nothing is resampled."""
        return (Fraction(0),) * self.group.order

    def __call__(self, g: int, x: Array) -> Array:
        """Return ρ(g) x, shape and type of x `(B, C, …)`."""
        flat = x.reshape(*x.shape[:2], -1)[:, self.order]
        parts, start = [], 0
        for f in self.fields:
            stop = start + f.count * f.width
            parts.append(f.moved(g, flat[:, start:stop]))
            start = stop
        out = np.empty_like(flat)
        out[:, self.order] = np.concatenate(parts, axis=1)
        return out.reshape(x.shape)

    def orbit(self, x: Array, only: Sequence[int] | None = None) -> Iterator[tuple[int, Array]]:
        """Yield (g, ρ(g) x) for every g."""
        return each_alone(self, x, only)


@dataclass(frozen=True)
class Declared:
    """A channel action as a file declares it, its group law checked; `bound` makes it an `Action` at a tap's shape."""

    group: Group
    fields: tuple[Fields, ...]
    pixels: bool | None
    order: tuple[int, ...] | None = None
    width: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", sum(f.count * f.width for f in self.fields))

    def __str__(self) -> str:
        """Return it in one line: `fields(C8: 24 regular, 16 trivial)`."""
        return f"fields({self.group.name}: {', '.join(f'{f.count} {f.type}' for f in self.fields)})"

    def bound(self, group: Group, shape: tuple[int, ...]) -> Action:
        """Return ρ of `group` on arrays of this shape (without the batch): channels, and the grid where it moves.

        Raises
        ------
        ActionError
            If `group` is no part of the declared group, the fields do not fill the channels, or pixels are to move
            where there are none.
        """
        place = embedding(group, self.group)
        channels = shape[0] if shape else 0
        if self.width != channels:
            raise ActionError(
                f"the declared {self} are {self.width} channels, but the tap has {channels}"
                f" (shape (batch, {', '.join(map(str, shape))})); {_WAY_OUT}"
            )
        part = self._channels(group, shape, place)
        pixels = len(shape) == 3 if self.pixels is None else self.pixels
        if not pixels:
            return part
        if len(shape) != 3:
            raise ActionError(
                f"the declared {self} are to move pixels, but the tap is (batch, {', '.join(map(str, shape))}) and has"
                f' none: declare "pixels": false; {_WAY_OUT}'
            )
        return JointAction((GridAction(group, shape), part))

    def _channels(self, group: Group, shape: tuple[int, ...], place: Sequence[int]) -> Action:
        order = np.arange(self.width) if self.order is None else np.asarray(self.order, dtype=np.intp)
        chosen = tuple(Fields(f.type, f.count, tuple(f.images[g] for g in place)) for f in self.fields)
        if not all(f.permutes for f in chosen):
            return ChannelAction(group, shape, chosen, order, str(self))
        indices = []
        for g in group.elements:
            entries = np.concatenate(
                [
                    f.moved(g, np.arange(f.count * f.width)[None, :, None])[0, :, 0] + start
                    for f, start in zip(chosen, _starts(chosen), strict=True)
                ]
            )
            index = np.empty_like(order)
            index[order] = order[entries]
            indices.append(index)
        return AxisAction(group, shape, 1, tuple(indices), str(self))


_WAY_OUT = "export the model again, or measure naively with --no-declared-action"


def _starts(fields: Sequence[Fields]) -> list[int]:
    return [sum(f.count * f.width for f in fields[:i]) for i in range(len(fields))]


def parse_declared(value: Any) -> Declared:
    """Read a declaration (see the module's own words) and check the group law of every field.

    Raises
    ------
    ActionError
        If it is malformed, names no group, or a field breaks the group's law; the message says where.
    """
    try:
        return _parsed(value)
    except ActionError:
        raise
    except GeedError as error:
        raise ActionError(str(error)) from error


def _parsed(value: Any) -> Declared:
    entry = _object(value, "the declared action", _KEYS)
    name = entry.get("group")
    if not isinstance(name, str):
        raise ActionError(f'the declared action: expected "group" as text, such as "C8", got {name!r:.60}')
    group = parse_group(name)
    pixels = entry.get("pixels")
    if not isinstance(pixels, bool | None):
        raise ActionError(f'the declared action: expected "pixels" true or false, got {pixels!r:.60}')
    listed = entry.get("fields")
    if not isinstance(listed, list) or not listed:
        raise ActionError(f'the declared action: expected "fields", a list that is not empty, got {listed!r:.60}')
    fields = tuple(_field(f, i, group) for i, f in enumerate(listed))
    width = sum(f.count * f.width for f in fields)
    if width > MOST_CHANNELS:
        raise ActionError(f"the declared fields are {width} channels; at most {MOST_CHANNELS} are supported")
    return Declared(group, fields, pixels, _order(entry.get("order"), width))


def _object(value: Any, what: str, known: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ActionError(
            f"{what}: expected text as --act takes it, or an object with group and fields, got {value!r:.60}"
        )
    strange = sorted(str(k) for k in value if k not in known)
    if strange:
        raise ActionError(f"{what}: {strange[0]!r:.60} is not understood; expected {', '.join(sorted(known))}")
    return value


def _order(value: Any, width: int) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not _whole_numbers(value) or sorted(value) != list(range(width)):
        raise ActionError(
            f'the declared action: "order" must hold each of 0..{width - 1} once (the fields are {width} channels)'
        )
    return tuple(value)


def _field(value: Any, i: int, group: Group) -> Fields:
    what = f"field {i}"
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in _FIELD_KEYS:
        raise ActionError(f'{what}: expected an object with "type" {", ".join(_FIELD_KEYS)}, got {value!r:.60}')
    entry = _object(value, f"{what} ({kind})", _FIELD_KEYS[kind] | {"type", "count"})
    count = entry.get("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_CHANNELS:
        raise ActionError(f'{what} ({kind}): expected "count", a whole number from 1, got {count!r:.60}')
    if kind == "trivial":
        return Fields(kind, count, (np.zeros(1, dtype=np.intp),) * group.order)
    if kind == "regular":
        return Fields(kind, count, regular(group))
    if kind == "quotient":
        members: Any = entry.get("subgroup")
        if not _whole_numbers(members) or not set(members) <= set(group.elements) or not is_subgroup(group, members):
            raise ActionError(f'{what} (quotient): "subgroup" {members!r:.60} is no subgroup of {group.name}')
        return Fields(kind, count, quotient(group, members))
    given = entry.get("generators")
    if not isinstance(given, list) or len(given) != len(group.generators):
        raise ActionError(
            f'{what} ({kind}): expected "generators" with one {kind} for each of the {len(group.generators)}'
            f" generator(s) of {group.name}, got {given!r:.60}"
        )
    return Fields(
        kind, count, _permutations(given, what, group) if kind == "permutation" else _matrices(given, what, group)
    )


def regular(group: Group) -> tuple[IntArray, ...]:
    """Return the regular representation as source indices: channel gh takes what h had, `(|G|,)` for each element."""
    return tuple(group.table[group.inverse(g)].astype(np.intp) for g in group.elements)


def quotient(group: Group, members: Sequence[int]) -> tuple[IntArray, ...]:
    """Return the representation on left cosets as source indices, `(|G|/|H|,)` for each element."""
    classes = cosets(group, sorted(set(members)))
    number = {g: i for i, coset in enumerate(classes) for g in coset}
    return tuple(
        np.array([number[group.product(group.inverse(g), coset[0])] for coset in classes], dtype=np.intp)
        for g in group.elements
    )


def _permutations(given: Sequence[Any], what: str, group: Group) -> tuple[IntArray, ...]:
    for p in given:
        if not _whole_numbers(p) or sorted(p) != list(range(len(p))) or len(p) != len(given[0]) or not p:
            raise ActionError(f"{what} (permutation): {p!r:.60} is no permutation of 0, 1, … (all of one length)")
    # AxisAction checks the law
    return permutation_action(group, (len(given[0]),), 1, given, f"{what} (permutation)").indices


def _matrices(given: Sequence[Any], what: str, group: Group) -> tuple[Floats, ...]:
    try:
        images = [np.asarray(m, dtype=np.float64) for m in given]
    except (TypeError, ValueError, OverflowError):
        images = [np.zeros(0)]
    width = len(images[0]) if images[0].ndim else 0
    if any(m.shape != (width, width) or not np.isfinite(m).all() for m in images) or not width:
        raise ActionError(
            f"{what} (matrix): expected square matrices of finite numbers, all of one size, got {given!r:.60}"
        )
    every = tuple(extend(group, images, lambda a, b: a @ b, np.eye(width)))
    defect = law_defect(group, every)
    if not defect <= LAW_TOLERANCE:
        raise ActionError(
            f"{what} (matrix) is no representation of {group.name}: ρ(g)ρ(h) differs from ρ(gh) by {defect:.1e}; the"
            " matrices must satisfy the group's relations (rⁿ = 1; for D<n> also s² = 1 and s r s = r⁻¹)"
        )
    return every


def law_defect(group: Group, matrices: Sequence[Subscript]) -> float:
    """Return `max ‖ρ(g)ρ(s) − ρ(gs)‖₂ / ‖ρ(gs)‖₂` over elements g and generators s, whose products are all elements."""
    rho, worst = np.stack(matrices), 0.0
    for s in group.generators:
        direct = rho[group.table[:, s]]
        error, size = (np.linalg.norm(m, ord=2, axis=(1, 2)) for m in (rho @ rho[s] - direct, direct))
        # 0 is ρ(gs) of no group, and then some other pair says so
        worst = max(worst, float(np.max(error / np.where(size > 0, size, 1))))
    return worst


def _still(image: Subscript) -> bool:
    """Say whether an element leaves a field as it is, up to rounding."""
    if image.ndim == 1:
        return np.array_equal(image, np.arange(len(image)))
    return bool(np.linalg.norm(image - np.eye(len(image)), ord=2) <= LAW_TOLERANCE)


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)


def embedding(group: Group, within: Group) -> tuple[int, ...]:
    """Return, for every element of `group`, the element of `within` that moves a picture in the same way.

    Raises
    ------
    ActionError
        If one has no counterpart.

    >>> embedding(parse_group("C4"), parse_group("C8"))
    (0, 2, 4, 6)
    """
    known = {_normal(m): g for g, m in enumerate(within.motions)}
    place = []
    for g, motions in enumerate(group.motions):
        if _normal(motions) not in known:
            raise ActionError(
                f"the file declares how {within.name} moves the channels, which does not tell what element {g} of"
                f" {group.name} does: measure with {within.name} or a part of it, or naively with --no-declared-action"
            )
        place.append(known[_normal(motions)])
    return tuple(place)


def _normal(motions: Sequence[Motion]) -> frozenset[Motion]:
    """Return commuting motions as a set in which turns and mirrors are one motion."""
    turn, mirror, rest = Fraction(0), False, set[Motion]()
    for m in motions:
        if m.axis or any(m.roll):
            rest.add(m)
        elif m != Motion():
            # R^a F · R^b F^k = R^(a−b) F^(1+k)
            turn, mirror = (turn + (-m.turn if mirror else m.turn)) % 1, mirror != m.mirror
    return frozenset(rest | ({Motion(turn=turn, mirror=mirror)} if turn or mirror else set()))
