"""What numbers are made of, in Parquet: deviations by image and element, and what leaving each image out changes.

``deviations.parquet`` has one row per model, tap, variant, image, element; ``jackknife.parquet`` one per model, tap,
variant, image.  Rows of one cell lie together, images sorted, elements in order.  Both start with the same columns
(`NAMES`), so that any reader can join them with the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from geed_onnx.errors import DataError
from geed_onnx.estimators import REFERENCE, SAMPLE, Change, Deviations
from geed_onnx.results.record import Result
from geed_onnx.results.writing import whole

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


def write_tables(rows: Iterable[Row], deviations: Path, jackknife: Path, *, lasting: bool = True) -> None:
    """Write both files of these cells, each whole or not at all, the jackknife last.

    `lasting`: fsynced, so that they outlive a loss of power too and not only a kill.

    Raises
    ------
    UsageError
        If they cannot be written.
    """
    some = list(rows)
    _write(deviations, deviations_schema(), [_deviation_table(some)], lasting)
    _write(jackknife, jackknife_schema(), [_jackknife_table(some)], lasting)


def merge_tables(parts: Sequence[Path], target: Path, order: Sequence[Place]) -> None:
    """Write the rows of several files as one, in the order of `order`; rows of other cells are left out."""
    found = {place: (table, rows) for path in parts for place, table, rows in _cells_of(path)}
    pieces = (found[place][0].slice(*found[place][1]) for place in order if place in found)
    schema = jackknife_schema() if target.name.endswith(JACKKNIFE) else deviations_schema()
    _write(target, schema, _chunks(pieces))


def _chunks(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables of about `CHUNK` rows; which pieces come together depends on their lengths alone."""
    waiting: list[pa.Table] = []
    rows = 0
    for piece in pieces:
        waiting.append(piece)
        rows += piece.num_rows
        if rows >= CHUNK:
            yield _canonical(waiting)
            waiting, rows = [], 0
    if waiting:
        yield _canonical(waiting)


def deviations_schema() -> pa.Schema:
    """Return the columns of ``deviations.parquet``."""
    import pyarrow as pa

    word = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([*((n, word) for n in (*NAMES, "image")), ("element", pa.int32()), ("deviation", pa.float64())])


def jackknife_schema() -> pa.Schema:
    """Return the columns of ``jackknife.parquet``."""
    import pyarrow as pa

    word = pa.dictionary(pa.int32(), pa.string())
    changes = [(name, pa.float64()) for name in ("value", "calibrated", "shared")]
    return pa.schema([*((n, word) for n in (*NAMES, "image")), ("block", pa.int8()), *changes])


def _utf8(text: Any) -> str:
    # a path that is no UTF-8 holds lone surrogates, which Parquet has no text for
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _names(results: Sequence[Result], counts: Sequence[int]) -> dict[str, Any]:
    """Return the columns that say whose a row is, each result `counts` times."""
    said = [(*place_of(r), r.data["uri"], r.group["name"], r.tap["name"], r.variant) for r in results]
    columns = zip(*said, strict=True) if said else ((),) * len(NAMES)
    return {n: _words(column, counts) for n, column in zip(NAMES, columns, strict=True)}


def _words(texts: Iterable[str], counts: Sequence[int] | int) -> Any:
    """Return a column of texts, each repeated, as a dictionary: long columns of few texts cost what the few do."""
    import pyarrow as pa

    words: dict[str, int] = {}
    indices = np.array([words.setdefault(_utf8(t), len(words)) for t in texts], dtype=np.int32)
    return pa.DictionaryArray.from_arrays(
        pa.array(np.repeat(indices, counts), pa.int32()), pa.array(list(words), pa.string())
    )


def _joined(parts: Sequence[Any]) -> Any:
    return np.concatenate(parts) if parts else np.zeros(0)


def _deviation_table(rows: Sequence[Row]) -> pa.Table:
    import pyarrow as pa

    tables = [t.deviations for _, t in rows]
    orders = [t.values.shape[1] for t in tables]
    columns = {
        **_names([r for r, _ in rows], [t.values.size for t in tables]),
        "image": _words(
            (i for t in tables for i in t.ids), [n for t, n in zip(tables, orders, strict=True) for _ in t.ids]
        ),
        "element": _joined([np.tile(np.arange(n), len(t.ids)) for t, n in zip(tables, orders, strict=True)]),
        "deviation": _joined([t.values.reshape(-1) for t in tables]),
    }
    schema = deviations_schema()
    return pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def _jackknife_table(rows: Sequence[Row]) -> pa.Table:
    import pyarrow as pa

    kept = [(r, t, some) for r, t in rows if (some := t.calibrated or t.value) is not None]

    def changes(change: Change | None, like: Change) -> Any:
        return np.full(len(like.ids), np.nan) if change is None else change.changes

    columns = {
        **_names([r for r, _, _ in kept], [len(some.ids) for _, _, some in kept]),
        "image": _words((i for _, _, some in kept for i in some.ids), 1),
        "block": _joined([some.block for _, _, some in kept]),
        "value": _joined([changes(t.value, some) for _, t, some in kept]),
        "calibrated": _joined([changes(t.calibrated, some) for _, t, some in kept]),
        "shared": _joined([some.shared for _, _, some in kept]),
    }
    schema = jackknife_schema()
    return pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def _write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table], lasting: bool = True) -> None:
    import pyarrow.parquet as pq

    with (
        whole(path, lasting=lasting) as file,
        pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=[*NAMES, "image"]) as writer,
    ):
        for table in tables:
            writer.write_table(table)


def _canonical(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables as one, its texts numbered in the order in which they come: equal rows are equal bytes."""
    import pyarrow as pa

    joined = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    for i, part in enumerate(joined.schema):
        if pa.types.is_dictionary(part.type) and joined.num_rows:
            [words] = joined.column(i).chunks
            joined = joined.set_column(i, part, _renumbered(words))
    return joined


def _renumbered(words: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return a column whose dictionary holds what occurs, in the order in which it first does."""
    import pyarrow as pa

    indices = np.asarray(words.indices)
    first = np.full(len(words.dictionary), len(indices))
    first[indices[::-1]] = np.arange(len(indices))[::-1]  # of several assignments the last one stays
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(indices))]
    place = np.zeros(len(words.dictionary), dtype=np.int32)
    place[order] = np.arange(len(order))
    return pa.DictionaryArray.from_arrays(pa.array(place[indices], pa.int32()), words.dictionary.take(pa.array(order)))


def _cells_of(path: Path) -> Iterator[tuple[Place, pa.Table, tuple[int, int]]]:
    """Yield (place, table, (start, length)) of every cell of a file; the rows of a cell lie together."""
    table = read_table(path)
    if table.num_rows == 0:
        return
    codes = [table.column(n).unify_dictionaries().combine_chunks() for n in ("cell", "model")]
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
        # read_table would set up a data set for every file, which takes longer than to read it
        with pq.ParquetFile(path) as file:
            table = file.read()
        if "shared" in schema.names and "shared" not in table.column_names:  # written before there was one
            table = table.append_column("shared", pa.array(np.zeros(table.num_rows)))
        return table.select(schema.names).cast(schema)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise DataError(f"cannot read {str(path)!r}: {first}") from None


_CHANGES = ("block", "value", "calibrated", "shared")


class _Columns(NamedTuple):
    """The columns of one file that are numbers, and its images: slicing them costs nothing beside Arrow's own."""

    numbers: Mapping[str, Any]
    image: Any
    words: tuple[str, ...]

    def images(self, rows: slice) -> tuple[str, ...]:
        """Return the images of some rows."""
        return tuple(self.words[i] for i in self.image[rows])


def _columns_of(path: Path) -> Iterator[tuple[Place, tuple[_Columns, int, int]]]:
    """Yield (place, (columns, start, end)) of every cell of a file."""
    columns: _Columns | None = None
    for place, table, (start, count) in _cells_of(path):
        if columns is None:
            image = table.column("image").unify_dictionaries().combine_chunks()
            names = [n for n in table.column_names if n not in (*NAMES, "image")]
            numbers = {n: table.column(n).to_numpy(zero_copy_only=False) for n in names}
            columns = _Columns(numbers, np.asarray(image.indices), tuple(image.dictionary.to_pylist()))
        yield place, (columns, start, start + count)


class TableFiles(Mapping[Place, CellTables]):
    """The tables of every cell in some files, found by `place_of(result)`; read when first asked for."""

    def __init__(self, deviations: Sequence[Path], jackknife: Sequence[Path]) -> None:
        self._paths = (tuple(deviations), tuple(jackknife))
        self._cells: tuple[dict[Place, tuple[_Columns, int, int]], ...] | None = None

    def _read(self) -> tuple[dict[Place, tuple[_Columns, int, int]], ...]:
        if self._cells is None:
            self._cells = tuple(dict(part for path in paths for part in _columns_of(path)) for paths in self._paths)
        return self._cells

    def __getitem__(self, place: Place) -> CellTables:
        deviations, jackknife = self._read()
        place = (_utf8(place[0]), _utf8(place[1]))
        columns, start, end = deviations[place]
        order = int(columns.numbers["element"][start:end].max()) + 1
        ids = columns.images(slice(start, end, order))
        found = Deviations(ids, columns.numbers["deviation"][start:end].reshape(len(ids), order))
        if place not in jackknife:
            return CellTables(found)
        columns, start, end = jackknife[place]
        rows = slice(start, end)
        names, block, value, calibrated, shared = columns.images(rows), *(columns.numbers[n][rows] for n in _CHANGES)
        once = np.where(block == REFERENCE, SAMPLE, block)
        return CellTables(
            found,
            None if np.isnan(value).any() else Change.of(np.nan, names, value, once),
            None if np.isnan(calibrated).any() else Change.of(np.nan, names, calibrated, block, shared),
        )

    @property
    def with_changes(self) -> frozenset[Place]:
        """The cells of which the jackknife is there too."""
        deviations, jackknife = self._read()
        return frozenset(place for place in deviations if place in jackknife)

    def __iter__(self) -> Iterator[Place]:
        return iter(self._read()[0])

    def __len__(self) -> int:
        return len(self._read()[0])
