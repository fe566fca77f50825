"""Running a suite: every cell measured once, written when it is known, taken up again after a kill."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geed_onnx.batch.bench import Bench
from geed_onnx.batch.journal import Journal
from geed_onnx.batch.remote import Mirror, is_remote
from geed_onnx.batch.tasks import Fresh, Outcome, Task
from geed_onnx.batch.workers import Engine, Here
from geed_onnx.errors import UsageError
from geed_onnx.results import Result
from geed_onnx.suites import Suite, suite_toml

RUN_SCHEMA = "geed-run/1"
#: Seconds between two updates of a remote folder; what is killed in between is measured again.
SENT_EVERY = 30.0


@dataclass
class Watcher:
    """What a run says while it runs; each is called in the process that runs it.

    Attributes
    ----------
    cell : called with every new line
    task : called with (outcome, tasks done, tasks in all)
    passes : called with the number of forward passes made since it was last called
    note : called with warnings
    """

    cell: Callable[[Result], None] = lambda result: None
    task: Callable[[Outcome, int, int], None] = lambda outcome, done, total: None
    passes: Callable[[int], None] = lambda count: None
    note: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Ran:
    """What a run has come to.

    Attributes
    ----------
    folder : str
        As it was given.
    results : tuple[Result, ...]
        Every line, in the suite's order.
    measured, kept : int
        Cells measured now, and cells that an earlier run had measured.
    """

    folder: str
    results: tuple[Result, ...]
    measured: int
    kept: int
    seconds: float

    @property
    def failed(self) -> tuple[Result, ...]:
        """Cells that could not be measured."""
        return tuple(r for r in self.results if r.failed)


def tasks_of(suite: Suite) -> tuple[Task, ...]:
    """Return the jobs of a suite as tasks, those that share a session next to one another."""
    numbered = [Task(i, job) for i, job in enumerate(suite.jobs())]
    first: dict[object, int] = {}
    for task in numbered:
        first.setdefault(task.shares, task.number)
    return tuple(sorted(numbered, key=lambda t: (first[t.shares], t.number)))


def run_suite(
    suite: Suite,
    output: str,
    *,
    engine: Engine | None = None,
    watcher: Watcher | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Ran:
    """Measure every cell of a suite into a folder, but for those that are there already.

    Parameters
    ----------
    output
        The folder, or an address that fsspec knows.
    engine
        Who does the tasks; by default this process.
    watcher
        What is told on the way.
    arguments
        Kept in ``run.json``.

    Raises
    ------
    GeedError
        If another run writes to the folder, or it cannot be written.  What a cell cannot do is a row with its reason.
    """
    watcher, start = watcher or Watcher(), time.perf_counter()
    mirror = Mirror(output) if is_remote(output) else None
    folder = mirror.folder if mirror is not None else local_folder(output)
    tasks = tasks_of(suite)
    record = _record(suite, arguments or {}, len(tasks))
    with Journal(folder, watcher.note, mirror.fetch if mirror is not None else None) as journal:
        text = suite_toml(suite, output)
        journal.describe(text, record | {"state": "running"})
        outcomes = _outcomes(engine or Here(), tasks, journal, watcher)
        count = _Count(watcher, len(tasks))
        with closing(_written(outcomes, journal)) as written:
            for outcome in written:
                count.add(outcome)
                if mirror is not None:
                    mirror.send(after=SENT_EVERY)
        results = journal.finish()
        failed = sum(r.failed for r in results)
        kept = len(results) - failed - count.measured
        seconds = time.perf_counter() - start
        cells = {"all": len(results), "measured": count.measured, "kept": kept, "failed": failed}
        ended = {"state": "done", "ended": _now(), "seconds": round(seconds, 3), "cells": cells}
        journal.describe(text, record | ended | {"providers": list(count.providers)})
        if mirror is not None:
            mirror.send()
    return Ran(output, tuple(results), count.measured, kept, seconds)


def local_folder(output: str) -> Path:
    """Return the folder of a run on this machine.

    Raises
    ------
    UsageError
        If it cannot be one.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {output!r} is a file; give a folder")
    if not folder.exists() and folder.parent.exists() and not os.access(folder.parent, os.W_OK):
        raise UsageError(f"cannot write to {output!r}: permission denied")
    return folder


def _outcomes(engine: Engine, tasks: Sequence[Task], journal: Journal, watcher: Watcher) -> Iterator[Outcome]:
    """Yield the outcomes of tasks that were done before, for which nobody need be woken, then those of the others."""
    others, bench = list(tasks), Bench()
    if journal.tickets:
        others = []
        for task in tasks:
            try:
                ticket = bench.ticket(task)
            except Exception:
                ticket = ""  # what is wrong with it becomes its row
            if ticket in journal.tickets:
                yield Outcome(task.number, ticket, unopened=True)
            else:
                others.append(task)
    if others:
        yield from engine.outcomes(others, journal.tickets, journal.known, watcher.passes)


def _written(outcomes: Iterator[Outcome], journal: Journal) -> Generator[Outcome, None, None]:
    """Yield the outcomes, each once it is written; the next task is worked on meanwhile."""
    with ThreadPoolExecutor(1) as writer:
        waiting: tuple[Outcome, Future[None]] | None = None
        for outcome in outcomes:
            if waiting is not None:
                waiting[1].result()
                yield waiting[0]
            waiting = outcome, writer.submit(journal.add, outcome)
        if waiting is not None:
            waiting[1].result()
            yield waiting[0]


@dataclass
class _Count:
    """Counts what comes in, and tells the watcher; a note is told once."""

    watcher: Watcher
    tasks: int
    done: int = 0
    measured: int = 0
    providers: dict[str, None] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def add(self, outcome: Outcome) -> None:
        """Take in one outcome."""
        new = [c.result for c in outcome.cells if isinstance(c, Fresh)]
        good = [r for r in new if not r.failed]
        self.done += 1
        self.measured += len(good)
        self.providers |= dict.fromkeys(str(r.runtime["provider"]) for r in good)
        for note in outcome.notes:
            if note not in self.said:
                self.said.add(note)
                self.watcher.note(note)
        for result in new:
            self.watcher.cell(result)
        self.watcher.task(outcome, self.done, self.tasks)


def _record(suite: Suite, arguments: Mapping[str, Any], tasks: int) -> dict[str, Any]:
    from geed_onnx.batch.machine import machine, versions

    return {
        "schema": RUN_SCHEMA,
        "suite": suite.path,
        "title": suite.title,
        "started": _now(),
        "arguments": dict(arguments),
        "tasks": tasks,
        "versions": versions(),
        "machine": machine(),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


__all__ = ["Ran", "Watcher", "run_suite", "tasks_of"]
