"""The gallery on the page: orbits of the images that deviate most, and feature maps beside one another."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from geed_onnx.gallery import Exhibit, FeatureMaps, Gallery
from geed_onnx.reports.page.gallery_pictures import LESS, MORE, diverging, gradient, photograph, sequential
from geed_onnx.reports.page.section import Section
from geed_onnx.reports.table import clean, number

#: Least width of a column of the strip, in CSS pixels, with room for a deviation in figures.
LEAST_CELL = 68
GAP = 8
#: A class's name longer than this is cut under a picture; the numbers have it whole.
LONGEST = 14
#: Deviations this near to the optimum are rounding.
ROUNDING = 1e-6
#: Classes that are drawn: at most so many, and beside the two highest only those that reach this somewhere.
TOP, LEAST_SCORE = 5, 0.01
HEIGHT, MARGIN = 72, 12
#: Lines differ in dash as well as in colour.
DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 4")


def render_gallery(gallery: Gallery) -> list[Section]:
    """Return the sections of the gallery: images, then feature maps; none where there is nothing to show or to say.

    Every name in the HTML is escaped; pictures are `data:` addresses, and the style sheet stands in the first section.
    """
    sections = []
    if gallery.exhibits or gallery.reasons:
        html = _images(gallery.exhibits) + _reasons(gallery.reasons)
        sections.append(Section("gallery-images", "Images that deviate most", html))
    if gallery.maps:
        sections.append(Section("gallery-maps", "Feature maps: g·f(x) beside f(gx)", _maps(gallery.maps)))
    if not sections:
        return []
    style = (files("geed_onnx.reports.page") / "gallery.css").read_text(encoding="utf-8")
    first = sections[0]
    return [Section(first.id, first.title, f"<style>{style}</style>\n{first.html}"), *sections[1:]]


def _reasons(reasons: Sequence[str]) -> str:
    if not reasons:
        return ""
    items = "".join(f"<li>{said(r)}</li>" for r in reasons)
    return f'<div class="gx-reasons"><h3>Not shown</h3><ul>{items}</ul></div>'


# --- images -----------------------------------------------------------------------------------------------------


def _images(exhibits: Sequence[Exhibit]) -> str:
    if not exhibits:
        return ""
    jobs: list[list[Exhibit]] = []
    for e in exhibits:
        # ranks begin anew with each job; two runs on one page may hold models of one name
        if not jobs or e.rank <= jobs[-1][-1].rank or _same(e) != _same(jobs[-1][-1]):
            jobs.append([])
        jobs[-1].append(e)
    intro = (
        '<p class="gx-intro">Each row is one image and what the group makes of it. Below each picture stands how far'
        " the network deviates there, m(f(gx), ρ(g) f̂(x)): the stronger the ground, the larger the deviation."
    )
    if any(e.scores is not None for e in exhibits):
        intro += " For classifiers the chosen class follows, marked ≠ where it changes, and the scores along the orbit."
    return f"{intro}</p>\n" + "\n".join(_job(job, i) for i, job in enumerate(jobs))


def _same(e: Exhibit) -> tuple[str, ...]:
    return e.model, e.data, e.group, e.tap, e.variant


def _job(exhibits: Sequence[Exhibit], index: int) -> str:
    first = exhibits[0]
    largest = max(float(e.per_element.max()) for e in exhibits)
    which = f"{len(exhibits)} images" if len(exhibits) > 1 else "image"
    about = (
        f"{said(first.tap)} · {said(first.variant)} · the {which} of {first.samples} with the largest deviation;"
        f" mean over all {number(first.average)}, optimum {number(first.optimum)}"
    )
    if largest - first.optimum <= ROUNDING:
        about += ". No image deviates by more than rounding."
    changed = sum(_changes(e) for e in exhibits)
    worst = f"worst {number(first.deviation)}" + (f", {changed} changes of class" if changed > 1 else "")
    worst += ", 1 change of class" if changed == 1 else ""
    rows = "\n".join(_row(e, largest, f"gallery-{index + 1}-{e.rank}") for e in exhibits)
    summary = _summary(first.model, first.group, f"{worst} · {said(first.data)}")
    return (
        f'<details class="gx-job"{" open" if index == 0 else ""}>{summary}<p class="gx-about">{about}</p>\n'
        f"{rows}</details>"
    )


def _summary(model: str, group: str, more: str) -> str:
    """Return what stands over the rows of one model; `more` is HTML."""
    return (
        f'<summary><strong>{said(model)}</strong> <span class="gx-tag">{said(group)}</span>'
        f' <span class="gx-data">{more}</span></summary>'
    )


def _changes(exhibit: Exhibit) -> int:
    """Return in how many of the pictures the class is another than it should be."""
    if exhibit.predicted is None or exhibit.expected is None:
        return 0
    return sum(exhibit.predicted[g] != exhibit.expected[g] for g in exhibit.shown)


def _row(exhibit: Exhibit, largest: float, name: str) -> str:
    pictures = [] if exhibit.orbit is None else [photograph(p) for p in exhibit.orbit]
    cell = max([LEAST_CELL, *(p.width + GAP for p in pictures)])
    cells = []
    for i, g in enumerate(exhibit.shown):
        label = exhibit.elements[g]
        image = ""
        if pictures:
            image = pictures[i].html(f"{said(exhibit.image)}, {said(label)}")
        deviation = float(exhibit.per_element[g])
        cells.append(
            f'<div class="gx-cell">{image}<span class="gx-element">{said(label)}</span>'
            f'<span class="gx-deviation" style="--share:{_share(deviation, exhibit.optimum, largest):.0f}%">'
            f"{number(deviation)}</span>{_class(exhibit, g)}</div>"
        )
    notes = f'<p class="gx-note">{said("; ".join(exhibit.notes))}</p>' if exhibit.notes else ""
    return (
        f'<figure class="gx-row"><figcaption><span class="gx-rank">{exhibit.rank}</span>'
        f' <span class="gx-name">{said(exhibit.image)}</span> <span class="gx-mean">{number(exhibit.deviation)}</span>'
        f' <span class="gx-unit">mean over {said(exhibit.group)}</span></figcaption>'
        f'<div class="gx-scroll" tabindex="0" role="group" aria-label="orbit of {said(exhibit.image)}">'
        f'<div class="gx-strip" style="--cell:{cell}px">{"".join(cells)}</div>{chart(exhibit, cell, name)}</div>'
        f"{legend(exhibit)}{notes}{numbers(exhibit, name)}</figure>"
    )


def _share(value: float, optimum: float, largest: float) -> float:
    """Return where a deviation lies between the optimum and the largest, in percent; 0 where all is rounding."""
    reach = largest - optimum
    return 100 * min(1.0, max(0.0, (value - optimum) / reach)) if reach > ROUNDING else 0.0


def _class(exhibit: Exhibit, g: int) -> str:
    if exhibit.predicted is None or exhibit.expected is None:
        return ""
    chosen, wanted = (class_name(exhibit, c) for c in (exhibit.predicted[g], exhibit.expected[g]))
    short = said(chosen if len(chosen) <= LONGEST else chosen[: LONGEST - 1] + "…")
    if chosen == wanted:
        return f'<span class="gx-class" title="{said(chosen)}">{short}</span>'
    return f'<span class="gx-class gx-changed" title="{said(chosen)}, expected {said(wanted)}">≠ {short}</span>'


# --- class scores along an orbit, as a small inline chart with the same numbers in words ----------------------------


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


# --- feature maps -----------------------------------------------------------------------------------------------


def _maps(maps: Sequence[FeatureMaps]) -> str:
    intro = (
        '<p class="gx-intro">In an equivariant network the second and the third column are equal: to move the features'
        " is to see the moved image. Shown are the channels that agree least, for the image that deviates most and the"
        " element at which its map does. The first three columns of a row share one scale, and the difference"
        " f(gx) − g·f(x) is drawn on the width of that scale.</p>"
        f'<ul class="gx-legend"><li><span class="gx-ramp" style="background:linear-gradient(to right, {gradient()})">'
        '</span> least to largest value of the row</li><li><span class="gx-ramp" style="background:linear-gradient('
        f'to right, #{LESS}, transparent, #{MORE})"></span> difference: less, none, more</li></ul>'
    )
    return intro + "\n".join(_map(m, i) for i, m in enumerate(maps))


def _map(maps: FeatureMaps, index: int) -> str:
    f = "f(x)" if maps.averaged == 1 else "f̂(x)"
    about = (
        f"image {said(maps.image)}, element {said(maps.element_name)}, action {said(maps.action)}; the"
        f" {len(maps.channels)} of {maps.total} channels that agree least. Deviation over all channels"
        f" {number(maps.deviation)} ({said(maps.variant)}, optimum {number(maps.optimum)})."
    )
    if maps.averaged > 1:
        about += f" f̂(x) is the mean of f(kx) over the {maps.averaged} elements that the action leaves in place."
    heads = ("channel", f, f"g·{f}", "f(gx)", "difference")
    head = "".join(f'<div class="gx-head">{h}</div>' for h in heads)
    rows = "".join(_channel(maps, i, heads) for i in range(len(maps.channels)))
    summary = _summary(
        maps.model, maps.group, f"{said(maps.tap)} · {said(maps.element_name)} · {number(maps.deviation)}"
    )
    return (
        f'<details class="gx-job"{" open" if index == 0 else ""}>{summary}'
        f'<p class="gx-about">{about}</p><div class="gx-scroll" tabindex="0" role="group" aria-label="feature maps of'
        f' {said(maps.tap)}"><div class="gx-maps">{head}{_pair(maps)}{rows}</div></div></details>'
    )


def _pair(maps: FeatureMaps) -> str:
    """Return a first row with x over f(x) and gx over f(gx)."""
    if maps.images is None:
        return ""
    shown = [photograph(p).html(what, "gx-pic gx-plane") for p, what in zip(maps.images, ("x", "gx"), strict=True)]
    label = '<div class="gx-channel"><strong>image</strong><span>x and gx</span></div>'
    return f"{label}{shown[0]}<div></div>{shown[1]}<div></div>"


def _channel(maps: FeatureMaps, i: int, heads: Sequence[str]) -> str:
    low, high = maps.low[i], maps.high[i]
    channel = maps.channels[i]
    planes = [sequential(part[i], low, high) for part in (maps.before, maps.moved, maps.after)]
    planes.append(diverging(maps.difference[i], high - low))
    images = "".join(
        p.html(f"channel {channel}, {what}", "gx-pic gx-plane") for p, what in zip(planes, heads[1:], strict=True)
    )
    label = (
        f'<div class="gx-channel"><strong>{channel}</strong><span>cos {number(maps.cosines[i])}</span>'
        f"<span>{number(low)} … {number(high)}</span></div>"
    )
    return label + images
