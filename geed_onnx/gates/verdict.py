"""What was judged: each result held against each threshold that is for it, and what came of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from geed_onnx.gates.threshold import Threshold
from geed_onnx.results import Result

VERDICT_SCHEMA = "geed-gate/1"
Outcome = Literal["holds", "crossed", "no value"]


@dataclass(frozen=True)
class Judged:
    """One result held against one threshold.

    Attributes
    ----------
    outcome : {"holds", "crossed", "no value"}
        `no value`: there is no number to judge (a failed cell, an uncalibrated value, no baseline), so nothing shows
        that it holds, and the threshold counts as crossed.
    observed : float or None
        The value that was judged: `value` or `calibrated`.
    low, high : float or None
        Its interval as it was judged.  For a relative threshold it is the interval of (observed − limit), in which the
        baseline's uncertainty is too, moved to the observed value's scale.  Without an interval (one image) both are
        the observed value.
    limit : float or None
        What it may be at most, on the observed value's scale; `crossed` where `low` lies above it.
    message : str
        One sentence: which variant of which tap, what it is, what it may be.
    baseline : Result or None
        What a relative threshold was held against.
    paired : bool or None
        For a relative threshold: whether it was compared with the baseline image by image.
    reason : str or None
        Why there is nothing to judge.
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

    @property
    def crossed(self) -> bool:
        """Whether the gate is closed to it."""
        return self.outcome != "holds"

    @property
    def sure(self) -> bool:
        """Whether the whole interval lies on one side of the limit."""
        if self.limit is None or self.low is None or self.high is None:
            return False
        return self.low > self.limit or self.high <= self.limit

    @property
    def excess(self) -> float:
        """How far the judged end lies above the limit (below: negative), on the calibrated scale where there is one.

        Orders results of unlike variants, the worst largest; infinite where there is no value.
        """
        if self.low is None or self.limit is None:
            return math.inf
        excess = self.low - self.limit
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
            "threshold": {
                "text": t.text,
                "above": None if t.relative else finite(t.limit),
                "worse_by": t.limit if t.relative else None,
                **{k: getattr(t, k) for k in ("tap", "model", "group", "data")},
            },
            "baseline": None if b is None else {"model": b.label, "value": finite(b.value), "key": b.key},
            "paired": self.paired,
            "failed": r.failed,
            "reason": self.reason,
            "message": self.message,
        }
        # a path that is no UTF-8 holds lone surrogates, which only their escapes can write
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace").decode()


def finite(value: object) -> float | None:
    """Return a number as a float; None for what is none, or is NaN or infinite in a file that others wrote."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


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
        """What crossed its threshold, or has no value to show that it holds; empty: the gate is open."""
        return tuple(j for j in self.judged if j.crossed)

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """The thresholds, each once, in their order."""
        return tuple(dict.fromkeys(j.threshold for j in self.judged))

    @property
    def worst_first(self) -> tuple[Judged, ...]:
        """What was judged: without a value first, then by how far it lies above its limit."""
        return tuple(sorted(self.judged, key=lambda j: (not j.crossed, -j.excess)))
