"""The README's own commands and programs, and what it claims of the demo."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
CONSOLE = [
    command
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for command in re.findall(r"^\$ (.*)$", block.replace("\\\n", " "), re.MULTILINE)
]
#: Commands that set environments up, or that name the reader's own files.
OTHERS = (
    "make ",
    "pip ",
    "geed-export ",
    "geed-onnx measure model.onnx --data photos/",
    "geed-onnx measure resnet50.onnx",
)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader sits: the models, the suite that the text shows, and the run of `make demo`."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "models").symlink_to(ROOT / "models")
    suite = TEXT.split("<!-- suite:start -->")[1].split("<!-- suite:end -->")[0]
    (folder / "suite.toml").write_text(suite.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    done = ran([sys.executable, "-m", "geed_onnx", "run", "models/demo.toml", "-o", "runs/demo"], folder)
    assert done.returncode == 0, done.stderr
    return folder


def ran(arguments: list[str], desk: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        arguments, cwd=desk, env=environment, capture_output=True, text=True, check=False, encoding="utf-8"
    )


def test_there_are_programs_and_commands() -> None:
    assert len(PROGRAMS) == 3
    assert sum(c.startswith("geed-onnx") for c in CONSOLE) >= 7


@pytest.mark.parametrize("program", PROGRAMS, ids=["measure", "duckdb", "extend"])
def test_programs_run(program: str, desk: Path) -> None:
    done = ran([sys.executable, "-c", program], desk)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("command", [c for c in CONSOLE if not c.startswith(OTHERS)])
def test_commands_run(command: str, desk: Path) -> None:
    words = shlex.split(command.split("  #")[0], comments=True)
    assert words[0] == "geed-onnx"
    done = ran([sys.executable, "-m", "geed_onnx", *words[1:]], desk)
    assert done.returncode == 0, done.stderr
    if "-o" in words:
        assert (desk / words[words.index("-o") + 1]).stat().st_size > 0


@pytest.mark.parametrize("command", [c for c in CONSOLE if c.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_table_is_the_demos(desk: Path) -> None:
    """The README shows what the demo prints: the same rows, and values to two digits."""
    printed = ran([sys.executable, "-m", "geed_onnx", "demo"], desk)
    assert printed.returncode == 0, printed.stderr
    shown = TEXT.split("<!-- demo:start -->")[1].split("<!-- demo:end -->")[0]

    def rows(text: str) -> list[tuple[str, str, float]]:
        found = re.findall(r"^(block\d|latent|scores) +(\S+) +(-?[\d.e-]+)", text, re.MULTILINE)
        return [(tap, variant, float(value)) for tap, variant, value in found]

    now, then = rows(printed.stdout), rows(shown)
    assert len(then) == 20
    assert [r[:2] for r in now] == [r[:2] for r in then]
    assert [r[2] for r in now] == pytest.approx([r[2] for r in then], abs=5e-3)


def test_the_networks_side_by_side_are_the_demos(desk: Path) -> None:
    printed = ran([sys.executable, "-m", "geed_onnx", "demo"], desk).stdout
    shown = TEXT.split("<!-- demo-side-by-side:start -->")[1].split("<!-- demo-side-by-side:end -->")[0]

    def rows(text: str) -> list[tuple[str, list[float | None]]]:
        found = re.findall(r"^(\S.*?) {2,}((?: *(?:-?\d[\d.e-]*|–(?:\(\d+\))?))+)$", text, re.MULTILINE)
        return [(name, [None if n.startswith("–") else float(n) for n in numbers.split()]) for name, numbers in found]

    networks = rows(shown)
    assert len(networks) == 18  # calibrated and raw
    now = dict(enumerate(r for r in rows(printed.split("unrelated images (channelwise")[1])))
    for i, (name, values) in enumerate(networks):
        assert now[i][0] == name
        assert len(values) == 8
        assert [v is None for v in values] == [v is None for v in now[i][1]]
        both = [(a, b) for a, b in zip(values, now[i][1], strict=True) if a is not None]
        assert [a for a, _ in both] == pytest.approx([b for _, b in both], abs=5e-3)
    # what the prose says of them
    calibrated = dict(networks[:9])
    by_construction, naively = (calibrated[n] for n in ("escnn C8-CNN", "escnn C8-CNN, read naively"))
    assert max(abs(v) for v in by_construction[:6] if v is not None) < 0.05
    assert min(v for v in naively[:6] if v is not None) > 0.85
    apart = re.search(r"Keras differ from PyTorch by (\S+) in any", printed)
    assert apart is not None
    assert float(apart[1]) < 1e-4


def test_what_the_text_says_of_the_demo_stands_in_its_table() -> None:
    """Raw and calibrated values of block6 disagree, and the prose quotes them."""
    shown = TEXT.split("<!-- demo:start -->")[1].split("<!-- demo:end -->")[0]
    trained, untrained = (line.split() for line in shown.splitlines() if line.startswith("block6"))
    assert float(untrained[2]) < float(trained[2])
    assert float(untrained[8]) > float(trained[8])
    prose = TEXT.split("**Why the raw value misleads.**")[1].split("\n\n")[0].replace("−", "-")
    for quoted in (trained[2], untrained[2], f"{float(trained[8]):.2f}", untrained[7]):
        assert quoted in prose, quoted
