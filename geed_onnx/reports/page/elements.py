"""The elements of a group: what they are called, at which angle a rotation stands, how a number spreads over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from geed_onnx.errors import GeedError
from geed_onnx.groups import Motion, parse_group
from geed_onnx.results import Result

#: A larger group is not worth parsing for the names of its elements.
LARGEST_NAMED = 256
#: An element whose null − floor is below this part of the largest one's has none: the rest is rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Elements:
    """The elements of one group, the identity first.

    Attributes
    ----------
    names : (|G|,) str
        `45°`, `flip 90°`, …; `g3` where the group is not one that is known by name.
    angles : (|G|,) float or None
        Degrees counter-clockwise, where every element is a rotation by its own angle.
    """

    names: tuple[str, ...]
    angles: tuple[float, ...] | None = None


def elements_of(name: str, order: int) -> Elements:
    """Return the elements of the group that results call `name`, with generic names where that tells nothing."""
    generic = Elements(tuple("identity" if g == 0 else f"g{g}" for g in range(order)))
    if not 1 <= order <= LARGEST_NAMED:
        return generic
    try:
        group = parse_group(name)
    except GeedError:
        return generic
    if group.order != order:
        return generic
    names = tuple(_said(motions) for motions in group.motions)
    turns = [float(m[0].turn) * 360 if len(m) == 1 and m[0] == Motion(turn=m[0].turn) else None for m in group.motions]
    angles = tuple(t for t in turns if t is not None)
    rotations = order > 2 and len(set(angles)) == order
    return Elements(names if len(set(names)) == order else generic.names, angles if rotations else None)


def _said(motions: tuple[Motion, ...]) -> str:
    words = []
    for m in motions:
        if m.mirror:
            words.append("flip")
        if m.turn or (m == Motion() and len(motions) == 1):
            words.append(f"{float(m.turn) * 360:.4g}°")
        if any(m.roll):
            down, right = (f"{r.numerator}/{r.denominator}" if r else "0" for r in m.roll)
            words.append(f"roll {down},{right}")
        if m.axis:
            words.append("order " + "-".join(map(str, m.permutation)))
    return " ".join(words) or "0°"


Profile = tuple[float | None, ...]


def calibrated_by_element(r: Result) -> Profile | None:
    """Return (value − floor)/(null − floor) for each element alone, `(|G|,)`; None where that cannot be told.

    None for an element on which unrelated images deviate no more than resampling does: the identity of an action
    whose f̂(x) is f(x) itself, where nothing can.  The floor and the null of all elements together would not do: such
    an identity is in them too, and a network without any symmetry would read |G|/(|G| − 1) everywhere else.
    """
    values, floors, nulls = r.per_element, r.floor_per_element, r.null_per_element
    if r.calibrated is None or values is None or floors is None or nulls is None:
        return None
    gaps = [null - floor for floor, null in zip(floors, nulls, strict=True)]
    least = ROUNDING * max(gaps)
    return tuple(
        (value - floor) / gap if gap > max(least, 0.0) else None
        for value, floor, gap in zip(values, floors, gaps, strict=True)
    )


def mean_by_element(rows: Sequence[Sequence[float | None] | None]) -> Profile | None:
    """Return the mean of several profiles, element by element, over those that have one; None where none does.

    None too where they are of different groups.
    """
    some = [row for row in rows if row is not None]
    if len({len(row) for row in some}) != 1:
        return None
    columns = ([v for v in column if v is not None] for column in zip(*some, strict=True))
    return tuple(math.fsum(column) / len(column) if column else None for column in columns)
