"""From matrices to declared fields, without escnn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geed_exporters.errors import ExportError
from geed_exporters.escnn.fields import field, matched, matrices, merged, plane
from geed_onnx.groups import parse_group


def planes(name: str) -> list[np.ndarray]:
    return [plane(m[0]) for m in parse_group(name).motions]


@pytest.mark.parametrize("name", ["C2", "C3", "C4", "C8", "C12", "D2", "D3", "D4", "D8", "flip", "flip-ud"])
def test_a_group_is_known_by_what_its_elements_do_to_the_plane_in_any_order(name: str) -> None:
    shuffled = np.random.default_rng(0).permutation(len(planes(name)))
    found = matched([planes(name)[i] for i in shuffled])
    assert found is not None
    assert found[0].name == name
    assert [int(shuffled[i]) for i in found[1]] == list(range(len(shuffled)))


def test_a_reflection_across_a_slanted_line_has_no_name() -> None:
    assert matched([np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]])]) is None


def test_the_identity_alone_has_no_name() -> None:
    assert matched([np.eye(2)]) is None


def test_a_turn_is_counter_clockwise_with_y_up() -> None:
    assert np.allclose(planes("C4")[1] @ [1, 0], [0, 1])
    assert np.allclose(planes("D4")[4] @ [1, 0], [-1, 0])


@pytest.mark.parametrize("name", ["C4", "C8", "D4", "flip"])
def test_the_matrices_of_the_group_on_itself_are_a_regular_field(name: str) -> None:
    group = parse_group(name)
    given = []
    for g in group.elements:
        m = np.zeros((group.order, group.order))
        for h in group.elements:
            m[group.product(g, h), h] = 1
        given.append(m)
    assert field(group, given) == {"type": "regular"}


def test_the_regular_representation_in_another_order_is_a_permutation() -> None:
    group = parse_group("C4")
    other = np.eye(4)[[0, 2, 1, 3]]
    read = matrices({"group": "C4", "fields": [{"type": "regular", "count": 1}]})
    entry = field(group, [other @ read(g) @ other.T for g in group.elements])
    assert entry["type"] == "permutation"
    back = matrices({"group": "C4", "fields": [{**entry, "count": 1}]})
    assert all(np.array_equal(back(g), other @ read(g) @ other.T) for g in group.elements)


def test_functions_on_cosets_are_a_quotient_field() -> None:
    group = parse_group("D4")
    read = matrices({"group": "D4", "fields": [{"type": "quotient", "subgroup": [0, 4], "count": 1}]})
    entry = field(group, [read(g) for g in group.elements])
    assert entry == {"type": "quotient", "subgroup": [0, 4]}
    # r⁰{1, f} has elements 0 and 4, r¹{1, f} has 1 and 5: a turn takes each coset to the next
    assert np.array_equal(read(1) @ np.eye(4)[0], np.eye(4)[1])


def test_a_turning_plane_is_a_matrix_field_and_signs_are_too() -> None:
    group = parse_group("C8")
    turns = [plane(m[0]) for m in group.motions]
    entry = field(group, turns)
    assert entry["type"] == "matrix"
    assert np.allclose(entry["generators"], [turns[1]], atol=1e-12)
    assert field(group, [np.array([[(-1.0) ** g]]) for g in group.elements])["generators"] == [[[-1.0]]]


def test_channels_that_nothing_moves_are_trivial() -> None:
    group = parse_group("C8")
    assert field(group, [np.eye(1)] * 8) == {"type": "trivial"}


def test_two_channels_that_nothing_moves_are_no_regular_field() -> None:
    group = parse_group("flip")
    assert field(group, [np.eye(2)] * 2) == {"type": "permutation", "generators": [[0, 1]]}


def test_matrices_that_are_no_representation_are_an_error() -> None:
    group = parse_group("C4")
    angle = math.pi / 3
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    with pytest.raises(ExportError, match="no representation of C4"):
        field(group, [np.linalg.matrix_power(turn, g) for g in group.elements])


def test_equal_neighbours_are_counted_and_others_kept_apart() -> None:
    regular, trivial = {"type": "regular"}, {"type": "trivial"}
    assert merged([regular, regular, trivial, regular]) == [
        {"type": "regular", "count": 2},
        {"type": "trivial", "count": 1},
        {"type": "regular", "count": 1},
    ]
    assert regular == {"type": "regular"}
