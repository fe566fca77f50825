"""`.npy` and `.npz` files: arrays used as the model's input as they are, or, on request, as images.

Both are memory-mapped, so that a file larger than memory costs one image at a time. A member of a compressed `.npz`
is unpacked to a temporary file first.
"""

from __future__ import annotations

import hashlib
import shutil
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from geed_onnx.ending import put_away, temporary_folder
from geed_onnx.errors import DataError, UnknownName, UsageError
from geed_onnx.sources.source import (
    Array,
    Form,
    Options,
    Source,
    checked_index,
    clustered,
    digest_of,
    existing_file,
    of_source,
    one_line,
    sources,
)

_IMAGE_NAMES = ("x", "images")
_ID_NAMES = ("id", "ids")


class ArraySource:
    """The rows of one array `(N, …)`; ids are the row numbers, unless the file has its own."""

    as_is = True

    def __init__(
        self,
        uri: str,
        rows: Array,
        ids: tuple[str, ...] | None = None,
        column: Callable[[str], Array] | None = None,
    ) -> None:
        """Take the rows as they are; `column` reads another array of the same file by its name."""
        if rows.dtype.kind not in "biuf":
            raise DataError(f"{uri}: expected an array of numbers, not of {rows.dtype}")
        if rows.ndim < 2:
            raise DataError(f"{uri}: expected an array (N, …) of at least 2 axes, images first, not shape {rows.shape}")
        if rows.size == 0:
            raise DataError(f"{uri}: the array is empty, shape {rows.shape}")
        if ids is not None and len(ids) != len(rows):
            raise DataError(f"{uri}: {len(ids)} ids for {len(rows)} images; expected one each")
        if ids is not None and len(set(ids)) != len(ids):
            twice, times = Counter(ids).most_common(1)[0]
            raise DataError(f"{uri}: the id {twice!r} is there {times} times; ids must be unique")
        self.uri = uri
        self.skipped: Mapping[str, str] = {}
        self._rows, self._ids, self._column = rows, ids, column

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def items(self, indices: Sequence[int] | None = None) -> Iterator[tuple[str, Array]]:
        """Yield (id, row as it is) in the order of `indices`; see `Source.items`."""
        for index in range(self.size) if indices is None else indices:
            row = np.array(self._rows[checked_index(index, self.size, self.uri)], order="C")  # off the memory map
            name = self._name(index)
            if row.dtype.kind == "f" and not np.isfinite(row).all():
                raise DataError(f"{self.uri}: image {name!r} holds NaN or Inf; mend or remove it")
            yield name, row

    def digest(self, index: int) -> bytes:
        """Return the hash of a row's bytes; see `Source`."""
        return hashlib.sha256(self._rows[index].tobytes()).digest()

    def clusters(self, indices: Sequence[int], column: str) -> list[tuple[str, Any]]:
        """Return (id, value in the array `column`) of each; see `Source`."""
        if self._column is None:
            raise UsageError(
                f"--cluster {column}: {self.uri!r} holds one array and has no columns; save the images and an array"
                f" {column!r}, one value an image, in one .npz"
            )
        values = self._column(column)
        if values.ndim != 1 or values.dtype.kind not in "biufUS":
            raise DataError(
                f"{self.uri}: array {column!r} is {values.dtype} {values.shape}; expected one axis of text or numbers,"
                " the cluster of each image"
            )
        if len(values) != self.size:
            raise DataError(
                f"{self.uri}: array {column!r} has {len(values)} values for {self.size} images; expected one each"
            )
        return [(self._name(i), v) for i, v in zip(indices, _plain(values[list(indices)]), strict=True)]

    def _name(self, index: int) -> str:
        return str(index) if self._ids is None else self._ids[index]


@dataclass(frozen=True)
class _AsImages:
    """An `as_is` source whose arrays are taken for images."""

    source: Source
    as_is: bool = False
    uri, size, skipped = map(of_source, ("uri", "size", "skipped"))

    def items(self, indices: Sequence[int] | None = None) -> Iterator[tuple[str, Array]]:
        for name, array in self.source.items(indices):
            if not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3))):
                raise DataError(
                    f"{self.uri}: array {name!r} of shape {array.shape} is no image; with preprocessing flags expected "
                    "(H, W), (H, W, 1) or (H, W, 3), channels last; transpose it, or give no preprocessing flags and "
                    "it goes to the model as it is"
                )
            yield name, array

    def digest(self, index: int) -> bytes | None:
        return digest_of(self.source, index)

    def clusters(self, indices: Sequence[int], column: str) -> Sequence[tuple[str, Any]]:
        return clustered(self.source, indices, column)


def as_images(source: Source) -> Source:
    """Return `source` with its arrays `(H, W)` or `(H, W, C)` taken for images; a source of images stays as it is.

    For when preprocessing flags are given for arrays: they must be uint8, uint16, or float in 0..1.
    """
    return _AsImages(source) if source.as_is else source


# ---- reading the files -------------------------------------------------------------------------------------------


def _open(uri: str, options: Options) -> ArraySource:
    path = existing_file(uri)
    if path.suffix.lower() == ".npz":
        return _open_npz(uri, path, options.column)
    if options.column is not None:
        raise UsageError(f"{uri!r} holds one array and has no columns; leave out --column {options.column}")
    return ArraySource(uri, _mapped(uri, path, 0))


def _open_npz(uri: str, path: Path, column: str | None) -> ArraySource:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{uri}: not a whole .npz file, or a damaged one ({one_line(error)}); write it again"
        ) from error
    scratch = temporary_folder()
    try:
        with archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            shapes = {name: _shape(uri, name, archive, info) for name, info in members.items()}
            name = _image_member(uri, shapes, column)
            rows = _member(f"{uri}[{name}]", path, archive, members[name], scratch)
            ids = next((key for key in _ID_NAMES if key in members and key != name), None)
            names = None if ids is None else _ids(f"{uri}[{ids}]", path, archive, members[ids], scratch)

            def column_of(wanted: str) -> Array:
                if wanted not in shapes:
                    raise UnknownName("array", wanted, shapes, hint=f"in {uri}")
                with zipfile.ZipFile(path) as archive:
                    return _member(f"{uri}[{wanted}]", path, archive, members[wanted], scratch)

        source = ArraySource(uri, rows, names, column_of)
    except BaseException:
        put_away(scratch)
        raise
    weakref.finalize(source, put_away, scratch)
    return source


def _image_member(uri: str, shapes: Mapping[str, tuple[int, ...]], column: str | None) -> str:
    if column is not None:
        if column not in shapes:
            raise UnknownName("array", column, shapes, hint=f"in {uri}")
        return column
    for name in _IMAGE_NAMES:
        if name in shapes:
            return name
    fitting = [name for name, shape in shapes.items() if len(shape) >= 2]
    if len(fitting) == 1:
        return fitting[0]
    held = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
    raise DataError(f"{uri}: which array holds the images? It holds {held}; name one with --column")


def _ids(place: str, path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, scratch: Path) -> tuple[str, ...]:
    values = _member(place, path, archive, info, scratch)
    if values.ndim != 1 or values.dtype.kind not in "iuUS":
        raise DataError(f"{place}: expected ids as one axis of text or integers, not {values.dtype} {values.shape}")
    return tuple(map(str, _plain(values)))


def _plain(values: Array) -> list[Any]:
    """Return the values of an array of text or numbers as Python's own, bytes decoded."""
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values.tolist()]


def _member(place: str, path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, scratch: Path) -> Array:
    """Return one member of an `.npz`, mapped in place where it is stored, else from an unpacked copy."""
    try:
        if info.compress_type == zipfile.ZIP_STORED:
            with path.open("rb") as file:
                # the local header repeats name and extra field, of a length of its own
                file.seek(info.header_offset + 26)
                lengths = np.frombuffer(file.read(4), dtype="<u2")
            return _mapped(place, path, info.header_offset + 30 + int(lengths.sum()))
        copy = scratch / f"{info.header_offset}.npy"
        with archive.open(info) as packed, copy.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
        return _mapped(place, copy, 0)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise DataError(f"{place}: damaged or truncated ({one_line(error)}); write the file again") from error


def _shape(uri: str, name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...]:
    try:
        with archive.open(info) as file:
            return _header(f"{uri}[{name}]", file)[0]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{uri}[{name}]: damaged or truncated ({one_line(error)}); write the file again") from error


def _mapped(place: str, path: Path, offset: int) -> Array:
    """Return the `.npy` array that begins `offset` bytes into a file, memory-mapped and read-only."""
    with path.open("rb") as file:
        file.seek(offset)
        shape, fortran, dtype = _header(place, file)
        start = file.tell()
    if 0 in shape:
        return np.empty(shape, dtype)  # an empty map cannot be made
    wanted = start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if path.stat().st_size < wanted:
        raise DataError(
            f"{place}: truncated: the header promises shape {shape} of {dtype}, {wanted - start} bytes, "
            f"but {path.stat().st_size - start} are there; write the file again"
        )
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")


def _header(place: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return (shape, Fortran order, dtype) and leave the file at the first value; objects are never unpickled."""
    magic = file.read(8)
    if magic[:1] == b"\x80":
        raise DataError(f"{place}: holds a pickle, which is never loaded; save a plain array with numpy.save")
    if magic[:6] != b"\x93NUMPY" or len(magic) < 8:
        raise DataError(f"{place}: not a .npy array, or a damaged one; write it with numpy.save")
    readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    try:
        shape, fortran, dtype = readers[magic[6]](file)
    except (KeyError, ValueError, EOFError, TypeError, SyntaxError) as error:
        raise DataError(f"{place}: damaged .npy header ({one_line(error)}); write it again with numpy.save") from error
    if dtype.hasobject:
        raise DataError(
            f"{place}: holds pickled Python objects (dtype {dtype}), which are never loaded; save one plain array "
            "(N, …) of numbers"
        )
    return shape, fortran, dtype


sources.register("array", Form(lambda uri: uri.lower().endswith((".npy", ".npz")), _open, "FILE.npz or FILE.npy"))
