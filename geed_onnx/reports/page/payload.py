"""The page's numbers as one JSON object: columns, with each text once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from geed_onnx.reports.page.contents import Cell, Contents, Context, Entity
from geed_onnx.reports.page.elements import Profile, calibrated_by_element
from geed_onnx.reports.page.families import Mean
from geed_onnx.reports.table import clean
from geed_onnx.results import Result

Value = float | str | None


class Row(NamedTuple):
    """One line of the table of all results, and what it belongs to."""

    result: Result
    cell: Cell
    entity: Entity
    context: Context


class Column(NamedTuple):
    """One column of the table of all results: its heading, what it means, whether the page shows it (the CSV does)."""

    key: str
    title: str
    about: str
    value: str | Callable[[Row], Any] = ""
    """where it stands in a `Row`, names with dots between; by default the field of the result that `key` names"""
    text: bool = False
    shown: bool = True

    def of(self, row: Row) -> Value:
        """Return the cell of a row: a number as it is, anything else as printable text."""
        if not isinstance(self.value, str):
            return _plain(self.value(row))
        found: Any = row
        for name in (self.value or f"result.{self.key}").split("."):
            found = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
        return _plain(found)


def _plain(value: Any) -> Value:
    """Return a number as it is and anything else as printable text."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return clean(value if isinstance(value, str) else json.dumps(value, default=str))


def worst_element(r: Result) -> int | None:
    """Return the element that deviates most: against its own floor and null where these are known, else as it is."""
    known = {g: v for g, v in enumerate(calibrated_by_element(r) or r.per_element or ()) if v is not None}
    return max(known, key=known.__getitem__) if known else None


def _worst(row: Row) -> Value:
    g, names = worst_element(row.result), row.context.elements.names
    return None if g is None else names[g] if g < len(names) else f"g{g}"


def _uncalibrated(r: Result | Mean) -> str | None:
    return None if r.value is None else r.why_uncalibrated


COLUMNS = (
    Column("model", "Model", "its name in the suite, else its file", "entity.label", True),
    Column("family", "Family", "copies of one network but for chance", "entity.family", True),
    Column("model_seed", "Model seed", "which copy of the family", "entity.seed"),
    Column("step", "Step", "training step of the checkpoint", "entity.step"),
    Column("data", "Images", "where the images come from", "context.data", True),
    Column("group", "Group", "the symmetry group", "context.group", True),
    Column("samples", "Count", "number of images: the unit of uncertainty, but for clusters"),
    Column("units", "Clusters", "the unit of uncertainty, where it is not the image"),
    Column("seed", "Seed", "of the draw of images"),
    Column("mask", "Mask", "disc: only what lies inside the inscribed disc counts", "result.data.mask", True),
    Column("tap", "Tap", "the tensor that was looked at", "cell.tap", True),
    Column("variant", "Variant", "which deviation", "cell.variant", True),
    Column("value", "Value", "the deviation; larger is less equivariant"),
    Column("low", "Low", "lower end of the value's interval"),
    Column("high", "High", "upper end of the value's interval"),
    Column("optimum", "Optimum", "the value of an exactly equivariant model"),
    Column("floor", "Floor", "what resampling alone costs on this tap"),
    Column("null", "Null", "the same number on unrelated images"),
    Column("calibrated", "Calibrated", "0 at the floor, 1 at the null"),
    Column("calibrated_low", "Cal. low", "lower end of the calibrated interval"),
    Column("calibrated_high", "Cal. high", "upper end of the calibrated interval"),
    Column(
        "worst_element",
        "Worst at",
        "the group element that deviates most, each against its own floor and null",
        _worst,
        True,
    ),
    Column("sensitivity", "Sensitivity", "how far f of two images lies apart; 0 if constant"),
    Column(
        "reason",
        "Reason",
        "why there is no value",
        lambda row: None if row.result.value is not None else row.result.reason,
        True,
    ),
    Column(
        "calibrated_reason",
        "Not calibrated",
        "why there is no calibrated value",
        lambda row: _uncalibrated(row.result),
        True,
    ),
    Column(
        "failed",
        "Failed",
        "whether the cell could not be measured",
        lambda row: "yes" if row.result.failed else "no",
        True,
        False,
    ),
    Column("kind", "Kind", "map, vector or probability", "cell.kind", True, False),
    Column("module", "Module", "module path in the framework", "result.tap.module", True, False),
    Column("shape", "Shape", "of the tap, without the batch", "result.tap.shape", True, False),
    Column("action", "Action", "what the group does to the tap", "result.tap.action", True, False),
    Column("level", "Level", "of the intervals", shown=False),
    Column("method", "Method", "how the interval was made", text=True, shown=False),
    Column("spread", "Spread M", "mean distance of two images' features", shown=False),
    Column("floor_method", "Floor from", "how the floor was found", text=True, shown=False),
    Column(
        "exact",
        "Exact part",
        "the value over elements that only permute pixels",
        "result.parts.exact.value",
        shown=False,
    ),
    Column(
        "resampled", "Resampled part", "the value over the other elements", "result.parts.resampled.value", shown=False
    ),
    Column("zero_channels", "Zero channels", "share of channels that are zero", shown=False),
    Column("law_defect", "Law defect", "how far the output action is from an action", shown=False),
    Column("path", "Path", "of the model", "result.model.path", True, False),
    Column("sha256", "SHA-256", "of the model", "result.model.sha256", True, False),
    Column("fingerprint", "Fingerprint", "of the images used", "result.data.fingerprint", True, False),
    Column("key", "Key", "hash of all the number depends on", text=True, shown=False),
)
#: Columns that are shown only where they differ.
ONLY_VARIED = ("family", "model_seed", "step", "data", "group", "samples", "seed", "mask")
#: Columns that are shown only where anything is in them.
ONLY_THERE = ("units", "reason", "calibrated_reason")
#: Columns of whole sentences.
LONG = ("reason", "calibrated_reason")


Texts = Callable[[Value], int | None]
"""text → its number, each text once"""


def payload(contents: Contents) -> dict[str, Any]:
    """Return what the page's scripts read; texts in columns are numbers into `texts`."""
    numbered: dict[str, int] = {}

    def texts(text: Value) -> int | None:
        return None if text is None else numbered.setdefault(str(text), len(numbered))

    results = [c for c in contents.cells if isinstance(c.reading, Result)]
    rows = [
        Row(c.reading, c, contents.entities[c.entity], contents.contexts[c.context])
        for c in results
        if isinstance(c.reading, Result)
    ]
    columns = []
    for column in COLUMNS:
        values: list[Any] = [column.of(row) for row in rows]
        shown = column.shown and (column.key not in ONLY_THERE or any(v is not None for v in values))
        if column.key in ONLY_VARIED:
            shown = len(set(values)) > 1
        if column.text:
            values = [texts(v) for v in values]
        facts = {name: getattr(column, name) for name in ("key", "title", "about", "text")}
        columns.append({**facts, "shown": shown, "long": column.key in LONG, "values": values})
    return {
        "columns": columns,
        "cells": _places(results, texts),
        "means": _readings(contents.means, texts),
        "contexts": [
            {
                "label": c.label,
                "group": c.group,
                "elements": c.elements.names,
                "angles": c.elements.angles,
                "note": None
                if c.fingerprints < 2
                else f"the models did not see the same images here ({c.fingerprints} sets): differences are not paired",
            }
            for c in contents.contexts
        ],
        "entities": [{"label": e.label, "family": bool(e.members)} for e in contents.entities],
        "slots": [{"label": s.label, "kind": s.kind} for s in contents.slots],
        "runs": [{"label": r.label, "points": r.points} for r in contents.runs],
        "chosen": contents.chosen,
        # last: it grows until here
        "texts": list(numbered),
    }


def _places(cells: Sequence[Cell], texts: Texts) -> dict[str, list[Any]]:
    """Return where each cell belongs, its numbers being in the columns of the table."""
    return {
        "entity": [c.entity for c in cells],
        "context": [c.context for c in cells],
        "slot": [c.slot for c in cells],
        "variant": [texts(c.variant) for c in cells],
        "tap": [texts(c.tap) for c in cells],
        **{name: [_short(getattr(c.reading, name)) for c in cells]
           for name in ("per_element", "floor_per_element", "null_per_element")},
        "calibrated_by_element": [_short(_calibrated(c.reading)) for c in cells],
    }  # fmt: skip


def _calibrated(reading: Result | Mean) -> Profile | None:
    return calibrated_by_element(reading) if isinstance(reading, Result) else reading.calibrated_by_element


def _readings(cells: Sequence[Cell], texts: Texts) -> dict[str, list[Any]]:
    numbers = ("value", "low", "high", "optimum", "floor", "null", "calibrated", "calibrated_low", "calibrated_high")
    readings = [c.reading for c in cells]
    return {
        **_places(cells, texts),
        **{name: [getattr(r, name) for r in readings] for name in numbers},
        "reason": [texts(_plain(r.reason)) for r in readings],
        "calibrated_reason": [texts(_plain(_uncalibrated(r))) for r in readings],
        "models": [getattr(r, "models", 1) for r in readings],
    }


def _short(values: Iterable[float | None] | None) -> list[float | None] | None:
    """Return values to seven digits, which is more than a chart shows."""
    return None if values is None else [None if v is None else float(f"{v:.7g}") for v in values]


def as_json(data: Any) -> str:
    """Return JSON that is ASCII and ends no script element, whatever the texts in it are."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
