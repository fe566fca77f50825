"""A run measures every cell once, loses nothing, and ends the same however often it was killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_nets as nets
import pyarrow.parquet as pq
import pytest
from batch_tools import contents, desk, lines, ran, suite
from process_tools import proc, until, whole_work

from geed_onnx import measure
from geed_onnx.batch import Here, Processes, run_suite, tasks_of
from geed_onnx.batch import workers as workers_file
from geed_onnx.batch.bench import Bench
from geed_onnx.errors import DataError, GeedError, UsageError
from geed_onnx.requests import Data, Model
from geed_onnx.results import DEVIATIONS, JACKKNIFE, JOURNAL, RESULTS, RUN, open_results, place_of
from geed_onnx.suites import load_suite, suite_toml


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return desk(tmp_path)


# ---- what a run is -------------------------------------------------------------------------------------------------


def test_a_run_holds_what_measure_says_of_every_model_and_group(folder: Path) -> None:
    found, log = ran(suite(folder), folder / "run")
    expected = [
        r
        for i in range(3)
        for group in ("C4", "flip")
        for r in measure(
            str(folder / f"net{i}.onnx"), str(folder / "images.npy"), group, samples=6, threads=1, provider="cpu"
        )
    ]
    named = [
        replace(r, model={**r.model, "name": Path(str(r.model["path"])).stem}, data={**r.data, "name": "images"})
        for r in expected
    ]
    assert list(found.results) == named
    assert [json.loads(r.to_json()) for r in named] == lines(folder / "run")
    assert found.measured == len(named)
    assert (found.kept, found.failed) == (0, ())
    # the first two images, orbits, and the spread points that are not of the sample
    assert log.counted == 3 * ((2 + 6 * 4 + 18) + (2 + 6 * 2 + 18))


def test_the_folder_opens_as_a_collection_with_its_tables(folder: Path) -> None:
    ran(suite(folder), folder / "run")
    collection = open_results(folder / "run")
    assert collection.run["state"] == "done"
    assert collection.run["cells"] == {"all": 36, "measured": 36, "kept": 0, "failed": 0}
    assert collection.suite is not None
    for result in collection.results:
        tables = collection.tables(result)
        assert tables is not None
        assert len(tables.deviations) == 6
        assert tables.value is not None
        assert tables.value.value == result.value
        if result.spread is None:
            assert tables.deviations.mean == pytest.approx(result.value, abs=1e-12)
        assert (tables.calibrated is None) == (result.calibrated is None)


def test_duckdb_reads_the_tables_in_one_line(folder: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    ran(suite(folder), folder / "run")
    query = f"""select model, tap, avg(deviation) from '{folder}/run/deviations.parquet'
                where variant = 'channelwise' and "group" = 'C4' group by all"""
    rows = {(m, t): v for m, t, v in duckdb.sql(query).fetchall()}
    values = {
        (r["model"]["name"], r["tap"]["name"]): r["value"]
        for r in lines(folder / "run")
        if r["variant"] == "channelwise" and r["group"]["name"] == "C4"
    }
    assert rows == pytest.approx(values)


def test_cells_of_one_model_and_data_share_a_session_and_its_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import geed_onnx.sessions as sessions

    opened: list[str] = []
    original = sessions.open_session

    def counting(graph: Any, *args: Any) -> Any:
        opened.append(graph.path.name)
        return original(graph, *args)

    monkeypatch.setattr(sessions, "open_session", counting)
    ran(suite(folder, groups=("C4", "flip", "C2"), samples=(4, 6)), folder / "run")
    assert opened == ["net0.onnx", "net1.onnx", "net2.onnx"]


def test_tasks_that_share_a_session_lie_together_whatever_the_order_of_the_suite(folder: Path) -> None:
    tasks = tasks_of(suite(folder, groups=("C4", "flip")))
    shares = [t.shares for t in tasks]
    assert len(set(shares)) == sum(a != b for a, b in zip([None, *shares], shares, strict=False))
    assert sorted(t.number for t in tasks) == list(range(6))


# ---- resuming ------------------------------------------------------------------------------------------------------


def test_a_second_run_measures_nothing_and_changes_no_byte(folder: Path) -> None:
    ran(suite(folder), folder / "run")
    before = contents(folder / "run")
    found, log = ran(suite(folder), folder / "run")
    assert (found.measured, found.kept, log.counted) == (0, 36, 0)
    assert contents(folder / "run") == before


def test_without_the_list_of_done_tasks_cells_are_found_by_their_keys(folder: Path) -> None:
    ran(suite(folder), folder / "run")
    before = contents(folder / "run")
    shutil.rmtree(folder / "run" / JOURNAL)
    found, log = ran(suite(folder), folder / "run")
    assert (found.measured, found.kept, log.counted) == (0, 36, 0)
    assert contents(folder / "run") == before


@pytest.mark.parametrize("keep", [0, 1, 5, 6, 17, 35])
def test_lost_lines_come_back_as_they_were_and_no_other_is_measured(folder: Path, keep: int) -> None:
    ran(suite(folder), folder / "run")
    before = contents(folder / "run")
    path = folder / "run" / RESULTS
    some = before[RESULTS].splitlines(keepends=True)[:keep]
    path.write_bytes(b"".join(some))
    found, _ = ran(suite(folder), folder / "run")
    assert found.measured == 36 - keep
    assert contents(folder / "run") == before


def test_a_line_written_half_is_cut_off_and_measured_again(folder: Path) -> None:
    ran(suite(folder), folder / "run")
    before = contents(folder / "run")
    (folder / "run" / RESULTS).write_bytes(before[RESULTS][:-200])
    found, log = ran(suite(folder), folder / "run")
    assert found.measured == 1
    assert any("written half" in note for note in log.notes)
    assert contents(folder / "run") == before


def test_a_damaged_line_is_said_and_measured_again(folder: Path) -> None:
    ran(suite(folder), folder / "run")
    before = contents(folder / "run")
    some = before[RESULTS].splitlines(keepends=True)
    some[3] = some[3][:100] + b"\x00\xff garbage\n"
    (folder / "run" / RESULTS).write_bytes(b"".join(some))
    found, log = ran(suite(folder), folder / "run")
    assert found.measured == 1
    assert any("1 damaged line(s)" in note for note in log.notes)
    assert contents(folder / "run") == before


@pytest.mark.parametrize("name", [DEVIATIONS, JACKKNIFE])
def test_a_lost_table_is_measured_again(folder: Path, name: str) -> None:
    ran(suite(folder), folder / "run")
    before = contents(folder / "run")
    (folder / "run" / name).unlink()
    found, _ = ran(suite(folder), folder / "run")
    assert found.measured == 36
    assert contents(folder / "run") == before


def test_a_damaged_table_is_said_and_measured_again(folder: Path) -> None:
    ran(suite(folder), folder / "run")
    before = contents(folder / "run")
    (folder / "run" / DEVIATIONS).write_bytes(before[DEVIATIONS][:300])
    found, log = ran(suite(folder), folder / "run")
    assert found.measured == 36
    assert any("deviations.parquet" in note for note in log.notes)
    assert contents(folder / "run") == before


def test_a_larger_suite_measures_only_what_is_new(folder: Path) -> None:
    ran(suite(folder, models=("net0", "net1"), groups=("C4",), variants=("channelwise",)), folder / "run")
    first = {place_of(r): r for r in open_results(folder / "run").results}
    found, _ = ran(suite(folder, variants=("channelwise", "softmax")), folder / "run")
    assert found.kept == len(first) == 4
    later = {place_of(r): r for r in found.results}
    assert {p: later[p] for p in first} == first
    ran(suite(folder, variants=("channelwise", "softmax")), folder / "whole")
    assert contents(folder / "run") == contents(folder / "whole")


def test_a_smaller_suite_keeps_the_other_lines_aside(folder: Path) -> None:
    ran(suite(folder), folder / "run")
    found, log = ran(suite(folder, models=("net1",)), folder / "run")
    assert (found.measured, found.kept) == (0, 12)
    assert {r["model"]["name"] for r in lines(folder / "run")} == {"net1"}
    aside = (folder / "run" / "superseded.jsonl").read_text().splitlines()
    assert len(aside) == 24
    assert any("24 result(s) of an earlier suite" in note for note in log.notes)
    assert {p.as_py() for p in pq.read_table(folder / "run" / DEVIATIONS).column("model").unique()} == {"net1"}


def test_a_renamed_model_is_not_measured_again(folder: Path) -> None:
    ran(suite(folder, models=("net0",)), folder / "run")
    shutil.move(folder / "net0.onnx", folder / "moved.onnx")
    entry = Model(str(folder / "moved.onnx"), "a better name", family="f", seed=3, step=200)
    found, log = ran(suite(folder, models=(entry,)), folder / "run")
    assert (found.measured, found.kept, log.counted) == (0, 12, 0)
    told = {"name": "a better name", "family": "f", "seed": 3, "step": 200}
    assert all({**r["model"]} | told == r["model"] for r in lines(folder / "run"))
    ran(suite(folder, models=(entry,)), folder / "whole")
    assert contents(folder / "run") == contents(folder / "whole")


def test_two_names_for_one_file_are_two_rows_of_equal_numbers(folder: Path) -> None:
    entries = (Model(str(folder / "net0.onnx"), "one"), Model(str(folder / "net0.onnx"), "other"))
    found, _ = ran(suite(folder, models=entries, groups=("C4",)), folder / "run")
    one, other = ([r for r in found.results if r.label == name] for name in ("one", "other"))
    assert len(one) == 6
    assert [(r.key, r.value) for r in one] == [(r.key, r.value) for r in other]


def test_the_same_images_at_two_addresses_are_two_lines(folder: Path) -> None:
    shutil.copy(folder / "images.npy", folder / "same.npy")
    asked = suite(folder, models=("net0",), groups=("C4",))
    asked = replace(asked, data=(*asked.data, Data(str(folder / "same.npy"), "same")))
    for _ in range(2):
        found, _ = ran(asked, folder / "run")
        assert [Path(str(r.data["uri"])).name for r in found.results] == ["images.npy"] * 6 + ["same.npy"] * 6
        assert [r["data"]["uri"] for r in lines(folder / "run")] == [r.data["uri"] for r in found.results]


def test_results_hold_what_the_suite_calls_its_data_and_a_new_name_measures_nothing_again(folder: Path) -> None:
    asked = suite(folder, models=("net0",), groups=("C4",))
    ran(asked, folder / "run")
    assert {r["data"]["name"] for r in lines(folder / "run")} == {"images"}
    called = replace(asked, data=(replace(asked.data[0], name="belt, from above"),))
    found, log = ran(called, folder / "run")
    assert (found.measured, found.kept, log.counted) == (0, 6, 0)
    assert {r["data"]["name"] for r in lines(folder / "run")} == {"belt, from above"}
    ran(called, folder / "whole")
    assert contents(folder / "run") == contents(folder / "whole")
    missing = replace(called, models=(Model(str(folder / "nowhere.onnx"), "gone"),))
    ran(missing, folder / "failed")
    assert {(r["failed"], r["data"]["name"]) for r in lines(folder / "failed")} == {(True, "belt, from above")}


# ---- keys ----------------------------------------------------------------------------------------------------------


def keys_of(asked: Any) -> list[set[str]]:
    bench = Bench()
    return [set(bench.prepare(t).keys.values()) for t in tasks_of(asked)]


def test_a_key_does_not_depend_on_names_batches_threads_or_other_taps(folder: Path) -> None:
    [plain] = keys_of(suite(folder, models=("net0",), groups=("C4",)))
    shutil.copy(folder / "net0.onnx", folder / "copy.onnx")
    shutil.copy(folder / "images.npy", folder / "same.npy")
    other = suite(folder, models=("copy",), groups=("C4",), batch_size=3, threads=2)
    other = replace(other, title="x", data=(replace(other.data[0], source=str(folder / "same.npy"), name="n"),))
    assert keys_of(other) == [plain]
    few = suite(folder, models=(Model(str(folder / "net0.onnx"), "n", taps=("block1", "scores")),))
    [found, _] = keys_of(few)
    assert found < plain


@pytest.mark.parametrize(
    "change",
    [
        {"samples": (7,)},
        {"spread_samples": 9},
        {"reference_samples": 5},
        {"level": 0.9},
        {"floor": True},
        {"mask": "disc"},
        {"interpolation": "nearest"},
        {"groups": ("D4",)},
    ],
    ids=str,
)
def test_a_key_depends_on_everything_the_number_depends_on(folder: Path, change: dict[str, Any]) -> None:
    [plain] = keys_of(suite(folder, models=("net0",), groups=("C4",)))
    [changed] = keys_of(suite(folder, models=("net0",), **({"groups": ("C4",)} | change)))
    if change == {"spread_samples": 9}:
        # only values relative to M depend on its points
        assert len(plain & changed) == len(plain) - 3
    else:
        assert not plain & changed


def test_a_key_depends_on_model_images_and_seed(folder: Path) -> None:
    [plain] = keys_of(suite(folder, models=("net0",), groups=("C4",)))
    [other] = keys_of(suite(folder, models=("net1",), groups=("C4",)))
    [seeded] = keys_of(replace(suite(folder, models=("net0",), groups=("C4",)), seeds=(1,)))
    assert not plain & other
    assert not plain & seeded
    images = np.load(folder / "images.npy")
    order = np.random.default_rng(0).permutation(len(images))
    for place, shared in ((order[3], 0), (order[10], 3)):  # one of the sample; one of the points of M alone
        touched = images.copy()
        touched[place, 0, 0, 0] += 0.001
        np.save(folder / "images.npy", touched)
        [changed] = keys_of(suite(folder, models=("net0",), groups=("C4",)))
        assert len(plain & changed) == shared


def test_external_data_are_part_of_the_key(tmp_path: Path) -> None:
    desk(tmp_path, models=0)
    path = nets.external(tmp_path / "big.onnx", size=12)
    [before] = keys_of(suite(tmp_path, models=("big",), groups=("C4",)))
    [data] = [p for p in tmp_path.iterdir() if p.name.startswith("big") and p != path]
    raw = bytearray(data.read_bytes())
    raw[100] ^= 1
    data.write_bytes(bytes(raw))
    [after] = keys_of(suite(tmp_path, models=("big",), groups=("C4",)))
    assert not before & after


def test_changed_images_are_measured_again(folder: Path) -> None:
    ran(suite(folder, models=("net0",)), folder / "run")
    np.save(folder / "images.npy", np.random.default_rng(7).random((24, 1, 12, 12)).astype(np.float32))
    found, _ = ran(suite(folder, models=("net0",)), folder / "run")
    assert (found.measured, found.kept) == (12, 0)


# ---- failing cells -------------------------------------------------------------------------------------------------


def test_failing_cells_are_rows_with_their_reason_and_the_others_go_on(folder: Path) -> None:
    (folder / "broken.onnx").write_bytes(b"not an onnx file at all")
    models = (
        Model(str(folder / "nowhere.onnx"), "nowhere"),
        "net0",
        "broken",
        Model(str(folder / "net1.onnx"), "typo", taps=("block1", "blokc2")),
    )
    found, _ = ran(suite(folder, models=models, groups=("C4", "D16")), folder / "run")
    failed = {(r.label, r.group["name"], r.tap["name"]): str(r.reason) for r in found.failed}
    assert "no such file" in failed["nowhere", "C4", "*"]
    assert "does not parse" in failed["broken", "C4", "*"]
    assert "did you mean 'block2' or 'block1'?" in failed["typo", "C4", "blokc2"]
    assert len(failed) == 6
    assert all(r.value is None and not math_is_there(r) for r in found.failed)
    good = [r for r in found.results if not r.failed]
    assert {(r.label, r.tap["name"]) for r in good if r.group["name"] == "C4"} >= {
        ("net0", "block2"),
        ("typo", "block1"),
    }
    assert lines(folder / "run")[0]["failed"] is True


def math_is_there(result: Any) -> bool:
    return any(getattr(result, n) is not None for n in ("low", "high", "floor", "null", "calibrated", "per_element"))


def test_a_tap_that_holds_nan_fails_alone(tmp_path: Path) -> None:
    desk(tmp_path, models=0)
    onnx.save(nets.nan_tap(size=12), str(tmp_path / "nan.onnx"))
    entry = Model(str(tmp_path / "nan.onnx"), "nan", taps=("conv", "bad"))
    found, _ = ran(suite(tmp_path, models=(entry,), groups=("C4",)), tmp_path / "run")
    failed = list(found.failed)
    good = [r for r in found.results if not r.failed]
    assert failed
    assert all("holds NaN" in str(r.reason) for r in failed)
    assert good
    assert not {r.tap["name"] for r in failed} & {r.tap["name"] for r in good}


def test_failed_cells_are_tried_again_and_replaced(folder: Path) -> None:
    entries = ("net0", Model(str(folder / "late.onnx"), "late"))
    found, _ = ran(suite(folder, models=entries), folder / "run")
    assert len(found.failed) == 2
    again, _ = ran(suite(folder, models=entries), folder / "run")
    assert (again.measured, again.kept, len(again.failed)) == (0, 12, 2)
    assert len(lines(folder / "run")) == 14
    shutil.copy(folder / "net2.onnx", folder / "late.onnx")
    mended, _ = ran(suite(folder, models=entries), folder / "run")
    assert (mended.measured, mended.kept, len(mended.failed)) == (12, 12, 0)
    ran(suite(folder, models=entries), folder / "whole")
    assert contents(folder / "run") == contents(folder / "whole")


def test_a_model_that_is_away_for_a_while_loses_nothing(folder: Path) -> None:
    ran(suite(folder), folder / "run")
    before = contents(folder / "run")
    (folder / "net1.onnx").rename(folder / "away.onnx")
    found, _ = ran(suite(folder), folder / "run")
    assert [(r.label, r.group["name"]) for r in found.failed] == [("net1", "C4"), ("net1", "flip")]
    assert (found.measured, found.kept) == (0, 36)
    (folder / "away.onnx").rename(folder / "net1.onnx")
    found, log = ran(suite(folder), folder / "run")
    assert (found.measured, found.kept, log.counted) == (0, 36, 0)
    assert contents(folder / "run") == before


def test_a_mistake_of_ours_at_one_model_is_a_row_and_the_others_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Bench.prepare

    def wrong(self: Bench, task: Any) -> Any:
        if task.request.model.name == "net1":
            raise KeyError("never thought of")
        return original(self, task)

    monkeypatch.setattr(Bench, "prepare", wrong)
    found, _ = ran(suite(folder), folder / "run")
    assert {str(r.reason) for r in found.failed} == {
        "unexpected KeyError: 'never thought of' (this is a bug here; please report it)"
    }
    assert found.measured == 24


def test_images_that_change_while_they_are_measured_fail_their_cells_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Bench._printed

    def other(self: Bench, asked: Any, *places: Any) -> tuple[str, str]:
        sample, points = original(self, asked, *places)
        return sample + ("" if asked.group == "C4" else "!"), points

    monkeypatch.setattr(Bench, "_printed", other)
    found, _ = ran(suite(folder), folder / "run")
    assert {r.group["name"] for r in found.failed} == {"flip"}
    assert all("the images changed while they were measured" in str(r.reason) for r in found.failed)
    assert found.measured == 18


def test_missing_images_fail_every_cell_in_one_line_each(folder: Path) -> None:
    (folder / "images.npy").unlink()
    found, _ = ran(suite(folder), folder / "run")
    assert len(found.failed) == 6
    assert all("no such file" in str(r.reason) for r in found.failed)


# ---- the folder ----------------------------------------------------------------------------------------------------


def test_two_runs_into_one_folder_at_once_are_refused(folder: Path) -> None:
    asked = suite(folder)
    refused: list[str] = []

    class Nosy:
        def outcomes(self, *args: Any) -> Any:
            for outcome in Here().outcomes(*args):
                if not refused:
                    with pytest.raises(GeedError, match=r"another run is writing to .*: wait for it to end") as caught:
                        run_suite(asked, str(folder / "run"))
                    refused.append(str(caught.value))
                yield outcome

    run_suite(asked, str(folder / "run"), engine=Nosy())
    assert refused
    assert len(lines(folder / "run")) == 36


@pytest.mark.parametrize("text", ["my own notes\nof another kind\n", "without an end", '{"schema": "other/1"}', "\0\1"])
def test_a_folder_of_something_else_is_left_alone(folder: Path, text: str) -> None:
    (folder / "run").mkdir()
    (folder / "run" / RESULTS).write_text(text)
    with pytest.raises(DataError, match="holds no results"):
        run_suite(suite(folder), str(folder / "run"))
    assert (folder / "run" / RESULTS).read_text() == text


@pytest.mark.parametrize("half", ["", "{", '{"schema": "geed', '{"schema": "geed-result/1", "model": {"pa'])
def test_a_run_killed_within_its_first_line_is_taken_up(folder: Path, half: str) -> None:
    (folder / "run").mkdir()
    (folder / "run" / RESULTS).write_text(half)
    found, log = ran(suite(folder), folder / "run")
    assert found.measured == 36
    assert len(log.notes) == bool(half)


@pytest.mark.parametrize("name", [RESULTS, DEVIATIONS, RUN, "suite.toml", f"{JOURNAL}/x.deviations.parquet", ".lock"])
def test_folders_in_place_of_files_are_errors_in_words(folder: Path, name: str) -> None:
    (folder / "run" / name).mkdir(parents=True)
    if JOURNAL in name:
        ran(suite(folder), folder / "run")  # it is not ours, and in nobody's way
    else:
        with pytest.raises(UsageError, match=r"run"):
            run_suite(suite(folder), str(folder / "run"))


def test_a_file_in_place_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "run").write_text("")
    with pytest.raises(UsageError, match="is a file; give a folder"):
        run_suite(suite(folder), str(folder / "run"))


def test_the_suite_in_the_folder_runs_again_and_finds_everything_done(folder: Path) -> None:
    asked = suite(folder)
    ran(asked, folder / "run")
    text = (folder / "run" / "suite.toml").read_text()
    assert text == suite_toml(asked, folder / "run")
    found, log = ran(load_suite(folder / "run" / "suite.toml"), folder / "run")
    assert (found.measured, log.counted) == (0, 0)


def test_the_record_of_the_run(folder: Path) -> None:
    run_suite(suite(folder), str(folder / "run"), arguments={"workers": 1})
    record = json.loads((folder / "run" / RUN).read_text())
    assert record["schema"] == "geed-run/1"
    assert record["arguments"] == {"workers": 1}
    assert record["providers"] == ["CPUExecutionProvider"]
    assert {"python", "onnx", "numpy"} <= set(record["versions"])
    assert record["machine"]["cores"] >= 1


# ---- several processes ---------------------------------------------------------------------------------------------


def without_threads(raw: bytes) -> list[Any]:
    found = [json.loads(line) for line in raw.splitlines()]
    for line in found:
        line["runtime"].pop("threads", None)
        line["runtime"].pop("workers", None)
    return found


def test_several_processes_come_to_the_same_values(folder: Path) -> None:
    ran(suite(folder), folder / "one")
    notes: list[str] = []
    found, log = ran(suite(folder), folder / "two", engine=Processes(2, notes.append))
    assert found.measured == 36
    assert notes == []
    assert log.counted == 3 * ((2 + 24 + 18) + (2 + 12 + 18))
    one, two = contents(folder / "one"), contents(folder / "two")
    assert one[DEVIATIONS] == two[DEVIATIONS]
    assert one[JACKKNIFE] == two[JACKKNIFE]
    assert without_threads(one[RESULTS]) == without_threads(two[RESULTS])


def die(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingBench(Bench):
    """Dies at net1, the first times that the mark allows."""

    def prepare(self, task: Any) -> Any:
        if (task.request.model.name, task.request.group) == ("net1", "C4"):
            mark = Path(task.request.model.path).with_name("deaths")
            count = int(mark.read_text() or 0) if mark.exists() else 0
            if count < int(Path(task.request.model.path).with_name("allowed").read_text()):
                mark.write_text(str(count + 1))
                die()
        return super().prepare(task)


def dying(*args: Any) -> None:
    """A worker's process; a function of its own, since it is started anew and imports this file."""
    workers_file.Bench = DyingBench  # type: ignore[misc]
    workers_file._work(*args)


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_worker_that_dies_is_replaced_and_its_task_tried_again(
    folder: Path, deaths: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "allowed").write_text(str(deaths))
    monkeypatch.setattr(workers_file, "TARGET", dying)
    notes: list[str] = []
    found, _ = ran(suite(folder), folder / "run", engine=Processes(2, notes.append))
    assert found.failed == ()
    assert len(notes) == deaths
    assert all("was killed by SIGKILL at net1 (C4): tried again" in note for note in notes)
    ran(suite(folder), folder / "whole")
    assert contents(folder / "run")[DEVIATIONS] == contents(folder / "whole")[DEVIATIONS]


def test_a_task_that_always_kills_its_worker_fails_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "allowed").write_text("3")
    monkeypatch.setattr(workers_file, "TARGET", dying)
    notes: list[str] = []
    found, _ = ran(suite(folder), folder / "run", engine=Processes(1, notes.append))
    [failed] = found.failed
    assert (failed.label, failed.group["name"]) == ("net1", "C4")
    assert "was killed by SIGKILL 3 times" in str(failed.reason)
    assert found.measured == 30
    assert len(notes) == 3


# ---- killed at every step of writing -------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands in for a kill: no `except Exception` sees it."""


def killing(monkeypatch: pytest.MonkeyPatch, at: int) -> list[int]:
    """Let the `at`-th change of a file's name, removal or fsync be the last; returns the count so far."""
    count = [0]

    def counted(function: Any) -> Any:
        def step(*args: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] > at:
                raise Killed
            return function(*args, **options)

        return step

    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    return count


@pytest.mark.parametrize("before", ["nothing", "a smaller suite", "a renamed model"])
def test_a_kill_at_any_step_of_writing_changes_nothing_in_the_end(
    tmp_path: Path, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk(tmp_path, models=2)
    asked = suite(tmp_path, models=("net0", "net1"), groups=("C4",))

    def begun(name: str) -> Path:
        if before == "a smaller suite":
            ran(suite(tmp_path, models=("net1",), groups=("C4", "flip")), tmp_path / name)
        elif before == "a renamed model":
            ran(
                suite(tmp_path, models=(Model(str(tmp_path / "net0.onnx"), "old"),), groups=("C4",)),
                tmp_path / name,
            )
        return tmp_path / name

    ran(asked, begun("whole"))
    whole = contents(tmp_path / "whole")
    counted = begun("counted")
    with monkeypatch.context() as patch:
        count = killing(patch, 10_000)
        ran(asked, counted)
        steps = count[0]
    assert steps > 15
    for at in range(0, steps, 1 if before == "nothing" else 3):
        folder = begun(f"run{at}")
        with monkeypatch.context() as patch:
            killing(patch, at)
            with pytest.raises(Killed):
                ran(asked, folder)
        ran(asked, folder)
        assert contents(folder) == whole, at
        left = [p.name for p in (*folder.iterdir(), *(folder / JOURNAL).iterdir())]
        assert {n for n in left if n.startswith(".")} == {".journal", ".lock"}, at


# ---- kill −9 at twenty random moments ------------------------------------------------------------------------------

RUNNER = """
import sys
from geed_onnx.batch import Here, Processes, run_suite
from geed_onnx.suites import load_suite
if __name__ == "__main__":
    engine = Here() if sys.argv[3] == "1" else Processes(2, print)
    run_suite(load_suite(sys.argv[1]), sys.argv[2], engine=engine)
"""


@pytest.mark.slow
@proc
@pytest.mark.parametrize("workers", ["1", "2"])
def test_twenty_kills_lose_and_double_nothing(tmp_path: Path, workers: str) -> None:
    desk(tmp_path, models=6, size=16)
    asked = suite(tmp_path, models=[f"net{i}" for i in range(6)], groups=("C4", "C8", "flip"), samples=(12,))
    (tmp_path / "suite.toml").write_text(suite_toml(asked))
    (tmp_path / "runner.py").write_text(RUNNER)
    command = [sys.executable, str(tmp_path / "runner.py"), str(tmp_path / "suite.toml")]

    def begun(folder: Path) -> subprocess.Popen[bytes]:
        said = [*command, str(folder), workers]
        return subprocess.Popen(said, stderr=subprocess.DEVNULL, start_new_session=True)

    first = begun(tmp_path / "whole")
    work = whole_work(first)
    assert first.returncode == 0
    whole = contents(tmp_path / "whole")
    chance = random.Random(int(workers))
    interrupted = 0
    for kill in range(10):
        target = tmp_path / f"run{kill // 2}"  # each run is killed twice, then ends
        process = begun(target)
        until(process, chance.uniform(0.2, 1.0) * work)
        interrupted += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        if kill % 2:
            subprocess.run([*command, str(target), workers], check=True)
            assert contents(target) == whole
            assert not list(target.glob("*.new")) + list((target / JOURNAL).glob("*.parquet"))
    assert interrupted >= 3, "the kills came after the end: nothing was tried"
