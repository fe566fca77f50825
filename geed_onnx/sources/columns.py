"""Which column of a table holds the images, which the ids, and how one cell is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from geed_onnx.errors import DataError, UnknownName
from geed_onnx.sources.folder import IMAGE_SUFFIXES
from geed_onnx.sources.source import one_line

_ID_NAMES = ("id", "image_id", "img_id", "uuid", "__key__")


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
    """Return what `decoding.decode` takes: bytes, or the path of a local file; remote addresses are read.

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
