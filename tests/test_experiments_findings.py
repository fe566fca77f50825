"""Findings on made-up results: numbers are plain means and differences, words and verdicts follow them, both ways."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.findings import digits, transfer
from experiments.findings.digits import BLOCKS, C8, CNN, NAIVE, SET, UNTRAINED
from experiments.findings.evidence import Evidence, change, gap, mean, number, said
from experiments.findings.finding import Finding
from experiments.findings.references import statistics
from geed_onnx.errors import DataError
from geed_onnx.results import Result, read_results

SEEDS = range(4)
NOISE = np.random.default_rng(0).normal(0, 1e-3, 1000)
#: A result of the repository to make others of.
ONE = next(iter(read_results(Path(__file__).resolve().parents[1] / "experiments/augmentation/results/final.jsonl")))


def made(value: float, seed: int, **facts: Any) -> Result:
    """Return a result of this value, give or take a thousandth that depends on the seed and the place."""
    place = zlib.crc32(repr((seed, *facts.values())).encode()) % 1000
    value += float(NOISE[place])
    model = {"path": "net.onnx", "name": "net", "sha256": "0", "seed": seed}
    model |= {k: facts[k] for k in ("family", "step") if k in facts}
    return replace(
        ONE,
        model=model,
        data={**ONE.data, "name": facts.get("data", "rotated MNIST")},
        group={"name": facts.get("group", "C8"), "order": 8},
        tap={**ONE.tap, "name": facts["tap"], "module": facts["tap"]},
        variant=facts["variant"],
        value=value,
        low=value,
        high=value,
        calibrated=facts.get("calibrated", value),
        sensitivity=facts.get("sensitivity", 1.0),
        spread=facts.get("spread", 0.5),
    )


def final(levels: Mapping[str, float], cosine: Mapping[str, float], bare: Mapping[str, float]) -> Evidence:
    """Return results at the end of training: channelwise `levels` plus a tenth a block, and latents."""
    results = []
    for family, level in levels.items():
        for seed in SEEDS:
            for i, block in enumerate(BLOCKS):
                results.append(made(level + i / 10, seed, family=family, tap=block, variant="channelwise"))
            if family == NAIVE:
                continue
            for tap in ("latent", "invariant") if family == C8 else ("latent",):
                for variant, some in (("latent-cosine", cosine), ("vector:trivial:cosine", bare)):
                    results.append(made(some[family], seed, family=family, tap=tap, variant=variant))
                results.append(made(0.01, seed, family=family, tap=tap, variant="latent-cosine-bounded"))
            results.append(
                made(level + 1.2, seed, family=family, tap="latent", variant="latent-l2", calibrated=level / 9)
            )
            results.append(
                made(level + 1.2, seed, family=family, tap="scores", variant="softmax", calibrated=level / 9)
            )
    return Evidence("final", tuple(results))


LEVELS = {CNN: -0.6, C8: -0.95, NAIVE: -0.4}


def test_c1_numbers_and_verdict() -> None:
    evidence = final(LEVELS, {CNN: -1.8, C8: -1.2}, {CNN: -0.98, C8: -0.99})
    found = digits.c1(evidence)
    assert found.verdict == "reproduced"
    assert found.number.value == pytest.approx(0.35, abs=0.01)
    by_block = [
        np.mean(list(evidence.values(family=CNN, tap=b, variant="channelwise").values()))
        - np.mean(list(evidence.values(family=C8, tap=b, variant="channelwise").values()))
        for b in BLOCKS
    ]
    assert found.number.value == pytest.approx(min(by_block))
    turned = final({CNN: -0.95, C8: -0.6, NAIVE: -0.4}, {CNN: -1.8, C8: -1.2}, {CNN: -0.98, C8: -0.99})
    assert digits.c1(turned).verdict == "reproduced in part"  # both decay still


def test_c4_both_ways() -> None:
    holds = digits.c4(final(LEVELS, {CNN: -1.8, C8: -1.2}, {CNN: -0.98, C8: -0.999}))
    assert holds.verdict == "reproduced"
    assert holds.number.value == pytest.approx(0.6, abs=0.01)
    assert digits.c4(final(LEVELS, {CNN: -1.8, C8: -9.0}, {CNN: -0.98, C8: -0.999})).verdict == "reproduced in part"
    assert digits.c4(final(LEVELS, {CNN: -1.8, C8: -9.0}, {CNN: -0.999, C8: -0.9})).verdict == "not reproduced"


def training(course: Callable[[str, int], float]) -> Evidence:
    """Return results of both families at three steps."""
    taps = (*((b, "channelwise") for b in BLOCKS), ("latent", "latent-l2"), ("scores", "softmax"))
    return Evidence(
        "training",
        tuple(
            made(course(f, step), seed, family=f, step=step, tap=tap, variant=variant)
            for f in (CNN, C8)
            for seed in SEEDS
            for step in (0, 200, 400)
            for tap, variant in taps
        ),
    )


def test_c2_says_what_falls() -> None:
    still = digits.c2(training(lambda f, step: -0.5))
    falling = digits.c2(training(lambda f, step: -0.5 - step / 1000 * (f == CNN)))
    assert falling.verdict == "reproduced in part"
    assert "6 of 12 blocks" in falling.sentence
    assert falling.number.value == pytest.approx(-0.2, abs=0.01)
    assert falling.check
    rising = digits.c2(training(lambda f, step: -0.5 + step / 1000))
    assert rising.verdict == "reproduced"
    assert "0 of 12 blocks" in rising.sentence
    assert abs(still.number.value) < 0.01


def test_c3_needs_order_and_fall() -> None:
    end = final(LEVELS, {CNN: -1.8, C8: -1.2}, {CNN: -0.98, C8: -0.99})
    assert digits.c3(training(lambda f, step: 1 - step / 1000), end).verdict == "reproduced"
    assert digits.c3(training(lambda f, step: 1 + step / 1000), end).verdict == "reproduced in part"


def elsewhere(levels: Mapping[str, float], *, mute: bool = True) -> Evidence:
    """Return results on three data sets; the untrained network's softmax has no calibrated value where `mute`."""
    return Evidence(
        "ood",
        tuple(
            made(
                level + i / 100,
                seed,
                family=f,
                data=data,
                tap=tap,
                variant=variant,
                calibrated=None if mute and f == UNTRAINED and tap == "scores" else 0.1,
            )
            for i, data in enumerate(("rotated MNIST", "letters", "clothes"))
            for f, level in {SET: 0.6, **levels}.items()
            for seed in SEEDS
            for tap, variant in (("latent", "latent-l2"), ("scores", "softmax"))
        ),
    )


def test_c5_and_c6_both_ways() -> None:
    latent = elsewhere({UNTRAINED: 0.5, CNN: 0.2, C8: 0.1})
    assert digits.c5(latent).verdict == "reproduced"
    assert digits.c5(latent).number.value == pytest.approx(0.3, abs=0.01)
    assert "2 of 2 data sets" in digits.c5(latent).sentence
    scores = elsewhere({UNTRAINED: 0.0, CNN: 0.2, C8: 0.1})
    assert digits.c6(scores).verdict == "reproduced"
    assert "12 of 12 of its measurements get no calibrated value" in digits.c6(scores).sentence
    heard = digits.c6(elsewhere({UNTRAINED: 0.3, CNN: 0.2, C8: 0.1}, mute=False))
    assert heard.verdict == "reproduced in part"
    assert "0 of 12 of its measurements" in heard.sentence


def fine_tuned(level: Callable[[str, int], float]) -> Evidence:
    """Return results of both architectures, from both starts, at three steps, under both groups."""
    return Evidence(
        "pretraining",
        tuple(
            made(level(start, step), seed, family=f"{a}, {start}", step=step, group=g, tap=tap, variant=variant)
            for a in transfer.ARCHITECTURES
            for start in (transfer.PRETRAINED, transfer.SCRATCH)
            for seed in SEEDS
            for step in (0, 200, 1000)
            for g in ("C8", "D8")
            for tap, variant in (("latent", "latent-l2"), ("scores", "softmax"))
        ),
    )


def test_c7_and_c8_both_ways() -> None:
    as_said = fine_tuned(lambda start, step: 0.5 - step / 1e4 if start == "pretrained" else 0.1 + step / 1e4)
    assert transfer.c7(as_said).verdict == "reproduced"
    assert transfer.c7(as_said).number.value == pytest.approx(0.2, abs=0.01)
    assert transfer.c8(as_said).verdict == "reproduced"
    other = fine_tuned(lambda start, step: 0.1 + step / 1e4 if start == "pretrained" else 0.5 - step / 1e4)
    assert transfer.c7(other).verdict == "not reproduced"
    assert "the opposite in 4" in transfer.c7(other).sentence
    assert transfer.c7(other).check
    assert transfer.c8(other).verdict == "not reproduced"


def test_c9_both_ways() -> None:
    def encoders(simclr: float) -> Evidence:
        return Evidence(
            "encoders",
            tuple(
                made(simclr if m == "SimCLR" else 0.4, seed, family=m, step=step, group="flip", tap="latent", variant=v)
                for m in transfer.METHODS
                for seed in SEEDS
                for step in (0, 600)
                for v in ("latent-l2", "latent-cosine", "latent-cosine-bounded")
            ),
        )

    assert transfer.c9(encoders(0.1)).verdict == "reproduced"
    assert transfer.c9(encoders(0.1)).number.value == pytest.approx(0.3, abs=0.01)
    assert transfer.c9(encoders(0.9)).verdict == "not reproduced"
    assert transfer.c9(encoders(0.9)).check


def test_intervals_are_those_of_scipy() -> None:
    a, b = {0: 1.0, 1: 1.4, 2: 0.7}, {0: 0.2, 1: 0.9, 2: 0.1}
    one = stats.ttest_1samp(list(a.values()), 0).confidence_interval()
    assert (mean(a).low, mean(a).high) == pytest.approx((one.low, one.high))
    pair = stats.ttest_rel(list(a.values()), list(b.values())).confidence_interval()
    assert (change(a, b).low, change(a, b).high) == pytest.approx((pair.low, pair.high))
    two = stats.ttest_ind(list(a.values()), list(b.values()), equal_var=False).confidence_interval()
    assert (gap(a, b).low, gap(a, b).high) == pytest.approx((two.low, two.high))


def test_evidence_refuses_what_is_not_one_number_a_model() -> None:
    evidence = elsewhere({UNTRAINED: 0.5, CNN: 0.2, C8: 0.1})
    with pytest.raises(DataError, match="two results of seed 0"):
        evidence.values(family=CNN, variant="softmax")
    with pytest.raises(DataError, match="no result for"):
        evidence.values(family="ResNet")
    with pytest.raises(DataError, match="has no calibrated"):
        evidence.values("calibrated", family=UNTRAINED, variant="softmax", data="letters")
    with pytest.raises(DataError, match="same seeds"):
        change({0: 1.0}, {1: 1.0})


def test_numbers_are_written_so_that_small_ones_are_not_lost() -> None:
    assert number(-0.1234) == "−0.123"
    assert number(3.2e-7) == "3.2e−07"
    assert number(0.0) == "0.000"
    assert re.fullmatch(r"1\.000 \[0\.\d{3}, 1\.\d{3}\]", said(mean({0: 0.99, 1: 1.01})))


def test_sentences_hold_no_unfilled_place() -> None:
    found: list[Finding] = [
        digits.c1(final(LEVELS, {CNN: -1.8, C8: -1.2}, {CNN: -0.98, C8: -0.99})),
        digits.c5(elsewhere({UNTRAINED: 0.5, CNN: 0.2, C8: 0.1})),
    ]
    for f in found:
        assert "{" not in f.sentence + f.check
        assert "None" not in f.sentence


# ---- with which statistics -----------------------------------------------------------------------------------------


def measured(name: str, *, references: int, by_element: bool, mask: str | None = None) -> Evidence:
    """Return a suite of one result whose floor and null are of so many images."""
    ends = {"floor": -0.9, "null": -0.4, "null_per_element": (-1.0, -0.3) if by_element else None}
    one = replace(ONE, data={**ONE.data, "mask": mask}, reference_samples=references, **ends)  # type: ignore[arg-type]
    return Evidence(name, (one,))


def test_the_page_says_where_results_are_of_the_earlier_statistics() -> None:
    old = [measured("a", references=16, by_element=False), measured("b", references=10, by_element=False, mask="disc")]
    text = statistics(old)
    assert "The results were made with earlier statistics" in text
    assert "floors and nulls of 10 to 16 images in the order of the draw" in text
    assert "no mask, unless a suite asks for the disc;" in text
    assert "no mask;" in statistics(old[:1])


def test_the_page_says_which_results_are_and_nothing_of_new_ones() -> None:
    old, new = measured("a", references=16, by_element=False), measured("b", references=50, by_element=True)
    assert "The results of `a` were made with earlier statistics" in statistics([old, new])
    assert "of 16 images in" in statistics([old, new])
    assert statistics([new]) == "**With which statistics.** Floor and null are of 50 images; every element has its own."


def test_what_has_no_null_tells_nothing_of_it() -> None:
    none = Evidence("c", (replace(ONE, null=None, null_per_element=None),))
    assert "of no images" in statistics([none])
