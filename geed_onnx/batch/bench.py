"""What one process keeps at hand between tasks: open sessions, decoded images, fingerprints; and how it does a task."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geed_onnx.batch.remote import local_copy
from geed_onnx.batch.tasks import Fresh, Kept, Outcome, Task, failed_cell
from geed_onnx.engine import Measured, Opened, Plan, measure_plan, open_model, plan_of
from geed_onnx.engine.keys import cell_key, hashed, plan_facts
from geed_onnx.engine.opening import open_data
from geed_onnx.engine.plan import units_of
from geed_onnx.engine.record import group_facts
from geed_onnx.errors import ActionError, DataError, GeedError, MeasureError, UsageError
from geed_onnx.requests import Data, Request
from geed_onnx.sessions import resolve_provider
from geed_onnx.sources import Fingerprint, KeptSource, draw_distinct
from geed_onnx.taps import model_sha256, read_graph, resolve_taps
from geed_onnx.variants import PAPER, parse_variant

#: Sessions kept open in one process; tasks come model by model.
OPEN_SESSIONS = 2
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """A task whose model is open: its plan, the keys of its cells, and what of it cannot be measured."""

    plan: Plan
    keys: Mapping[tuple[str, str], str]
    """{(tap, variant): key}"""
    failed: tuple[Fresh, ...] = ()


@dataclass
class Bench:
    """Sessions, images and fingerprints of one process.

    Attributes
    ----------
    threads : int or None
        ONNX Runtime's threads where the suite does not say; None: all cores.
    """

    threads: int | None = None
    _opened: OrderedDict[tuple[object, ...], Opened] = field(default_factory=OrderedDict, repr=False)
    _sources: dict[Data, KeptSource] = field(default_factory=dict, repr=False)
    _prints: dict[tuple[object, ...], str] = field(default_factory=dict, repr=False)
    _hashes: dict[str, str] = field(default_factory=dict, repr=False)

    # --- doing a task -------------------------------------------------------------------------------------------

    def perform(
        self, task: Task, tickets: Collection[str] = (), known: Collection[str] = (), tick: Tick | None = None
    ) -> Outcome:
        """Do a task, but for what is known: tickets of tasks that were done whole, keys of cells that were measured.

        Errors become rows with their reason; nothing is raised for what one model cannot do.
        """
        start = time.perf_counter()
        passes = 0

        def count(done: int, total: int) -> None:
            nonlocal passes
            passes = done
            if tick is not None:
                tick(done, total)

        try:
            outcome = self._performed(task, tickets, known, count)
        except GeedError as error:
            outcome = Outcome(task.number, None, failed_rows(task, str(error)))
        except Exception as error:
            # a mistake of ours at one model is no reason to lose the others: it is a row, and says what it is
            outcome = Outcome(task.number, None, failed_rows(task, unexpected(error)))
        return replace(outcome, passes=passes, seconds=time.perf_counter() - start)

    def _performed(self, task: Task, tickets: Collection[str], known: Collection[str], tick: Tick) -> Outcome:
        ticket = self.ticket(task)
        if ticket in tickets:
            return Outcome(task.number, ticket, unopened=True)
        prepared = self.prepare(task)
        notes: list[str] = []
        measured = self.measured(prepared, known, tick, notes.append)
        return conclude(task, prepared, ticket, known, measured, notes=tuple(dict.fromkeys(notes)))

    def measured(
        self, prepared: Prepared, known: Collection[str], tick: Tick | None, notify: Callable[[str], None] | None
    ) -> list[Measured | Failure]:
        """Measure the taps that have a cell which is not known; a tap that cannot be measured fails by itself."""
        plan = prepared.plan
        wanted = {tap for (tap, _), key in prepared.keys.items() if key not in known}
        targets = tuple(t for t in plan.targets if t.name in wanted)
        if not targets:
            return []
        # the session draws off every tap as ever, so that what is measured again comes out to the last bit
        try:
            return list(measure_plan(replace(plan, targets=targets), progress=tick, notify=notify))
        except (MeasureError, ActionError) as error:
            if len(targets) == 1:
                return [Failure(targets[0].name, str(error))]
        except GeedError as error:
            return [Failure(t.name, str(error)) for t in targets]
        found: list[Measured | Failure] = []
        for target in targets:
            try:
                found.extend(measure_plan(replace(plan, targets=(target,)), progress=tick, notify=notify))
            except GeedError as error:
                found.append(Failure(target.name, str(error)))
        return found

    # --- tickets ------------------------------------------------------------------------------------------------

    def ticket(self, task: Task) -> str:
        """Return the hash of everything a task's cells depend on together, found without opening the model."""
        asked, settings = task.request, task.request.settings
        path = local_copy(asked.model.path)
        if path not in self._hashes:
            self._hashes[path] = model_sha256(path)
        source = self.source(asked.data)
        drawing = draw_distinct(source, settings.samples, settings.spread_samples, settings.seed)
        facts = {
            "model": self._hashes[path],
            "entry": repr(asked),
            "files": {n: _file_hash(v) for n, v in sorted(asked.model.constants.items()) if isinstance(v, str)},
            "data": self._printed(asked, drawing.sample, drawing.spread),
            "units": units_of(source, drawing, asked.data.cluster),
            "provider": resolve_provider(asked.runtime.provider),
        }
        return hashed(facts)

    def _printed(self, asked: Request, sample: Sequence[int], spread: Sequence[int]) -> tuple[str, str]:
        """Return the fingerprints of a sample, and of the spread points outside it."""
        inside = set(sample)
        points = tuple(i for i in spread if i not in inside)
        return self._print(asked.data, tuple(sample)), self._print(asked.data, points)

    def _print(self, data: Data, indices: tuple[int, ...]) -> str:
        if (data, indices) not in self._prints:
            prints = Fingerprint()
            for index in indices:
                for name, raw in self.source(data).items([index]):
                    prints.add(name, raw)
            self._prints[data, indices] = prints.hexdigest()
        return self._prints[data, indices]

    # --- opening ------------------------------------------------------------------------------------------------

    def source(self, data: Data) -> KeptSource:
        """Return a data set, opened once; its images stay in memory while there is room."""
        if data not in self._sources:
            opened = open_data(replace(data, source=local_copy(data.source)))
            self._sources[data] = KeptSource(opened, data.source, aligned=not data.skip_bad)
        return self._sources[data]

    def prepare(self, task: Task) -> Prepared:
        """Open what a task needs and settle its plan; a tap that is not there fails by itself.

        Raises
        ------
        GeedError
            If nothing of the task can be measured.
        """
        asked = task.request
        threads = asked.runtime.threads or self.threads
        taps, missing = self._taps(task)
        asked = replace(asked, model=replace(asked.model, taps=taps), runtime=replace(asked.runtime, threads=threads))
        opened = self._open(asked)
        chosen = _suitable(asked, opened)
        plan = plan_of(replace(asked, settings=replace(asked.settings, variants=chosen)), opened)
        facts = plan_facts(plan, *self._printed(asked, plan.indices, plan.spread_indices))
        keys = {
            (t.name, v.name): str(cell_key(facts, plan, t, v))
            for t in plan.targets
            for v in plan.variants
            if v.kind == t.kind
        }
        return Prepared(plan, keys, missing)

    def _taps(self, task: Task) -> tuple[tuple[str, ...] | None, tuple[Fresh, ...]]:
        """Return the taps that are there, and a failed cell for each that is not."""
        entry = task.request.model
        if entry.taps is None:
            return None, ()
        graph = read_graph(local_copy(entry.path))
        there, missing = [], []
        for spec in entry.taps:
            try:
                resolve_taps(graph, [spec], input=entry.input)
                there.append(spec)
            except UsageError as error:
                missing.append(failed_cell(task, str(error), tap=spec))
        if not there:
            raise UsageError("; ".join(str(m.result.reason) for m in missing))
        return tuple(there), tuple(missing)

    def _open(self, asked: Request) -> Opened:
        place = asked.model, asked.data, asked.runtime
        if place in self._opened:
            self._opened.move_to_end(place)
            return self._opened[place]
        opened = open_model(asked, self.source(asked.data), local_copy(asked.model.path))
        while len(self._opened) >= OPEN_SESSIONS:
            self._opened.popitem(last=False)
        self._opened[place] = opened
        return opened


@dataclass(frozen=True)
class Failure:
    """A tap that could not be measured, and why."""

    tap: str
    reason: str


def conclude(
    task: Task,
    prepared: Prepared,
    ticket: str | None,
    known: Collection[str],
    measured: Sequence[Measured | Failure],
    **facts: Any,
) -> Outcome:
    """Return the outcome of a task from what was measured of it."""
    plan = prepared.plan
    fresh = {(m.result.tap["name"], m.result.variant): m for m in measured if isinstance(m, Measured)}
    reasons = {m.tap: m.reason for m in measured if isinstance(m, Failure)}
    cells: list[Kept | Fresh] = list(prepared.failed)
    kinds = {t.name: t.kind for t in plan.targets}
    for (tap, variant), key in prepared.keys.items():
        if key in known:
            cells.append(Kept(key, dict(plan.opened.model), {"uri": plan.source.uri, "name": task.request.data.name}))
        elif (found := fresh.get((tap, variant))) is not None:
            if found.result.key != key:
                raise DataError(
                    f"{plan.source.uri}: the images changed while they were measured; run again when they are settled"
                )
            cells.append(Fresh(found.result, found.tables))
        else:
            row = failed_cell(task, reasons.get(tap, "not measured"), tap=tap, kind=kinds[tap], variant=variant)
            group = group_facts(plan.group, plan.settings.interpolation)
            cells.append(replace(row, result=replace(row.result, model=dict(plan.opened.model), group=group)))
    whole = not any(isinstance(c, Fresh) and c.result.failed for c in cells)
    return Outcome(task.number, ticket if whole else None, tuple(cells), **facts)


def unexpected(error: Exception) -> str:
    """Return what is said of an error that nobody thought of, in one line."""
    first = (str(error).splitlines() or [""])[0]
    return f"unexpected {type(error).__name__}: {first[:300]} (this is a bug here; please report it)"


def failed_rows(task: Task, reason: str) -> tuple[Fresh, ...]:
    """Return the rows of a task of which nothing can be measured: one for each tap that was named."""
    taps = task.request.model.taps or ("*",)
    variants = [str(v) for v in task.request.settings.variants or ("*",)]
    return tuple(failed_cell(task, reason, tap=tap, variant=v) for tap in taps for v in variants)


def _suitable(asked: Request, opened: Opened) -> tuple[str, ...]:
    """Return the variants of the suite that some tap of this model is for.

    Raises
    ------
    UsageError
        If there is none.
    """
    kinds = {t.kind for t in opened.targets}
    names = [str(v) for v in asked.settings.variants or PAPER]
    chosen = tuple(n for n in names if parse_variant(n).kind in kinds)
    if not chosen:
        raise UsageError(
            f"none of the variants ({', '.join(names)}) is for a tap of this model ({', '.join(sorted(kinds))})"
        )
    return chosen


def _file_hash(path: str) -> str:
    import hashlib

    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return "missing"  # opening the model says so
