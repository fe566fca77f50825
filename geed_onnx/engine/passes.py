"""Forward passes: micro-batches of orbits, and what happens when one does not fit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from geed_onnx.actions import orbit_of
from geed_onnx.engine.plan import Plan, Progress
from geed_onnx.errors import OutOfMemory

Array = npt.NDArray[Any]
T = TypeVar("T")
#: Index in the source, id, array as read, array the group acts on.
Image = tuple[int, str, Array, Array]

#: Input and taps of one micro-batch, in bytes: large enough to keep the cores busy, small enough to stay in memory.
MICRO_BATCH_BYTES = 16 << 20
MOST_ROWS = 256


@dataclass(frozen=True, eq=False)
class Block:
    """The images of one block of references, whose f(x) runs ahead of their orbits.

    Attributes
    ----------
    number : int
        Which of the plan's blocks.
    pieces : sequence of futures
        f(x) of its images in order, each {tap: (some, …)}.
    """

    number: int
    ids: tuple[str, ...]
    indices: tuple[int, ...]
    pieces: Sequence[Future[dict[str, Array]]]

    def identity(self, tap: str) -> list[Array]:
        """Return f(x) of its images in pieces, (some, …) each; waits for the passes."""
        return [piece.result()[tap] for piece in self.pieces]


@dataclass(frozen=True)
class Batch:
    """Images of one micro-batch: `x` is `(B, *shape)`, what the group acts on; `raw` the arrays as read."""

    start: int
    """place of its first image in the block, or among those it was cut from"""
    indices: tuple[int, ...]
    ids: tuple[str, ...]
    raw: tuple[Array, ...]
    x: Array
    block: Block | None = None
    """the block of references that its images are of"""


class Runner:
    """Runs rows through the session, in pieces of at most `rows`; halves them, and says so, when memory runs out."""

    def __init__(self, plan: Plan, progress: Progress | None, total: int) -> None:
        self._plan, self._progress, self.total = plan, progress, total
        self.rows: int | None = plan.settings.batch_size
        self.done = 0
        self.notes: list[str] = []

    def orbits(self, batch: Batch, identity: dict[str, Array] | None = None) -> dict[str, list[Array]]:
        """Return {tap: [f(gx) as (B, …) for every g]}; `identity` is f(x) where that pass was made before."""
        order, count = self._plan.group.order, len(batch.x)
        orbit = orbit_of(self._plan.acting, batch.x)[:, 0 if identity is None else 1 :]
        known = {} if identity is None else {name: [y] for name, y in identity.items()}
        if identity is not None and order == 1:
            return known
        flat = self.run(orbit.reshape(-1, *batch.x.shape[1:]))
        found = {name: y.reshape(count, -1, *y.shape[1:]) for name, y in flat.items()}
        return {name: [*known.get(name, ()), *(y[:, g] for g in range(y.shape[1]))] for name, y in found.items()}

    def run(self, x: Array) -> dict[str, Array]:
        """Return {tap: (rows, …)} for rows `(rows, *shape)` that the group acted on."""
        parts: list[dict[str, Array]] = []
        start = 0
        while start < len(x):
            size = min(self.rows or len(x), len(x) - start)
            try:
                parts.append(self._plan.session.run(self._plan.feed.model_input(x[start : start + size])))
            except (OutOfMemory, MemoryError) as error:
                if size == 1:
                    raise OutOfMemory(
                        f"not even one row fits into memory with these taps: tap fewer tensors with --tap ({error})"
                    ) from error
                self.rows = min(self.rows or size, size // 2)  # another thread may have found less already
                self.notes.append(f"out of memory with {size} rows a pass: went on with {self.rows}")
                continue
            start += size
            self.done += size
            if self._progress is not None:
                self._progress(self.done, max(self.total, self.done))
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def orbits_at_once(self, outputs: dict[str, Array]) -> int:
        """Return how many orbits one micro-batch may hold, from the outputs `(rows, …)` of a first pass."""
        order = self._plan.group.order
        if self.rows is not None:
            return max(1, self.rows // order)
        size = sum(y.nbytes // len(y) for y in outputs.values()) + 4 * int(np.prod(self._plan.acting.shape))
        facts = self._plan.session.facts
        # a device wants larger batches than a cache does
        room = MICRO_BATCH_BYTES * (4 if facts.on_device else 1)
        orbits = max(1, min(room // max(size * order, 1), MOST_ROWS // order))
        self.rows = orbits * order
        return orbits


def grouped(images: Iterator[Image], size: int, place: Mapping[int, int]) -> Iterator[Batch]:
    """Yield images in batches of those whose places `{index: place}` fall into one span of `size`.

    So a batch is the same whoever runs it, and an image that was left out does not shift the others into other ones.
    """
    start = 0
    for _, chunk in groupby(images, lambda image: place[image[0]] // max(1, size)):
        batch = batch_of(list(chunk), start)
        yield batch
        start += len(batch.ids)


def batch_of(images: Sequence[Image], start: int = 0, block: Block | None = None) -> Batch:
    """Return one batch of these images; `start` is the place of the first."""
    numbers, ids, raw, x = zip(*images, strict=True)
    return Batch(start, numbers, ids, raw, np.stack(x), block)


def in_order(
    executor: Executor, ahead: int, source: Iterable[Batch], work: Callable[[Batch], T]
) -> Iterator[tuple[Batch, T]]:
    """Yield (batch, work(batch)) in the source's order, at most `ahead` batches being worked on at once."""
    waiting: deque[tuple[Batch, Future[T]]] = deque()
    try:
        for batch in source:
            waiting.append((batch, executor.submit(work, batch)))
            if len(waiting) >= ahead:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        # after an error: what has not begun need not
        for _, future in waiting:
            future.cancel()
