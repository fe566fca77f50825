"""The difference of two cells: paired by image where their tables are at hand, over models for families."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from geed_onnx.comparisons.participants import Model, Participant
from geed_onnx.errors import DataError, UsageError
from geed_onnx.estimators import (
    Change,
    Equivalence,
    Estimate,
    change_of_difference,
    difference,
    equivalence,
    over_models,
    paired_by_model,
    unpaired,
    welch,
)
from geed_onnx.results import CellTables, Result
from geed_onnx.variants import range_of

Of = Literal["value", "calibrated"]
LEVEL = 0.95
SAME = "the same cell, measured once"


@dataclass(frozen=True, eq=False)
class Cell:
    """One (tap, variant) of a participant: a Result for each of its models, None where one lacks it."""

    participant: Participant
    results: tuple[Result | None, ...]

    @property
    def known(self) -> tuple[Result, ...]:
        """The results that are there."""
        return tuple(r for r in self.results if r is not None)

    @property
    def first(self) -> Result:
        """The first of them."""
        return self.known[0]

    @cached_property
    def tables(self) -> CellTables | None:
        """What the first model's number is made of, read once; None where it was not kept."""
        return self.participant.models[0].tables(self.first)

    def missing(self, of: Of) -> str | None:
        """Return why there is no number on this side, or None where there is one."""
        for model, result in zip(self.participant.models, self.results, strict=True):
            if result is None:
                return f"{model.name} has no such tap or variant"
            if getattr(result, of) is None:
                # lines of before the two reasons were told apart have one
                why = (result.calibrated_reason if of == "calibrated" else None) or result.reason
                return f"{model.name}: {why or 'not computed, and no reason was given'}"
        return None

    def numbers(self, of: Of) -> list[float]:
        """Return the number of each model."""
        return [float(getattr(r, of)) for r in self.known]

    def changes(self, of: Of) -> list[Change] | str:
        """Return what leaving each image out changes in the number of each model, or why that is not known."""
        found = []
        for model, result in zip(self.participant.models, self.known, strict=True):
            tables = model.tables(result)
            change = None if tables is None else getattr(tables, of)
            if change is None:
                return f"there are no tables of leave-one-out changes of {model.name} beside {model.source}"
            found.append(change)
        return found

    def estimate(self, of: Of, level: float | None = None, images: bool = False) -> Estimate:
        """Return the number with its interval: as it was measured, for a family over its models at `level`."""
        r = self.first
        if self.participant.family:
            common = _mean_change(of, self) if images else None
            return over_models(self.numbers(of), r.level if level is None else level, images=common)
        low, high = (r.low, r.high) if of == "value" else (r.calibrated_low, r.calibrated_high)
        return Estimate(self.numbers(of)[0], low, high, r.level, r.method, r.unit_count)


@dataclass(frozen=True)
class Difference:
    """a − b for one number of two cells, or the reason why there is none; every float is finite.

    Attributes
    ----------
    a, b : float or None
        The numbers of the two sides, for a family the mean over its models.
    low_a, high_a, low_b, high_b : float or None
        Their own intervals.
    difference, low, high : float or None
        a − b with the two-sided interval at `level`: positive where a is less equivariant than b.
    paired : bool
        Whether the interval is of differences of the same images, or of the same seeds.
    verdict : Equivalence or None
    """

    a: float | None = None
    b: float | None = None
    low_a: float | None = None
    high_a: float | None = None
    low_b: float | None = None
    high_b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    method: str | None = None
    paired: bool = False
    verdict: Equivalence | None = None
    reason: str | None = None


def difference_of(
    of: Of,
    a: Cell,
    b: Cell,
    *,
    level: float | None = None,
    delta: float | None = None,
    problem: str | None = None,
    images: bool = False,
) -> Difference:
    """Return the difference of two cells.

    Parameters
    ----------
    of
        `value` or `calibrated`.
    level
        Of interval and verdict; by default that of the results, 0.95 where they differ.
    delta
        The margin of equivalence; None asks only whether they differ.
    problem
        Why the two are not comparable: then both numbers are given, and no difference.
    images
        Whether the intervals of families carry the uncertainty over images too.

    Raises
    ------
    DataError
        If the two are not of the same images.
    UsageError
        If the image component is asked for and the tables that it is made of are missing.
    """
    levels = {r.level for r in (*a.known, *b.known)}
    wanted = level if level is not None else (levels.pop() if len(levels) == 1 else LEVEL)
    lacking = [c.missing(of) for c in (a, b)]
    nothing = Estimate(0.0, None, None, wanted, "", 0)
    one, other = (c.estimate(of, wanted, images) if lack is None else nothing
                  for c, lack in zip((a, b), lacking, strict=True))  # fmt: skip
    sides = Difference(
        a=None if one is nothing else one.value,
        low_a=one.low,
        high_a=one.high,
        b=None if other is nothing else other.value,
        low_b=other.low,
        high_b=other.high,
        level=wanted,
    )
    if any(lacking):
        return replace(sides, reason="; ".join(dict.fromkeys(reason for reason in lacking if reason)))
    if problem is not None:
        return replace(sides, reason=problem)
    found: Estimate | str
    if _same(of, a, b):
        found, paired = Estimate(0.0, 0.0, 0.0, wanted, SAME, a.first.unit_count), True
    elif a.participant.family or b.participant.family:
        found, paired = _of_families(of, a, b, wanted, images)
    else:
        found, paired = _of_models(of, a, b, wanted)
    if isinstance(found, str):
        return replace(sides, reason=found)
    if not all(math.isfinite(v) for v in (found.value, found.low, found.high) if v is not None):
        return replace(sides, reason="the two are too large to be subtracted")
    return replace(
        sides,
        difference=found.value,
        low=found.low,
        high=found.high,
        method=found.method,
        paired=paired,
        verdict=equivalence(found, delta),
    )


def _same(of: Of, a: Cell, b: Cell) -> bool:
    """Say whether both sides are one measurement: a number against itself is 0 by construction."""
    keys = [r.key for r in a.known]
    return None not in keys and keys == [r.key for r in b.known] and a.numbers(of) == b.numbers(of)


# --- families ---------------------------------------------------------------------------------------------------


def _of_families(of: Of, a: Cell, b: Cell, level: float, images: bool) -> tuple[Estimate, bool]:
    one, other = a.numbers(of), b.numbers(of)
    common = _images_of(of, a, b) if images else None
    if (seeds := _seeds(a.participant.models)) is not None and (theirs := _seeds(b.participant.models)) is not None:
        order = sorted(seeds, key=str)
        if set(seeds) == set(theirs):
            pairs = [one[seeds[s]] for s in order], [other[theirs[s]] for s in order]
            return paired_by_model(*pairs, level, common), True
    return welch(one, other, level, common), False


def _images_of(of: Of, a: Cell, b: Cell) -> Change:
    """Return what leaving each image out changes in the difference of the means over two families' models."""
    means = tuple(_mean_change(of, c) for c in (a, b))
    if (why := _enter_otherwise(*means)) is not None:
        names = f"{a.participant.name!r} and {b.participant.name!r}"
        raise UsageError(f"--image-component: {names} cannot be paired by image: {why}")
    return change_of_difference(*means)


def _mean_change(of: Of, cell: Cell) -> Change:
    changes = cell.changes(of)
    if isinstance(changes, str):
        raise UsageError(f"--image-component: {changes}; compare folders of geed-onnx run, or results with --tables")
    first = changes[0]
    for model, change in zip(cell.participant.models, changes, strict=True):
        if (why := _enter_otherwise(first, change)) is not None:
            first_name = cell.participant.models[0].name
            raise UsageError(f"--image-component: {first_name!r} and {model.name!r} do not share their images: {why}")
    return Change.of(
        math.fsum(c.value for c in changes) / len(changes),
        first.ids,
        np.mean([c.changes for c in changes], axis=0),
        first.block,
        np.mean([c.shared for c in changes], axis=0),
    )


def _seeds(models: Sequence[Model]) -> dict[object, int] | None:
    """Return {seed: place of its model}, or None where seeds are not known or not distinct."""
    seeds = [m.facts.get("seed") for m in models]
    if None in seeds or len(set(map(str, seeds))) < len(seeds):
        return None
    return {str(s): i for i, s in enumerate(seeds)}


# --- models -----------------------------------------------------------------------------------------------------


def _of_models(of: Of, a: Cell, b: Cell, level: float) -> tuple[Estimate | str, bool]:
    """Return the difference and whether it is paired; or why there is none."""
    one, other = a.tables, b.tables
    if one is not None and other is not None and one.deviations.ids != other.deviations.ids:
        raise DataError(
            f"{a.participant.name!r} and {b.participant.name!r} have one fingerprint, but their tables are not of the"
            f" same images ({len(one.deviations)} and {len(other.deviations)}); a table is damaged: measure again"
        )
    clusters = [c.first.data.get("cluster") for c in (a, b)]
    if clusters[0] != clusters[1]:
        said = " and ".join("images" if c is None else f"clusters of {c!r}" for c in clusters)
        return f"their units of uncertainty differ: {said} (--cluster)", False
    changes = tuple(None if t is None else getattr(t, of) for t in (one, other))
    x, y = changes
    if x is not None and y is not None and (why := _enter_otherwise(x, y)) is None:
        (least_a, most_a), (least_b, most_b) = (range_of(c.first, of) for c in (a, b))
        return difference(x, y, level, a.first.unit_count, (least_a - most_b, most_a - least_b)), True
    if x is None or y is None:
        lacking = [c.participant.source for c, change in zip((a, b), changes, strict=True) if change is None]
        why = f"no tables of leave-one-out changes beside {' and '.join(dict.fromkeys(lacking))}"
    return _without_tables(of, a, b, level, why or ""), False


def _enter_otherwise(x: Change, y: Change) -> str | None:
    """Return how the same sample enters the two numbers differently, or None where they can be subtracted."""
    if x.ids != y.ids:
        return "their spreads M were taken over different images (--spread-samples)"
    if not np.array_equal(x.block, y.block):
        return "their references were taken on different images (--reference-samples)"
    return None


def _without_tables(of: Of, a: Cell, b: Cell, level: float, why: str) -> Estimate | str:
    levels = sorted({a.first.level, b.first.level})
    if levels != [level]:
        measured = " and ".join(f"{known:g}" for known in levels)
        return (
            f"no interval at {level:g} can be made: {why}, and the results' own intervals are at {measured}; compare"
            " folders of geed-onnx run, or the models themselves"
        )
    found = unpaired(a.estimate(of), b.estimate(of))
    return replace(found, method=f"{found.method}: {why}" if found.low is not None else found.method)
