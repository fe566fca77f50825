"""Who does the tasks: this process, or several; when a worker dies, what it held is tried again by another."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from geed_onnx.batch.bench import Bench, failed_rows
from geed_onnx.batch.tasks import Outcome, Task
from geed_onnx.ending import answer_as_a_worker, starting_a_process

Notify = Callable[[str], None]
Tick = Callable[[int], None]
#: How often a task is tried again after its worker died.
RETRIES = 2
#: Forward passes are told of in batches of this many, so that telling costs nothing.
TOLD = 64


class Engine(Protocol):
    """Does tasks, each at most once unless a worker dies; yields their outcomes in any order, each when it ends."""

    def outcomes(
        self, tasks: Sequence[Task], tickets: Collection[str], known: Collection[str], tick: Tick
    ) -> Iterator[Outcome]:
        """Yield one outcome for every task; `tick` is told how many forward passes were made since it was last told."""
        ...


def bundles(tasks: Sequence[Task]) -> list[list[Task]]:
    """Return the tasks in runs that share a session."""
    return [list(some) for _, some in groupby(tasks, key=lambda t: t.shares)]


@dataclass(frozen=True)
class Here:
    """This process, one task after another."""

    def outcomes(
        self, tasks: Sequence[Task], tickets: Collection[str], known: Collection[str], tick: Tick
    ) -> Iterator[Outcome]:
        """Yield the outcomes in the order of the tasks."""
        bench = Bench()
        for task in tasks:
            last = 0

            def told(done: int, total: int) -> None:
                nonlocal last
                if done < last:  # another measurement of the same task has begun
                    last = 0
                tick(done - last)
                last = done

            yield bench.perform(task, tickets, known, told)


# --- processes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Processes:
    """Several processes on this machine: one a device on GPUs, on a CPU the threads divided among them."""

    count: int
    notify: Notify
    devices: tuple[str, ...] = ()
    """what each may see (CUDA_VISIBLE_DEVICES), one after another; () for a CPU"""

    def outcomes(
        self, tasks: Sequence[Task], tickets: Collection[str], known: Collection[str], tick: Tick
    ) -> Iterator[Outcome]:
        """Yield the outcomes as they come; a task whose worker keeps dying becomes failed rows."""
        queue = deque(bundles(tasks))
        pool = [_Worker(i, self, tickets, known) for i in range(min(self.count, len(queue)))]
        deaths: dict[int, int] = {}
        try:
            while True:
                for worker in pool:
                    if not worker.waiting and queue:
                        worker.give(queue.popleft())
                busy = [w for w in pool if w.waiting]
                if not busy:
                    return
                for ready in wait([w.pipe for w in busy]):
                    worker = next(w for w in busy if w.pipe is ready)
                    try:
                        message = worker.pipe.recv()
                    except (EOFError, OSError):
                        yield from self._died(worker, deaths, queue)
                        pool[pool.index(worker)] = _Worker(worker.number, self, tickets, known)
                        continue
                    if isinstance(message, Outcome):
                        worker.done(message)
                        yield message
                    elif isinstance(message, int):
                        tick(message)
                    else:
                        raise message  # a mistake of ours: it is not to be taken for a model's fault
        finally:
            for worker in pool:
                worker.stop()

    def _died(self, worker: _Worker, deaths: dict[int, int], queue: deque[list[Task]]) -> Iterator[Outcome]:
        worker.process.join()
        task, *rest = worker.waiting
        how = _how(worker.process.exitcode)
        count = deaths[task.number] = deaths.get(task.number, 0) + 1
        said = f"worker {worker.number} {how} at {task.request.model.name} ({task.request.group})"
        if count > RETRIES:
            reason = f"the worker process {how} {count} times at this model, on its own last; it may want more memory"
            self.notify(f"{said}: given up")
            yield Outcome(task.number, None, failed_rows(task, reason))
        else:
            self.notify(f"{said}: tried again")
            queue.appendleft([task])
        if rest:
            queue.appendleft(rest)
        worker.waiting.clear()


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with exit code {code}"


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, number: int, of: Processes, tickets: Collection[str], known: Collection[str]) -> None:
        self.number = number
        self.waiting: list[Task] = []
        context = mp.get_context("spawn")  # ONNX Runtime's threads do not survive a fork
        self.pipe, theirs = context.Pipe()
        threads = None if of.devices else max(1, _cores() // of.count)
        device = of.devices[number % len(of.devices)] if of.devices else None
        self.process: BaseProcess = context.Process(
            target=TARGET, args=(theirs, threads, device, frozenset(tickets), frozenset(known)), daemon=True
        )
        with starting_a_process():
            self.process.start()
        theirs.close()

    def give(self, bundle: Sequence[Task]) -> None:
        """Hand over tasks that share a session."""
        self.waiting = list(bundle)
        with suppress(OSError):  # it died while it was idle: receiving from it says so
            self.pipe.send(list(bundle))

    def done(self, outcome: Outcome) -> None:
        """Take note that a task has ended."""
        self.waiting = [t for t in self.waiting if t.number != outcome.number]

    def stop(self) -> None:
        """End the process: by itself if it is idle, at once if it is not."""
        self.pipe.close()
        if not self.waiting:
            self.process.join(5)
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _work(
    pipe: Connection[Any, Any],
    threads: int | None,
    device: str | None,
    tickets: Collection[str],
    known: Collection[str],
) -> None:
    """Do tasks until the pipe closes; what is said on the way goes through it."""
    answer_as_a_worker()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    bench = Bench(threads)
    while True:
        try:
            tasks = pipe.recv()
        except (EOFError, OSError):
            return
        for task in tasks:
            teller = _Teller(pipe)
            try:
                outcome = bench.perform(task, tickets, known, teller.tell)
            except Exception as error:
                pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
                return
            try:
                teller.flush()
                pipe.send(outcome)
            except OSError:
                sys.exit(0)  # the parent was killed: what it did not write down is done again


@dataclass
class _Teller:
    """Counts forward passes and tells of them now and then."""

    pipe: Connection[Any, Any]
    _last: int = 0
    _untold: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def tell(self, done: int, total: int) -> None:
        """Take note of the passes done so far; called from several threads."""
        with self._lock:
            self._untold += done - self._last if done >= self._last else done
            self._last = done
            if self._untold >= TOLD:
                self.pipe.send(self._untold)
                self._untold = 0

    def flush(self) -> None:
        """Tell of the rest."""
        if self._untold:
            self.pipe.send(self._untold)
            self._untold = 0


#: What a worker's process runs; tests put in its place what dies.
TARGET: Callable[..., None] = _work
