"""Models on the same images: paired differences with intervals, and whether they are equivalent.

::

    old, new = (participants_of(models_of(open_results(folder))) for folder in ("runs/old", "runs/new"))
    found = compare(pairs_of([old, new]), within=0.02)
    found.rows[0].value.difference, found.rows[0].verdict      # first minus second; 'equivalent'
"""

from __future__ import annotations

from geed_onnx.comparisons.alignment import ALIGNMENTS, Match, align
from geed_onnx.comparisons.compare import Comparisons, compare
from geed_onnx.comparisons.differences import Difference
from geed_onnx.comparisons.participants import (
    Model,
    Participant,
    model_of,
    models_of,
    pairs_of,
    participants_of,
    picked,
)
from geed_onnx.comparisons.record import SCHEMA, Comparison, write_comparisons

__all__ = [
    "ALIGNMENTS",
    "SCHEMA",
    "Comparison",
    "Comparisons",
    "Difference",
    "Match",
    "Model",
    "Participant",
    "align",
    "compare",
    "model_of",
    "models_of",
    "pairs_of",
    "participants_of",
    "picked",
    "write_comparisons",
]
