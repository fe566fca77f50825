"""One hash for the images of a measurement, whatever the order in which they were read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from geed_onnx.errors import DataError
from geed_onnx.sources.source import Array


class Fingerprint:
    """An accumulator of image digests, fed one image at a time; merge is a union, so order does not matter.

    32 bytes an image are kept. Adding the same image twice changes nothing.

    >>> import numpy as np
    >>> a, b = np.zeros((2, 2)), np.ones((2, 2))
    >>> one, other = Fingerprint(), Fingerprint()
    >>> one.add("a", a); one.add("b", b)
    >>> other.add("b", b); other.add("a", a)
    >>> one.hexdigest() == other.hexdigest()
    True
    """

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, name: str, array: Array) -> None:
        """Take in one image: its id, dtype, shape and bytes.

        Raises
        ------
        DataError
            If another image came under the same id.
        """
        self._put(name, _digest(name, array))

    def add_all(self, names: Iterable[str], arrays: Iterable[Array]) -> None:
        """Take in several images."""
        for name, array in zip(names, arrays, strict=True):
            self.add(name, array)

    def merge(self, other: Fingerprint) -> Fingerprint:
        """Return the fingerprint of the images of both."""
        both = Fingerprint()
        for part in (self, other):
            for name, digest in part._digests.items():
                both._put(name, digest)
        return both

    def hexdigest(self) -> str:
        """Return the SHA-256 over all digests in the order of the ids, in hexadecimal."""
        whole = hashlib.sha256()
        for name in sorted(self._digests):
            whole.update(self._digests[name])
        return whole.hexdigest()

    def _put(self, name: str, digest: bytes) -> None:
        if self._digests.setdefault(name, digest) != digest:
            raise DataError(f"two different images have the same id {name!r}; ids must be unique")


def fingerprint(pairs: Iterable[tuple[str, Array]]) -> str:
    """Return the hash of (id, array) pairs, in hexadecimal, independent of their order."""
    whole = Fingerprint()
    for name, array in pairs:
        whole.add(name, array)
    return whole.hexdigest()


def content_digest(encoded: bytes | Path | None, index: int) -> bytes:
    """Return the hash of encoded bytes, or of a file's; what cannot be read is a copy of nothing, and gives `index`."""
    try:
        if isinstance(encoded, bytes):
            return hashlib.sha256(encoded).digest()
        if encoded is not None:
            with encoded.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        pass  # reading the image says so
    return f"unreadable {index}".encode()


def _digest(name: str, array: Array) -> bytes:
    # little-endian and C order, so that the hash does not depend on the machine or on how the array was cut out
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    head = repr((name, plain.dtype.str, array.shape)).encode()
    digest = hashlib.sha256(len(head).to_bytes(8, "little") + head)
    digest.update(plain.tobytes())
    return digest.digest()
