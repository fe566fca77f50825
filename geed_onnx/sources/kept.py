"""Images kept in memory while many models are measured on them, so that each is read and decoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geed_onnx.sources.source import Array, Source, clustered, digest_of, of_source

#: What is kept at most, in bytes; images beyond it are read each time.
MOST_BYTES = 256 << 20


@dataclass
class KeptSource:
    """A source whose images are remembered, up to `most` bytes; what it yields is the source's own, read-only."""

    source: Source
    as_is, size, skipped = map(of_source, ("as_is", "size", "skipped"))
    address: str | None = None
    """what it is called; None: the source's own address"""
    aligned: bool = True
    """whether the source yields one image for every index; one that leaves out what it cannot read does not"""
    most: int = MOST_BYTES
    _kept: dict[int, tuple[str, Array]] = field(default_factory=dict, repr=False)
    _bytes: int = field(default=0, repr=False)
    _digests: dict[int, bytes | None] = field(default_factory=dict, repr=False)

    @property
    def uri(self) -> str:
        """The address."""
        return self.source.uri if self.address is None else self.address

    def items(self, indices: Sequence[int] | None = None) -> Iterator[tuple[str, Array]]:
        """Yield (id, array); those at hand from memory, runs of others from the source."""
        if indices is None:
            yield from self.source.items(None)
            return
        start = 0
        while start < len(indices):
            if (known := self._kept.get(indices[start])) is not None:
                yield known
                start += 1
                continue
            end = start
            while end < len(indices) and indices[end] not in self._kept:
                end += 1
            wanted = indices[start:end]
            for place, item in enumerate(self.source.items(wanted)):
                if self.aligned or len(wanted) == 1:
                    self._keep(wanted[place], item)
                yield item
            start = end

    def digest(self, index: int) -> bytes | None:
        """Return the source's own digest of an image, asked for once; see `Source`."""
        if index not in self._digests:
            self._digests[index] = digest_of(self.source, index)
        return self._digests[index]

    def clusters(self, indices: Sequence[int], column: str) -> Sequence[tuple[str, Any]]:
        """Return (id, value in a column) of each from the source; see `Source`."""
        return clustered(self.source, indices, column)

    def _keep(self, index: int, item: tuple[str, Array]) -> None:
        if self._bytes + item[1].nbytes <= self.most and index not in self._kept:
            view = np.asarray(item[1])
            view.flags.writeable = False
            self._kept[index] = (item[0], view)
            self._bytes += view.nbytes
