"""What the elements of a group are called, and at which angle a rotation stands."""

from __future__ import annotations

from dataclasses import dataclass

from geed_onnx.errors import GeedError
from geed_onnx.groups import Motion, parse_group

#: A larger group is not worth parsing for the names of its elements.
LARGEST_NAMED = 256


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
