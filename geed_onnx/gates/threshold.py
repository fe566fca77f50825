"""One threshold: which results it is for, and what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from geed_onnx.results import Result


@dataclass(frozen=True)
class Threshold:
    """A limit for the results of one variant, of all taps, models, groups and data sets that its globs match.

    Attributes
    ----------
    variant : str
        As `--variant` takes it.
    limit : float
        What the value may be at most; with `relative`, by which part of the baseline's deviation above the optimum it
        may be worse (0.02: 2 %).
    on : {"value", "calibrated"}
    relative : bool
        Whether `limit` is relative to the baseline.
    tap, model, group, data : str
        Globs, of the tap's name or module path, the model's name, the group's name, the data's address.
    """

    variant: str
    limit: float
    on: Literal["value", "calibrated"] = "value"
    relative: bool = False
    tap: str = "*"
    model: str = "*"
    group: str = "*"
    data: str = "*"

    def applies_to(self, result: Result) -> bool:
        """Say whether a result is held against this threshold."""
        taps = [str(result.tap["name"]), str(result.tap.get("module") or result.tap["name"])]
        return (
            result.variant == self.variant
            and any(fnmatchcase(name, self.tap) for name in taps)
            and fnmatchcase(result.label, self.model)
            and fnmatchcase(str(result.group["name"]), self.group)
            and fnmatchcase(str(result.data["uri"]), self.data)
        )
