"""What the tests of the gallery share: a run's folder made of a few measurements."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from geed_onnx.engine import measure_request
from geed_onnx.requests import request_of
from geed_onnx.results import (
    DEVIATIONS,
    JACKKNIFE,
    RESULTS,
    Collection,
    open_results,
    write_results,
    write_tables,
)

Array = np.ndarray[Any, Any]
SHIPPED = Path(__file__).resolve().parents[1] / "models" / "shipped"
DIGITS = SHIPPED / "digits-test.parquet"


def run_folder(
    folder: Path,
    models: Sequence[str | Path],
    data: str | Path,
    groups: Sequence[str] = ("C4",),
    *,
    names: Sequence[str] | None = None,
    constants: dict[str, Array] | None = None,
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> Collection:
    """Measure every model with every group and write what `geed-onnx run` would."""
    given = {"samples": 4, "provider": "cpu", "constants": constants, **(options or {}), **settings}
    rows = []
    for model, name in zip(models, names or [Path(m).stem for m in models], strict=True):
        for group in groups:
            found = measure_request(request_of(str(model), str(data), group, **given))
            rows += [(replace(m.result, model={**m.result.model, "name": name}), m.tables) for m in found]
    folder.mkdir(exist_ok=True)
    write_results(folder / RESULTS, [result for result, _ in rows])
    write_tables(rows, folder / DEVIATIONS, folder / JACKKNIFE)
    return open_results(folder)


def digits() -> dict[str, Array]:
    """The shipped digits as {id: (29, 29) uint8}, read without the library."""
    table = pq.read_table(DIGITS)
    return {
        row["id"]: np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("L")) for row in table.to_pylist()
    }
