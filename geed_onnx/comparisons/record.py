"""One line of a comparison: two cells, their difference, the verdict."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from geed_onnx.comparisons.comparable import optimum_moves
from geed_onnx.comparisons.differences import Difference, Of
from geed_onnx.comparisons.participants import Participant
from geed_onnx.results import write_text

SCHEMA = "geed-comparison/1"
#: What of a tap stands in a line.
OF_TAP = ("name", "kind", "shape", "module", "action")


@dataclass(frozen=True)
class Comparison:
    """One tap and variant of two participants, on the same images."""

    a: Participant
    b: Participant
    tap_a: Mapping[str, Any]
    tap_b: Mapping[str, Any]
    aligned_by: str | None
    """`name`, `module` or `depth`: what brought the two taps together; None where one side failed"""
    variant: str
    data: Mapping[str, Any]
    """uri, fingerprint, samples"""
    seed: int
    group_a: Mapping[str, Any]
    group_b: Mapping[str, Any]
    samples: int
    """number of images"""
    wanted: Of
    """which number was asked for"""
    on: Of
    """which number the verdict is of: `calibrated` in place of a raw value that cannot be compared"""
    value: Difference
    calibrated: Difference
    within: float | None = None
    """δ"""

    @property
    def judged(self) -> Difference:
        """The difference that `on` names."""
        return self.value if self.on == "value" else self.calibrated

    @property
    def verdict(self) -> str | None:
        """`equivalent`, `different`, `different but equivalent`, `undecided`; None without a difference."""
        return None if self.judged.verdict is None else self.judged.verdict.word

    @property
    def holds(self) -> bool | None:
        """Whether the two were shown equivalent in what was asked for.

        None without a δ, and where no δ can be meant: raw values whose optimum moves with M have no common scale.
        """
        if self.within is None or (self.on != self.wanted and optimum_moves(self.variant)):
            return None
        # a row that gave way to calibrated values was not held against δ: its `equivalent` is None
        found = self.judged.verdict
        return found is not None and bool(found.equivalent)

    @property
    def reason(self) -> str | None:
        """Why there is no difference, or why it is the calibrated one."""
        said = [self.value.reason if self.on != self.wanted else None, self.judged.reason]
        return "; ".join(dict.fromkeys(r for r in said if r)) or None

    def to_json(self) -> str:
        """Return the line (without its end), strict JSON."""
        verdict = self.judged.verdict
        line: dict[str, Any] = {
            "schema": SCHEMA,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "tap_a": {k: self.tap_a[k] for k in OF_TAP if k in self.tap_a},
            "tap_b": {k: self.tap_b[k] for k in OF_TAP if k in self.tap_b},
            "aligned_by": self.aligned_by,
            "variant": self.variant,
            "data": dict(self.data),
            "seed": self.seed,
            "group": dict(self.group_a),
            "group_b": dict(self.group_b),
            "samples": self.samples,
            "models_a": len(self.a.models),
            "models_b": len(self.b.models),
            "on": self.on,
            "within": self.within,
            "verdict": self.verdict,
            "different": None if verdict is None else verdict.different,
            "equivalent": self.holds,
            **_fields(self.value, "value", ""),
            **_fields(self.calibrated, "calibrated", "calibrated_"),
        }
        return json.dumps(line, ensure_ascii=False, allow_nan=False)


def _fields(d: Difference, name: str, prefix: str) -> dict[str, Any]:
    """Return a difference's fields: `value_a`, …, `difference`, …, or `calibrated_a`, …, `calibrated_difference`, …."""
    return {
        f"{name}_a": d.a,
        f"{name}_a_low": d.low_a,
        f"{name}_a_high": d.high_a,
        f"{name}_b": d.b,
        f"{name}_b_low": d.low_b,
        f"{name}_b_high": d.high_b,
        f"{prefix}difference": d.difference,
        f"{prefix}low": d.low,
        f"{prefix}high": d.high,
        f"{prefix}level": d.level,
        f"{prefix}method": d.method,
        f"{prefix}paired": d.paired,
        f"{prefix}reason": d.reason,
    }


def write_comparisons(path: str | os.PathLike[str], rows: Iterable[Comparison]) -> None:
    """Write JSON Lines whole or not at all: beside its place first, then renamed into it.

    Raises
    ------
    UsageError
        If it cannot be written there.
    """
    write_text(path, "".join(row.to_json() + "\n" for row in rows), "comparisons")
