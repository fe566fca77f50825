"""Results as a readable table; names in it come from files other people made, and are shown, never interpreted."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import IO, TYPE_CHECKING

from geed_onnx.results import Result

if TYPE_CHECKING:
    from rich.console import Console
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


def results_table(results: Sequence[Result]) -> Table:
    """Return a rich table, one row a Result."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    level = f"{100 * results[0].level:g} %" if results else "95 %"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading, right in (
        ("tap", False),
        ("variant", False),
        ("value", True),
        (level, True),
        ("optimum", True),
        ("floor", True),
        ("null", True),
        ("calibrated", True),
        (level, True),
        ("", False),
    ):
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=right)
    marks = marks_of(results)
    for r in results:
        table.add_row(
            Text(clean(r.tap["name"])),
            Text(clean(r.variant)),
            Text(number(r.value), style="bold"),
            between(r.low, r.high).replace("[", r"\["),
            number(r.optimum),
            number(r.floor) + ("*" if r.floor_method == "optimum" and r.floor is not None else ""),
            number(r.null),
            Text(number(r.calibrated), style="bold"),
            between(r.calibrated_low, r.calibrated_high).replace("[", r"\["),
            marks.get(r.reason or "", ""),
        )
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
    console: Console = Console(
        file=out, width=width or (None if out.isatty() else PLAIN_WIDTH), highlight=False, emoji=False
    )

    def key(r: Result) -> tuple[str, str, str]:
        return str(r.model["path"]), str(r.data["uri"]), str(r.group["name"])

    for (model, data, group), rows in groupby(results, key):
        some = list(rows)
        title = f"{clean(model)} · {group} · {some[0].data['samples']} images of {clean(data)}"
        console.print(Text(title, style="bold"))
        console.print(results_table(some))
        for reason, mark in marks_of(some).items():
            console.print(Text(f"{mark} {clean(reason)}"))
        if any(r.floor_method == "optimum" and r.floor is not None for r in some):
            console.print(Text("* floor not measured (extra passes): add --floor; the optimum stands in for it"))
