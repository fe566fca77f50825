"""R6 and R7: what the grid costs. The floor by block; C8 as its exact C4 part and the 45° part."""

from __future__ import annotations

import math
import statistics
from functools import partial

from experiments.findings.digits import BLOCKS, C8, CNN
from experiments.findings.evidence import Evidence, On, Values, averaged, mean, number, said
from experiments.findings.finding import Finding, joined
from experiments.findings.robustness.cells import Cell, above_optimum, cells, given, quotient, taken
from geed_onnx.errors import DataError
from geed_onnx.results import Result

SIZE = 29
"""of the images in training"""


def blocks(family: str) -> list[Cell]:
    """Return the six blocks of a network."""
    return [Cell(family, b, "channelwise") for b in BLOCKS]


def floor(r: Result) -> float:
    """Return the floor above the optimum."""
    return above_optimum(r, r.floor, "floor")


def deviation(r: Result) -> float:
    """Return the value above the optimum."""
    return above_optimum(r, r.value, "value")


def _left(r: Result) -> float:
    return given(r.value, "value", r) - given(r.floor, "floor", r)


def _share_of_floor(r: Result) -> float:
    return quotient(floor(r), deviation(r), f"{r.label}, {r.tap['name']}")


def r6(reference: Evidence) -> Finding:
    """What resampling alone costs, block by block, and what is left of the value above it.

    Raises
    ------
    DataError
        If a number is missing, or a block does not deviate at all.
    """
    floors = {c: mean(taken(reference, c, floor)) for f in (CNN, C8) for c in blocks(f)}
    low, high = (pick(floors, key=lambda c: floors[c].value) for pick in (min, max))
    left = {c: mean(taken(reference, c, _left)) for c in cells(reference)}
    shares = {f: mean(averaged([taken(reference, c, _share_of_floor) for c in blocks(f)])) for f in (CNN, C8)}

    def rest(family: str) -> str:
        most = max(blocks(family), key=lambda c: left[c].value)
        return f"{said(left[most])} ({most})"

    return Finding(
        key="R6",
        title="What does interpolation alone cost, block by block?",
        claim="A map that is turned and turned back is not what it was, unless the turn is exact. How large is this floor"
        " in each block, and how much of the value is above it?",
        verdict="answered",
        sentence=f"The floor is {said(floors[low])} ({low}) to {said(floors[high])} ({high}) of cosine similarity above the"
        f" optimum. It makes {number(100 * shares[C8].value, 0)} % of what the blocks of the C8-CNN deviate and"
        f" {number(100 * shares[CNN].value, 0)} % for the CNN; what is above the floor is"
        f" {joined([rest(f) for f in (C8, CNN)])} at most.{_fewer(reference.results[0])}",
        number=shares[C8],
        of="floor of the C8-CNN as a share of its raw deviation, both above the optimum, mean over six blocks",
        figure="r6-floor",
        table=(
            ("number", "value", "floor", "value − floor"),
            *(
                (
                    str(c),
                    said(mean(reference.values(**c._asdict())), 4),
                    said(mean(taken(reference, c, lambda r: given(r.floor, "floor", r))), 4),
                    said(left[c], 4),
                )
                for c in left
            ),
        ),
    )


def _fewer(r: Result) -> str:
    """Return what follows where floors are of a part of the images."""
    if r.reference_samples >= r.samples:
        return ""
    return f" (Floors are of {r.reference_samples} of the {r.samples} images, so a value can lie a little below its floor.)"


def part(r: Result, name: str, on: On = "value") -> float:
    """Return the number of a result's `exact` or `resampled` part.

    Raises
    ------
    DataError
        If the result has no parts, or this one has no such number.
    """
    if r.parts is None:
        raise DataError(f"{r.label}, {r.tap['name']}, {r.variant}: no parts under {r.group['name']}; expected C8")
    value: float | None = r.parts[name][on]
    return given(value, f"{on} of the {name} part", r)


def share(r: Result) -> float:
    """Return how much of what a value is above the optimum the resampled elements bring."""
    above = above_optimum(r, part(r, "resampled"), "resampled part")
    turned, exact = (len((r.parts or {})[name]["elements"]) for name in ("resampled", "exact"))
    return quotient(above * turned / (turned + exact), deviation(r), f"{r.label}, {r.tap['name']}")


def turns(r: Result) -> float:
    """Return the exact part without the identity, whose deviation is 0 by definition."""
    part(r, "exact")
    if r.per_element is None:
        raise DataError(f"{r.label}, {r.tap['name']}, {r.variant}: no values by element: {r.reason}")
    return statistics.fmean(r.per_element[g] for g in (r.parts or {})["exact"]["elements"] if g != 0)


def exactly(off: float) -> str:
    """Return how near to −1 what is at most `off` away from it."""
    if off == 0:
        return "−1 exactly"
    return f"−1 to {math.floor(-math.log10(off))} digits" if off < 1e-3 else f"−1 only to within {number(off)}"


def r7(reference: Evidence, sizes: Evidence) -> Finding:
    """C8 as its exact C4 part and the 45° part, block by block.

    Raises
    ------
    DataError
        If a number is missing, or a block does not deviate at all.
    """
    every = [c for f in (CNN, C8) for c in blocks(f)]

    def halves(c: Cell, on: On = "value") -> list[Values]:
        return [taken(reference, c, partial(part, name=n, on=on)) for n in ("exact", "resampled")]

    parts = {c: halves(c) for c in every}
    shares = {f: mean(averaged([taken(reference, c, share) for c in blocks(f)])) for f in (CNN, C8)}
    off = max(abs(v + 1) for c in blocks(C8) for v in parts[c][0].values())
    latent = [number(mean(v).value) for v in halves(Cell(C8, "latent", "latent-l2"))]
    alone = mean(sizes.values(family=f"{C8} {SIZE}", variant="latent-l2", group="C4"))
    last = {f: mean(parts[blocks(f)[-1]][1]) for f in (CNN, C8)}
    return Finding(
        key="R7",
        title="How much of C8 is the 45° part?",
        claim="Quarter turns are exact on the grid, odd multiples of 45° resample. How much of what a block deviates comes"
        " from which?",
        verdict="answered",
        sentence=f"Under quarter turns the blocks of the C8-CNN read {exactly(off)}; the 45° part is {said(shares[C8])} of"
        f" what they deviate ({said(last[C8], 2)} in block 6) and {said(shares[CNN])} of what those of the CNN do"
        f" ({said(last[CNN], 2)}). For an invariant the two are not told apart, since f̂ is the mean over both halves of"
        f" the orbit: the latent-l2 of the C8-CNN reads {latent[0]} in one and {latent[1]} in the other, and"
        f" {number(alone.value)} under C4 alone.",
        number=shares[CNN],
        of="share of the 45° part, half of the elements, in the CNN's raw deviation above the optimum, mean over six blocks",
        figure="r7-parts",
        table=(
            (
                "number",
                "exact part",
                "quarter turns without the identity",
                "45° part",
                "exact part, calibrated",
                "45° part, calibrated",
                "share of the 45° part",
            ),
            *(
                (
                    str(c),
                    said(mean(parts[c][0])),
                    said(mean(taken(reference, c, turns))),
                    said(mean(parts[c][1])),
                    *(said(mean(v)) for v in halves(c, "calibrated")),
                    said(mean(taken(reference, c, share)), 2),
                )
                for c in every
            ),
        ),
    )
