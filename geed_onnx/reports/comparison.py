"""Comparisons as a readable table: both numbers, their difference with its interval, the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import IO

from geed_onnx.comparisons import Comparison
from geed_onnx.reports.table import Column, Paper, between, clean, fitting, number, numbered

#: What a narrow terminal leaves out, in this order; a number is left out whole, never cut.
LEFT_OUT = ("a", "b", "interval", "of")


def print_comparisons(rows: Sequence[Comparison], file: IO[str] | None = None, width: int | None = None) -> None:
    """Print one table for each two participants and their setting, with what is to be said of it beneath."""
    paper = Paper(file, width)
    for _, group in groupby(rows, _heading):
        some = list(group)
        for text in _heading(some[0]):
            paper.line(text, "bold")
        columns = columns_of(some)
        kept = fitting(columns, paper.width, LEFT_OUT)
        paper.table(kept)
        for text in footnotes(some):
            paper.line(text)
        if len(kept) < len(columns):
            gone = ", ".join(c.heading for c in columns if c not in kept)
            paper.line(f"left out for want of width: {gone}; a wider terminal shows them, --json has them all")


def columns_of(rows: Sequence[Comparison]) -> list[Column]:
    """Return every column of the table of `rows`."""
    levels = {r.judged.level for r in rows if r.judged.level is not None}
    level = f"{100 * levels.pop():g} %" if len(levels) == 1 else "interval"
    marks = marks_of(rows)
    columns = [
        Column("tap", "tap", tuple(map(taps_of, rows)), right=False),
        Column("variant", "variant", tuple(clean(r.variant) for r in rows), right=False),
        Column("a", "A", tuple(number(r.judged.a) for r in rows)),
        Column("b", "B", tuple(number(r.judged.b) for r in rows)),
        Column("difference", "A − B", tuple(number(r.judged.difference) for r in rows), style="bold"),
        Column("interval", level, tuple(between(r.judged.low, r.judged.high) for r in rows)),
        Column("verdict", "verdict", tuple(r.verdict or "–" for r in rows), right=False, style="bold"),
        Column("reason", "", tuple("".join(marks[t] for t in _said(r)) for r in rows), right=False),
    ]
    if any(r.on == "calibrated" for r in rows):
        of = tuple("calibrated" if r.on == "calibrated" else "raw" for r in rows)
        columns.insert(2, Column("of", "of", of, right=False))
    return columns


def taps_of(row: Comparison) -> str:
    """Return the tap of both, or the two where they have different names, and what brought those together."""
    a, b = (str(t["name"]) for t in (row.tap_a, row.tap_b))
    by = "" if row.aligned_by in (None, "name") else f" (by {row.aligned_by})"
    return clean(a if a == b else f"{a} ↔ {b}") + by


def marks_of(rows: Iterable[Comparison]) -> dict[str, str]:
    """Number the distinct reasons, for footnotes."""
    return numbered(t for r in rows for t in _said(r))


def footnotes(rows: Sequence[Comparison]) -> list[str]:
    """Return what is said beneath a table: reasons, how the intervals were made, how to read the signs and verdicts."""
    lines = [f"{mark} {clean(text)}" for text, mark in marks_of(rows).items()]
    methods = dict.fromkeys(r.judged.method for r in rows if r.judged.method and not _alone(r))
    lines += [f"intervals {clean(m)}" for m in methods]
    within = rows[0].within
    if any(r.judged.difference is not None for r in rows):
        margin = "" if within is None else f"; equivalent: the interval lies within ±{within:g}"
        lines.append(f"A − B above 0: A is less equivariant{margin}")
    return lines


def _alone(row: Comparison) -> bool:
    """Say whether two models were compared without pairing their images, which is worth a footnote of its own."""
    return not row.judged.paired and not row.a.family and not row.b.family


def _said(row: Comparison) -> tuple[str, ...]:
    unpaired = row.judged.method if row.judged.difference is not None and _alone(row) else None
    return tuple(text for text in (row.reason, unpaired) if text)


def _heading(row: Comparison) -> tuple[str, str, str]:
    names = [row.a.name, row.b.name]
    if names[0] == names[1] and row.a.source != row.b.source:
        names = [f"{p.name} ({p.source})" for p in (row.a, row.b)]
    names = [n + (f", {len(p.models)} models" if p.family else "") for n, p in zip(names, (row.a, row.b), strict=True)]
    groups = list(dict.fromkeys(str(g["name"]) for g in (row.group_a, row.group_b)))
    there = f"{clean(' and '.join(groups))} · {row.samples} images of {clean(row.data['uri'])}"
    return f"A  {clean(names[0])}", f"B  {clean(names[1])}", there
