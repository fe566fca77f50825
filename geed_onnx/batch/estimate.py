"""What a suite will cost, before it is run: its cells, forward passes, and time, from a trial on a few images."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from geed_onnx.batch.bench import Bench, Prepared
from geed_onnx.batch.tasks import Task
from geed_onnx.engine import measure_plan
from geed_onnx.errors import GeedError

#: Images of a trial: the first few of the sample.
TRIAL = 3


@dataclass(frozen=True)
class Estimated:
    """What one task will take.

    Attributes
    ----------
    cells : tuple[tuple[str, str], ...]
        (tap, variant) of every cell.
    known : int
        How many of them were measured before.
    samples : int or None
        Images that are drawn; None where the task cannot be done.
    passes : int
        Forward passes, one row each; 0 where every cell is known.
    seconds : float or None
        On this machine, one process; None where the task cannot be done.
    reason : str or None
        Why it cannot.
    """

    task: Task
    cells: tuple[tuple[str, str], ...] = ()
    known: int = 0
    samples: int | None = None
    passes: int = 0
    seconds: float | None = None
    reason: str | None = None


def estimated(
    tasks: Sequence[Task], known: Collection[str] = (), tick: Callable[[int, int], None] | None = None
) -> Iterator[Estimated]:
    """Yield what every task will take; networks of one architecture are tried once for each group."""
    bench = Bench()
    tried: dict[tuple[object, ...], tuple[float, float]] = {}
    for done, task in enumerate(tasks, 1):
        try:
            yield _of(task, bench, known, tried)
        except GeedError as error:
            yield Estimated(task, reason=str(error))
        if tick is not None:
            tick(done, len(tasks))


def _of(
    task: Task, bench: Bench, known: Collection[str], tried: dict[tuple[object, ...], tuple[float, float]]
) -> Estimated:
    start = time.perf_counter()
    prepared = bench.prepare(task)
    opening = time.perf_counter() - start
    plan, cells = prepared.plan, tuple(prepared.keys)
    there = sum(key in known for key in prepared.keys.values())
    if there == len(cells):
        return Estimated(task, cells, there, len(plan.indices), 0, 0.0)
    extra = len(set(plan.spread_indices) - set(plan.indices))
    passes = len(plan.indices) * plan.group.order + extra
    if plan.settings.floor:
        passes += sum(map(len, plan.references)) * len({t for t in plan.acting.resampled_by if t})
    place = (plan.acting.shape, plan.group.name, task.request.data, *((t.name, t.kind) for t in plan.targets))
    if place not in tried:
        tried[place] = _trial(prepared)
    each, once = tried[place]
    return Estimated(task, cells, there, len(plan.indices), passes, opening + once + each * passes)


def _trial(prepared: Prepared) -> tuple[float, float]:
    """Return (seconds a forward pass with what is computed of it, seconds that do not grow with the images)."""
    plan = prepared.plan
    some = replace(plan, indices=plan.indices[:TRIAL], spread_indices=())
    few = replace(some, references=(), request=replace(plan.request, settings=replace(plan.settings, floor=False)))
    measure_plan(few)  # the first run of a session is slower than any other
    start = time.perf_counter()
    measure_plan(few)
    taken = time.perf_counter() - start
    rows = max(1, len(few.indices) * plan.group.order)
    reference = replace(few, references=(few.indices,))
    start = time.perf_counter()
    measure_plan(reference)
    levels = max(0.0, time.perf_counter() - start - taken) / max(1, len(few.indices))
    return taken / rows, levels * sum(map(len, plan.references))
