"""Do the numbers look like what the network was made for? Warnings in words, never an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from geed_onnx.sources.declared import METADATA, declared_input
from geed_onnx.sources.preprocessing import Preprocessing
from geed_onnx.sources.source import Array


def plausible(x: Array, p: Preprocessing | None, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return warnings about a few model inputs `(B, …)`, as the model finally gets them; none where they look right.

    They are held against what `metadata["geed.input"]` declares, else against `p`, unless that was assumed; `p` is
    None for arrays used as they are.

    Raises
    ------
    DataError
        If `geed.input` cannot be read.
    """
    if x.size == 0:
        return ()
    flat = x.reshape(len(x), -1).astype(np.float64)
    if not np.isfinite(flat).all():
        return ("the model is given NaN or Inf",)
    warnings = []
    constant = int((flat.max(axis=1) == flat.min(axis=1)).sum())
    if constant and flat.shape[1] > 1:
        warnings.append(f"{constant} of {len(x)} images are constant: nothing in them can be turned or moved")
    if constant == len(x):
        return tuple(warnings)
    declared = _declared(p, metadata)
    return (*warnings, *(_undeclared(flat, x.dtype) if declared is None else _against(flat, *declared)))


def _declared(p: Preprocessing | None, metadata: Mapping[str, str]) -> tuple[float, float, str] | None:
    """Return (lowest, highest, who says so) of the values the network expects."""
    stated = declared_input(metadata)
    if "range" in stated or "mean" in stated:
        low, high = stated.get("range", (0.0, 1.0))
        mean, std, origin = stated.get("mean", (0.0,)), stated.get("std", (1.0,)), METADATA
    elif p is not None and any(word in p.origin for word in ("flags", "metadata", "config")):
        (low, high), mean, std, origin = p.range, p.mean, p.std, p.origin
    else:
        return None
    ends = (np.array([[low], [high]]) - np.array(mean)) / np.array(std)
    return float(ends.min()), float(ends.max()), origin


def _against(flat: Array, low: float, high: float, origin: str) -> list[str]:
    least, most, width = float(flat.min()), float(flat.max()), high - low
    given, wanted = f"{least:g}..{most:g}", f"{low:.4g}..{high:.4g}"
    if least < low - width / 2 or most > high + width / 2:
        hint = "; these look like raw pixels: divide by 255 and normalise" if _raw(flat) else ""
        return [f"values {given} are given to a model declared for {wanted} ({origin}){hint}"]
    if width > 50 and least >= 0 and most <= 1:
        return [f"values {given} are given to a model declared for {wanted} ({origin}); multiply by {high:g}"]
    if most - least < width / 50:
        return [f"values {given} are given to a model declared for {wanted} ({origin}): hardly any contrast"]
    # a set of normalised images reaches below its mean somewhere
    if low < -0.5 and least >= 0 and most <= 1 < high:
        return [
            f"values {given}, none negative, are given to a model declared for {wanted} ({origin}): not normalised?"
        ]
    return []


def _undeclared(flat: Array, dtype: np.dtype[Any]) -> list[str]:
    if dtype.kind in "iu":
        return []  # an integer input asks for integers
    if _raw(flat):
        return [
            f"values {flat.min():g}..{flat.max():g}, all whole, look like raw pixels; most networks expect 0..1 or "
            "normalised input; if that is right, ignore this, else give --range 0,1"
        ]
    if np.abs(flat).max() > 255:
        return [
            f"values {flat.min():g}..{flat.max():g} are unusually large; most networks expect 0..1 or normalised input"
        ]
    return []


def _raw(flat: Array) -> bool:
    return bool(1 < flat.max() <= 255 and flat.min() >= 0 and (flat == np.rint(flat)).all())
