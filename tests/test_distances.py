"""Every distance keeps the laws it declares, and agrees with a loop over plain floats."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from decimal import Context, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geed_onnx import distances as module
from geed_onnx.distances import SPAN, Distance, cosines, distances, log_softmax, row_products

KINDS = ("map", "vector", "probability")
CASES = [(name, kind) for name, entry in distances.items() for kind in entry.kinds]
every_case = pytest.mark.parametrize(("name", "kind"), CASES)
every_distance = pytest.mark.parametrize("name", list(distances))


def keeping(law: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "kind"), [(n, k) for n, k in CASES if law in distances[n].laws])


def draw(kind: str, n: int = 40, seed: int = 0) -> np.ndarray:
    """Rows of very different size and with zero channels: maps (n, C, H, W), vectors (n, K), probabilities (n, K)."""
    rng = np.random.default_rng(seed)
    if kind == "probability":
        p = rng.dirichlet(np.full(5, 0.4), size=n)
        p[: n // 4] = np.eye(5)[rng.integers(5, size=n // 4)]  # 0·log 0
        return p
    shape = (n, 3, 4, 5) if kind == "map" else (n, 17)
    x = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, size=(n, *[1] * (len(shape) - 1)))
    x[rng.random(shape[:2]) < 0.15] = 0.0
    x[: n // 8] = 0.0
    return x


def pairs(kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    a, b = draw(kind, seed=seed), draw(kind, seed=seed + 1)
    b[::5] = a[::5]  # equal rows
    b[3::7] = a[(np.arange(len(b))[3::7] + 1) % len(a)]
    return a, b


# ---- what every entry declares -------------------------------------------------------------------------------------


@every_distance
def test_declaration(name: str) -> None:
    entry = distances[name]
    assert isinstance(entry, Distance)
    assert entry.name == name
    assert entry.kinds
    assert set(entry.kinds) <= set(KINDS)
    assert entry.laws <= {"symmetric", "metric", "scale-free", "shift-free", "definite"}
    assert entry.optimum < entry.largest
    assert entry.about
    assert math.isfinite(entry.optimum)
    assert entry.resolution > 0


@every_case
def test_value_is_the_optimum_at_equality(name: str, kind: str) -> None:
    entry, a = distances[name], draw(kind)
    assert np.abs(entry(a, a.copy()) - entry.optimum).max() < 1e-12
    assert np.abs(entry(a.astype(np.float32), a.astype(np.float32)) - entry.optimum).max() < 1e-12


@every_case
def test_values_stay_within_the_bounds(name: str, kind: str) -> None:
    entry = distances[name]
    for seed in range(0, 40, 2):
        a, b = pairs(kind, seed)
        value = entry(a, b)
        assert value.shape == (len(a),)
        assert value.dtype == np.float64
        assert not np.isnan(value).any()
        assert (value >= entry.optimum - 1e-12).all()
        assert (value <= entry.largest + 1e-12).all()


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, k in CASES if np.isfinite(distances[n].largest)])
def test_the_largest_value_is_reached(name: str, kind: str) -> None:
    """It is the least upper bound: opposite features, disjoint distributions."""
    if kind == "probability" and name != "cosine":
        a, b = np.eye(3)[:1], np.eye(3)[1:2]
    else:
        a = np.tile([1.0, -2.0, 1.0, 0.0], (1, 2, 1))[..., None] if kind == "map" else np.array([[1.0, -2.0, 1.0]])
        b = -a
    assert distances[name](a, b)[0] == pytest.approx(distances[name].largest, abs=1e-12)


# ---- laws ----------------------------------------------------------------------------------------------------------


@keeping("symmetric")
def test_symmetric(name: str, kind: str) -> None:
    for seed in range(0, 20, 2):
        a, b = pairs(kind, seed)
        assert np.allclose(distances[name](a, b), distances[name](b, a), rtol=1e-13, atol=1e-15)


@keeping("metric")
def test_triangle_inequality(name: str, kind: str) -> None:
    m = distances[name]
    for seed in range(0, 60, 3):
        a, b = pairs(kind, seed)
        c = draw(kind, seed=seed + 2)
        for x, y, z in ((a, b, c), (b, c, a), (c, a, b), (a, (a + c) / 2, c)):
            assert (m(x, z) <= (m(x, y) + m(y, z)) * (1 + 1e-12) + 1e-15).all()


@keeping("scale-free")
def test_scale_free(name: str, kind: str) -> None:
    rng = np.random.default_rng(3)
    a, b = pairs(kind)
    column = (len(a), *[1] * (a.ndim - 1))
    s, t = (10.0 ** rng.uniform(-4, 4, size=column) for _ in range(2))
    assert np.allclose(distances[name](s * a, t * b), distances[name](a, b), rtol=0, atol=1e-12)


@keeping("shift-free")
def test_shift_free(name: str, kind: str) -> None:
    rng = np.random.default_rng(4)
    # of one size: a channel that is tiny beside its shift is lost to rounding in any arithmetic
    a, b = rng.standard_normal((2, 20, 3, 4, 5))
    s, t = rng.uniform(-10, 10, size=(2, *a.shape[:2], 1, 1))
    assert np.allclose(distances[name](a + s, b + t), distances[name](a, b), rtol=0, atol=1e-12)


@keeping("definite")
def test_definite(name: str, kind: str) -> None:
    m = distances[name]
    for seed in range(0, 20, 2):
        a, b = pairs(kind, seed)
        differ = (a != b).reshape(len(a), -1).any(axis=1)
        assert differ.any()
        assert not differ.all()
        value = m(a, b)
        assert (value[differ] > m.optimum).all()
        assert np.allclose(value[~differ], m.optimum, rtol=0, atol=1e-15)
    # and for a change of one part in a thousand of one entry
    near = a.copy()
    near.reshape(len(a), -1)[:, 0] *= 1.001
    if kind == "probability":
        near /= near.sum(axis=1, keepdims=True)
    moved = np.abs(a - near).reshape(len(a), -1).max(axis=1) > 1e-9 * np.abs(a).reshape(len(a), -1).max(axis=1)
    assert moved.any()
    assert (m(a, near)[moved] > m.optimum).all()


def lacking(law: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "kind"), [(n, k) for n, k in CASES if law not in distances[n].laws])


@lacking("symmetric")
def test_symmetry_that_is_not_declared_does_not_hold(name: str, kind: str) -> None:
    a, b = pairs(kind)
    assert not np.allclose(distances[name](a, b), distances[name](b, a))


@lacking("definite")
def test_definiteness_that_is_not_declared_does_not_hold(name: str, kind: str) -> None:
    """Some pair of different rows scores the optimum: scaled, or with the same argmax."""
    a, _ = pairs(kind)
    other = 2 * a if "scale-free" in distances[name].laws else 0.9 * a + 0.1 * np.eye(5)[a.argmax(axis=1)]
    differ = (a != other).reshape(len(a), -1).any(axis=1)
    assert np.isclose(distances[name](a, other)[differ], distances[name].optimum, rtol=0, atol=1e-12).any()


# ---- formulas, as loops over floats --------------------------------------------------------------------------------


def loop_cosine(a: np.ndarray, b: np.ndarray) -> float:
    ab = math.fsum(float(x) * float(y) for x, y in zip(a.flat, b.flat, strict=True))
    aa, bb = (math.fsum(float(x) ** 2 for x in v.flat) for v in (a, b))
    if aa == 0 and bb == 0:
        return 1.0
    return 0.0 if aa == 0 or bb == 0 else ab / math.sqrt(aa) / math.sqrt(bb)


def loop_centred(channel: np.ndarray) -> np.ndarray:
    mean = math.fsum(channel.flat) / channel.size
    return np.array([float(x) - mean for x in channel.flat])


def loop_l2(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(math.fsum((float(x) - float(y)) ** 2 for x, y in zip(a.flat, b.flat, strict=True)))


def loop_relative(a: np.ndarray, b: np.ndarray) -> float:
    gap, size = loop_l2(a, b), loop_l2(b, np.zeros_like(b))
    return gap / size if size else (math.inf if gap else 0.0)


def loop_weighted(a: np.ndarray, b: np.ndarray) -> float:
    """Σ ½(‖a_i‖/Σ‖a‖ + ‖b_i‖/Σ‖b‖) cos(a_i, b_i); of nothing but zeros 1, of zeros on one side 0."""
    norms = [[math.sqrt(math.fsum(float(v) ** 2 for v in channel.flat)) for channel in x] for x in (a, b)]
    totals = [math.fsum(side) for side in norms]
    if not all(totals):
        return 0.0 if any(totals) else 1.0
    each = [loop_cosine(x, y) for x, y in zip(a, b, strict=True)]
    return math.fsum((p / totals[0] + q / totals[1]) / 2 * c for p, q, c in zip(*norms, each, strict=True))


def loop_kl(p: np.ndarray, q: np.ndarray) -> float:
    total = 0.0
    for x, y in zip(p, q, strict=True):
        if x > 0:
            total += float(x) * math.log(x / y) if y > 0 else math.inf
    return total


def loop_js(p: np.ndarray, q: np.ndarray) -> float:
    middle = [(float(x) + float(y)) / 2 for x, y in zip(p, q, strict=True)]
    return (loop_kl(p, np.array(middle)) + loop_kl(q, np.array(middle))) / 2


def loop_tv(p: np.ndarray, q: np.ndarray) -> float:
    return sum(abs(float(x) - float(y)) for x, y in zip(p, q, strict=True)) / 2


LOOPS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "l2": loop_l2,
    "relative-l2": loop_relative,
    "cosine": lambda a, b: -loop_cosine(a, b),
    "channelwise-cosine": lambda a, b: -sum(loop_cosine(x, y) for x, y in zip(a, b, strict=True)) / len(a),
    "channelwise-correlation": lambda a, b: (
        -sum(loop_cosine(loop_centred(x), loop_centred(y)) for x, y in zip(a, b, strict=True)) / len(a)
    ),
    "channelwise-weighted-cosine": lambda a, b: -loop_weighted(a, b),
    "kl": loop_kl,
    "jensen-shannon": loop_js,
    "total-variation": loop_tv,
    "disagreement": lambda p, q: float(
        max(range(len(p)), key=lambda i: p[i]) != max(range(len(q)), key=lambda i: q[i])
    ),
}


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, k in CASES if n in LOOPS])
def test_formula(name: str, kind: str) -> None:
    for seed in (0, 2, 4):
        a, b = pairs(kind, seed)
        expected = [LOOPS[name](x, y) for x, y in zip(a, b, strict=True)]
        # relative-l2 of rows a million times apart is large: relative error, and absolute below 1
        assert np.allclose(distances[name](a, b), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["kl", "jensen-shannon", "total-variation", "disagreement"])
def test_dense_predictions_are_averaged_over_positions(name: str) -> None:
    """(B, H, W, classes): classes last, the mean over positions."""
    rng = np.random.default_rng(5)
    p, q = rng.dirichlet(np.ones(4), size=(2, 3, 2, 5))
    expected = [np.mean([LOOPS[name](p[b, i, j], q[b, i, j]) for i in range(2) for j in range(5)]) for b in range(3)]
    assert np.allclose(distances[name](p, q), expected, rtol=0, atol=1e-12)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=12))
def test_l2_and_cosine_on_any_numbers(entries: list[tuple[float, float]]) -> None:
    a, b = (np.array([[row[i] for row in entries]]) for i in (0, 1))
    if all(x == 0 or abs(x) > 1e-100 for v in (a, b) for x in v.flat):
        assert distances["l2"](a, b)[0] == pytest.approx(loop_l2(a, b), rel=1e-12)
        assert distances["cosine"](a, b)[0] == pytest.approx(-loop_cosine(a, b), abs=1e-12)


# ---- named values --------------------------------------------------------------------------------------------------


def test_kl_is_of_the_first_from_the_second() -> None:
    """Trap: KL(f(gx) ‖ f̂), natural logarithm; the two orders differ."""
    p, q = np.array([[0.9, 0.1]]), np.array([[0.5, 0.5]])
    assert distances["kl"](p, q)[0] == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), abs=1e-15)
    assert distances["kl"](q, p)[0] == pytest.approx(0.5 * math.log(5 / 9) + 0.5 * math.log(5), abs=1e-15)
    assert distances["kl"](p, q)[0] == pytest.approx(0.3680642, abs=1e-7)
    assert distances["kl"](q, p)[0] == pytest.approx(0.5108256, abs=1e-7)


def test_zero_log_zero_is_zero() -> None:
    p, q = np.array([[1.0, 0.0, 0.0]]), np.array([[0.5, 0.5, 0.0]])
    assert distances["kl"](p, q)[0] == pytest.approx(math.log(2), abs=1e-15)
    assert distances["kl"](q, p)[0] == np.inf  # a class that cannot occur, and does
    assert distances["kl"](p, p)[0] == 0.0
    assert distances["jensen-shannon"](p, p)[0] == 0.0


def test_jensen_shannon_is_at_most_log_2() -> None:
    p, q = np.array([[0.3, 0.7, 0.0, 0.0]]), np.array([[0.0, 0.0, 0.6, 0.4]])
    assert distances["jensen-shannon"](p, q)[0] == pytest.approx(math.log(2), abs=1e-15)
    assert distances["jensen-shannon"].largest == math.log(2)
    rng = np.random.default_rng(6)
    many = rng.dirichlet(np.full(6, 0.05), size=(2, 500))
    assert distances["jensen-shannon"](*many).max() <= math.log(2) + 1e-15


def test_zero_channels() -> None:
    """DESIGN 4.4: two zero channels are equal (1), one zero channel is unlike anything (0)."""
    full, empty = np.ones((2, 2)), np.zeros((2, 2))
    a = np.array([[full, empty, full, empty]])
    b = np.array([[full, empty, empty, full]])
    assert distances["channelwise-cosine"](a, b)[0] == -(1 + 1 + 0 + 0) / 4
    assert distances["cosine"](np.zeros((1, 4)), np.zeros((1, 4)))[0] == -1.0
    assert distances["cosine"](np.zeros((1, 4)), np.ones((1, 4)))[0] == 0.0
    assert cosines(np.zeros(2), np.array([0.0, 0.0]), np.array([0.0, 4.0])).tolist() == [1.0, 0.0]


def test_constant_channels_are_the_zero_channels_of_a_correlation() -> None:
    ramp = np.arange(4.0).reshape(2, 2)
    flat = np.full((2, 2), 0.1)  # whose mean is not 0.1 to the last bit
    a = np.array([[ramp, flat, ramp, flat]])
    b = np.array([[5 - 2 * ramp, 1e6 + flat, flat, ramp]])
    assert distances["channelwise-correlation"](a, b)[0] == pytest.approx(-(-1 + 1 + 0 + 0) / 4, abs=1e-12)
    # a constant whose mean is not itself leaves rounding behind, which must not count as a direction
    big = np.full((1, 1, 29, 29), 0.1)
    assert (big - big.mean() != 0).all()
    assert distances["channelwise-correlation"](big, np.zeros_like(big))[0] == -1.0
    assert distances["channelwise-correlation"](big, np.ones_like(big))[0] == -1.0


def test_channels_that_count_by_their_norm() -> None:
    """Norms 3 and 1 of a, 1 and 1 of b; the second channel agrees, the first is turned by a right angle."""
    a = np.array([[[[3.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]]])
    b = np.array([[[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 0.0]]]])
    m = distances["channelwise-weighted-cosine"]
    assert m(a, b)[0] == pytest.approx(-(1 / 4 + 1 / 2) / 2, abs=1e-15)
    zero = np.zeros_like(a)
    assert m(zero, zero)[0] == -1.0
    assert m(zero, a)[0] == m(a, zero)[0] == 0.0
    assert m(a, a)[0] == -1.0


def test_relative_l2_of_zero() -> None:
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert distances["relative-l2"](zero, zero)[0] == 0.0
    assert distances["relative-l2"](one, zero)[0] == np.inf
    assert distances["relative-l2"](zero, one)[0] == 1.0
    assert distances["relative-l2"](3 * one, one)[0] == pytest.approx(2.0)


def test_channelwise_is_not_the_cosine_of_the_whole() -> None:
    a = np.array([[[[1.0, 0.0]], [[0.0, 100.0]]]])
    b = np.array([[[[0.0, 1.0]], [[0.0, 100.0]]]])
    assert distances["channelwise-cosine"](a, b)[0] == -0.5
    assert distances["cosine"](a, b)[0] < -0.99


def test_disagreement_is_the_share_of_positions() -> None:
    p = np.array([[[0.6, 0.4], [0.3, 0.7], [0.5, 0.5], [0.9, 0.1]]])
    q = np.array([[[0.6, 0.4], [0.7, 0.3], [0.6, 0.4], [0.1, 0.9]]])
    assert distances["disagreement"](p, q)[0] == 0.5


# ---- distributions in logarithms -----------------------------------------------------------------------------------

OF_SCORES = [name for name, entry in distances.items() if "probability" in entry.kinds]
EXACT = Context(prec=400, Emin=-999999, Emax=999999)


def logarithm(p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(p)


def exact_softmax(logits: Sequence[float]) -> list[Decimal]:
    """The softmax to 400 digits, beside 1 e^-700 among them; the exponents of Decimal hold e^-60000."""
    powers = [EXACT.exp(EXACT.subtract(Decimal(x), Decimal(max(logits)))) for x in logits]
    total = EXACT.create_decimal(0)
    for p in powers:
        total = EXACT.add(total, p)
    return [EXACT.divide(p, total) for p in powers]


def exact_mean(rows: Sequence[Sequence[Decimal]]) -> list[Decimal]:
    mean = []
    for column in zip(*rows, strict=True):
        total = EXACT.create_decimal(0)
        for p in column:
            total = EXACT.add(total, p)
        mean.append(EXACT.divide(total, Decimal(len(rows))))
    return mean


def exact_kl(p: Sequence[Decimal], q: Sequence[Decimal]) -> Decimal:
    total = EXACT.create_decimal(0)
    for x, y in zip(p, q, strict=True):
        if x:
            total = EXACT.add(total, EXACT.multiply(x, EXACT.ln(EXACT.divide(x, y))))
    return total


@pytest.mark.parametrize("name", OF_SCORES)
def test_logarithms_tell_the_same(name: str) -> None:
    """In logarithms every distance of distributions is the one it is of the distributions, classes of 0 included."""
    entry = distances[name]
    for seed in (0, 2):
        p, q = pairs("probability", seed)
        found = entry.in_logs()(logarithm(p), logarithm(q))
        assert found.dtype == np.float64
        assert np.allclose(found, entry(p, q), rtol=1e-12, atol=1e-12)
    facts = ("name", "optimum", "largest", "kinds", "laws", "resolution", "homogeneous", "quadratic")
    assert all(getattr(entry.in_logs(), fact) == getattr(entry, fact) for fact in facts)
    assert entry.in_logs() is entry.in_logs()
    dense = np.random.default_rng(5).dirichlet(np.ones(4), size=(2, 3, 2, 5))
    assert np.allclose(entry.in_logs()(*np.log(dense)), entry(*dense), rtol=0, atol=1e-12)


def test_the_mean_in_logarithms_is_that_of_the_distributions() -> None:
    rows = [draw("probability", seed=seed) for seed in range(5)]
    found = distances["kl"].in_logs().mean([logarithm(p) for p in rows])
    assert np.allclose(np.exp(found), np.mean(rows, axis=0), rtol=1e-13, atol=0)
    assert (found[np.mean(rows, axis=0) == 0] == -np.inf).all()
    assert np.array_equal(distances["kl"].mean(rows), np.mean(rows, axis=0))


@pytest.mark.parametrize("gap", [0.0, 1e-3, 3.0, 34.0, 37.0, 60.0, 300.0, 700.0, 745.0, 1e4, 6e4])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_kl_of_confident_logits(gap: float, dtype: type) -> None:
    """f(x) and f(gx) agree on the class, by a gap of up to 60000: the divergence is tiny, not infinite."""
    rows = [np.array([[0.0, -gap, 2.0 - gap]], dtype=dtype), np.array([[0.0, 1.0 - gap, -gap]], dtype=dtype)]
    logs = [log_softmax(y) for y in rows]
    kl = distances["kl"].in_logs()
    exact = [exact_softmax([float(v) for v in y[0]]) for y in rows]
    middle = exact_mean(exact)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [kl(row, kl.mean(logs))[0] for row in logs]
    for value, p in zip(found, exact, strict=True):
        assert value == pytest.approx(float(exact_kl(p, middle)), rel=1e-10, abs=1e-15 if gap < 30 else 1e-307)
        assert gap >= 745 or gap == 0 or value > 0


@pytest.mark.parametrize("name", ["kl", "jensen-shannon"])
@settings(max_examples=40)
@given(data=st.data())
def test_logits_of_any_size_against_four_hundred_digits(name: str, data: st.DataObject) -> None:
    classes, count = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 4))
    logit = st.one_of(st.floats(-6e4, 6e4), st.floats(-30, 30), st.sampled_from([0.0, 700.0, -745.0, 65504.0]))
    rows = [data.draw(st.lists(logit, min_size=classes, max_size=classes)) for _ in range(count)]
    m, logs = distances[name].in_logs(), [log_softmax(np.array([row])) for row in rows]
    exact = [exact_softmax(row) for row in rows]
    middle = exact_mean(exact)
    for row, p in zip(logs, exact, strict=True):
        found = m(row, m.mean(logs))[0]
        if name == "kl":
            expected = float(exact_kl(p, middle))
        else:
            between = exact_mean([p, middle])
            expected = float((exact_kl(p, between) + exact_kl(middle, between)) / 2)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-13)
        assert 0 <= found <= m.largest
        assert found <= math.log(count) + 1e-12  # what the mean of `count` can be from each of them


def test_what_a_distribution_rules_out_is_infinitely_far() -> None:
    """log 0 = −inf: 0·log 0 = 0, and p > 0 = q is infinite however small p is; none of it warns."""
    kl, js = distances["kl"].in_logs(), distances["jensen-shannon"].in_logs()
    never = -np.inf
    p, q = np.array([[0.0, never, never]]), np.log([[0.5, 0.5, 1.0]]) + np.array([[0.0, 0.0, never]])
    tiny = np.array([[0.0, -1e5, never]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kl(p, p)[0] == 0.0
        assert kl(p, q)[0] == pytest.approx(math.log(2), abs=1e-15)
        assert kl(q, p)[0] == np.inf
        assert kl(tiny, p)[0] == np.inf
        assert js(p, np.array([[never, 0.0, never]]))[0] == pytest.approx(math.log(2), abs=1e-15)
        assert kl.mean([p, p])[0].tolist() == [0.0, never, never]
        # one such row leaves the others as they are
        assert kl(np.concatenate([q, q]), np.concatenate([p, q])).tolist() == [np.inf, 0.0]


def test_softmax_of_logits_farther_apart_than_floats_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert log_softmax(np.array([[1.7e308, -1.7e308]])).tolist() == [[0.0, -np.inf]]
        assert log_softmax(np.array([[3e38, -3e38]], dtype=np.float32))[0, 1] == pytest.approx(-6e38, rel=1e-6)
    y = np.array([[5.0, 5.0, 5.0]])
    assert log_softmax(y)[0] == pytest.approx([-math.log(3)] * 3, rel=1e-15)
    assert y.tolist() == [[5.0, 5.0, 5.0]]


# ---- how small errors count ----------------------------------------------------------------------------------------


@every_case
def test_small_errors_count_by_their_square_where_it_is_declared(name: str, kind: str) -> None:
    """Half the error is a quarter of the excess, or half of it."""
    m = distances[name]
    if name == "disagreement":
        assert not m.quadratic
        return
    rng = np.random.default_rng(14)
    a = rng.dirichlet(np.full(5, 5.0), size=9) if kind == "probability" else rng.standard_normal(draw(kind)[:9].shape)
    error = 1e-3 * rng.standard_normal(a.shape) * np.abs(a)
    error -= error.sum(axis=-1, keepdims=True) / a.shape[-1] if kind == "probability" else 0.0
    whole, half = m(a + error, a) - m.optimum, m(a + error / 2, a) - m.optimum
    assert np.allclose(half / whole, 0.25 if m.quadratic else 0.5, rtol=0.01)


@every_case
def test_homogeneous_distances_have_the_unit_of_the_features(name: str, kind: str) -> None:
    m, (a, b) = distances[name], pairs(kind)
    if m.homogeneous:
        assert np.allclose(m(1e-8 * a, 1e-8 * b), 1e-8 * m(a, b), rtol=1e-12, atol=0)
    elif kind != "probability":
        assert np.allclose(m(1e-8 * a, 1e-8 * b), m(a, b), rtol=1e-9, atol=1e-12)


# ---- types and accumulation ----------------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_narrow_types_are_computed_in_float64(name: str, kind: str, dtype: str) -> None:
    a, b = (x.astype(dtype) for x in pairs(kind))
    narrow = distances[name](a, b)
    assert narrow.dtype == np.float64
    assert np.array_equal(narrow, distances[name](a.astype(np.float64), b.astype(np.float64)))
    mixed = distances[name](a, b.astype(np.float64))  # f(gx) as it comes, f̂ a float64 mean
    assert np.array_equal(mixed, narrow)


def test_float16_squares_do_not_overflow() -> None:
    a = np.full((1, 2, 2, 2), 300, dtype=np.float16)
    for name in ("l2", "relative-l2"):
        assert distances[name](a, -a)[0] == pytest.approx(LOOPS[name](a[0], -a[0]))
    assert distances["cosine"](a, a)[0] == pytest.approx(-1.0)
    assert distances["channelwise-cosine"](a, -a)[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "name",
    ["l2", "relative-l2", "cosine", "channelwise-cosine", "channelwise-correlation", "channelwise-weighted-cosine"],
)
def test_sums_are_accumulated_in_float64(name: str) -> None:
    """200,000 float32 entries of one huge and many small terms: a float32 sum loses them, a loop with fsum does not."""
    n = 200_000
    rng = np.random.default_rng(7)
    a = (1 + 0.1 * rng.standard_normal((1, 1, 1, n))).astype(np.float32)
    b = (1 + 0.1 * rng.standard_normal((1, 1, 1, n))).astype(np.float32)
    a[..., 0], b[..., 0] = 5e3, -5e3
    expected = LOOPS[name](a[0], b[0])
    assert distances[name](a, b)[0] == pytest.approx(expected, rel=1e-11)
    if name == "l2":  # the trap is real: this is what float32 makes of it
        total = np.float32(0)
        for value in np.square(a - b).ravel()[:5000]:
            total += value
        assert abs(float(total) / float(np.square(a.astype(float) - b).ravel()[:5000].sum()) - 1) > 1e-9


def test_near_equal_features_are_told_apart() -> None:
    """Catastrophic in float32: 1 − cos of features that differ by 1e-4 is 5e-9."""
    rng = np.random.default_rng(8)
    a = rng.standard_normal((1, 4000))
    b = a + 1e-4 * rng.standard_normal((1, 4000))
    exact = 1 - loop_cosine(a, b)
    assert 1e-9 < exact < 1e-8
    assert 1 + distances["cosine"](a, b)[0] == pytest.approx(exact, rel=1e-6)


# ---- a slice of channels at a time -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, entry in distances.items() if entry.per_channel])
def test_a_mean_over_channels_is_the_mean_of_each(name: str) -> None:
    entry = distances[name]
    assert entry.per_channel is not None
    assert entry.kinds == ("map",)
    a, b = pairs("map")
    each = entry.per_channel(a, b)
    assert each.shape == a.shape[:2]
    sums = entry.per_channel.sums(a, b)
    assert np.array_equal(entry.per_channel.combine(sums), entry(a, b))
    weights = np.ones_like(each) if entry.per_channel.weights is None else entry.per_channel.weights(sums)
    assert np.allclose((weights * each).sum(axis=1) / weights.sum(axis=1), entry(a, b), rtol=0, atol=1e-14)
    for part in (slice(0, 1), slice(1, 3)):
        assert np.array_equal(entry.per_channel(a[:, part], b[:, part]), each[:, part])
    for i in range(a.shape[1]):
        assert np.allclose(each[:, i], [LOOPS[name](x[[i]], y[[i]]) for x, y in zip(a, b, strict=True)], atol=1e-12)


# ---- one row alone -------------------------------------------------------------------------------------------------


def check_rows_are_independent(m: Distance, a: np.ndarray, b: np.ndarray) -> None:
    together = m(a, b)
    order = np.random.default_rng(9).permutation(len(a))
    assert np.array_equal(m(a[order], b[order]), together[order])
    for i in range(len(a)):
        assert m(a[i : i + 1], b[i : i + 1])[0] == together[i]
    assert np.array_equal(m(a[2:5], b[2:5]), together[2:5])
    poisoned = a.copy()
    poisoned[0] = np.nan
    with np.errstate(invalid="ignore"):
        assert np.array_equal(m(poisoned, b)[1:], together[1:])


@every_case
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_does_not_depend_on_the_others(name: str, kind: str, dtype: str) -> None:
    a, b = (x[:11].astype(dtype) for x in pairs(kind, seed=10))
    check_rows_are_independent(distances[name], a, b)


@every_case
def test_long_rows_and_small_blocks_do_not_depend_on_the_others(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(11)
    if kind == "probability":
        a, b = (p.astype(np.float32) for p in rng.dirichlet(np.ones(1003), size=(2, 6)))
    else:
        shape = (6, 3, 2 * SPAN + 17, 1) if kind == "map" else (6, 2 * SPAN + 17)
        a, b = rng.standard_normal((2, *shape), dtype=np.float32)
    together = distances[name](a, b)
    check_rows_are_independent(distances[name], a, b)
    monkeypatch.setattr(module, "BLOCK_VALUES", 1)
    assert np.array_equal(distances[name](a, b), together)


@every_case
def test_the_layout_in_memory_does_not_matter(name: str, kind: str) -> None:
    """NHWC views and Fortran order are added up like any other: strides depend on the batch."""
    rng = np.random.default_rng(12)
    if kind == "map":
        a, b = (np.moveaxis(x, -1, 1) for x in rng.standard_normal((2, 5, 9, 11, 6), dtype=np.float32))
    elif kind == "vector":
        a, b = (np.asfortranarray(x) for x in rng.standard_normal((2, 6, 700), dtype=np.float32))
    else:
        a, b = (np.asfortranarray(x) for x in rng.dirichlet(np.ones(700), size=(2, 6)))
    check_rows_are_independent(distances[name], a, b)
    assert np.array_equal(distances[name](a, b), distances[name](a.copy(order="C"), b.copy(order="C")))


def test_row_products() -> None:
    rng = np.random.default_rng(13)
    a, b = rng.standard_normal((2, 4, 2 * SPAN + 3))
    ab, aa, bb = row_products(a, b)
    for i in range(4):
        assert ab[i] == pytest.approx(math.fsum(a[i] * b[i]), rel=1e-12)
        assert aa[i] == pytest.approx(math.fsum(a[i] ** 2), rel=1e-12)
        assert bb[i] == pytest.approx(math.fsum(b[i] ** 2), rel=1e-12)
    assert [len(v) for v in row_products(np.zeros((0, 3)), np.zeros((0, 3)))] == [0, 0, 0]
