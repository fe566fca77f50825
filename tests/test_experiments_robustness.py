"""The suites of experiments/robustness: each loads, and has the cells that its README says."""

from __future__ import annotations

import re
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import onnx
import onnx_nets
import pytest

from geed_onnx.suites import Suite, load_suite

HERE = Path(__file__).resolve().parent.parent / "experiments" / "robustness"
NUMBERS = (10, 20, 50, 100, 200, 500, 1000)
FAMILIES = ("cnn", "c8-cnn")
SIZES = range(27, 35)
LINES = 2500  # of all suites with ten models of each family
TAPS = 8  # six blocks, latent, scores
DEPTH = ("interpolation/nearest", "interpolation/bilinear", "interpolation/bicubic", "mask/disc")
SUITES = sorted(p.relative_to(HERE).with_suffix("").as_posix() for p in HERE.rglob("*.toml"))


def filled(work: Path, models: int) -> Path:
    """Make a work folder with placeholders of everything that the suites name, for so many models of a family."""
    holder = work / "holder.onnx"
    onnx.save(onnx_nets.cnn(), str(holder))
    final = [f"augmentation/{f}-{s}/final.onnx" for f, s in product(FAMILIES, range(models))]
    sized = [f"robustness/{f}-{n}/{s}.onnx" for f, n, s in product(FAMILIES, SIZES, range(3))]
    for name in (*final, *sized):
        path = work / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(holder)
    for name in ("rotated-mnist", "rotated-mnist-28"):
        (work / "data").mkdir(exist_ok=True)
        (work / f"data/{name}.parquet").write_bytes(b"x")
    return work


@pytest.fixture(scope="module", params=[3, 10], ids=["fast", "full"])
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    models: int = request.param
    return filled(tmp_path_factory.mktemp("work"), models), models


def loaded(name: str, work: tuple[Path, int]) -> Suite:
    return load_suite(HERE / f"{name}.toml", root=work[0])


def facts(suite: Suite) -> list[tuple[str | None, int | None]]:
    return [(m.family, m.seed) for m in suite.models]


def of_both(models: int) -> list[tuple[str, int]]:
    return [(f, s) for f in ("CNN", "C8-CNN") for s in range(models)]


def lines(suite: Suite) -> int:
    """Results of a suite: a map has one variant, the latent vector all of its own, the scores one."""
    variants = suite.settings.variants or ()
    latent = sum(v.startswith("latent") for v in variants)
    taps = {t for m in suite.models for t in m.taps or ()}
    blocks = 6 if "block?" in taps else sum(t.startswith("block") for t in taps)
    return len(list(suite.jobs())) * (blocks + latent * ("latent" in taps) + ("scores" in taps))


def test_every_suite_is_there() -> None:
    assert {"images", "sizes", "mask/disc"} <= set(SUITES)
    assert {f"interpolation/{i}" for i in ("nearest", "bilinear", "bicubic")} <= set(SUITES)
    assert {f"spread/{n}" for n in NUMBERS} <= set(SUITES)
    assert len(SUITES) == 3 + 3 + len(NUMBERS)


def test_images_draws_each_number_five_times_from_one_network_of_each_family(work: tuple[Path, int]) -> None:
    suite = loaded("images", work)
    assert suite.samples == NUMBERS
    assert suite.seeds == (0, 1, 2, 3, 4)
    assert facts(suite) == of_both(1)
    assert lines(suite) == 350


def test_spread_is_one_suite_in_seven_files(work: tuple[Path, int]) -> None:
    """They differ in the number of points and in what tells it."""
    written: list[dict[str, Any]] = []
    for number in NUMBERS:
        suite = loaded(f"spread/{number}", work)
        assert suite.settings.spread_samples == number
        assert suite.samples == (50,)
        assert facts(suite) == of_both(1)
        assert lines(suite) == 30
        document = tomllib.loads((HERE / f"spread/{number}.toml").read_text())
        assert document["measure"] == {"spread_samples": number, "mask": "none"}
        assert document.pop("title") == f"M over {number} points"
        document.pop("measure")
        written.append(document)
    assert all(document == written[0] for document in written)


@pytest.mark.parametrize("name", DEPTH)
def test_depth_has_every_tap_of_every_network_with_its_floor(name: str, work: tuple[Path, int]) -> None:
    suite = loaded(name, work)
    assert facts(suite) == of_both(work[1])
    assert suite.settings.floor
    assert {m.taps for m in suite.models} == {("block?", "latent", "scores")}
    assert lines(suite) == TAPS * 2 * work[1]
    kind, _, word = name.partition("/")
    assert suite.settings.interpolation == (word if kind == "interpolation" else "bilinear")
    assert suite.settings.mask == ("disc" if kind == "mask" else "none")


def test_interpolations_and_the_mask_differ_in_nothing_else() -> None:
    found = []
    for name in DEPTH:
        document = tomllib.loads((HERE / f"{name}.toml").read_text())
        document.pop("title")
        assert set(document["measure"]) - {"interpolation", "mask"} == {"spread_samples", "floor"}
        document["measure"] = {k: v for k, v in document["measure"].items() if k not in ("interpolation", "mask")}
        found.append(document)
    assert all(document == found[0] for document in found)


def test_sizes_has_each_network_at_each_size_under_both_groups(work: tuple[Path, int]) -> None:
    suite = loaded("sizes", work)
    assert suite.groups == ("C4", "C8")
    assert facts(suite) == [(f"{f} {n}", s) for f in ("CNN", "C8-CNN") for n in SIZES for s in range(3)]
    assert [d.name for d in suite.data] == ["rotated-mnist-28"]
    assert lines(suite) == 384


def test_all_of_them_stay_within_the_lines_that_are_committed(work: tuple[Path, int]) -> None:
    counts = {name: lines(loaded(name, work)) for name in SUITES}
    assert max(counts.values()) <= 400, counts
    assert sum(counts.values()) < LINES, counts


def test_the_readme_names_every_suite_and_every_file_it_names_is_there() -> None:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9/*]+)\.toml`", text))
    assert {n for n in named if not list(HERE.glob(f"{n}.toml"))} == set()
    covered = {p.relative_to(HERE).with_suffix("").as_posix() for n in named for p in HERE.glob(f"{n}.toml")}
    assert covered == set(SUITES)
    for command in re.findall(r"python -m (experiments\.[\w.]+)", text):
        assert (HERE.parent.parent / (command.replace(".", "/") + ".py")).is_file(), command
