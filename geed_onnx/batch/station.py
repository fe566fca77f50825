"""What a worker of a cluster does: whole tasks, shares of large ones, and the Results of shares that were merged."""

from __future__ import annotations

import gc
import os
import platform
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from geed_onnx.batch.bench import Bench, conclude, unexpected
from geed_onnx.batch.tasks import Outcome, Task
from geed_onnx.engine import Partial, finish, measure_part, notes_of, rows_of
from geed_onnx.errors import GeedError


@dataclass(frozen=True)
class Shared:
    """A task that is worth sharing out, into so many parts."""

    parts: int


@dataclass(frozen=True)
class Reply:
    """What a call came to.

    Attributes
    ----------
    passes, untold : int
        Forward passes made in the call, and those of them that `Station.told` has not told of.
    """

    what: Outcome | Shared | Partial | GeedError
    passes: int
    untold: int


@dataclass(frozen=True)
class Greeting:
    """What a worker says of itself when it has started."""

    host: str
    version: str
    misses: str | None
    """the folder that relative paths are relative to, where the machine does not have it"""


class Station:
    """One process of a cluster with its warm sessions; `told` may be called while another call is at work."""

    def __init__(
        self,
        bench: Callable[[int | None], Bench],
        threads: int | None,
        folder: str,
        tickets: Collection[str],
        known: Collection[str],
    ) -> None:
        self._misses = None
        try:
            os.chdir(folder)
        except OSError:
            self._misses = folder
        self._bench = bench(threads)
        self._tickets, self._known = tickets, known
        self._lock = threading.Lock()
        self._last = self._made = self._untold = 0

    def greet(self) -> Greeting:
        """Return where this is, and what it runs."""
        from geed_onnx import __version__

        return Greeting(platform.node(), __version__, self._misses)

    def told(self) -> int:
        """Return the forward passes made since the last time, in this call or by a `Reply`."""
        with self._lock:
            untold, self._untold = self._untold, 0
        return untold

    def close(self) -> None:
        """Let go of sessions and images, and so of the files that they keep."""
        del self._bench
        gc.collect()

    # --- calls --------------------------------------------------------------------------------------------------

    def begin(self, task: Task, most: int, least: int) -> Reply:
        """Do a task, unless it is worth sharing out: into at most `most` parts of at least `least` rows each."""
        return self._reply(lambda: self._begin(task, most, least))

    def part(self, task: Task, part: int, parts: int) -> Reply:
        """Measure one share of a task."""
        return self._reply(lambda: measure_part(self._wanted(task), part, parts, progress=self._count))

    def end(self, task: Task, whole: Partial, passes: int, started: float) -> Reply:
        """Return the outcome of a task from all its shares."""
        return self._reply(lambda: self._end(task, whole, passes, started))

    def _reply(self, call: Callable[[], Outcome | Shared | Partial]) -> Reply:
        self._last = self._made = 0
        try:
            what: Outcome | Shared | Partial | GeedError = call()
        except GeedError as error:  # as a value: a cluster would wrap it into an error of its own
            what = error
        except Exception as error:  # the task is then done whole by one worker, where it becomes a row
            what = GeedError(unexpected(error))
        return Reply(what, self._made, self.told())

    # --- work ---------------------------------------------------------------------------------------------------

    def _begin(self, task: Task, most: int, least: int) -> Outcome | Shared:
        parts = min(most, self._rows(task) // least) if most > 1 else 1
        if parts > 1:
            return Shared(parts)
        return self._bench.perform(task, self._tickets, self._known, self._count)

    def _rows(self, task: Task) -> int:
        """Return how many forward passes a task takes; 0 where it was done before, or cannot be done."""
        try:
            if self._bench.ticket(task) in self._tickets:
                return 0
            plan = self._wanted(task)
        except Exception:  # what is wrong with it becomes its row, when it is performed
            return 0
        return rows_of(plan) if plan.targets else 0

    def _wanted(self, task: Task) -> Any:
        """Return the plan of a task, but for taps of which every cell is known."""
        prepared = self._bench.prepare(task)
        wanted = {tap for (tap, _), key in prepared.keys.items() if key not in self._known}
        return replace(prepared.plan, targets=tuple(t for t in prepared.plan.targets if t.name in wanted))

    def _end(self, task: Task, whole: Partial, passes: int, started: float) -> Outcome:
        plan = self._wanted(task)
        return conclude(
            task,
            self._bench.prepare(task),
            self._bench.ticket(task),
            self._known,
            finish(plan, whole),
            notes=notes_of(plan, whole),
            passes=passes,
            seconds=time.time() - started,
        )

    def _count(self, done: int, total: int) -> None:
        with self._lock:
            # fewer than before: another measurement of the same task has begun
            more = done - self._last if done >= self._last else done
            self._last, self._made, self._untold = done, self._made + more, self._untold + more
