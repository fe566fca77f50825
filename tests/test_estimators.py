"""Tables merge as sets, M is a double loop, intervals are the jackknife done the slow way, calibration is anchored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geed_onnx.errors import MeasureError, UnknownName
from geed_onnx.estimators import (
    Calibration,
    Change,
    Deviations,
    Normaliser,
    Spread,
    Tables,
    calibrated,
    calibrated_change,
    interval,
    merge,
    normalisers,
    normalising,
    restricted,
    spread,
    value_of,
)
from geed_onnx.estimators.deviations import Broken
from geed_onnx.estimators.normalising import SPAN
from geed_onnx.estimators.values import leaving_out

# ---- tables merge as sets ------------------------------------------------------------------------------------------

#: What image i deviates by, for a group of order 3: shards of one measurement agree on it.
TRUTH = np.random.default_rng(0).standard_normal((12, 3))


def change_of(value: float, *blocks: np.ndarray, own: np.ndarray | None = None) -> Change:
    """The changes of images named by their place, one block after another; `own`: what the first block's share."""
    block = np.concatenate([np.full(len(part), b) for b, part in enumerate(blocks)])
    shared = np.zeros(len(block))
    shared[: 0 if own is None else len(own)] = 0.0 if own is None else own
    return Change.of(value, tuple(f"{i:04}" for i in range(len(block))), np.concatenate(blocks), block, shared)


def shard(images: list[int]) -> Deviations:
    return Deviations.of([f"image-{i}" for i in images], TRUTH[images].reshape(-1, 3))


shards = st.lists(st.integers(0, 11), unique=True).map(shard)


@given(shards, shards, shards)
def test_merge_is_a_commutative_idempotent_monoid(a: Deviations, b: Deviations, c: Deviations) -> None:
    empty = Deviations.empty(3)
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, empty) == merge(empty, a) == a
    assert merge(a, a) == a
    assert merge(merge(a, b), b) == merge(a, b)
    assert merge(a, b).ids == tuple(sorted({*a.ids, *b.ids}))
    assert len(merge(a, b)) == len({*a.ids, *b.ids})


def test_equality_is_of_ids_and_values() -> None:
    a = shard([0, 1])
    assert a == shard([1, 0])
    assert a != shard([0, 2])
    assert a != Deviations(a.ids, a.values + 1e-9)
    assert a != "a table"


@given(st.permutations(range(12)), st.integers(1, 11))
def test_statistics_do_not_depend_on_order_or_shards_to_the_last_bit(order: list[int], cut: int) -> None:
    whole = shard(list(range(12)))
    pieces = merge(shard(order[cut:]), shard(order[:cut]))
    assert pieces == whole
    assert pieces.mean == whole.mean
    assert np.array_equal(pieces.per_image, whole.per_image)
    assert np.array_equal(pieces.per_element, whole.per_element)
    rows = [merge(Deviations.empty(3), shard([i])) for i in order]
    one_by_one = Deviations.empty(3)
    for row in rows:
        one_by_one = merge(one_by_one, row)
    assert one_by_one == whole


def test_means_are_over_elements_then_images() -> None:
    table = Deviations.of(["b", "a"], np.array([[1.0, 2.0, 6.0], [0.0, 1.0, 2.0]]))
    assert table.ids == ("a", "b")
    assert table.per_image.tolist() == [1.0, 3.0]
    assert table.per_element.tolist() == [0.5, 1.5, 4.0]
    assert table.mean == 2.0


def test_conflicting_rows_are_refused() -> None:
    a = shard([0, 1])
    other = Deviations.of(["image-1"], TRUTH[[2]])
    with pytest.raises(
        MeasureError, match="image 'image-1' occurs twice with different deviations; ids must be unique"
    ):
        merge(a, other)
    with pytest.raises(MeasureError, match="image 'x' occurs twice"):
        Deviations.of(["x", "x"], TRUTH[:2])
    assert len(Deviations.of(["x", "x"], TRUTH[[0, 0]])) == 1
    with pytest.raises(MeasureError, match="groups of order 3 and 4 do not merge"):
        merge(a, Deviations.empty(4))


def test_the_same_nan_is_no_conflict() -> None:
    row = np.array([[0.0, np.nan]])
    assert len(merge(Deviations.of(["x"], row), Deviations.of(["x"], row.copy()))) == 1


# ---- tables of broken orbits ---------------------------------------------------------------------------------------


def steps_of(order: int, n: int) -> list[int]:
    """How many images further on each element's partner stands: the identity's own, the others never."""
    return [0, *(1 + g % (n - 1) for g in range(order - 1))]


def broken(ids: Sequence[str], values: np.ndarray) -> Broken:
    """The null of an anchored action: an entry goes with the image around which it is, and with its partner."""
    n, order = values.shape
    taken, lost = np.zeros((n, order)), np.zeros((n, order))
    for i, g in np.ndindex(n, order):
        for image in {i, (i + steps_of(order, n)[g]) % n}:
            taken[image, g] += values[i, g]
            lost[image, g] += 1
    return Broken.of(ids, values, taken, lost, values)


def broken_mean(ids: Sequence[str], values: np.ndarray, without: str | None, elements: Sequence[int]) -> float:
    """The mean over the elements of the mean over the entries in which the image has no part."""
    n, order = values.shape
    means = []
    for g in elements:
        pairs = [(i, (i + steps_of(order, n)[g]) % n) for i in range(n)]
        means.append(np.mean([values[i, g] for i, j in pairs if without not in (ids[i], ids[j])]))
    return float(np.mean(means))


def same(a: Broken, b: Broken) -> bool:
    return (a.values, a.taken, a.lost, a.twice) == (b.values, b.taken, b.lost, b.twice)


parts = st.lists(st.integers(0, 11), unique=True)


@given(parts, parts, parts)
def test_broken_orbits_merge_as_tables_do(x: list[int], y: list[int], z: list[int]) -> None:
    whole = broken([f"image-{i}" for i in range(12)], TRUTH)

    def part(images: list[int]) -> Broken:
        names = [f"image-{i}" for i in images]
        rows = [whole.ids.index(name) for name in names]
        tables = whole.values, whole.taken, whole.lost, whole.twice
        return Broken.of(names, *(t.values[rows].reshape(-1, 3) for t in tables))

    a, b, c = part(x), part(y), part(z)
    assert same(a.merge(b), b.merge(a))
    assert same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert same(a.merge(a), a)
    assert same(a.merge(part([])), a)
    assert a.merge(b).ids == tuple(sorted({*a.ids, *b.ids}))
    assert len(a.merge(b)) == len({*x, *y})
    assert same(a.columns((2, 0)).columns((1,)), a.columns((0,)))
    if x:
        with pytest.raises(MeasureError, match="occurs twice with different deviations"):
            a.merge(Broken(a.values, Deviations(a.ids, a.taken.values + 1), a.lost, a.twice))


def test_a_null_without_an_image_follows_the_blocks_order_not_the_ids() -> None:
    """c's partner is a, a's is b, b's is c, for the one element that moves."""
    null = broken(["c", "a", "b"], np.array([[5.0, 6.0], [1.0, 2.0], [3.0, 4.0]]))
    assert null.ids == ("a", "b", "c")
    assert null.values.values.tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    # as units a, b, c; and d, which is in no broken orbit
    mean, without = null.left(np.array([0, 1, 2]), 4)
    assert mean == 3.5
    # a: 3, 5 and 4 (b with c); b: 1, 5 and 6 (c with a); c: 1, 3 and 2 (a with b)
    assert without.tolist() == [(4 + 4) / 2, (3 + 6) / 2, (2 + 2) / 2, 3.5]


def test_a_null_of_two_images_has_nothing_left_without_one() -> None:
    null = broken(["a", "b"], np.ones((2, 4)))
    mean, without = null.left(np.arange(2), 3)
    assert mean == 1.0
    assert np.isnan(without).tolist() == [True, True, False]
    mean, without = null.columns((0,)).left(np.arange(2), 2)  # the identity needs no partner
    assert without.tolist() == [1.0, 1.0]


# ---- M -------------------------------------------------------------------------------------------------------------


def loop_pair(kind: str, x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(float).ravel(), y.astype(float).ravel()
    if kind == "l2":
        return math.sqrt(math.fsum((p - q) ** 2 for p, q in zip(x, y, strict=True)))
    sizes = [math.sqrt(math.fsum(p * p for p in v)) for v in (x, y)]
    if sizes == [0.0, 0.0]:
        return 1.0
    return 0.0 if 0.0 in sizes else math.fsum(p * q for p, q in zip(x, y, strict=True)) / (sizes[0] * sizes[1])


def loop_spread(kind: str, features: dict[str, np.ndarray]) -> float:
    values = [loop_pair(kind, features[a], features[b]) for a, b in itertools.combinations(sorted(features), 2)]
    return math.fsum(values) / len(values)


def points(n: int, shape: tuple[int, ...], seed: int = 0, dtype: str = "float32") -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).standard_normal((n, *shape)).astype(dtype) + np.asarray(0.5, dtype)
    return {f"image-{i:03}": row for i, row in enumerate(x)}


@pytest.mark.parametrize("kind", ["l2", "cosine"])
@pytest.mark.parametrize(("n", "shape"), [(2, (1,)), (3, (4,)), (9, (2, 3, 4)), (20, (65,))])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_spread_is_the_mean_over_pairs(kind: str, n: int, shape: tuple[int, ...], dtype: str) -> None:
    features = points(n, shape, dtype=dtype)
    found = spread(features, kind)
    assert found.value == pytest.approx(loop_spread(kind, features), rel=1e-12, abs=1e-14)
    assert found.ids == tuple(sorted(features))
    for (i, a), (j, b) in itertools.product(enumerate(found.ids), repeat=2):
        pair = 0.0 if a == b else loop_pair(kind, features[a], features[b])
        assert found.pairs[i, j] == pytest.approx(pair, rel=1e-11, abs=1e-12)
    norms = [float((v.astype(float) ** 2).sum()) for v in features.values()]
    assert found.scale == pytest.approx(math.sqrt(sum(norms) / n), rel=1e-12)


@pytest.mark.parametrize("kind", ["l2", "cosine"])
def test_spread_of_features_longer_than_a_span(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features = points(4, (SPAN + 37,))
    assert spread(features, kind).value == pytest.approx(loop_spread(kind, features), rel=1e-12)
    small = points(5, (41,))
    whole = spread(small, kind).value
    for span in (1, 7, 40, 41, 42):
        monkeypatch.setattr(normalising, "SPAN", span)
        assert spread(small, kind).value == pytest.approx(whole, rel=1e-13)


def test_zero_vectors_in_a_spread() -> None:
    features = {"a": np.zeros(3), "b": np.zeros(3), "c": np.array([1.0, 2.0, 2.0]), "d": np.array([2.0, 4.0, 4.0])}
    # pairs: ab 1, ac ad bc bd 0, cd 1
    assert spread(features, "cosine").value == pytest.approx(2 / 6, abs=1e-15)
    assert spread(features, "l2").value == pytest.approx((0 + 3 + 6 + 3 + 6 + 3) / 6, abs=1e-15)


@pytest.mark.parametrize("kind", ["l2", "cosine"])
def test_spread_does_not_depend_on_order_to_the_last_bit(kind: str) -> None:
    features = points(17, (50,))
    whole = spread(features, kind)
    for seed in range(5):
        names = np.random.default_rng(seed).permutation(list(features))
        again = spread({str(n): features[str(n)] for n in names}, kind)
        assert again.value == whole.value
        assert np.array_equal(again.pairs, whole.pairs)


@pytest.mark.parametrize("kind", ["l2", "cosine"])
@pytest.mark.parametrize("units", [range(7), (0, 0, 1, 2, 2, 2, 3), (4, 1, 4, 1, 4, 1, 1)])
def test_spread_without_a_unit_is_the_spread_of_the_rest(kind: str, units: Sequence[int]) -> None:
    features = points(7, (6,))
    without = spread(features, kind).left(np.array(units), 8)
    for unit in range(8):  # some are of no point: nothing goes with them
        rest = {name: v for u, (name, v) in zip(units, sorted(features.items()), strict=True) if u != unit}
        assert without[unit] == pytest.approx(loop_spread(kind, rest), rel=1e-12)


def test_where_no_pair_is_left_there_is_no_spread() -> None:
    m = spread(points(4, (3,)), "l2")
    assert np.isnan(m.left(np.array([0, 0, 0, 1]), 2)).tolist() == [True, False]
    assert np.isnan(m.left(np.zeros(4, dtype=np.intp), 1)).tolist() == [True]
    assert np.isnan(spread(points(2, (3,)), "l2").left(np.arange(2), 2)).all()


def test_one_point_has_no_spread() -> None:
    for features in ({}, points(1, (3,))):
        found = spread(features, "l2")
        assert math.isnan(found.value)
        assert all(normalisers[n].problem(found) for n in normalisers if normalisers[n].spread)


# ---- normalisers ---------------------------------------------------------------------------------------------------


def made(value: float, scale: float = 1.0) -> Spread:
    return Spread(value, ("a", "b"), np.array([[0.0, value], [value, 0.0]]), scale)


def test_normalisers_are_what_they_say() -> None:
    assert normalisers["none"].apply(-0.7, 3.0) == -0.7
    assert normalisers["spread-l2"].apply(3.0, 2.0) == 1.5
    assert normalisers["spread-cosine"].apply(-0.8, 0.5) == -1.6  # the paper's −c/M
    assert normalisers["spread-cosine-bounded"].apply(-0.8, 0.5) == pytest.approx((1 - 0.8) / (1 - 0.5))


@pytest.mark.parametrize("name", list(normalisers))
def test_every_normaliser_is_vectorised_and_finds_no_fault_in_an_ordinary_spread(name: str) -> None:
    entry: Normaliser = normalisers[name]
    e, m = np.array([-0.9, -0.5, 0.1]), np.array([0.2, 0.4, 0.6])
    assert np.allclose(entry.apply(e, m), [entry.apply(x, y) for x, y in zip(e, m, strict=True)])
    assert entry.problem(made(0.5)) is None
    assert entry.spread in (None, "l2", "cosine")
    assert entry.about


@pytest.mark.parametrize(
    ("name", "value", "scale", "says"),
    [
        ("spread-l2", 0.0, 0.0, "the spread M is 0, zero beside features of norm 0"),
        ("spread-l2", 0.0, 4.0, "the spread M is 0, zero beside features of norm 4: all images have the same features"),
        ("spread-l2", 1e-6, 10.0, "zero beside features of norm 10"),
        ("spread-cosine", 0.0, 1.0, "mean cosine similarity M is 0: −c/M has no meaning; use latent-cosine-bounded"),
        ("spread-cosine", -1e-10, 1.0, "has no meaning"),
        ("spread-cosine-bounded", 1.0, 1.0, "M is 1: all images have features of the same direction"),
        ("spread-cosine-bounded", 1 - 1e-13, 1.0, "same direction"),
    ],
)
def test_an_m_that_gives_no_value_has_a_reason(name: str, value: float, scale: float, says: str) -> None:
    """Trap: M near 0."""
    assert says in str(normalisers[name].problem(made(value, scale)))


def test_constant_features_have_a_reason_for_every_normaliser_they_spoil() -> None:
    constant = {f"{i}": np.full(300, 0.1, dtype=np.float32) for i in range(6)}
    assert "all images have the same features" in str(normalisers["spread-l2"].problem(spread(constant, "l2")))
    assert "same direction" in str(normalisers["spread-cosine-bounded"].problem(spread(constant, "cosine")))
    scaled = {k: v * (i + 1) for i, (k, v) in enumerate(constant.items())}
    assert normalisers["spread-l2"].problem(spread(scaled, "l2")) is None
    assert "same direction" in str(normalisers["spread-cosine-bounded"].problem(spread(scaled, "cosine")))
    opposed = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])}
    assert "has no meaning" in str(normalisers["spread-cosine"].problem(spread(opposed, "cosine")))


def test_a_negative_m_is_a_value_of_the_papers_form() -> None:
    assert normalisers["spread-cosine"].problem(made(-0.4)) is None


def test_unknown_normaliser() -> None:
    with pytest.raises(UnknownName, match="unknown normaliser 'spread-l1': did you mean 'spread-l2'"):
        normalisers["spread-l1"]


# ---- intervals -----------------------------------------------------------------------------------------------------


def table_of(per_image: np.ndarray, order: int = 4, prefix: str = "image") -> Deviations:
    """A table whose image means are `per_image`, with different elements."""
    rows = np.asarray(per_image)[:, None] + np.linspace(-1, 1, order) * 1e-3
    return Deviations.of([f"{prefix}-{i:03}" for i in range(len(per_image))], rows)


def plain(sample: Deviations, optimum: float = 0.0, **parts: object) -> Tables:
    return replace(Tables(sample, normalisers["none"], optimum, np.inf), **parts)  # type: ignore[arg-type]


def test_the_jackknife_of_a_mean_is_the_standard_error() -> None:
    x = np.random.default_rng(1).gamma(2.0, size=30)
    change = change_of(float(x.mean()), (x - x.mean()) / (len(x) - 1))
    assert change.variance == pytest.approx(x.var(ddof=1) / len(x))
    assert change.degrees == pytest.approx(len(x) - 1)
    found = leaving_out(plain(table_of(x)), lambda e, m, floor, null: e)
    assert found.value == pytest.approx(x.mean())
    assert np.allclose(np.concatenate(found.blocks), change.blocks[0])


def leave_one_out(sample: dict[str, float], features: dict[str, np.ndarray], kind: str, name: str) -> list[list[float]]:
    """Changes of the value when each image is left out, recomputed from scratch; those of the sample, then the rest."""

    def value(without: str | None) -> float:
        kept = [v for k, v in sorted(sample.items()) if k != without]
        e = sum(kept) / len(kept)
        m = loop_spread(kind, {k: v for k, v in features.items() if k != without})
        return {"spread-l2": e / m, "spread-cosine": e / m, "spread-cosine-bounded": (1 + e) / (1 - m)}[name]

    whole = value(None)
    return [
        [whole - value(k) for k in sorted(sample)],
        [whole - value(k) for k in sorted(set(features) - set(sample))],
    ]


@pytest.mark.parametrize("name", ["spread-l2", "spread-cosine", "spread-cosine-bounded"])
@pytest.mark.parametrize("shift", [0, 4, 20])
def test_the_interval_of_a_normalised_value_carries_the_uncertainty_of_m(name: str, shift: int) -> None:
    """The jackknife against leave-one-out recomputation, with a spread sample that overlaps the other, or does not."""
    rng = np.random.default_rng(2)
    scores = rng.gamma(3.0, 0.2, size=9) if name == "spread-l2" else rng.uniform(-1, -0.5, size=9)
    sample = {f"image-{i:03}": float(v) for i, v in enumerate(scores)}
    features = {f"image-{i + shift:03}": v for i, v in enumerate(points(12, (5,)).values())}
    kind = str(normalisers[name].spread)
    m = spread(features, kind)
    tables = Tables(
        Deviations.of(list(sample), np.array(list(sample.values()))[:, None]),
        normalisers[name],
        0.0 if kind == "l2" else -1.0,
        np.inf,
        spread=m,
    )
    blocks = leave_one_out(sample, features, kind, name)
    found = leaving_out(tables, lambda e, m, floor, null: tables.normaliser.apply(e, m), with_reference=False)
    assert found.value == pytest.approx(tables.normalised(scores.mean()))
    expected = [np.array(b) for b in blocks if b]
    assert len(found.blocks) == len(expected)
    for u, v in zip(found.blocks, expected, strict=True):
        assert np.allclose(u, v, rtol=1e-9, atol=1e-12)
    # centred within each block, as a jackknife is
    variance = sum((len(u) - 1) / len(u) * float(((u - u.mean()) ** 2).sum()) for u in expected)
    assert found.variance == pytest.approx(variance)
    estimate = value_of(tables, 0.95)
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < estimate.value < estimate.high
    # an interval that took M as known would be another
    alone = interval(change_of(found.value, np.array([(s - scores.mean()) / 8 for s in scores]) / m.value), 0.95, 9)
    assert (alone.low, alone.high) != (estimate.low, estimate.high)


@pytest.mark.parametrize("reference_size", [3, 5])
@pytest.mark.parametrize("with_floor", [True, False])
@pytest.mark.parametrize("order", [4, 8])
def test_the_jackknife_of_a_calibrated_value(reference_size: int, with_floor: bool, order: int) -> None:
    """Leaving out an image takes every pair of a broken orbit in which it stands, and its own row of the floor."""
    rng = np.random.default_rng(3)
    n, k = 11, reference_size
    ids = [f"image-{i:03}" for i in range(n)]
    values = rng.gamma(2.0, 0.1, size=(n, order))
    reference = tuple(str(i) for i in rng.permutation(ids)[:k])  # the sample's order is not the order of the ids
    floors = rng.uniform(0.0, 0.05, size=(k, order))
    nulls = rng.uniform(0.97, 1.03, size=(k, order))
    tables = plain(
        Deviations.of(ids, values),
        floor=Deviations.of(reference, floors) if with_floor else None,
        null=broken(reference, nulls),
    )

    def value(without: str | None) -> float:
        e = np.mean([values[i].mean() for i in range(n) if ids[i] != without])
        floor = np.mean([floors[i].mean() for i in range(k) if reference[i] != without]) if with_floor else 0.0
        return float((e - floor) / (broken_mean(reference, nulls, without, range(order)) - floor))

    found = calibrated(tables, 0.95, 1e-6).estimate
    assert found is not None
    assert found.value == pytest.approx(value(None), rel=1e-12)
    inside = np.array([value(None) - value(i) for i in sorted(reference)])
    outside = np.array([value(None) - value(i) for i in ids if i not in reference])
    e, floor = values.mean(), floors.mean() if with_floor else 0.0
    # leaving an image out of the orbit around it alone
    left = {name: np.delete(nulls, i, axis=0).mean() for i, name in enumerate(reference)}
    own = np.array([value(None) - (e - floor) / (left[i] - floor) for i in sorted(reference)])
    expected = interval(change_of(value(None), inside, outside, own=own), 0.95, n)
    assert found.low == pytest.approx(expected.low, rel=1e-9)
    assert found.high == pytest.approx(expected.high, rel=1e-9)


@pytest.mark.parametrize("optimum", [0.0, -1.0, -3.2])
def test_a_perfect_sample_proves_no_perfect_model(optimum: float) -> None:
    """Trap: never NaN, and never [v, v]: the optimum is the least there is, and of the largest nothing is known."""
    found = value_of(plain(Deviations.of(list("abcd"), np.full((4, 8), optimum)), optimum), 0.95)
    assert (found.low, found.value, found.high) == (optimum, optimum, None)
    exact = Tables(Deviations.of(list("abcd"), np.zeros((4, 8))), normalisers["spread-l2"], 0.0, np.inf)
    found = value_of(replace(exact, spread=spread(points(6, (3,)), "l2")), 0.95)
    assert (found.low, found.value, found.high) == (0.0, 0.0, None)


@pytest.mark.parametrize(("n", "level", "share"), [(20, 0.95, 0.16843), (50, 0.95, 0.07112), (300, 0.95, 0.01222)])
def test_what_no_image_of_a_sample_showed_may_be_so_for_clopper_and_pearsons_share(
    n: int, level: float, share: float
) -> None:
    """0 of 20 at 95 %: up to 16.8 % (the published upper limit), each with the largest value that there is."""
    from scipy import stats

    assert stats.beta.ppf(0.5 + level / 2, 1, n) == pytest.approx(share, abs=1e-5)
    same = change_of(0.0, np.zeros(n))
    found = interval(same, level, n, hidden=(0.0, 1.0))
    assert (found.low, found.high) == (0.0, pytest.approx(share, abs=1e-5))
    assert found.method == f"no variance among {n} images: up to {100 * share:.3g} % of all images may be unlike them"
    both = interval(change_of(-0.5, np.zeros(n)), level, n, hidden=(-1.0, 1.0))
    assert (both.low, both.high) == (
        pytest.approx(-0.5 - 0.5 * share, abs=1e-5),
        pytest.approx(-0.5 + 1.5 * share, abs=1e-5),
    )
    for hidden, ends in (((0.0, math.inf), (0.0, None)), ((-math.inf, 0.0), (None, 0.0)), (None, (None, None))):
        unknown = interval(same, level, n, hidden=hidden)
        assert (unknown.low, unknown.high) == ends
        assert unknown.method.endswith("may be unlike them, by how much is not bounded")


def test_what_is_exact_by_construction_is_v_v_whatever_the_sample() -> None:
    for n in (1, 9):
        found = interval(change_of(0.25, np.zeros(n)), 0.95, n, exact=True)
        assert (found.low, found.value, found.high) == (0.25, 0.25, 0.25)
        assert found.method == "none needed: exact by construction"


@pytest.mark.parametrize("sizes", [(9,), (5, 12), (4, 7, 6)])
def test_variance_and_skewness_are_of_changes_centred_in_their_block(sizes: tuple[int, ...]) -> None:
    """A constant added to the changes of a block is no noise; the corrected skewness is Quenouille's, the slow way."""
    rng = np.random.default_rng(12)
    blocks = [rng.gamma(0.7, size=n) for n in sizes]
    found, moved = (change_of(0.0, *(u + c * i for i, u in enumerate(blocks, 1))) for c in (0.0, 3.0))
    assert found.variance == pytest.approx(
        sum((n - 1) ** 2 / n * u.var(ddof=1) for n, u in zip(sizes, blocks, strict=True))
    )
    assert moved.variance == pytest.approx(found.variance)
    assert moved.skewness == pytest.approx(found.skewness)
    assert moved.skewness_jackknifed == pytest.approx(found.skewness_jackknifed)

    def skewness(some: list[np.ndarray]) -> float:
        """From k-statistics of what is left, on the scale of all of them."""
        second = third = 0.0
        for n, u in zip(sizes, some, strict=True):
            m, d = len(u), u - u.mean()
            second += (n - 1) ** 2 / n * (d @ d) / (m - 1)
            third += (n - 1) * (n - 2) * (m * (d**3).sum() / ((m - 1) * (m - 2))) / n
        return float(third / second**1.5)

    whole = skewness(blocks)
    assert found.skewness == pytest.approx(whole)
    expected = whole
    for b, u in enumerate(blocks):
        each = [skewness([*blocks[:b], np.delete(u, i), *blocks[b + 1 :]]) for i in range(len(u))]
        expected += (len(u) - 1) * (whole - float(np.mean(each)))
    assert found.skewness_jackknifed == pytest.approx(expected)


def test_one_image_tells_nothing_of_uncertainty() -> None:
    found = value_of(plain(table_of(np.array([0.3]))), 0.95)
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high, found.method, found.n) == (None, None, "none: one image", 1)


@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=2, max_size=30),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_an_interval_holds_its_value_and_keeps_the_bounds(scores: list[float], level: float) -> None:
    tables = replace(plain(table_of(np.array(scores), order=1)), largest=1e6 + 1.0, optimum=-1.0)
    found = value_of(tables, level)
    assert found.low is not None
    assert found.high is not None
    assert tables.optimum <= found.low <= found.value <= found.high <= tables.largest
    assert (found.level, found.n) == (level, len(scores))


def test_a_higher_level_is_wider() -> None:
    tables = plain(table_of(np.random.default_rng(4).gamma(1.5, size=20)))
    widths = [f.high - f.low for f in (value_of(tables, level) for level in (0.5, 0.8, 0.95, 0.99))]  # type: ignore[operator]
    assert widths == sorted(widths)
    assert widths[0] > 0


def test_an_interval_leans_to_the_long_tail() -> None:
    """Hall's correction: the longer arm lies on the side of the tail, and turning the sample over turns it over."""
    x = np.random.default_rng(5).gamma(0.5, size=40)
    right, left = value_of(plain(table_of(x), -1e9), 0.95), value_of(plain(table_of(-x), -1e9), 0.95)
    assert right.high - right.value > right.value - right.low  # type: ignore[operator]
    assert left.low == pytest.approx(-right.high)  # type: ignore[operator]
    assert left.high == pytest.approx(-right.low)  # type: ignore[operator]
    even = np.concatenate([x, -x])
    both = value_of(plain(table_of(even), -1e9), 0.95)
    from scipy import stats

    arm = stats.t.ppf(0.975, len(even) - 1) * even.std(ddof=1) / math.sqrt(len(even))
    assert both.high - both.value == pytest.approx(arm)  # type: ignore[operator]


@pytest.mark.parametrize("bounded", [True, False])
def test_hard_bounds_are_those_of_the_distance(bounded: bool) -> None:
    scores = np.array([-1.0, -1.0, -1.0, -1.0, -0.2])
    found = value_of(plain(table_of(scores, order=1), -1.0 if bounded else -9.0), 0.99)
    assert (found.low == -1.0) == bounded


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_coverage_on_a_normal_sample(level: float) -> None:
    rng = np.random.default_rng(6)
    hits, repeats, n = 0, 600, 25
    for x in rng.normal(2.0, 1.0, size=(repeats, n)):
        found = interval(change_of(float(x.mean()), (x - x.mean()) / (n - 1)), level, n)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 2.0 <= found.high
    # three standard errors of a coverage counted on 600 samples
    assert abs(hits / repeats - level) < 3 * math.sqrt(level * (1 - level) / repeats)


def test_estimates_do_not_depend_on_order_to_the_last_bit() -> None:
    rng = np.random.default_rng(7)
    values, features = rng.gamma(2.0, size=(10, 4)), points(14, (5,))
    ids = [f"image-{i:03}" for i in range(10)]
    reference = tuple(ids[:4])
    nulls = rng.uniform(8, 9, size=(4, 4))

    def estimates(order: np.ndarray) -> tuple[object, object]:
        names = [list(features)[i] for i in rng.permutation(14)]
        tables = Tables(
            Deviations.of([ids[i] for i in order], values[order]),
            normalisers["spread-l2"],
            0.0,
            np.inf,
            spread=spread({k: features[k] for k in names}, "l2"),
            null=broken(reference, nulls),
        )
        return value_of(tables, 0.95), calibrated(tables, 0.95, 1e-6)

    first = estimates(np.arange(10))
    assert all(estimates(rng.permutation(10)) == first for _ in range(5))


# ---- a part of the group -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", "spread-l2", "spread-cosine", "spread-cosine-bounded"])
@pytest.mark.parametrize("elements", [(0, 2, 4, 6), (1, 3, 5, 7), (0,), (5, 2)])
def test_a_part_of_the_group_is_the_same_number_over_its_elements(name: str, elements: tuple[int, ...]) -> None:
    """Against the jackknife done the slow way: an image takes with it every pair of a broken orbit in which it is."""
    rng = np.random.default_rng(11)
    n, k, order = 9, 5, 8
    ids = [f"image-{i}" for i in range(n)]
    features = {i: rng.normal(0.4, 1.0, 20) for i in ids}
    optimum = -1.0 if "cosine" in name else 0.0
    values = optimum + rng.gamma(2.0, 0.1, size=(n, order)) * rng.uniform(0.5, 1.5, order)
    reference = tuple(str(i) for i in rng.permutation(ids)[:k])
    floors = optimum + rng.uniform(0.0, 0.05, size=(k, order))
    nulls = optimum + rng.uniform(0.5, 0.6, size=(k, order))
    kind = normalisers[name].spread
    whole = Tables(
        Deviations.of(ids, values),
        normalisers[name],
        optimum,
        np.inf,
        spread=spread(features, kind) if kind else None,
        floor=Deviations.of(reference, floors),
        null=broken(reference, nulls),
    )

    def numbers(without: str | None) -> tuple[float, float]:
        kept = {i: f for i, f in features.items() if i != without}
        m = spread(kept, kind).value if kind else 1.0
        apply = normalisers[name].apply
        e = apply(np.mean([values[i, g] for i in range(n) for g in elements if ids[i] != without]), m)
        floor = apply(np.mean([floors[i, g] for i in range(k) for g in elements if reference[i] != without]), m)
        null = apply(broken_mean(reference, nulls, without, elements), m)
        return float(e), float((e - floor) / (null - floor))

    part = restricted(whole, elements)
    assert part.elements == elements
    value, found = value_of(part, 0.95), calibrated(part, 0.95, 1e-6).estimate
    assert found is not None
    assert (value.value, found.value) == pytest.approx(numbers(None), rel=1e-12)
    changes = {i: np.subtract(numbers(None), numbers(i)) for i in ids}
    plainly = interval(change_of(value.value, np.array([changes[i][0] for i in ids])), 0.95, n)
    assert value.high == pytest.approx(plainly.high, rel=1e-9)
    inside = np.array([changes[i][1] for i in sorted(reference)])
    outside = np.array([changes[i][1] for i in ids if i not in reference])
    m = whole.m
    e, floor = (normalisers[name].apply(t[:, list(elements)].mean(), m) for t in (values, floors))
    left = {i: np.delete(nulls, r, axis=0)[:, list(elements)].mean() for r, i in enumerate(reference)}
    own = [found.value - (e - floor) / (normalisers[name].apply(left[i], m) - floor) for i in sorted(reference)]
    anchored = interval(change_of(found.value, inside, outside, own=np.array(own)), 0.95, n)
    assert (found.low, found.high) == pytest.approx((anchored.low, anchored.high), rel=1e-9)


@given(st.lists(st.booleans(), min_size=3, max_size=3), st.sampled_from(sorted(normalisers)))
def test_the_parts_of_a_partition_add_up_to_the_value(first: list[bool], name: str) -> None:
    ids = [f"image-{i}" for i in range(12)]
    m = None
    if kind := normalisers[name].spread:
        m = spread({i: np.random.default_rng(len(i) + n).normal(1, 1, 9) for n, i in enumerate(ids)}, kind)
    whole = Tables(Deviations.of(ids, TRUTH), normalisers[name], 0.0, np.inf, spread=m)
    parts = [[g for g in range(3) if first[g] == side] for side in (True, False)]
    weighed = [len(p) / 3 * value_of(restricted(whole, p), 0.95).value for p in parts if p]
    assert sum(weighed) == pytest.approx(value_of(whole, 0.95).value, rel=1e-12)


def test_a_part_of_all_elements_is_the_whole_and_a_part_of_a_part_is_a_part() -> None:
    tables = plain(Deviations.of(list("abcd"), TRUTH[:4]))
    assert value_of(restricted(tables, range(3)), 0.95) == value_of(tables, 0.95)
    part = restricted(restricted(tables, (2, 0)), (0,))
    assert part.elements == (2,)
    assert part.sample == Deviations.of(list("abcd"), TRUTH[:4, 2:])


# ---- calibration ---------------------------------------------------------------------------------------------------


def calibrated_at(
    share: float, name: str = "none", level: float = 0.95, features: dict[str, np.ndarray] | None = None
) -> Calibration:
    """Tables whose value lies at `share` of the way from floor to null."""
    rng = np.random.default_rng(8)
    noise = rng.uniform(-0.01, 0.01, size=(6, 8))
    floor, null = -0.95 + noise, -0.3 + noise
    ids = [f"image-{i}" for i in range(6)]
    alike = features or {k: v + 0.5 for k, v in points(6, (400,)).items()}  # M is about one half
    m = spread(alike, "cosine") if normalisers[name].spread else None
    tables = Tables(
        Deviations.of(ids, (1 - share) * floor + share * null),
        normalisers[name],
        -1.0,
        1.0,
        spread=m,
        floor=Deviations.of(ids, floor),
        null=broken(ids, null),
    )
    return calibrated(tables, level, 1e-6)


@pytest.mark.parametrize("floor", [None, 0.0, 0.01])
def test_no_calibrated_value_is_below_one_at_an_optimum_that_is_sure(floor: float | None) -> None:
    """One image of eight carries all: t reaches below 0, where no distance is; above a measured floor it may."""
    sample = table_of(np.array([1e-4] * 7 + [0.02]))
    null = broken(sample.ids, np.random.default_rng(0).uniform(1.0, 1.2, (8, 4)))
    measured = None if floor is None else np.full((8, 4), floor) * (1 + np.arange(8)[:, None] / 10)
    tables = plain(sample, null=null, floor=None if measured is None else Deviations.of(sample.ids, measured))
    found = calibrated(tables, 0.95, 1e-6).estimate
    assert found is not None
    assert found.low is not None
    free = interval(calibrated_change(tables), 0.95, 8)
    assert free.low is not None
    assert found.low == (free.low if floor else max(free.low, 0.0))
    assert free.low < 0


@pytest.mark.parametrize("name", ["none", "spread-cosine", "spread-cosine-bounded"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0, 1.5, -0.1])
def test_calibrated_is_0_at_the_floor_and_1_at_the_null(name: str, share: float) -> None:
    found = calibrated_at(share, name)
    assert found.reason is None
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(share, abs=1e-12)
    assert found.estimate.low <= found.estimate.value <= found.estimate.high  # type: ignore[operator]


@pytest.mark.parametrize("name", ["spread-cosine", "spread-cosine-bounded"])
def test_centred_features_are_calibrated_all_the_same(name: str) -> None:
    """M < 0 turns −c/M over, but neither the ratio nor the network's sensitivity."""
    angles = np.arange(6) * 2 * np.pi / 6 + np.array([0.0, 0.1, 0.0, -0.1, 0.05, 0.0])
    centred = {f"image-{i}": np.array([np.cos(a), np.sin(a)]) for i, a in enumerate(angles)}
    assert spread(centred, "cosine").value < -0.1
    found = calibrated_at(0.25, name, features=centred)
    assert found.reason is None
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(0.25)


def test_without_a_floor_the_optimum_stands_for_it() -> None:
    ids = ["a", "b", "c"]
    null = broken(ids, np.array([[0.5, 0.7], [0.6, 0.6], [0.55, 0.65]]))
    perfect = plain(Deviations.of(ids, np.zeros((3, 2))), null=null)
    found = calibrated(perfect, 0.95, 1e-6)
    assert found.estimate is not None
    assert (found.estimate.low, found.estimate.value, found.estimate.high) == (0.0, 0.0, None)
    half = calibrated(replace(perfect, sample=Deviations.of(ids, np.full((3, 2), 0.3))), 0.95, 1e-6)
    assert half.estimate is not None
    assert half.estimate.value == pytest.approx(0.5)


@pytest.mark.parametrize("size", [1.0, 1e-5, 1e5])
@pytest.mark.parametrize(
    ("null", "says"),
    [
        (np.full((4, 4), 1e-7), "insensitive: null − floor is "),  # below the resolution
        (np.zeros((4, 4)), "insensitive: null − floor is 0 ± 0, not told from 0: unrelated images are alike here"),
        (1e-4 * np.array([[0, 9, 2, -7]] * 2 + [[0, -8, -3, 6]] * 2), "insensitive: "),  # noise far below 1 %
        (np.full((4, 4), -0.1), "floor above null: null − floor is "),
        (np.array([[0, 0, 0, 0], [0, 9, 0, 0], [0, 0, 0, 0], [0, -6, 0, 0]], dtype=float), "few images: "),
        (np.full((4, 4), 0.5), None),
    ],
)
def test_a_null_that_is_not_told_from_the_floor_says_why(null: np.ndarray, says: str | None, size: float) -> None:
    """Why does not depend on the unit of the features: whatever grows with them is judged against their size."""
    ids = list("abcd")
    tables = plain(Deviations.of(ids, np.full((4, 4), 1e-8 * size)), null=broken(ids, null * size), scale=size)
    found = calibrated(tables, 0.95, 1e-6)
    assert (found.estimate is None) == (found.reason is not None) == (says is not None)
    if says is not None:
        assert str(found.reason).startswith(says)


@pytest.mark.parametrize(("largest", "word"), [(0.5, "few images: "), (500.0, "insensitive: ")])
def test_alike_is_by_what_the_distance_can_tell(largest: float, word: str) -> None:
    """Noise of some hundredths is much for a distance of at most 0.5, and below 1 % of one that goes to 500."""
    ids = list("abcd")
    noise = 0.01 * np.array([[0, 9, 2, -7]] * 2 + [[0, -8, -3, 6]] * 2)
    tables = plain(Deviations.of(ids, np.zeros((4, 4))), null=broken(ids, noise), largest=largest)
    assert str(calibrated(tables, 0.95, 1e-6).reason).startswith(word)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        (None, "not computed: a null needs reference images (--reference-samples), two at the least"),
        (("a",), "few images: 1 reference images are too few for an interval of null − floor (1)"),
        (("b", "a"), "few images: 2 reference images are too few for an interval of null − floor (1)"),
    ],
)
def test_a_null_needs_three_images_to_be_told_from_the_floor(reference: tuple[str, ...] | None, says: str) -> None:
    """Without one of two images no pair is left, so that nothing tells how sure the null is."""
    null = None
    if reference is not None:
        n = len(reference)
        null = broken(reference, np.ones((n, 4))) if n > 1 else Broken.of(reference, *[np.ones((1, 4))] * 4)
    tables = plain(Deviations.of(["a", "b"], np.full((2, 4), 0.5)), null=null)
    assert calibrated(tables, 0.95, 1e-6) == Calibration(None, says)
