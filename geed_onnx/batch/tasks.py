"""One request as a task that any process can do: what goes in, what comes out, both plain data that pickle carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from geed_onnx.engine.record import group_facts
from geed_onnx.groups import parse_group
from geed_onnx.requests import Request
from geed_onnx.results import CellTables, Result


@dataclass(frozen=True)
class Task:
    """One request of a suite, with its place in the suite's order."""

    number: int
    request: Request

    @property
    def shares(self) -> tuple[object, ...]:
        """What tasks have in common that can share a session: one model on one data set."""
        return self.request.model, self.request.data


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


def failed_cell(
    task: Task, reason: str, *, tap: str = "*", kind: str | None = None, variant: str = "*", **facts: Any
) -> Fresh:
    """Return the row of a cell that could not be measured; `*` stands for all of a job's taps or variants."""
    asked = task.request
    group = parse_group(asked.group) if isinstance(asked.group, str) else asked.group
    result = Result(
        model={"path": asked.model.path, "sha256": None, "producer": None, **asked.model.called},
        data={"uri": asked.data.source, "fingerprint": None, "samples": 0, "name": asked.data.name},
        group=group_facts(group, asked.settings.interpolation) | {"name": str(asked.group)},
        tap={"name": tap, "kind": kind, "shape": None},
        variant=variant,
        value=None,
        low=None,
        high=None,
        level=asked.settings.level,
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
        seed=asked.settings.seed,
        runtime={"provider": None},
        failed=True,
    )
    return Fresh(replace(result, **facts), None)
