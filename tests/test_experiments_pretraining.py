"""Section 4.3's suites and exporter commands: what they name exists, what they measure is what the figures need."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from geed_exporters.cli import pytorch as command
from geed_onnx.suites import Suite, SuiteError, load_suite

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "experiments/pretraining"
README = (FOLDER / "paper/README.md").read_text(encoding="utf-8")
STARTS = ("pretrained", "scratch")
PAPER = ("resnet50", "alexnet", "densenet121", "levit192")


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def placeholders(models: Path, nets: tuple[str, ...], seeds: int, steps: range, data: Path) -> None:
    for net in nets:
        for start in STARTS:
            for seed in range(seeds):
                for step in steps:
                    put(models / f"{net}-{start}-{seed}/step{step}.onnx")
                put(models / f"{net}-{start}-{seed}/final.onnx")
    put(data)


def small(tmp_path: Path) -> Suite:
    data = tmp_path / "data/ships.parquet"
    placeholders(tmp_path / "models/pretraining", ("resnet", "levit"), 5, range(0, 2001, 200), data)
    put(tmp_path / "models/pretraining/cifar10-resnet-0/step0.onnx")  # not one of them
    return load_suite(FOLDER / "suite.toml", root=str(tmp_path))


def test_the_suite_has_every_checkpoint_of_every_family_under_both_groups(tmp_path: Path) -> None:
    suite = small(tmp_path)
    families = {m.family for m in suite.models}
    assert families == {f"{n}, {s}" for n in ("ResNet", "LeViT") for s in ("pretrained", "from scratch")}
    for family in families:
        own = {(m.seed, m.step) for m in suite.models if m.family == family}
        assert own == {(seed, step) for seed in range(5) for step in range(0, 2001, 200)}
        paths = " ".join(m.path for m in suite.models if m.family == family)
        assert ("pretrained" in paths) == ("pretrained" in family)
        assert ("resnet" in paths) == ("ResNet" in family)
    assert len(list(suite.jobs())) == 2 * 220
    assert suite.groups == ("C8", "D8")
    assert suite.samples == (50,)
    assert suite.settings.spread_samples == 200
    # three lines of results for each model and group: two of the latent vector, one of the scores
    assert suite.settings.variants == ("latent-l2", "softmax")
    assert {m.taps for m in suite.models} == {("latent", "scores")}


def test_a_family_that_is_missing_is_a_fault(tmp_path: Path) -> None:
    small(tmp_path)
    for folder in (tmp_path / "models/pretraining").glob("levit-scratch-*"):
        shutil.rmtree(folder)
    with pytest.raises(SuiteError, match=r"1 fault\b[\s\S]*levit-scratch"):
        load_suite(FOLDER / "suite.toml", root=str(tmp_path))


def test_the_suite_of_the_papers_networks_has_forty_trainings(tmp_path: Path) -> None:
    placeholders(tmp_path / "models", PAPER, 5, range(0, 601, 200), tmp_path / "images/0.png")
    suite = load_suite(FOLDER / "paper/suite.toml", root=str(tmp_path))
    assert len({(m.family, m.seed) for m in suite.models}) == 40
    assert len(list(suite.jobs())) == 2 * 160
    assert len({m.family for m in suite.models}) == 8
    for model in suite.models:
        latent, scores = model.taps or ()
        assert latent.endswith(":vector")
        assert scores.endswith(":probability")


def test_taps_of_the_papers_networks_are_those_that_the_exporter_writes(tmp_path: Path) -> None:
    """docs/architectures.md is what the exporter's own tests hold: module paths of latent and scores, by network."""
    text = (ROOT / "docs/architectures.md").read_text(encoding="utf-8")
    placeholders(tmp_path / "models", PAPER, 1, range(1), tmp_path / "images/0.png")
    suite = load_suite(FOLDER / "paper/suite.toml", root=str(tmp_path))
    taps = {Path(m.path).parent.name.split("-")[0]: m.taps or () for m in suite.models}
    assert set(taps) == set(PAPER)
    for name, (latent, scores) in taps.items():
        [row] = [line for line in text.splitlines() if line.startswith(f"| `paper:{name}`")]
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[5].split("`")[1] == latent.removesuffix(":vector")
        assert cells[6].split("`")[1] == scores.removesuffix(":probability")


# --- commands ---------------------------------------------------------------------------------------------------


def exports() -> list[str]:
    return re.findall(r"^geed-export pytorch (.*)$", README, re.MULTILINE)


@pytest.mark.parametrize("words", exports())
def test_each_exporter_command_names_options_that_are_there(words: str) -> None:
    """click takes them; nothing is run."""
    given = command.make_context("pytorch", shlex.split(words)).params
    assert given["model"].removeprefix("paper:") in PAPER
    assert given["taps"] == ("latent", "scores")
    if given["checkpoint"] is not None:
        assert given["classes"] == 9
        assert given["checkpoint"].with_suffix(".onnx").parts[-2:] == Path(given["output"]).parts[-2:]


def test_there_is_a_command_for_each_network_with_and_without_a_checkpoint() -> None:
    found = [(w.split()[0].removeprefix("paper:"), "--checkpoint" in w) for w in exports()]
    assert sorted(found) == sorted((name, kept) for name in PAPER for kept in (True, False))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not there")
def test_make_exports_what_is_not_there_yet(tmp_path: Path) -> None:
    """It would run one command a checkpoint, and each is one that the exporter takes."""
    for name in PAPER:
        put(tmp_path / f"checkpoints/{name}-scratch-0/step0.pt")
        put(tmp_path / f"checkpoints/{name}-pretrained-3/step200.pt")
    put(tmp_path / "models/alexnet-scratch-0/step0.onnx")
    done = subprocess.run(
        ["make", "-n", "-f", FOLDER / "paper/Makefile", f"WORK={tmp_path}"], capture_output=True, text=True, check=True
    )
    commands = [line for line in done.stdout.splitlines() if line.startswith("geed-export pytorch ")]
    given = [command.make_context("pytorch", shlex.split(c)[2:]).params for c in commands]
    names = {(g["model"], Path(g["output"]).relative_to(tmp_path / "models").as_posix()) for g in given}
    expected = {(f"paper:{n}", f"{n}-{f}.onnx") for n in PAPER for f in ("scratch-0/step0", "pretrained-3/step200")}
    assert names == expected - {("paper:alexnet", "alexnet-scratch-0/step0.onnx")}
    assert len(commands) == 7
    for g in given:
        assert g["classes"] == 9
        assert g["checkpoint"] == tmp_path / "checkpoints" / Path(g["output"]).relative_to(
            tmp_path / "models"
        ).with_suffix(".pt")
