"""What a source is, and how one is opened from its address."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from geed_onnx.errors import DataError, UsageError
from geed_onnx.registry import Registry

Array = npt.NDArray[Any]


class Source(Protocol):
    """Images, or arrays that are the model's input already, each with an id that stays the same from run to run.

    Two methods more may be there or not. ``digest(index) -> bytes | None`` is equal for images of equal content, so
    that copies are counted once; None where the image would be read from afar twice for that.
    ``clusters(indices, column)`` gives the pair (id, value in that column) of each, for `clusters_of`; it raises
    `UsageError` if there is no such column.
    """

    @property
    def uri(self) -> str:
        """The address, as the user gave it."""

    @property
    def as_is(self) -> bool:
        """True where the arrays are the model's input already, without its batch axis; False where they are images."""

    @property
    def size(self) -> int | None:
        """The number of images; None where a stream does not tell."""

    @property
    def skipped(self) -> Mapping[str, str]:
        """Ids of the unreadable images left out so far, each with the reason."""

    def items(self, indices: Sequence[int] | None = None) -> Iterator[tuple[str, Array]]:
        """Yield (id, array) in the order of `indices`, or all in order, one image in memory at a time.

        An image is `(H, W)` or `(H, W, C)`, uint8, uint16 or float in 0..1.

        Raises
        ------
        DataError
            If an image cannot be read, holds NaN or Inf, or an index is not below `size`.
        """


@dataclass(frozen=True)
class Options:
    """What may be said about a source beside its address."""

    column: str | None = None
    """the column of a table, or the array of an `.npz`, that holds the images"""
    skip_bad: bool = False
    """leave unreadable images out (they are remembered in `Source.skipped`) instead of failing"""
    streaming: bool | None = None
    """read a table as a stream; None: where it is large"""


@dataclass(frozen=True)
class Form:
    """One form of address: how it is recognised and how it is opened."""

    recognises: Callable[[str], bool]
    open: Callable[[str, Options], Source]
    example: str
    """how such an address is written, for help texts and error messages"""


FOLDER = "folder"
"""what the column is called where the clusters are the folders that images lie in"""

sources: Registry[Form] = Registry("sources", "source")


def open_source(
    uri: str, *, column: str | None = None, skip_bad: bool = False, streaming: bool | None = None
) -> Source:
    """Return the source at `uri`, opened by the first form in `sources` that recognises the address.

    Raises
    ------
    DataError
        If there is nothing at `uri`, no form knows how to read it, or what is there is empty or damaged.
    UsageError
        If `column` is given where there are no columns, or names none that is there.
    """
    options = Options(column=column, skip_bad=skip_bad, streaming=streaming)
    for form in sources.values():
        if form.recognises(uri):
            return form.open(uri, options)
    forms = ", ".join(form.example for form in sources.values())
    if Path(uri).exists():
        raise DataError(f"do not know how to read {uri!r} as images; expected one of: {forms}")
    raise DataError(f"no such file or folder: {uri!r}; expected one of: {forms}")


def digest_of(source: Source, index: int) -> bytes | None:
    """Return what an image's content comes to, the same for equal ones; None where the source does not tell."""
    told: Callable[[int], bytes | None] | None = getattr(source, "digest", None)
    return None if told is None else told(index)


def clusters_of(source: Source, indices: Iterable[int], column: str | None) -> dict[str, str] | None:
    """Return {image id: its cluster} in the order of `indices`, each of them once; None without a column.

    A column is one of a table, an array of an `.npz` as long as that of the images, or for a folder of images the word
    `folder`: the folder that an image lies in directly. A stream is read once more for it.

    Raises
    ------
    UsageError
        If there is no such column.
    DataError
        If it has no value for one of the images, or holds something else than text and numbers.
    """
    if column is None:
        return None
    wanted = tuple(indices)
    found = {}
    for index, (name, value) in zip(wanted, clustered(source, wanted, column), strict=True):
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            raise DataError(
                f"{source.uri}: {column!r} has no value for image {name!r} (row {index}, counted from 0); every image"
                " needs a cluster"
            )
        if isinstance(value, (bytes, list, dict)):
            raise DataError(
                f"{source.uri}: {column!r} holds {type(value).__name__} for image {name!r}; expected text or numbers"
                " that name clusters"
            )
        found[name] = str(value)
    return found


def clustered(source: Source, indices: Sequence[int], column: str) -> Sequence[tuple[str, Any]]:
    """Return the pair (id, value in a column) of each image, as the source has it.

    Raises
    ------
    UsageError
        If the source has no such column, or none at all.
    """
    told: Callable[[Sequence[int], str], Sequence[tuple[str, Any]]] | None = getattr(source, "clusters", None)
    if told is None:
        raise UsageError(
            f"--cluster {column}: {source.uri!r} is a source that names no clusters; a table does (a column), an .npz"
            f" (an array), and a folder of images ({FOLDER})"
        )
    return told(indices, column)


def of_source(name: str) -> Any:
    """Return a property that is the same of `source`, for a source made of another."""
    return property(attrgetter(f"source.{name}"))


def checked_index(index: int, size: int, uri: str) -> int:
    """Return `index`, known to lie in 0..size-1."""
    if not 0 <= index < size:
        raise DataError(f"{uri}: image {index} was asked for, but indices run from 0 to {size - 1}")
    return index


def readable(
    source: Any, images: Iterable[tuple[str, Callable[[], Array]]], *, skip_bad: bool
) -> Iterator[tuple[str, Array]]:
    """Yield (id, image) of those that can be read; with `skip_bad` the others are left out and put into `skipped`."""
    for name, read in images:
        try:
            image = read()
        except DataError as error:
            if not skip_bad:
                raise
            source.skipped = {**source.skipped, name: str(error)}
            continue
        yield name, image


def existing_file(uri: str) -> Path:
    """Return the path of a file that is there and not empty."""
    path = Path(uri)
    if not path.exists():
        raise DataError(f"no such file: {uri!r}")
    if not path.is_file():
        raise DataError(f"{uri!r} is not a file; expected one, by its ending")
    if path.stat().st_size == 0:
        raise DataError(f"{uri!r} is empty (0 bytes)")
    return path


def one_line(error: BaseException) -> str:
    """Return the first line of what caused `error`: libraries wrap their errors, and the innermost one tells."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
