"""What the tests of comparisons share: cells made of known tables, models measured with theirs, folders of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geed_onnx.comparisons import Model, Participant, model_of
from geed_onnx.engine import measure_request
from geed_onnx.estimators import (
    Broken,
    Deviations,
    Tables,
    calibrated,
    calibrated_change,
    normalisers,
    spread,
    value_change,
    value_of,
)
from geed_onnx.requests import request_of
from geed_onnx.results import DEVIATIONS, JACKKNIFE, CellTables, Result, write_results, write_tables
from geed_onnx.variants import anchored_null

Array = np.ndarray[Any, Any]
Row = tuple[Result, CellTables]
SHIPPED = Path(__file__).resolve().parents[1] / "models" / "shipped"
DATA = SHIPPED / "digits-test.parquet"
#: How far on the partner of an image stands, for each of four elements.
PARTNERS = (0, 1, 1, 1)


@dataclass(frozen=True)
class Raw:
    """The raw numbers of one cell, as an oracle would want them: {image: …}."""

    deviations: Mapping[str, Sequence[float]]
    features: Mapping[str, Sequence[float]] | None = None
    """points of M"""
    floor: Mapping[str, Sequence[float]] | None = None
    null: Mapping[str, Sequence[float]] | None = None
    """of the reference images, in the sample's order"""


def random_raw(seed: int, n: int = 12, order: int = 4, points: int = 15, references: int = 5, shift: float = 0) -> Raw:
    """Skewed deviations of `n` images, features of the same and a few more, a floor and a null of the first."""
    rng = np.random.default_rng(seed)
    ids = [f"image{i:02}" for i in range(max(n, points))]
    draw = lambda low: (low + shift + 0.2 * rng.exponential(size=order)).tolist()  # noqa: E731
    return Raw(
        {i: draw(0.1) for i in ids[:n]},
        {i: rng.normal(1, 1, size=6).tolist() for i in ids[:points]},
        {i: (0.02 * rng.random(order)).tolist() for i in ids[:references]},
        {i: draw(1.0) for i in ids[:references]},
    )


def cell(
    raw: Raw,
    name: str = "a",
    *,
    normaliser: str = "none",
    tap: str = "latent",
    kind: str = "vector",
    variant: str = "vector:trivial:l2",
    level: float = 0.95,
    group: str = "C4",
    mask: str | None = None,
    fingerprint: str = "f" * 64,
    seed: int = 0,
    model: Mapping[str, Any] | None = None,
    tap_facts: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Row:
    """Return a Result and its tables, made by the estimators from raw numbers."""
    table = Deviations.of(list(raw.deviations), np.array(list(raw.deviations.values())))
    kind_of_m = normalisers[normaliser].spread
    reference = tuple(raw.null or ())
    tables = Tables(
        sample=table,
        normaliser=normalisers[normaliser],
        optimum=0.0,
        largest=np.inf,
        spread=spread({i: np.array(v) for i, v in (raw.features or {}).items()}, kind_of_m) if kind_of_m else None,
        floor=Deviations.of(reference, np.array(list(raw.floor.values()))) if raw.floor else None,
        null=Broken.of(reference, *anchored_null(np.array(list(raw.null.values())), PARTNERS)) if raw.null else None,
    )
    e, c = value_of(tables, level), calibrated(tables, level, 1e-6).estimate
    result = Result(
        model={"path": f"{name}.onnx", "sha256": f"sha of {name}", "producer": "tests", "name": name, **(model or {})},
        data={"uri": "images/", "fingerprint": fingerprint, "samples": len(table), "preprocessing": None, "mask": mask},
        group={"name": group, "order": 4},
        tap={"name": tap, "kind": kind, "shape": [6], "module": None, "action": "trivial", "kernel": [0, 1, 2, 3]}
        | dict(tap_facts or {}),
        variant=variant,
        value=float(e.value),
        low=e.low,
        high=e.high,
        level=level,
        method=e.method,
        samples=len(table),
        optimum=0.0,
        spread=None if tables.spread is None else tables.spread.value,
        floor=0.0,
        null=1.0,
        calibrated=None if c is None else float(c.value),
        calibrated_low=None if c is None else c.low,
        calibrated_high=None if c is None else c.high,
        per_element=None,
        law_defect=0.0,
        reason=None,
        seed=seed,
        runtime={"provider": "tests"},
        floor_method="exact",
        key=f"{name} {tap} {variant} {group} {level} {mask}",
    )
    changed = CellTables(table, value_change(tables), None if c is None else calibrated_change(tables))
    return replace(result, **changes), changed


def failed(name: str, tap: str = "*", variant: str = "*", **changes: Any) -> Row:
    """Return the row of a cell that a run could not measure."""
    result, _ = cell(random_raw(0), name)
    nothing = dict.fromkeys(("value", "low", "high", "optimum", "floor", "null", "per_element", "key"))
    nothing |= dict.fromkeys(("calibrated", "calibrated_low", "calibrated_high"))
    said = {
        "data": {"uri": "images/", "fingerprint": None, "samples": 0},
        "model": {"path": f"{name}.onnx", "sha256": None, "producer": None, "name": name},
        "group": {"name": "C4", "order": None},
        "tap": {"name": tap, "kind": None, "shape": None},
        "variant": variant,
        "failed": True,
        "reason": "the file is truncated",
        "samples": 0,
    }
    return replace(result, **(nothing | said | changes)), CellTables(Deviations.empty(4))


def alone(*rows: Row, name: str | None = None) -> Participant:
    """Return a participant of one model whose tables are in memory."""
    return Participant(name or rows[0][0].label, (model(*rows, name=name),))


def model(*rows: Row, name: str | None = None) -> Model:
    return model_of(name or rows[0][0].label, rows)


def without_tables(participant: Participant) -> Participant:
    """Return the same as a plain file of results gives it."""
    models = tuple(Model(m.name, m.source, m.results, lambda _: None) for m in participant.models)
    return replace(participant, models=models)


def folder(path: Path, rows: Iterable[Row]) -> Path:
    """Write a run's folder: results, deviations, jackknife changes."""
    path.mkdir(exist_ok=True)
    some = list(rows)
    write_results(path / "results.jsonl", [r for r, _ in some])
    write_tables([(r, t) for r, t in some if not r.failed], path / DEVIATIONS, path / JACKKNIFE)
    return path


def measured(name: str, group: str = "C4", samples: int = 6, data: Path = DATA, **settings: Any) -> list[Row]:
    """Measure one of the shipped models, named as a suite would name it."""
    model = str(SHIPPED / f"{name}.onnx")
    found = measure_request(request_of(model, str(data), group, samples=samples, provider="cpu", **settings))
    return [(replace(m.result, model={**m.result.model, "name": name}), m.tables) for m in found]
