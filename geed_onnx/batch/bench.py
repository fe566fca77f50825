"""What one process keeps at hand between tasks: open sessions, decoded images, fingerprints; and how it does a task."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geed_onnx.batch.remote import local_copy
from geed_onnx.batch.tasks import Fresh, Kept, Outcome, Task, called, failed_cell, of_suite
from geed_onnx.engine import Measured, Settings, measure_plan
from geed_onnx.engine.feeding import open_data
from geed_onnx.engine.keys import cell_key, hashed, plan_facts
from geed_onnx.engine.plan import Opened, Plan, draw_indices, open_file, plan_of, units_of
from geed_onnx.engine.record import group_facts
from geed_onnx.errors import ActionError, DataError, GeedError, MeasureError, UsageError
from geed_onnx.groups import parse_group
from geed_onnx.sessions import RuntimeOptions, resolve_provider
from geed_onnx.sources import Fingerprint, KeptSource, Source
from geed_onnx.suites import DataEntry, Job, ModelEntry
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
    _sources: dict[str, KeptSource] = field(default_factory=dict, repr=False)
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
        job = task.job
        path = local_copy(job.model.path)
        if path not in self._hashes:
            self._hashes[path] = model_sha256(path)
        facts = {
            "model": self._hashes[path],
            "entry": [repr(job.model), repr(job.data), repr(job.measure)],
            "files": {name: _file_hash(v) for name, v in sorted(job.model.constants.items()) if isinstance(v, str)},
            **self.drawn(job),
            "group": job.group,
            "samples": job.samples,
            "seed": job.seed,
            "provider": resolve_provider(job.measure.provider),
        }
        return hashed(facts)

    def drawn(self, job: Job) -> dict[str, Any]:
        """Return the fingerprints of a job's sample and of the spread points outside it, and their clusters."""
        source = self.source(job.data)
        drawing = draw_indices(source, settings_of(job))
        units = units_of(source, drawing, job.data.cluster)
        return {"data": self._printed(source, job, drawing.sample, drawing.spread), "units": units}

    def _printed(self, source: Source, job: Job, sample: Sequence[int], spread: Sequence[int]) -> tuple[str, str]:
        inside = set(sample)
        points = tuple(i for i in spread if i not in inside)
        return self._print(source, job, tuple(sample)), self._print(source, job, points)

    def _print(self, source: Source, job: Job, indices: tuple[int, ...]) -> str:
        place = (repr(job.data), indices)
        if place not in self._prints:
            prints = Fingerprint()
            for index in indices:
                for name, raw in source.items([index]):
                    prints.add(name, raw)
            self._prints[place] = prints.hexdigest()
        return self._prints[place]

    # --- opening ------------------------------------------------------------------------------------------------

    def source(self, data: DataEntry) -> KeptSource:
        """Return a data set, opened once; its images stay in memory while there is room."""
        place = repr(data)
        if place not in self._sources:
            uri = local_copy(data.source)
            opened = open_data(uri, column=data.column, skip_bad=data.skip_bad, streaming=data.streaming)
            self._sources[place] = KeptSource(opened, data.source, aligned=not data.skip_bad)
        return self._sources[place]

    def prepare(self, task: Task) -> Prepared:
        """Open what a task needs and settle its plan; a tap that is not there fails by itself.

        Raises
        ------
        GeedError
            If nothing of the task can be measured.
        """
        job = task.job
        group = parse_group(job.group)
        settings = settings_of(job)
        taps, missing = self._taps(task)
        opened = self._open(job, taps)
        chosen = _suitable(job, opened)
        plan = plan_of(
            opened,
            group,
            variants=chosen,
            acts=job.model.acts,
            declared=job.model.declared_action,
            settings=settings,
            scores=job.model.scores,
        )
        plan = replace(plan, model=called({**plan.model, "path": job.model.path}, job.model))
        prints = self._printed(plan.source, job, plan.indices, plan.spread_indices)
        facts = plan_facts(plan, *prints)
        keys = {
            (t.name, v.name): str(cell_key(facts, plan, t, v))
            for t in plan.targets
            for v in plan.variants
            if v.kind == t.kind
        }
        return Prepared(plan, keys, missing)

    def _taps(self, task: Task) -> tuple[tuple[str, ...] | None, tuple[Fresh, ...]]:
        """Return the taps that are there, and a failed cell for each that is not."""
        entry = task.job.model
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

    def _open(self, job: Job, taps: tuple[str, ...] | None) -> Opened:
        place = (repr(job.model), repr(job.data), repr(taps), repr(_runtime(job, self.threads, {})))
        if place in self._opened:
            self._opened.move_to_end(place)
            return self._opened[place]
        opened = open_file(
            local_copy(job.model.path),
            lambda: self.source(job.data),
            taps=taps,
            input=job.model.input,
            layout=job.model.layout,
            preprocessing={**job.data.preprocessing, **job.model.preprocessing},
            runtime=_runtime(job, self.threads, _constants(job.model)),
            skip_bad=job.data.skip_bad,
        )
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
            cells.append(Kept(key, dict(plan.model), of_suite({"uri": plan.source.uri}, task.job.data)))
        elif (found := fresh.get((tap, variant))) is not None:
            if found.result.key != key:
                raise DataError(
                    f"{plan.source.uri}: the images changed while they were measured; run again when they are settled"
                )
            data = of_suite(found.result.data, task.job.data)
            cells.append(Fresh(replace(found.result, data=data), found.tables))
        else:
            row = failed_cell(task, reasons.get(tap, "not measured"), tap=tap, kind=kinds[tap], variant=variant)
            group = group_facts(plan.group, plan.settings.interpolation)
            cells.append(replace(row, result=replace(row.result, model=dict(plan.model), group=group)))
    whole = not any(isinstance(c, Fresh) and c.result.failed for c in cells)
    return Outcome(task.number, ticket if whole else None, tuple(cells), **facts)


def unexpected(error: Exception) -> str:
    """Return what is said of an error that nobody thought of, in one line."""
    first = (str(error).splitlines() or [""])[0]
    return f"unexpected {type(error).__name__}: {first[:300]} (this is a bug here; please report it)"


def failed_rows(task: Task, reason: str) -> tuple[Fresh, ...]:
    """Return the rows of a task of which nothing can be measured: one for each tap that was named."""
    taps = task.job.model.taps or ("*",)
    variants = task.job.measure.variants or ("*",)
    return tuple(failed_cell(task, reason, tap=tap, variant=v) for tap in taps for v in variants)


def settings_of(job: Job) -> Settings:
    """Return the engine's settings of a job."""
    m = job.measure
    return Settings(
        job.samples,
        m.spread_samples,
        m.reference_samples,
        job.seed,
        m.level,
        m.floor,
        m.mask,
        m.batch_size,
        m.interpolation,
        job.data.cluster,
    )


def _suitable(job: Job, opened: Opened) -> tuple[str, ...]:
    """Return the variants of the suite that some tap of this model is for.

    Raises
    ------
    UsageError
        If there is none.
    """
    kinds = {t.kind for t in opened.targets}
    names = job.measure.variants or PAPER
    chosen = tuple(n for n in names if parse_variant(n).kind in kinds)
    if not chosen:
        raise UsageError(
            f"none of the variants ({', '.join(names)}) is for a tap of this model ({', '.join(sorted(kinds))})"
        )
    return chosen


def _constants(entry: ModelEntry) -> dict[str, Any]:
    found = {}
    for name, value in entry.constants.items():
        if isinstance(value, str):
            try:
                found[name] = np.load(value, allow_pickle=False)
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"constant {name!r}: expected a number or a .npy file with an array, got {value!r} ({error})"
                ) from None
        else:
            found[name] = np.asarray(float(value))
    return found


def _runtime(job: Job, threads: int | None, constants: Mapping[str, Any]) -> RuntimeOptions:
    m = job.measure
    return RuntimeOptions(m.provider, m.threads or threads, m.tf32, layout=job.model.layout, constants=constants)


def _file_hash(path: str) -> str:
    import hashlib

    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return "missing"  # opening the model says so
