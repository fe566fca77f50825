"""How the channels of a steerable network move, from its matrices to the `action` of a tap.

escnn gives a field type: a group, and representations laid end to end. What is declared has to hold in geed-onnx's
terms: its names for groups, its order of elements, its regular and quotient fields. Nothing is taken from escnn's names
for things: an element of its group is identified by what it does to the plane, and a field by its matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from geed_exporters.errors import ExportError
from geed_onnx.groups import Group, Motion, parse_group

Matrix = npt.NDArray[np.float64]

CLOSE = 1e-5  # escnn computes its representations in single and double precision
DIGITS = 12  # of matrix entries as they are declared


def plane(motion: Motion) -> Matrix:
    """Return the 2×2 matrix of a motion of pictures, x to the right and y up: left-right flip, then a turn."""
    angle = 2 * math.pi * float(motion.turn)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return turn @ np.diag([-1.0, 1.0]) if motion.mirror else turn


def matched(planes: Sequence[Matrix]) -> tuple[Group, tuple[int, ...]] | None:
    """Return geed-onnx's group of these motions of the plane, and for each of its elements the index in `planes`.

    None where geed-onnx has no name for it (a reflection across a slanted axis), or it is the identity alone.
    """
    order = len(planes)
    names = [f"C{order}", *(["flip", "flip-ud"] if order == 2 else []), *([f"D{order // 2}"] if order % 2 == 0 else [])]
    for name in names if order > 1 else ():
        group = parse_group(name)
        found = []
        for motions in group.motions:
            wanted = plane(motions[0])
            near = [i for i, p in enumerate(planes) if np.abs(p - wanted).max() < CLOSE]
            found += near[:1]
        if len(set(found)) == order:
            return group, tuple(found)
    return None


def field(group: Group, matrices: Sequence[Matrix]) -> dict[str, Any]:
    """Return the entry of one field, without its count; `matrices[k]` is what element k of the group does to it.

    The shortest true form is taken: trivial, regular, quotient, permutation, matrix.

    Raises
    ------
    ExportError
        If the matrices are no representation of the group.
    """
    width = len(matrices[0])
    rounded = [np.rint(m) for m in matrices]
    if not all(
        np.abs(matrices[g] @ matrices[h] - matrices[group.product(g, h)]).max() < 100 * CLOSE
        for g in group.generators
        for h in group.elements
    ):
        raise ExportError(f"a field of {width} channels has matrices that are no representation of {group.name}")
    permutes = all(np.abs(m - r).max() < CLOSE for m, r in zip(matrices, rounded, strict=True)) and all(
        (r >= 0).all() and (r.sum(0) == 1).all() and (r.sum(1) == 1).all() for r in rounded
    )
    if not permutes:
        entries = [np.round(matrices[g], DIGITS) + 0.0 for g in group.generators]
        return {"type": "matrix", "generators": [m.tolist() for m in entries]}
    if width == 1:
        return {"type": "trivial"}
    perms = [r.argmax(1).tolist() for r in rounded]  # (ρ f)[c] = f[perm[c]]
    if width == group.order and perms == _coset_perms(group, (0,)):
        return {"type": "regular"}
    stays = tuple(g for g in group.elements if perms[g][0] == 0)
    if width * len(stays) == group.order and perms == _coset_perms(group, stays):
        return {"type": "quotient", "subgroup": list(stays)}
    return {"type": "permutation", "generators": [perms[g] for g in group.generators]}


def _coset_perms(group: Group, subgroup: tuple[int, ...]) -> list[list[int]]:
    """Return for each g the permutation of the left cosets, in the order of their least element, that hH → ghH is."""
    cosets = sorted({tuple(sorted(group.product(h, s) for s in subgroup)) for h in group.elements})
    number = {h: i for i, coset in enumerate(cosets) for h in coset}
    # (ρ(g) f)[ghH] = f[hH], so that channel c takes what lies at g⁻¹c
    return [[number[group.product(group.inverse(g), coset[0])] for coset in cosets] for g in group.elements]


def merged(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries with their counts, equal neighbours taken together."""
    fields: list[dict[str, Any]] = []
    for entry in entries:
        if fields and {k: v for k, v in fields[-1].items() if k != "count"} == entry:
            fields[-1]["count"] += 1
        else:
            fields.append({**entry, "count": 1})
    return fields


def matrices(action: dict[str, Any]) -> Callable[[int], Matrix]:
    """Return g ↦ the matrix by which element g moves the channels, as a declared action reads."""
    group = parse_group(action["group"])
    blocks = [(_field_matrices(group, entry), entry["count"]) for entry in action["fields"]]

    def matrix(g: int) -> Matrix:
        parts = [block[g] for block, count in blocks for _ in range(count)]
        whole = np.zeros((sum(map(len, parts)),) * 2)
        at = 0
        for part in parts:
            whole[at : at + len(part), at : at + len(part)] = part
            at += len(part)
        return whole

    return matrix


def _field_matrices(group: Group, entry: dict[str, Any]) -> list[Matrix]:
    """Return what each element does to one field of this entry."""
    if entry["type"] in ("trivial", "regular", "quotient"):
        whole = tuple(group.elements)
        subgroup = {"trivial": whole, "regular": (0,), "quotient": tuple(entry.get("subgroup", ()))}[entry["type"]]
        return [np.eye(len(perm))[perm] for perm in _coset_perms(group, subgroup)]
    if entry["type"] == "permutation":
        steps = [np.eye(len(perm))[perm] for perm in entry["generators"]]
    else:
        steps = [np.array(m, dtype=float) for m in entry["generators"]]
    known = {0: np.eye(len(steps[0]))}
    front = [0]
    while front:
        fresh = []
        for h in front:
            for g, step in zip(group.generators, steps, strict=True):
                to = group.product(g, h)
                if to not in known:
                    known[to] = step @ known[h]
                    fresh.append(to)
        front = fresh
    return [known[g] for g in group.elements]


def declared(field_type: Any) -> dict[str, Any] | None:
    """Return the action of a tensor of an escnn field type, held against escnn's own matrices of every element.

    None where the field type's group has no name in geed-onnx: continuous groups, reflections across a slanted axis,
    and the group of the identity alone.

    Raises
    ------
    ExportError
        If what would be declared is not what escnn says.
    """
    space, fibergroup = field_type.gspace, field_type.fibergroup
    if fibergroup.continuous or space.dimensionality != 2:
        return None
    elements = list(fibergroup.elements)
    found = matched([np.asarray(space.basespace_action(e), dtype=float) for e in elements])
    if found is None:
        return None
    group, order = found
    known: dict[str, dict[str, Any]] = {}
    for representation in field_type.representations:
        if representation.name not in known:
            known[representation.name] = field(
                group, [np.asarray(representation(elements[i]), dtype=float) for i in order]
            )
    action = {"group": group.name, "fields": merged(known[r.name] for r in field_type.representations)}
    ours = matrices(action)
    for g, i in enumerate(order):
        theirs = np.asarray(field_type.representation(elements[i]), dtype=float)
        if theirs.shape != ours(g).shape or np.abs(theirs - ours(g)).max() > CLOSE:
            raise ExportError(f"the fields found for {field_type} do not give escnn's matrix of element {elements[i]}")
    return action
