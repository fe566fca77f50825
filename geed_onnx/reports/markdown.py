"""A verdict as GitHub-flavoured markdown; names in it are shown, never interpreted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from geed_onnx.gates import Judged, Verdict
from geed_onnx.reports.gate import headline, limit_of, writer
from geed_onnx.reports.table import clean, number

#: Rows of each table; a step summary of GitHub holds 1 MiB.
ROWS = 200
MARKS = {"holds": "✅ holds", "crossed": "❌ crossed", "no value": "❌ no value", "undecided": "❔ undecided"}
HEADINGS = ("model", "group", "tap", "variant", "on", "is", "judged at", "limit", "")


def markdown(verdict: Verdict) -> str:
    """Return the summary: what crossed in a table, the worst first, reasons beneath, what holds folded away."""
    crossed = [j for j in verdict.worst_first if j.crossed]
    undecided = [j for j in verdict.worst_first if j.outcome == "undecided" and not j.crossed]
    holding = [j for j in verdict.worst_first if j.outcome == "holds"]
    good = not crossed and not verdict.failed
    parts = [f"### {'✅' if good else '❌'} geed-onnx gate: {headline(verdict)}"]
    if verdict.baseline is not None:
        parts.append(f"Held against the baseline {code(verdict.baseline)}.")
    if crossed:
        parts.append(_table(crossed))
        parts.append(_list(list(dict.fromkeys(j.reason for j in crossed if j.reason is not None))))
    if verdict.failed:
        parts.append("Not measured, and no threshold is for it:")
        parts.append(_list([f"{r.label}, {r.group['name']}: {r.reason}" for r in verdict.failed]))
    if undecided:
        parts.append("Undecided: the limit lies in the interval, which does not close the gate without `--prove`.")
        parts.append(_table(undecided))
    if holding:
        parts.append(f"<details><summary>{len(holding)} hold, the nearest to its limit first</summary>")
        parts.append(_table(holding))
        parts.append("</details>")
    return "\n\n".join(p for p in parts if p) + "\n"


write_markdown = writer(markdown)


def code(text: object, *, cell: bool = False) -> str:
    """Return text as a code span: no markup, mention, link or, in a `cell` of a table, column comes of it.

    Control characters and line ends are spelled out, and so is in a cell a pipe behind a backslash, for which renderers
    do not agree on an escape.
    """
    plain = clean(text)
    if cell:
        plain = plain.replace("\\|", "\\\\x7c").replace("|", "\\|")
    if not plain.strip(" "):
        return "–"
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    pad = " " if plain[0] in "` " or plain[-1] in "` " else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _table(rows: Sequence[Judged]) -> str:
    lines = [_row(HEADINGS), _row(["---"] * 5 + ["---:"] * 3 + ["---"])]
    for j in rows[:ROWS]:
        r, t = j.result, j.threshold
        names = (code(n, cell=True) for n in (r.label, r.group["name"], r.tap["name"], t.variant))
        lines.append(_row([*names, t.on, number(j.observed), number(j.end), limit_of(j), _mark(j)]))
    more = f"\n\nand {len(rows) - ROWS} more" if len(rows) > ROWS else ""
    return "\n".join(lines) + more


def _mark(j: Judged) -> str:
    return "❌ not proven" if j.outcome == "undecided" and j.crossed else MARKS[j.outcome]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _list(lines: Sequence[str]) -> str:
    shown = [f"- {code(line)}" for line in lines[:ROWS]]
    return "\n".join([*shown, *([f"- and {len(lines) - ROWS} more"] if len(lines) > ROWS else [])])
