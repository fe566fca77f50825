"""Results as a readable table; names in it come from files other people made, and are shown, never interpreted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import IO, TYPE_CHECKING

from geed_onnx.results import CAUTION, Result

if TYPE_CHECKING:
    from rich.table import Table

#: Where stdout is no terminal and COLUMNS is not set, lines are wide enough for every column and are not wrapped.
PLAIN_WIDTH = 160


def clean(text: object) -> str:
    """Return text with control characters spelled out, so that no name moves the cursor or starts a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def some(names: Sequence[str], most: int = 6) -> str:
    """Return the first names and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def number(value: float | None, digits: int = 3) -> str:
    """Return a value as it is shown: fixed digits in ordinary range, scientific outside it, a dash for none."""
    if value is None:
        return "–"
    size = abs(value)
    if size and (size < 10 ** (-digits) or size >= 10_000):
        return f"{value:.2e}"
    return f"{value:.{digits}f}"


def between(low: float | None, high: float | None) -> str:
    """Return an interval, a dash for an end that is not known; empty where there is none at all."""
    return "" if low is None and high is None else f"[{number(low)}, {number(high)}]"


#: What a narrow terminal leaves out, in this order; a number is left out whole, never cut.
LEFT_OUT = ("sensitivity", "optimum", "floor", "null", "calibrated interval", "interval")
#: So many of them may go before rows take two lines each.
GO_FIRST = 2
#: What stands under what, where rows take two lines.
UNDER = {"tap": "variant", "value": "interval", "calibrated": "calibrated interval"}
#: Names fold within their columns, but not below this.
LEAST_NAME = 14
GAP = 2
#: Said of results whose images and maps are cut to a disc.
IN_DISC = "inside the inscribed disc"
OPEN_END = "no variance among the images, and this distance has no largest value"
#: Share of zero channels beyond which it is told.
MANY_ZERO = 0.05


@dataclass(frozen=True)
class Column:
    """One column of the table: its heading, and a cell for every result; either may have several lines."""

    name: str
    heading: str
    cells: tuple[str, ...]
    right: bool = True
    style: str = ""
    """of the heading and of each cell's first line"""

    @property
    def width(self) -> int:
        """The width it needs; names can be folded."""
        from rich.cells import cell_len

        widest = max(cell_len(line) for text in (self.heading, *self.cells) for line in text.split("\n"))
        return widest if self.right else min(widest, LEAST_NAME)


def images_of(samples: int | str, units: int | None = None) -> str:
    """Return how many images there are, and of how many clusters where those are what an interval is over."""
    images = f"{samples} images"
    return images if units is None else f"{units} clusters ({images})"


def columns_of(results: Sequence[Result]) -> list[Column]:
    """Return every column of the table of `results`."""
    level = f"{100 * results[0].level:g} %" if results else "95 %"
    marks = marks_of(results)

    def cells(cell: Callable[[Result], str]) -> tuple[str, ...]:
        return tuple(cell(r) for r in results)

    columns = [
        Column("tap", "tap", cells(lambda r: clean(r.tap["name"])), right=False),
        Column("variant", "variant", cells(lambda r: clean(r.variant)), right=False),
        Column("value", "value", cells(lambda r: number(r.value)), style="bold"),
        Column("interval", level, cells(lambda r: _interval(r.value, r.low, r.high))),
        Column("optimum", "optimum", cells(lambda r: number(r.optimum))),
        Column("floor", "floor", cells(lambda r: number(r.floor) + ("*" if stood_in(r) else ""))),
        Column("null", "null", cells(lambda r: number(r.null))),
        Column("calibrated", "calibrated", cells(lambda r: number(r.calibrated)), style="bold"),
        Column(
            "calibrated interval",
            level,
            cells(lambda r: _interval(r.calibrated, r.calibrated_low, r.calibrated_high)),
        ),
        Column("sensitivity", "sensitivity", cells(lambda r: number(r.sensitivity))),
    ]
    if marks:
        said = cells(lambda r: " ".join(marks[reason] for reason in _reasons(r)))
        columns.append(Column("reason", "", said, right=False))
    return columns


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return between(low, high) or ("" if value is None else number(None))


def stood_in(r: Result) -> bool:
    """Return whether the optimum stands in for a floor that was not measured."""
    return r.floor_method == "optimum" and r.floor is not None


def laid_out(columns: Sequence[Column], width: int) -> tuple[list[Column], tuple[str, ...]]:
    """Return the columns that `width` has room for, and the names of those that went.

    A little goes first; then each row takes two lines, which keeps intervals and reference levels on 80 columns; then
    more goes.
    """
    in_one = [(count, False) for count in range(GO_FIRST + 1)]
    for count, folded in [*in_one, *((count, True) for count in range(len(LEFT_OUT) + 1))]:
        kept = _without(columns, LEFT_OUT[:count])
        kept = _in_two_lines(kept) if folded else kept
        if _fits(kept, width):
            break
    return kept, LEFT_OUT[:count]


def zero_channels(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line on the taps of which more than 5 % of the channels are zero: two such channels count as equal."""
    shares = {r.tap["name"]: r.zero_channels for r in results if (r.zero_channels or 0) > MANY_ZERO}
    if shares:
        listed = ", ".join(f"{clean(name)} {100 * (share or 0):.0f} %" for name, share in shares.items())
        yield f"channels that are zero everywhere: {listed} (equal in channelwise, left out of channelwise-weighted)"


def cautions(results: Iterable[Result]) -> list[str]:
    """Return the notes that are cautions, each once."""
    return list(dict.fromkeys(clean(n) for r in results for n in r.notes if n.startswith(CAUTION)))


def fitting(columns: Sequence[Column], width: int, left_out: Sequence[str]) -> list[Column]:
    """Return the columns that `width` has room for, those of `left_out` going first."""
    kept = list(columns)
    for name in left_out:
        if _fits(kept, width):
            break
        kept = _without(kept, (name,))
    return kept


def _without(columns: Iterable[Column], names: Sequence[str]) -> list[Column]:
    return [c for c in columns if c.name not in names]


def _fits(columns: Sequence[Column], width: int) -> bool:
    return sum(c.width + GAP for c in columns) - GAP <= width


def _in_two_lines(columns: Sequence[Column]) -> list[Column]:
    """Return the columns, those of `UNDER` beneath what they belong to."""
    by_name = {c.name: c for c in columns}
    found = []
    for c in columns:
        if c.name in UNDER.values():
            continue
        below = by_name.get(UNDER.get(c.name, ""))
        if below is not None:
            cells = tuple(f"{a}\n{b}" for a, b in zip(c.cells, below.cells, strict=True))
            c = replace(c, heading=f"{c.heading}\n{below.heading}", cells=cells)
        found.append(c)
    return found


def results_table(columns: Sequence[Column]) -> Table:
    """Return a rich table of these columns, one row a Result."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def text(cell: str, style: str) -> Text:
        first, *more = cell.split("\n")
        return Text("\n").join([Text(first, style=style), *map(Text, more)])

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0, 0, GAP - 1))
    for c in columns:
        table.add_column(
            text(c.heading, c.style), justify="right" if c.right else "left", overflow="fold", no_wrap=c.right
        )
    for i in range(len(columns[0].cells)):
        table.add_row(*(text(c.cells[i], c.style) for c in columns))
    return table


def _reasons(r: Result) -> tuple[str, ...]:
    """Return why a result has no value and why it has no calibrated one, each once."""
    return tuple(dict.fromkeys(reason for reason in (r.reason, r.calibrated_reason) if reason))


def marks_of(results: Iterable[Result]) -> dict[str, str]:
    """Number the distinct reasons, for footnotes."""
    return numbered(reason for r in results for reason in _reasons(r))


def numbered(reasons: Iterable[str]) -> dict[str, str]:
    """Return {reason: its mark}, each distinct one once."""
    return {reason: f"({i})" for i, reason in enumerate(dict.fromkeys(reasons), 1)}


def width_of(out: IO[str], width: int | None = None) -> int | None:
    """Return how wide to print: as asked; a terminal's own (None: rich finds it); else COLUMNS, or `PLAIN_WIDTH`."""
    if width or out.isatty():
        return width
    told = os.environ.get("COLUMNS", "")
    return int(told) if told.isdecimal() and int(told) else PLAIN_WIDTH


class Paper:
    """Where tables and lines are printed: a file, by default stdout, and how wide it is."""

    def __init__(self, file: IO[str] | None = None, width: int | None = None) -> None:
        from rich.console import Console

        out = file or sys.stdout
        self.console = Console(file=out, width=width_of(out, width), highlight=False, emoji=False)
        self.width = self.console.width

    def line(self, text: str, style: str = "") -> None:
        """Print a line, which the terminal wraps."""
        from rich.text import Text

        self.console.print(Text(text, style=style), soft_wrap=True)

    def table(self, columns: Sequence[Column]) -> None:
        """Print a table of these columns."""
        self.console.print(results_table(columns))


def print_results(results: Sequence[Result], file: IO[str] | None = None, width: int | None = None) -> None:
    """Print one table per model, data set and group, with the reasons beneath."""
    paper = Paper(file, width)

    def key(r: Result) -> tuple[object, ...]:
        how = "" if r.interpolation == "bilinear" else f" ({r.interpolation})"
        return str(r.model["path"]), str(r.data["uri"]), f"{r.group['name']}{how}", bool(r.data.get("mask")), r.units

    for (model, data, group, mask, units), rows in groupby(results, key):
        some = list(rows)
        images = f"{images_of(some[0].data['samples'], units)} of {clean(data)}"  # type: ignore[arg-type]
        paper.line(f"{clean(model)} · {clean(group)} · {images}{f' · {IN_DISC}' if mask else ''}", "bold")
        columns = columns_of(some)
        kept, gone = laid_out(columns, paper.width)
        paper.table(kept)
        for reason, mark in marks_of(some).items():
            paper.line(f"{mark} {clean(reason)}")
        for note in _notes(some, gone):
            paper.line(note)


def _notes(results: Sequence[Result], gone: Sequence[str]) -> Iterator[str]:
    """Yield what the signs in a table mean, what to mind, and what is not in it."""
    yield from (*zero_channels(results), *cautions(results))
    if any(stood_in(r) for r in results) and "floor" not in gone:
        yield "* floor not measured (extra passes): add --floor; the optimum stands in for it"
    yield from open_ends(results)
    if gone:
        yield f"left out for want of width: {', '.join(gone)}; a wider terminal shows them, --json has them all"


def open_ends(results: Iterable[Result]) -> Iterator[str]:
    """Yield what a dash in an interval means, for each sort that these results have."""
    ends = [e for r in results for e in ((r.value, r.low, r.high), (r.calibrated, r.calibrated_low, r.calibrated_high))]
    for end, place in (("lower", 1), ("upper", 2)):
        if any(e[place] is None and e[3 - place] is not None for e in ends):
            yield f"– for an end of an interval: no {end} end: {OPEN_END}"
    methods = dict.fromkeys(r.method for r in results if r.value is not None and r.low is None and r.high is None)
    for method in methods:
        yield f"– for an interval: {clean(method)}"
