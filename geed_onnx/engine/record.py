"""From tables to Results: values, reference levels, reasons, and everything needed to reproduce them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from geed_onnx.actions import Interpolation
from geed_onnx.engine.partial import CellPart, TapPart
from geed_onnx.engine.plan import Plan
from geed_onnx.engine.tally import FAINT, Cell, by_channel
from geed_onnx.estimators import (
    METHOD,
    Deviations,
    Estimate,
    Spread,
    Tables,
    calibrated,
    calibrated_change,
    no_spread,
    restricted,
    spread,
    value_change,
    value_of,
)
from geed_onnx.groups import Group
from geed_onnx.results import CAUTION, CellTables, Result, finite
from geed_onnx.variants import SUM_TOLERANCE, largest_value

#: Images below which intervals of scores are known to cover too little.
FEW_SCORES = 30
#: Share of the value that one image may carry before it is named, and images from which on any is.
MOST_OF_VALUE, FEWEST_IMAGES = 0.2, 6


@dataclass(frozen=True)
class Measured:
    """A Result and the tables it is a function of."""

    result: Result
    tables: CellTables

    @property
    def deviations(self) -> Deviations:
        """m(f(gx), ρ(g) f̂(x)) by image and element."""
        return self.tables.deviations


def record(
    plan: Plan,
    tap: TapPart,
    cell: Cell,
    part: CellPart,
    data: Mapping[str, Any],
    runtime: Mapping[str, Any],
    notes: tuple[str, ...],
    key: str | None,
) -> Measured:
    """Return the Result of one cell, and what it is made of: `part`, beside `tap`, of the whole measurement."""
    table = part.sample
    m = _spread(cell, tap)
    tables = Tables(
        sample=table,
        normaliser=cell.variant.scale,
        optimum=cell.variant.m.optimum,
        largest=_largest(cell, tap),
        scale=_scale(tap, m),
        spread=m,
        floor=part.floor,
        null=part.null,
        exact=_exact(plan, cell),
        units=plan.units or {},
    )
    reason = cell.reason or _no_value(tables, plan.settings.level)
    common = _common(plan, tap, cell, part, data, runtime, (*notes, *_notes(plan, tap, cell, part))) | {"key": key}
    if reason is not None:
        return Measured(Result(**common, **_without_value(plan, tables), reason=reason), CellTables(table))
    estimate = value_of(tables, plan.settings.level)
    calibration = calibrated(tables, plan.settings.level, cell.variant.m.resolution)
    result = Result(
        **common,
        **_estimate(estimate),
        **_levels(tables),
        **_calibrated(calibration.estimate),
        per_element=_by_element(tables, table),
        floor_per_element=_by_element(tables, part.floor),
        null_per_element=_by_element(tables, None if part.null is None else part.null.values),
        reason=None,
        calibrated_reason=calibration.reason,
        parts=_parts(plan, cell, tables),
    )
    changes = value_change(tables), calibrated_change(tables) if calibration.estimate is not None else None
    return Measured(result, CellTables(table, *changes))


def _largest(cell: Cell, tap: TapPart) -> float:
    if cell.action is None:
        return cell.variant.m.largest
    return largest_value(cell.variant, cell.action.group.order, len(cell.action.kernel), tap.shape[-1])


def _exact(plan: Plan, cell: Cell) -> bool:
    """Say whether no element moves input or tap: then every deviation is at equality, whatever the image."""
    return not any(plan.motions) and cell.action is not None and len(cell.action.kernel) == plan.group.order


def _scale(tap: TapPart, m: Spread | None) -> float:
    """Return the root mean square norm of the features, where a distance depends on it; 1 elsewhere."""
    if m is not None:
        return m.scale
    sizes = np.array(list(tap.sizes.values()))
    return float(np.sqrt((sizes**2).mean())) if len(sizes) else 1.0


def _by_element(tables: Tables, table: Deviations | None) -> tuple[float, ...] | None:
    return None if table is None else tuple(tables.normalised(float(v)) for v in table.per_element)


def _parts(plan: Plan, cell: Cell, tables: Tables) -> dict[str, dict[str, Any]] | None:
    """Return the number over the input's exact elements and over those that resample, where there are both.

    A turn by 45° on a grid is no action (its square is not the turn by 90°), and its input is another image for what it
    smears: what of a value comes from there, and what from the exact part, are two questions.
    """
    turns = plan.acting.resampled_by
    sorts = {
        "exact": [g for g, turn in enumerate(turns) if not turn],
        "resampled": [g for g, turn in enumerate(turns) if turn],
    }
    if not all(sorts.values()):
        return None
    return {sort: _part(plan, cell, restricted(tables, elements)) for sort, elements in sorts.items()}


def _part(plan: Plan, cell: Cell, tables: Tables) -> dict[str, Any]:
    estimate = value_of(tables, plan.settings.level)
    calibration = calibrated(tables, plan.settings.level, cell.variant.m.resolution)
    levels, found = _levels(tables), _estimate(estimate)
    return {
        "elements": list(tables.elements or ()),
        **{name: found[name] for name in ("value", "low", "high")},
        **{name: levels[name] for name in ("floor", "null")},
        **_calibrated(calibration.estimate),
        "reason": None,
        "calibrated_reason": calibration.reason,
    }


def _spread(cell: Cell, tap: TapPart) -> Spread | None:
    kind = cell.variant.scale.spread
    return spread(tap.spread, kind) if kind is not None and cell.action is not None else None


def _reference_samples(part: CellPart) -> int:
    return 0 if part.null is None else len(part.null)


def _zero_channels(tap: TapPart, cell: Cell) -> float | None:
    """Return the share of channels of f(x) that are zero everywhere, where the variant goes by channels."""
    channels = len(tap.zero_channels) * tap.shape[0]
    return (
        sum(quiet.zero for quiet in tap.zero_channels.values()) / channels
        if channels and by_channel(cell.variant)
        else None
    )


def _no_value(tables: Tables, level: float) -> str | None:
    table = tables.sample
    if len(table) == 0:
        return "no image was measured"
    if not np.isfinite(table.values).all():
        return (
            "the deviation is infinite for some images: they are relative to something that is zero there (a class of"
            " probability 0, a vanishing feature); use a bounded distance (jensen-shannon, cosine)"
        )
    return no_spread(tables, level)


def group_facts(group: Group, interpolation: Interpolation) -> dict[str, Any]:
    """Return `group` of a Result: name, order, and how it resamples pixels where that is not bilinear."""
    facts: dict[str, Any] = {"name": group.name, "order": group.order}
    return facts if interpolation == "bilinear" else {**facts, "interpolation": interpolation}


def _common(
    plan: Plan,
    tap: TapPart,
    cell: Cell,
    part: CellPart,
    data: Mapping[str, Any],
    runtime: Mapping[str, Any],
    notes: tuple[str, ...],
) -> dict[str, Any]:
    target, action = cell.target, cell.action
    no_resampling = not any(plan.acting.resampled_by)
    if cell.resamples:
        floor_method = "resampling"
    elif no_resampling:
        floor_method = "exact"
    else:
        floor_method = "passes" if part.floor is not None else "optimum"
    return {
        "model": dict(plan.opened.model),
        "data": dict(data),
        "group": group_facts(plan.group, plan.settings.interpolation),
        "tap": {
            "name": target.name,
            "kind": target.kind,
            "shape": list(tap.shape),
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
        "sensitivity": finite(part.contrast),
        "zero_channels": _zero_channels(tap, cell),
        "logits": tap.logits,
        "spread_samples": len(tap.spread) if cell.variant.scale.spread else None,
        "reference_samples": _reference_samples(part),
        "units": None if plan.units is None else len({plan.units[i] for i in part.sample.ids}),
        "seed": plan.settings.seed,
        "runtime": dict(runtime),
        "notes": notes,
    }


def _notes(plan: Plan, tap: TapPart, cell: Cell, part: CellPart) -> tuple[str, ...]:
    notes = [*_of_scores(tap, cell, part), *_of_channels(tap, cell), *_of_images(cell, part.sample)]
    folded = [f for f in cell.target.flags if f.startswith("folded-batch-norm")]
    if folded:
        notes.append(f"{cell.target.name} carries a folded batch norm: it is the norm's output, not the convolution's")
    if cell.action is not None and 0 < _reference_samples(part) < len({*plan.motions}):
        notes.append(
            f"the null has {_reference_samples(part)} reference images for {len({*plan.motions})} motions, so some"
            " share an image; --reference-samples takes more"
        )
    return tuple(notes)


def _of_scores(tap: TapPart, cell: Cell, part: CellPart) -> Iterator[str]:
    """Say what scores were taken as, and on whose word."""
    target = cell.target
    if tap.logits is None:
        return
    if target.scores is not None:
        yield f"{target.name}: taken as {target.scores}, as --scores says"
    elif target.logits:
        yield f"{target.name}: taken as logits, as the graph shows; softmax in float64"
    elif tap.logits:
        yield f"{target.name} does not sum to 1: taken as logits, softmax in float64"
    elif target.logits is None:
        yield (
            f"{target.name} sums to 1: taken as probabilities, which the graph does not show; if it holds logits, add"
            f" --scores {target.name}=logits"
        )
    if tap.logits and "sigmoid" in target.flags:
        yield f"{target.name} comes from a sigmoid: a softmax of it is no probability the model states"
    if tap.missed > SUM_TOLERANCE:
        yield (
            f"{target.name} sums to 1 only within {tap.missed:.2g}, as narrow number formats round: clipped at 0 and"
            " made to sum to 1"
        )
    if 0 < len(part.sample) < FEW_SCORES:
        yield (
            f"{CAUTION}{target.name}: intervals of scores on fewer than {FEW_SCORES} images, here {len(part.sample)},"
            " miss the truth more often than they state, since a few images may carry the value"
        )


def _of_channels(tap: TapPart, cell: Cell) -> Iterator[str]:
    """Say that channels next to zero decide as much as any other, where they do."""
    faint = [quiet.faint for quiet in tap.zero_channels.values()]
    form = cell.variant.m.per_channel
    if faint and form is not None and form.weights is None and median(faint) >= 1:
        yield (
            f"{CAUTION}{cell.target.name}: {median(faint):.0f} of {tap.shape[0]} channels carry less than {FAINT:g} of"
            " the mean channel's norm in most images, and count as much as any other; --variant channelwise-weighted"
            " counts channels by their norm"
        )


def _of_images(cell: Cell, table: Deviations) -> Iterator[str]:
    """Name the image that carries much of the value, which no interval foresees."""
    m, n = cell.variant.m, len(table)
    if n < FEWEST_IMAGES or not np.isfinite(table.values).all():
        return
    above = np.maximum(table.values.mean(axis=1) - m.optimum, 0.0)
    total, worst = float(above.sum()), int(above.argmax())
    if total <= n * (0.0 if m.homogeneous else m.resolution):
        return
    share = float(above[worst]) / total
    if share > max(MOST_OF_VALUE, 2 / n):
        yield (
            f"{CAUTION}{cell.target.name}: image {table.ids[worst]!r} carries {100 * share:.0f} % of the value of"
            f" {cell.variant.name}: intervals foresee no image of its kind that the sample happens to lack"
        )


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
    null = None if tables.null is None else tables.normalised(tables.null.values.mean)
    floor = optimum if tables.floor is None else tables.normalised(tables.floor.mean)
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
