"""Networks side by side: one row a network, one column a stage, raw and calibrated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from geed_onnx.reports.table import IN_DISC, LEAST_NAME, Column, Paper, clean, fitting, number, numbered, some
from geed_onnx.results import Result

Rows = Mapping[str, Sequence[Result]]
Pick = Callable[[Sequence[Result]], Result | None]
Reading = Callable[[Result], Any]


def columns_of(networks: Rows, maps: str, vectors: str, scores: str) -> dict[str, Pick]:
    """Return {heading: how a network's Result for it is found}.

    Maps are matched by their names; a network's last vector is its latent, its last scores are its scores, whatever
    their names.
    """
    names = dict.fromkeys(str(r.tap["name"]) for rows in networks.values() for r in rows if r.variant == maps)

    def by_name(name: str) -> Pick:
        return lambda rows: next((r for r in rows if r.variant == maps and r.tap["name"] == name), None)

    def last(variant: str) -> Pick:
        return lambda rows: next((r for r in reversed(rows) if r.variant == variant), None)

    return {name: by_name(name) for name in names} | {"latent": last(vectors), "scores": last(scores)}


def print_side_by_side(
    networks: Rows,
    *,
    maps: str = "channelwise",
    vectors: str = "latent-l2",
    scores: str = "softmax",
    file: IO[str] | None = None,
    width: int | None = None,
) -> None:
    """Print a table of calibrated values and one of raw values, a row for each network `{title: its results}`.

    A dash with a mark has its reason beneath; one without was not measured.
    """
    paper = Paper(file, width)
    picks = columns_of(networks, maps, vectors, scores)
    found = {heading: [pick(rows) for rows in networks.values()] for heading, pick in picks.items()}
    every = [r for column in found.values() for r in column if r is not None]
    readings: dict[str, tuple[Reading, Reading]] = {
        f"calibrated: 0 as equivariant as the grid allows, 1 no better than unrelated images ({maps}, {vectors},"
        f" {scores})": (lambda r: r.calibrated, lambda r: r.why_uncalibrated),
        "raw: -1 is equivariant for maps, 0 invariant for latent and scores" + _masked(every): (
            lambda r: r.value,
            lambda r: r.reason,
        ),
    }
    marks = numbered(
        reason for value, why in readings.values() for r in every if value(r) is None and (reason := why(r))
    )
    for title, (value, why) in readings.items():
        paper.line(title, "bold")
        cells = {clean(heading): [_read(value, why, r, marks) for r in column] for heading, column in found.items()}
        names = Column("network", "network", tuple(map(clean, networks)), right=False)
        columns = [names, *(Column(heading, heading, tuple(column)) for heading, column in cells.items())]
        # the first columns go first, and one stays
        kept = fitting(columns, paper.width + names.width - LEAST_NAME, list(cells)[:-1])
        paper.table(kept)
        if len(kept) < len(columns):
            gone = some([c.heading for c in columns if c not in kept], 8)
            paper.line(f"left out for want of width: {gone}; a wider terminal shows them")
    for reason, mark in marks.items():
        paper.line(f"{mark} {clean(reason)}")


def _masked(results: Sequence[Result]) -> str:
    """Say whether only the inscribed disc was looked at; numbers with it and without do not compare."""
    there = {bool(r.data.get("mask")) for r in results}
    if len(there) > 1:
        return f"; some {IN_DISC}, others not, and these do not compare"
    return f"; {IN_DISC}" if True in there else ""


def _read(value: Reading, why: Reading, r: Result | None, marks: Mapping[str, str]) -> str:
    found = None if r is None else value(r)
    return shown(found) + (marks.get(why(r) or "", "") if r is not None and found is None else "")


def shown(value: float | None) -> str:
    """Return a value in few characters: three digits, two in scientific form."""
    if value is not None and 0 < abs(value) < 1e-3:
        return f"{value:.0e}"
    return number(value)
