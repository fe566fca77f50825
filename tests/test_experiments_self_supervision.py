"""Section 4.4's suites: which cells they have, on placeholder files, and that the README's commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from geed_exporters.cli import main as geed_export
from geed_exporters.pytorch.paper import ARCHITECTURES
from geed_onnx.cli.main import main as geed_onnx
from geed_onnx.suites import Suite, load_suite
from geed_onnx.variants import parse_variant

ROOT = Path(__file__).resolve().parent.parent
SECTION = ROOT / "experiments" / "self_supervision"
FOLDERS = {
    "supervised": "supervised",
    "supervised, no flips": "supervised-noflip",
    "SimCLR": "simclr",
    "SimCLR, no flips": "simclr-noflip",
    "DINO-like": "dino",
}
README = (SECTION / "paper" / "README.md").read_text(encoding="utf-8")


def work_folder(root: Path, seeds: int, steps: tuple[int, ...]) -> Path:
    """Return a folder as training leaves it, with files that nothing is in."""
    for folder in FOLDERS.values():
        for seed in range(seeds):
            at = root / f"models/self_supervision/{folder}-{seed}"
            at.mkdir(parents=True)
            for name in (*(f"step{step}.onnx" for step in steps), "final.onnx", "state.pt"):
                (at / name).write_bytes(b"x")
    (root / "data").mkdir()
    (root / "data/cifar10-test.parquet").write_bytes(b"x")
    return root


MODES = pytest.mark.parametrize(("seeds", "steps"), [(5, (0, 150, 300, 450, 600)), (3, (0, 500))], ids=["full", "fast"])


@MODES
def test_the_suite_has_every_checkpoint_of_every_method(tmp_path: Path, seeds: int, steps: tuple[int, ...]) -> None:
    suite = load_suite(SECTION / "suite.toml", root=work_folder(tmp_path, seeds, steps))
    expected = [(family, seed, step) for family in FOLDERS for seed in range(seeds) for step in steps]
    assert [(m.family, m.seed, m.step) for m in suite.models] == expected
    for model in suite.models:
        assert model.name == f"{model.family} {model.seed}@{model.step}"
        assert Path(model.path).parent.name == f"{FOLDERS[str(model.family)]}-{model.seed}"
        assert Path(model.path).name == f"step{model.step}.onnx"
    the_protocol_of_the_paper(suite)
    assert suite.settings.variants == ("latent-l2", "latent-cosine", "latent-cosine-bounded")
    assert len(list(suite.jobs())) * len(suite.settings.variants) <= 600


@MODES
def test_the_final_suite_has_the_ends_and_the_common_start(tmp_path: Path, seeds: int, steps: tuple[int, ...]) -> None:
    suite = load_suite(SECTION / "final.toml", root=work_folder(tmp_path, seeds, steps))
    files = {**{family: (folder, "final.onnx") for family, folder in FOLDERS.items()}}
    files["untrained"] = ("supervised", "step0.onnx")
    expected = [(family, seed) for family in files for seed in range(seeds)]
    assert [(m.family, m.seed) for m in suite.models] == expected
    for model in suite.models:
        folder, name = files[str(model.family)]
        assert Path(model.path).parts[-2:] == (f"{folder}-{model.seed}", name)
        assert model.name == f"{model.family} {model.seed}"
    the_protocol_of_the_paper(suite)
    assert [parse_variant(v).kind for v in suite.settings.variants] == ["map", "vector", "vector"]


def the_protocol_of_the_paper(suite: Suite) -> None:
    assert suite.groups == ("flip",)
    assert suite.samples == (100,)
    assert suite.settings.spread_samples == 200
    assert [d.name for d in suite.data] == ["cifar10-test"]


def test_the_suite_of_the_papers_networks(tmp_path: Path) -> None:
    """Its files are those that the README's commands write."""
    written = re.findall(r"-o runs/imagenet/(models/\S+\.onnx)", README)
    for name in (*written, "images/one.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    suite = load_suite(SECTION / "paper" / "suite.toml", root=tmp_path)
    assert [m.name for m in suite.models] == ["ResNet50", "BiT", "DINO", "SimCLR"]
    assert [Path(m.path).resolve().relative_to(tmp_path.resolve()).as_posix() for m in suite.models] == written
    assert suite.groups == ("flip",)
    assert suite.samples == (100,)
    assert suite.settings.spread_samples == 200
    assert set(suite.settings.variants) >= {"latent-l2", "latent-cosine"}


def test_the_commands_of_the_readme_have_options_that_exist() -> None:
    known = {
        "geed-export": CliRunner().invoke(geed_export, ["pytorch", "--help"]).output,
        "geed-onnx": CliRunner().invoke(geed_onnx, ["run", "--help"]).output,
    }
    commands = [line.split() for line in README.splitlines() if line.startswith(("geed-export ", "geed-onnx "))]
    assert len(commands) == 5
    for program, command, *words in commands:
        assert (program, command) in {("geed-export", "pytorch"), ("geed-onnx", "run")}
        for option in (w for w in words if w.startswith("-")):
            assert re.search(rf"(^|\s){option}[\s,]", known[program]), f"{program} has no {option}"
        if program == "geed-export":
            scheme, _, name = words[0].partition(":")
            assert scheme == "paper"
            assert name in ARCHITECTURES
        else:
            assert (ROOT / words[0]).is_file()
