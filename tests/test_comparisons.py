"""Paired differences against a slow jackknife from raw numbers; MOVER, Welch, TOST against closed forms and scipy.

How often a verdict is wrong is counted on samples of populations whose truth is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import comparison_tools as tools
import numpy as np
import pytest
from comparison_tools import Raw, alone, cell, random_raw
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from geed_onnx.comparisons import compare
from geed_onnx.errors import MeasureError, UsageError
from geed_onnx.estimators import (
    REFERENCE,
    SAMPLE,
    Change,
    Estimate,
    difference,
    equivalence,
    interval,
    over_models,
    paired_by_model,
    unpaired,
    welch,
)

# ---- the oracle: leave one image out, compute everything again ------------------------------------------------------


def mean_deviation(raw: Raw, out: str | None) -> float:
    kept = [sum(row) / len(row) for image, row in raw.deviations.items() if image != out]
    return sum(kept) / len(kept)


def mean_distance(raw: Raw, out: str | None) -> float:
    assert raw.features is not None
    points = [p for image, p in raw.features.items() if image != out]
    pairs = [math.dist(p, q) for i, p in enumerate(points) for q in points[i + 1 :]]
    return sum(pairs) / len(pairs)


def mean_floor(raw: Raw, out: str | None) -> float:
    assert raw.floor is not None
    kept = [v for image, row in raw.floor.items() if image != out for v in row]
    return sum(kept) / len(kept)


def mean_null(raw: Raw, out: str | None, own: bool = False) -> float:
    """Element g of broken orbit i is of the image that stands s(g) on: an entry is gone with either, column by column.

    With `own` only the orbit around the image is gone.
    """
    assert raw.null is not None
    images = list(raw.null)
    means = []
    for g, s in enumerate(tools.PARTNERS):
        kept = []
        for i, image in enumerate(images):
            if out not in (image, image if own else images[(i + s) % len(images)]):
                kept.append(raw.null[image][g])
        means.append(sum(kept) / len(kept))
    return sum(means) / len(means)


def shared(statistic: Callable[[Raw, str | None], float], raw: Raw, image: str) -> float:
    """What of the change of a calibrated value is that of the image's own broken orbit."""
    if statistic not in (calibrated, calibrated_latent):
        return 0.0
    e, floor, null = mean_deviation(raw, None), mean_floor(raw, None), mean_null(raw, image, own=True)
    return statistic(raw, None) - (e - floor) / (null - floor)


def plain(raw: Raw, out: str | None) -> float:
    return mean_deviation(raw, out)


def latent(raw: Raw, out: str | None) -> float:
    return mean_deviation(raw, out) / mean_distance(raw, out)


def calibrated(raw: Raw, out: str | None) -> float:
    floor = mean_floor(raw, out)
    return (mean_deviation(raw, out) - floor) / (mean_null(raw, out) - floor)


def calibrated_latent(raw: Raw, out: str | None) -> float:
    m = mean_distance(raw, out)
    e, floor, null = (mean(raw, out) / m for mean in (mean_deviation, mean_floor, mean_null))
    return (e - floor) / (null - floor)


def slow_interval(
    statistic: Callable[[Raw, str | None], float], a: Raw, b: Raw, blocks: Sequence[Sequence[str]], level: float
) -> tuple[float, float, float]:
    """The jackknife of statistic(a) − statistic(b), image by image; blocks of images that were drawn alike.

    To either side as far as the farthest of t, of Johnson's correction for skewness of either sign, and of Hall's at
    two skewnesses: the sample's, and that less its jackknifed bias.
    """
    whole = statistic(a, None) - statistic(b, None)
    changes = [[whole - (statistic(a, image) - statistic(b, image)) for image in block] for block in blocks]

    def moments(some: list[list[float]], sizes: list[int]) -> tuple[float, float, float]:
        variance = third = below = 0.0
        for n, u in zip(sizes, some, strict=True):
            m, mean = len(u), sum(u) / len(u)
            part = (n - 1) ** 2 / n * sum((x - mean) ** 2 for x in u) / (m - 1)
            variance += part
            excess = max(float(stats.kurtosis(u, bias=False)), 0.0) if m > 3 else 0.0
            below += part**2 * (1 / (n - 1) + excess / (2 * n))
            # Σ(u − ū)³ of all n, by the unbiased estimate from the m that are left
            third += (n - 1) * (n - 2) / n * m / ((m - 1) * (m - 2)) * sum((x - mean) ** 3 for x in u)
        return variance, third / variance**1.5, below

    sizes = [len(u) for u in changes]
    variance, skew, below = moments(changes, sizes)
    t, corrected = stats.t.ppf(0.5 + level / 2, variance**2 / below), skew
    for k, u in enumerate(changes):
        if len(u) > 3:
            each = [moments([*changes[:k], u[:i] + u[i + 1 :], *changes[k + 1 :]], sizes)[1] for i in range(len(u))]
            corrected += (len(u) - 1) * (skew - sum(each) / len(each))

    def hall(y: float, s: float) -> float:
        inner = 1 + s * (y - s / 6)
        return 3 / s * (math.copysign(abs(inner) ** (1 / 3), inner) - 1)

    # what is peculiar to a broken orbit went twice: with its image, and with its partner
    own = [shared(statistic, a, i) - shared(statistic, b, i) for i in blocks[0] if i in (a.null or ())]
    mean, n = sum(own) / len(own), len(own)
    twice = (n - 1) / n * sum((w - mean) ** 2 for w in own) if set(blocks[0]) == set(a.null or ()) else 0.0
    johnson, error = t + abs(skew) * (2 * t**2 + 1) / 6, math.sqrt(max(variance - twice, variance / 2))
    below = max(t, johnson, hall(t, skew), hall(t, corrected))
    above = max(t, johnson, -hall(-t, skew), -hall(-t, corrected))
    return whole, whole - error * below, whole + error * above


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize(
    ("statistic", "normaliser", "of"),
    [
        (plain, "none", "value"),
        (latent, "spread-l2", "value"),
        (calibrated, "none", "calibrated"),
        (calibrated_latent, "spread-l2", "calibrated"),
    ],
)
def test_a_paired_difference_is_a_jackknife_of_the_difference(
    statistic: Callable[[Raw, str | None], float], normaliser: str, of: Any, level: float, seed: int
) -> None:
    a, b = random_raw(seed), random_raw(100 + seed, shift=0.05)
    sample = list(a.deviations)
    around = [i for i in a.features or () if i not in sample and normaliser != "none"]
    references = list(a.null or ())
    blocks = [sample, around]
    if of == "calibrated":
        blocks = [references, [i for i in sample if i not in references], around]
    expected = slow_interval(statistic, a, b, [block for block in blocks if block], level)
    pair = [(alone(cell(a, "a", normaliser=normaliser)), alone(cell(b, "b", normaliser=normaliser)))]
    [row] = compare(pair, on=of, level=level).rows
    found = row.judged
    assert found.paired
    assert row.on == of
    assert (found.difference, found.low, found.high) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert (found.a, found.b) == pytest.approx((statistic(a, None), statistic(b, None)), rel=1e-12)


def test_the_oracle_can_fail() -> None:
    """Blocks matter: the calibrated interval is another one where references are not told from the rest."""
    a, b = random_raw(0), random_raw(100, shift=0.05)
    sample, references = list(a.deviations), list(a.null or ())
    rest = [i for i in sample if i not in references]
    one = slow_interval(calibrated, a, b, [references, rest], 0.95)
    other = slow_interval(calibrated, a, b, [sample], 0.95)
    assert abs(one[1] - other[1]) > 1e-3


# ---- difference -----------------------------------------------------------------------------------------------------


def change(x: np.ndarray[Any, Any], value: float | None = None) -> Change:
    """The change of a mean over images."""
    ids = tuple(f"{i:04}" for i in range(len(x)))
    mean = float(x.mean()) if value is None else value
    return Change.of(mean, ids, (x - x.mean()) / (len(x) - 1), np.full(len(x), SAMPLE))


def test_twenty_images_without_a_difference_show_no_equivalence() -> None:
    """1 − 0.025^(1/20) = 16.8 % of all images may differ, by as much as the distance allows: undecided within 2 %."""
    x = change(np.random.default_rng(0).exponential(size=20))
    found = difference(x, x, 0.95, 20, (-1.0, 1.0))
    share = 1 - 0.025 ** (1 / 20)
    assert (found.value, found.low, found.high) == (0.0, pytest.approx(-share), pytest.approx(share))
    assert found.method == "paired by image: no variance among 20 images: up to 16.8 % of all images may be unlike them"
    assert equivalence(found, 0.02).word == "undecided"
    assert equivalence(found, 0.17).word == "equivalent"
    # log 0.025 / log 0.98 = 182.6 images show that
    for n, word in ((182, "undecided"), (183, "equivalent")):
        y = change(np.zeros(n))
        assert equivalence(difference(y, y, 0.95, n, (-1.0, 1.0)), 0.02).word == word
    unbounded = difference(x, x, 0.95, 20)
    assert (unbounded.low, unbounded.high) == (None, None)
    assert equivalence(unbounded, 1e9).word == "undecided"


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_the_other_way_round_is_the_mirror_image(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = change(rng.exponential(size=9)), change(rng.normal(size=9))
    one, other = difference(a, b, level, 9), difference(b, a, level, 9)
    assert one.low is not None
    assert one.high is not None
    assert other.value == -one.value
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), rel=1e-9, abs=1e-15)
    assert one.low <= one.value <= one.high


def test_rounding_is_not_a_difference_and_a_constant_one_is() -> None:
    x = np.full(8, -1.0)
    rounded = difference(change(x), change(x, -1.0 + 4e-16), 0.95, 8, (-2.0, 2.0))
    assert rounded.low is not None
    assert rounded.high is not None
    assert rounded.low <= 0 <= rounded.high
    assert rounded.value != 0
    # the same difference on all of 8 images: 1 − 0.025^(1/8) = 37 % of all may have another
    real = difference(change(x), change(x, -0.5), 0.95, 8, (-2.0, 2.0))
    share = 1 - 0.025 ** (1 / 8)
    assert (real.value, real.low, real.high) == (
        -0.5,
        pytest.approx(-0.5 - 1.5 * share),
        pytest.approx(-0.5 + 2.5 * share),
    )


def test_one_image_tells_nothing_of_uncertainty() -> None:
    x, y = change(np.array([1.0, 2.0])), change(np.array([1.0, 3.0]))
    found = difference(x, y, 0.95, 1)
    assert (found.low, found.high) == (None, None)
    assert equivalence(found, 100.0).word == "undecided"


def test_other_images_or_other_references_do_not_subtract() -> None:
    x = change(np.arange(4.0))
    other = Change.of(0.0, ("a", "b", "c", "d"), x.changes, x.block)
    with pytest.raises(MeasureError, match="the same images: 4 and 4, of which 0 are in both"):
        difference(x, other, 0.95, 4)
    blocks = Change.of(0.0, x.ids, x.changes, [REFERENCE, SAMPLE, SAMPLE, SAMPLE])
    with pytest.raises(MeasureError, match="same reference images"):
        difference(x, blocks, 0.95, 4)


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_the_paired_interval_covers_and_the_unpaired_one_is_wider(draw: str) -> None:
    """600 experiments of 30 images, most of whose effect both models share."""
    rng = np.random.default_rng(5)
    n, trials = 30, 600
    covered, wider, covered_unpaired = 0, 0, 0
    for _ in range(trials):
        shared = getattr(rng, draw)(size=n)
        a, b = shared + 0.3 * getattr(rng, draw)(size=n), shared + 0.3 * rng.normal(size=n)
        truth = 0.3 if draw == "exponential" else 0.0
        x, y = change(a), change(b)
        found = difference(x, y, 0.9, n)
        loose = unpaired(interval(x, 0.9, n), interval(y, 0.9, n))
        assert found.low is not None
        assert found.high is not None
        assert loose.low is not None
        assert loose.high is not None
        covered += found.low <= truth <= found.high
        covered_unpaired += loose.low <= truth <= loose.high
        wider += loose.high - loose.low > found.high - found.low
    # 4 standard errors of a proportion of 600 are 5 %
    assert covered / trials == pytest.approx(0.9, abs=0.05)
    assert covered_unpaired / trials > 0.95
    assert wider > 0.95 * trials


# ---- MOVER ----------------------------------------------------------------------------------------------------------


def wilson(hits: int, n: int) -> Estimate:
    z, p = stats.norm.ppf(0.975), hits / n
    centre, reach = p + z * z / 2 / n, z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    low, high = ((centre + way * reach) / (1 + z * z / n) for way in (-1, 1))
    return Estimate(p, low, high, 0.95, "Wilson", n)


def test_mover_of_two_proportions_is_newcombes_published_interval() -> None:
    """Newcombe (1998), method 10, which MOVER generalises: 56/70 − 48/80 is 0.2, from 0.0524 to 0.3339."""
    found = unpaired(wilson(56, 70), wilson(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert "MOVER" in found.method


def test_mover_of_symmetric_intervals_adds_squares_and_turns_round() -> None:
    a, b = Estimate(3.0, 0.0, 6.0, 0.95, "", 9), Estimate(1.0, -3.0, 5.0, 0.95, "", 9)
    found = unpaired(a, b)
    assert (found.low, found.high) == (2 - 5, 2 + 5)
    back = unpaired(b, a)
    assert (back.value, back.low, back.high) == (-2, -7, 3)
    assert unpaired(a, Estimate(1.0, None, None, 0.95, "none: one image", 1)).low is None
    with pytest.raises(MeasureError, match=r"0\.95 and 0\.9 do not combine"):
        unpaired(a, Estimate(1.0, 0.0, 2.0, 0.9, "", 9))


# ---- families -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.95, 0.6])
def test_families_against_scipy(level: float) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(1, 0.1, 5).tolist(), rng.normal(1.1, 0.4, 5).tolist()
    mean = over_models(a, level)
    assert (mean.low, mean.high) == pytest.approx(
        stats.t.interval(level, 4, np.mean(a), stats.sem(a)), rel=1e-9
    )  # fmt: skip
    paired = paired_by_model(a, b, level)
    assert (paired.low, paired.high) == pytest.approx(stats.ttest_rel(a, b).confidence_interval(level), rel=1e-9)
    assert "paired by seed" in paired.method
    found = welch(a, b[:3], level)
    expected = stats.ttest_ind(a, b[:3], equal_var=False).confidence_interval(level)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)
    assert found.value == pytest.approx(np.mean(a) - np.mean(b[:3]))


def test_one_model_has_no_interval_over_models() -> None:
    assert over_models([2.0], 0.95) == Estimate(2.0, None, None, 0.95, "none: one model", 1)
    found = welch([1.0], [2.0, 3.0], 0.95)
    assert (found.value, found.low, found.method) == (-1.5, None, "none: one model in a family")
    # two models that agree prove nothing of a third
    same = welch([1.0, 1.0], [2.0, 2.0], 0.95)
    assert (same.value, same.low, same.high, same.method) == (-1.0, None, None, "none: no variance among 4 models")


def test_the_image_component_adds_the_jackknife_over_images() -> None:
    """Variances add, and Welch and Satterthwaite's degrees of freedom are those of three parts."""
    rng = np.random.default_rng(9)
    a, b = rng.normal(1, 0.1, 5), rng.normal(1.1, 0.3, 3)
    per_image = rng.exponential(size=30)
    images = change(per_image)
    parts = [(a.var(ddof=1) / 5, 4), (b.var(ddof=1) / 3, 2), (per_image.var(ddof=1) / 30, 29)]

    def reach(some: list[tuple[float, int]]) -> float:
        variance = sum(v for v, _ in some)
        return float(stats.t.ppf(0.975, variance**2 / sum(v * v / d for v, d in some)) * math.sqrt(variance))

    found = welch(a.tolist(), b.tolist(), 0.95, images)
    assert found.high is not None
    assert found.high - found.value == pytest.approx(max(reach(parts), reach(parts[:2])))
    assert found.method == "Welch t over models (5 and 3), and jackknife over images"
    alone_ = over_models(a.tolist(), 0.95, images=images)
    assert alone_.high is not None
    assert alone_.high - alone_.value == pytest.approx(max(reach([parts[0], parts[2]]), reach(parts[:1])))
    without = over_models(a.tolist(), 0.95)
    assert (
        without.method == "Student t over 5 models; the models share their images, so it says nothing of other images"
    )
    # models that agree to the last bit leave the images
    agreed = over_models([1.0, 1.0], 0.95, images=images)
    assert agreed.high is not None
    assert agreed.high - 1.0 == pytest.approx(reach([parts[2]]))


# ---- equivalence ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(0.01, 3), st.sampled_from([0.9, 0.95, 0.99]))
def test_equivalence_is_two_one_sided_t_tests(seed: int, delta: float, level: float) -> None:
    """For a mean of symmetric numbers (no skewness) both hypotheses are plain t tests, each at (1 − level)/2."""
    half = np.random.default_rng(seed).normal(size=6)
    x = np.concatenate([half, -half]) + 0.3
    found = equivalence(difference(change(x), change(np.zeros(12)), level, 12), delta)
    above = stats.ttest_1samp(x, -delta, alternative="greater").pvalue
    below = stats.ttest_1samp(x, delta, alternative="less").pvalue
    assert found.equivalent == (max(above, below) < (1 - level) / 2)
    assert found.different == (stats.ttest_1samp(x, 0).pvalue < 1 - level)


@pytest.mark.parametrize(
    ("mean", "error", "delta", "word"),
    [
        (0.0, 0.1, 1.0, "equivalent"),
        (0.5, 0.1, 1.0, "different but equivalent"),
        (3.0, 0.1, 1.0, "different"),
        (0.0, 1.0, 1.0, "undecided"),
        (0.5, 0.1, None, "different"),
        (0.0, 0.1, None, "undecided"),
    ],
)
def test_the_four_verdicts(mean: float, error: float, delta: float | None, word: str) -> None:
    reach = 1.9599640 * error
    found = Estimate(mean, mean - reach, mean + reach, 0.95, "normal", 50)
    assert equivalence(found, delta).word == word
    if delta is not None:  # the closed form: |mean| + z error < delta
        assert equivalence(found, delta).equivalent == (abs(mean) + reach < delta)


@pytest.mark.parametrize(("low", "high"), [(None, 0.1), (-0.1, None), (None, None)])
def test_an_end_that_is_not_known_proves_nothing(low: float | None, high: float | None) -> None:
    assert equivalence(Estimate(0.0, low, high, 0.95, "", 9), 1e9).word == "undecided"


@pytest.mark.parametrize(("low", "high", "word"), [(0.1, None, "different"), (None, -0.1, "different")])
def test_one_end_is_enough_to_be_told_from_0(low: float | None, high: float | None, word: str) -> None:
    assert equivalence(Estimate(0.2 if high is None else -0.2, low, high, 0.95, "", 9)).word == word


# ---- how often a verdict is wrong -----------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray[Any, Any]]


def rarely(values: Draw, rate: float = 0.05) -> Draw:
    """0 for all images but a share `rate`."""
    return lambda rng, shape: np.where(rng.random(shape) < rate, values(rng, shape), 0.0)


def wrong(draw: Draw, n: int, trials: int, judge: Callable[[Estimate], bool], hidden: Any = None) -> float:
    """The share of samples of n differences of which `judge` says what is not so."""
    samples = draw(np.random.default_rng(n), (trials, n))
    zeros = change(np.zeros(n))
    return sum(judge(difference(change(x), zeros, 0.95, n, hidden)) for x in samples) / trials


#: Differences whose mean is 0, heavy-tailed to one side, to both, and rare.
CENTRED: dict[str, Draw] = {
    "lognormal(1.2)": lambda rng, shape: rng.lognormal(0, 1.2, shape) - math.exp(0.72),
    "t3": lambda rng, shape: rng.standard_t(3, shape),
    "5 % rare": rarely(lambda rng, shape: rng.standard_normal(shape)),
    "5 % rare, skewed": rarely(lambda rng, shape: rng.exponential(size=shape) - 1),
}


@pytest.mark.parametrize("n", [20, 50, 200])
@pytest.mark.parametrize("name", list(CENTRED))
def test_what_does_not_differ_is_seldom_called_different(name: str, n: int) -> None:
    """Nominally 5 %; 20 000 samples gave 6.7 % at the worst (lognormal, 20 images)."""
    rate = wrong(
        CENTRED[name], n, 2000 if (name, n) == ("lognormal(1.2)", 20) else 500, lambda e: equivalence(e).different
    )
    assert rate < 0.07


#: Differences whose mean is at the margin δ; the last three are shares of images that change their class.
AT_THE_MARGIN: dict[str, tuple[Draw, float, Any]] = {
    "lognormal(1.2)": (lambda rng, shape: rng.lognormal(0, 1.2, shape), math.exp(0.72), None),
    "t3": (lambda rng, shape: 1 + rng.standard_t(3, shape), 1.0, None),
    "5 % rare": (rarely(lambda rng, shape: 1 + 0.3 * rng.standard_normal(shape)), 0.05, None),
    "5 % change": (lambda rng, shape: (rng.random(shape) < 0.05) * 1.0, 0.05, (-1.0, 1.0)),
    "15 % change": (lambda rng, shape: (rng.random(shape) < 0.15) * 1.0, 0.15, (-1.0, 1.0)),
    "10 % change, a few back": (
        lambda rng, shape: rng.choice([0.0, 1.0, -1.0], shape, p=[0.8, 0.15, 0.05]), 0.1, (-1.0, 1.0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("n", [20, 50])
@pytest.mark.parametrize("name", list(AT_THE_MARGIN))
def test_what_is_at_the_margin_is_seldom_called_equivalent(name: str, n: int) -> None:
    """Nominally 2.5 %: up to 86 % of samples without one event among them were "equivalent" once."""
    draw, delta, hidden = AT_THE_MARGIN[name]
    trials = 2000 if (name, n) == ("lognormal(1.2)", 20) else 500
    assert wrong(draw, n, trials, lambda e: bool(equivalence(e, delta).equivalent), hidden) < 0.075


@pytest.mark.parametrize("delta", [-0.1, 0.0, math.nan, math.inf])
def test_a_margin_must_be_a_positive_number(delta: float) -> None:
    x = change(np.arange(4.0))
    with pytest.raises(UsageError, match="must be a positive number, not "):
        equivalence(difference(x, x, 0.95, 4), delta)


def test_a_level_of_half_tests_nothing() -> None:
    x = change(np.arange(4.0))
    with pytest.raises(UsageError, match=r"at a level above 0\.5 \(0\.95 is 95 %\), not 0\.5"):
        equivalence(difference(x, x, 0.5, 4), 0.1)
    assert equivalence(difference(x, x, 0.5, 4)).equivalent is None


def test_tools_are_what_the_engine_makes() -> None:
    """The cells of these tests have the tables that `measure` gives, as far as comparisons look at them."""
    (result, tables), *_ = [row for row in tools.measured("digits-cnn", samples=4) if row[0].variant == "latent-l2"]
    made, like = cell(random_raw(0), normaliser="spread-l2")
    assert tables.value is not None
    assert tables.calibrated is not None
    assert like.value is not None
    assert like.calibrated is not None
    assert set(np.unique(tables.calibrated.block)) == {REFERENCE, 2}  # all four images are references, 196 around
    assert set(np.unique(like.calibrated.block)) == {REFERENCE, SAMPLE, 2}
    assert (tables.value.value, like.value.value) == (result.value, made.value)
