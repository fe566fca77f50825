"""Finite groups as multiplication tables; elements are ints `0..n-1`, `0` is the identity.

A `Group` also says what each element does to a picture (a `Motion`), so that `actions` can realise it on any grid.
Names are parsed and printed by the same families, and the two are inverses:

>>> parse_group("D4").order, parse_group("D4").name
(8, 'D4')
>>> subgroup(parse_group("C8"), [2])
(0, 2, 4, 6)
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from geed_onnx.errors import UnknownName, UsageError
from geed_onnx.registry import Registry

IntArray = npt.NDArray[np.intp]

#: A larger group would take minutes a single image and a table of more than a million entries.
LARGEST_ORDER = 1024
AXES = {"channel": 1, "height": 2, "width": 3}


@dataclass(frozen=True)
class Motion:
    """What one element does to a picture: reflect left-right, then turn counter-clockwise, then roll; permute an axis.

    Attributes
    ----------
    turn : Fraction
        Counter-clockwise, in full turns, within [0, 1).
    mirror : bool
        Whether a reflection across the vertical axis comes first.
    roll : tuple[Fraction, Fraction]
        Cyclic shift down and right, as fractions of the height and the width.
    axis, permutation : int, tuple[int, ...]
        `(ρ y)[…, c, …] = y[…, permutation[c], …]` along `axis` (batch is axis 0); `axis` 0 means none.
    """

    turn: Fraction = Fraction(0)
    mirror: bool = False
    roll: tuple[Fraction, Fraction] = (Fraction(0), Fraction(0))
    axis: int = 0
    permutation: tuple[int, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether it permutes the pixels of a square grid: a multiple of 90 degrees."""
        return (self.turn * 4).denominator == 1


@dataclass(frozen=True, eq=False)
class Group:
    """A finite group, validated against the axioms when built.

    Attributes
    ----------
    name : str
        What `parse_group` reads.
    table : (n, n) int array
        `table[g, h] = gh`: h acts first.
    motions : tuple of n tuples of Motion
        What each element does to a picture; the motions of one element commute and are applied together.
    generators : tuple[int, ...]
        In the order in which `--act` takes one permutation each (rotation, then reflection).

    Raises
    ------
    UsageError
        If the table breaks an axiom, or the order is beyond `LARGEST_ORDER`.
    """

    name: str
    table: IntArray
    motions: tuple[tuple[Motion, ...], ...]
    generators: tuple[int, ...]
    inverses: IntArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        table = np.asarray(self.table, dtype=np.intp)
        table.setflags(write=False)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "inverses", _validated_inverses(self.name, table, self.generators))
        if len(self.motions) != len(table):
            raise UsageError(f"group {self.name}: {len(table)} elements but {len(self.motions)} motions")

    @property
    def order(self) -> int:
        """Number of elements |G|."""
        return len(self.table)

    @property
    def elements(self) -> range:
        """All elements, the identity first."""
        return range(self.order)

    def product(self, g: int, h: int) -> int:
        """Return gh (h acts first)."""
        return int(self.table[g, h])

    def inverse(self, g: int) -> int:
        """Return g⁻¹."""
        return int(self.inverses[g])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self.name == other.name and np.array_equal(self.table, other.table)

    def __hash__(self) -> int:
        return hash((self.name, self.order))

    def __str__(self) -> str:
        return self.name


def _validated_inverses(name: str, table: IntArray, generators: Sequence[int]) -> IntArray:
    """Check the group axioms and return g⁻¹ for every g, shape (n,)."""
    n = len(table)
    if n == 0 or table.shape != (n, n):
        raise UsageError(f"group {name}: the table must be square and not empty, got shape {table.shape}")
    if n > LARGEST_ORDER:
        raise UsageError(f"group {name} has order {n}; at most {LARGEST_ORDER} elements are supported")
    everything = np.arange(n)
    latin = (np.sort(table, axis=0) == everything[:, None]).all() and (np.sort(table, axis=1) == everything).all()
    if not latin:
        raise UsageError(f"group {name}: every row and column of the table must hold each element once")
    if not (table[0] == everything).all() or not (table[:, 0] == everything).all():
        raise UsageError(f"group {name}: element 0 is not the identity")
    # Light's test: associativity need only be tried with a set of generators in the middle
    reached = _closure(table, generators)
    middle = generators if len(reached) == n else everything
    for a in middle:
        if not np.array_equal(table[table[:, a], :], table[:, table[a, :]]):
            raise UsageError(f"group {name}: not associative: (x·{a})·y ≠ x·({a}·y)")
    if len(reached) != n:
        raise UsageError(f"group {name}: the generators {tuple(generators)} reach {len(reached)} of {n} elements")
    inverses: IntArray = np.argmin(table, axis=1)
    return inverses


def _closure(table: IntArray, generators: Iterable[int]) -> set[int]:
    reached, front = {0}, [0]
    gens = list(generators)
    while front:
        fresh = {int(table[s, g]) for g in front for s in gens} - reached
        reached |= fresh
        front = list(fresh)
    return reached


def subgroup(group: Group, generators: Iterable[int]) -> tuple[int, ...]:
    """Return the elements of the subgroup generated by `generators`, sorted."""
    gens = list(generators)
    for g in gens:
        if not 0 <= g < group.order:
            raise UsageError(f"{g} is no element of {group.name}, whose elements are 0..{group.order - 1}")
    return tuple(sorted(_closure(group.table, gens)))


def subgroups(group: Group) -> tuple[tuple[int, ...], ...]:
    """Return every subgroup, by order: joins of cyclic subgroups until nothing new appears."""
    cyclic = {subgroup(group, [g]) for g in group.elements}
    found, front = set(cyclic), set(cyclic)
    while front:
        joined = {subgroup(group, {*a, *b}) for a in front for b in cyclic}
        front = joined - found
        found |= front
    return tuple(sorted(found, key=lambda h: (len(h), h)))


def is_subgroup(group: Group, elements: Iterable[int]) -> bool:
    """Say whether `elements` holds the identity and is closed (a finite closed set holds the inverses too)."""
    members = set(elements)
    return 0 in members and all(group.product(a, b) in members for a in members for b in members)


def cosets(group: Group, members: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return the left cosets gH of the subgroup H = `members`, the one of the identity first.

    Raises
    ------
    UsageError
        If `members` is no subgroup.
    """
    if not is_subgroup(group, members):
        raise UsageError(f"{tuple(members)} is no subgroup of {group.name}")
    left, found = set(group.elements), []
    while left:
        g = min(left)
        coset = tuple(sorted(group.product(g, h) for h in members))
        found.append(coset)
        left -= set(coset)
    return tuple(found)


def extend(group: Group, images: Sequence[Any], compose: Callable[[Any, Any], Any], identity: Any) -> list[Any]:
    """Extend images of the generators to all elements: `compose(a, b)` is the image of (element of a)(element of b).

    The result is a homomorphism only if the images satisfy the group's relations; callers check it.
    """
    found: dict[int, Any] = {0: identity}
    front = [0]
    while front:
        following = []
        for h in front:
            for s, image in zip(group.generators, images, strict=True):
                g = group.product(s, h)
                if g not in found:
                    found[g] = compose(image, found[h])
                    following.append(g)
        front = following
    return [found[g] for g in group.elements]


# --- families ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A family of groups: how its names are read, and how a member is built."""

    pattern: str
    build: Callable[[re.Match[str]], Group]
    about: str
    examples: tuple[str, ...]


groups: Registry[Family] = Registry("groups", "group")


def cyclic(n: int) -> Group:
    """Return C_n: n rotations; element k is a counter-clockwise turn by 360k/n degrees."""
    k = np.arange(_at_least_one("C", n))
    motions = tuple((Motion(turn=Fraction(int(i), n)),) for i in k)
    return Group(f"C{n}", (k[:, None] + k) % n, motions, (1 % n,))


def dihedral(n: int) -> Group:
    """Return D_n, of order 2n: element k < n is the rotation r^k, element n + k is r^k s, s the left-right flip."""
    k = np.arange(2 * _at_least_one("D", n))
    turn, flip = k % n, k // n
    sign = np.where(flip[:, None] == 1, -1, 1)
    table = (turn[:, None] + sign * turn) % n + n * ((flip[:, None] + flip) % 2)
    motions = tuple((Motion(turn=Fraction(int(i) % n, n), mirror=bool(i >= n)),) for i in k)
    return Group(f"D{n}", table, motions, (1 % n, n))


def reflection(name: str, motion: Motion) -> Group:
    """Return the group of order 2 of one reflection."""
    return Group(name, np.array([[0, 1], [1, 0]]), ((Motion(),), (motion,)), (1,))


def shifts(k: int, m: int) -> Group:
    """Return T_k×m = Z_k × Z_m: element i·m + j rolls by i·H/k down and j·W/m right."""
    _at_least_one("T", k), _at_least_one("T", m)
    if k * m > LARGEST_ORDER:
        raise UsageError(f"T{k}x{m} has order {k * m}; at most {LARGEST_ORDER} elements are supported")
    i, j = np.divmod(np.arange(k * m), m)
    table = ((i[:, None] + i) % k) * m + (j[:, None] + j) % m
    motions = tuple((Motion(roll=(Fraction(int(a), k), Fraction(int(b), m))),) for a, b in zip(i, j, strict=True))
    return Group(f"T{k}" if k == m else f"T{k}x{m}", table, motions, ((1 % k) * m, 1 % m))


def symmetric(n: int, axis: str) -> Group:
    """Return S_n permuting the named axis (`channel`, `height`, `width`, or a number; batch is axis 0)."""
    if not 1 <= n <= 6:
        raise UsageError(f"S{n}: the symmetric group is supported for n from 1 to 6 (order 720)")
    number = AXES.get(axis) or int(axis)
    if number < 1:
        raise UsageError(f"S{n}@{axis}: axis 0 is the batch; name another")
    names = {v: k for k, v in AXES.items()}
    perms = np.array(list(itertools.permutations(range(n))), dtype=np.intp)
    index = {tuple(p): i for i, p in enumerate(perms)}
    table = np.array([[index[tuple(h[g])] for h in perms] for g in perms], dtype=np.intp)
    motions = tuple((Motion(axis=number, permutation=tuple(int(c) for c in p)),) for p in perms)
    cycle = index[(*range(1, n), 0)]
    swap = index[(1, 0, *range(2, n))] if n > 1 else 0
    return Group(f"S{n}@{names.get(number, number)}", table, motions, (swap, cycle))


def direct_product(a: Group, b: Group) -> Group:
    """Return A×B, element i·|B| + j acting as A's i and B's j together.

    Raises
    ------
    UsageError
        If the two do not commute on pictures (a direct product's factors do), or both resample.
    """
    for x, y in itertools.product(a.generators, b.generators):
        if not all(_commute(p, q) for p in a.motions[x] for q in b.motions[y]):
            raise UsageError(
                f"{a.name}x{b.name} is no direct product on pictures: element {x} of {a.name} and element {y} of"
                f" {b.name} do not commute; use one group that holds both (D<n> for rotations with flips)"
            )
    if not all(m.is_exact for g in a.motions for m in g) and not all(m.is_exact for g in b.motions for m in g):
        raise UsageError(f"{a.name}x{b.name}: both factors would resample the picture; only one may")
    if a.order * b.order > LARGEST_ORDER:
        raise UsageError(
            f"{a.name}x{b.name} has order {a.order * b.order}; at most {LARGEST_ORDER} elements are supported"
        )
    i, j = np.divmod(np.arange(a.order * b.order), b.order)
    table = a.table[i[:, None], i] * b.order + b.table[j[:, None], j]
    motions = tuple(a.motions[x] + b.motions[y] for x, y in zip(i, j, strict=True))
    generators = (*(g * b.order for g in a.generators), *b.generators)
    return Group(f"{a.name}x{b.name}", table, motions, generators)


def _commute(p: Motion, q: Motion) -> bool:
    """Say whether two motions commute, as maps z ↦ M z + t of the torus (turns that are no quarter keep no torus)."""
    if p.axis and q.axis:
        a, b = np.array(p.permutation), np.array(q.permutation)
        return p.axis != q.axis or (len(a) == len(b) and bool((a[b] == b[a]).all()))
    if p.axis or q.axis:
        # permuting rows or columns commutes with nothing that moves pixels; permuting channels with all of it
        other = q if p.axis else p
        return max(p.axis, q.axis) == 1 or other == Motion()
    if p.mirror != q.mirror and (2 * (q.turn if p.mirror else p.turn)) % 1 != 0:
        return False
    if p.mirror and q.mirror and (2 * (p.turn - q.turn)) % 1 != 0:
        return False
    return _moved(p, q.roll) == _moved(q, p.roll)


def _moved(p: Motion, shift: tuple[Fraction, Fraction]) -> tuple[Fraction | None, Fraction | None]:
    """Return M_p·shift + t_p modulo 1; (None, …) marks a turn that does not map the torus to itself."""
    down, right = shift
    if down or right:
        if not p.is_exact:
            return (None, down)
        right = -right if p.mirror else right
        for _ in range(int(p.turn * 4)):
            down, right = -right, down
    return ((down + p.roll[0]) % 1, (right + p.roll[1]) % 1)


def _at_least_one(letter: str, n: int) -> int:
    if n < 1:
        raise UsageError(f"{letter}{n}: expected a positive number after {letter}")
    if n > LARGEST_ORDER:
        raise UsageError(f"{letter}{n} is too large; at most {LARGEST_ORDER} elements are supported")
    return n


def _add(name: str, pattern: str, build: Callable[[re.Match[str]], Group], about: str, *examples: str) -> None:
    groups.register(name, Family(pattern, build, about, examples))


_add("C<n>", r"C(\d+)", lambda m: cyclic(int(m[1])), "n rotations, by 360/n degrees", "C4", "C8")
_add("D<n>", r"D(\d+)", lambda m: dihedral(int(m[1])), "n rotations and n reflections", "D4", "D8")
_add("flip", "flip", lambda m: reflection("flip", Motion(mirror=True)), "left-right reflection", "flip")
UP_DOWN = Motion(turn=Fraction(1, 2), mirror=True)
_add("flip-ud", "flip-ud", lambda m: reflection("flip-ud", UP_DOWN), "up-down reflection", "flip-ud")
_add(
    "T<k>x<l>",
    r"T(\d+)(?:x(\d+))?",
    lambda m: shifts(int(m[1]), int(m[2] or m[1])),
    "cyclic shifts by H/k and W/l; T<k> is T<k>x<k>",
    "T2",
    "T4x1",
)
_add(
    "S<n>@<axis>",
    r"S(\d+)@(\d+|channel|height|width)",
    lambda m: symmetric(int(m[1]), m[2]),
    "all permutations of an axis of length n",
    "S3@channel",
)


def parse_group(name: str) -> Group:
    """Return the group of that name; `x` between two names is the direct product (`flipxflip-ud`, `C4xS3@channel`).

    Raises
    ------
    UnknownName
        If no family reads the name; the message says which near names exist.

    >>> parse_group("flipxflip-ud").order
    4
    """
    parts = re.split(r"x(?=[A-Za-z])", name.strip()) if isinstance(name, str) else [str(name)]
    built = [_parse_factor(part, name) for part in parts]
    whole = built[0]
    for factor in built[1:]:
        whole = direct_product(whole, factor)
    return whole


def _parse_factor(part: str, name: str) -> Group:
    for family in groups.values():
        found = re.fullmatch(family.pattern, part)
        if found:
            # before int(), which refuses thousands of digits with a message of its own
            if any(len(digits.lstrip("0")) > 7 for digits in re.findall(r"\d+", part)):
                raise UsageError(f"group {name!r} is too large; at most {LARGEST_ORDER} elements are supported")
            return family.build(found)
    number = (re.findall(r"\d+", part) or ["4"])[0]
    near = {form.replace("<n>", number).replace("<k>x<l>", number).replace("<axis>", "channel") for form in groups}
    raise UnknownName("group", name, near, "forms: " + ", ".join(groups))
