"""Results held against thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from geed_onnx.errors import UsageError, suggestion
from geed_onnx.gates.baseline import Ends, ends_at, excess, find, refuse_moving_optimum, resolution
from geed_onnx.gates.threshold import FIELDS, Threshold, names_of
from geed_onnx.gates.verdict import Judged, Outcome, Verdict
from geed_onnx.results import CellTables, Collection, Result, finite


class HasTables(Protocol):
    """What knows the tables that results are made of: a folder of results, or a model that was measured now."""

    def tables(self, result: Result, /) -> CellTables | None:
        """Return what a result is made of, or None."""
        ...


def judge(
    results: Iterable[Result],
    thresholds: Iterable[Threshold],
    *,
    baseline: Collection | None = None,
    current: HasTables | None = None,
) -> Verdict:
    """Hold results against thresholds; every (threshold, result) that go together are judged.

    A threshold is crossed where the whole interval lies beyond the limit, so that noise does not flip a release; and
    where there is no value, because nothing shows that it holds.  It holds where the whole interval is within the
    limit, and is undecided between, which closes the gate where it must be proven.

    Parameters
    ----------
    results, thresholds
    baseline
        What relative thresholds are held against: with d the deviation above the optimum, a result crosses where the
        lower end of d_new − (1 + limit) d_base is above 0 by more than float32 rounding makes of its distance.  Raw
        values of a variant whose optimum moves with M (`latent-cosine`: −1/M) are refused.
    current
        The results with their tables, so that they are compared with the baseline's image by image, and intervals of
        other levels are made anew.

    Raises
    ------
    UsageError
        If a threshold is for none of the results, is relative without a baseline, or on raw values that have no
        common scale.
    """
    rows, limits = list(results), list(dict.fromkeys(thresholds))
    _check(rows, limits, baseline)
    judged: list[Judged] = []
    for t in limits:
        cells = [_held(r, t, baseline, current) for r in rows if t.applies_to(r)]
        held = [c for c in cells if isinstance(c, _Held)]
        level = dict(zip(map(id, held), _levels(held), strict=True))
        family = len(held) if t.family_wise else None
        judged += [c if isinstance(c, Judged) else c.judged(level[id(c)], family) for c in cells]
    failed = [r for r in rows if r.failed and not any(t.applies_to(r) for t in limits)]
    return Verdict(tuple(judged), tuple(failed), baseline.uri if baseline is not None else None)


def _check(rows: Sequence[Result], limits: Sequence[Threshold], baseline: Collection | None) -> None:
    for threshold in limits:
        if threshold.relative and baseline is None:
            raise UsageError(
                f"threshold {threshold.text} is relative to a baseline, and none is given; name its folder or file"
                " with --baseline"
            )
        refuse_moving_optimum(threshold)
    faults = [fault for t in limits if (fault := _unmatched(t, rows)) is not None]
    if faults:
        raise UsageError("; ".join(faults))


def _unmatched(threshold: Threshold, rows: Sequence[Result]) -> str | None:
    """Say what keeps a threshold from every result, or return None where it is for some."""
    if not rows:
        return f"threshold {threshold.text}: there are no results"
    left = list(rows)
    for i, field in enumerate(FIELDS):
        kept = [r for r in left if threshold.misses(r) not in FIELDS[: i + 1]]
        if not kept:
            wanted = getattr(threshold, field)
            known = {n for r in left for n in names_of(r, field)}
            return (
                f"threshold {threshold.text} is for none of the results: {field} {wanted!r} is not among them"
                f"{suggestion(wanted, known)}"
            )
        left = kept
    return None


@dataclass(frozen=True)
class _Held:
    """A number ready to be held against its limit at any level."""

    result: Result
    threshold: Threshold
    value: float
    limit: float
    at: Callable[[float], Ends]
    """level -> ends on the value's scale"""
    slack: float = 0.0
    """what of a difference is rounding"""
    aside: str = ""
    baseline: Result | None = None
    paired: bool | None = None

    def crosses(self, level: float) -> bool:
        """Say whether the interval at this level lies beyond the limit.

        One image has no interval, and is judged by its value: it may cross, and never holds.
        """
        ends = self.at(level)
        end = ends.high if self.threshold.below else ends.low
        if end is None and self.result.unit_count < 2:
            end = self.value
        if end is None:
            return False
        return (self.limit - end if self.threshold.below else end - self.limit) > self.slack

    def judged(self, level: float, family: int | None) -> Judged:
        """Return what comes of it where crossing is judged at `level`, being within at the result's own."""
        crossing, own = self.at(level), self.at(self.result.level)
        low, high = (own.low, crossing.high) if self.threshold.below else (crossing.low, own.high)
        far = low if self.threshold.below else high
        outcome: Outcome = "undecided"
        if self.crosses(level):
            outcome = "crossed"
        elif far is not None and (self.limit - far if self.threshold.below else far - self.limit) <= self.slack:
            outcome = "holds"
        said = self._said(outcome, low, high) + self.aside
        if family is not None and family > 1:
            how = ", from the printed interval by Student's t" if crossing.rescaled else ""
            said += f"; judged at {100 * level:.6g} % among {family} cells (Holm{how})"
        return Judged(
            self.result, self.threshold, outcome, self.value, low, high, self.limit, said, self.baseline, self.paired,
            level=level, family=family,
        )  # fmt: skip

    def _said(self, outcome: Outcome, low: float | None, high: float | None) -> str:
        """Return the sentence that says what came of it."""
        t = self.threshold
        limit = f"{self.limit:{'.6g' if t.relative else 'g'}}"
        what = f"{_what(self.result, t)} is {self.value:.6g}"
        within, beyond = ("at least", "below") if t.below else ("within", "above")
        if outcome == "crossed":
            end = high if t.below else low
            known = "one image" if end is None else f"at {'most' if t.below else 'least'} {end:.6g}"
            return f"{what} ({known}), {beyond} {limit}"
        if outcome == "holds":
            return f"{what}, {within} {limit}"
        ends = ", ".join("unknown" if end is None else f"{end:.6g}" for end in (low, high))
        return f"{what} [{ends}], not shown to be {within if t.prove else beyond} {limit}"


def _held(
    result: Result, threshold: Threshold, baseline: Collection | None, current: HasTables | None
) -> _Held | Judged:
    """Return the number that a threshold is held against, or what is said where there is none."""
    on = threshold.on
    if result.failed:
        # its tap may be called *, which stands for all
        of = "" if result.tap["name"] == "*" else f" of {result.tap['name']}"
        return _nothing(result, threshold, f"{_subject(threshold)}{of} was not measured", str(result.reason))
    value = finite(getattr(result, on))
    prefix = "calibrated_" if on == "calibrated" else ""
    ends = [getattr(result, f"{prefix}{end}") for end in ("low", "high")]
    if value is None or any(end is not None and finite(end) is None for end in ends):
        reason = (result.calibrated_reason if on == "calibrated" else None) or result.reason
        if value is not None:
            reason = "its interval is no finite number in the file"
        return _nothing(
            result,
            threshold,
            f"{_what(result, threshold)} has no value to hold against {_to(threshold)}",
            reason or "it is no finite number in the file",
        )
    tables = None if current is None else current.tables(result)
    if threshold.relative:
        assert baseline is not None  # _check has seen to it
        return _relative(result, threshold, value, baseline, tables)
    return _Held(result, threshold, value, threshold.limit, lambda level: ends_at(result, on, level, tables))


def _relative(
    result: Result, threshold: Threshold, value: float, baseline: Collection, tables: CellTables | None
) -> _Held | Judged:
    found = find(result, baseline)
    nothing = f"{_what(result, threshold)} is held against nothing"
    if found.result is None:
        return _nothing(result, threshold, nothing, str(found.reason))
    base, both = found.result, (tables, baseline.tables(found.result))
    worse = excess(threshold, result, base, both, result.level)
    if isinstance(worse, str):
        return _nothing(result, threshold, nothing, worse, base)

    def at(level: float) -> Ends:
        e = excess(threshold, result, base, both, level)
        assert not isinstance(e, str)  # the level has no part in whether there is a number
        low, high = (None if end is None else e.limit + end for end in (e.low, e.high))
        return Ends(low, high, e.rescaled)

    how = "paired" if worse.paired else "intervals taken as independent, for want of tables on both sides"
    before = getattr(base, threshold.on)
    aside = f", which is {_to(threshold)} worse than the baseline's {before:.6g} ({how})"
    slack = resolution(threshold, result)
    return _Held(result, threshold, value, worse.limit, at, slack, aside, base, worse.paired)


def _levels(held: Sequence[_Held]) -> list[float]:
    """Return the level that each of a threshold's numbers is judged at.

    With `family_wise` that is Holm's (1979) step-down procedure: with m numbers left each is held at one m-th of the
    chance of crossing; those that cross are set aside, and the rest have one in fewer.  So the chance that any number
    at its limit crosses is at most that of one, (1 − level)/2, however the numbers depend on one another.
    """
    levels = [h.result.level for h in held]
    left = [i for i, h in enumerate(held) if h.threshold.family_wise]
    while left:
        for i in left:
            levels[i] = 1 - (1 - held[i].result.level) / len(left)
        still = [i for i in left if not held[i].crosses(levels[i])]
        if len(still) == len(left):
            break
        left = still
    return levels


def _nothing(result: Result, threshold: Threshold, message: str, reason: str, baseline: Result | None = None) -> Judged:
    observed = None if result.failed else finite(getattr(result, threshold.on))
    limit = None if threshold.relative else threshold.limit
    said = f"{message}: {reason}"
    return Judged(
        result, threshold, "no value", observed, None, None, limit, said, baseline, paired=None, reason=reason
    )


def _subject(threshold: Threshold) -> str:
    return f"calibrated {threshold.variant}" if threshold.on == "calibrated" else threshold.variant


def _what(result: Result, threshold: Threshold) -> str:
    return f"{_subject(threshold)} of {result.tap['name']}"


def _to(threshold: Threshold) -> str:
    return f"{100 * threshold.limit:g} %" if threshold.relative else f"{threshold.limit:g}"
