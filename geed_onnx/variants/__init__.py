"""Which G-EED: the family of variants, one formula for all of them, and the broken orbits of its null."""

from __future__ import annotations

from geed_onnx.variants.aligned import LinedUp, Readings, aligned_readings, line_up, lined_up
from geed_onnx.variants.family import (
    KINDS,
    PAPER,
    SCORES,
    SUM_TOLERANCE,
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
from geed_onnx.variants.references import Null, anchored_null, broken_null, broken_nulls, shifts

__all__ = [
    "KINDS",
    "PAPER",
    "SCORES",
    "SUM_TOLERANCE",
    "LinedUp",
    "Null",
    "Readings",
    "Scores",
    "Variant",
    "aligned_readings",
    "anchored_null",
    "broken_null",
    "broken_nulls",
    "compared",
    "deviations",
    "kernel_mean",
    "largest_value",
    "line_up",
    "lined_up",
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
