"""How often the intervals of `measure` hold the truth, how they narrow, and what a sample without an event proves."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from geed_onnx import Result, measure
from geed_onnx.actions import on_logs, output_action
from geed_onnx.estimators import REFERENCE, SAMPLE, Broken, Change, hull
from geed_onnx.groups import parse_group
from geed_onnx.variants import broken_null, deviations, log_probabilities, parse_variant, range_of, shifts

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def simulated() -> Any:
    """The benchmark as a module, by a name that is not that of the tool which counts covered lines."""
    path = Path(__file__).resolve().parent.parent / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("simulated_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_calibrated_interval_of_a_convolution_holds_the_truth_as_often_as_it_says(simulated: Any) -> None:
    """Neither too narrow nor too wide: a coverage of 93 to 97 % is 1 % likely to fail on either side."""
    repeats, counts = 300, simulated.Counts(dict)
    least, most = stats.binom.ppf(0.01, repeats, 0.93), stats.binom.ppf(0.99, repeats, 0.97)
    assert most < repeats  # an interval that always holds the truth fails
    simulated.count_measured(counts, np.random.default_rng(5), repeats, groups=["C2"], sizes=[16])
    for cell, count in counts[simulated.MEASURED_CALIBRATED].items():
        assert count.tried == repeats
        if cell == ("C2 softmax", 16):
            continue  # some samples of 16 images do not tell whether unrelated scores are alike: they have no interval
        assert count.there == repeats, cell
        assert least <= count.hits <= most, (cell, count, least, most)


def test_intervals_narrow_as_one_over_the_root_of_the_number_of_images(simulated: Any) -> None:
    """Four times the images, floor and null on all of them: at most half the width, in the mean.

    A width is itself uncertain, by some 5 % in the mean over eight samples of 50 images.
    """

    def widths(n: int) -> dict[str, float]:
        samples = [simulated.measured(np.random.default_rng([n, seed]), "C4", n) for seed in range(8)]
        return {
            rows[0].variant: float(np.mean([r.calibrated_high - r.calibrated_low for r in rows]))
            for rows in zip(*samples, strict=True)
        }

    few, many = widths(50), widths(200)
    assert few.keys() == {"channelwise", "latent-l2", "softmax"}
    ratios = [many[variant] / width for variant, width in few.items()]
    assert np.mean(ratios) <= 0.5, ratios
    assert max(ratios) < 0.6, ratios


def taken(elements: Array, g: Array, images: Array) -> Array:
    return elements[g, images]


@pytest.mark.parametrize(("group", "turned"), [("C2", 2.0), ("C4", 2.5), ("C8", 2.5)])
def test_calibrated_scores_are_as_uncertain_as_they_scatter(group: str, turned: float) -> None:
    """Value less λ null, which calibration is of first order: its jackknife variance against that over fresh images.

    Turns move these scores about as far apart as images are, so that main effects cancel and interplay is what is left.
    A variance over 400 samples has a Monte Carlo error of √(2/400) = 7 % where they are normal: 3.5 of these, and 10 %
    above, for interplay of three images that counts once more.  1.5 times is what it was where orbits went whole.
    """
    repeats, n, classes, of = 400, 16, 5, parse_group(group)
    action, m = on_logs(output_action("trivial", of, (classes,))), parse_variant("softmax").m
    rng, steps, images = np.random.default_rng(7), shifts(of.elements, n), np.arange(n)
    rows, nulls, lefts = [], [], []
    for _ in range(repeats):
        centres = rng.dirichlet(np.full(classes, 2.0), n)
        logs = log_probabilities(centres * rng.lognormal(0, turned, (of.order, n, classes)), logits=False)
        rows.append(deviations(list(logs), action, m).mean(axis=1))
        found = broken_null(partial(taken, logs), n, steps, action, m, n)
        table = Broken.of([f"{i:02}" for i in images], *found)
        null, without = table.left(images, n)
        nulls.append(null)
        lefts.append((null - without, null - table.left_twice(images, n)))
    values, weight = np.mean(rows, axis=1), np.mean(rows) / np.mean(nulls)
    changes = [
        Change.of(
            0.0, table.ids, (row - row.mean()) / (n - 1) - weight * all_of, np.full(n, REFERENCE), weight * shared
        )
        for row, (all_of, shared) in zip(rows, lefts, strict=True)
    ]
    ratio = float(np.mean([c.variance for c in changes]) / np.var(values - weight * np.array(nulls), ddof=1))
    error = math.sqrt(2 / repeats)
    assert 1 - 3.5 * error < ratio < (1 + 3.5 * error) * 1.1, ratio


def test_a_few_mixed_blocks_stand_for_all() -> None:
    """Σ twice² over 40 blocks of one population: mixed are 4, weighed for all, as against every one by itself.

    The sum of squares of 4 blocks has 12 degrees of freedom and a Monte Carlo error of √(2/12), 41 %; that of 6 samples
    has 17 %.
    """
    n, blocks, classes, of = 16, 40, 5, parse_group("C4")
    action, m = on_logs(output_action("trivial", of, (classes,))), parse_variant("softmax").m
    rng, steps = np.random.default_rng(3), shifts(of.elements, n)
    some, every = [], []
    for number in [*range(blocks)] * 6:
        logs = log_probabilities(rng.dirichlet(np.ones(classes), (of.order, n)), logits=False)
        orbit = partial(taken, logs)
        some.append(broken_null(orbit, n, steps, action, m, n, (number, blocks)).twice.sum(axis=1))
        every.append(broken_null(orbit, n, steps, action, m, n).twice.sum(axis=1))
    assert [bool(part.any()) for part in some[:blocks]] == [True] * 4 + [False] * (blocks - 4)
    ratio = float((np.array(some) ** 2).sum() / (np.array(every) ** 2).sum())
    assert abs(ratio - 1) < 3.5 * math.sqrt(2 / (6 * 4 * 3)), ratio


def rarely(rng: np.random.Generator, n: int) -> Array:
    """5 % of the images carry a lognormal value, the others none."""
    return np.where(rng.random(n) < 0.05, rng.lognormal(0, 1.2, n), 0.0)


SKEWED: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "lognormal": lambda rng, n: rng.lognormal(0, 1.2, n) - math.exp(0.72),
    "t3": lambda rng, n: rng.standard_t(3, n),
    "rare": lambda rng, n: rarely(rng, n) - 0.05 * math.exp(0.72),
    "rare, of both": lambda rng, n: rarely(rng, n) - rarely(rng, n),
}


@pytest.mark.parametrize("population", SKEWED)
@pytest.mark.parametrize("n", [20, 50, 200])
def test_skewed_differences_of_equals_are_seldom_called_different(population: str, n: int) -> None:
    """Below 7 %, with room for three Monte Carlo errors (2 %); a sample without an event tells nothing."""
    rng, repeats, called = np.random.default_rng([11, n]), 1500, 0
    ids = tuple(f"{i:03}" for i in range(n))
    for _ in range(repeats):
        sample = SKEWED[population](rng, n)
        change = Change.of(float(sample.mean()), ids, (sample - sample.mean()) / (n - 1), np.full(n, SAMPLE))
        found = hull(change, 0.95, n)
        called += (found.low is not None and found.low > 0) or (found.high is not None and found.high < 0)
    assert called <= stats.binom.ppf(0.999, repeats, 0.07), called / repeats


@pytest.mark.parametrize("n", [8, 20, 50])
def test_rare_events_that_a_sample_lacks_are_not_proved_absent(n: int) -> None:
    """A class that changes under a flip for 5 % of the images: no sample says [v, v], and each end is Clopper's."""
    without = 0
    for seed in range(6):
        rng = np.random.default_rng([n, seed])
        images = rng.random((n, 1, 4, 4)).astype(np.float32)
        images[:, 0, 0, 0] = rng.random(n) < 0.05
        images[:, 0, 0, -1] = 0
        result = changes_of_class(images)
        assert result.value is not None
        assert result.low is not None
        assert result.high is not None
        assert result.low < result.high
        if result.value == 0:
            without += 1
            # one of two elements, the identity among them, can be another class at most
            assert result.high == pytest.approx(range_of(result, "value")[1] * (1 - 0.025 ** (1 / n)))
    assert without or n > 20


def changes_of_class(images: Array) -> Result:
    """Measure how often a flip changes the class: one-hot scores that the corner's pixel decides."""

    def network(x: Array) -> dict[str, Array]:
        event = (x[:, 0, 0, 0] > 0.5).astype(np.float64)
        return {"scores": np.column_stack([event, 1 - event])}

    [result] = measure(
        network,
        images,
        "flip",
        samples="all",
        taps=["scores:probability"],
        variants=["probability:trivial:disagreement"],
    )
    return result
