"""Results with what they are made of, opened from the folder of a run or from a file of results."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geed_onnx.errors import DataError
from geed_onnx.estimators import Change
from geed_onnx.results.record import Result, read_results
from geed_onnx.results.tables import DEVIATIONS, JACKKNIFE, CellTables, TableFiles, place_of

RESULTS, SUITE, RUN = "results.jsonl", "suite.toml", "run.json"
#: Where a run that has not ended keeps the tables of what it has done.
JOURNAL = ".journal"


@dataclass(frozen=True)
class Collection:
    """The results of one run or one file, and where there are any their tables, the suite and the record of the run."""

    uri: str
    results: tuple[Result, ...]
    files: TableFiles = field(default_factory=lambda: TableFiles((), ()), repr=False)
    run: Mapping[str, Any] = field(default_factory=dict)
    """``run.json``: versions, device, arguments; empty where there is none"""
    suite: str | None = None
    """``suite.toml`` as resolved"""

    def tables(self, result: Result) -> CellTables | None:
        """Return what a result is made of, or None where it was not kept (a plain file of results, a failed cell)."""
        found = self.files.get(place_of(result))
        if found is None or result.value is None:
            return found
        return CellTables(
            found.deviations, _valued(found.value, result.value), _valued(found.calibrated, result.calibrated)
        )


def _valued(change: Change | None, value: float | None) -> Change | None:
    """Return a change with the value that it is of; files hold the changes only."""
    return None if change is None or value is None else replace(change, value=value)


def open_results(path: str | os.PathLike[str]) -> Collection:
    """Return the results under a run's folder, or of a JSON Lines file (with ``STEM.deviations.parquet`` beside it).

    A run that has not ended yet can be opened too: what it has done so far is there.

    Raises
    ------
    DataError
        If there is nothing there, a line is no result, or a file is damaged.
    """
    where = Path(path)
    if not where.exists():
        raise DataError(
            f"no such file or folder: {os.fspath(path)!r}; expected a run's folder or a .jsonl file of results"
        )
    if not where.is_dir():
        beside = [where.with_name(f"{where.stem}.{name}") for name in (DEVIATIONS, JACKKNIFE)]
        if where.name == RESULTS:
            beside = [where.with_name(name) for name in (DEVIATIONS, JACKKNIFE)]
        files = TableFiles(*([p] if p.is_file() else [] for p in beside))
        return Collection(os.fspath(path), tuple(read_results(where)), files)
    if not (where / RESULTS).is_file():
        raise DataError(f"{os.fspath(path)!r} holds no {RESULTS}: expected the folder that geed-onnx run wrote")
    suite = where / SUITE
    return Collection(
        os.fspath(path),
        tuple(read_results(where / RESULTS)),
        TableFiles(*table_paths(where)),
        _record(where / RUN),
        suite.read_text(encoding="utf-8", errors="replace") if suite.is_file() else None,
    )


def table_paths(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of deviations and of jackknife changes in a run's folder, those of the journal first."""

    def named(name: str) -> list[Path]:
        journal = sorted((folder / JOURNAL).glob(f"*.{name}"))
        return [*journal, folder / name] if (folder / name).is_file() else journal

    return named(DEVIATIONS), named(JACKKNIFE)


def _record(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}") from None
    return found if isinstance(found, dict) else {}
