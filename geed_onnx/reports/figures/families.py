"""Figures of families: training, data sets, numbers of images and of points of M; raw and calibrated side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from geed_onnx.reports.figures.drawing import (
    CALIBRATED,
    COLOURS,
    HATCHES,
    curve,
    legend,
    levels,
    names,
    or_nan,
    panels,
    short,
    tick_names,
)
from geed_onnx.reports.means import FamilyMean, On, means_in
from geed_onnx.reports.page.contents import MOST_LINES, Contents, Context

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = Mapping[On, FamilyMean]
"""value and calibrated value of one family at one place"""
Lines = Mapping[str, Mapping[float, Numbers]]
"""{family: {where it stands on the axis: numbers}}"""
Column = tuple[int, str]
"""(slot, variant)"""
SIDES: tuple[On, On] = ("value", "calibrated")
#: From this ratio of the largest to the smallest on, numbers of images stand on a logarithmic axis.
LOGARITHMIC = 8
#: Letters of a file's name that say what is drawn.
LONGEST = 72


@dataclass(frozen=True)
class Drawing:
    """A figure that these results have something for: its file's name, and what draws it."""

    name: str
    draw: Callable[[], Figure]


def family_drawings(contents: Contents) -> list[Drawing]:
    """Return every figure of families that there is something for, by tap and variant.

    `training-…` for each setting with several steps; `data-…` where several data sets were measured under one setting;
    `samples-…` and `spread-…` where several numbers of images, or of points of M, were.
    """
    book = _Book(contents)
    found: list[Drawing] = []
    for what, sort in (("training", _trainings), ("data", _data_sets), ("samples", _samples), ("spread", _spreads)):
        some = list(sort(book))
        found += [
            Drawing(f"{what}-{name}", draw)
            for name, (_, draw) in zip(names([label for label, _ in some], LONGEST), some, strict=True)
        ]
    return found


class _Book:
    """Means by context and column, family and step."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.cells: dict[tuple[int, Column], dict[str, dict[float | None, dict[On, FamilyMean]]]] = {}
        for placed in means_in(contents):
            m = placed.mean
            families = self.cells.setdefault((placed.context, (placed.slot, m.variant)), {})
            families.setdefault(m.family, {}).setdefault(m.step, {})[m.on] = m
        self.columns = sorted({column for _, column in self.cells}, key=lambda c: c[0])

    def label(self, column: Column, *more: str) -> str:
        """Return what the file of a column is called, for people."""
        return " ".join((column[1], self.contents.slots[column[0]].label, *more))

    def title(self, column: Column) -> str:
        """Return the column's tap and variant."""
        return f"{short(self.contents.slots[column[0]].label, 30)}, {short(column[1], 30)}"

    def alike(self, by: Callable[[Context], object]) -> list[list[int]]:
        """Return the contexts in groups of those that are the same but for one thing."""
        groups: dict[object, list[int]] = {}
        for i, context in enumerate(self.contents.contexts):
            groups.setdefault(by(context), []).append(i)
        return list(groups.values())

    def ended(self, contexts: Sequence[int], column: Column) -> dict[str, dict[int, Numbers]]:
        """Return {family: {context: numbers}} at one step of each family, which is said where there are several.

        The step is the one that most of the contexts have, of those the one that a training ends with.
        """
        found: dict[str, dict[int, Numbers]] = {}
        for family in dict.fromkeys(f for c in contexts for f in self.cells.get((c, column), {})):
            steps = {c: self.cells.get((c, column), {}).get(family, {}) for c in contexts}
            every = {s for some in steps.values() for s in some}
            step = max(every, key=lambda s: (sum(s in some for some in steps.values()), s is None, s or 0.0))
            said = family if step is None or len(every) == 1 else f"{family}, step {step:g}"
            found[said] = {c: some[step] for c, some in steps.items() if step in some}
        return found


Sorted = Iterator[tuple[str, Callable[[], "Figure"]]]


def _trainings(book: _Book) -> Sorted:
    for (context, column), families in book.cells.items():
        lines = {f: {s: n for s, n in steps.items() if s is not None} for f, steps in families.items()}
        where = book.contents.contexts[context]
        title = f"{book.title(column)}; {short(where.label, 70)}"
        if drawn := _worth(lines):
            yield (
                book.label(column, place_of(where, book.contents.contexts)),
                partial(_curves, drawn, "training step", title),
            )


def _samples(book: _Book) -> Sorted:
    yield from _sized(book, "samples", "images", lambda c: int(c.samples), lambda c: (c.data, c.settings))


def _spreads(book: _Book) -> Sorted:
    def rest(c: Context) -> object:
        return c.data, c.samples, c.group, c.others

    yield from _sized(book, "spread", "points of M", lambda c: c.spread, rest)


def _sized(
    book: _Book, what: str, said: str, size: Callable[[Context], int | None], rest: Callable[[Context], object]
) -> Sorted:
    """Yield curves against a size of contexts that have all else in common."""
    for group in book.alike(rest):
        sizes = {i: number for i in group if (number := size(book.contents.contexts[i]))}
        for column in book.columns:
            ended = book.ended(list(sizes), column)
            order = {f: sorted(of, key=lambda c: sizes[c]) for f, of in ended.items()}
            lines: Lines = {f: {float(sizes[c]): ended[f][c] for c in some} for f, some in order.items()}
            if drawn := _worth(lines):
                where = book.contents.contexts[group[0]]
                title = f"{book.title(column)}; {short(f'{where.group} on {where.name}', 60)}"
                yield (
                    book.label(column, place_of(where, book.contents.contexts, without=what)),
                    partial(_curves, drawn, said, title, ticks=True),
                )


def _data_sets(book: _Book) -> Sorted:
    contexts = book.contents.contexts
    for alike in book.alike(lambda c: (c.samples, c.group, c.others)):
        for column in book.columns:
            for group in _of_one_spread(book, alike, column):
                ended = book.ended(group, column)
                families = {f: of for f, of in ended.items() if any(_any(n) for n in of.values())}
                sets = [c for c in group if any(c in of and _any(of[c]) for of in families.values())]
                if len(sets) > 1:
                    where = max((contexts[c] for c in sets), key=lambda c: c.spread is not None)
                    title = f"{book.title(column)}; {short(f'{where.group} on {where.samples} images each', 60)}"
                    yield (
                        book.label(column, place_of(where, contexts, without="data")),
                        partial(_bars, families, sets, [contexts[c].name for c in sets], title),
                    )


def _of_one_spread(book: _Book, contexts: Sequence[int], column: Column) -> list[list[int]]:
    """Return the contexts of a column, apart by the points of M where a data set is among them with several numbers."""
    some = [c for c in contexts if (c, column) in book.cells]
    if len({book.contents.contexts[c].data for c in some}) == len(some):
        return [some]
    groups: dict[object, list[int]] = {}
    for c in some:
        [first, *_] = book.cells[c, column].values()
        [numbers, *_] = first.values()
        groups.setdefault(numbers["value"].spread_samples, []).append(c)
    return list(groups.values())


def place_of(context: Context, contexts: Sequence[Context], without: str = "") -> str:
    """Return what a context's files are called: group and data, and what else tells it from those of equal name."""

    def facts(c: Context) -> dict[str, str]:
        seed, level, masked, interpolation, units = c.others
        return {
            "samples": f"{c.samples} images",
            "seed": f"seed {seed}",
            "level": f"level {level:g}",
            "mask": "disc" if masked else "no mask",
            "interpolation": interpolation,
            "units": "" if units is None else f"{units} clusters",
            "spread": "" if c.spread is None else f"M over {c.spread}",
        }

    def plain(c: Context) -> str:
        return c.group if without == "data" else f"{c.group} {c.name}"

    own, alike = facts(context), [facts(c) for c in contexts if plain(c) == plain(context)]
    more = [v for k, v in own.items() if v and k != without and len({other[k] for other in alike}) > 1]
    return " ".join([plain(context), *more])


# --- what is drawn ----------------------------------------------------------------------------------------------


def _any(numbers: Numbers) -> bool:
    return any(m.estimate is not None for m in numbers.values())


def _worth(lines: Lines) -> dict[str, dict[float, Numbers]]:
    """Return the lines that have a number at two places or more."""
    some = {f: dict(sorted((x, n) for x, n in points.items() if _any(n))) for f, points in lines.items()}
    return {f: points for f, points in some.items() if len(points) > 1}


def _interval(numbers: Numbers, on: On) -> tuple[float | None, float | None, float | None]:
    estimate = numbers[on].estimate if on in numbers else None
    return (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)


def _sides(numbers: Sequence[Numbers]) -> list[On]:
    """Return what there is any number of, raw first."""
    return [on for on in SIDES if any(_interval(n, on)[0] is not None for n in numbers)]


def _curves(lines: Lines, said: str, title: str, *, ticks: bool = False) -> Figure:
    shown = list(lines.items())[:MOST_LINES]
    every = sorted({x for _, points in shown for x in points})
    shown_numbers = [n for _, points in shown for n in points.values()]
    sides = _sides(shown_numbers)
    sheet, grid = panels(len(sides), 3.4 * len(sides) + 1.4, 2.9)
    for axes, on in zip(grid, sides, strict=True):
        for i, (family, points) in enumerate(shown):
            curve(axes, list(points), [_interval(n, on) for n in points.values()], i, short(family, 44))
        if ticks:
            if every[-1] / every[0] >= LOGARITHMIC:
                axes.set_xscale("log")
            axes.set_xticks(every, [f"{x:g}" for x in every], rotation=60 if len(every) > 8 else 0)
            axes.minorticks_off()
        axes.set_xlabel(said)
        _named(axes, on)
    _titled(grid, title, len(lines))
    _caption(sheet, "band", shown_numbers)
    return sheet


def _bars(
    families: Mapping[str, Mapping[int, Numbers]], sets: Sequence[int], labels: Sequence[str], title: str
) -> Figure:
    shown = list(families.items())[:MOST_LINES]
    shown_numbers = [n for _, of in shown for n in of.values()]
    sides = _sides(shown_numbers)
    width = 0.8 / len(shown)
    sheet, grid = panels(len(sides), len(sides) * max(2.6, 0.9 + len(sets) * (0.35 + 0.17 * len(shown))) + 1.4, 2.9)
    for axes, on in zip(grid, sides, strict=True):
        base = _base(shown_numbers, on)
        for i, (family, of) in enumerate(shown):
            found = [(j, _interval(of[c], on)) for j, c in enumerate(sets) if c in of]
            some = [(j + (i - (len(shown) - 1) / 2) * width, e) for j, e in found if e[0] is not None]
            at = np.array([x for x, _ in some])
            value, low, high = (np.array([or_nan(e[k]) for _, e in some]) for k in range(3))
            axes.bar(at, value - base, width, bottom=base, color=COLOURS[i % len(COLOURS)], alpha=0.75,
                     hatch=HATCHES[i % len(HATCHES)], edgecolor="black", lw=0.5, label=short(family, 44))  # fmt: skip
            inside = np.isfinite(low) & np.isfinite(high)
            error = np.stack([value - low, high - value])[:, inside]
            axes.errorbar(
                at[inside], value[inside], yerr=error, fmt="none", ecolor="black", elinewidth=0.8, capsize=1.8
            )
        tick_names(axes, [short(label, 24) for label in labels], max(map(len, labels)), 30)
        _named(axes, on)
    _titled(grid, title, len(families))
    _caption(sheet, "error bar", shown_numbers)
    return sheet


def _base(numbers: Sequence[Numbers], on: On) -> float:
    """Return where bars stand: on the optimum of raw values, where all have the same, else on 0."""
    optima = {n[on].optimum for n in numbers if on in n and n[on].estimate is not None} if on == "value" else set()
    one = optima.pop() if len(optima) == 1 else None
    return 0.0 if one is None else one


def _named(axes: Axes, on: On) -> None:
    if on == "calibrated":
        levels(axes)
    axes.set_ylabel(CALIBRATED if on == "calibrated" else "raw deviation")


def _titled(grid: Sequence[Axes], title: str, count: int) -> None:
    cut = f" (the first {MOST_LINES} of {count} families)" if count > MOST_LINES else ""
    grid[0].set_title(f"{title}{cut}", fontsize=7.5, loc="left")
    legend(grid[-1])


def _caption(sheet: Figure, what: str, numbers: Sequence[Numbers]) -> None:
    """Say beneath what intervals are over: several models of a family saw the same images."""
    means = [m for n in numbers for m in n.values() if m.estimate is not None]
    families = {m.models > 1 for m in means}
    every = f"{what}: over the models of a family, which all saw the same images; it says nothing of other images"
    alone = "; of a single model over images" if families == {True, False} else ""
    if True in families:
        sheet.supxlabel(every + alone, fontsize=6.5, color="0.35")
