"""Which G-EED: the family of variants, one formula for all of them, and the broken orbits of its null."""

from __future__ import annotations

from geed_onnx.variants.family import (
    KINDS,
    PAPER,
    SCORES,
    SUM_TOLERANCE,
    Readings,
    Scores,
    Variant,
    compared,
    deviations,
    kernel_mean,
    largest_value,
    log_probabilities,
    looks_doubtful,
    looks_like_probabilities,
    missed,
    parse_variant,
    range_of,
    readings,
    variants,
)
from geed_onnx.variants.references import Null, anchored_null, broken_null, shifts

__all__ = [
    "KINDS",
    "PAPER",
    "SCORES",
    "SUM_TOLERANCE",
    "Null",
    "Readings",
    "Scores",
    "Variant",
    "anchored_null",
    "broken_null",
    "compared",
    "deviations",
    "kernel_mean",
    "largest_value",
    "log_probabilities",
    "looks_doubtful",
    "looks_like_probabilities",
    "missed",
    "parse_variant",
    "range_of",
    "readings",
    "shifts",
    "variants",
]
