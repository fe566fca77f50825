"""The interval of a number at any level: as it was printed, from its tables, or by Student's t from the printed one."""

from __future__ import annotations

from typing import Literal, NamedTuple

from scipy import special

from geed_onnx.estimators import interval
from geed_onnx.gates.verdict import finite
from geed_onnx.results import CellTables, Result
from geed_onnx.variants import range_of


class Ends(NamedTuple):
    """Both ends of an interval, None where one is not known."""

    low: float | None
    high: float | None
    rescaled: bool = False
    """whether they were made of the printed interval by Student's t, for want of tables"""


def ends_at(result: Result, on: Literal["value", "calibrated"], level: float, tables: CellTables | None) -> Ends:
    """Return the ends of a result's interval at a level.

    At its own level they are those of the result; so are they where the value is exact.  At others they are made anew
    from the tables, and without those moved away from the value as Student's t over the images moves them.
    """
    prefix = "calibrated_" if on == "calibrated" else ""
    low, high = (finite(getattr(result, f"{prefix}{end}")) for end in ("low", "high"))
    value = finite(getattr(result, on))
    if level == result.level or value is None or low == value == high:
        return Ends(low, high)
    change, n = None if tables is None else getattr(tables, on), result.unit_count
    if change is not None:
        found = interval(change, level, n, hidden=range_of(result, on))
        return Ends(finite(found.low), finite(found.high))
    wider = float(
        special.stdtrit(max(n - 1, 1), 0.5 + level / 2) / special.stdtrit(max(n - 1, 1), 0.5 + result.level / 2)
    )
    low, high = (None if end is None else value + wider * (end - value) for end in (low, high))
    return Ends(low, high, rescaled=True)
