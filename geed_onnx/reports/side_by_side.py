"""Networks side by side: one row a network, one column a stage, raw and calibrated."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from geed_onnx.reports.table import PLAIN_WIDTH, clean, number
from geed_onnx.results import Result

Rows = Mapping[str, Sequence[Result]]
Pick = Callable[[Sequence[Result]], Result | None]


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
    """Print a table of calibrated values and one of raw values, a row for each network `{title: its results}`."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = file or sys.stdout
    console = Console(file=out, width=width or (None if out.isatty() else PLAIN_WIDTH), highlight=False, emoji=False)
    columns = columns_of(networks, maps, vectors, scores)
    readings: dict[str, Callable[[Result], float | None]] = {
        f"calibrated: 0 as equivariant as the grid allows, 1 no better than unrelated images ({maps}, {vectors},"
        f" {scores})": lambda r: r.calibrated,
        "raw: -1 is equivariant for maps, 0 invariant for latent and scores": lambda r: r.value,
    }
    for title, reading in readings.items():
        console.print(Text(title, style="bold"), soft_wrap=True)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column("network", overflow="fold")
        for heading in columns:
            table.add_column(Text(clean(heading)), justify="right", no_wrap=True)
        for name, rows in networks.items():
            cells = [pick(rows) for pick in columns.values()]
            table.add_row(Text(clean(name)), *(Text(shown(None if r is None else reading(r))) for r in cells))
        console.print(table)


def shown(value: float | None) -> str:
    """Return a value in few characters: three digits, two in scientific form."""
    if value is not None and 0 < abs(value) < 1e-3:
        return f"{value:.0e}"
    return number(value)
