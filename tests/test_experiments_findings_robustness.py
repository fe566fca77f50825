"""Findings on robustness, from results made by hand: numbers are plain NumPy, words follow the numbers both ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.findings import robustness
from experiments.findings.digits import BLOCKS, C8, CNN
from experiments.findings.evidence import Evidence, number
from experiments.findings.finding import Finding
from experiments.findings.robustness import r1, r2, r3, r4, r5, r6, r7
from experiments.findings.robustness.cells import Cell
from experiments.findings.robustness.draws import first_within
from experiments.findings.robustness.grid import exactly
from experiments.findings.robustness.settings import keeps_centre
from experiments.measure import run_folder
from geed_onnx.errors import DataError
from geed_onnx.estimators import Estimate
from geed_onnx.results import Result, write_results

FAMILIES = (CNN, C8)
DRAWS = range(5)
SEEDS = range(4)
SIZES = (10, 20, 50, 100, 1000)
KINDS = (("block1", "channelwise"), ("latent", "latent-l2"), ("scores", "softmax"))
TAPS = (*((b, "channelwise") for b in BLOCKS), ("latent", "latent-l2"), ("scores", "softmax"))
OPTIMUM = {"channelwise": -1.0}
EXACT, TURNED = (0, 2, 4, 6), (1, 3, 5, 7)

ONE = Result(
    model={"path": "net.onnx", "name": "net", "family": CNN, "seed": 0},
    data={"uri": "digits.npz", "name": "digits"},
    group={"name": "C8", "order": 8},
    tap={"name": "latent", "kind": "vector", "shape": [4]},
    variant="latent-l2",
    value=0.5,
    low=0.4,
    high=0.6,
    level=0.95,
    method="by hand",
    samples=50,
    optimum=0.0,
    spread=None,
    floor=0.0,
    null=1.0,
    calibrated=0.5,
    calibrated_low=None,
    calibrated_high=None,
    per_element=None,
    law_defect=0.0,
    reason=None,
    seed=0,
    runtime={},
    reference_samples=16,
)


def made(family: str, tap: str, variant: str, seed: int = 0, **fields: Any) -> Result:
    """Return a result of this network and number; `seed` is the model's."""
    return replace(
        ONE,
        model={**ONE.model, "name": f"{family} {seed}", "family": family, "seed": seed},
        tap={**ONE.tap, "name": tap},
        variant=variant,
        optimum=OPTIMUM.get(variant, 0.0),
        **fields,
    )


def student(values: Iterable[float]) -> tuple[float, float, float]:
    """Return the mean and Student's 95 % interval."""
    some = np.array(list(values))
    reach = stats.t.ppf(0.975, len(some) - 1) * some.std(ddof=1) / np.sqrt(len(some))
    return some.mean(), some.mean() - reach, some.mean() + reach


def agrees(e: Estimate, values: Iterable[float]) -> None:
    """Hold an estimate against the plain mean and interval."""
    assert e.low is not None
    assert e.high is not None
    found, expected = np.array([e.value, e.low, e.high]), np.array(student(values))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def row(found: Finding, name: str) -> tuple[str, ...]:
    """Return the row of the table that starts so."""
    return next(r for r in found.table if r[0] == name)


def whole(found: Finding, key: str) -> None:
    """Hold a finding against what every finding is."""
    assert (found.key, found.verdict) == (key, "answered")
    assert found.figure.startswith(f"{key.lower()}-")
    assert len({len(r) for r in found.table}) == 1
    assert not re.search(r"\bnan\b|None|inf\b|Evidence|Estimate", " ".join((found.sentence, found.of, *found.table[1])))


# --- R1 ---------------------------------------------------------------------------------------------------------


def images(moved: float = 0.0, turned: bool = False, half: float = 0.5) -> tuple[Evidence, dict[Any, float]]:
    """Return draws of several sizes, block1 of the CNN `moved` at 50, and the C8-CNN's order `turned` over there."""
    rng = np.random.default_rng(0)
    values: dict[Any, float] = {}
    results = []
    for f in FAMILIES:
        for tap, variant in KINDS:
            for n in SIZES:
                for d in DRAWS:
                    v = (-0.9 if f == C8 else -0.5) + rng.normal() / (100 * np.sqrt(n))
                    if n == 50 and (f, tap) == (CNN, "block1"):
                        v += moved
                    if n == 50 and turned and f == C8:
                        v += 0.8
                    values[f, tap, n, d] = v
                    results.append(
                        replace(made(f, tap, variant), value=v, low=v - half, high=v + half, samples=n, seed=d)
                    )
    return Evidence("images", tuple(results)), values


def test_r1_is_a_paired_difference_in_standard_deviations_of_a_draw() -> None:
    evidence, v = images()
    found = r1(evidence)
    whole(found, "R1")
    shifts = {}
    for f in FAMILIES:
        for tap, variant in KINDS:
            few, many = (np.array([v[f, tap, n, d] for d in DRAWS]) for n in (50, 1000))
            shifts[f"{tap if variant == 'channelwise' else variant} of the {f}"] = (few - many) / few.std(ddof=1)
    worst = max(shifts, key=lambda k: abs(shifts[k].mean()))
    agrees(found.number, shifts[worst])
    assert worst in found.of
    wide = {(f, t): np.std([v[f, t, 50, d] for d in DRAWS], ddof=1) for f in FAMILIES for t, _ in KINDS}
    scatters = [100 * s / abs(np.mean([v[*k, 1000, d] for d in DRAWS])) for k, s in wide.items()]
    assert f"scatter by up to {number(float(max(scatters)), 1)} % of" in found.sentence
    assert {k: row(found, k)[4] for k in shifts} == {k: number(float(s.mean()), 2) for k, s in shifts.items()}


def test_r1_counts_the_intervals_that_hold_the_mean() -> None:
    narrow, v = images(half=0.001)
    found = r1(narrow)
    levels = {(f, t): np.mean([v[f, t, 1000, d] for d in DRAWS]) for f in FAMILIES for t, _ in KINDS}
    counts = [
        sum(abs(v[f, t, n, d] - levels[f, t]) <= 0.001 for f in FAMILIES for t, _ in KINDS for d in DRAWS)
        for n in SIZES[:-1]
    ]
    assert 0 < counts[0] < counts[-1]
    assert list(row(found, "together")[5:]) == [f"{k} of 30" for k in counts]
    assert f"{counts[0]} of 30 cases at 10" in found.sentence
    assert set(row(r1(images()[0]), "together")[5:]) == {"30 of 30"}


def test_r1_says_where_the_papers_sentence_fails() -> None:
    holds, moved, turned = r1(images()[0]), r1(images(moved=0.2)[0]), r1(images(turned=True)[0])
    assert "sentence holds. " in holds.sentence
    assert holds.check == ""
    assert "15 of 15 comparisons" in holds.sentence
    assert "holds but for the block1 of the CNN. " in moved.sentence
    assert "block1 of the CNN" in moved.of
    assert "In 1 of 6 numbers the mean" in moved.sentence
    assert "It does for the block1 of the CNN." in moved.check
    assert "does not hold. " in turned.sentence
    assert "0 of 15 comparisons" in turned.sentence
    assert "15 orders of single draws are turned over" in turned.check


def test_r1_of_draws_that_do_not_scatter_is_no_quotient_by_0() -> None:
    still = tuple(
        replace(made(f, "latent", "latent-l2"), value=0.5, samples=n, seed=d)
        for f in FAMILIES
        for n in SIZES
        for d in DRAWS
    )
    found = r1(Evidence("images", still))
    assert (found.number.value, found.number.low, found.number.high) == (0, None, None)  # no scatter, no interval
    assert "sentence holds. " in found.sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rs: (r for r in rs if not (r.samples == 50 and r.seed == 1)), "expected the same draws"),
        (lambda rs: (*rs, rs[0]), "two of one seed"),
        (lambda rs: (replace(r, value=None, reason="no spread") if r is rs[3] else r for r in rs), "no spread"),
        (lambda rs: (r for r in rs if r.samples != 50), "50 images: expected several draws, got 0"),
        (lambda rs: (r for r in rs if r.seed == 0), "expected several draws, got 1"),
        (lambda rs: (r for r in rs if r.samples <= 50), "more than 50 images"),
        (lambda rs: (), "no result; measure"),
    ],
)
def test_r1_refuses_draws_that_are_not_whole(change: Callable[[Any], Iterable[Result]], words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        r1(Evidence("images", tuple(change(images()[0].results))))


# --- R2 ---------------------------------------------------------------------------------------------------------


def spread(relative: Mapping[int, float], wobble: float = 0.0) -> dict[int, Evidence]:
    """Return latents whose value with k points is off by `relative[k]`, up and down by `wobble` from draw to draw."""
    return {
        k: Evidence(
            f"spread/{k}",
            tuple(
                replace(
                    made(f, "latent", variant),
                    seed=d,
                    value=(2.0 + d) * (1 + (relative[k] + wobble * (d - 2) * (k < 1000)) * (f == CNN)),
                )
                for f in FAMILIES
                for variant in ("latent-l2", "latent-cosine")
                for d in DRAWS
            ),
        )
        for k in relative
    }


def test_r2_is_relative_within_a_draw() -> None:
    off = {10: 0.3, 50: -0.05, 200: 0.01, 1000: 0.0}
    found = r2(spread(off, 0.004))
    whole(found, "R2")
    agrees(found.number, [100 * (0.01 + 0.004 * (d - 2)) for d in DRAWS])
    # the images of a draw are the same, so that its own level, from 2 to 6, cancels
    assert (
        row(found, "latent-l2 of the CNN")[1]
        == f"30.00 ± {number(float(np.std([-0.8, -0.4, 0, 0.4, 0.8], ddof=1)), 2)}"
    )
    assert "single draw is off by at most 1.8 %" in found.sentence
    assert "30.0 [" in found.sentence
    assert row(found, "latent-l2 of the CNN")[-2:] == ("from 200 on", "from 200 on")
    assert row(found, "latent-l2 of the C8-CNN")[-2:] == ("from 10 on", "from 10 on")


def test_r2_says_where_so_few_points_tell_no_m() -> None:
    some = spread({10: 0.0, 20: 0.0, 200: 0.0, 1000: 0.0}, 0.001)
    mute = [
        replace(r, value=None, low=None, high=None, reason="the spread M is 0.09 ± 0.2, not told from 0 on 10 images")
        if r.model["family"] == C8 and r.variant == "latent-cosine" and r.seed < 2
        else r
        for r in some[10].results
    ]
    found = r2({**some, 10: replace(some[10], results=tuple(mute))})
    whole(found, "R2")
    assert "no value, in 2 of 5 draws over 10 points (latent-cosine of the C8-CNN)." in found.sentence
    assert row(found, "latent-cosine of the C8-CNN")[1] == "no M in 2 draws"
    assert row(found, "latent-cosine of the C8-CNN")[-2:] == ("from 20 on", "from 20 on")
    other = [replace(r, reason="all images alike") for r in mute]
    with pytest.raises(DataError, match="draw 0 has no value with an interval: all images alike"):
        r2({**some, 10: replace(some[10], results=tuple(other))})


def test_r2_tells_the_mean_from_single_draws() -> None:
    found = r2(spread({10: 0.0, 200: 0.0, 1000: 0.0}, 0.02))
    assert row(found, "latent-l2 of the CNN")[-2:] == ("from 10 on", "not below 1,000")
    assert "not below 1,000 for latent-l2 of the CNN and latent-cosine of the CNN" in found.sentence


def test_within_is_from_the_size_on_that_all_later_ones_are() -> None:
    assert first_within({10: [0.1], 20: [-2.5], 50: [1.0, -2.0], 100: [0.0]}) == 50
    assert first_within({10: [0.1], 20: [1.0]}) == 10
    assert first_within({10: [0.0, 9.0], 20: [0.0]}) == 20


def test_r2_needs_the_same_draws_and_something_to_compare_with() -> None:
    some = spread({200: 0.0, 1000: 0.0})
    fewer = {**some, 200: replace(some[200], results=tuple(r for r in some[200].results if r.seed))}
    with pytest.raises(DataError, match="expected the draws"):
        r2(fewer)
    nothing = {k: replace(e, results=tuple(replace(r, value=0.0) for r in e.results)) for k, e in some.items()}
    with pytest.raises(DataError, match="got 0"):
        r2(nothing)


# --- R3 and R4 --------------------------------------------------------------------------------------------------


def setting(name: str, offset: Mapping[Cell, float], scale: float = 1.0) -> tuple[Evidence, dict[Any, float]]:
    """Return every number of every model at one setting; calibrated values are `scale` times the raw ones' offset."""
    rng = np.random.default_rng(len(name))
    values: dict[Any, float] = {}
    results = []
    for f in FAMILIES:
        for tap, variant in TAPS:
            for s in SEEDS:
                moved = offset.get(Cell(f, tap, variant), 0.0)
                v = (-0.9 if f == C8 else -0.5) + s / 10 + moved + rng.normal() / 1000
                values[f, tap, s] = v
                results.append(made(f, tap, variant, s, value=v, calibrated=v + (scale - 1) * moved))
    return Evidence(name, tuple(results)), values


SOME = Cell(CNN, "block4", "channelwise")
LATENT = Cell(C8, "latent", "latent-l2")


def test_r3_takes_the_largest_change_within_models() -> None:
    bilinear, a = setting("bilinear", {})
    nearest, b = setting("nearest", {SOME: 0.05})
    bicubic, _ = setting("bicubic", {LATENT: -0.08})
    found = r3({"nearest": nearest, "bilinear": bilinear, "bicubic": bicubic})
    whole(found, "R3")
    assert "latent-l2 of the C8-CNN, bicubic minus" in found.of
    assert "that of a block −0.05" in found.sentence
    assert "(block4 of the CNN, b" in found.sentence
    # models differ by tenths; paired, that is out of the interval
    assert found.number.high is not None
    assert found.number.high - found.number.value < 0.01
    agrees(
        robustness.settings.moves({"nearest": nearest, "bilinear": bilinear}, "value")[
            robustness.settings.Move(SOME, "bilinear", "nearest")
        ],
        [a[CNN, "block4", s] - b[CNN, "block4", s] for s in SEEDS],
    )
    assert "8 of 8 numbers raw and 8 of 8 numbers calibrated" in found.sentence


def test_r3_says_where_the_order_turns_over() -> None:
    some = {"nearest": setting("nearest", {})[0], "bilinear": setting("bilinear", {SOME: -0.6}, 0.5)[0]}
    assert "7 of 8 numbers raw and 8 of 8 numbers calibrated" in r3(some).sentence


def test_r4_is_a_paired_change_of_blocks() -> None:
    one, a = setting("whole", {})
    other, b = setting("disc", {SOME: 0.05, LATENT: 3.0}, 2.0)
    found = r4(one, other)
    whole(found, "R4")
    difference = [b[CNN, "block4", s] - a[CNN, "block4", s] for s in SEEDS]
    agrees(found.number, [d + 0.05 for d in difference])
    assert found.of.startswith("change of the calibrated number, block4 of the CNN, disc minus whole frame")
    raw = student(difference)
    assert row(found, "block4 of the CNN")[3] == f"{number(raw[0])} [{number(raw[1])}, {number(raw[2])}]"
    assert "7 of 8 calibrated numbers" in found.sentence


def test_settings_of_other_models_are_refused() -> None:
    one, _ = setting("whole", {})
    other = replace(one, results=tuple(r for r in one.results if r.model["seed"]))
    with pytest.raises(DataError, match="same seeds"):
        r4(one, other)


# --- R5 ---------------------------------------------------------------------------------------------------------


def sizes(level: Callable[[int], float], seeds: Iterable[int] = SEEDS) -> Evidence:
    """Return sizes 27 to 34; `level` of the C8-CNN by size."""
    every = list(seeds)
    return Evidence(
        "sizes",
        tuple(
            replace(
                made(f"{f} {n}", tap, variant, s),
                group={"name": g, "order": 4},
                value=(level(n) if f == C8 else 0.2) + s * n / 1e4,
            )
            for n in range(27, 35)
            for f in FAMILIES
            for g in ("C4", "C8")
            for tap, variant in (("latent", "latent-l2"), ("block6", "channelwise"))
            for s in every
        ),
    )


def test_r5_is_the_others_minus_those_that_keep_the_centre() -> None:
    found = r5(sizes(lambda n: 0.0 if n in (29, 33) else 0.1 + (n % 2) / 100))
    whole(found, "R5")
    at = {
        n: np.array([(0.0 if n in (29, 33) else 0.1 + (n % 2) / 100) + s * n / 1e4 for s in SEEDS])
        for n in range(27, 35)
    }
    lost = np.mean([at[n] for n in (27, 28, 30, 31, 32, 34)], axis=0)
    agrees(found.number, lost - np.mean([at[29], at[33]], axis=0))
    parity = np.mean([at[27], at[31]], axis=0) - np.mean([at[28], at[30], at[32], at[34]], axis=0)
    assert f"Parity by itself makes {number(float(parity.mean()))} [" in found.sentence
    assert " lower wherever" in found.sentence
    assert "not lower" not in found.sentence
    assert [r[1] for r in found.table[1:]] == ["lost", "lost", "kept", "lost", "lost", "lost", "kept", "lost"]


def test_r5_says_so_where_the_centre_does_not_matter() -> None:
    assert "not lower wherever" in r5(sizes(lambda n: 0.1)).sentence


def test_r5_of_one_model_has_no_interval() -> None:
    found = r5(sizes(lambda n: 0.1, [0]))
    assert (found.number.low, found.number.high) == (None, None)


def test_r5_needs_every_model_at_every_size() -> None:
    some = sizes(lambda n: 0.1)
    fewer = tuple(r for r in some.results if not (r.model["family"] == f"{C8} 30" and r.model["seed"] == 2))
    with pytest.raises(DataError, match="C8-CNN: size 27 has"):
        r5(replace(some, results=fewer))


def test_the_sizes_that_keep_the_centre_are_those_of_two_strides() -> None:
    def kept(n: int) -> bool:
        """Return whether two layers of kernel 5, stride 2, padding 2 leave no row at the end unread."""
        once = (n - 1) // 2 + 1
        return (n - 1) % 2 == 0 and (once - 1) % 2 == 0

    assert [n for n in range(20, 50) if keeps_centre(n)] == [n for n in range(20, 50) if kept(n)]


# --- R6 and R7 --------------------------------------------------------------------------------------------------


def parted(exact: Mapping[str, float], without: tuple[str, ...] = ()) -> Evidence:
    """Return C8 in parts: the exact elements but the identity at `exact[family]`, the others above by block."""
    results = []
    for f in FAMILIES:
        for i, (tap, variant) in enumerate(TAPS):
            for s in SEEDS:
                best = OPTIMUM.get(variant, 0.0)
                elements = [
                    best if g == 0 else best + (exact[f] if g in EXACT else 0.1 + i / 50 + s / 100) for g in range(8)
                ]
                halves = {
                    n: {
                        "elements": list(gs),
                        "value": float(np.mean([elements[g] for g in gs])),
                        "calibrated": 0.1 * len(n),
                    }
                    for n, gs in (("exact", EXACT), ("resampled", TURNED))
                }
                r = made(f, tap, variant, s, value=float(np.mean(elements)), floor=best + 0.02 + i / 100)
                results.append(replace(r, per_element=tuple(elements), parts=None if tap in without else halves))
    return Evidence("reference", tuple(results))


C4 = sizes(lambda n: 0.0 if n in (29, 33) else 0.1)


def deviations(exact: float) -> np.ndarray:
    """Return `(blocks, seeds, elements)` above the optimum."""
    return np.array(
        [
            [[0.0 if g == 0 else exact if g in EXACT else 0.1 + i / 50 + s / 100 for g in range(8)] for s in SEEDS]
            for i in range(6)
        ]
    )


def test_r6_is_the_floors_share_of_the_deviation() -> None:
    found = r6(parted({CNN: 0.4, C8: 0.0}))
    whole(found, "R6")
    floors = 0.02 + np.arange(6) / 100
    shares = {f: (floors[:, None] / deviations(e).mean(2)).mean(0) for f, e in ((CNN, 0.4), (C8, 0.0))}
    agrees(found.number, shares[C8])
    assert f"makes {number(100 * float(shares[C8].mean()), 0)} % of" in found.sentence
    assert f"{number(100 * float(shares[CNN].mean()), 0)} % for the CNN" in found.sentence
    assert "is 0.020 (block1 of the CNN) to 0.070 (block6 of" in found.sentence  # models do not scatter: no interval
    rest = student(deviations(0.4)[3].mean(1) - floors[3])
    assert row(found, "block4 of the CNN")[3] == f"{number(rest[0], 4)} [{number(rest[1], 4)}, {number(rest[2], 4)}]"
    assert "16 of the 50 images" in found.sentence
    every = parted({CNN: 0.4, C8: 0.0})
    every = replace(every, results=tuple(replace(r, reference_samples=r.samples) for r in every.results))
    assert "Floors are of" not in r6(every).sentence
    assert len(found.table) == 1 + 2 * len(TAPS)


def test_r6_of_a_block_that_does_not_deviate_is_refused() -> None:
    some = parted({CNN: 0.4, C8: 0.0})
    still = tuple(replace(r, value=-1.0) if r.variant == "channelwise" else r for r in some.results)
    with pytest.raises(DataError, match="block1: expected a number to compare with"):
        r6(replace(some, results=still))


def test_r7_shares_the_deviation_between_the_parts() -> None:
    found = r7(parted({CNN: 0.4, C8: 0.0}), C4)
    whole(found, "R7")
    d = deviations(0.4)
    agrees(found.number, (d[:, :, TURNED].sum(2) / d.sum(2)).mean(0))
    assert "the blocks of the C8-CNN read −1 exactly; the 45° part is 1.000 [1.000, 1.000]" in found.sentence
    turned = np.mean([0.1 + 6 / 50 + s / 100 for s in SEEDS])
    alone = np.mean([s * 29 / 1e4 for s in SEEDS])
    assert (
        f"reads 0.000 in one and {number(float(turned))} in the other, and {number(float(alone))} under"
        in found.sentence
    )
    first = row(found, "block1 of the CNN")
    assert first[1:3] == ("−0.700", "−0.600")
    assert first[4:6] == ("0.500", "0.900")


def test_r7_says_so_where_the_exact_part_is_not_exact() -> None:
    found = r7(parted({CNN: 0.4, C8: 0.04}), C4)
    assert "read −1 only to within 0.030;" in found.sentence
    assert "1.000 [1.000, 1.000] of what" not in found.sentence


@pytest.mark.parametrize(
    ("off", "words"),
    [(0.0, "−1 exactly"), (3.6e-13, "−1 to 12 digits"), (2e-4, "−1 to 3 digits"), (0.02, "−1 only to within 0.020")],
)
def test_exact_is_said_in_digits(off: float, words: str) -> None:
    assert exactly(off) == words


def test_r7_without_parts_is_refused() -> None:
    with pytest.raises(DataError, match="no parts under C8"):
        r7(parted({CNN: 0.4, C8: 0.0}, without=("block3",)), C4)


# --- all --------------------------------------------------------------------------------------------------------


def test_all_are_read_from_a_work_folder(tmp_path: Path) -> None:
    off = {k: 0.01 * (k < 1000) for k in robustness.SPREAD}
    spreads = spread(off)
    suites = {f"robustness/spread/{k}": e for k, e in spreads.items()}
    suites |= {
        f"robustness/interpolation/{n}": setting(n, {SOME: 0.01 * i})[0]
        for i, n in enumerate(robustness.INTERPOLATIONS)
    }
    suites["robustness/interpolation/bilinear"] = parted({CNN: 0.4, C8: 0.0})
    suites |= {"robustness/mask/disc": setting("disc", {})[0], "robustness/sizes": C4, "robustness/images": images()[0]}
    for name, e in suites.items():
        folder = run_folder(tmp_path, name)
        folder.mkdir(parents=True)
        write_results(folder / "results.jsonl", e.results)
    assert [f.key for f in robustness.findings(tmp_path)] == [f"R{i}" for i in range(1, 8)]
    (run_folder(tmp_path, "robustness/sizes") / "results.jsonl").unlink()
    with pytest.raises(DataError, match="robustness/sizes was not measured"):
        robustness.findings(tmp_path)
