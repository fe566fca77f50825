"""From tables to Results: values, reference levels, reasons, and everything needed to reproduce them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from geed_onnx.engine.plan import Plan
from geed_onnx.engine.tally import Cell, Gathered
from geed_onnx.estimators import (
    METHOD,
    Deviations,
    Estimate,
    Spread,
    Tables,
    calibrated,
    calibrated_change,
    spread,
    value_change,
    value_of,
)
from geed_onnx.results import CellTables, Result, finite


def record(
    plan: Plan,
    gathered: Gathered,
    cell: Cell,
    reference: tuple[str, ...],
    data: Mapping[str, Any],
    runtime: Mapping[str, Any],
    notes: tuple[str, ...],
    key: str | None,
) -> tuple[Result, CellTables]:
    """Return the Result of one cell, and what it is made of."""
    table = cell.table()
    m = _spread(cell, gathered)
    tables = Tables(
        sample=table,
        normaliser=cell.variant.scale,
        optimum=cell.variant.m.optimum,
        largest=cell.variant.m.largest,
        spread=m,
        floor=_reference(cell.floors, reference),
        null=_reference(cell.nulls, reference),
        reference=reference,
    )
    reason = cell.reason or _no_value(tables, table)
    common = _common(plan, gathered, cell, data, runtime, (*notes, *_notes(gathered, cell))) | {"key": key}
    if reason is not None:
        return Result(**common, **_without_value(plan, tables), reason=reason), CellTables(table)
    estimate = value_of(tables, plan.settings.level)
    calibration = calibrated(tables, plan.settings.level, cell.variant.m.resolution)
    result = Result(
        **common,
        **_estimate(estimate),
        **_levels(tables),
        **_calibrated(calibration.estimate),
        per_element=tuple(tables.normalised(float(v)) for v in table.per_element),
        reason=calibration.reason,
    )
    changes = value_change(tables), calibrated_change(tables) if calibration.estimate is not None else None
    return result, CellTables(table, *changes)


def _spread(cell: Cell, gathered: Gathered) -> Spread | None:
    kind = cell.variant.scale.spread
    return spread(gathered.spread, kind) if kind is not None and cell.action is not None else None


def _reference(rows: list[Any], reference: tuple[str, ...]) -> Deviations | None:
    return Deviations.of(reference, np.concatenate(rows)) if rows else None


def _reference_samples(cell: Cell) -> int:
    return sum(len(rows) for rows in cell.nulls)


def _no_value(tables: Tables, table: Deviations) -> str | None:
    if len(table) == 0:
        return "no image was measured"
    if not np.isfinite(table.values).all():
        return (
            "the deviation is infinite for some images: they are relative to something that is zero there (a class of"
            " probability 0, a vanishing feature); use a bounded distance (jensen-shannon, cosine)"
        )
    if tables.spread is not None:
        if len(tables.spread.ids) < 2:
            return "the spread M needs at least two distinct images"
        return tables.normaliser.problem(tables.spread)
    return None


def _common(
    plan: Plan,
    gathered: Gathered,
    cell: Cell,
    data: Mapping[str, Any],
    runtime: Mapping[str, Any],
    notes: tuple[str, ...],
) -> dict[str, Any]:
    target, action = cell.target, cell.action
    channelwise = cell.variant.distance.startswith("channelwise") and gathered.channels
    no_resampling = not any(plan.acting.resampled_by)
    if cell.resamples:
        floor_method = "resampling"
    elif no_resampling:
        floor_method = "exact"
    else:
        floor_method = "passes" if cell.floors else "optimum"
    return {
        "model": dict(plan.model),
        "data": dict(data),
        "group": {"name": plan.group.name, "order": plan.group.order},
        "tap": {
            "name": target.name,
            "kind": target.kind,
            "shape": list(gathered.shape),
            "layout": target.layout,
            "module": target.module,
            "action": action.name if action else str(plan.acts.get(target.name, cell.variant.action)),
            "kernel": list(action.kernel) if action else None,
        },
        "variant": cell.variant.name,
        "level": plan.settings.level,
        "samples": data["samples"],
        "law_defect": action.law_defect if action else 0.0,
        "input_law_defect": plan.acting.law_defect,
        "floor_method": floor_method,
        "sensitivity": finite(cell.contrast),
        "zero_channels": gathered.zero_channels / gathered.channels if channelwise else None,
        "logits": gathered.logits,
        "spread_samples": len(gathered.spread) if cell.variant.scale.spread else None,
        "reference_samples": _reference_samples(cell),
        "seed": plan.settings.seed,
        "runtime": dict(runtime),
        "notes": notes,
    }


def _notes(gathered: Gathered, cell: Cell) -> tuple[str, ...]:
    notes = []
    if gathered.logits:
        notes.append(f"{cell.target.name} does not sum to 1: taken as logits, softmax in float64")
        if "sigmoid" in cell.target.flags:
            notes.append(f"{cell.target.name} comes from a sigmoid: a softmax of it is no probability the model states")
    folded = [f for f in cell.target.flags if f.startswith("folded-batch-norm")]
    if folded:
        notes.append(f"{cell.target.name} carries a folded batch norm: it is the norm's output, not the convolution's")
    if cell.action is not None and 0 < _reference_samples(cell) < cell.action.group.order:
        notes.append(
            f"the null has {_reference_samples(cell)} reference images for {cell.action.group.order} elements, so some"
            " elements meet their own image; --reference-samples takes more"
        )
    return tuple(notes)


def _without_value(plan: Plan, tables: Tables) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("value", "low", "high", "optimum", "floor", "null", "calibrated", "calibrated_low", "calibrated_high")
    )
    if tables.spread is None:
        nothing["optimum"] = finite(tables.optimum)
    m = tables.spread.value if tables.spread is not None else None
    return {**nothing, "method": METHOD, "spread": finite(m), "per_element": None}


def _estimate(e: Estimate) -> dict[str, Any]:
    return {"value": float(e.value), "low": finite(e.low), "high": finite(e.high), "method": e.method}


def _levels(tables: Tables) -> dict[str, Any]:
    optimum = tables.normalised(tables.optimum)
    null = None if tables.null is None else tables.normalised(float(tables.null.values.mean()))
    floor = optimum if tables.floor is None else tables.normalised(float(tables.floor.values.mean()))
    return {
        "optimum": finite(optimum),
        "spread": None if tables.spread is None else finite(tables.spread.value),
        "floor": finite(floor),
        "null": finite(null) if null is not None and math.isfinite(null) else None,
    }


def _calibrated(e: Estimate | None) -> dict[str, Any]:
    if e is None:
        return {"calibrated": None, "calibrated_low": None, "calibrated_high": None}
    return {"calibrated": float(e.value), "calibrated_low": finite(e.low), "calibrated_high": finite(e.high)}
