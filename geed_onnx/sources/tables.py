"""Tables with a column of images (Parquet, Arrow, CSV), read through `datasets`.

A table is either mapped from an Arrow copy in a temporary folder (any row at once), or, where it is large, streamed
(once through, in order). Nothing is written beside the user's file.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from geed_onnx.ending import put_away, temporary_folder
from geed_onnx.errors import DataError, UnknownName
from geed_onnx.sources.decoding import decode
from geed_onnx.sources.fingerprint import content_digest
from geed_onnx.sources.folder import IMAGE_SUFFIXES
from geed_onnx.sources.source import Array, Form, Options, checked_index, existing_file, one_line, readable, sources

STREAM_ROWS = 50_000
"""above this many rows a data set of the Hub is streamed"""
STREAM_BYTES = 1_000_000_000
"""above this size a table is streamed instead of copied"""

_BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".csv": "csv"}
_TALKERS = ("datasets", "huggingface_hub", "fsspec", "filelock", "urllib3", "httpx")
_ID_NAMES = ("id", "image_id", "img_id", "uuid", "__key__")


class TableSource:
    """The images in one column of a `datasets.Dataset` or `datasets.IterableDataset`.

    An id is the cell of the column `id` (or `image_id`, …) where that names every row once, else the row number.
    """

    as_is = False

    def __init__(self, uri: str, rows: Any, options: Options, *, size: int | None, folder: Path | None = None) -> None:
        """Find the columns; `size` is the number of rows if known, `folder` what relative paths start from."""
        self.uri, self.size = uri, size
        self.skipped: Mapping[str, str] = {}
        self._folder, self._skip_bad = folder, options.skip_bad
        with quiet():
            rows = _undecoded(rows)
            first = next(iter(rows), None)
            if first is None:
                raise DataError(f"{uri}: the table has no rows")
            features = rows.features if rows.features is not None else _features_of(first)
            self._image = image_column(uri, features, first, options.column)
            self._id = id_column(features, self._image)
            self._streams = not hasattr(rows, "num_rows")
            if self._id is not None and not self._streams and not _names_each_row(rows, self._id):
                self._id = None
            self._all, self._columns = rows, tuple(features)
            self._rows = self._selected(self._image)

    def items(self, indices: Sequence[int] | None = None) -> Iterator[tuple[str, Array]]:
        """Yield (id, image) in the order of `indices`; see `Source.items`.

        A stream is read once, in its own order; images met before their turn wait, encoded, in a temporary file.
        """
        cells = self._streamed(indices) if self._streams else self._mapped(indices)
        images = ((name, partial(self._decoded, name, cell)) for name, cell in cells)
        return readable(self, images, skip_bad=self._skip_bad)

    def digest(self, index: int) -> bytes | None:
        """Return the hash of an image as it is encoded, None for those of a stream or elsewhere; see `Source`."""
        if self._streams:
            return None
        cell = self._cell(index, self._rows[index])[1]
        if isinstance(cell, ValueError):
            return content_digest(None, index)
        if cell.data is None and "://" in str(cell.place):
            return None
        return content_digest(Path(str(cell.place)) if cell.data is None else cell.data, index)

    def clusters(self, indices: Sequence[int], column: str) -> list[tuple[str, Any]]:
        """Return (id, value in `column`) of each; a stream is read once for it, without its images. See `Source`."""
        if column not in self._columns:
            raise UnknownName("column", column, self._columns, hint=f"in {self.uri}")
        rows = self._selected(column)
        if self._streams:
            wanted = set(indices)
            stream = enumerate(self._stream(rows))
            found = {i: row for i, row in islice(stream, max(wanted, default=-1) + 1) if i in wanted}
        else:
            with quiet():
                taken = rows[list(indices)]
            found = {i: {c: taken[c][k] for c in taken} for k, i in enumerate(indices)}
        return [(self._name(i, found[i]), found[i].get(column)) for i in indices]

    def _selected(self, column: str) -> Any:
        """Return the rows with one column, and that of the ids."""
        return self._all.select_columns(list({column: None} | ({} if self._id is None else {self._id: None})))

    def _name(self, index: int, row: Mapping[str, Any]) -> str:
        return str(index if self._id is None else row[self._id])

    def _decoded(self, name: str, cell: Encoded | ValueError) -> Array:
        try:
            if isinstance(cell, ValueError):
                raise cell
            source = fetched(cell)
        except ValueError as error:
            raise DataError(
                f"{self.uri}: cannot read image {name!r}: {error}; mend or remove it, or leave unreadable images out "
                "with --skip-bad"
            ) from error
        return decode(source, name, self.uri)

    def _mapped(self, indices: Sequence[int] | None) -> Iterator[tuple[str, Encoded | ValueError]]:
        size = len(self._rows)
        for index in range(size) if indices is None else indices:
            yield self._cell(index, self._rows[checked_index(index, size, self.uri)])

    def _streamed(self, indices: Sequence[int] | None) -> Iterator[tuple[str, Encoded | ValueError]]:
        if indices is None:
            seen: set[str] = set()
            for index, row in enumerate(self._stream(self._rows)):
                yield self._unique(self._cell(index, row), seen)
        elif indices:
            with tempfile.TemporaryFile(prefix="geed-onnx-") as file:
                yield from self._reordered(indices, _Waiting(file))

    def _reordered(self, indices: Sequence[int], waiting: _Waiting) -> Iterator[tuple[str, Encoded | ValueError]]:
        wanted, last, turn = set(indices), max(indices), 0
        checked_index(min(indices), last + 1, self.uri)
        seen: set[str] = set()
        for index, row in enumerate(self._stream(self._rows)):
            if index in wanted:
                waiting.put(index, *self._unique(self._cell(index, row), seen))
            while turn < len(indices) and indices[turn] in waiting:
                yield waiting.get(indices[turn])
                turn += 1
            if index == last:
                return
        checked_index(last, index + 1, self.uri)

    def _stream(self, of: Any) -> Iterator[Mapping[str, Any]]:
        rows = iter(of)
        while True:
            with quiet():
                try:
                    row = next(rows, None)
                except Exception as error:  # a damaged file or a lost connection, from any of a dozen libraries
                    raise DataError(f"{self.uri}: the stream broke off: {one_line(error)}") from error
            if row is None:
                return
            yield row

    def _cell(self, index: int, row: Mapping[str, Any]) -> tuple[str, Encoded | ValueError]:
        name = self._name(index, row)
        try:
            return name, encoded(row[self._image], self._folder)
        except ValueError as error:
            return name, error

    def _unique(self, cell: tuple[str, Encoded | ValueError], seen: set[str]) -> tuple[str, Encoded | ValueError]:
        # the ids of a stream cannot be looked at beforehand
        if self._id is not None and cell[0] in seen:
            raise DataError(
                f"{self.uri}: column {self._id!r} names two images {cell[0]!r}; ids must be unique: rename that column"
            )
        seen.add(cell[0])
        return cell


class _Waiting:
    """Encoded images that wait for their turn in a temporary file, so that memory holds one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._held: dict[int, tuple[str, Encoded | ValueError, tuple[int, int] | None]] = {}

    def __contains__(self, index: int) -> bool:
        return index in self._held

    def put(self, index: int, name: str, cell: Encoded | ValueError) -> None:
        if isinstance(cell, ValueError) or cell.data is None:
            self._held[index] = (name, cell, None)
            return
        start = self._file.seek(0, 2)
        self._file.write(cell.data)
        self._held[index] = (name, Encoded(None, None), (start, len(cell.data)))

    def get(self, index: int) -> tuple[str, Encoded | ValueError]:
        name, cell, span = self._held[index]
        if span is None:
            return name, cell
        self._file.seek(span[0])
        return name, Encoded(self._file.read(span[1]), None)


def _undecoded(rows: Any) -> Any:
    """Return `rows` whose Image columns give bytes and path: one decoder, ours, serves every form."""
    import datasets

    for name, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows


def _features_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the types of a row of a stream that does not tell them."""
    import datasets
    import pyarrow

    return dict(datasets.Features.from_arrow_schema(pyarrow.Table.from_pylist([dict(row)]).schema))


def _names_each_row(rows: Any, column: str) -> bool:
    values = rows.unique(column)
    return None not in values and len({str(value) for value in values}) == len(rows)


# ---- columns and cells ----------------------------------------------------------------------------------------------


class Encoded(NamedTuple):
    """One cell that holds an image: its encoded bytes, or where they are."""

    data: bytes | None
    place: str | None


def image_column(uri: str, features: Mapping[str, Any], first: Mapping[str, Any], wanted: str | None) -> str:
    """Return the column that holds images, by its type; a text column counts where its first value is an image path.

    Raises
    ------
    UnknownName
        If `wanted` is no column.
    DataError
        If no column holds images, several do, or `wanted` does not.
    """
    fitting = [name for name, feature in features.items() if _holds_images(feature, first.get(name))]
    if wanted is not None:
        if wanted not in features:
            raise UnknownName("column", wanted, features, hint=f"in {uri}")
        # a path without a familiar ending is taken where the user says that it is one
        if wanted not in fitting and not _is_text(features[wanted]):
            raise DataError(f"{uri}: column {wanted!r} holds {features[wanted]}, not images; {_expected()}")
        return wanted
    if len(fitting) == 1:
        return fitting[0]
    columns = ", ".join(features)
    if not fitting:
        raise DataError(f"{uri}: no column holds images (columns: {columns}); {_expected()}")
    raise DataError(f"{uri}: several columns hold images: {', '.join(fitting)}; name one with --column")


def id_column(features: Mapping[str, Any], image: str) -> str | None:
    """Return the column of ids, by its name, if it is text or integers."""
    for name, feature in features.items():
        if name != image and name.lower() in _ID_NAMES and (_is_text(feature) or "int" in _dtype(feature)):
            return name
    return None


def encoded(value: Any, folder: Path | None) -> Encoded:
    """Return the image in a cell: `{"bytes", "path"}`, bytes, or a path, relative to `folder`.

    Raises
    ------
    ValueError
        If the cell is empty or holds something else.
    """
    if isinstance(value, Mapping):
        if value.get("bytes") is not None:
            return Encoded(value["bytes"], None)
        value = value.get("path")
    if isinstance(value, bytes):
        return Encoded(value, None)
    if isinstance(value, str) and value:
        return Encoded(None, value if "://" in value or folder is None else str(folder / value))
    raise ValueError("the cell is empty" if not value else f"the cell holds {type(value).__name__}, not an image")


def fetched(cell: Encoded) -> bytes | Path:
    """Return what `decode` takes: bytes, or the path of a local file; remote addresses are read.

    Raises
    ------
    ValueError
        If a remote address cannot be read.
    """
    if cell.data is not None:
        return cell.data
    place = str(cell.place)
    if "://" not in place:
        return Path(place)
    import fsspec

    try:
        with fsspec.open(place, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # every file system has errors of its own
        raise ValueError(f"{place} cannot be read ({one_line(error)})") from error


def _holds_images(feature: Any, value: Any) -> bool:
    if type(feature).__name__ == "Image" or _dtype(feature).endswith("binary"):
        return True
    if isinstance(feature, Mapping):
        return "bytes" in feature and _dtype(feature["bytes"]).endswith("binary")
    return _is_text(feature) and isinstance(value, str) and value.lower().endswith(IMAGE_SUFFIXES)


def _is_text(feature: Any) -> bool:
    return _dtype(feature) in ("string", "large_string")


def _dtype(feature: Any) -> str:
    return str(getattr(feature, "dtype", ""))


def _expected() -> str:
    return "expected an Image feature, {bytes, path}, encoded bytes, or paths of image files"


# ---- `datasets` -----------------------------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Silence `datasets` and what it stands on (stdout is data, stderr ours), and leave everything as it was found.

    What goes wrong arrives as an exception, so nothing is lost.
    """
    import datasets
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    loggers = [logging.getLogger(name) for name in _TALKERS]
    levels = [logger.level for logger in loggers]
    datasets_bars, hub_bars = datasets.is_progress_bar_enabled(), not are_progress_bars_disabled()
    # an environment variable can forbid changing the bars; the libraries then warn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets.disable_progress_bars()
        disable_progress_bars()
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if datasets_bars:
                datasets.enable_progress_bars()
            if hub_bars:
                enable_progress_bars()


# ---- opening a file ----------------------------------------------------------------------------------------------


def _open(uri: str, options: Options) -> TableSource:
    import datasets

    path = existing_file(uri)
    builder = _BUILDERS[path.suffix.lower()]
    large = path.stat().st_size > STREAM_BYTES
    # a CSV file holds paths, not images: there is nothing to gain, and datasets leaves a stream's file open
    streams = builder != "csv" and (large if options.streaming is None else options.streaming)
    with Scratch() as keep:
        try:
            with quiet():
                if builder == "parquet" and _rows_told(path) == 0:
                    raise DataError(f"{uri}: the table has no rows")  # datasets would ask for batches of 0 rows
                rows = datasets.load_dataset(
                    builder, data_files=_no_pattern(path), split="train", streaming=streams, cache_dir=str(keep.folder)
                )
                size = _count(rows) if streams else len(rows)
        except DataError:
            raise
        except Exception as error:  # pyarrow, pandas and datasets each have errors of their own
            raise DataError(
                f"{uri}: cannot be read as {path.suffix.lower()[1:]}, damaged or truncated? {one_line(error)}"
            ) from error
        return keep.until_gone(TableSource(uri, rows, options, size=size, folder=path.parent))


def _no_pattern(path: Path) -> str:
    """Return the path with the signs escaped that `datasets` would read as a pattern."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in str(path.absolute()))


def _rows_told(path: Path) -> int:
    import pyarrow.parquet

    return int(pyarrow.parquet.read_metadata(path).num_rows)


def _count(rows: Any) -> int:
    return sum(len(batch) for batch in rows.with_format("arrow").iter(batch_size=1024))


class Scratch:
    """A temporary folder that goes when the source it was made for goes, or at once when opening fails."""

    def __init__(self) -> None:
        self.folder = temporary_folder()
        self._kept = False

    def until_gone(self, source: TableSource) -> TableSource:
        """Return `source`, with the folder's life tied to it."""
        weakref.finalize(source, put_away, self.folder)
        self._kept = True
        return source

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            put_away(self.folder)


sources.register(
    "table", Form(lambda uri: Path(uri).suffix.lower() in _BUILDERS, _open, "a Parquet, Arrow or CSV file")
)
