"""More machines than one: a suite's tasks on a Ray cluster, the images of large ones shared out among its workers.

Workers keep their sessions warm, and get tasks of the model they have before others.  While there are as many tasks as
workers, each is done whole by one; towards the end, what is left is shared out, in parts of at least `LEAST_ROWS`
forward passes.  Parts come back as tables, and their union gives the Results: no number hangs on who measured what.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from geed_onnx.batch.bench import Bench, failed_rows
from geed_onnx.batch.cluster import Place, check_installed, cluster, first_line, places
from geed_onnx.batch.station import Greeting, Reply, Shared, Station
from geed_onnx.batch.tasks import Outcome, Task
from geed_onnx.batch.workers import RETRIES, Notify, Tick, bundles
from geed_onnx.engine import Partial, merge
from geed_onnx.errors import GeedError, SessionError, UsageError

__all__ = ["LEAST_ROWS", "RayEngine"]

#: A part of fewer forward passes (images × elements) is not worth opening the model and shipping tables for.
LEAST_ROWS = 256
#: Seconds within which one worker at least must have started.
START_SECONDS = 120
#: Seconds that workers have to put away what they keep in files.
CLOSE_SECONDS = 3
#: Seconds between two looks at how far the workers are.
LOOK_SECONDS = 0.5


def _silent(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class RayEngine:
    """Workers of a Ray cluster do the tasks; see `geed_onnx.batch.Engine`.

    Attributes
    ----------
    address : str or None
        Of a cluster: ``HOST:PORT``, ``ray://HOST:PORT`` or ``auto``; None starts one on this machine, and ends it.
    workers : int or None
        How many; by default one a GPU where the cluster has any, else one for every four cores.
    shards : int or None
        Into how many parts every task is cut; by default as many as there are workers for it (see the module).
    retries : int
        How often what a worker held is tried again after the worker died.
    notify : callable
        Told of workers that die, and of what becomes of their work.
    bench : callable
        Makes what a worker works with, given ONNX Runtime's threads.

    Raises
    ------
    UsageError
        If Ray is not installed, or a number cannot be meant.
    """

    address: str | None = None
    workers: int | None = None
    shards: int | None = None
    retries: int = RETRIES
    notify: Notify = _silent
    bench: Callable[[int | None], Bench] = Bench

    def __post_init__(self) -> None:
        check_installed()
        for word, value, least in (
            ("workers", self.workers, 1),
            ("shards", self.shards, 1),
            ("retries", self.retries, 0),
        ):
            if value is not None and value < least:
                raise UsageError(f"{word} must be at least {least}, not {value}")

    def outcomes(
        self, tasks: Sequence[Task], tickets: Collection[str], known: Collection[str], tick: Tick
    ) -> Iterator[Outcome]:
        """Yield the outcomes as they come; a task whose worker keeps dying becomes failed rows.

        Raises
        ------
        SessionError
            If no cluster answers, none can be started, or no worker starts on it.
        """
        if not tasks:
            return
        with cluster(self.address) as ray:
            crew = _Crew(ray, self, tasks, tickets, known, tick)
            try:
                yield from crew.run()
            finally:
                crew.stop()


@dataclass(frozen=True)
class _Call:
    """One thing to be done by a worker: a method of `Station` and its arguments after the task."""

    task: Task
    method: str
    arguments: tuple[Any, ...] = ()

    @property
    def what(self) -> str:
        """The task in words."""
        name = f"{self.task.request.model.name} ({self.task.request.group})"
        if self.method != "part":
            return name
        part, parts = self.arguments
        return f"{name}, part {part + 1} of {parts}"

    @property
    def place(self) -> tuple[int, object]:
        """What deaths are counted by."""
        return self.task.number, self.arguments if self.method == "part" else None


@dataclass
class _Gathering:
    """A task that was shared out: what has come of it."""

    started: float
    parts: int
    whole: Partial | None = None
    came: int = 0
    passes: int = 0


@dataclass
class _Worker:
    """One actor: what it is at, and which model it has warm."""

    number: int
    place: Place
    handle: Any
    ready: Any
    """the reference of its greeting, until it has come"""
    call: _Call | None = None
    ref: Any = None
    told: Any = None
    """the reference of passes asked for"""
    warm: tuple[object, ...] | None = None
    since: float = field(default_factory=time.monotonic)


class _Crew:
    """The workers of one run, and what is still to be done."""

    def __init__(
        self,
        ray: Any,
        engine: RayEngine,
        tasks: Sequence[Task],
        tickets: Collection[str],
        known: Collection[str],
        tick: Tick,
    ) -> None:
        self._ray, self._engine, self._tick = ray, engine, tick
        self._todo: dict[tuple[object, ...], deque[Task]] = {}
        """tasks that have not begun, by the session they share"""
        for bundle in bundles(tasks):
            self._todo.setdefault(bundle[0].shares, deque()).extend(bundle)
        self._calls: deque[_Call] = deque()
        """of tasks that have begun: they come first"""
        self._open = {task.number for task in tasks}
        self._shared: dict[int, _Gathering] = {}
        self._deaths: dict[tuple[int, object], int] = {}
        self._failed_starts = 0
        self._provider = next((p for t in tasks if (p := t.request.runtime.provider).lower() != "cpu"), "cpu")
        self._actor = ray.remote(Station)
        self._given = (os.getcwd(), ray.put(frozenset(tickets)), ray.put(frozenset(known)))
        wanted = places(ray, engine.workers, self._provider)
        self._workers = [self._hired(i, place) for i, place in enumerate(wanted)]
        self._met, self._looked = False, time.monotonic()

    # --- workers ------------------------------------------------------------------------------------------------

    def _hired(self, number: int, place: Place) -> _Worker:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        folder, tickets, known = self._given
        handle = self._actor.options(
            num_cpus=place.cpus,
            num_gpus=place.gpus,
            max_restarts=0,  # a new one is hired instead, so that it is said
            max_concurrency=2,  # `told` beside the work
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=True),
        ).remote(self._engine.bench, place.threads, folder, tickets, known)
        return _Worker(number, place, handle, handle.greet.remote())

    def stop(self) -> None:
        """End the workers: those at rest may put away what they have, the others end at once."""
        resting = [w.handle.close.remote() for w in self._workers if w.ready is None and w.call is None]
        if resting:
            self._ray.wait(resting, num_returns=len(resting), timeout=CLOSE_SECONDS)
        for worker in self._workers:
            self._dismiss(worker)

    def _dismiss(self, worker: _Worker) -> None:
        try:
            self._ray.kill(worker.handle)
        except Exception:  # it is gone, or the cluster is
            return

    # --- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> Iterator[Outcome]:
        """Yield an outcome for every task."""
        while self._open:
            for worker in self._workers:
                if worker.ready is None and worker.call is None and (call := self._next(worker)) is not None:
                    self._give(worker, call)
            busy = [w for w in self._workers if w.ready is not None or w.call is not None]
            waiting = {w.ref if w.ready is None else w.ready: w for w in busy}
            done, _ = self._ray.wait(list(waiting), num_returns=1, timeout=LOOK_SECONDS)
            for ref in done:
                yield from self._came(waiting[ref], ref)
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._look()
        self._hear(LOOK_SECONDS)

    def _next(self, worker: _Worker) -> _Call | None:
        if self._calls:
            return self._calls.popleft()
        if not self._todo:
            return None
        # of the model that it has warm, else of one that nobody has, else help another
        others = {w.warm for w in self._workers if w is not worker}
        free = (shares for shares in self._todo if shares not in others)
        shares = worker.warm if worker.warm in self._todo else next(free, next(iter(self._todo)))
        task = self._todo[shares].popleft()
        if not self._todo[shares]:
            del self._todo[shares]
        left = 1 + sum(map(len, self._todo.values()))
        most = self._engine.shards or max(1, len(self._workers) // left)
        return _Call(task, "begin", (most, LEAST_ROWS if self._engine.shards is None else 1))

    def _give(self, worker: _Worker, call: _Call) -> None:
        worker.call, worker.warm = call, call.task.shares
        worker.ref = getattr(worker.handle, call.method).remote(call.task, *call.arguments)

    def _came(self, worker: _Worker, ref: Any) -> Iterator[Outcome]:
        """Take in what a worker has come to."""
        from ray.exceptions import RayError, RayTaskError

        try:
            what = self._ray.get(ref)
        except RayTaskError as error:  # a mistake of ours: it is not to be taken for a model's fault
            raise RuntimeError(f"{type(error.cause).__name__}: {error.cause}") from error
        except RayError as error:  # its process, its node, or what it sent is gone
            yield from self._died(worker, error)
            return
        if isinstance(what, Greeting):
            self._met_with(worker, what)
            return
        call, worker.call, worker.ref = worker.call, None, None
        self._tick(what.untold)
        if call is not None and call.task.number in self._open:
            yield from self._understood(call, what)

    def _understood(self, call: _Call, reply: Reply) -> Iterator[Outcome]:
        what, number = reply.what, call.task.number
        if isinstance(what, Outcome):
            self._open.discard(number)
            self._shared.pop(number, None)
            yield what
        elif isinstance(what, Shared):
            self._shared[number] = _Gathering(time.time(), what.parts)
            self._calls.extend(_Call(call.task, "part", (part, what.parts)) for part in range(what.parts))
        elif isinstance(what, Partial):
            if (gathering := self._shared.get(number)) is not None:
                self._gather(call.task, gathering, what, reply.passes)
        elif call.method == "begin":
            raise what
        elif number in self._shared:
            self._whole(call.task)

    def _gather(self, task: Task, gathering: _Gathering, part: Partial, passes: int) -> None:
        try:
            gathering.whole = part if gathering.whole is None else merge(gathering.whole, part)
        except GeedError as error:  # of machines that are too unlike
            self._engine.notify(f"{task.request.model.name} ({task.request.group}) is done by one worker: {error}")
            self._whole(task)
            return
        gathering.came += 1
        gathering.passes += passes
        if gathering.came == gathering.parts:
            self._calls.appendleft(_Call(task, "end", (gathering.whole, gathering.passes, gathering.started)))

    def _whole(self, task: Task) -> None:
        """Let one worker do a task after all: what cannot be measured is told cell by cell, as without a cluster."""
        self._drop(task.number)
        self._calls.appendleft(_Call(task, "begin", (1, 1)))

    def _drop(self, number: int) -> None:
        """Forget a task's shares; those that are at work are not listened to."""
        self._shared.pop(number, None)
        self._calls = deque(c for c in self._calls if c.task.number != number)

    def _hear(self, seconds: float) -> None:
        """Take in the forward passes that were asked for and have come."""
        asked = {w.told: w for w in self._workers if w.told is not None}
        done = self._ray.wait(list(asked), num_returns=len(asked), timeout=seconds)[0] if asked else []
        for ref in done:
            asked[ref].told = None
            try:
                self._tick(self._ray.get(ref))
            except Exception:  # it died; its work says so
                continue

    def _look(self) -> None:
        """Take in how many forward passes were made, and ask again; no one is waited for."""
        self._looked = time.monotonic()
        self._hear(0)
        for worker in self._workers:
            if worker.call is not None and worker.told is None:
                worker.told = worker.handle.told.remote()
        if not self._met and all(time.monotonic() - w.since > START_SECONDS for w in self._workers):
            free = self._ray.available_resources().get("CPU", 0)
            raise SessionError(
                f"no worker of the Ray cluster has started within {START_SECONDS} s: {len(self._workers)} were asked"
                f" for, and {free:g} CPUs are free; ask for fewer with --workers, or wait for the cluster"
            )

    # --- what goes wrong ----------------------------------------------------------------------------------------

    def _met_with(self, worker: _Worker, greeting: Greeting) -> None:
        from geed_onnx import __version__

        if greeting.version != __version__:
            raise SessionError(
                f"geed-onnx is {greeting.version} on {greeting.host}, but {__version__} here: install one version on"
                " every machine of the cluster"
            )
        if greeting.misses is not None:
            self._engine.notify(
                f"{greeting.host} has no folder {greeting.misses!r}: what the suite names by relative paths is not"
                " found there; give absolute paths that every machine has, or addresses"
            )
        worker.ready, self._met = None, True

    def _died(self, worker: _Worker, error: Exception) -> Iterator[Outcome]:
        """Hire another worker, and let it try what this one held, or give that up."""
        call = worker.call
        self._dismiss(worker)
        if call is None:
            self._failed_starts += 1
            if self._failed_starts > self._engine.retries:
                raise SessionError(
                    f"a worker of the Ray cluster {_how(error)}; is geed-onnx installed on every machine?"
                ) from error
        self._workers[self._workers.index(worker)] = self._hired(worker.number, self._anew(worker.place))
        if call is None or call.task.number not in self._open:
            return
        if call.method != "begin" and call.task.number not in self._shared:
            return  # of a task that another does whole by now
        count = self._deaths[call.place] = self._deaths.get(call.place, 0) + 1
        said = f"Ray worker {worker.number} {_how(error)} at {call.what}"
        if count <= self._engine.retries:
            self._engine.notify(f"{said}: tried again")
            self._calls.appendleft(call)
            return
        self._engine.notify(f"{said}: given up")
        self._drop(call.task.number)
        self._open.discard(call.task.number)
        reason = f"the worker process {_how(error)}, {count} times at this model; it may want more memory"
        yield Outcome(call.task.number, None, failed_rows(call.task, reason))

    def _anew(self, place: Place) -> Place:
        """Return the place again, or another if its node is gone."""
        if any(n["NodeID"] == place.node and n["Alive"] for n in self._ray.nodes()):
            return place
        left = places(self._ray, len(self._workers), self._provider)
        taken = [w.place.node for w in self._workers]
        return min(left, key=lambda p: taken.count(p.node))


def _how(error: Exception) -> str:
    """Say in a few words how a worker ended; Ray says it in many, most of them guesses."""
    text = str(error)
    if "OutOfMemory" in type(error).__name__ or "running low on memory" in text:
        return "was ended because its machine ran low on memory"
    if getattr(error, "_actor_init_failed", False):
        return f"did not start ({_last_line(text)})"
    if "node has died" in text:
        return "went with its machine"
    return "died" if "died" in text else f"was lost ({first_line(error)})"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
