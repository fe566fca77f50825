"""Tables in Parquet read back as they were, whatever file they came through; equal rows are equal bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geed_onnx.errors import DataError
from geed_onnx.estimators import Change, Deviations
from geed_onnx.results import (
    DEVIATIONS,
    JACKKNIFE,
    CellTables,
    Result,
    TableFiles,
    merge_tables,
    open_results,
    place_of,
    write_results,
    write_tables,
)
from geed_onnx.results import tables as module


def result(key: str, label: str = "net", value: float | None = 0.5, **more: Any) -> Result:
    nothing = dict.fromkeys(("low", "high", "optimum", "spread", "floor", "null", "calibrated"))
    return Result(
        model={"path": f"{label}.onnx", "sha256": "0", "producer": "", "name": label},
        data={"uri": "x.npy", "fingerprint": "f", "samples": 3},
        group={"name": "C2", "order": 2},
        tap={"name": "tap", "kind": "map", "shape": [1, 2, 2]},
        variant="channelwise",
        value=value,
        level=0.95,
        method="",
        samples=3,
        calibrated_low=None,
        calibrated_high=None,
        per_element=None,
        law_defect=0.0,
        reason=None,
        seed=0,
        runtime={},
        key=key,
        **{**nothing, **more},
    )


def tables(seed: int, images: int = 3, order: int = 2, *, calibrated: bool = True) -> CellTables:
    rng = np.random.default_rng(seed)
    ids = tuple(f"image-{i}" for i in range(images))
    block = np.array([0, *[1] * (images - 1)], dtype=np.int8)
    changes = (rng.normal(size=images) for _ in range(2))
    return CellTables(
        Deviations(ids, rng.normal(size=(images, order))),
        Change.of(0.5, ids, next(changes), np.maximum(block, 1)),
        Change.of(0.25, ids, next(changes), block) if calibrated else None,
    )


def same(found: CellTables | None, expected: CellTables) -> None:
    assert found is not None
    assert found.deviations == expected.deviations
    for a, b in ((found.value, expected.value), (found.calibrated, expected.calibrated)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert (a.value, a.ids) == (b.value, b.ids)
            assert np.array_equal(a.changes, b.changes)
            assert np.array_equal(a.block, b.block)


def test_a_folder_gives_back_what_was_written(tmp_path: Path) -> None:
    rows = [
        (result("a", calibrated=0.25), tables(0)),
        (result("b"), tables(1, images=5, order=8, calibrated=False)),
        (result("a", "other", calibrated=0.25), tables(2)),
        (result("ü\ud800", "sur\udcffrogate", calibrated=0.25), tables(3)),
    ]
    write_tables(rows, tmp_path / DEVIATIONS, tmp_path / JACKKNIFE)
    write_results(tmp_path / "results.jsonl", [r for r, _ in rows])
    found = open_results(tmp_path)
    for (_, expected), r in zip(rows, found.results, strict=True):
        same(found.tables(r), expected)
    assert found.tables(result("c")) is None


def test_a_plain_file_has_the_tables_beside_it(tmp_path: Path) -> None:
    row = (result("a", calibrated=0.25), tables(0))
    write_results(tmp_path / "mine.jsonl", [row[0]])
    assert open_results(tmp_path / "mine.jsonl").tables(row[0]) is None
    write_tables([row], tmp_path / f"mine.{DEVIATIONS}", tmp_path / f"mine.{JACKKNIFE}")
    same(open_results(tmp_path / "mine.jsonl").tables(row[0]), row[1])


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_merged_bytes_depend_on_rows_and_order_alone(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    rows = [(result(k), tables(i)) for i, k in enumerate("abcdef")]
    order = [place_of(r) for r, _ in rows]

    def merged(name: str, *parts: list[int]) -> tuple[bytes, bytes]:
        folder = tmp_path / name
        folder.mkdir()
        for i, part in enumerate(parts):
            write_tables(
                [rows[j] for j in part], folder / f"{i}.{DEVIATIONS}", folder / f"{i}.{JACKKNIFE}", lasting=False
            )
        for kind in (DEVIATIONS, JACKKNIFE):
            merge_tables([folder / f"{i}.{kind}" for i in range(len(parts))], folder / kind, order)
        return (folder / DEVIATIONS).read_bytes(), (folder / JACKKNIFE).read_bytes()

    whole = merged("whole", [0, 1, 2, 3, 4, 5])
    assert merged("parts", [5, 1], [3], [0, 4, 2]) == whole
    assert merged("twice", [0, 1, 2], [2, 3, 4, 5]) == whole
    again = [tmp_path / "whole" / DEVIATIONS]
    merge_tables(again, tmp_path / f"again.{DEVIATIONS}", order)
    assert (tmp_path / f"again.{DEVIATIONS}").read_bytes() == whole[0]
    merge_tables(again, tmp_path / f"some.{DEVIATIONS}", order[2:4])
    assert list(TableFiles([tmp_path / f"some.{DEVIATIONS}"], [])) == order[2:4]


def test_a_cell_without_a_value_has_deviations_but_no_changes(tmp_path: Path) -> None:
    row = (result("a", value=None), CellTables(Deviations(("i",), np.array([[np.inf, 0.0]]))))
    write_tables([row], tmp_path / DEVIATIONS, tmp_path / JACKKNIFE)
    write_results(tmp_path / "results.jsonl", [row[0]])
    found = open_results(tmp_path).tables(row[0])
    assert found is not None
    assert found.deviations == row[1].deviations
    assert (found.value, found.calibrated) == (None, None)


def test_damaged_and_foreign_files_are_errors_in_words(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = (result("a"), tables(0))
    write_results(tmp_path / "results.jsonl", [row[0]])
    (tmp_path / DEVIATIONS).write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"cannot read '.*deviations\.parquet'"):
        open_results(tmp_path).tables(row[0])
    pq.write_table(pa.table({"other": [1]}), tmp_path / DEVIATIONS)
    with pytest.raises(DataError, match=r"cannot read '.*deviations\.parquet'"):
        open_results(tmp_path).tables(row[0])


def test_a_label_is_the_name_else_the_path() -> None:
    assert result("a").label == "net"
    assert replace(result("a"), model={"path": "x.onnx"}).label == "x.onnx"
