"""The exported file and the framework, side by side on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geed_exporters.errors import Differs
from geed_exporters.export import Array, Export

TOLERANCE = 1e-4
BATCHES = (1, 3)


@dataclass(frozen=True)
class Agreement:
    """How far the file is from the framework: the worst tap and its relative difference, over all batches."""

    tap: str
    difference: float
    batches: tuple[int, ...]


def verify(path: Path, export: Export, *, tolerance: float = TOLERANCE) -> Agreement:
    """Run file and framework on the same inputs, in batches of 1 and 3, and return the worst tap.

    The difference of a tap is max|file − framework| / max|framework|.

    Raises
    ------
    Differs
        If a tap differs by more than `tolerance`, has another shape, or holds NaN on one side only.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [tap.name for tap in export.taps]
    worst = Agreement(names[0], 0.0, BATCHES)
    for batch in BATCHES:
        x = export.inputs(batch)
        theirs = dict(export.reference(x))
        try:
            ours = dict(zip(names, session.run(names, {export.input.name: x}), strict=True))
        except Exception as error:  # ONNX Runtime raises classes of its own, without a common one
            raise Differs(
                f"the exported file does not run in ONNX Runtime with a batch of {batch} ({error}); no file was"
                " written. A batch that is fixed inside the model (a reshape to a number) is the usual cause"
            ) from error
        tap, difference = _worst(names, ours, theirs, batch)
        if not difference <= tolerance:
            raise Differs(
                f"the exported file differs from the framework: worst is {tap!r}, by {difference:.1e} relative (batch"
                f" {batch}, at most {tolerance:g} allowed); no file was written"
            )
        if difference > worst.difference:
            worst = Agreement(tap, difference, BATCHES)
    return worst


def _worst(names: list[str], ours: Mapping[str, Array], theirs: Mapping[str, Array], batch: int) -> tuple[str, float]:
    differences: dict[str, float] = {}
    for name in names:
        if name not in theirs:
            raise Differs(f"the framework's forward pass gave no {name!r}; no file was written")
        here, there = np.asarray(ours[name]), np.asarray(theirs[name])
        if here.shape != there.shape:
            raise Differs(
                f"{name!r} has shape {here.shape} in ONNX Runtime and {there.shape} in the framework (batch {batch});"
                " no file was written"
            )
        differences[name] = relative_difference(here, there)
    # NaN compares false with everything, so it is looked for first
    worst = max(names, key=lambda n: np.inf if np.isnan(differences[n]) else differences[n])
    return worst, differences[worst]


def relative_difference(ours: Array, theirs: Array) -> float:
    """Return max|ours − theirs| / max|theirs|; NaN where only one side is finite."""
    here, there = ours.astype(np.float64), theirs.astype(np.float64)
    same = (here == there) | (np.isnan(here) & np.isnan(there))
    if same.all():
        return 0.0
    gap = float(np.abs(np.where(same, 0.0, here - there)).max())
    scale = float(np.abs(there[np.isfinite(there)]).max(initial=0.0))
    return gap / max(scale, 1e-12) if np.isfinite(gap) else float("nan")
