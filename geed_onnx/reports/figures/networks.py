"""Figures of networks under one setting: depth, profile, side by side, training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geed_onnx.reports.figures.drawing import (
    CALIBRATED,
    COLOURS,
    FLOOR,
    NULL,
    curve,
    legend,
    levels,
    or_nan,
    panel,
    panels,
    short,
    tick_names,
)
from geed_onnx.reports.page.contents import MOST_LINES, Cell, Contents
from geed_onnx.reports.page.elements import calibrated_by_element
from geed_onnx.reports.page.families import Mean
from geed_onnx.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: One variant for each kind of tap, where there are several.
PREFERRED = ("channelwise", "latent-l2", "softmax")
#: Rows and columns of the table of models that a page of paper has room for.
MOST_ROWS, MOST_COLUMNS = 40, 24


class View:
    """The cells of one context, found by entity, slot and variant."""

    def __init__(self, contents: Contents, context: int) -> None:
        self.contents = contents
        self.context = contents.contexts[context]
        cells = [c for c in (*contents.cells, *contents.means) if c.context == context and c.slot is not None]
        self.cells = {(c.entity, c.slot, c.variant): c for c in cells}
        self.slots = sorted({c.slot for c in cells if c.slot is not None})
        self.variants: dict[str, list[str]] = {}
        for kind, variant in dict.fromkeys((self.kind(c.slot or 0), c.variant) for c in cells):
            self.variants.setdefault(kind, []).append(variant)
        lines = contents.chosen
        singles = [i for i, e in enumerate(contents.entities) if not e.members]
        if not contents.means and not contents.runs and len(singles) <= MOST_LINES:
            lines = tuple(singles)
        self.lines = [i for i in lines if any(c.entity == i for c in cells)]

    def kind(self, slot: int) -> str:
        """Return the kind of the taps in a column."""
        return self.contents.slots[slot].kind

    def variant(self, slot: int) -> str:
        """Return the variant that is drawn for a column."""
        some = self.variants[self.kind(slot)]
        return next((v for v in some if v in PREFERRED), some[0])

    def cell(self, entity: int, slot: int) -> Cell | None:
        """Return what is drawn for a model in a column."""
        return self.cells.get((entity, slot, self.variant(slot)))

    def label(self, entity: int) -> str:
        """Return what a model is called, shortened in the middle."""
        return short(self.contents.entities[entity].label, 44)


def _depth(view: View) -> Figure | None:
    slots = [s for s in view.slots if any(_has(view.cell(e, s), "calibrated") for e in view.lines)]
    if not slots:
        return None
    sheet, axes = panel(max(4.6, 0.62 * len(slots) + 2.2), 2.9)
    _curves(axes, view, slots, "calibrated")
    levels(axes)
    axes.set_ylabel(CALIBRATED)
    legend(axes)
    _title(axes, view)
    return sheet


def _raw_depth(view: View) -> Figure | None:
    parts = [[s for s in view.slots if view.kind(s) == k] for k in dict.fromkeys(map(view.kind, view.slots))]
    parts = [p for p in parts if any(_has(view.cell(e, s), "value") for e in view.lines for s in p)]
    if not parts:
        return None
    widths = [max(2, len(p)) for p in parts]
    sheet, grid = panels(len(parts), max(5.5, 0.5 * sum(widths) + 1.2 * len(parts) + 1), 2.9, widths)
    for axes, slots in zip(grid, parts, strict=True):
        _curves(axes, view, slots, "value")
        axes.set_ylabel(f"{short(view.variant(slots[0]), 28)}, raw")
    legend(grid[-1])
    _title(grid[0], view, " (dotted: floor, dashed: null)")
    return sheet


def _curves(axes: Axes, view: View, slots: Sequence[int], on: str) -> None:
    for i, entity in enumerate(view.lines):
        rows = [(x, view.cell(entity, s)) for x, s in enumerate(slots)]
        some = [(x, c) for x, c in rows if c is not None]
        if any(_has(c, on) for _, c in some):
            _line(axes, some, on, i, view.label(entity))
    labels = [view.contents.slots[s].label for s in slots]
    tick_names(axes, [short(label, 22) for label in labels], max(map(len, labels)), 50)
    axes.set_xlim(-0.4, len(slots) - 0.6)


def _line(axes: Axes, rows: Sequence[tuple[float, Cell]], on: str, i: int, label: str) -> None:
    """Draw one line with its band, broken where there is no value, and for raw values its floor and null."""
    x = [at for at, _ in rows]
    low, high = ("calibrated_low", "calibrated_high") if on == "calibrated" else ("low", "high")
    curve(axes, x, [tuple(getattr(c.reading, name) for name in (on, low, high)) for _, c in rows], i, label)
    if on == "value":
        mark: dict[str, Any] = {"marker": "_", "ms": 8} if len(rows) == 1 else {}
        for level, dashes in (("floor", FLOOR), ("null", NULL)):
            some = [or_nan(getattr(c.reading, level)) for _, c in rows]
            axes.plot(x, some, color=COLOURS[i % len(COLOURS)], ls=dashes, lw=0.8, **mark)


#: Calibrated values by element beyond this are drawn at the edge.
EDGE = 3.0


@dataclass(frozen=True)
class _Shape:
    """What is drawn of one model element by element.

    Attributes
    ----------
    values : (|G|,) float
        NaN where unrelated images would not deviate either, so that there is nothing to compare with.
    calibrated : bool
        Each element against its own floor and null; else above the optimum.
    levels : tuple of (number or (|G|,) numbers, dashes)
        Floor and null.
    """

    values: Sequence[float]
    calibrated: bool
    levels: tuple[tuple[Any, Any], ...]


def _shape(r: Result | Mean) -> _Shape:
    """Return what can be told: results without floor and null by element have only what lies above the optimum."""
    profile = calibrated_by_element(r) if isinstance(r, Result) else r.calibrated_by_element
    if profile is not None:
        return _Shape([or_nan(v) for v in profile], True, ((0.0, FLOOR), (1.0, NULL)))
    base = r.optimum or 0.0

    def above(row: Sequence[float | None] | None) -> list[float]:
        return [or_nan(v) - base for v in row or ()]

    known = ((r.floor_per_element, FLOOR), (r.null_per_element, NULL))
    return _Shape(above(r.per_element), False, tuple((above(row), ls) for row, ls in known if row is not None))


def _profile(view: View) -> Figure | None:
    if not view.slots:
        return None
    slot = ([s for s in view.slots if view.kind(s) == "map"] or view.slots)[-1]
    cells = [(i, e, c) for i, e in enumerate(view.lines) if (c := view.cell(e, slot)) and c.reading.per_element]
    if not cells:
        return None
    shapes = [_shape(c.reading) for _, _, c in cells]
    angles = view.context.elements.angles
    polar = angles is not None and {len(s.values) for s in shapes} == {len(angles)}
    sheet, grid = panels(len(cells), 2.3 * len(cells) if polar else 3 * len(cells), 2.7, polar=polar)
    for axes, (i, entity, _), shape in zip(grid, cells, shapes, strict=True):
        colour = COLOURS[i % len(COLOURS)]
        if polar and angles is not None:
            _ring(axes, angles, shape, colour)
        else:
            _element_bars(axes, view.context.elements.names, shape, colour)
        # one scale for all that are on the same one
        top = _reach([s for s in shapes if s.calibrated == shape.calibrated])
        axes.set_ylim(0 if polar else None, 1.05 * top if top > 0 else None)
        apart = "" if shape.calibrated else "\nabove the optimum, not calibrated"
        axes.set_title(f"{view.label(entity)}{apart}", fontsize=7)
    what = f"{short(view.contents.slots[slot].label, 30)}, {short(view.variant(slot), 30)} by element"
    said = "each against its own floor, 0, and null, dashed; what has no null is left out"
    lines = said if any(s.calibrated for s in shapes) else "dotted: floor, dashed: null, of each element"
    sheet.suptitle(f"{what}; {short(view.context.label, 70)}\n({lines})", fontsize=7.5)
    return sheet


def _reach(shapes: Sequence[_Shape]) -> float:
    """Return the largest of what is drawn."""
    every = np.concatenate(
        [np.atleast_1d(row) for s in shapes for row in (s.values, *(level for level, _ in s.levels))]
    )
    top = float(np.max(every, initial=0.0, where=np.isfinite(every)))
    return min(top, EDGE) if shapes[0].calibrated else top


def _ring(axes: Axes, angles: Sequence[float], shape: _Shape, colour: str) -> None:
    t = np.deg2rad([*angles, angles[0]])

    def around(row: Sequence[float]) -> Any:
        return np.clip([*row, row[0]], 0, EDGE if shape.calibrated else None)

    axes.plot(t, around(shape.values), color=colour, marker="o", ms=3, lw=1.3)
    for level, ls in shape.levels:
        at, row = (np.linspace(0, 2 * np.pi, 120), np.full(120, level)) if np.ndim(level) == 0 else (t, around(level))
        axes.plot(at, row, color="0.35", lw=0.8, ls=ls)
    axes.set_theta_zero_location("N")  # type: ignore[attr-defined]
    axes.set_xticks(np.deg2rad(angles[:: max(1, len(angles) // 8)]))
    axes.tick_params(labelsize=6)
    axes.grid(lw=0.4, color="0.85")


def _element_bars(axes: Axes, names: Sequence[str], shape: _Shape, colour: str) -> None:
    count = len(shape.values)
    # what is left out is no bar
    at = [(g, v) for g, v in enumerate(shape.values) if np.isfinite(v)]
    axes.bar([g for g, _ in at], [v for _, v in at], color=colour, width=0.7)
    for level, ls in shape.levels:
        if np.ndim(level) == 0:
            axes.axhline(level, color="0.35", lw=0.8, ls=ls)
        else:
            axes.hlines(level, np.arange(count) - 0.45, np.arange(count) + 0.45, color="0.35", lw=1, ls=ls)
    axes.set_xlim(-0.6, count - 0.4)
    if count <= 32:
        axes.set_xticks(range(count), names if len(names) == count else map(str, range(count)), rotation=60, fontsize=6)


def _side_by_side(view: View) -> Figure | None:
    columns = [(s, v) for s in view.slots for v in view.variants[view.kind(s)]]
    entities = [e for e in range(len(view.contents.entities)) if any((e, *c) in view.cells for c in columns)]
    columns = [c for c in columns if any((e, *c) in view.cells for e in entities)]
    if not entities or not columns:
        return None
    cut = len(columns) > MOST_COLUMNS or len(entities) > MOST_ROWS
    said = f"; the first {MOST_ROWS} of {len(entities)} models, {MOST_COLUMNS} of {len(columns)} columns" if cut else ""
    entities, columns = entities[:MOST_ROWS], columns[:MOST_COLUMNS]
    found = [[view.cells.get((e, *c)) for c in columns] for e in entities]
    values = np.array([[or_nan(c.reading.calibrated if c else None) for c in row] for row in found])
    sheet, axes = panel(0.52 * len(columns) + 2.6, 0.24 * len(entities) + 1.6)
    axes.imshow(np.clip(values, 0, 1), cmap="Greys", vmin=0, vmax=1.6, aspect="auto")
    for y, x in np.ndindex(values.shape):
        if found[y][x] is not None:
            text = "–" if np.isnan(values[y, x]) else f"{values[y, x]:.2f}".replace("-0.00", "0.00")
            axes.text(x, y, text, ha="center", va="center", fontsize=6)
    labels = [f"{short(view.contents.slots[s].label, 20)}\n{short(v, 24)}" for s, v in columns]
    axes.set_xticks(range(len(columns)), labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=6)
    axes.set_yticks(range(len(entities)), [view.label(e) for e in entities])
    axes.tick_params(length=0)
    _title(axes, view, f": {CALIBRATED}{said}")
    return sheet


def _training(view: View) -> Figure | None:
    runs = view.contents.runs[:MOST_LINES]
    if not runs or not view.slots:
        return None
    slot = view.slots[-1]
    sheet, axes = panel(4.8, 2.9)
    drawn = False
    for i, run in enumerate(runs):
        rows = [(step, c) for step, entity in run.points if (c := view.cell(entity, slot)) is not None]
        if any(_has(c, "calibrated") for _, c in rows):
            _line(axes, rows, "calibrated", i, short(run.label, 44))
            drawn = True
    if not drawn:
        return None
    levels(axes)
    axes.set_xlabel("training step")
    axes.set_ylabel(CALIBRATED)
    legend(axes)
    _title(axes, view, f": {short(view.contents.slots[slot].label, 30)}, {short(view.variant(slot), 30)}")
    return sheet


def _title(axes: Axes, view: View, more: str = "") -> None:
    axes.set_title(f"{short(view.context.label, 80)}{more}", fontsize=7.5, loc="left")


def _has(cell: Cell | None, on: str) -> bool:
    return cell is not None and getattr(cell.reading, on) is not None


#: What is drawn for each context, by the name of its files.
DRAWINGS: dict[str, Callable[[View], Figure | None]] = {
    "depth": _depth,
    "depth-raw": _raw_depth,
    "profile": _profile,
    "side-by-side": _side_by_side,
    "training": _training,
}
