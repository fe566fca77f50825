"""Class scores along an orbit as a small inline chart, with the same numbers in words."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from geed_onnx.gallery import Exhibit
from geed_onnx.reports.table import clean, number

#: Classes that are drawn: at most so many, and beside the two highest only those that reach this somewhere.
TOP, LEAST_SCORE = 5, 0.01
HEIGHT, MARGIN = 72, 12
#: Lines differ in dash as well as in colour.
DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 4")


def said(text: object) -> str:
    """Return a name as HTML shows it: control characters spelled out, the rest escaped."""
    return escape(clean(text), quote=True)


def top_classes(exhibit: Exhibit) -> tuple[int, ...]:
    """Return the classes of the highest scores anywhere along the orbit, the highest first."""
    if exhibit.scores is None:
        return ()
    highest = exhibit.scores.max(axis=0)
    order = sorted(range(len(highest)), key=lambda c: (-highest[c], c))[:TOP]
    return tuple(c for rank, c in enumerate(order) if rank < 2 or highest[c] >= LEAST_SCORE)


def class_name(exhibit: Exhibit, number: int) -> str:
    """Return what a class is called, as plain text."""
    return exhibit.classes[number] if exhibit.classes is not None else f"class {number}"


def chart(exhibit: Exhibit, cell: int, name: str) -> str:
    """Return an SVG whose columns lie under the pictures, `cell` CSS pixels each; `name` is unique on the page."""
    scores, classes = exhibit.scores, top_classes(exhibit)
    if scores is None:
        return ""
    width = cell * len(exhibit.shown)
    xs = [cell * (i + 0.5) for i in range(len(exhibit.shown))]
    lines = [
        _line(xs, [float(scores[g, c]) for g in exhibit.shown], rank, class_name(exhibit, c))
        for rank, c in reversed(list(enumerate(classes)))
    ]
    levels = "".join(
        f'<line class="gx-grid" x1="0" x2="{width}" y1="{_y(v):.1f}" y2="{_y(v):.1f}"/>'
        f'<text class="gx-tick" x="1" y="{_y(v) - 2:.1f}">{v:g}</text>'
        for v in (0, 0.5, 1)
    )
    drawn = ", ".join(said(class_name(exhibit, c)) for c in classes)
    return (
        f'<svg class="gx-chart" width="{width}" height="{HEIGHT + 2 * MARGIN}"'
        f' viewBox="0 0 {width} {HEIGHT + 2 * MARGIN}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">Class scores of {said(exhibit.image)} along its orbit</title>'
        f'<desc id="{name}-d">Probability from 0 to 1 of {drawn}, one point for each element of'
        f" {said(exhibit.group)}; the numbers stand below.</desc>{levels}{''.join(lines)}</svg>"
    )


def _y(value: float) -> float:
    return MARGIN + (1 - value) * HEIGHT


def _line(xs: Sequence[float], values: Sequence[float], rank: int, label: str) -> str:
    points = " ".join(f"{x:.1f},{_y(v):.1f}" for x, v in zip(xs, values, strict=True))
    dash = f' stroke-dasharray="{DASHES[rank]}"' if DASHES[rank] else ""
    dots = "".join(
        f'<circle class="gx-dot gx-c{rank}" cx="{x:.1f}" cy="{_y(v):.1f}" r="3">'
        f"<title>{said(label)}: {number(v)}</title></circle>"
        for x, v in zip(xs, values, strict=True)
    )
    return f'<polyline class="gx-line gx-c{rank}"{dash} points="{points}"/>{dots}'


def legend(exhibit: Exhibit) -> str:
    """Return the names of the classes that are drawn, each with a piece of its line."""
    items = []
    for rank, c in enumerate(top_classes(exhibit)):
        dash = f' stroke-dasharray="{DASHES[rank]}"' if DASHES[rank] else ""
        items.append(
            f'<li><svg width="26" height="8" aria-hidden="true"><line class="gx-line gx-c{rank}"{dash} x1="0" x2="26"'
            f' y1="4" y2="4"/></svg> {said(class_name(exhibit, c))}</li>'
        )
    return f'<ul class="gx-legend">{"".join(items)}</ul>' if items else ""


def numbers(exhibit: Exhibit, name: str) -> str:
    """Return a table of what is drawn: a row for each element that is shown; `name` is what its CSV is called."""
    classes, predicted = top_classes(exhibit), exhibit.predicted
    heads = ["element", "deviation"]
    heads += ["class", "expected"] if predicted is not None else []
    heads += [f"p({class_name(exhibit, c)})" for c in classes]
    rows = []
    for g in exhibit.shown:
        cells = [
            f'<th scope="row">{said(exhibit.elements[g])}</th>',
            _cell(float(exhibit.per_element[g])),
        ]
        if predicted is not None and exhibit.expected is not None:
            cells += [f"<td>{said(class_name(exhibit, c))}</td>" for c in (predicted[g], exhibit.expected[g])]
        if exhibit.scores is not None:
            cells += [_cell(float(exhibit.scores[g, c])) for c in classes]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col">{said(h)}</th>' for h in heads)
    return (
        '<details class="gx-numbers"><summary>Numbers</summary><div class="gx-scroll" tabindex="0">'
        f'<table class="gx-table" data-name="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _cell(value: float) -> str:
    """Return a cell that shows a few digits and holds them all, for sorting and downloading."""
    return f'<td data-value="{value!r}">{number(value)}</td>'
