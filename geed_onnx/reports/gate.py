"""A verdict on one screen, and the files that say it to other programs, each written whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

from geed_onnx.gates import Judged, Verdict
from geed_onnx.reports.table import PLAIN_WIDTH, Paper, clean, number, numbered
from geed_onnx.results import write_text

if TYPE_CHECKING:
    from rich.console import Console

#: Rows of the summary where something crossed, where all holds, and reasons beneath: it stays on one screen.
CROSSED_ROWS, HOLDING_ROWS, REASONS = 10, 5, 3
#: Names are shortened down to this; then a narrow terminal leaves these columns out, and never a part of a number.
LEAST_NAME = 10
LEFT_OUT = ("judged at", "group")
GAP = 2
STYLES = {"holds": "green", "crossed": "bold red", "undecided": "yellow", "no value": "bold red"}


def headline(verdict: Verdict) -> str:
    """Return the verdict in one line."""
    judged, crossed, undecided = len(verdict.judged), verdict.crossed, len(verdict.undecided)
    if not judged:
        said = "nothing was judged: no threshold"
    elif not crossed and not undecided:
        said = f"{'the one result holds' if judged == 1 else f'all {judged} hold'}"
    elif not crossed:
        said = f"none of {judged} crosses its threshold, {judged - undecided} shown to hold, {undecided} undecided"
    else:
        without = sum(1 for j in crossed if j.outcome == "no value")
        unproven = sum(1 for j in crossed if j.outcome == "undecided")
        share = "the one result" if judged == 1 else f"{len(crossed)} of {judged}"
        said = f"{share} {'crosses its' if len(crossed) == 1 else 'cross their'} threshold"
        whys = [f"{without} for want of a value"] * bool(without) + [f"{unproven} not proven"] * bool(unproven)
        said += f" ({', '.join(whys)})" if whys else ""
        said += f"; {undecided} undecided" if undecided > unproven else ""
    if verdict.failed:
        said += (
            f"; {len(verdict.failed)} failed {'cell that' if len(verdict.failed) == 1 else 'cells that'} no threshold"
        )
        said += " is for"
    return said


def writer(form: Callable[[Verdict], str]) -> Callable[[Verdict, str | os.PathLike[str]], None]:
    """Return what writes a verdict in this form."""

    def write(verdict: Verdict, path: str | os.PathLike[str]) -> None:
        """Write the text of a verdict, whole or not at all.

        Raises
        ------
        UsageError
            If it cannot be written there.
        GeedError
            If writing fails on the way.
        """
        write_text(path, form(verdict))

    return write


def gate_summary(verdict: Verdict, width: int = PLAIN_WIDTH) -> str:
    """Return the summary as plain text, as `print_gate` shows it."""
    out = io.StringIO()
    print_gate(verdict, out, width)
    return out.getvalue()


def print_gate(verdict: Verdict, file: IO[str] | None = None, width: int | None = None) -> None:
    """Print a verdict on one screen: what crossed, the worst first; where all holds, what is nearest to its limit.

    Names are shortened at their front to fit, numbers never.
    """
    paper = Paper(file, width)
    closed = verdict.crossed or verdict.failed
    style = "bold red" if closed else "bold yellow" if verdict.undecided else "bold green"
    paper.line(f"gate: {headline(verdict)}", style)
    rows = verdict.worst_first
    if verdict.crossed:
        rows = rows[: len(verdict.crossed)]
    shown = rows[: CROSSED_ROWS if verdict.crossed else HOLDING_ROWS]
    # one reason seldom comes alone: they are numbered, and said once
    without = [str(j.reason) for j in shown if j.outcome == "no value"]
    said = list(dict.fromkeys([*without, *(str(r.reason) for r in verdict.failed)]))
    if shown:
        _table(paper.console, shown, numbered(said))
        if len(rows) > len(shown):
            paper.line(f"and {len(rows) - len(shown)} more")
        if any(j.paired is False for j in shown):
            paper.line(
                "compared without tables of deviations on both sides: the folders of two runs are compared in pairs"
            )
    if verdict.undecided:
        paper.line(
            "undecided: the limit lies in the interval; more images decide, --prove closes the gate until they do"
        )
    for i, reason in enumerate(said[:REASONS], 1):
        paper.line(shortened(f"({i}) {clean(reason)}", 2 * paper.width, front=False))
    if len(said) > REASONS:
        paper.line(f"and {len(said) - REASONS} more reasons; --json has them all")


def _table(console: Console, rows: Sequence[Judged], marks: dict[str, str]) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def mark(j: Judged) -> str:
        return f" {marks[j.reason]}" if j.reason in marks else ""

    names: dict[str, Callable[[Judged], str]] = {
        "model": lambda j: j.result.label,
        "group": lambda j: str(j.result.group["name"]),
        "tap": lambda j: str(j.result.tap["name"]),
        "variant": lambda j: ("calibrated:" if j.threshold.on == "calibrated" else "") + j.threshold.variant,
    }
    numbers: dict[str, Callable[[Judged], str]] = {
        "is": lambda j: number(j.observed),
        "judged at": lambda j: number(j.end),
        "limit": limit_of,
        "": lambda j: j.outcome + mark(j),
    }
    cells = {heading: [clean(cell(j)) for j in rows] for heading, cell in {**names, **numbers}.items()}
    wide = {h: max(map(cell_len, (h, *column))) for h, column in cells.items()}

    def least() -> int:
        return sum((min(wide[h], LEAST_NAME) if h in names else wide[h]) + GAP for h in cells)

    for heading in LEFT_OUT:
        if least() > console.width:
            del cells[heading]
    room = console.width - sum(wide[h] for h in numbers if h in cells) - GAP * len(cells)
    fitted = shared({h: wide[h] for h in names if h in cells}, room)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0))
    for heading in cells:
        right = heading in ("is", "judged at", "limit")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for i, j in enumerate(rows):
        row = [Text(shortened(column[i], fitted.get(h, wide[h]))) for h, column in cells.items()]
        row[-1].stylize(STYLES[j.outcome])
        table.add_row(*row)
    # what no column can give way to a terminal wraps: no number is cut
    wider = Console(file=console.file, width=max(console.width, least()), highlight=False, emoji=False)
    wider.print(table)


def limit_of(j: Judged) -> str:
    """Return the limit as it is shown; of a relative one, by how much the baseline's deviation may be passed too."""
    if j.threshold.below:
        return f"≥ {number(j.limit)}"
    if j.threshold.relative:
        return f"{number(j.limit)} (+{100 * j.threshold.limit:g}%)"
    return number(j.limit)


def shared(wide: dict[str, int], room: int) -> dict[str, int]:
    """Return widths of at most `room` in all: the widest columns give, none below `LEAST_NAME`."""
    fitted = dict(wide)
    while sum(fitted.values()) > room:
        widest = max(fitted, key=lambda h: fitted[h])
        if fitted[widest] <= LEAST_NAME:
            break
        fitted[widest] -= 1
    return fitted


def shortened(text: str, room: int, *, front: bool = True) -> str:
    """Return text of at most `room` columns: the end of a long name tells more than its front."""
    from rich.cells import cell_len

    if cell_len(text) <= room:
        return text
    while text and cell_len(text) > room - 1:
        text = text[1:] if front else text[:-1]
    return f"…{text}" if front else f"{text}…"
