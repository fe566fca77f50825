"""How figures are drawn: sizes, lines and bars that greyscale tells apart, files that are the same each time."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geed_onnx.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("png", "svg")
#: Lines that differ without their colours, too.
COLOURS = ("#1f4fbf", "#d55e00", "#00795f", "#a0417d", "#7a5f00", "#2a8fbf", "#51418f", "#333333")
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1)), (0, (2, 2)), (0, (6, 1, 1, 1)),
)  # fmt: skip
MARKS = "os^Dv<>P"
#: Bars that differ without their colours.
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "||||", "oo", "--")
#: How reference levels are told apart.
FLOOR: Any = (0, (1, 2))
NULL: Any = (0, (5, 3))
CALIBRATED = "calibrated deviation (0: floor, 1: null)"
SETTINGS: Any = {
    "text.parse_math": False,  # a $ in a name is a $
    "svg.hashsalt": "geed-onnx",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "savefig.bbox": "tight",
}


def panel(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a sheet with one set of axes; inches."""
    sheet, grid = panels(1, width, height)
    return sheet, grid[0]


def panels(
    count: int, width: float, height: float, widths: Sequence[float] | None = None, *, polar: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a sheet with several sets of axes beside one another; inches, `widths` relative."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(min(width, 40), height), layout="constrained")
    ratios = {"width_ratios": list(widths)} if widths else {}
    grid = sheet.subplots(1, count, squeeze=False, gridspec_kw=ratios, subplot_kw={"polar": True} if polar else {})
    return sheet, list(grid[0])


def legend(axes: Axes) -> None:
    """Name the lines beside the axes."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=7)


def tick_names(axes: Axes, labels: Sequence[str], longest: int, most: int) -> None:
    """Name the places 0, 1, … along the axis, slanted where `longest` letters at each would be more than `most`."""
    axes.set_xticks(range(len(labels)), list(labels))
    if longest * len(labels) > most:
        axes.tick_params(axis="x", rotation=35)
        for tick in axes.get_xticklabels():
            tick.set_horizontalalignment("right")


def or_nan(value: float | None) -> float:
    """Return a number, NaN for None: what is not drawn."""
    return np.nan if value is None else value


def short(text: str, most: int) -> str:
    """Return a text of at most that many letters, shortened in the middle."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def names(labels: Sequence[str], longest: int = 60) -> list[str]:
    """Return names for files: letters, digits, dots and hyphens, each once."""
    found: list[str] = []
    for label in labels:
        name = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-.")[:longest] or "data"
        taken = sum(n == name or n.rpartition("_")[0] == name for n in found)
        found.append(f"{name}_{taken + 1}" if taken else name)
    return found


@contextmanager
def style() -> Iterator[None]:
    """Draw as figures of a paper are drawn, whatever the reader has set."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # a name in a script that the font does not have is drawn as boxes, one that fills the sheet is cut
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="constrained_layout not applied", category=UserWarning)
        yield


def save(sheet: Figure, folder: Path, name: str) -> list[Path]:
    """Write a sheet as every kind of file; returns the files.

    Raises
    ------
    UsageError
        If one cannot be written.
    """
    paths = []
    for kind in KINDS:
        path = folder / f"{name}.{kind}"
        # no date and no version: the same results make the same file
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        try:
            sheet.savefig(path, dpi=200, metadata=metadata)
        except OSError as error:
            raise UsageError(f"cannot write {str(path)!r}: {error.strerror or error}") from None
        paths.append(path)
    return paths


def curve(axes: Axes, x: Sequence[float], points: Sequence[tuple[float | None, ...]], i: int, label: str) -> None:
    """Draw line number i with its band through points (number, low, high), broken where there is no number."""
    at = np.array(x, dtype=np.float64)
    middle, low, high = (np.array([or_nan(p[k]) for p in points], dtype=np.float64) for k in range(3))
    colour = COLOURS[i % len(COLOURS)]
    axes.plot(at, middle, color=colour, ls=DASHES[i % len(DASHES)], marker=MARKS[i % len(MARKS)], ms=3.4, lw=1.3,
              label=label)  # fmt: skip
    axes.fill_between(at, low, high, color=colour, alpha=0.14, lw=0)


def levels(axes: Axes) -> None:
    """Draw where calibrated values are 0, the floor, and 1, the null."""
    axes.axhline(0, color="0.35", lw=0.8, ls=FLOOR)
    axes.axhline(1, color="0.35", lw=0.8, ls=NULL)
