"""Results in a real MLflow server: every number exact, checkpoints as steps, hostile names, silent servers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gate_tools import HOSTILE, cell, failed

from geed_onnx.errors import GeedError, UsageError
from geed_onnx.gates import Threshold, judge
from geed_onnx.reports import mlflow as module
from geed_onnx.reports.mlflow import SUFFIXES, component, log_to_mlflow, metrics_of, reasons_of, series_label, series_of
from geed_onnx.results import Collection, Result, read_results


def checkpoint(step: int, value: float, seed: int = 0, **more: Any) -> Result:
    result = cell(value, value - 0.01, value + 0.02, model=f"cnn {seed}@{step}", **more)
    return replace(result, model={**result.model, "family": "cnn", "seed": seed, "step": step})


def names(results: list[Result]) -> list[str]:
    return [s.name for s in series_of(results)]


# --- names ------------------------------------------------------------------------------------------------------


def test_parts_are_in_the_name_where_results_differ_in_them() -> None:
    a, b = cell(), cell(data="far/other.parquet")
    assert names([a]) == ["net/C8/scores/softmax"]
    assert names([a, b]) == ["net/digits.parquet/C8/scores/softmax", "net/other.parquet/C8/scores/softmax"]
    assert names([a, replace(a, seed=1)]) == ["net/seed0/C8/scores/softmax", "net/seed1/C8/scores/softmax"]


def test_checkpoints_of_one_training_share_a_name() -> None:
    rows = [checkpoint(step, 0.1, seed) for seed in (0, 1) for step in (0, 100, 200)]
    found = series_of(rows)
    assert [(s.name, s.step) for s in found] == [
        (f"cnn-seed{seed}/C8/scores/softmax", step) for seed in (0, 1) for step in (0, 100, 200)
    ]
    assert not any(s.changed for s in found)


@pytest.mark.parametrize(
    ("label", "step", "shared"),
    [
        ("step200", 200, "step"),
        ("cnn 3@0200", 200, "cnn 3"),
        ("runs/step200.onnx", 200, "runs/step.onnx"),
        ("net-2000-200", 200, "net-2000"),
        ("200", 200, "200"),
        ("net", 5, "net"),
    ],
)
def test_checkpoints_without_a_family(label: str, step: int, shared: str) -> None:
    result = cell(model=label)
    assert series_label(replace(result, model={**result.model, "step": step})) == shared


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/features/relu:0", "features.relu.0"),
        ("map:pixels:l2", "map.pixels.l2"),
        ("..", "_"),
        ("", "_"),
        ("S3@1", "S3_1"),
        ("réseau", "r_seau"),
        ("a\n<b>", "a__b_"),
    ],
)
def test_parts_of_a_name(text: str, said: str) -> None:
    assert component(text) == said


def test_names_that_would_be_one_are_told_apart_whatever_the_order() -> None:
    rows = [
        cell(0.1, tap="a:b"),
        cell(0.2, tap="a/b"),
        cell(0.3, tap="A.b"),
        cell(0.4, variant="x"),
        cell(0.5, variant="x.low"),
        cell(0.6, tap="lone"),
        cell(0.7, tap="n" * 400),
    ]
    found = names(rows)
    assert dict(zip(found, rows, strict=True)) == dict(reversed(list(zip(names(rows[::-1]), rows[::-1], strict=True))))
    full = [name.lower() for name, _, _ in metrics_of(rows, series_of(rows))]
    assert len(set(full)) == len(full) == 3 * len(rows)
    assert found[5] == "net/C8/lone/softmax"
    assert all(re.fullmatch(r"net/C8/.*-[0-9a-f]{8}", n) for i, n in enumerate(found) if i != 5)
    assert max(len(n) + max(map(len, SUFFIXES)) for n in found) == 250


def test_what_is_no_number_is_no_metric_and_the_last_of_two_counts() -> None:
    rows = [cell(0.1), cell(0.2, calibrated=0.5), cell(None, tap="none"), failed(), cell(float("nan"), tap="nan")]
    assert list(metrics_of(rows, series_of(rows))) == [
        ("net/C8/scores/softmax", 0.2, 0),
        ("net/C8/scores/softmax.low", 0.2, 0),
        ("net/C8/scores/softmax.high", 0.2, 0),
        ("net/C8/scores/softmax.calibrated", 0.5, 0),
    ]


# --- what can go wrong ------------------------------------------------------------------------------------------


def test_why_there_is_no_metric_is_told() -> None:
    none = {"calibrated": None, "calibrated_low": None, "calibrated_high": None}
    flat = replace(cell(), calibrated_reason="insensitive: all alike", **none)
    old = replace(checkpoint(100, 0.1), reason="not told from 0", **none)
    found = reasons_of([flat, old, replace(cell(), value=None, reason="zero spread", **none, variant="kl")])
    assert [tuple(row.values()) for row in found] == [
        ("net/C8/scores/softmax.calibrated", 0, "insensitive: all alike"),
        ("cnn-seed0/C8/scores/softmax.calibrated", 100, "not told from 0"),
        ("net/C8/scores/kl", 0, "zero spread"),
        ("net/C8/scores/kl.calibrated", 0, "zero spread"),
    ]


def test_without_mlflow_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(UsageError, match=re.escape("pip install 'geed-onnx[mlflow]'")):
        log_to_mlflow(Collection("runs/x", (cell(),)), "http://127.0.0.1:1")


def test_a_page_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no page to log: .*page\.html"):
        log_to_mlflow(Collection("runs/x", (cell(),)), "http://127.0.0.1:1", page=tmp_path / "page.html")


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = dict(os.environ)
    with module._environment("http://x", 10, 1):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "3"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://x"
    assert dict(os.environ) == before


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("deaf", [False, True])
def test_a_server_that_does_not_answer(deaf: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setattr(module, "FIRST", (2, 1))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        if deaf:  # takes the connection and says nothing
            s.listen(8)
        port = s.getsockname()[1]
        with pytest.raises(GeedError) as caught:
            log_to_mlflow(Collection("runs/x", (cell(),)), f"http://me:secret@127.0.0.1:{port}")
    said = str(caught.value)
    assert said.startswith(f"the MLflow server 'http://127.0.0.1:{port}' does not answer: ")
    assert said.endswith("nothing is lost, the results are at 'runs/x'")
    assert "secret" not in said
    assert "\n" not in said


@pytest.mark.slow
def test_an_address_that_mlflow_does_not_know() -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(GeedError, match="the MLflow server 'bogus://x' refused: "):
        log_to_mlflow(Collection("runs/x", (cell(),)), "bogus://x")


# --- a real server ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("mlflow")
    home = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home}/store.db", "--artifacts-destination", str(home / "artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    with open(home / "log.txt", "wb") as log:
        process = subprocess.Popen(
            command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )  # a session of its own, so that its workers end with it
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, home / "log.txt")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"no MLflow server: {log.read_text(errors='replace')[-2000:]}")


@pytest.mark.slow
def test_everything_reads_back_from_the_server(server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from mlflow.tracking import MlflowClient

    awkward = 0.1 + 0.2, 1e-17, -5e-324, 1 / 3
    rows = [
        *(checkpoint(step, value) for step, value in zip((0, 10, 20, 30), awkward, strict=True)),
        *(checkpoint(step, 0.5, seed=1) for step in (0, 10)),
        cell(0.25, 0.2, 0.3, model=HOSTILE, tap=HOSTILE, calibrated=0.4, calibrated_low=0.3, calibrated_high=0.5),
        cell(0.75, model=HOSTILE, tap=HOSTILE.upper()),
        failed("broken"),
    ]
    page = tmp_path / "page.html"
    page.write_text("<!doctype html>")
    collection = Collection(str(tmp_path / "digits"), tuple(rows), suite="title = 'x'\n")
    verdict = judge(rows, [Threshold("softmax", 1.0)])
    said: list[str] = []
    run_id = log_to_mlflow(collection, server, experiment="digits", page=page, verdict=verdict, notify=said.append)
    assert capfd.readouterr().out == ""  # stdout is data
    assert [s.split(" names")[0] for s in said] == ["MLflow: 2 metric"]

    client = MlflowClient(tracking_uri=server)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "digits")
    place = client.get_experiment_by_name("digits")
    assert place is not None
    assert run.info.experiment_id == place.experiment_id
    assert run.data.params["groups"] == "C8"
    assert run.data.params["data"] == "digits.parquet"
    assert run.data.params["version.geed_onnx"] == "0.1.0"
    assert run.data.params["models"].startswith("cnn 0@0, cnn 0@10, ")
    assert (run.data.tags["geed.failed"], run.data.tags["geed.gate"]) == ("1", "crossed")

    history = client.get_metric_history(run_id, "cnn-seed0/C8/scores/softmax")
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == list(
        zip((0, 10, 20, 30), awkward, strict=True)
    )
    expected = {(n, s): v for n, v, s in metrics_of(rows, series_of(rows))}
    found = {
        (m.key, m.step): m.value
        for name in run.data.metrics
        if not name.startswith("gate.")
        for m in client.get_metric_history(run_id, name)
    }
    assert found == expected
    assert run.data.metrics["gate.crossed"] == 1.0  # the failed cell

    for name in ("results.jsonl", "metric_names.json", "reasons.json", "suite.toml", "gate.md", "page.html"):
        local = Path(client.download_artifacts(run_id, name, str(tmp_path)))
        assert local.stat().st_size > 0
    assert list(read_results(tmp_path / "results.jsonl")) == rows
    really = json.loads((tmp_path / "metric_names.json").read_text())
    assert sorted(parts[1:] for parts in really.values() if parts[0] == HOSTILE) == sorted(
        ["C8", tap, "softmax"] for tap in (HOSTILE, HOSTILE.upper())
    )


@pytest.mark.slow
def test_more_metrics_than_one_request_holds(server: str) -> None:
    from mlflow.tracking import MlflowClient

    rows = [cell(i / 7, tap=f"tap{i}") for i in range(500)]
    run_id = log_to_mlflow(Collection("runs/many", tuple(rows)), server)
    metrics = MlflowClient(tracking_uri=server).get_run(run_id).data.metrics
    assert len(metrics) == 1500
    assert metrics["net/C8/tap499/softmax.high"] == 499 / 7


@pytest.mark.slow
def test_a_run_that_breaks_off_is_marked_failed(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(module, "_artifacts", broken)
    with pytest.raises(GeedError, match="refused: disk full; nothing is lost"):
        log_to_mlflow(Collection("runs/half", (cell(),)), server, experiment="half")
    client = MlflowClient(tracking_uri=server)
    place = client.get_experiment_by_name("half")
    assert place is not None
    assert [r.info.status for r in client.search_runs([place.experiment_id])] == ["FAILED"]
