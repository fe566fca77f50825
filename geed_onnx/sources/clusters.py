"""Which images belong together (one patient, one scene): the clusters that a column, an array or a folder names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from geed_onnx.errors import DataError, UsageError
from geed_onnx.sources.source import Source

#: What the column is called where the clusters are the folders that images lie in.
FOLDER = "folder"


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
