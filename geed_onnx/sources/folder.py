"""A folder of images, read recursively; the id of an image is its path below the folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from geed_onnx.errors import DataError, UsageError
from geed_onnx.sources.decoding import decode
from geed_onnx.sources.fingerprint import content_digest
from geed_onnx.sources.source import FOLDER, Array, Form, Options, checked_index, readable, sources

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
        wanted = range(self.size) if indices is None else indices
        names = (self._names[checked_index(i, self.size, self.uri)] for i in wanted)
        images = ((name, partial(decode, Path(self.uri) / name, name, self.uri)) for name in names)
        return readable(self, images, skip_bad=self._skip_bad)

    def digest(self, index: int) -> bytes:
        """Return the hash of an image's file, the same for copies of it; see `Source`."""
        return content_digest(Path(self.uri) / self._names[index], index)

    def clusters(self, indices: Sequence[int], column: str) -> list[tuple[str, str]]:
        """Return (relative path, the folder it lies in, below this one) of each; the only column is `folder`."""
        if column != FOLDER:
            raise UsageError(
                f"--cluster {column}: {self.uri!r} is a folder of images and has no columns; the word {FOLDER!r} takes"
                " the folder that each image lies in for its cluster"
            )
        names = [self._names[i] for i in indices]
        found = [(name, name.rpartition("/")[0]) for name in names]
        lone = [name for name, folder in found if not folder]
        if lone:
            raise DataError(
                f"{self.uri}: {len(lone)} of {len(found)} images lie in no folder below it, such as {lone[0]!r}, so"
                f" --cluster {FOLDER} tells nothing of them; put each into the folder of its cluster"
            )
        return found


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
