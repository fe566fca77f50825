"""Families of models: the mean over seeds, with Student's t over the models.

All models of a family saw the same images, so that the interval is over models alone and says nothing of other images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from geed_onnx.estimators import over_models
from geed_onnx.reports.page.elements import Profile, calibrated_by_element, mean_by_element
from geed_onnx.results import Result, finite


@dataclass(frozen=True)
class Mean:
    """The mean of one number over the models of a family; the fields are a Result's."""

    models: int
    """how many models have the number"""
    of: int
    """how many were measured"""
    level: float
    value: float | None
    low: float | None
    high: float | None
    optimum: float | None
    floor: float | None
    null: float | None
    calibrated: float | None
    calibrated_low: float | None
    calibrated_high: float | None
    per_element: Profile | None
    floor_per_element: Profile | None
    null_per_element: Profile | None
    calibrated_by_element: Profile | None
    reason: str | None
    why_uncalibrated: str | None
    failed: bool = False


def mean_of(results: Sequence[Result]) -> Mean:
    """Return the mean of the same cell of several models, each level over the models that have it."""
    level = results[0].level
    value, low, high = mean_interval([r.value for r in results], level)
    calibrated, calibrated_low, calibrated_high = mean_interval([r.calibrated for r in results], level)
    have = [r for r in results if r.value is not None]
    return Mean(
        len(have), len(results), level, value, low, high,
        mean_over([r.optimum for r in have]), mean_over([r.floor for r in have]), mean_over([r.null for r in have]),
        calibrated, calibrated_low, calibrated_high,
        mean_by_element([r.per_element for r in have]),
        mean_by_element([r.floor_per_element for r in have]),
        mean_by_element([r.null_per_element for r in have]),
        mean_by_element([calibrated_by_element(r) for r in have]),
        _missing(r.reason for r in results) if value is None else None,
        _missing(r.why_uncalibrated for r in results) if calibrated is None else None,
    )  # fmt: skip


def _missing(reasons: Iterable[str | None]) -> str:
    return f"no model of the family has it; the first says: {next(iter(reasons))}"


def mean_interval(values: Sequence[float | None], level: float) -> tuple[float | None, float | None, float | None]:
    """Return mean, low, high over the models that have a value; no interval for fewer than two of them."""
    some = [v for v in values if v is not None]
    if not some:
        return None, None, None
    found = over_models(some, level)
    return found.value, found.low, found.high


def mean_over(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are there, None where none is."""
    some = [v for v in values if v is not None]
    return finite(float(np.mean(some))) if some else None
