"""One job as a task that any process can do: what goes in, what comes out, both plain data that pickle carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from geed_onnx.engine.record import group_facts
from geed_onnx.groups import parse_group
from geed_onnx.results import CellTables, Result
from geed_onnx.suites import DataEntry, Job, ModelEntry


@dataclass(frozen=True)
class Task:
    """One job of a suite, with its place in the suite's order."""

    number: int
    job: Job

    @property
    def shares(self) -> tuple[object, ...]:
        """What tasks have in common that can share a session: one model on one data set."""
        return repr(self.job.model), repr(self.job.data)


@dataclass(frozen=True)
class Kept:
    """A cell that was measured before: its number stays, what it is called may be new."""

    key: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    """uri and name"""


@dataclass(frozen=True)
class Fresh:
    """A cell measured now; without tables if it failed."""

    result: Result
    tables: CellTables | None


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its cells in the order of taps and variants."""

    number: int
    ticket: str | None
    """hash of all that the task's cells depend on together; None where it could not be told"""
    cells: tuple[Kept | Fresh, ...] = ()
    unopened: bool = False
    """whether the ticket was known already, so that not even the model was opened"""
    notes: tuple[str, ...] = ()
    passes: int = 0
    seconds: float = 0.0

    @property
    def failed(self) -> tuple[Result, ...]:
        """The cells that could not be measured."""
        return tuple(c.result for c in self.cells if isinstance(c, Fresh) and c.result.failed)


def called(model: Mapping[str, Any], entry: ModelEntry) -> dict[str, Any]:
    """Return a result's `model` with what the suite calls it."""
    said = {"name": entry.name, "family": entry.family, "seed": entry.seed, "step": entry.step}
    return {**model, **{k: v for k, v in said.items() if v is not None}}


def of_suite(data: Mapping[str, Any], entry: DataEntry) -> dict[str, Any]:
    """Return a result's `data` with what the suite calls it."""
    return {**data, "name": entry.name}


def failed_cell(
    task: Task, reason: str, *, tap: str = "*", kind: str | None = None, variant: str = "*", **facts: Any
) -> Fresh:
    """Return the row of a cell that could not be measured; `*` stands for all of a job's taps or variants."""
    job = task.job
    result = Result(
        model=called({"path": job.model.path, "sha256": None, "producer": None}, job.model),
        data=of_suite({"uri": job.data.source, "fingerprint": None, "samples": 0}, job.data),
        group=group_facts(parse_group(job.group), job.measure.interpolation) | {"name": job.group},
        tap={"name": tap, "kind": kind, "shape": None},
        variant=variant,
        value=None,
        low=None,
        high=None,
        level=job.measure.level,
        method="none: not measured",
        samples=0,
        optimum=None,
        spread=None,
        floor=None,
        null=None,
        calibrated=None,
        calibrated_low=None,
        calibrated_high=None,
        per_element=None,
        law_defect=0.0,
        reason=reason,
        seed=job.seed,
        runtime={"provider": None},
        failed=True,
    )
    return Fresh(replace(result, **facts), None)
