"""The record: a frozen `Result`, one JSON line each, read back exactly as it was written; and files of such lines."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import Any

from geed_onnx.errors import DataError
from geed_onnx.results.writing import whole

SCHEMA = "geed-result/1"
#: What notes begin with that say why a number may not be what it seems; the table shows them.
CAUTION = "caution: "


@dataclass(frozen=True)
class Result:
    """One number and everything needed to reproduce it: one (model, data, group, tap, variant).

    Every float is finite; what could not be computed is None, and `reason` says why.
    """

    model: Mapping[str, Any]
    """path, sha256, producer; from a suite also name, and where they are given family, seed, step"""
    data: Mapping[str, Any]
    """uri, fingerprint (of the images used), samples, preprocessing; from a suite also name"""
    group: Mapping[str, Any]
    """name, order; interpolation, where pixels were resampled otherwise than bilinearly"""
    tap: Mapping[str, Any]
    """name, kind, shape (without the batch, maps as C, H, W), layout in the file, module path, action, kernel"""
    variant: str
    """as `--variant` takes it"""
    value: float | None
    """the G-EED; larger is less equivariant"""
    low: float | None
    """lower end of the interval at `level`"""
    high: float | None
    """upper end"""
    level: float
    method: str
    """how the interval was made"""
    samples: int
    """number of images, which is the unit of uncertainty"""
    optimum: float | None
    """the value of an exactly equivariant model"""
    spread: float | None
    """M of eq. (6), where the variant has one"""
    floor: float | None
    """what resampling alone costs"""
    null: float | None
    """the same statistic on broken orbits: unrelated images"""
    calibrated: float | None
    """(value − floor)/(null − floor): 0 as equivariant as the grid allows, 1 no better than unrelated images"""
    calibrated_low: float | None
    calibrated_high: float | None
    per_element: tuple[float, ...] | None
    """the value for each element of the group alone, the identity first"""
    law_defect: float
    """how far the output action is from an action: 0 unless it resamples"""
    reason: str | None
    """why `value` is None; in lines that lack `calibrated_reason`, why `calibrated` is"""
    seed: int
    runtime: Mapping[str, Any]
    """provider obtained, versions, threads, batch"""
    input_law_defect: float = 0.0
    """the same for the action on the input"""
    floor_method: str = "optimum"
    """`resampling` (from the activations), `passes` (extra forward passes), or `optimum` (not computed)"""
    sensitivity: float | None = None
    """mean distance, above its optimum, between f of one reference image and of the next: 0 for a constant network"""
    zero_channels: float | None = None
    """share of channels that are zero everywhere, for channelwise variants"""
    logits: bool | None = None
    """for probability taps: whether a softmax was applied to the tap"""
    spread_samples: int | None = None
    reference_samples: int = 0
    notes: tuple[str, ...] = ()
    key: str | None = None
    """hash of everything the number depends on; equal keys, equal numbers (None for a model that is no file)"""
    failed: bool = False
    """whether the cell could not be measured at all: `reason` is then the error"""
    parts: Mapping[str, Mapping[str, Any]] | None = None
    """`exact` and `resampled`: the same number over the elements that only permute the input's pixels (the identity
    among them: C4 within C8), and over those that resample it; each with elements, value, low, high, floor, null,
    calibrated, calibrated_low, calibrated_high, reason, calibrated_reason.  Their values' mean, weighted by the numbers
    of elements, is `value`; f̂, M and the images are the same.  None where the input's elements are all of one sort"""
    calibrated_reason: str | None = None
    """why `calibrated` is None: starts with `insensitive:`, `few images:`, `floor above null:` or `not computed:`"""
    floor_per_element: tuple[float, ...] | None = None
    """the floor for each element alone, on the scale of `per_element`; None in lines written before there was one"""
    null_per_element: tuple[float, ...] | None = None
    """the null for each element alone, likewise"""
    units: int | None = None
    """number of clusters, where those are the unit of uncertainty; None: the image is"""
    schema: str = field(default=SCHEMA)

    @property
    def why_uncalibrated(self) -> str | None:
        """Why there is no calibrated value, whichever field holds it; None where there is one, or nobody said."""
        return None if self.calibrated is not None else self.calibrated_reason or self.reason

    @property
    def label(self) -> str:
        """What the model is called: its name in the suite, else its path."""
        return str(self.model.get("name") or self.model.get("path"))

    @property
    def unit_count(self) -> int:
        """Number of what uncertainty is counted by: images, or clusters of them."""
        return self.samples if self.units is None else self.units

    @property
    def interpolation(self) -> str:
        """How pixels were resampled: `nearest`, `bilinear` (what a line says nothing of) or `bicubic`."""
        return str(self.group.get("interpolation") or "bilinear")

    def to_json(self) -> str:
        """Return the line (without its end), strict JSON; floats are written so that they read back exactly."""
        # not asdict, whose deep copies take longer than all else that is done for a small cell
        ordered = {"schema": self.schema, **{n: getattr(self, n) for n in _NAMES if n != "schema"}}
        return json.dumps(ordered, ensure_ascii=False, allow_nan=False)


_NAMES = tuple(f.name for f in fields(Result))
_TUPLES = frozenset({"per_element", "floor_per_element", "null_per_element", "notes"})


def from_json(line: str) -> Result:
    """Return the Result of one line; unknown fields are left out, so that later minor schemas can be read.

    Raises
    ------
    DataError
        If the line is no JSON object of schema `geed-result/1`, or lacks a field.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"expected a line of JSON (a Result), got {line[:60]!r}: {error.msg}") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise DataError(f"expected a result of schema {SCHEMA!r}, got {found!r}")
    known = _NAMES
    try:
        values: dict[str, Any] = {k: tuple(v) if k in _TUPLES and v is not None else v for k, v in record.items()}
        return Result(**{k: v for k, v in values.items() if k in known})
    except TypeError as error:
        raise DataError(f"the result line is incomplete or malformed: {error}") from None


def finite(value: object) -> float | None:
    """Return a number as a plain float; None for what is none, or is NaN or infinite, which JSON has no number for."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def read_results(path: str | os.PathLike[str]) -> Iterator[Result]:
    """Yield the results of a JSON Lines file.

    Raises
    ------
    DataError
        If the file is missing or a line is not a Result; the line's number is named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read results from {os.fspath(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"cannot read results from {os.fspath(path)!r}: expected JSON Lines in UTF-8 text") from None
    # not splitlines(): U+2028, U+0085 and the like may stand unescaped within a JSON string
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield from_json(line)
            except DataError as error:
                raise DataError(f"{os.fspath(path)}, line {number}: {error}") from None


def write_results(path: str | os.PathLike[str], results: Iterable[Result]) -> None:
    """Write JSON Lines whole or not at all.

    Raises
    ------
    UsageError
        If they cannot be written there.
    GeedError
        If writing fails on the way.
    """
    with whole(path, "results") as file:
        for result in results:
            # a path that is no UTF-8 holds lone surrogates: escaped, they are JSON and read back as they were
            file.write((result.to_json() + "\n").encode("utf-8", "backslashreplace"))
