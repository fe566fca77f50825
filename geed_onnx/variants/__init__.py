"""Which G-EED: the family of variants, one formula for all of them, and the broken orbits of its null."""

from __future__ import annotations

from geed_onnx.variants.family import (
    KINDS,
    PAPER,
    Readings,
    Variant,
    as_probabilities,
    compared,
    deviations,
    kernel_mean,
    largest_value,
    looks_like_probabilities,
    parse_variant,
    readings,
    variants,
)
from geed_onnx.variants.references import Null, anchored_null, broken_null, shifts

__all__ = [
    "KINDS",
    "PAPER",
    "Null",
    "Readings",
    "Variant",
    "anchored_null",
    "as_probabilities",
    "broken_null",
    "compared",
    "deviations",
    "kernel_mean",
    "largest_value",
    "looks_like_probabilities",
    "parse_variant",
    "readings",
    "shifts",
    "variants",
]
