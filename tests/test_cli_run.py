"""`geed-onnx run` as other programs rely on it: what goes where, exit codes, dry runs, reports, remote folders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from batch_tools import contents, desk, lines
from click.testing import CliRunner
from click.testing import Result as Ran

from geed_onnx.cli import main
from geed_onnx.results import RESULTS, from_json

SUITE = """
title = "Tiny"
groups = ["C4", "flip"]
samples = 6
data = "images.npy"
[measure]
provider = "cpu"
[[models]]
path = "net*.onnx"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    desk(tmp_path, models=2)
    (tmp_path / "suite.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def run(*args: Any) -> Ran:
    return CliRunner().invoke(main, ["run", *(str(a) for a in args)], prog_name="geed-onnx")


# ---- what goes where -----------------------------------------------------------------------------------------------


def test_a_run_shows_networks_side_by_side_and_says_what_it_did(folder: Path) -> None:
    found = run("suite.toml", "-o", "out")
    assert found.exit_code == 0, found.stderr
    assert "C4 · 6 images of images.npy (seed 0)" in found.stdout
    assert re.search(r"net0 .*net1", found.stdout, re.DOTALL)
    assert re.fullmatch(r"run: 24 cells in [\d.]+ s: 24 measured; in out\n", found.stderr)
    assert sorted(p.name for p in (folder / "out").iterdir() if not p.name.startswith(".")) == [
        "deviations.parquet",
        "jackknife.parquet",
        "results.jsonl",
        "run.json",
        "suite.toml",
    ]


def test_json_is_the_lines_of_the_folder_and_nothing_else(folder: Path) -> None:
    found = run("suite.toml", "-o", "out", "--json")
    assert found.exit_code == 0
    assert found.stdout == (folder / "out" / RESULTS).read_text()
    assert len([from_json(line) for line in found.stdout.splitlines()]) == 24


def test_quiet_is_one_line_per_cell_on_stderr(folder: Path) -> None:
    found = run("suite.toml", "-o", "out", "--quiet")
    said = found.stderr.splitlines()
    assert len([line for line in said if line.startswith("cell: ")]) == 24
    assert said[0].startswith("cell: net0 · C4 · ")
    again = run("suite.toml", "-o", "out", "--quiet")
    assert re.fullmatch(r"run: 24 cells in [\d.]+ s: 0 measured, 24 known from before; in out\n", again.stderr)


def test_the_folder_may_stand_in_the_suite(folder: Path) -> None:
    (folder / "suite.toml").write_text('output = "there"\n' + SUITE)
    assert run("suite.toml").exit_code == 0
    assert (folder / "there" / RESULTS).is_file()


def test_a_root_says_where_the_files_are_and_the_same_files_elsewhere_are_known(folder: Path) -> None:
    (folder / "suites").mkdir()
    (folder / "suite.toml").rename(folder / "suites" / "suite.toml")
    for work in ("work", "copy"):
        (folder / work).mkdir()
        for name in ("net0.onnx", "net1.onnx", "images.npy"):
            (folder / work / name).write_bytes((folder / name).read_bytes())
    dry = run("suites/suite.toml", "--root", "work", "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    assert "images of work/images.npy" in dry.stdout
    assert run("suites/suite.toml", "--root", "work", "-o", "work/out").exit_code == 0
    rows = lines(folder / "work" / "out")
    assert {(r["model"]["path"], r["data"]["uri"]) for r in rows} == {
        (f"work/net{i}.onnx", "work/images.npy") for i in (0, 1)
    }
    assert json.loads((folder / "work/out/run.json").read_text())["arguments"]["root"] == "work"
    # the resolved suite is run again without being told; keys are of contents, so that copies are known
    for args in (("work/out/suite.toml",), ("suites/suite.toml", "--root", "copy")):
        again = run(*args, "-o", "work/out")
        assert "24 cells" in again.stderr
        assert "0 measured, 24 known from before" in again.stderr
    here = lines(folder / "work" / "out")
    assert {r["model"]["path"] for r in here} == {"copy/net0.onnx", "copy/net1.onnx"}
    assert [r["value"] for r in here] == [r["value"] for r in rows]


def test_runs_with_other_numbers_of_points_for_m_are_reported_together_and_not_mixed(folder: Path) -> None:
    text = SUITE.replace('path = "net*.onnx"', 'path = "net{seed}.onnx"\nfamily = "net"')
    for points in (5, 15):
        (folder / f"{points}.toml").write_text(text.replace("[measure]", f"[measure]\nspread_samples = {points}"))
        assert run(f"{points}.toml", "-o", f"out{points}").exit_code == 0
    done = CliRunner().invoke(
        main, ["report", "out5", "out15", "-o", "page.html", "--no-gallery", "--means", "means.jsonl"]
    )
    assert done.exit_code == 0, done.output
    means = [json.loads(line) for line in (folder / "means.jsonl").read_text().splitlines()]
    assert {m["of"] for m in means} == {2}
    kept = [(m["group"], m["tap"], m["variant"], m["on"], m["spread_samples"]) for m in means]
    assert len(set(kept)) == len(kept)
    assert {k[4] for k in kept if k[2] == "latent-l2"} == {5, 15}
    # what is not relative to M is the same number in both runs, and counted once
    assert {k[4] for k in kept if k[2] in ("channelwise", "softmax")} == {None}
    assert len(kept) == 2 * 2 * (3 + 3 * 2)
    # such runs can be compared, too
    found = CliRunner().invoke(main, ["compare", "out5", "out15", "--by-name", "--json"])
    assert found.exit_code == 0, found.output
    assert len([json.loads(line) for line in found.stdout.splitlines()]) >= 24


def test_yaml_is_a_suite_too(folder: Path) -> None:
    (folder / "suite.yaml").write_text(
        "groups: [C4, flip]\nsamples: 6\ndata: images.npy\nmeasure: {provider: cpu}\nmodels:\n  - path: net*.onnx\n"
    )
    assert run("suite.yaml", "-o", "out").exit_code == 0
    assert run("suite.toml", "-o", "other").exit_code == 0
    assert contents(folder / "out") == contents(folder / "other")


# ---- exit codes ----------------------------------------------------------------------------------------------------


def test_a_failing_cell_is_exit_code_4_and_the_others_are_there(folder: Path) -> None:
    (folder / "net9.onnx").write_bytes(b"no model")
    found = run("suite.toml", "-o", "out")
    assert found.exit_code == 4
    assert "2 failed" in found.stderr
    assert sum(line["failed"] for line in lines(folder / "out")) == 2
    assert sum(line["value"] is not None for line in lines(folder / "out")) == 24


def test_a_crossed_threshold_is_exit_code_3(folder: Path) -> None:
    found = run("suite.toml", "-o", "out", "--fail-above", "channelwise=-0.9999", "--junit", "gate.xml")
    assert found.exit_code == 3
    assert "crossed" in found.stdout
    assert "<failure" in (folder / "gate.xml").read_text()
    fine = run("suite.toml", "-o", "out", "--fail-above", "channelwise=1")
    assert fine.exit_code == 0
    assert "all" in fine.stdout


def test_thresholds_of_the_suite_and_a_baseline(folder: Path) -> None:
    assert run("suite.toml", "-o", "base").exit_code == 0
    (folder / "gated.toml").write_text(
        'baseline = "base"\n' + SUITE + '\n[[thresholds]]\nvariant = "channelwise"\nworse_by = 0.02\n'
    )
    same = run("gated.toml", "-o", "out")
    assert same.exit_code == 0, same.output
    assert "hold" in same.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nowhere.toml", "-o", "out"], "nowhere.toml"),
        (["suite.toml"], "give a folder with -o DIR"),
        (["suite.toml", "-o", "images.npy"], "is a file; give a folder"),
        (["suite.toml", "-o", "out", "--workers", "0"], "0 is not in the range"),
        (["suite.toml", "-o", "out", "--address", "x:1"], "add --engine ray"),
        (["suite.toml", "-o", "out", "--engine", "spark"], "'local', 'ray'"),
        (["suite.toml", "-o", "out", "--junit", "no/such/gate.xml"], "gate.xml"),
        (["suite.toml", "-o", "out", "--page", "no/such/page.html"], "page.html"),
        (["suite.toml", "-o", "out", "--markdown", "-"], "give it a file"),
        (["suite.toml", "-o", "out", "--fail-above", "softmax=+2%"], "give one with --baseline"),
        (["suite.toml", "-o", "out", "--fail-above", "sofmax=0.1"], "did you mean 'softmax'?"),
        (["suite.toml", "-o", "out", "--baseline", "none", "--fail-above", "softmax=+2%"], "no such file or folder"),
        (["suite.toml", "-o", "out", "--dry-run", "--quiet"], "leave one out"),
        (["suite.toml", "-o", "out", "--root", "wrok"], "root: no such file or folder: 'wrok'"),
        (["suite.toml", "-o", "out", "--root", "images.npy"], "root: expected a folder, 'images.npy' is none"),
        (["suite.toml", "-o", "nosuch://bucket/x"], "nosuch"),
    ],
)
def test_bad_requests_are_one_line_before_anything_is_measured(folder: Path, args: list[str], said: str) -> None:
    found = run(*args)
    assert found.exit_code in (1, 2)
    assert said in found.stderr
    assert "Traceback" not in found.output
    assert not (folder / "out" / RESULTS).exists()


def test_every_fault_of_a_suite_is_a_line(folder: Path) -> None:
    (folder / "bad.toml").write_text(
        'groups = ["C4", "Q8"]\nsample = 5\ndata = "nowhere.npy"\nvariants = ["sofmax"]\n[[models]]\npath = "x*.onnx"\n'
    )
    found = run("bad.toml", "-o", "out")
    assert found.exit_code == 2
    said = found.stderr.splitlines()
    assert all(line.startswith("error: ") for line in said)
    for part in ("groups[1]", "sample", "nowhere.npy", "variants[0]", "models[0].path"):
        assert sum(part in line for line in said) == 1, (part, said)


# ---- dry runs ------------------------------------------------------------------------------------------------------


def test_a_dry_run_prints_cells_passes_and_time_and_writes_nothing(folder: Path) -> None:
    found = run("suite.toml", "--dry-run")
    assert found.exit_code == 0, found.stderr
    assert found.stdout.count("  latent · latent-l2\n") == 4
    assert re.search(r"6 cells, 42 forward passes, about [\d.]+ s", found.stdout)  # 6 × 4 and 18 points of M
    assert re.search(r"4 jobs, 24 cells, 144 forward passes, about [\d.]+ s here", found.stdout)
    assert not (folder / "out").exists()
    real = run("suite.toml", "-o", "out")
    assert real.exit_code == 0
    later = run("suite.toml", "-o", "out", "--dry-run")
    assert "4 jobs, 24 cells, 0 forward passes" in later.stdout


def test_a_dry_run_in_json_counts_what_is_then_run(folder: Path) -> None:
    (folder / "net9.onnx").write_bytes(b"no model")
    found = [json.loads(line) for line in run("suite.toml", "--dry-run", "--json").stdout.splitlines()]
    assert [job["reason"] is None for job in found] == [True] * 4 + [False] * 2
    run("suite.toml", "-o", "out")
    cells = {(r["model"]["name"], r["group"]["name"], r["tap"]["name"], r["variant"]) for r in lines(folder / "out")}
    foreseen = {(j["model"], j["group"], c["tap"], c["variant"]) for j in found for c in j["cells"]}
    assert foreseen == {c for c in cells if c[0] != "net9"}


# ---- reports -------------------------------------------------------------------------------------------------------


def test_the_page_is_written_beside_the_results(folder: Path) -> None:
    found = run("suite.toml", "-o", "out", "--page", "out/page.html", "--fail-above", "channelwise=1")
    assert found.exit_code == 0, found.stderr
    page = (folder / "out" / "page.html").read_text(encoding="utf-8")
    assert "<title>Tiny" in page
    assert "net1" in page


# ---- remote folders, models and images -----------------------------------------------------------------------------


def test_a_remote_folder_is_kept_in_step_and_taken_up_from_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = (folder / "bucket" / "run").as_uri()
    assert run("suite.toml", "-o", there).exit_code == 0
    assert run("suite.toml", "-o", "out").exit_code == 0
    assert contents(folder / "bucket" / "run") == contents(folder / "out")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "another machine"))
    again = run("suite.toml", "-o", there)
    assert "0 measured, 24 known from before" in again.stderr
    (folder / "bucket" / "run" / RESULTS).write_bytes(contents(folder / "out")[RESULTS][:-300])
    mended = run("suite.toml", "-o", there)
    assert "1 measured, 23 known from before" in mended.stderr
    assert contents(folder / "bucket" / "run") == contents(folder / "out")


def test_what_reads_a_run_reads_a_remote_one(folder: Path) -> None:
    there = (folder / "bucket" / "run").as_uri()
    run("suite.toml", "-o", there)

    def called(*args: str) -> Ran:
        return CliRunner().invoke(main, list(args), prog_name="geed-onnx")

    assert called("gate", there, "--fail-above", "channelwise=1").exit_code == 0
    assert called("compare", there).exit_code == 0
    assert called("report", there, "-o", "page.html", "--no-gallery").exit_code == 0
    assert called("gate", (folder / "nowhere").as_uri(), "--fail-above", "channelwise=1").exit_code == 1
    # grown since: nothing old is read again
    (folder / "suite.toml").write_text(SUITE.replace('"C4", ', ""))
    run("suite.toml", "-o", there)
    assert called("gate", there, "--fail-above", "channelwise=1", "--json").stdout.count("\n") == 4


def test_a_folder_in_memory_by_fsspec(folder: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    assert run("suite.toml", "-o", "memory://runs/tiny").exit_code == 0
    fs = fsspec.filesystem("memory")
    with fs.open("/runs/tiny/results.jsonl", "rb") as file:
        remote = file.read()
    assert run("suite.toml", "-o", "out").exit_code == 0
    assert remote == contents(folder / "out")[RESULTS]
    assert "0 measured, 24 known" in run("suite.toml", "-o", "memory://runs/tiny").stderr


def test_remote_models_and_images_are_fetched_with_their_external_data(folder: Path) -> None:
    import onnx_nets as nets

    store = folder / "store"
    store.mkdir()
    nets.external(store / "big.onnx", size=12)
    (folder / "images.npy").rename(store / "images.npy")
    (folder / "remote.toml").write_text(
        f'groups = ["C4"]\nsamples = 6\ndata = "{(store / "images.npy").as_uri()}"\n'
        f'[[models]]\npath = "{(store / "big.onnx").as_uri()}"\n'
    )
    found = run("remote.toml", "-o", "out")
    assert found.exit_code == 0, found.stderr
    [uri] = {line["data"]["uri"] for line in lines(folder / "out")}
    [path] = {line["model"]["path"] for line in lines(folder / "out")}
    assert uri == (store / "images.npy").as_uri()
    assert path == (store / "big.onnx").as_uri()
