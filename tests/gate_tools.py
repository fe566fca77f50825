"""What the tests of the gate share: results made by hand, and folders of them with their tables."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geed_onnx.estimators import Change, Deviations, Tables, interval, normalisers, value_change, value_of
from geed_onnx.results import (
    DEVIATIONS,
    JACKKNIFE,
    RESULTS,
    SUITE,
    CellTables,
    Collection,
    Result,
    open_results,
    write_results,
    write_tables,
)

Array = np.ndarray[Any, Any]
HOSTILE = (
    "<script>alert(1)</script>|`x`|@team #1 www.a.b\n| a | *b* _c_ [l](http://u) \\| \x1b[31m\x00\ud800 &amp; $x$ --"
)


def cell(
    value: float | None = 0.1,
    low: float | None = None,
    high: float | None = None,
    *,
    model: str = "net",
    tap: str = "scores",
    variant: str = "softmax",
    group: str = "C8",
    data: str = "digits.parquet",
    **more: Any,
) -> Result:
    """One result; low and high are the value where they are not given."""
    known: dict[str, Any] = {
        "model": {"name": model, "path": f"models/{model}.onnx", "sha256": "0" * 64, "producer": "test"},
        "data": {"uri": data, "fingerprint": f"print of {data}", "samples": 50, "mask": None},
        "group": {"name": group, "order": 8},
        "tap": {"name": tap, "kind": "probability", "shape": [10], "module": None},
        "variant": variant,
        "value": value,
        "low": value if low is None else low,
        "high": value if high is None else high,
        "level": 0.95,
        "method": "by hand",
        "samples": 50,
        "optimum": 0.0,
        "spread": None,
        "floor": 0.0,
        "null": 1.0,
        "calibrated": None,
        "calibrated_low": None,
        "calibrated_high": None,
        "per_element": None,
        "law_defect": 0.0,
        "reason": None,
        "seed": 0,
        "runtime": {"provider": "CPUExecutionProvider", "geed_onnx": "0.1.0"},
        "key": f"{model}/{tap}/{variant}/{group}/{data}",
    }
    return Result(**(known | more))


def failed(model: str = "net", *, tap: str = "*", variant: str = "*", reason: str = "the file is gone") -> Result:
    """The row of a cell that could not be measured; `*` stands for all taps, all variants."""
    return replace(
        cell(None, model=model, tap=tap, variant=variant, reason=reason, failed=True),
        optimum=None,
        floor=None,
        null=None,
    )


def collected(*results: Result, uri: str = "runs/old") -> Collection:
    return Collection(uri, results)


def measured(per_image: Sequence[float] | Array, key: str | None = None, **names: Any) -> tuple[Result, CellTables]:
    """A result of a variant without a normaliser, of one image's deviation each (the same for both elements).

    The key is of the numbers, as it is of everything they depend on.
    """
    values = np.asarray(per_image, dtype=np.float64)
    ids = [f"image {i:04d}" for i in range(len(values))]
    table = Deviations.of(ids, np.stack([values * 0.5, values * 1.5], axis=1))
    tables = Tables(table, normalisers["none"], 0.0, float("inf"))
    estimate, change = value_of(tables, 0.95), value_change(tables)
    told = hashlib.sha256(values.tobytes()).hexdigest() if key is None else key
    result = cell(estimate.value, estimate.low, estimate.high, samples=len(values), key=told, **names)
    return result, CellTables(table, change)


def folder_of(
    path: Path, rows: Sequence[tuple[Result, CellTables]], suite: str | None = None, *, tables: bool = True
) -> Collection:
    """The folder of a run that holds these."""
    path.mkdir(parents=True, exist_ok=True)
    write_results(path / RESULTS, [r for r, _ in rows])
    if tables:
        write_tables([(r, t) for r, t in rows if not r.failed], path / DEVIATIONS, path / JACKKNIFE)
    if suite is not None:
        (path / SUITE).write_text(suite, encoding="utf-8")
    return open_results(path)


def with_calibrated(
    row: tuple[Result, CellTables], changes: Mapping[str, float], value: float
) -> tuple[Result, CellTables]:
    """The same row with a calibrated value, and what leaving each image out changes in it."""
    result, tables = row
    ids = tuple(sorted(changes))
    change = Change.of(value, ids, np.array([changes[i] for i in ids]), np.ones(len(ids)))
    e = interval(change, 0.95, len(ids))
    calibrated = replace(result, calibrated=value, calibrated_low=e.low, calibrated_high=e.high)
    return calibrated, replace(tables, calibrated=change)
