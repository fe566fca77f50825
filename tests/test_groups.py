"""The group axioms and what a name means, run over every family of the registry."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction
from functools import cache
from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geed_onnx.errors import UnknownName, UsageError
from geed_onnx.groups import (
    LARGEST_ORDER,
    Group,
    Motion,
    cosets,
    cyclic,
    dihedral,
    direct_product,
    extend,
    groups,
    is_subgroup,
    parse_group,
    shifts,
    subgroup,
    subgroups,
    symmetric,
)

REGISTERED = [name for family in groups.values() for name in family.examples]
MORE = ["C1", "C2", "C3", "C12", "D1", "D2", "D3", "D12", "T1", "T3x2", "S1@channel", "S4@height", "S2@5"]
PRODUCTS = ["flipxflip-ud", "C4xS3@channel", "C8xS2@channel", "C2xC8", "T2xflip", "T2xT2", "flipxT2xS2@channel"]
NAMES = list(dict.fromkeys(REGISTERED + MORE + PRODUCTS))
every_group = pytest.mark.parametrize("name", NAMES)
parsed = cache(parse_group)


def test_every_family_is_held_to_the_laws() -> None:
    assert all(family.examples and family.about for family in groups.values())


# ---- axioms --------------------------------------------------------------------------------------------------------


@every_group
def test_axioms(name: str) -> None:
    group = parsed(name)
    table = np.asarray(group.table)
    n = group.order
    assert table.shape == (n, n)
    assert set(table.ravel().tolist()) == set(range(n)) == set(group.elements)
    # every triple, not a shortcut: (ab)c = a(bc)
    for a in group.elements:
        assert np.array_equal(table[table[a]], table[a][table])
    for g in group.elements:
        assert group.product(0, g) == group.product(g, 0) == g
        assert group.product(g, group.inverse(g)) == group.product(group.inverse(g), g) == 0


@every_group
def test_parse_and_print_are_inverse(name: str) -> None:
    group = parsed(name)
    again = parse_group(str(group))
    assert again == group
    assert str(again) == str(group) == group.name
    assert hash(again) == hash(group)
    assert [again.motions, again.generators] == [group.motions, group.generators]


def test_names_are_printed_as_they_are_registered() -> None:
    assert parse_group(" C8 ").name == parse_group("C08").name == "C8"
    assert parse_group("T2x2").name == "T2"
    assert [parse_group(name).name for name in REGISTERED] == REGISTERED


@every_group
def test_generators_generate(name: str) -> None:
    group = parsed(name)
    reached = {0}
    while True:
        more = reached | {group.product(a, s) for a in reached for s in group.generators}
        if more == reached:
            break
        reached = more
    assert reached == set(group.elements)


@every_group
def test_the_table_is_what_the_motions_say(name: str) -> None:
    """Compose motions exactly, as maps of the torus and of labelled axes, and compare with the table."""
    group = parsed(name)
    points = [(Fraction(1, 7), Fraction(3, 11)), (Fraction(2, 13), Fraction(-5, 17))]

    def composed(*path: int) -> tuple[object, ...]:
        # reflect-then-turn as (mirror, angle), roll as the image of two points where the turns keep the torus
        mirror, turn = False, Fraction(0)
        images, order = list(points), {}
        for g in reversed(path):
            for motion in group.motions[g]:
                if motion.mirror:
                    mirror, turn = not mirror, -turn
                turn = (turn + motion.turn) % 1
                images = [moved(motion, p) for p in images]
                if motion.axis:
                    # (ρ y)[c] = y[perm[c]]: what stands at c came from perm[c]
                    before = order.get(motion.axis, tuple(range(len(motion.permutation))))
                    order[motion.axis] = tuple(before[c] for c in motion.permutation)
        exact = all(m.is_exact for g in group.elements for m in group.motions[g])
        unmoved = {a: p for a, p in order.items() if p != tuple(range(len(p)))}
        return mirror, turn, tuple(images) if exact else (), tuple(sorted(unmoved.items()))

    for g, h in itertools.product(group.elements, group.generators):
        assert composed(g, h) == composed(group.product(g, h)), (g, h)
        assert composed(h, g) == composed(group.product(h, g)), (h, g)


def moved(motion: Motion, point: tuple[Fraction, Fraction]) -> tuple[Fraction, Fraction]:
    down, right = point
    if motion.mirror:
        right = -right
    for _ in range(int(motion.turn * 4) if motion.is_exact else 0):
        down, right = -right, down  # counter-clockwise, rows downwards: right goes up
    return ((down + motion.roll[0]) % 1, (right + motion.roll[1]) % 1)


# ---- orders and relations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("C1", 1),
        ("C8", 8),
        ("D4", 8),
        ("D8", 16),
        ("D1", 2),
        ("flip", 2),
        ("flip-ud", 2),
        ("T2", 4),
        ("T4x1", 4),
        ("T3x2", 6),
        ("S3@channel", 6),
        ("S6@1", 720),
        ("flipxflip-ud", 4),
        ("C4xS3@channel", 24),
    ],
)
def test_order(name: str, order: int) -> None:
    assert parse_group(name).order == order


@given(st.integers(1, 30))
def test_cyclic_is_addition_and_dihedral_keeps_its_relations(n: int) -> None:
    c, d = cyclic(n), dihedral(n)
    assert (c.order, d.order) == (n, 2 * n)
    assert all(c.product(a, b) == (a + b) % n for a in range(n) for b in range(n))
    assert [m[0].turn for m in c.motions] == [Fraction(k, n) for k in range(n)]
    r, s = d.generators
    power = 0
    for _ in range(n):
        power = d.product(r, power)
    assert power == 0
    assert d.product(s, s) == 0
    assert d.product(d.product(s, r), s) == d.inverse(r)
    # element n + k is r^k s
    assert [d.product(k, s) for k in range(n)] == list(range(n, 2 * n))
    assert [d.motions[n + k][0] for k in range(n)] == [Motion(turn=Fraction(k, n), mirror=True) for k in range(n)]


@given(st.integers(1, 6), st.integers(1, 6))
def test_shifts_add_up_in_both_directions(k: int, m: int) -> None:
    group = shifts(k, m)
    assert group.order == k * m
    assert group.name == (f"T{k}" if k == m else f"T{k}x{m}")
    for a, b in itertools.product(group.elements, repeat=2):
        assert divmod(group.product(a, b), m) == ((a // m + b // m) % k, (a % m + b % m) % m)
    assert group.motions[-1][0].roll == (Fraction(k - 1, k), Fraction(m - 1, m))


@pytest.mark.parametrize("n", range(1, 7))
def test_symmetric_groups_multiply_as_permutations_act(n: int) -> None:
    group = symmetric(n, "channel")
    assert group.order == factorial(n)
    perms = [m[0].permutation for m in group.motions]
    assert sorted(perms) == sorted(itertools.permutations(range(n)))
    y = np.arange(n) * 10
    rng = np.random.default_rng(n)
    for g, h in rng.integers(group.order, size=(60, 2)):
        # h acts first: ρ(g)(ρ(h) y)
        assert np.array_equal(y[list(perms[h])][list(perms[g])], y[list(perms[group.product(g, h)])])


def test_a_flip_is_a_reflection_and_flip_ud_its_half_turn() -> None:
    assert parse_group("flip").motions[1] == (Motion(mirror=True),)
    assert parse_group("flip-ud").motions[1] == (Motion(turn=Fraction(1, 2), mirror=True),)


def test_symmetric_group_axes() -> None:
    assert [parse_group(f"S2@{a}").motions[1][0].axis for a in ("channel", "height", "width", "4")] == [1, 2, 3, 4]
    assert [parse_group(f"S2@{a}").name for a in ("1", "2", "3", "7")] == [
        "S2@channel",
        "S2@height",
        "S2@width",
        "S2@7",
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("S0@channel", "n from 1 to 6"),
        ("S7@channel", "n from 1 to 6"),
        ("S3@0", "axis 0 is the batch"),
        ("C0", "expected a positive number after C"),
        ("D0", "expected a positive number after D"),
        ("T0", "expected a positive number after T"),
        ("T3x0", "expected a positive number after T"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_group(name)


# ---- subgroups and cosets ------------------------------------------------------------------------------------------


@every_group
def test_subgroups_divide_and_cosets_partition(name: str) -> None:
    group = parsed(name)
    found = subgroups(group)
    assert found[0] == (0,)
    assert found[-1] == tuple(group.elements)
    assert len(set(found)) == len(found)
    for members in found:
        assert is_subgroup(group, members)
        assert all(group.inverse(h) in members for h in members)
        assert group.order % len(members) == 0  # Lagrange
        parts = cosets(group, members)
        assert parts[0] == members
        assert len(parts) == group.order // len(members)
        assert {len(part) for part in parts} == {len(members)}
        assert sorted(g for part in parts for g in part) == list(group.elements)
        for part in parts:  # one left coset: a⁻¹b lies in H
            assert all(group.product(group.inverse(part[0]), b) in members for b in part)


@pytest.mark.parametrize("name", [n for n in NAMES if parsed(n).order <= 12])
def test_subgroups_are_all_there_are(name: str) -> None:
    group = parsed(name)
    others = range(1, group.order)
    closed = {
        (0, *rest)
        for size in range(group.order)
        for rest in itertools.combinations(others, size)
        if all(group.product(a, b) in (0, *rest) for a in rest for b in rest)
    }
    assert set(subgroups(group)) == closed


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 8, 12])
def test_number_of_subgroups(n: int) -> None:
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    assert len(subgroups(cyclic(n))) == len(divisors)
    if n > 2:
        assert len(subgroups(dihedral(n))) == len(divisors) + sum(divisors)
    assert len(subgroups(symmetric(4, "channel"))) == 30


@every_group
def test_subgroup_is_the_smallest_that_holds_its_generators(name: str) -> None:
    group = parsed(name)
    found = subgroups(group)
    for g in group.elements:
        holding = [set(h) for h in found if g in h]
        assert set(subgroup(group, [g])) == set.intersection(*holding)
    assert subgroup(group, group.generators) == tuple(group.elements)
    assert subgroup(group, []) == (0,)


def test_what_is_no_subgroup_is_refused() -> None:
    c8 = parse_group("C8")
    assert not is_subgroup(c8, [0, 1])
    assert not is_subgroup(c8, [2, 4, 6])
    assert not is_subgroup(c8, [])
    with pytest.raises(UsageError, match=r"\(0, 3\) is no subgroup of C8"):
        cosets(c8, (0, 3))
    with pytest.raises(UsageError, match=r"8 is no element of C8, whose elements are 0\.\.7"):
        subgroup(c8, [8])
    with pytest.raises(UsageError, match="-1 is no element"):
        subgroup(c8, [-1])


# ---- products ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_multiplies_factor_by_factor(name: str) -> None:
    first, _, rest = name.partition("x")
    a, b = parse_group(first), parse_group(rest)
    whole = parse_group(name)
    assert whole.order == a.order * b.order
    for x, y in itertools.product(whole.elements, repeat=2):
        (i, j), (k, m) = divmod(x, b.order), divmod(y, b.order)
        assert whole.product(x, y) == a.product(i, k) * b.order + b.product(j, m)
    assert whole.motions[b.order + 1 if a.order > 1 else 1] == (*a.motions[1], *b.motions[1])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("C4xflip", "no direct product on pictures.*do not commute.*D<n>"),
        ("flipxC8", "do not commute"),
        ("D1xC8", "do not commute"),
        ("D4xC4", "do not commute"),
        ("T2xC4", "do not commute"),  # a quarter turn carries (½, 0) to (0, ½)
        ("T4x1xflip-ud", "do not commute"),
        ("T3xC2", "do not commute"),
        ("T3x1xC8", "do not commute"),
        ("T1x3xflip", "do not commute"),
        ("T3x1xflip-ud", "do not commute"),
        ("S3@channelxS3@channel", "do not commute"),
        ("S3@channelxS2@channel", "do not commute"),
        ("S3@heightxC4", "do not commute"),
        ("S2@widthxflip", "do not commute"),
        ("C8xC8", "both factors would resample"),
        ("C3xC8", "both factors would resample"),
        ("T32x31xS2@channel", "order 1984; at most 1024"),
    ],
)
def test_products_that_are_none_are_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_group(name)


@pytest.mark.parametrize(
    "name",
    [
        "C4xC4",
        "flipxC2",
        "D2xC2",
        "T2xC2",
        "T3x1xflip",
        "T1x3xflip-ud",
        "S3@channelxD4",
        "S3@channelxS2@height",
        "C1xD8",
    ],
)
def test_products_that_are_groups_are_accepted(name: str) -> None:
    group = parse_group(name)
    assert parse_group(group.name) == group


# ---- size ----------------------------------------------------------------------------------------------------------


def test_the_largest_order_is_accepted() -> None:
    group = parse_group(f"C{LARGEST_ORDER}")
    assert group.order == LARGEST_ORDER == 1024
    assert group.inverse(1) == LARGEST_ORDER - 1
    assert parse_group("T32").order == LARGEST_ORDER


@pytest.mark.parametrize(
    "name", ["C1025", "D513", "T33", "T1025x1", "C999999", "C10000001", "T2000x2000", "D" + "9" * 40, "C" + "9" * 5000]
)
def test_larger_groups_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="at most 1024 elements are supported"):
        parse_group(name)


# ---- tables that are no groups -------------------------------------------------------------------------------------

# every element its own inverse in order 5, which no group is; a Latin square with identity all the same
LOOP = [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]]


@pytest.mark.parametrize(
    ("table", "generators", "says"),
    [
        ([[0, 1], [1, 1]], (1,), "each element once"),
        ([[0, 1, 2], [1, 2, 0], [2, 1, 0]], (1,), "each element once"),
        ([[0, 1], [1, 2]], (1,), "each element once"),
        ([[0, 1], [1, -1]], (1,), "each element once"),
        ([[1, 0], [0, 1]], (1,), "element 0 is not the identity"),
        ([[0, 2, 1], [1, 0, 2], [2, 1, 0]], (1,), "element 0 is not the identity"),  # x − y: identity on one side
        (LOOP, (1, 2), "not associative"),
        (LOOP, (1,), "not associative"),
        ([[(i + j) % 4 for j in range(4)] for i in range(4)], (2,), r"generators \(2,\) reach 2 of 4"),
        ([[0, 1]], (), "must be square"),
        (np.zeros((0, 0), dtype=int), (), "square and not empty"),
        ([0, 1], (), "must be square"),
    ],
)
def test_a_table_that_breaks_an_axiom_is_refused(table: object, generators: tuple[int, ...], says: str) -> None:
    with pytest.raises(UsageError, match="group broken: .*" + says):
        Group("broken", np.array(table), ((Motion(),),) * len(np.array(table)), generators)


def test_motions_must_be_as_many_as_elements() -> None:
    with pytest.raises(UsageError, match="2 elements but 1 motions"):
        Group("broken", np.array([[0, 1], [1, 0]]), ((Motion(),),), (1,))


@given(st.data())
def test_a_table_with_one_changed_entry_is_refused(data: st.DataObject) -> None:
    group = parsed(data.draw(st.sampled_from([n for n in NAMES if 2 <= parsed(n).order <= 24])))
    table = np.array(group.table)
    i, j = data.draw(st.tuples(*[st.integers(0, group.order - 1)] * 2))
    table[i, j] = data.draw(st.integers(0, group.order - 1).filter(lambda v: v != table[i, j]))
    with pytest.raises(UsageError):
        Group("broken", table, group.motions, group.generators)


@given(st.data())
def test_a_renaming_of_elements_that_moves_the_identity_is_refused_and_any_other_is_accepted(
    data: st.DataObject,
) -> None:
    group = parsed(data.draw(st.sampled_from(["C8", "D4", "S3@channel", "T3x2"])))
    new = np.array(data.draw(st.permutations(range(group.order))))
    table = np.empty_like(group.table)
    table[np.ix_(new, new)] = new[group.table]
    generators = tuple(int(new[s]) for s in group.generators)
    if new[0] == 0:
        assert Group("renamed", table, group.motions, generators).order == group.order
    else:
        with pytest.raises(UsageError, match="element 0 is not the identity"):
            Group("renamed", table, group.motions, generators)


def test_a_group_cannot_be_changed() -> None:
    group = parse_group("C4")
    with pytest.raises(ValueError, match="read-only"):
        group.table[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        group.name = "C5"  # type: ignore[misc]


def test_groups_are_equal_by_name_and_table() -> None:
    assert parse_group("D4") == dihedral(4)
    assert parse_group("D4") != parse_group("C8")
    assert parse_group("flip") != parse_group("flip-ud")
    assert parse_group("C4") != "C4"


# ---- extension of generator images ---------------------------------------------------------------------------------


@every_group
def test_extend_finds_the_only_homomorphism(name: str) -> None:
    """The left regular representation, given on the generators alone, is found on every element."""
    group = parsed(name)
    regular = [tuple(group.product(g, x) for x in group.elements) for g in group.elements]
    found = extend(
        group,
        [regular[s] for s in group.generators],
        lambda a, b: tuple(a[x] for x in b),
        tuple(group.elements),
    )
    assert found == regular


def test_direct_product_of_parsed_groups_is_the_parsed_product() -> None:
    assert direct_product(parse_group("C4"), parse_group("S3@channel")) == parse_group("C4xS3@channel")


# ---- names that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("c8", "unknown group 'c8': did you mean .*'C8'"),
        ("d4", "unknown group 'd4': did you mean .*'D4'"),
        ("flop", "unknown group 'flop': did you mean 'flip'"),
        ("flipud", "unknown group 'flipud': did you mean 'flip-ud' or 'flip'"),
        ("S3@chanel", "did you mean 'S3@channel'"),
        ("S3", "unknown group 'S3'; known: C3, D3, S3@channel"),
        ("quaternions", "known: .*forms: C<n>, D<n>"),
        ("", "unknown group ''; known: "),
        ("C-8", "did you mean 'C8'"),
        ("C4.5", "unknown group 'C4.5': did you mean 'C4'"),
        ("C4xZ2", "unknown group 'C4xZ2'"),
        ("xC4", "unknown group 'xC4': did you mean 'C4'"),
    ],
)
def test_unknown_names_end_in_did_you_mean(name: str, says: str) -> None:
    with pytest.raises(UnknownName, match=says) as caught:
        parse_group(name)
    assert caught.value.exit_code == 2
    assert "forms: " + ", ".join(groups) in str(caught.value)


@pytest.mark.parametrize("name", [n for n in REGISTERED if n != n.lower()])
def test_a_name_in_the_wrong_case_is_named_rightly(name: str) -> None:
    with pytest.raises(UnknownName, match=f"did you mean.*'{name[0]}"):
        parse_group(name.lower())
