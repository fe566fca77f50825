"""Results held against thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from geed_onnx.errors import UsageError, suggestion
from geed_onnx.gates.baseline import excess, find, refuse_moving_optimum, resolution
from geed_onnx.gates.threshold import FIELDS, Threshold, names_of
from geed_onnx.gates.verdict import Judged, Outcome, Verdict, finite
from geed_onnx.results import Collection, Result


def judge(
    results: Iterable[Result],
    thresholds: Iterable[Threshold],
    *,
    baseline: Collection | None = None,
    current: Collection | None = None,
) -> Verdict:
    """Hold results against thresholds; every (threshold, result) that go together are judged.

    A threshold is crossed where the lower end of the interval lies above the limit, so that noise does not flip a
    release; and where there is no value, because nothing shows that it holds.

    Parameters
    ----------
    results, thresholds
    baseline
        What relative thresholds are held against: with d the deviation above the optimum, a result crosses where the
        lower end of d_new − (1 + limit) d_base is above 0 by more than float32 rounding makes of its distance.  Raw
        values of a variant whose optimum moves with M (`latent-cosine`: −1/M) are refused.
    current
        The results with their tables, so that they are compared with the baseline's image by image.

    Raises
    ------
    UsageError
        If a threshold is for none of the results, is relative without a baseline, or on raw values that have no
        common scale.
    """
    rows, limits = list(results), list(dict.fromkeys(thresholds))
    _check(rows, limits, baseline)
    judged = [_judged(r, t, baseline, current) for t in limits for r in rows if t.applies_to(r)]
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


def _judged(result: Result, threshold: Threshold, baseline: Collection | None, current: Collection | None) -> Judged:
    if result.failed:
        # its tap may be called *, which stands for all
        of = "" if result.tap["name"] == "*" else f" of {result.tap['name']}"
        return _nothing(result, threshold, f"{_subject(threshold)}{of} was not measured", str(result.reason))
    value = finite(getattr(result, threshold.on))
    if value is None:
        reason = result.reason or "it is no finite number in the file"
        return _nothing(
            result, threshold, f"{_what(result, threshold)} has no value to hold against {_to(threshold)}", reason
        )
    if threshold.relative:
        assert baseline is not None  # _check has seen to it
        return _relative(result, threshold, value, baseline, current)
    prefix = "calibrated_" if threshold.on == "calibrated" else ""
    low, high = (finite(getattr(result, f"{prefix}{end}")) for end in ("low", "high"))
    low, high = value if low is None else low, value if high is None else high
    outcome, said = _said(result, threshold, (low, value, high), threshold.limit)
    return Judged(result, threshold, outcome, value, low, high, threshold.limit, said)


def _said(
    result: Result, threshold: Threshold, ends: tuple[float, float, float], limit: float, slack: float = 0.0
) -> tuple[Outcome, str]:
    """Return the outcome of (low, value, high) held against a limit, and the sentence that says so."""
    low, value, high = ends
    digits = ".6g" if threshold.relative else "g"
    what = f"{_what(result, threshold)} is {value:.6g}"
    if low - limit > slack:
        return "crossed", f"{what} (at least {low:.6g}), above {limit:{digits}}"
    if high <= limit:
        return "holds", f"{what}, within {limit:{digits}}"
    return "holds", f"{what} [{low:.6g}, {high:.6g}], not shown to be above {limit:{digits}}"


def _relative(
    result: Result, threshold: Threshold, value: float, baseline: Collection, current: Collection | None
) -> Judged:
    found = find(result, baseline)
    nothing = f"{_what(result, threshold)} is held against nothing"
    if found.result is None:
        return _nothing(result, threshold, nothing, str(found.reason))
    tables = (None if current is None else current.tables(result)), baseline.tables(found.result)
    worse = excess(threshold, result, found.result, tables)
    if isinstance(worse, str):
        return _nothing(result, threshold, nothing, worse, found.result)
    before = getattr(found.result, threshold.on)
    ends = (worse.limit + worse.low, value, worse.limit + worse.high)
    outcome, said = _said(result, threshold, ends, worse.limit, resolution(threshold, result))
    how = "paired" if worse.paired else "intervals taken as independent, for want of tables on both sides"
    said += f", which is {_to(threshold)} worse than the baseline's {before:.6g} ({how})"
    low, _, high = ends
    return Judged(result, threshold, outcome, value, low, high, worse.limit, said, found.result, worse.paired)


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
