"""Results as a readable table; names in it come from files other people made, and are shown, never interpreted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import IO, TYPE_CHECKING

from geed_onnx.results import CAUTION, Result

if TYPE_CHECKING:
    from rich.table import Table

#: Where stdout is no terminal, lines are wide enough for every column and are not wrapped.
PLAIN_WIDTH = 160


def clean(text: object) -> str:
    """Return text with control characters spelled out, so that no name moves the cursor or starts a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def number(value: float | None, digits: int = 3) -> str:
    """Return a value as it is shown: fixed digits in ordinary range, scientific outside it, a dash for none."""
    if value is None:
        return "–"
    size = abs(value)
    if size and (size < 10 ** (-digits) or size >= 10_000):
        return f"{value:.2e}"
    return f"{value:.{digits}f}"


def between(low: float | None, high: float | None) -> str:
    """Return an interval, empty where there is none."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


#: What a narrow terminal leaves out, in this order; a number is left out whole, never cut.
LEFT_OUT = ("sensitivity", "calibrated interval", "interval", "optimum", "floor", "null")
#: Names fold within their columns, but not below this.
LEAST_NAME = 14
GAP = 3
#: Share of zero channels beyond which it is told.
MANY_ZERO = 0.05


@dataclass(frozen=True)
class Column:
    """One column of the table: its heading, and a cell for every result."""

    name: str
    heading: str
    cells: tuple[str, ...]
    right: bool = True
    style: str = ""

    @property
    def width(self) -> int:
        """The width it needs; names can be folded."""
        from rich.cells import cell_len

        widest = max(map(cell_len, (self.heading, *self.cells)))
        return widest if self.right else min(widest, LEAST_NAME)


def columns_of(results: Sequence[Result]) -> list[Column]:
    """Return every column of the table of `results`."""
    level = f"{100 * results[0].level:g} %" if results else "95 %"
    marks = marks_of(results)

    def cells(cell: Callable[[Result], str]) -> tuple[str, ...]:
        return tuple(cell(r) for r in results)

    return [
        Column("tap", "tap", cells(lambda r: clean(r.tap["name"])), right=False),
        Column("variant", "variant", cells(lambda r: clean(r.variant)), right=False),
        Column("value", "value", cells(lambda r: number(r.value)), style="bold"),
        Column("interval", level, cells(lambda r: between(r.low, r.high))),
        Column("optimum", "optimum", cells(lambda r: number(r.optimum))),
        Column("floor", "floor", cells(lambda r: number(r.floor) + ("*" if stood_in(r) else ""))),
        Column("null", "null", cells(lambda r: number(r.null))),
        Column("calibrated", "calibrated", cells(lambda r: number(r.calibrated)), style="bold"),
        Column("calibrated interval", level, cells(lambda r: between(r.calibrated_low, r.calibrated_high))),
        Column("sensitivity", "sensitivity", cells(lambda r: number(r.sensitivity))),
        Column("reason", "", cells(lambda r: marks.get(r.reason or "", "")), right=False),
    ]


def stood_in(r: Result) -> bool:
    """Return whether the optimum stands in for a floor that was not measured."""
    return r.floor_method == "optimum" and r.floor is not None


def zero_channels(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line on the taps of which more than 5 % of the channels are zero: two such channels count as equal."""
    shares = {r.tap["name"]: r.zero_channels for r in results if (r.zero_channels or 0) > MANY_ZERO}
    if shares:
        listed = ", ".join(f"{clean(name)} {100 * (share or 0):.0f} %" for name, share in shares.items())
        yield f"channels that are zero everywhere: {listed} (equal in channelwise, left out of channelwise-weighted)"


def cautions(results: Iterable[Result]) -> list[str]:
    """Return the notes that are cautions, each once."""
    return list(dict.fromkeys(clean(n) for r in results for n in r.notes if n.startswith(CAUTION)))


def fitting(columns: Sequence[Column], width: int, left_out: Sequence[str] = LEFT_OUT) -> list[Column]:
    """Return the columns that `width` has room for, those of `left_out` going first."""
    kept = list(columns)
    for name in left_out:
        if sum(c.width + GAP for c in kept) <= width:
            break
        kept = [c for c in kept if c.name != name]
    return kept


def results_table(columns: Sequence[Column]) -> Table:
    """Return a rich table of these columns, one row a Result."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for c in columns:
        table.add_column(
            c.heading, justify="right" if c.right else "left", overflow="fold", no_wrap=c.right, style=c.style
        )
    for row in zip(*(c.cells for c in columns), strict=True):
        table.add_row(*map(Text, row))
    return table


def marks_of(results: Iterable[Result]) -> dict[str, str]:
    """Number the distinct reasons, for footnotes."""
    reasons = dict.fromkeys(r.reason for r in results if r.reason)
    return {reason: f"({i})" for i, reason in enumerate(reasons, 1) if reason}


def print_results(results: Sequence[Result], file: IO[str] | None = None, width: int | None = None) -> None:
    """Print one table per model, data set and group, with the reasons beneath."""
    from rich.console import Console
    from rich.text import Text

    out = file or sys.stdout
    console = Console(file=out, width=width or (None if out.isatty() else PLAIN_WIDTH), highlight=False, emoji=False)

    def key(r: Result) -> tuple[str, str, str]:
        how = "" if r.interpolation == "bilinear" else f" ({r.interpolation})"
        return str(r.model["path"]), str(r.data["uri"]), f"{r.group['name']}{how}"

    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    for (model, data, group), rows in groupby(results, key):
        some = list(rows)
        line(f"{clean(model)} · {clean(group)} · {some[0].data['samples']} images of {clean(data)}", "bold")
        columns = columns_of(some)
        kept = fitting(columns, console.width)
        console.print(results_table(kept))
        for reason, mark in marks_of(some).items():
            line(f"{mark} {clean(reason)}")
        for told in (*zero_channels(some), *cautions(some)):
            line(told)
        if any(stood_in(r) for r in some) and any(c.name == "floor" for c in kept):
            line("* floor not measured (extra passes): add --floor; the optimum stands in for it")
        if len(kept) < len(columns):
            gone = ", ".join(c.name for c in columns if c not in kept)
            line(f"left out for want of width: {gone}; a wider terminal shows them, --json has them all")
