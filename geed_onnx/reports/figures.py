"""Static figures for papers: the page's charts in PNG and SVG, readable in greyscale."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geed_onnx.errors import UsageError
from geed_onnx.reports.page.contents import MOST_LINES, Cell, Contents, contents_of
from geed_onnx.results import Collection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("png", "svg")
#: One variant for each kind of tap, where there are several.
PREFERRED = ("channelwise", "latent-l2", "softmax")
#: Rows and columns of the table of models that a page of paper has room for.
MOST_ROWS, MOST_COLUMNS = 40, 24
#: Lines that differ without their colours, too.
COLOURS = ("#1f4fbf", "#d55e00", "#00795f", "#a0417d", "#7a5f00", "#2a8fbf", "#51418f", "#333333")
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1)), (0, (2, 2)), (0, (6, 1, 1, 1)),
)  # fmt: skip
MARKS = "os^Dv<>P"
CALIBRATED = "calibrated deviation (0: floor, 1: null)"
SETTINGS: Any = {
    "text.parse_math": False,  # a $ in a name is a $
    "svg.hashsalt": "geed-onnx",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "legend.frameon": False,
    "savefig.bbox": "tight",
}


def write_figures(collection: Collection, folder: str | os.PathLike[str]) -> list[Path]:
    """Write depth, raw depth, profile, models side by side and training curves as PNG and SVG; returns the files.

    One set for each group and set of images.  A chart that these results have nothing for is left out.

    Raises
    ------
    UsageError
        If matplotlib is not installed, or the folder cannot be made or written.
    DataError
        If a result holds something else than its schema says.
    """
    where = figures_target(folder)
    contents = contents_of(collection.results)
    names = _names([f"{c.group} {c.data.rstrip('/').rpartition('/')[2] or c.data}" for c in contents.contexts])
    written = []
    for i, name in enumerate(names):
        view = View(contents, i)
        for what, draw in DRAWINGS.items():
            with _style():
                figure = draw(view)
                if figure is not None:
                    written += _save(figure, where, f"{what}-{name}")
    return written


def figures_target(folder: str | os.PathLike[str]) -> Path:
    """Return the folder for figures, made if need be, so that nothing is drawn in vain.

    Raises
    ------
    UsageError
        If matplotlib is not installed, or the folder cannot be made or written.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("figures need matplotlib, which is not installed: pip install 'geed-onnx[figures]'") from None
    where = Path(folder)
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write figures to {os.fspath(folder)!r}: {error.strerror}") from None
    if not os.access(where, os.W_OK):
        raise UsageError(f"cannot write figures to {os.fspath(folder)!r}: permission denied")
    return where


class View:
    """The cells of one context, found by entity, slot and variant."""

    def __init__(self, contents: Contents, context: int) -> None:
        self.contents = contents
        self.context = contents.contexts[context]
        cells = [c for c in (*contents.cells, *contents.means) if c.context == context and c.slot is not None]
        self.cells = {(c.entity, c.slot, c.variant): c for c in cells}
        self.slots = sorted({c.slot for c in cells if c.slot is not None})
        self.variants: dict[str, list[str]] = {}
        for c in cells:
            some = self.variants.setdefault(self.kind(c.slot or 0), [])
            if c.variant not in some:
                some.append(c.variant)
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
        return _short(self.contents.entities[entity].label, 44)


def _depth(view: View) -> Figure | None:
    slots = [s for s in view.slots if any(_has(view.cell(e, s), "calibrated") for e in view.lines)]
    if not slots:
        return None
    figure, axes = _figure(max(4.6, 0.62 * len(slots) + 2.2), 2.9)
    _curves(axes, view, slots, "calibrated")
    axes.axhline(0, color="0.35", lw=0.8, ls=(0, (1, 2)))
    axes.axhline(1, color="0.35", lw=0.8, ls=(0, (5, 3)))
    axes.set_ylabel(CALIBRATED)
    _legend(axes)
    _title(axes, view)
    return figure


def _raw_depth(view: View) -> Figure | None:
    parts = [[s for s in view.slots if view.kind(s) == k] for k in dict.fromkeys(map(view.kind, view.slots))]
    parts = [p for p in parts if any(_has(view.cell(e, s), "value") for e in view.lines for s in p)]
    if not parts:
        return None
    widths = [max(2, len(p)) for p in parts]
    figure, grid = _figures(len(parts), max(5.5, 0.5 * sum(widths) + 1.2 * len(parts) + 1), 2.9, widths)
    for axes, slots in zip(grid, parts, strict=True):
        _curves(axes, view, slots, "value")
        axes.set_ylabel(f"{_short(view.variant(slots[0]), 28)}, raw")
    _legend(grid[-1])
    _title(grid[0], view, " (dotted: floor, dashed: null)")
    return figure


def _curves(axes: Axes, view: View, slots: Sequence[int], on: str) -> None:
    for i, entity in enumerate(view.lines):
        rows = [(x, view.cell(entity, s)) for x, s in enumerate(slots)]
        some = [(x, c) for x, c in rows if c is not None]
        if any(_has(c, on) for _, c in some):
            _line(axes, some, on, i, view.label(entity))
    axes.set_xticks(range(len(slots)), [_short(view.contents.slots[s].label, 22) for s in slots])
    longest = max(len(view.contents.slots[s].label) for s in slots)
    if longest * len(slots) > 50:
        axes.tick_params(axis="x", rotation=35)
        for tick in axes.get_xticklabels():
            tick.set_horizontalalignment("right")
    axes.set_xlim(-0.4, len(slots) - 0.6)


def _line(axes: Axes, rows: Sequence[tuple[float, Cell]], on: str, i: int, label: str) -> None:
    """Draw one line with its band, broken where there is no value, and for raw values its floor and null."""
    x = np.array([at for at, _ in rows], dtype=np.float64)
    low, high = ("calibrated_low", "calibrated_high") if on == "calibrated" else ("low", "high")

    def numbers(name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([_or_nan(getattr(c.reading, name)) for _, c in rows])

    colour = COLOURS[i % len(COLOURS)]
    axes.plot(x, numbers(on), color=colour, ls=DASHES[i % len(DASHES)], marker=MARKS[i % len(MARKS)], ms=3.4, lw=1.3,
              label=label)  # fmt: skip
    axes.fill_between(x, numbers(low), numbers(high), color=colour, alpha=0.14, lw=0)
    if on == "value":
        mark: dict[str, Any] = {"marker": "_", "ms": 8} if len(rows) == 1 else {}
        axes.plot(x, numbers("floor"), color=colour, ls=(0, (1, 2)), lw=0.8, **mark)
        axes.plot(x, numbers("null"), color=colour, ls=(0, (5, 3)), lw=0.8, **mark)


def _profile(view: View) -> Figure | None:
    if not view.slots:
        return None
    slot = ([s for s in view.slots if view.kind(s) == "map"] or view.slots)[-1]
    cells = [(i, e, c) for i, e in enumerate(view.lines) if (c := view.cell(e, slot)) and c.reading.per_element]
    if not cells:
        return None
    elements = view.context.elements
    order = {len(c.reading.per_element or ()) for _, _, c in cells}
    polar = elements.angles is not None and order == {len(elements.angles)}
    figure, grid = _figures(len(cells), 2.3 * len(cells) if polar else 3 * len(cells), 2.7, polar=polar)
    top = 0.0
    for axes, (i, entity, c) in zip(grid, cells, strict=True):
        r = c.reading
        base = r.optimum or 0.0
        values = [v - base for v in r.per_element or ()]
        levels = [(v - base, ls) for v, ls in ((r.floor, (0, (1, 2))), (r.null, (0, (5, 3)))) if v is not None]
        top = max([top, *values, *(v for v, _ in levels)])
        if polar and elements.angles is not None:
            t = np.deg2rad([*elements.angles, elements.angles[0]])
            axes.plot(t, np.maximum([*values, values[0]], 0), color=COLOURS[i % len(COLOURS)], marker="o", ms=3, lw=1.3)
            for level, ls in levels:
                axes.plot(np.linspace(0, 2 * np.pi, 120), np.full(120, max(level, 0)), color="0.35", lw=0.8, ls=ls)
            axes.set_theta_zero_location("N")  # type: ignore[attr-defined]
            axes.set_xticks(np.deg2rad(elements.angles[:: max(1, len(elements.angles) // 8)]))
            axes.tick_params(labelsize=6)
            axes.grid(lw=0.4, color="0.85")
        else:
            axes.bar(range(len(values)), values, color=COLOURS[i % len(COLOURS)], width=0.7)
            for level, ls in levels:
                axes.axhline(level, color="0.35", lw=0.8, ls=ls)
            if len(values) <= 32:
                names = elements.names if len(elements.names) == len(values) else [str(g) for g in range(len(values))]
                axes.set_xticks(range(len(values)), names, rotation=60, fontsize=6)
        axes.set_title(view.label(entity), fontsize=7)
    for axes in grid:
        axes.set_ylim(0 if polar else None, 1.05 * top if top > 0 else None)
    what = f"{_short(view.contents.slots[slot].label, 30)}, {_short(view.variant(slot), 30)} above its optimum"
    figure.suptitle(f"{what}; {_short(view.context.label, 70)} (dotted: floor, dashed: null)", fontsize=7.5)
    return figure


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
    values = np.array([[_or_nan(c.reading.calibrated if c else None) for c in row] for row in found])
    figure, axes = _figure(0.52 * len(columns) + 2.6, 0.24 * len(entities) + 1.6)
    axes.imshow(np.clip(values, 0, 1), cmap="Greys", vmin=0, vmax=1.6, aspect="auto")
    for y, x in np.ndindex(values.shape):
        if found[y][x] is not None:
            text = "–" if np.isnan(values[y, x]) else f"{values[y, x]:.2f}".replace("-0.00", "0.00")
            axes.text(x, y, text, ha="center", va="center", fontsize=6)
    labels = [f"{_short(view.contents.slots[s].label, 20)}\n{_short(v, 24)}" for s, v in columns]
    axes.set_xticks(range(len(columns)), labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=6)
    axes.set_yticks(range(len(entities)), [view.label(e) for e in entities])
    axes.tick_params(length=0)
    _title(axes, view, f": {CALIBRATED}{said}")
    return figure


def _training(view: View) -> Figure | None:
    runs = view.contents.runs[:MOST_LINES]
    if not runs or not view.slots:
        return None
    slot = view.slots[-1]
    figure, axes = _figure(4.8, 2.9)
    drawn = False
    for i, run in enumerate(runs):
        rows = [(step, c) for step, entity in run.points if (c := view.cell(entity, slot)) is not None]
        if any(_has(c, "calibrated") for _, c in rows):
            _line(axes, rows, "calibrated", i, _short(run.label, 44))
            drawn = True
    if not drawn:
        return None
    axes.axhline(0, color="0.35", lw=0.8, ls=(0, (1, 2)))
    axes.axhline(1, color="0.35", lw=0.8, ls=(0, (5, 3)))
    axes.set_xlabel("training step")
    axes.set_ylabel(CALIBRATED)
    _legend(axes)
    _title(axes, view, f": {_short(view.contents.slots[slot].label, 30)}, {_short(view.variant(slot), 30)}")
    return figure


DRAWINGS: dict[str, Callable[[View], Figure | None]] = {
    "depth": _depth,
    "depth-raw": _raw_depth,
    "profile": _profile,
    "side-by-side": _side_by_side,
    "training": _training,
}


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure, grid = _figures(1, width, height)
    return figure, grid[0]


def _figures(
    count: int, width: float, height: float, widths: Sequence[float] | None = None, *, polar: bool = False
) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(min(width, 40), height), layout="constrained")
    ratios = {"width_ratios": list(widths)} if widths else {}
    grid = figure.subplots(1, count, squeeze=False, gridspec_kw=ratios, subplot_kw={"polar": True} if polar else {})
    return figure, list(grid[0])


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=7)


def _title(axes: Axes, view: View, more: str = "") -> None:
    axes.set_title(f"{_short(view.context.label, 80)}{more}", fontsize=7.5, loc="left")


def _has(cell: Cell | None, on: str) -> bool:
    return cell is not None and getattr(cell.reading, on) is not None


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def _names(labels: Sequence[str]) -> list[str]:
    """Return names for files: letters, digits, dots and hyphens, each once."""
    found: list[str] = []
    for label in labels:
        name = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-.")[:60] or "data"
        taken = sum(n == name or n.rpartition("_")[0] == name for n in found)
        found.append(f"{name}_{taken + 1}" if taken else name)
    return found


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # a name in a script that the font does not have is drawn as boxes, one that fills the sheet is cut
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="constrained_layout not applied", category=UserWarning)
        yield


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    paths = []
    for kind in KINDS:
        path = folder / f"{name}.{kind}"
        # no date and no version: the same results make the same file
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        try:
            figure.savefig(path, dpi=200, metadata=metadata)
        except OSError as error:
            raise UsageError(f"cannot write {str(path)!r}: {error.strerror or error}") from None
        paths.append(path)
    return paths
