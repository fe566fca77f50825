"""The figures of the findings: each is drawn from what its suites would give, and shows the means of just that."""

from __future__ import annotations

import struct
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pytest
from matplotlib.container import BarContainer
from scipy import stats

from experiments.findings import figures
from experiments.findings.evidence import Evidence, evidence
from experiments.findings.figures import FIGURES, draw_all
from experiments.findings.figures_drawing import NUMBERS, STYLES, numbers, style_of
from experiments.measure import HERE, kept, suites
from geed_onnx.errors import DataError
from geed_onnx.reports.figures.drawing import style
from geed_onnx.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEEDS = (0, 1, 2)
STEPS = (0, 100, 200)
SIZES = range(27, 35)
MOST = 120_000  # bytes of a file
WIDE = {"block?": [f"block{i}" for i in range(1, 7)], "stage?": ["stage1", "stage2", "stage3"]}
#: Untrained scores have no calibrated value, but for the first model on digits.
ONE_OF_THREE = ("untrained CNN", 0, "rotated MNIST")


def variants_of(tap: str, variants: list[str]) -> list[str]:
    """Those variants of a suite that a tap has: maps, vectors, probabilities."""
    if tap.startswith(("block", "stage")):
        return [v for v in variants if v == "channelwise"]
    return [v for v in variants if (v == "softmax") == (tap == "scores") and v != "channelwise"]


def cells(suite: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything that a suite file asks for, for three models of a family at three checkpoints."""
    data = suite.get("data", [])
    names = [Path(data).stem] if isinstance(data, str) else [d["name"] for d in data]
    samples = suite["samples"] if isinstance(suite["samples"], list) else [suite["samples"]]
    for m in suite["models"]:
        seeds = SEEDS if "{seed}" in m["path"] or "{name}/{seed}" in m["path"] else (m["seed"],)
        steps = STEPS if "{step}" in m["path"] else (None,)
        families = [m["family"].replace("{name}", str(n)) for n in SIZES] if "{name}" in m["path"] else [m["family"]]
        taps = [t for p in m.get("taps", suite.get("taps")) for t in WIDE.get(p.split(":")[0], [p.split(":")[0]])]
        for family, seed, step, name, group, count, draw, tap in product(
            families, seeds, steps, names, suite["groups"], samples, suite.get("seeds", [0]), taps
        ):
            for variant in variants_of(tap, m.get("variants", suite["variants"])):
                yield {
                    "model": {"family": family, "seed": seed} | ({} if step is None else {"step": step}),
                    "data": {"name": name},
                    "group": {"name": group, "order": 8},
                    "tap": {"name": tap, "kind": "map"},
                    "variant": variant,
                    "samples": count,
                    "seed": draw,
                    "spread_samples": suite["measure"]["spread_samples"] if tap == "latent" else None,
                }


def made(name: str, cell: dict[str, Any]) -> Result:
    """A result with numbers that depend on everything that it is of."""
    draw = np.random.default_rng(crc32(repr((name, sorted(cell.items(), key=str))).encode()))
    of_all_draws = {k: v for k, v in cell.items() if k not in ("seed", "samples")}
    chance = np.random.default_rng(crc32(repr(sorted(of_all_draws.items(), key=str)).encode()))
    negative = cell["variant"] in ("channelwise", "latent-cosine", "vector:trivial:cosine")
    value = (chance.uniform(0.1, 0.9) + draw.uniform(0.0, 0.02)) * (-1 if negative else 1)
    calibrated = draw.uniform(0.0, 1.0)
    who = cell["model"]["family"], cell["model"]["seed"], cell["data"]["name"]
    mute = cell["variant"] == "softmax" and who[0] == ONE_OF_THREE[0]
    if mute:
        value *= 1e-9
    part = {"value": value - 0.01, "floor": -1.0}
    parts = {"exact": part, "resampled": {**part, "value": value + 0.01}} if cell["variant"] == "channelwise" else None
    return Result(
        **cell, value=value, low=value - abs(value) / 15, high=value + abs(value) / 12, level=0.95, method="made",
        optimum=None, spread=None, floor=-0.97 + value / 50, null=0.0,
        calibrated=None if mute and who != ONE_OF_THREE else calibrated,
        calibrated_low=None, calibrated_high=None, per_element=None, law_defect=0.0, reason=None, runtime={},
        sensitivity=abs(value) * 2, parts=parts,
    )  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    for name in suites():
        suite = tomllib.loads((HERE / f"{name}.toml").read_text())
        path = kept(name, folder)
        path.parent.mkdir(parents=True)
        path.write_text("".join(f"{made(name, cell).to_json()}\n" for cell in cells(suite)))
    return folder


@cache
def measured(suite: str, work: Path) -> Evidence:
    return evidence(suite, work)


@cache
def drawn(stem: str, work: Path) -> Figure:
    draw, names = FIGURES[stem]
    with style():
        return draw(*(measured(n, work) for n in names))


def expected(work: Path, suite: str, field: str = "value", **asked: object) -> np.ndarray:
    """The numbers of the models by a filter of its own, straight from the records."""
    found = []
    for r in measured(suite, work).results:
        own = {"family": r.model["family"], "step": r.model.get("step"), "data": r.data["name"]}
        own |= {"group": r.group["name"], "tap": r.tap["name"], "variant": r.variant}
        own |= {"samples": r.samples, "points": r.spread_samples}
        if all(own[k] == v for k, v in asked.items()):
            found.append(getattr(r, field))
    assert found
    return np.array([v for v in found if v is not None], dtype=np.float64)


def line_of(axes: Axes, label: str) -> np.ndarray:
    (found,) = [one for one in axes.get_lines() if one.get_label() == label]
    return np.asarray(found.get_ydata(), dtype=np.float64)


def bars_of(axes: Axes, label: str) -> np.ndarray:
    (found,) = [c for c in axes.containers if c.get_label() == label and isinstance(c, BarContainer)]
    return np.array([p.get_height() for p in found.patches])


@pytest.mark.slow
def test_every_figure_is_written_small_and_no_wider_than_a_page(work: Path, tmp_path: Path) -> None:
    files = {p.stem: p for p in draw_all(work, tmp_path)}
    assert set(files) == set(FIGURES)
    for stem, path in files.items():
        head = path.read_bytes()
        width, height = struct.unpack(">II", head[16:24])
        assert head.startswith(b"\x89PNG"), stem
        assert len(head) < MOST, stem
        assert 850 < width < 960, stem
        assert height < 1000, stem
        assert b"matplotlib" not in head.lower(), stem


@pytest.mark.parametrize("stem", ["figure-3", "r1-images"])
def test_the_same_results_make_the_same_bytes(stem: str, work: Path, tmp_path: Path) -> None:
    once, again = (draw_all(work, tmp_path / name, [stem])[0] for name in ("once", "again"))
    assert once.read_bytes() == again.read_bytes()
    assert b"tEXt" not in once.read_bytes()  # no date, no version


@pytest.mark.parametrize("stem", FIGURES)
def test_every_panel_says_what_it_shows_and_which_way_is_better(stem: str, work: Path) -> None:
    figure = drawn(stem, work)
    shared = "" if figure.get_supylabel() is None else figure.get_supylabel()
    for axes in figure.axes:
        said = f"{axes.get_ylabel()}{shared}"
        assert "lower: more" in said or stem == "figure-3-sensitivity"
        assert "EED" in said or "calibrated" in said or stem == "figure-3-sensitivity"
    legends = figure.legends
    assert len(legends) == 1 or stem == "figure-5"  # its bars have their names below them


@pytest.mark.parametrize("stem", FIGURES)
def test_intervals_may_leave_a_panel_but_no_number_does(stem: str, work: Path) -> None:
    for axes in drawn(stem, work).axes:
        if axes.get_title() == "near the floors":
            continue
        low, high = axes.get_ylim()
        lines = [one for one in axes.get_lines() if one.get_gid() == NUMBERS or one.get_label() in STYLES]
        heights = [p.get_height() for c in axes.containers if isinstance(c, BarContainer) for p in c]
        shown = np.array([y for one in lines for y in np.ravel(one.get_ydata())] + heights, dtype=np.float64)
        shown = shown[np.isfinite(shown)]
        assert shown.size
        assert low <= shown.min() <= shown.max() <= high


def test_lines_are_the_means_over_models_and_bands_are_students(work: Path) -> None:
    left, right = drawn("figure-2", work).axes
    for axes, tap, variant in ((left, "latent", "latent-l2"), (right, "scores", "softmax")):
        for band, family in zip(axes.collections, ("CNN", "C8-CNN"), strict=True):
            by_step = [
                expected(work, "augmentation/suite", family=family, tap=tap, variant=variant, step=s) for s in STEPS
            ]
            assert all(len(v) == 3 for v in by_step)
            assert line_of(axes, family) == pytest.approx([v.mean() for v in by_step])
            low, high = stats.t.interval(0.95, 2, np.mean(by_step[0]), stats.sem(by_step[0]))
            corners = band.get_paths()[0].vertices
            at = [y for x, y in corners if x == STEPS[0]]
            assert (min(at), max(at)) == pytest.approx((low, high))


def test_depth_is_raw_with_floors_and_calibrated(work: Path) -> None:
    left, right = drawn("figure-7-depth", work).axes
    for family in ("CNN", "C8-CNN", "C8-CNN, read naively"):
        asked = [{"family": family, "tap": f"block{i}", "variant": "channelwise"} for i in range(1, 7)]
        for axes, field in ((left, "value"), (right, "calibrated")):
            means = [expected(work, "augmentation/final", field, **a).mean() for a in asked]
            assert line_of(axes, family) == pytest.approx(means)
        floors = [expected(work, "augmentation/final", "floor", **a).mean() for a in asked]
        dots = [np.asarray(one.get_ydata(), dtype=np.float64) for one in left.get_lines() if len(one.get_xdata()) == 6]
        assert any(d == pytest.approx(floors) for d in dots)


def test_each_block_has_its_own_panel(work: Path) -> None:
    panels = drawn("figure-7-training", work).axes
    for i, axes in enumerate(panels, 1):
        asked = {"family": "C8-CNN", "tap": f"block{i}", "variant": "channelwise"}
        means = [expected(work, "augmentation/suite", **asked, step=s).mean() for s in STEPS]
        assert line_of(axes, "C8-CNN") == pytest.approx(means)
    assert [a.get_title() for a in panels] == [f"block {i}" for i in range(1, 7)]


def test_cosine_with_and_without_m_and_at_another_latent(work: Path) -> None:
    left, middle, right = drawn("figure-8", work).axes
    for axes, variant in ((left, "latent-cosine"), (middle, "vector:trivial:cosine")):
        means = [expected(work, "augmentation/suite", family="CNN", variant=variant, step=s).mean() for s in STEPS]
        assert line_of(axes, "CNN") == pytest.approx(means)
    for name, family, tap in (("CNN", "CNN", "latent"), ("C8-CNN, invariant", "C8-CNN", "invariant")):
        found = expected(work, "augmentation/final", family=family, tap=tap, variant="latent-cosine")
        assert line_of(right, name) == pytest.approx([found.mean()])


def test_bars_out_of_distribution_and_what_has_no_calibrated_value(work: Path) -> None:
    top, middle, bottom = drawn("figure-3", work).axes
    suite = "out_of_distribution/suite"
    sets = measured(suite, work).order("data")
    assert [t.get_text() for t in bottom.get_xticklabels()] == sets
    assert len(sets) == 12
    for f in ("untrained CNN", "CNN", "C8-CNN"):
        latent = [expected(work, suite, family=f, variant="latent-l2", data=d).mean() for d in sets]
        assert bars_of(top, f) == pytest.approx(latent)
        scores = [expected(work, suite, family=f, variant="softmax", data=d).mean() for d in sets]
        assert line_of(middle, f) == pytest.approx(scores, rel=1e-9)
    calibrated = [expected(work, suite, "calibrated", family="CNN", variant="softmax", data=d).mean() for d in sets]
    assert bars_of(bottom, "CNN") == pytest.approx(calibrated)
    alone = expected(work, suite, "calibrated", family="untrained CNN", variant="softmax", data=sets[0])
    assert len(alone) == 1
    untrained = bars_of(bottom, "untrained CNN")
    assert untrained[0] == pytest.approx(alone[0])
    assert np.isnan(untrained[1:]).all()
    assert [t.get_text() for t in bottom.texts] == ["1 of 3", *["–"] * 11]
    assert middle.get_yscale() == "log"


def test_sensitivity_is_that_of_the_class_scores(work: Path) -> None:
    (axes,) = drawn("figure-3-sensitivity", work).axes
    suite = "out_of_distribution/suite"
    sets = measured(suite, work).order("data")
    means = [expected(work, suite, "sensitivity", family="C8-CNN", variant="softmax", data=d).mean() for d in sets]
    assert line_of(axes, "C8-CNN") == pytest.approx(means)
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize(
    ("stem", "group", "variant"),
    [("figure-4", "C8", "latent-l2"), ("figure-10", "D8", "latent-l2"), ("figure-16", "C8", "softmax")],
)
def test_pretrained_and_from_scratch_each_under_its_group(stem: str, group: str, variant: str, work: Path) -> None:
    for axes, architecture in zip(drawn(stem, work).axes, ("ResNet", "LeViT"), strict=True):
        assert axes.get_title() == architecture
        assert group in axes.get_ylabel()
        for start in ("pretrained", "from scratch"):
            asked = {"family": f"{architecture}, {start}", "group": group, "variant": variant}
            means = [expected(work, "pretraining/suite", **asked, step=s).mean() for s in STEPS]
            assert line_of(axes, start) == pytest.approx(means)


def test_methods_are_shown_at_their_last_step_with_each_seed(work: Path) -> None:
    left, right = drawn("figure-5", work).axes
    suite = "self_supervision/suite"
    families = measured(suite, work).order("family")
    assert [t.get_text() for t in left.get_xticklabels()] == families
    for axes, variant in ((left, "latent-l2"), (right, "latent-cosine")):
        for x, family in enumerate(families):
            found = expected(work, suite, family=family, variant=variant, step=STEPS[-1])
            assert bars_of(axes, family) == pytest.approx([found.mean()])
            dots = [one.get_xydata() for one in axes.get_lines() if one.get_marker() == "o"]
            seeds = sorted(float(y) for d in dots for at, y in np.asarray(d) if abs(at - x) < 0.4)
            assert seeds == pytest.approx(sorted(found))


def test_stages_of_every_method_and_before_training(work: Path) -> None:
    left, right = drawn("figure-5-stages", work).axes
    suite = "self_supervision/final"
    assert "untrained" in measured(suite, work).order("family")
    for family in measured(suite, work).order("family"):
        for axes, field in ((left, "value"), (right, "calibrated")):
            means = [expected(work, suite, field, family=family, tap=f"stage{i}").mean() for i in (1, 2, 3)]
            assert line_of(axes, family) == pytest.approx(means)


def test_draws_of_images_and_of_points_stand_at_their_numbers(work: Path) -> None:
    numbers_of = [10, 20, 50, 100, 200, 500, 1000]
    axes = drawn("r1-images", work).axes[0]
    asked = {"family": "CNN", "tap": "block6", "variant": "channelwise"}
    means = [expected(work, "robustness/images", **asked, samples=n).mean() for n in numbers_of]
    assert line_of(axes, "CNN") == pytest.approx(means)
    axes = drawn("r2-spread", work).axes[1]
    asked = {"family": "C8-CNN", "variant": "latent-cosine"}
    means = [expected(work, f"robustness/spread/{n}", **asked, points=n).mean() for n in numbers_of]
    assert line_of(axes, "C8-CNN") == pytest.approx(means)
    (mean_line,) = [one for one in axes.get_lines() if one.get_label() == "C8-CNN"]
    assert list(mean_line.get_xdata()) == numbers_of
    dots = [one for one in axes.get_lines() if one.get_linestyle() == "None"]
    assert len(dots) == 2 * 7 * 5


def test_interpolation_mask_floor_and_parts_are_of_their_suites(work: Path) -> None:
    blocks = [{"tap": f"block{i}", "variant": "channelwise"} for i in range(1, 7)]
    for x, family in enumerate(("CNN", "C8-CNN")):
        for way in ("nearest", "bilinear", "bicubic"):
            suite = f"robustness/interpolation/{way}"
            taps = [*blocks, {"tap": "latent"}, {"tap": "scores"}]
            means = [expected(work, suite, "calibrated", family=family, **t).mean() for t in taps]
            assert line_of(drawn("r3-interpolation", work).axes[x], way) == pytest.approx(means)
        bilinear = "robustness/interpolation/bilinear"
        for name, suite in (("whole image", bilinear), ("within the disc", "robustness/mask/disc")):
            means = [expected(work, suite, family=family, **b).mean() for b in blocks]
            assert line_of(drawn("r4-mask", work).axes[x], name) == pytest.approx(means)
        means = np.array([expected(work, bilinear, family=family, **b).mean() for b in blocks])
        assert line_of(drawn("r6-floor", work).axes[0], family) == pytest.approx(means)
        parts = drawn("r7-parts", work).axes[x]
        assert line_of(parts, "exact part (C4)") == pytest.approx(means - 0.01)
        assert line_of(parts, "resampled part (45°)") == pytest.approx(means + 0.01)


def test_sizes_are_read_from_the_families_under_c4(work: Path) -> None:
    left, right = drawn("r5-sizes", work).axes
    for axes, tap, variant in ((left, "latent", "latent-l2"), (right, "block6", "channelwise")):
        for family in ("CNN", "C8-CNN"):
            asked = {"group": "C4", "tap": tap, "variant": variant}
            means = [expected(work, "robustness/sizes", family=f"{family} {n}", **asked).mean() for n in SIZES]
            assert line_of(axes, family) == pytest.approx(means)


def test_a_suite_that_was_not_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="augmentation/suite was not measured"):
        draw_all(tmp_path, tmp_path / "figures", ["figure-2"])


def test_two_results_of_one_seed_and_none_are_not_drawn(work: Path) -> None:
    found = evidence("augmentation/suite", work)
    with pytest.raises(DataError, match="several results of one seed"):
        numbers(found, lambda r: r.value, family="CNN", variant="latent-l2")
    with pytest.raises(DataError, match="no result"):
        numbers(found, lambda r: r.value, family="ViT")
    with pytest.raises(DataError, match="no result"):
        figures.figure_2(Evidence("empty", tuple(r for r in found.results if r.variant != "softmax")))


def test_every_family_has_one_style_and_others_are_refused() -> None:
    together = (("CNN", "C8-CNN", "C8-CNN, read naively", "C8-CNN, invariant", "untrained CNN"),
                ("supervised", "supervised, no flips", "SimCLR", "SimCLR, no flips", "DINO-like", "untrained"),
                ("nearest", "bilinear", "bicubic"))  # fmt: skip
    for families in together:
        assert len({style_of(f) for f in families}) == len(families)
    with pytest.raises(DataError, match="no style for the family 'ViT'"):
        style_of("ViT")
