"""What the figures of the findings are made of: one style a family, lines, bars and dots with their intervals, files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.findings.evidence import Evidence, mean
from geed_onnx.errors import DataError
from geed_onnx.estimators import Estimate
from geed_onnx.reports.figures.drawing import COLOURS, DASHES, HATCHES, MARKS, or_nan
from geed_onnx.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.0  # inches; 910 pixels
DPI = 130
NUMBERS = "numbers"  # marks what is drawn of them, beside intervals and lines across
NONE = "–"  # no model has the number
INVARIANT = "lower: more invariant"
EQUIVARIANT = "−1: equivariant,\nlower: more equivariant"
CALIBRATED = "calibrated, 0: floor, 1: null"
#: Which of the house style's colours, dashes, marks and hatches a family has, in every figure.
STYLES: Mapping[str, int] = {
    "CNN": 0,
    "C8-CNN": 1,
    "C8-CNN, read naively": 2,
    "C8-CNN, invariant": 3,
    "untrained CNN": 7,
    "untrained CNN, statistics set": 4,
    "pretrained": 2,
    "from scratch": 3,
    "supervised": 0,
    "supervised, no flips": 5,
    "SimCLR": 1,
    "SimCLR, no flips": 4,
    "DINO-like": 2,
    "untrained": 7,
    # ways of measuring the same network
    "nearest": 3,
    "bilinear": 4,
    "bicubic": 5,
    "whole image": 4,
    "within the disc": 5,
    "exact part (C4)": 2,
    "resampled part (45°)": 3,
}
Read = Callable[[Result], float | None]


@dataclass(frozen=True)
class Row:
    """Numbers that belong together: a line, or one colour of bars; `estimates` are None where there is no number."""

    name: str
    estimates: Sequence[Estimate | None]
    notes: Sequence[str] = ()
    """what stands at each bar: `2 of 10`, say, or `–`; may be left out"""

    @property
    def points(self) -> list[tuple[float, float, float]]:
        """Return (mean, low, high) of each, NaN for what there is not."""
        nothing = (np.nan, np.nan, np.nan)
        return [nothing if e is None else (e.value, or_nan(e.low), or_nan(e.high)) for e in self.estimates]


def numbers(evidence: Evidence, read: Read, **asked: Any) -> tuple[dict[int, float], int]:
    """Return what `read` finds in each model's result, by seed, without the models that have none; and how many models.

    Raises
    ------
    DataError
        If there is no result at all, or two are of one seed.
    """
    results = evidence.ask(**asked)
    seeds = [int(r.model["seed"]) for r in results]
    if not seeds:
        raise DataError(f"{evidence.name}: no result for {asked}")
    if len(set(seeds)) < len(seeds):
        raise DataError(f"{evidence.name}: several results of one seed for {asked}; ask for one of them")
    found = {s: read(r) for s, r in zip(seeds, results, strict=True)}
    return {s: v for s, v in sorted(found.items()) if v is not None}, len(seeds)


def some_mean(evidence: Evidence, read: Read, **asked: Any) -> tuple[Estimate | None, str]:
    """Return the mean over the models that have the number, None if none has; and `k of n` if some have not, `–` if none."""
    found, count = numbers(evidence, read, **asked)
    if not found:
        return None, NONE
    return mean(found), "" if len(found) == count else f"{len(found)} of {count}"


def sheet(
    rows: int, columns: int, height: float, *, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure of the page's width (inches) and its panels, row by row."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = made.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return made, list(grid.flat)


def style_of(family: str) -> int:
    """Return a family's place in the house style.

    Raises
    ------
    DataError
        If it has none.
    """
    if family not in STYLES:
        raise DataError(f"no style for the family {family!r}: expected one of {', '.join(STYLES)}")
    return STYLES[family]


def line(axes: Axes, x: Sequence[float] | np.ndarray, row: Row, *, errors: bool = False) -> None:
    """Draw a family's line with its band, or with bars where x is no scale (blocks, sizes)."""
    i = style_of(row.name)
    at = np.asarray(x, dtype=np.float64)
    middle, low, high = np.array(row.points, dtype=np.float64).T
    colour = COLOURS[i]
    axes.plot(at, middle, color=colour, ls=DASHES[i], marker=MARKS[i], ms=3.4, lw=1.3, label=row.name, gid=NUMBERS)
    if errors:
        axes.errorbar(at, middle, _reach(middle, low, high), fmt="none", ecolor=colour, elinewidth=0.9, capsize=2)
    else:
        axes.fill_between(at, low, high, color=colour, alpha=0.16, lw=0)


def dotted(axes: Axes, x: Sequence[float], floors: Row) -> None:
    """Draw a family's floor."""
    family, values = floors.name, [p[0] for p in floors.points]
    axes.plot(list(x), values, color=COLOURS[style_of(family)], ls=(0, (1, 1.5)), lw=1.1, gid=NUMBERS)


def bar(axes: Axes, at: float | np.ndarray, row: Row, width: float = 0.8) -> None:
    """Draw bars of one colour, each with its interval."""
    i = style_of(row.name)
    x = np.atleast_1d(at)
    middle, low, high = np.array(row.points, dtype=np.float64).T
    axes.bar(x, middle, width * 0.94, color=COLOURS[i], alpha=0.75, hatch=HATCHES[i], edgecolor="white", lw=0,
             label=row.name)  # fmt: skip
    axes.errorbar(x, middle, _reach(middle, low, high), fmt="none", ecolor="0.1", elinewidth=0.9, capsize=1.6)


def dot(axes: Axes, at: np.ndarray, row: Row) -> None:
    """Draw dots of one colour, each with its interval: for scales without a zero to draw a bar from."""
    i = style_of(row.name)
    middle, low, high = np.array(row.points, dtype=np.float64).T
    axes.plot(at, middle, color=COLOURS[i], ls="none", marker=MARKS[i], ms=3.6, label=row.name, gid=NUMBERS)
    axes.errorbar(at, middle, _reach(middle, low, high), fmt="none", ecolor=COLOURS[i], elinewidth=0.9, capsize=1.6)


def grouped(axes: Axes, places: Sequence[str], rows: Sequence[Row], *, dots: bool = False) -> None:
    """Draw bars or dots side by side at each place, with what there is to note above each."""
    width = 0.8 / len(rows)
    for k, row in enumerate(rows):
        at = np.arange(len(places)) + (k - (len(rows) - 1) / 2) * width
        if dots:
            dot(axes, at, row)
        else:
            bar(axes, at, row, width)
        for x, note in zip(at, row.notes, strict=False):
            if note == NONE:
                axes.text(x, 0, NONE, ha="center", va="bottom", fontsize=9, color=COLOURS[style_of(row.name)])
            elif note:
                # at the top of the panel, wherever that comes to be: the bar's own interval may leave it
                axes.text(x, 0.98, note, transform=axes.get_xaxis_transform(), ha="center", va="top", rotation=90,
                          fontsize=6.5, color=COLOURS[style_of(row.name)],
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # fmt: skip
    axes.set_xticks(range(len(places)), list(places))
    axes.margins(x=0.02)


def logarithmic(axes: Axes, rows: Sequence[Row]) -> None:
    """Scale y by powers of ten around the means; linear below the smallest of them where one is 0 or less."""
    from matplotlib.ticker import NullLocator

    means = [e.value for r in rows for e in r.estimates if e is not None]
    above = [m for m in means if m > 0]
    if not above:
        return
    if len(above) < len(means):
        axes.set_yscale("symlog", linthresh=min(above))
        axes.yaxis.set_major_formatter(lambda y, _: power(y))
        return
    axes.set_yscale("log", nonpositive="clip")
    axes.yaxis.set_major_formatter(lambda y, _: power(y))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(min(above) / 4, max(above) * 4)


def within(axes: Axes, values: Sequence[float], room: float = 0.25) -> None:
    """Set y's limits by the numbers alone: an interval that is far wider than they differ leaves the panel."""
    low, high = min(values), max(values)
    spare = room * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(low - spare, high + spare)


def power(y: float) -> str:
    """Return a power of ten as the ticks show it: mathematical text is off in the house style."""
    if y == 0:
        return "0"
    exponent = round(float(np.log10(abs(y))))
    return f"{'−' if y < 0 else ''}10{str(exponent).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def cut(*panels: Axes, room: float = 0.6) -> None:
    """Cut intervals that reach further beyond the means than `room` of the means' range, over all the panels together.

    With three models Student's factor is 4.3, and a single interval would else leave nothing to be seen of the rest.
    """
    from matplotlib.container import BarContainer

    drawn: list[float] = []
    for axes in panels:
        drawn += [float(y) for one in axes.get_lines() if one.get_gid() == NUMBERS for y in np.ravel(one.get_ydata())]
        bars = [c for c in axes.containers if isinstance(c, BarContainer)]
        drawn += [0.0] * bool(bars) + [p.get_height() for c in bars for p in c]
    finite = [y for y in drawn if np.isfinite(y)]
    if not finite:
        return
    spare = room * (max(finite) - min(finite)) or np.inf
    # with shared axes the limits of one are those of all, and they are read before they are set
    low, high = min(a.get_ylim()[0] for a in panels), max(a.get_ylim()[1] for a in panels)
    for axes in panels:
        axes.set_ylim(max(low, min(finite) - spare), min(high, max(finite) + spare))


def level(axes: Axes, *at: float) -> None:
    """Draw thin lines across where a scale has a meaning, such as 0, the floor."""
    for y in at:
        axes.axhline(y, color="0.45", lw=0.7, ls=(0, (5, 3)), zorder=0.5)


def below(made: Figure, *axes: Axes, also: Sequence[tuple[str, str]] = (), columns: int = 4) -> None:
    """Name every line or bar of the panels once, below them; `also` are lines by name and by dash, drawn in grey."""
    from matplotlib.lines import Line2D

    by_name = {name: h for a in axes for h, name in zip(*a.get_legend_handles_labels(), strict=True)}
    by_name |= {
        name: Line2D([], [], color="0.35", lw=1.1, ls=(0, (1, 1.5)) if dash == ":" else dash) for name, dash in also
    }
    made.legend(by_name.values(), by_name.keys(), loc="outside lower center", ncols=min(columns, len(by_name)),
                fontsize=8, handlelength=3)  # fmt: skip


def save(made: Figure, folder: Path, stem: str) -> Path:
    """Write a figure as PNG without date or version: the same results make the same bytes."""
    path = folder / f"{stem}.png"
    made.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def _reach(middle: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    # an interval that is not there, and a skew one that leaves its own number out, reach nowhere on that side
    return np.nan_to_num(np.maximum([middle - low, high - middle], 0.0))
