"""`geed-onnx gate` as pipelines rely on it: exit codes, thresholds of suite and options, files; docs/ci.md runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from click.testing import Result as Ran
from gate_tools import HOSTILE, cell, failed, folder_of, measured

from geed_onnx.cli import main
from geed_onnx.results import Result, write_results

ROOT = Path(__file__).resolve().parent.parent
DOCS = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def run(*args: Any) -> Ran:
    return CliRunner().invoke(main, ["gate", *map(str, args)], prog_name="geed-onnx")


def refused(code: int, *args: Any) -> str:
    """Return the one line that a request is refused with."""
    done = run(*args)
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def saved(path: Path, *results: Result) -> Path:
    write_results(path, results)
    return path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = cell(0.12, 0.1, 0.14), cell(0.03, 0.02, 0.04, tap="aux"), cell(-0.7, variant="channelwise", optimum=-1.0)
    return saved(tmp_path / "results.jsonl", *rows)


# --- exit codes and stdout --------------------------------------------------------------------------------------


def test_an_open_gate(results: Path) -> None:
    done = run(results, "--fail-above", "softmax=0.2", "--fail-above", "channelwise=-0.5")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("gate: all 3 hold\n")


def test_a_closed_gate(results: Path) -> None:
    done = run(results, "--fail-above", "softmax=0.05")
    assert (done.exit_code, done.stderr) == (3, "")
    assert done.stdout.startswith("gate: 1 of 2 crosses its threshold\n")


def test_the_lower_end_is_judged(results: Path) -> None:
    assert run(results, "--fail-above", "softmax=0.11").exit_code == 0
    assert run(results, "--fail-above", "softmax=0.09").exit_code == 3


def test_undecided_closes_the_gate_only_where_it_must_be_proven(results: Path) -> None:
    """0.12 [0.10, 0.14] and 0.03 [0.02, 0.04]."""
    done = run(results, "--fail-above", "softmax=0.11")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("gate: none of 2 crosses its threshold, 1 shown to hold, 1 undecided\n")
    assert "more images decide, --prove closes the gate until they do" in done.stdout
    done = run(results, "--fail-above", "softmax=0.11", "--prove", "--json")
    assert done.exit_code == 3
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["outcome"], first["crossed"], first["threshold"]["prove"]) == ("undecided", True, True)
    assert first["message"] == "softmax of scores is 0.12 [0.1, 0.14], not shown to be within 0.11"
    assert (second["outcome"], second["crossed"]) == ("holds", False)
    said = run(results, "--fail-above", "softmax=0.11", "--prove").stdout
    assert said.startswith("gate: 1 of 2 crosses its threshold (1 not proven)\n")
    assert run(results, "--fail-above", "softmax=0.14", "--prove").exit_code == 0


def test_the_other_way_round(results: Path, tmp_path: Path) -> None:
    """A network that must tell left from right: too large an invariance crosses at the upper end."""
    assert run(results, "--fail-below", "softmax=0.02").exit_code == 0
    assert run(results, "--fail-below", "scores@softmax=0.13").exit_code == 0
    assert run(results, "--fail-below", "scores@softmax=0.13", "--prove").exit_code == 3
    files = {name: tmp_path / f"gate.{name}" for name in ("junit", "sarif", "markdown")}
    options = [part for name, path in files.items() for part in (f"--{name}", path)]
    done = run(results, "--fail-below", "softmax=0.05", "--json", *options)
    assert done.exit_code == 3
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["outcome"], second["outcome"]) == ("holds", "crossed")
    assert (second["threshold"]["above"], second["threshold"]["below"], second["limit"]) == (None, 0.05, 0.05)
    assert second["message"] == "softmax of aux is 0.03 (at most 0.04), below 0.05"
    root = ET.parse(files["junit"]).getroot()
    assert [f.get("message") for f in root.iter("failure")] == [second["message"]]
    assert str(next(root.iter("testcase")).get("name")).startswith("softmax≥0.05 | scores")
    [log] = json.loads(files["sarif"].read_text(encoding="utf-8"))["runs"]
    [rule] = log["tool"]["driver"]["rules"]
    assert (rule["id"], rule["shortDescription"]["text"]) == ("below/softmax", "softmax: at least 0.05")
    assert "judged at the upper end" in rule["fullDescription"]["text"]
    assert "| value | 0.030 | 0.040 | ≥ 0.050 | ❌ crossed |" in files["markdown"].read_text(encoding="utf-8")


def test_family_wise_holds_many_cells_to_the_chance_of_one(tmp_path: Path) -> None:
    """80 cells of which one is 2.2 standard errors above its limit: alone it crosses, among 80 it does not."""
    t = 2.0096  # of 49 degrees of freedom
    ends = [(0.1 * z, 0.1 * (z - t), 0.1 * (z + t)) for z in (2.2, *[-3.0] * 79)]
    path = saved(tmp_path / "results.jsonl", *(cell(*e, tap=f"t{i}") for i, e in enumerate(ends)))
    assert run(path, "--fail-above", "softmax=0").exit_code == 3
    done = run(path, "--fail-above", "softmax=0", "--family-wise", "--json")
    assert done.exit_code == 0
    first = json.loads(done.stdout.splitlines()[0])
    assert (first["outcome"], first["family"], first["judged_level"]) == ("undecided", 80, pytest.approx(1 - 0.05 / 80))
    assert first["message"].endswith(
        "; judged at 99.9375 % among 80 cells (Holm, from the printed interval by Student's t)"
    )
    assert run(path, "--fail-above", "softmax=0", "--family-wise", "--prove").exit_code == 3


def test_a_suite_can_ask_for_all_of_it(tmp_path: Path) -> None:
    suite = '[[thresholds]]\nvariant = "softmax"\nbelow = 0.05\nprove = true\nfamily_wise = true\n'
    folder_of(tmp_path / "run", [measured(images(1))], suite)
    done = run(tmp_path / "run", "--json")
    [line] = done.stdout.splitlines()
    told = json.loads(line)["threshold"]
    assert (told["below"], told["prove"], told["family_wise"]) == (0.05, True, True)
    assert told["text"] == "softmax≥0.05 (prove, family-wise)"


def test_one_tap(results: Path) -> None:
    assert run(results, "--fail-above", "aux@softmax=0.05").exit_code == 0
    assert run(results, "--fail-above", "scores@softmax=0.05").exit_code == 3


def test_failed_cells(tmp_path: Path) -> None:
    path = saved(tmp_path / "results.jsonl", cell(0.1), failed("broken", variant="channelwise"))
    assert run(path, "--fail-above", "softmax=0.2").exit_code == 4
    told = run(path, "--fail-above", "softmax=0.2", "--json")
    assert (told.exit_code, len(told.stdout.splitlines())) == (4, 1)
    assert told.stderr == "warning: no threshold is for a failed cell of broken, C8: the file is gone\n"
    assert run(path, "--fail-above", "softmax=0.05").exit_code == 3
    assert run(path, "--fail-above", "channelwise=1").exit_code == 3
    whole = saved(tmp_path / "whole.jsonl", cell(0.1), failed("broken"))
    assert run(whole, "--fail-above", "softmax=0.2").exit_code == 3


def test_one_object_a_line(results: Path) -> None:
    done = run(results, "--fail-above", "softmax=0.05", "--json")
    assert (done.exit_code, done.stderr) == (3, "")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["tap"], r["outcome"]) for r in records] == [("scores", "crossed"), ("aux", "holds")]


def test_markdown_on_stdout(results: Path) -> None:
    done = run(results, "--fail-above", "softmax=0.05", "--markdown", "-")
    assert (done.exit_code, done.stderr) == (3, "")
    assert done.stdout.startswith("### ❌ geed-onnx gate: 1 of 2 crosses its threshold\n")
    assert "gate:" not in done.stdout.split("\n", 1)[1]


def test_reports_are_written_though_the_gate_is_closed(results: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"gate.{name}" for name in ("junit", "sarif", "markdown")}
    options = [part for name, path in files.items() for part in (f"--{name}", path)]
    assert run(results, "--fail-above", "softmax=0.05", *options).exit_code == 3
    assert ET.parse(files["junit"]).getroot().get("failures") == "1"
    assert len(json.loads(files["sarif"].read_text())["runs"][0]["results"]) == 1
    assert files["markdown"].read_text().startswith("### ❌")


def test_names_of_others_on_a_terminal(tmp_path: Path) -> None:
    path = saved(tmp_path / "results.jsonl", cell(0.9, model=HOSTILE, tap=HOSTILE), failed(HOSTILE, reason=HOSTILE))
    done = run(path, "--fail-above", "softmax=0.1")
    assert done.exit_code == 3
    assert all(c.isprintable() or c == "\n" for c in done.stdout)


# --- the suite and the baseline ---------------------------------------------------------------------------------

SUITE = """
title = "test"
models = ["not/on/this/machine.onnx"]
{head}
[[thresholds]]
variant = "softmax"
{limit}
"""


def images(factor: float) -> np.ndarray[Any, Any]:
    return np.random.default_rng(4).gamma(2.0, 0.1, 40) * factor


def test_thresholds_of_the_suite_and_of_the_command_line(tmp_path: Path) -> None:
    folder_of(tmp_path / "run", [measured(images(1))], SUITE.format(head="", limit="above = 1"))
    assert run(tmp_path / "run").exit_code == 0
    assert run(tmp_path / "run", "--fail-above", "softmax=0.01").exit_code == 3  # both are held
    folder_of(tmp_path / "run", [measured(images(1))], SUITE.format(head="", limit="above = 0.01"))
    assert run(tmp_path / "run", "--fail-above", "softmax=1").exit_code == 3
    assert run(tmp_path / "run" / "results.jsonl", "--fail-above", "softmax=1").exit_code == 0  # a file has no suite


def test_worse_than_a_baseline_in_pairs(tmp_path: Path) -> None:
    folder_of(tmp_path / "old", [measured(images(1.0))])
    folder_of(tmp_path / "new", [measured(images(1.05))])
    ask = (tmp_path / "new", "--baseline", tmp_path / "old", "--json")
    for limit, code in (("+2%", 3), ("+10%", 0)):
        done = run(*ask, "--fail-above", f"softmax={limit}")
        assert done.exit_code == code
        assert json.loads(done.stdout)["paired"] is True
    bare = tmp_path / "new" / "results.jsonl"
    (tmp_path / "plain.jsonl").write_bytes(bare.read_bytes())
    done = run(tmp_path / "plain.jsonl", *ask[1:], "--fail-above", "softmax=+2%")
    assert (done.exit_code, json.loads(done.stdout)["paired"]) == (0, False)


@pytest.mark.parametrize("root", [None, "..", "{tmp_path}", "no/such/folder"])
def test_the_baseline_of_the_suite(tmp_path: Path, root: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "old", [measured(images(1.0))])
    place = "../old" if root is None else "old"
    head = f'baseline = "{place}"' + ("" if root is None else f'\nroot = "{root.format(tmp_path=tmp_path)}"')
    folder_of(tmp_path / "new", [measured(images(1.05))], SUITE.format(head=head, limit="worse_by = 0.02"))
    # where the suite's root is gone, as on another machine, it is looked for from here
    monkeypatch.chdir(tmp_path if root == "no/such/folder" else tmp_path.parent)
    assert run(tmp_path / "new").exit_code == 3
    other = folder_of(tmp_path / "other", [measured(images(1.04))])
    assert run(tmp_path / "new", "--baseline", other.uri).exit_code == 0


# --- what cannot be meant ---------------------------------------------------------------------------------------


def test_nothing_to_hold_it_against(results: Path, tmp_path: Path) -> None:
    assert "nothing to hold" in refused(2, results)
    said = refused(2, results, "--prove")
    assert "give --fail-above or --fail-below VARIANT=NUMBER, or [[thresholds]] in the suite" in said
    folder_of(tmp_path / "run", [measured(images(1))], "title = 'x'\n")
    assert "nothing to hold" in refused(2, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--fail-above", "sofmax=1"], 2, "unknown variant 'sofmax': did you mean 'softmax'?"),
        (["--fail-above", "softmax"], 2, "--fail-above 'softmax': expected VARIANT=NUMBER, as in softmax=0.05"),
        (["--fail-below", "softmax"], 2, "--fail-below 'softmax': expected VARIANT=NUMBER, as in softmax=0.05"),
        (["--fail-below", "softmax=low"], 2, "--fail-below 'softmax=low': expected VARIANT=NUMBER, got 'low' as the n"),
        (["--fail-below", "softmax=+2%"], 2, "--fail-below 'softmax=+2%': expected a number; what is relative to a ba"),
        (["--fail-below", "latent-l2=1"], 2, "threshold latent-l2≥1 is for none of the results: variant 'latent-l2'"),
        (["--fail-above", "softmax=1", "--prov"], 2, "no such option '--prov': did you mean '--prove'"),
        (["--fail-above", "latent-l2=1"], 2, "threshold latent-l2=1 is for none of the results: variant 'latent-l2'"),
        (["--fail-above", "scoers@softmax=1"], 2, "tap 'scoers' is not among them: did you mean 'scores'?"),
        (["--fail-above", "softmax=+2%"], 2, "threshold softmax=+2% is relative to a baseline, and none is given"),
        (["--fail-above", "softmax=+2%", "--baseline", "none.jsonl"], 1, "no such file or folder: 'none.jsonl'"),
        (["--fail-above", "softmax=1", "--json", "--markdown", "-"], 2, "--json and --markdown - both write to stdout"),
        (["--fail-above", "softmax=1", "--junit", "x", "--sarif", "./x"], 2, "'x' is given for two reports"),
        (["--fail-above", "softmax=1", "--junit", "no/x.xml"], 2, "cannot write 'no/x.xml': there is no folder 'no'"),
        (["--fail-above", "softmax=1", "--sarif", "."], 2, "cannot write '.': it is a folder"),
        (["--fail-abov", "softmax=1"], 2, "no such option '--fail-abov': did you mean '--fail-above'"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_meant(
    results: Path, options: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    assert said in refused(code, results, *options)
    assert os.listdir() == ["results.jsonl"]


def test_results_that_are_none(tmp_path: Path) -> None:
    limit = "--fail-above", "softmax=1"
    assert "no such file or folder" in refused(1, tmp_path / "none", *limit)
    assert "holds no results.jsonl" in refused(1, tmp_path, *limit)
    (tmp_path / "bad.jsonl").write_text("{}\n")
    assert "bad.jsonl, line 1: expected a result of schema" in refused(1, tmp_path / "bad.jsonl", *limit)
    (tmp_path / "empty.jsonl").write_text("")
    assert "softmax=1: there are no results" in refused(2, tmp_path / "empty.jsonl", *limit)
    folder_of(tmp_path / "run", [measured(images(1))], "[[thresholds]]\nvariant = 3\nabove = 1\n")
    assert "suite.toml: thresholds[0].variant: expected a text, got 3" in refused(1, tmp_path / "run")


def test_a_baseline_that_is_needed_by_none_is_not_opened(results: Path) -> None:
    assert run(results, "--fail-above", "softmax=1", "--baseline", "none.jsonl").exit_code == 0


# --- measure, with the same thresholds --------------------------------------------------------------------------


def test_measure_takes_the_same_thresholds(tmp_path: Path) -> None:
    from geed_onnx.cli.measuring import judged, limits_of
    from geed_onnx.engine import Measured
    from geed_onnx.errors import UsageError

    def limits(*above: str, below: tuple[str, ...] = (), **flags: bool) -> Any:
        given = {"fail_above": above, "fail_below": below, "prove": False, "family_wise": False}
        return limits_of(given | flags, [])

    results = [cell(0.3, calibrated=0.2, calibrated_low=0.15, calibrated_high=0.25), cell(0.01, tap="aux")]
    rows = [Measured(r, measured(images(1))[1]) for r in results]
    assert [j.message for j in judged(rows, limits("scores@softmax=0.1", "aux@softmax=0.1")).crossed] == [
        "softmax of scores is 0.3 (at least 0.3), above 0.1"
    ]
    assert [j.message for j in judged(rows[:1], limits("calibrated:softmax=0.1")).crossed] == [
        "calibrated softmax of scores is 0.2 (at least 0.15), above 0.1"
    ]
    assert [j.message for j in judged(rows, limits(below=("softmax=0.1",))).crossed] == [
        "softmax of aux is 0.01 (at most 0.01), below 0.1"
    ]
    [proven] = judged(rows[:1], limits("calibrated:softmax=0.2", prove=True)).judged
    assert (proven.outcome, proven.crossed) == ("undecided", True)
    assert limits() == []
    with pytest.raises(UsageError, match=r"--fail-above 'softmax=\+2%': a limit relative to a baseline is held by"):
        limits("softmax=+2%")
    with pytest.raises(UsageError, match=r"--fail-above 'a@softmax=2': a@softmax has a limit already; give one"):
        limits("a@softmax=1", "softmax=1", "a@softmax=2")
    with pytest.raises(UsageError, match=r"--fail-below 'softmax=2': softmax has a limit already; give one"):
        limits(below=("softmax=1", "softmax=2"))
    assert len(limits("softmax=2", below=("softmax=1",))) == 2
    for flags, said in (
        ({"prove": True}, "--prove"),
        ({"prove": True, "family_wise": True}, "--prove and --family-wise"),
    ):
        with pytest.raises(UsageError) as caught:
            limits(**flags)
        assert str(caught.value) == f"{said}: there is no limit to hold a value against; add --fail-above V=X"


# --- docs/ci.md -------------------------------------------------------------------------------------------------

PIPELINES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)]


def steps(pipeline: dict[str, Any]) -> list[str]:
    if "jobs" in pipeline:
        return [step["run"] for step in pipeline["jobs"]["gate"]["steps"] if "run" in step]
    [job] = pipeline.values()
    return [str(line) for line in job["script"]]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "geed-onnx"
    tool.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m geed_onnx "$@"\n')
    tool.chmod(0o755)
    return tmp_path


def ran(step: str, desk: Path) -> subprocess.CompletedProcess[str]:
    path = f"{desk / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "GITHUB_STEP_SUMMARY": str(desk / "summary.md")}
    # as the runners of both do it
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step],
        cwd=desk,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_are_two_pipelines() -> None:
    assert ["jobs" in p for p in PIPELINES] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES, ids=["github", "gitlab"])
def test_the_pipelines_of_the_documentation_run(pipeline: dict[str, Any], desk: Path) -> None:
    commands = [s for s in steps(pipeline) if not s.startswith("pip ")]
    assert len(commands) == 3
    for step in commands:
        done = ran(step, desk)
        assert done.returncode == 0, done.stderr
    assert ET.parse(desk / "gate.xml").getroot().get("failures") == "0"
    if "jobs" in pipeline:
        assert (desk / "summary.md").read_text(encoding="utf-8").startswith("### ✅ geed-onnx gate: all ")
        assert json.loads((desk / "gate.sarif").read_text(encoding="utf-8"))["runs"][0]["results"] == []
    # and it is a gate: an untrained network does not come through
    swapped = [
        re.sub(r"shipped/digits-cnn(-int8)?\.onnx(?!.*baseline)", "shipped/digits-cnn-untrained.onnx", s)
        for s in commands
    ]
    codes = [ran(step, desk).returncode for step in swapped]
    assert 3 in codes
    assert set(codes) == {0, 3}


def test_the_program_of_the_documentation_runs(desk: Path) -> None:
    [program] = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    [suite] = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
    wide = cell(0.3, calibrated=0.2, calibrated_low=0.1, calibrated_high=0.3)
    folder_of(desk, [(replace(wide, model={**wide.model, "name": "digits-x"}), measured(images(1))[1])], suite)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=desk,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "digits-x calibrated softmax of scores is 0.2 (at least 0.1), above 0.05\n"
    assert ET.parse(desk / "gate.xml").getroot().get("failures") == "1"
    assert run(desk).exit_code == 3  # the suite's own threshold
