"""The figures of the questions about the method: images, points of M, interpolation, mask, sizes, floor, parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.findings.digits import BLOCKS, C8, CNN, LATENT, SCORES
from experiments.findings.evidence import Evidence, mean
from experiments.findings.figures_drawing import (
    CALIBRATED,
    EQUIVARIANT,
    INVARIANT,
    Read,
    Row,
    below,
    cut,
    dotted,
    level,
    line,
    sheet,
    some_mean,
    style_of,
    within,
)
from geed_onnx.errors import DataError
from geed_onnx.estimators import Estimate
from geed_onnx.reports.figures.drawing import COLOURS, MARKS
from geed_onnx.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAMILIES = (CNN, C8)
TAPS = (*BLOCKS, LATENT, SCORES)
#: What a tap is measured with.
VARIANTS = {**dict.fromkeys(BLOCKS, "channelwise"), LATENT: "latent-l2", SCORES: "softmax"}
#: Input sizes at which both strides keep the centre of the frame.
CENTRED = (29, 33)


def images(found: Evidence) -> Figure:
    """Draw values against the number of images, five draws of each with their intervals over images."""
    made, panels = sheet(2, 2, 5.0, sharex=True)
    shown = (
        ("block6", "channelwise", "block 6, channelwise", EQUIVARIANT),
        (LATENT, "latent-l2", "latent-l2", INVARIANT),
        (LATENT, "latent-cosine", "latent-cosine", INVARIANT),
        (SCORES, "softmax", "class scores, softmax", INVARIANT),
    )
    for k, (axes, (tap, variant, title, says)) in enumerate(zip(panels, shown, strict=True)):
        _draws(axes, found.ask(tap=tap, variant=variant), lambda r: r.samples)
        axes.set(title=title, xlabel="number of images" if k > 1 else "", ylabel=f"C8-EED\n({says})")
    _below_draws(made, panels)
    return made


def spread(*found: Evidence) -> Figure:
    """Draw values against the number of points that M is taken over, five draws of each with their intervals."""
    made, panels = sheet(1, 3, 3.0)
    for axes, variant in zip(panels, ("latent-l2", "latent-cosine", "latent-cosine-bounded"), strict=True):
        _draws(axes, [r for e in found for r in e.ask(tap=LATENT, variant=variant)], _points)
        axes.set(title=variant, xlabel="points that M is taken over", ylabel=f"C8-EED\n({INVARIANT})")
    _below_draws(made, panels)
    return made


def interpolation(nearest: Evidence, bilinear: Evidence, bicubic: Evidence) -> Figure:
    """Draw calibrated values by tap, pixels resampled in three ways."""
    made, panels = sheet(1, 2, 3.2)
    ways = {"nearest": nearest, "bilinear": bilinear, "bicubic": bicubic}
    for axes, f in zip(panels, FAMILIES, strict=True):
        for k, (name, found) in enumerate(ways.items()):
            row = [_of_tap(found, lambda r: r.calibrated, f, t) for t in TAPS]
            line(axes, np.arange(len(TAPS)) + (k - 1) * 0.12, Row(name, row), errors=True)
        cut(axes)
        level(axes, 0)
        _ticks(axes, TAPS)
        axes.set(title=f, ylabel=f"{CALIBRATED},\nlower: more equivariant")
    below(made, panels[0])
    return made


def mask(whole: Evidence, disc: Evidence) -> Figure:
    """Draw raw values and floors by block, on whole images and within the inscribed disc."""
    made, panels = sheet(1, 2, 3.2)
    for axes, f in zip(panels, FAMILIES, strict=True):
        for name, found in (("whole image", whole), ("within the disc", disc)):
            line(axes, range(1, 7), Row(name, _blocks(found, lambda r: r.value, f)), errors=True)
            dotted(axes, range(1, 7), Row(name, _blocks(found, lambda r: r.floor, f)))
        cut(axes)
        axes.set(title=f, xlabel="block", ylabel=f"channelwise C8-EED\n({EQUIVARIANT})")
    below(made, panels[0], also=[("floor", ":")])
    return made


def sizes(found: Evidence) -> Figure:
    """Draw latent-l2 and block 6 under C4, which is exact on the grid, against the size of the input."""
    made, panels = sheet(1, 2, 3.1)
    shown = ((LATENT, "latent-l2", INVARIANT), ("block6", "channelwise", EQUIVARIANT))
    for axes, (tap, variant, says) in zip(panels, shown, strict=True):
        for f in FAMILIES:
            at = {n: f"{f} {n}" for n in _sizes(found, f)}
            asked: dict[str, Any] = {"group": "C4", "tap": tap, "variant": variant}
            line(
                axes, list(at), Row(f, [mean(found.values(family=name, **asked)) for name in at.values()]), errors=True
            )
            axes.set_xticks(list(at))
        cut(axes)
        for n in CENTRED:
            axes.axvline(n, color="0.6", lw=1.0, ls=(0, (1, 1.5)), zorder=0.5)
        axes.set(title="latent space" if tap == LATENT else "block 6", xlabel="input size, pixels",
                 ylabel=f"{variant} C4-EED\n({says})")  # fmt: skip
    below(made, panels[0], also=[("sizes at which strides keep the centre", ":")])
    return made


def floor(found: Evidence) -> Figure:
    """Draw value and floor by block of both families; at the right what lies near the floors alone."""
    made, (left, right) = sheet(1, 2, 3.2)
    near: list[float] = []
    for axes in (left, right):
        for f in FAMILIES:
            line(axes, range(1, 7), Row(f, _blocks(found, lambda r: r.value, f)), errors=True)
            floors = _blocks(found, lambda r: r.floor, f)
            dotted(axes, range(1, 7), Row(f, floors))
            near += [e.value for e in (*floors, *_blocks(found, lambda r: r.value, C8)) if e is not None]
        axes.set(xlabel="block", ylabel=f"channelwise C8-EED\n({EQUIVARIANT})")
    cut(left)
    left.set(title="value and floor")
    right.set(title="near the floors")
    within(right, near, 0.1)
    below(made, left, also=[("floor of each family: what resampling costs", ":")])
    return made


def parts(found: Evidence) -> Figure:
    """Draw channelwise by block over the turns that only move pixels, and over those that resample."""
    made, panels = sheet(1, 2, 3.2)
    named = (("exact part (C4)", "exact"), ("resampled part (45°)", "resampled"))
    for axes, f in zip(panels, FAMILIES, strict=True):
        for name, key in named:
            line(axes, range(1, 7), Row(name, _blocks(found, _part(key, "value"), f)), errors=True)
            dotted(axes, range(1, 7), Row(name, _blocks(found, _part(key, "floor"), f)))
        cut(axes)
        axes.set(title=f, xlabel="block", ylabel=f"channelwise C8-EED\n({EQUIVARIANT})")
    below(made, panels[0], also=[("floor of each part", ":")])
    return made


def _part(which: str, key: str) -> Read:
    def read(r: Result) -> float | None:
        return None if r.parts is None else r.parts[which][key]

    return read


def _points(r: Result) -> int:
    if r.spread_samples is None:
        raise DataError(f"{r.label}, {r.variant}: the result does not say over how many points M was taken")
    return r.spread_samples


def _of_tap(found: Evidence, read: Read, family: str, tap: str) -> Estimate | None:
    return some_mean(found, read, family=family, tap=tap, variant=VARIANTS[tap])[0]


def _blocks(found: Evidence, read: Read, family: str) -> list[Estimate | None]:
    return [_of_tap(found, read, family, b) for b in BLOCKS]


def _sizes(found: Evidence, family: str) -> list[int]:
    named = [re.fullmatch(rf"{re.escape(family)} (\d+)", f) for f in found.order("family")]
    return sorted(int(m[1]) for m in named if m)


def _ticks(axes: Axes, taps: Sequence[str]) -> None:
    axes.set_xticks(range(len(taps)), [t.replace("block", "block ") for t in taps], rotation=30, ha="right")


def _draws(axes: Axes, results: Sequence[Result], x_of: Callable[[Result], int]) -> None:
    """Draw each draw's value and interval over images, side by side, and a line through the means of the draws."""
    values: list[float] = []
    for side, f in ((0.97, CNN), (1.03, C8)):
        colour, mark = COLOURS[style_of(f)], MARKS[style_of(f)]
        own = [r for r in results if r.model.get("family") == f and r.value is not None]
        seeds = sorted({r.seed for r in own})
        by_x: dict[int, dict[int, float]] = {}
        for r in own:
            assert r.value is not None
            by_x.setdefault(x_of(r), {})[r.seed] = r.value
            at = x_of(r) * side * 1.06 ** (seeds.index(r.seed) - (len(seeds) - 1) / 2)
            low, high = (r.value if e is None else e for e in (r.low, r.high))
            axes.plot([at, at], [low, high], color=colour, lw=0.7, alpha=0.8)
            axes.plot([at], [r.value], color=colour, marker=mark, ms=2.2, ls="none")
            values.append(r.value)
        at_x = sorted(by_x)
        axes.plot(
            at_x, [mean(by_x[x]).value for x in at_x], color=colour, lw=0.9, alpha=0.6, label=f, marker=mark, ms=0
        )
    axes.set_xscale("log")
    counts = sorted({x_of(r) for r in results})
    axes.set_xticks(counts, [str(n) for n in counts], rotation=40)
    axes.minorticks_off()
    within(axes, values)


def _below_draws(made: Figure, panels: Sequence[Axes]) -> None:
    below(made, panels[0], also=[("a draw's interval over images (cut at the panel's edge)", "-")])
