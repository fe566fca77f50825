"""R1 and R2: how many images, how many points for M. The unit of uncertainty is the draw."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from experiments.findings.evidence import LEVEL, Evidence, Values, number, said
from experiments.findings.finding import Finding, joined
from experiments.findings.robustness.cells import Cell, cells, drawn, furthest, named, quotient, same_order, told
from geed_onnx.errors import DataError
from geed_onnx.estimators import Estimate, over_models
from geed_onnx.results import Result

IMAGES, POINTS = 50, 200
"""what the paper takes"""
WITHIN = 2.0
"""per cent"""

Draws = Mapping[int, Result]


def _values(draws: Draws) -> dict[int, float]:
    return {s: float(r.value) for s, r in draws.items() if r.value is not None}


def _mean(draws: Draws) -> float:
    return statistics.fmean(_values(draws).values())


def paired(a: Values, b: Values, what: object, level: float = LEVEL) -> Estimate:
    """Return mean(a) − mean(b) of the same draws, with Student's t interval over their differences.

    Raises
    ------
    DataError
        If they are of different draws.
    """
    if set(a) != set(b):
        raise DataError(f"{what}: expected the same draws, got {sorted(a)} and {sorted(b)}")
    return over_models([a[s] - b[s] for s in a], level, "draws, paired by seed")


def in_scatters(moved: Estimate, scatter: float) -> Estimate:
    """Return a change in standard deviations of a draw; where draws do not scatter at all, as it is."""
    if scatter == 0:
        return moved
    low, high = (None if end is None else end / scatter for end in (moved.low, moved.high))
    return replace(moved, value=moved.value / scatter, low=low, high=high)


def orders_kept(at: Mapping[Cell, Mapping[int, Draws]], means: Mapping[Cell, float]) -> list[bool]:
    """Return for every two networks, number and draw whether 50 images have them in the order of the means."""
    return [
        same_order([(one[s], other[s]), (means[a], means[b])])
        for a, b in itertools.combinations(means, 2)
        if a[1:] == b[1:]
        for one, other in [(_values(at[a][IMAGES]), _values(at[b][IMAGES]))]
        for s in one
        if s in other
    ]


def r1(images: Evidence) -> Finding:
    """How many images: 50 against the most there are, and what the intervals of single draws are worth.

    Raises
    ------
    DataError
        If a number is missing, or is not of the same draws at every number of images.
    """
    sizes = sorted({r.samples for r in images.results} | {IMAGES})
    kinds, most = cells(images), sizes[-1]
    fewer = [n for n in sizes if n < most]
    if most == IMAGES:
        raise DataError(f"{images.name}: expected draws of more than {IMAGES} images to compare with")
    points = [str(n) for n in sorted({r.spread_samples for r in images.results if r.spread_samples is not None})]
    at = {c: {n: drawn(images, c, n) for n in sizes} for c in kinds}
    means = {c: _mean(at[c][most]) for c in kinds}
    moved = {c: paired(_values(at[c][IMAGES]), _values(at[c][most]), c) for c in kinds}
    scatter = {c: statistics.stdev(_values(at[c][IMAGES]).values()) for c in kinds}
    shifts = {c: in_scatters(moved[c], scatter[c]) for c in kinds}
    # so that one of so many is called different by chance in 5 % of cases, not in half of them (Bonferroni)
    strict = 1 - (1 - LEVEL) / len(kinds)
    apart = [c for c in kinds if told(paired(_values(at[c][IMAGES]), _values(at[c][most]), c, strict))]
    held = {(c, n): [bool(r.low <= means[c] <= r.high) for r in at[c][n].values()] for c in kinds for n in fewer}  # type: ignore[operator]
    total = {n: [h for c in kinds for h in held[c, n]] for n in fewer}
    kept = orders_kept(at, means)
    worst = furthest(shifts)
    per_cent = {c: 100 * quotient(moved[c].value, abs(means[c]), c) for c in kinds}
    wide = {c: 100 * quotient(scatter[c], abs(means[c]), c) for c in kinds}
    widest = max(wide, key=lambda c: wide[c])
    return Finding(
        key="R1",
        title="Do 50 images give what 1,000 give?",
        claim=f'The paper takes {IMAGES} images and says that more "did not substantially change the results". Is the mean'
        f" at {IMAGES} that at {most:,}, how far does a single draw scatter, does it turn an order over, and do the"
        " intervals hold what they promise?"
        f"{f' (M is over {joined(points)} points throughout.)' if points else ''}",
        verdict="answered",
        sentence=f"On these networks the paper's sentence {_holds(apart, kinds, kept)}. In {len(apart)} of {len(kinds)}"
        f" numbers the mean of {len(at[worst][IMAGES])} draws of {IMAGES} images is told from that of {most:,} (at 95 % for"
        f" all together); the difference is largest, beside the scatter of draws, in the {worst}"
        f" ({number(per_cent[worst], 1)} %). Draws of {IMAGES} scatter by up to {number(wide[widest], 1)} % of the mean"
        f" ({widest}). At {IMAGES} images the"
        f" networks are in the order that they have at {most:,} in {sum(kept)} of {len(kept)} comparisons of single"
        f" draws. The 95 % interval of a single draw holds the mean at {most:,} in"
        f" {joined([f'{sum(h)} of {len(h)} cases at {n}' for n, h in total.items()])} images.",
        number=shifts[worst],
        of=f"mean at {IMAGES} images minus mean at {most:,}, in standard deviations of a draw of {IMAGES}, {worst}, where"
        " it is furthest from 0; the interval is over draws, paired by seed",
        figure="r1-images",
        table=(
            (
                "number",
                f"at {IMAGES}",
                f"at {most:,}",
                "difference",
                "in sd of a draw",
                *(f"intervals at {n} that hold it" for n in fewer),
            ),
            *(
                (
                    str(c),
                    number(_mean(at[c][IMAGES]), 4),
                    number(means[c], 4),
                    said(moved[c], 4),
                    number(shifts[c].value, 2),
                    *(f"{sum(held[c, n])} of {len(held[c, n])}" for n in fewer),
                )
                for c in kinds
            ),
            ("together", "", "", "", "", *(f"{sum(h)} of {len(h)}" for h in total.values())),
        ),
        check="" if not apart and all(kept) else _check(apart, kept, most),
    )


def _check(apart: Sequence[Cell], kept: Sequence[bool], most: int) -> str:
    moved = f" It does for the {named(apart)}." if apart else ""
    turned = f" {len(kept) - sum(kept)} orders of single draws are turned over." if not all(kept) else ""
    return (
        f"A draw is a simple random sample, and its {IMAGES} images are the first of its own {most:,}, measured in the same"
        f" way: a value without M is unbiased at any number of images, so its mean should not move with it.{moved}{turned}"
    )


def _holds(apart: Sequence[Cell], kinds: Sequence[Cell], kept: Sequence[bool]) -> str:
    if not apart and all(kept):
        return "holds"
    if len(apart) < len(kinds) / 2 and all(kept):
        return f"holds but for the {named(apart)}"
    return "does not hold"


def r2(spread: Mapping[int, Evidence]) -> Finding:
    """How many points M needs: values relative to those with the most points, draw by draw.

    Raises
    ------
    DataError
        If a number is 0, is not of the same draws at every number of points, or is missing for another reason than that
        so few points do not tell M from 0.
    """
    sizes, most = sorted(spread), max(spread)
    kinds = cells(spread[most])
    last = {c: _values(drawn(spread[most], c)) for c in kinds}
    unfit = {(c, n): _without_spread(spread[n], c) for c in kinds for n in sizes if n not in (POINTS, most)}
    silent = [k for k, draws in unfit.items() if draws]
    relative = {
        (c, n): _per_cent(_values(drawn(spread[n], c)), last[c], c)
        for c in kinds
        for n in sizes
        if (c, n) not in silent
    }
    means = {k: over_models(list(v.values()), LEVEL, "draws") for k, v in relative.items()}
    # what has no value is within no margin
    by_mean = {c: first_within({n: [means[c, n].value if (c, n) in means else math.inf] for n in sizes}) for c in kinds}
    by_draw = {c: first_within({n: list(relative.get((c, n), {0: math.inf}).values()) for n in sizes}) for c in kinds}
    usual = {c: means[c, POINTS] for c in kinds}
    worst, far = furthest(usual), furthest(means)
    single = max((abs(v), str(c)) for c in kinds for v in relative[c, POINTS].values())
    return Finding(
        key="R2",
        title="How many points does M need?",
        claim=f"M of equation (6) is taken over {POINTS} points in the paper. How far are values with fewer from those with"
        f" {most:,}, on the same images, and from which number of points on are they within {WITHIN:g} %?",
        verdict="answered",
        sentence=f"The mean over draws stays within {WITHIN:g} % {_since(by_mean, most)}; every single draw does"
        f" {_since(by_draw, most)}. The largest mean change is {said(means[far], 1)} % ({far[0]}, {far[1]} points). With"
        f" the paper's {POINTS} points a single draw is off by at most {number(single[0], 1)} % ({single[1]})."
        f"{_silence(unfit, len(last[kinds[0]]))}",
        number=usual[worst],
        of=f"change in per cent from {most:,} points to {POINTS}, {worst}, where the mean change is largest; the interval"
        " is over draws, each with the same images",
        figure="r2-spread",
        table=(
            (
                "change from the most, mean ± sd of draws",
                *(f"{n} points, %" for n in sizes if n < most),
                f"mean within {WITHIN:g} %",
                f"every draw within {WITHIN:g} %",
            ),
            *(
                (
                    str(c),
                    *(
                        f"{number(means[c, n].value, 2)} ± {number(statistics.stdev(relative[c, n].values()), 2)}"
                        if (c, n) in means
                        else f"no M in {len(unfit[c, n])} draws"
                        for n in sizes
                        if n < most
                    ),
                    _from(by_mean[c], most),
                    _from(by_draw[c], most),
                )
                for c in kinds
            ),
        ),
    )


def _without_spread(found: Evidence, cell: Cell) -> list[int]:
    """Return the draws that have no value because their M is not told from 0; every other draw has one."""
    return [r.seed for r in found.ask(**cell._asdict()) if r.value is None and "not told from 0" in str(r.reason)]


def _silence(unfit: Mapping[tuple[Cell, int], Sequence[int]], total: int) -> str:
    """Return what is said of draws whose M is not told from 0, which therefore have no value."""
    some = joined([f"{len(d)} of {total} draws over {n} points ({c})" for (c, n), d in unfit.items() if d] or [""])
    return f" M is not told from 0, and there is no value, in {some}." if some else ""


def _per_cent(values: Values, last: Values, cell: Cell) -> Values:
    """Return by how much each draw differs from itself with the most points; its images are the same."""
    if set(values) != set(last):
        raise DataError(f"{cell}: expected the draws {sorted(last)} at every number of points, got {sorted(values)}")
    return {s: 100 * (quotient(values[s], last[s], cell) - 1) for s in last}


def first_within(changes: Mapping[int, Sequence[float]]) -> int:
    """Return the size from which on every change (in per cent) is within the margin; the last size changes nothing."""
    sizes = sorted(changes)
    return next(n for i, n in enumerate(sizes) if all(abs(v) <= WITHIN for later in sizes[i:] for v in changes[later]))


def _from(size: int, most: int) -> str:
    return f"from {size} on" if size < most else f"not below {most:,}"


def _since(by: Mapping[Cell, int], most: int) -> str:
    groups: dict[int, list[Cell]] = {}
    for c, size in by.items():
        groups.setdefault(size, []).append(c)
    return "; ".join(f"{_from(size, most)} for {named(groups[size])}" for size in sorted(groups))
