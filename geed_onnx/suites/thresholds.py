"""The thresholds of a suite, held against what it measures."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from geed_onnx.gates import LIMITS, Threshold
from geed_onnx.requests import Data
from geed_onnx.suites.faults import MISSING, Fault, nearby, place
from geed_onnx.variants import parse_variant

if TYPE_CHECKING:
    from geed_onnx.suites.schema import ThresholdTable


@dataclass(frozen=True)
class Measured:
    """What a suite measures; None where its own faults leave that open.

    Attributes
    ----------
    variants, groups, models : tuple of str, or None
        Names.
    data : tuple of (Data, address as it is written), or None
    baseline : bool
        Whether there is one.
    """

    variants: tuple[str, ...] | None
    groups: tuple[str, ...] | None
    models: tuple[str, ...] | None
    data: tuple[tuple[Data, str], ...] | None
    baseline: bool


def thresholds_of(
    tables: Sequence[tuple[str, ThresholdTable, frozenset[str]]], suite: Measured, faults: list[Fault]
) -> list[Threshold]:
    """Return the thresholds of the tables (path in the suite, table, keys that are wrong); faults go into `faults`.

    One that names data sets by their names in the suite becomes one for the address of each.
    """
    found: dict[Threshold, str] = {}
    for where, table, wrong in tables:
        faults += _faults(where, table, wrong, suite)
        given = [k for k in LIMITS if getattr(table, k) is not None]
        if len(given) != 1:
            continue
        bare = Threshold(
            variant=table.variant,
            limit=float(getattr(table, given[0])),
            on="calibrated" if table.on == "calibrated" else "value",
            relative=given == ["worse_by"],
            below=given == ["below"],
            prove=table.prove,
            family_wise=table.family_wise,
            tap=table.tap,
            model=table.model,
            group=table.group,
            data=table.data,
        )
        for threshold in _by_address(bare, suite.data):
            if threshold in found:
                message = f"the same threshold is in {found[threshold]} already"
                faults.append(Fault(where, table.variant, "each threshold once", message))
                break
            found[threshold] = where
    return list(found)


def _faults(where: str, table: ThresholdTable, wrong: frozenset[str], suite: Measured) -> list[Fault]:
    faults = []
    # a limit that is wrong has its fault already, and a key that is not known may be meant for one
    told = wrong & set(LIMITS) or wrong - set(type(table).model_fields)
    given = [k for k in LIMITS if getattr(table, k) is not None]
    if len(given) > 1:
        message = f"{' and '.join(given)} in one threshold; give one, and another [[thresholds]] for the other"
        faults.append(Fault(place(where, given[-1]), getattr(table, given[-1]), "one limit", message))
    elif not given and not told:
        message = "expected above = NUMBER, below = NUMBER, or worse_by = NUMBER with a baseline"
        faults.append(Fault(place(where, "above"), MISSING, "a limit", message))
    if table.worse_by is not None and not suite.baseline:
        message = 'there is no baseline to be worse than: give baseline = "FOLDER or FILE.jsonl" before the tables'
        faults.append(Fault(place(where, "worse_by"), table.worse_by, "a baseline", message))
    if suite.variants is not None and table.variant not in suite.variants:
        message = f"this variant is not measured; variants are {', '.join(suite.variants)}"
        faults.append(Fault(place(where, "variant"), table.variant, "a variant that is measured", message))
    if table.worse_by is not None and table.on == "value" and parse_variant(table.variant).optimum_moves:
        message = 'its optimum moves with the data, so no part of it is "worse": set on = "calibrated"'
        faults.append(Fault(place(where, "worse_by"), table.worse_by, "a variant with a fixed optimum", message))
    for key, pattern, names in (
        ("model", table.model, suite.models),
        ("group", table.group, suite.groups),
        ("data", table.data, None if suite.data is None else [n for d, w in suite.data for n in (d.name, d.source, w)]),
    ):
        if names is not None and not any(_matches(n, pattern) for n in names):
            there = list(dict.fromkeys(names))
            more = nearby(pattern, there) or f"; there are {', '.join(there[:8])}{', …' * (len(there) > 8)}"
            what = {"model": "model's name", "group": "group", "data": "data set's name or address"}[key]
            message = f"matches no {what} of this suite{more}"
            faults.append(Fault(place(where, key), pattern, f"a glob that matches a {what}", message))
    return faults


def _matches(name: str, pattern: str) -> bool:
    """Say whether a glob matches a name, or is that name: brackets in names are no sets of characters."""
    return name == pattern or fnmatchcase(name, pattern)


def _by_address(threshold: Threshold, data: Sequence[tuple[Data, str]] | None) -> list[Threshold]:
    """Return the threshold for the addresses that results will have, where its glob is of names."""
    if data is None:
        return [threshold]
    meant = [d for d, written in data if any(_matches(n, threshold.data) for n in (d.name, d.source, written))]
    if all(fnmatchcase(d.source, threshold.data) for d in meant):
        return [threshold]
    return [replace(threshold, data=glob.escape(d.source)) for d in meant]
