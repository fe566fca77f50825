"""A folder of images, read recursively; the id of an image is its path below the folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from geed_onnx.errors import DataError, UsageError
from geed_onnx.sources.decoding import decode
from geed_onnx.sources.source import Form, Options, checked_index, sources

Array = npt.NDArray[Any]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


class FolderSource:
    """The images below a folder, sorted by their relative path; hidden files are left out."""

    as_is = False

    def __init__(self, uri: str, *, skip_bad: bool) -> None:
        self.uri = uri
        self.skipped: Mapping[str, str] = {}
        self._skip_bad = skip_bad
        self._names = _image_names(Path(uri))
        if not self._names:
            raise DataError(
                f"no images in folder {uri!r} or below; expected files ending in {' '.join(IMAGE_SUFFIXES)}"
                f" (hf:{uri} reads a folder of Parquet files)"
            )

    @property
    def size(self) -> int:
        """The number of image files, unreadable ones included."""
        return len(self._names)

    def items(self, indices: Sequence[int] | None = None) -> Iterator[tuple[str, Array]]:
        """Yield (relative path, image) in the order of `indices`; see `Source.items`."""
        for index in range(self.size) if indices is None else indices:
            name = self._names[checked_index(index, self.size, self.uri)]
            try:
                image = decode(Path(self.uri) / name, name, self.uri)
            except DataError as error:
                if not self._skip_bad:
                    raise
                self.skipped = {**self.skipped, name: str(error)}
                continue
            yield name, image


def _image_names(folder: Path) -> tuple[str, ...]:
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # hidden files are the droppings of file managers: `._a.jpg` ends like an image and is none
        found += [
            (Path(here) / name).relative_to(folder).as_posix()
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    return tuple(sorted(found))


def _open(uri: str, options: Options) -> FolderSource:
    if options.column is not None:
        raise UsageError(f"{uri!r} is a folder of images and has no columns; leave out --column {options.column}")
    return FolderSource(uri, skip_bad=options.skip_bad)


sources.register("folder", Form(lambda uri: Path(uri).is_dir(), _open, "a folder of images"))
