"""One finding: what was claimed, what came out, a number with its interval, a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geed_onnx.estimators import Estimate

Verdict = Literal["reproduced", "reproduced in part", "not reproduced", "answered"]


@dataclass(frozen=True)
class Finding:
    """What the page says of one claim of the paper, or of one question about the method."""

    key: str
    """C1 … C9 of the paper's orderings, R1 … of the questions"""
    title: str
    claim: str
    """what the paper says, or the question"""
    verdict: Verdict
    sentence: str
    number: Estimate
    of: str
    """what the number is"""
    figure: str
    """stem of the file"""
    table: tuple[tuple[str, ...], ...] = ()
    """rows of numbers behind it, the first one the head"""
    check: str = ""
    """where it contradicts the paper: why it is not our mistake"""


def judged(parts: dict[str, bool]) -> Verdict:
    """Return the verdict on a claim of several parts: each word says a part, True where it holds."""
    if all(parts.values()):
        return "reproduced"
    return "reproduced in part" if any(parts.values()) else "not reproduced"


def joined(words: list[str]) -> str:
    """Return `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
