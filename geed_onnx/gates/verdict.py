"""What was judged: each result held against each threshold that is for it, and what came of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from geed_onnx.gates.threshold import Threshold
from geed_onnx.results import Result, finite

VERDICT_SCHEMA = "geed-gate/1"
Outcome = Literal["holds", "crossed", "undecided", "no value"]


@dataclass(frozen=True)
class Judged:
    """One result held against one threshold.

    Attributes
    ----------
    outcome : {"holds", "crossed", "undecided", "no value"}
        `holds` where the whole interval is within the limit, `crossed` where all of it is beyond, `undecided` where the
        limit lies in it or an end is not known.  `no value`: there is no number to judge (a failed cell, an
        uncalibrated value, no baseline), so nothing shows that it holds.
    observed : float or None
        The value that was judged: `value` or `calibrated`.
    low, high : float or None
        Its interval as it was judged; None where an end is not known (one image, for one).  For a relative threshold it
        is the interval of (observed − limit), in which the baseline's uncertainty is too, moved to the observed value's
        scale.
    limit : float or None
        What it may be at most (`below`: at least), on the observed value's scale.
    message : str
        One sentence: which variant of which tap, what it is, what it may be.
    baseline : Result or None
        What a relative threshold was held against.
    paired : bool or None
        For a relative threshold: whether it was compared with the baseline image by image.
    reason : str or None
        Why there is nothing to judge.
    level : float or None
        Of the end that says whether it crosses (`low`, or `high` for a limit from below): the result's own, or with
        Holm's correction the one that this cell was judged at among `family` cells.
    family : int or None
        How many cells share the chance of crossing; None where each has its own.
    """

    result: Result
    threshold: Threshold
    outcome: Outcome
    observed: float | None
    low: float | None
    high: float | None
    limit: float | None
    message: str
    baseline: Result | None = None
    paired: bool | None = None
    reason: str | None = None
    level: float | None = None
    family: int | None = None

    @property
    def crossed(self) -> bool:
        """Whether the gate is closed to it: crossed or without a value, and undecided where it must be proven."""
        return self.outcome in ("crossed", "no value") or (self.outcome == "undecided" and self.threshold.prove)

    @property
    def end(self) -> float | None:
        """The end of the interval that says whether it crosses: the lower one, of a limit from below the upper one."""
        return self.high if self.threshold.below else self.low

    @property
    def sure(self) -> bool:
        """Whether the whole interval lies on one side of the limit."""
        if self.limit is None or self.low is None or self.high is None:
            return False
        if self.threshold.below:
            return self.low >= self.limit or self.high < self.limit
        return self.low > self.limit or self.high <= self.limit

    @property
    def excess(self) -> float:
        """How far the judged end lies beyond the limit (within: negative), on the calibrated scale where there is one.

        Orders results of unlike variants, the worst largest; infinite where there is no value.  The value itself stands
        in for an end that is not known.
        """
        end = self.observed if self.end is None else self.end
        if self.outcome == "no value" or end is None or self.limit is None:
            return math.inf
        excess = self.limit - end if self.threshold.below else end - self.limit
        floor, null = self.result.floor, self.result.null
        if self.threshold.on == "value" and floor is not None and null is not None and null != floor:
            return excess / abs(null - floor)
        return excess

    def to_json(self) -> str:
        """Return one line of strict JSON, of schema `geed-gate/1`."""
        r, t, b = self.result, self.threshold, self.baseline
        record: dict[str, Any] = {
            "schema": VERDICT_SCHEMA,
            "outcome": self.outcome,
            "crossed": self.crossed,
            "sure": self.sure,
            "model": {k: r.model.get(k) for k in ("name", "path", "sha256")},
            "data": {k: r.data.get(k) for k in ("uri", "fingerprint", "samples")},
            "group": r.group["name"],
            "tap": r.tap["name"],
            "variant": r.variant,
            "on": t.on,
            "observed": finite(self.observed),
            "low": finite(self.low),
            "high": finite(self.high),
            "limit": finite(self.limit),
            "level": r.level,
            "judged_level": self.level,
            "family": self.family,
            "threshold": {
                "text": t.text,
                "above": None if t.relative or t.below else finite(t.limit),
                "below": finite(t.limit) if t.below else None,
                "worse_by": t.limit if t.relative else None,
                **{k: getattr(t, k) for k in ("tap", "model", "group", "data", "prove", "family_wise")},
            },
            "baseline": None if b is None else {"model": b.label, "value": finite(b.value), "key": b.key},
            "paired": self.paired,
            "failed": r.failed,
            "reason": self.reason,
            "message": self.message,
        }
        # a path that is no UTF-8 holds lone surrogates, which only their escapes can write
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Verdict:
    """Everything that was judged, threshold by threshold, in the order of the results.

    Attributes
    ----------
    judged : tuple[Judged, ...]
    failed : tuple[Result, ...]
        Cells that could not be measured, and that no threshold was for.
    baseline : str or None
        Where the baseline's results are.
    """

    judged: tuple[Judged, ...]
    failed: tuple[Result, ...] = ()
    baseline: str | None = None

    @property
    def crossed(self) -> tuple[Judged, ...]:
        """What the gate is closed to; empty: it is open."""
        return tuple(j for j in self.judged if j.crossed)

    @property
    def undecided(self) -> tuple[Judged, ...]:
        """What neither holds nor crosses, whether or not that closes the gate."""
        return tuple(j for j in self.judged if j.outcome == "undecided")

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """The thresholds, each once, in their order."""
        return tuple(dict.fromkeys(j.threshold for j in self.judged))

    @property
    def worst_first(self) -> tuple[Judged, ...]:
        """What was judged: what the gate is closed to first, then undecided; by how far it lies beyond its limit."""
        return tuple(sorted(self.judged, key=lambda j: (not j.crossed, j.outcome == "holds", -j.excess)))
