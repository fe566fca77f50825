"""What commands say while they work, and what they read and print alike: progress, results, exit codes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from geed_onnx.cli.door import say, stop_talking, warn

if TYPE_CHECKING:
    from geed_onnx.batch import Outcome, Watcher
    from geed_onnx.engine import Progress
    from geed_onnx.results import Collection, Result

CROSSED, SOME_FAILED = 3, 4


def results_at(place: str) -> Collection:
    """Return the results of a run's folder or of a file; one at a remote address is fetched first."""
    from geed_onnx.results import open_results

    if "://" in place:
        from geed_onnx.batch.remote import local_copy

        place = local_copy(place)
    return open_results(place)


def show_results(results: Sequence[Result], *, as_json: bool) -> None:
    """Print results to stdout: lines of JSON, or the table."""
    from geed_onnx.reports import print_results

    if as_json:
        for result in results:
            click.echo(result.to_json())
    else:
        print_results(results)


@contextmanager
def until_closed() -> Iterator[None]:
    """Go on where the reader of stdout went away: thresholds are still held against the results."""
    try:
        yield
    except BrokenPipeError:
        stop_talking()


@contextmanager
def progress_bar(what: str = "forward passes") -> Iterator[Progress | None]:
    """Yield a progress callback that draws on stderr, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("passes", total=None)
        last = 0.0

        def update(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > 0.1 or done == total:
                last = time.monotonic()
                bar.update(task, completed=done, total=total)

        yield update


@contextmanager
def watching(tasks: int, *, quiet: bool) -> Iterator[Watcher]:
    """Yield what a run talks to: a bar on a terminal, or with `quiet` one line per cell."""
    from geed_onnx.batch import Watcher

    if quiet or not sys.stderr.isatty():
        yield Watcher(cell=line_of if quiet else lambda result: None, note=warn)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("jobs"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[cells]} cells, {task.fields[speed]} forward passes/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("jobs", total=tasks, cells=0, speed="–")
        start, cells, passes = time.monotonic(), 0, 0

        def counted(count: int) -> None:
            nonlocal passes
            passes += count
            bar.update(task, speed=f"{passes / max(time.monotonic() - start, 1e-3):.0f}")

        def done(outcome: Outcome, number: int, total: int) -> None:
            nonlocal cells
            cells += len(outcome.cells)
            bar.update(task, completed=number, cells=cells)

        # what is written to stderr meanwhile, the bar lets pass above it
        yield Watcher(task=done, passes=counted, note=warn)


def line_of(result: Result) -> None:
    """Say what became of one cell, in one line."""
    from geed_onnx.reports.table import between, number

    place = f"{result.label} · {result.group['name']} · {result.tap['name']} · {result.variant}"
    if result.failed:
        say("failed", f"{place}: {result.reason}")
    else:
        say("cell", f"{place}: {number(result.value)} {between(result.low, result.high)}".rstrip())
