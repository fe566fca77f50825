"""What exporters/README.md shows of PyTorch, run as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from geed_exporters.cli import main

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("  #")[0]
    for line in re.findall(r"^\$ geed-export pytorch (.*)$", TEXT, re.MULTILINE)
    if "--list" in line
]


def test_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [program] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {})
    outputs = [o.name for o in onnx.load(str(tmp_path / "resnet18.onnx")).graph.output]
    assert {"layer1", "layer4.1.conv2"} <= set(outputs)


@pytest.mark.parametrize("command", COMMANDS)
def test_listing_shows_the_default_choice(command: str) -> None:
    result = CliRunner().invoke(main, ["pytorch", *shlex.split(command)])
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [r[3] for r in rows if r[0] == "stage"][-1] == "layer4.2"
    assert {"latent", "scores"} <= {r[0] for r in rows}


def test_there_is_a_command_that_lists() -> None:
    assert COMMANDS
