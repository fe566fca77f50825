"""What numbers are made of, in Parquet: deviations by image and element, and what leaving each image out changes.

``deviations.parquet`` has one row per model, tap, variant, image, element; ``jackknife.parquet`` one per model, tap,
variant, image.  Rows of one cell lie together, images sorted, elements in order.  Both start with the same columns
(`NAMES`), so that any reader can join them with the results.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geed_onnx.errors import DataError, UsageError
from geed_onnx.estimators import REFERENCE, SAMPLE, Change, Deviations
from geed_onnx.results.record import Result

if TYPE_CHECKING:
    import pyarrow as pa

DEVIATIONS, JACKKNIFE = "deviations.parquet", "jackknife.parquet"
#: Columns that say whose a row is; `cell` is the result's `key`, `model` its label.
NAMES = ("cell", "model", "data", "group", "tap", "variant")
#: Rows of one row group.
CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class CellTables:
    """What one number is made of.

    Attributes
    ----------
    deviations : Deviations
        m(f(gx), ρ(g) f̂(x)) by image and element.
    value, calibrated : Change or None
        What leaving each image out changes in the value and in the calibrated value; None where there is none.
    """

    deviations: Deviations
    value: Change | None = None
    calibrated: Change | None = None


Row = tuple[Result, CellTables]
Place = tuple[str, str]


def place_of(result: Result) -> Place:
    """Return what finds a result's rows: its key and its model's label."""
    return str(result.key), result.label


def write_tables(rows: Iterable[Row], deviations: Path, jackknife: Path) -> None:
    """Write both files of these cells, each whole or not at all, fsynced, the jackknife last.

    Raises
    ------
    UsageError
        If they cannot be written.
    """
    some = list(rows)
    _write(deviations, deviations_schema(), map(_deviation_columns, some))
    _write(jackknife, jackknife_schema(), map(_jackknife_columns, some))


def merge_tables(parts: Sequence[Path], target: Path, order: Sequence[Place]) -> None:
    """Write the rows of several files as one, in the order of `order`; rows of other cells are left out."""
    import pyarrow as pa

    found = {place: (table, rows) for path in parts for place, table, rows in _cells_of(path)}
    schema = jackknife_schema() if target.name.endswith(JACKKNIFE) else deviations_schema()
    pieces = (found[place][0].slice(*found[place][1]) for place in order if place in found)
    _write(target, schema, ({n: pa.chunked_array(t.column(n)) for n in schema.names} for t in pieces))


def deviations_schema() -> pa.Schema:
    """Return the columns of ``deviations.parquet``."""
    import pyarrow as pa

    names = [(n, pa.string()) for n in NAMES]
    return pa.schema([*names, ("image", pa.string()), ("element", pa.int32()), ("deviation", pa.float64())])


def jackknife_schema() -> pa.Schema:
    """Return the columns of ``jackknife.parquet``."""
    import pyarrow as pa

    names = [(n, pa.string()) for n in NAMES]
    changes = [("value", pa.float64()), ("calibrated", pa.float64())]
    return pa.schema([*names, ("image", pa.string()), ("block", pa.int8()), *changes])


def _names(result: Result, count: int) -> dict[str, list[str]]:
    key, label = place_of(result)
    said = (key, label, result.data["uri"], result.group["name"], result.tap["name"], result.variant)
    return {n: [_utf8(v)] * count for n, v in zip(NAMES, said, strict=True)}


def _utf8(text: Any) -> str:
    # a path that is no UTF-8 holds lone surrogates, which Parquet has no text for
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _deviation_columns(row: Row) -> dict[str, Any]:
    result, tables = row
    ids, values = tables.deviations.ids, tables.deviations.values
    order = values.shape[1]
    return {
        **_names(result, values.size),
        "image": [_utf8(i) for i in ids for _ in range(order)],
        "element": np.tile(np.arange(order, dtype=np.int32), len(ids)),
        "deviation": values.reshape(-1),
    }


def _jackknife_columns(row: Row) -> dict[str, Any]:
    result, tables = row
    some = tables.calibrated or tables.value
    if some is None:
        return {**_names(result, 0), "image": [], "block": [], "value": [], "calibrated": []}
    nothing = np.full(len(some.ids), np.nan)
    return {
        **_names(result, len(some.ids)),
        "image": [_utf8(i) for i in some.ids],
        "block": some.block,
        "value": nothing if tables.value is None else tables.value.changes,
        "calibrated": nothing if tables.calibrated is None else tables.calibrated.changes,
    }


def _write(path: Path, schema: pa.Schema, columns: Iterable[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    handle, temporary = -1, ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                waiting: list[pa.Table] = []
                for some in columns:
                    waiting.append(_table(some, schema))
                    if sum(t.num_rows for t in waiting) >= CHUNK:
                        writer.write_table(pa.concat_tables(waiting))
                        waiting.clear()
                if waiting:
                    writer.write_table(pa.concat_tables(waiting))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise UsageError(f"cannot write {str(path)!r}: {error.strerror or error}") from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    def column(name: str, type: pa.DataType) -> Any:
        values = columns[name]
        return values if isinstance(values, pa.ChunkedArray) else pa.array(values, type)

    return pa.table({n: column(n, t) for n, t in zip(schema.names, schema.types, strict=True)}, schema)


def _cells_of(path: Path) -> Iterator[tuple[Place, pa.Table, tuple[int, int]]]:
    """Yield (place, table, (start, length)) of every cell of a file; the rows of a cell lie together."""
    table = read_table(path)
    if table.num_rows == 0:
        return
    codes = [table.column(n).combine_chunks().dictionary_encode() for n in ("cell", "model")]
    a, b = (np.asarray(c.indices) for c in codes)
    starts = np.flatnonzero(np.concatenate([[True], (a[1:] != a[:-1]) | (b[1:] != b[:-1])]))
    ends = np.append(starts[1:], table.num_rows)
    cells, models = (c.dictionary.to_pylist() for c in codes)
    for start, end in zip(starts, ends, strict=True):
        yield (cells[a[start]], models[b[start]]), table, (int(start), int(end - start))


def read_table(path: Path) -> pa.Table:
    """Return a Parquet file of ours.

    Raises
    ------
    DataError
        If it cannot be read, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = jackknife_schema() if path.name.endswith(JACKKNIFE) else deviations_schema()
    try:
        table = pq.read_table(path)
        return table.select(schema.names).cast(schema)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"cannot read {str(path)!r}: {first}; remove it, and the run measures what it held again"
        ) from None


class TableFiles(Mapping[Place, CellTables]):
    """The tables of every cell in some files, found by `place_of(result)`; read when first asked for."""

    def __init__(self, deviations: Sequence[Path], jackknife: Sequence[Path]) -> None:
        self._paths = (tuple(deviations), tuple(jackknife))
        self._cells: tuple[dict[Place, tuple[pa.Table, tuple[int, int]]], ...] | None = None

    def _read(self) -> tuple[dict[Place, tuple[pa.Table, tuple[int, int]]], ...]:
        if self._cells is None:
            self._cells = tuple(
                {place: (table, rows) for path in paths for place, table, rows in _cells_of(path)}
                for paths in self._paths
            )
        return self._cells

    def __getitem__(self, place: Place) -> CellTables:
        deviations, jackknife = self._read()
        place = (_utf8(place[0]), _utf8(place[1]))
        table, (start, count) = deviations[place]
        part = table.slice(start, count)
        elements = part.column("element").to_numpy()
        order = int(elements.max()) + 1
        ids = tuple(part.column("image").to_pylist()[::order])
        found = Deviations(ids, part.column("deviation").to_numpy().reshape(len(ids), order))
        if place not in jackknife:
            return CellTables(found)
        table, (start, count) = jackknife[place]
        part = table.slice(start, count)
        names, block = tuple(part.column("image").to_pylist()), part.column("block").to_numpy()
        value, calibrated = (part.column(n).to_numpy(zero_copy_only=False) for n in ("value", "calibrated"))
        once = np.where(block == REFERENCE, SAMPLE, block)
        return CellTables(
            found,
            None if np.isnan(value).any() else Change.of(np.nan, names, value, once),
            None if np.isnan(calibrated).any() else Change.of(np.nan, names, calibrated, block),
        )

    def __iter__(self) -> Iterator[Place]:
        return iter(self._read()[0])

    def __len__(self) -> int:
        return len(self._read()[0])
