"""A run's folder: written so that nothing is lost whenever the run is killed, and taken up again from what is there.

A task that ends is written in this order: its tables, its lines with the mark that it is whole (one file of the journal
each, renamed into place), then its lines at the end of ``results.jsonl``, fsynced.  A run that begins completes what
such a sequence left undone, cuts off a line that was written half, and knows what was measured.  At the end the lines
are put in the suite's order and the tables into one file each, so that a run that was killed ends with the same bytes
as one that was not.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from geed_onnx.batch.tasks import Kept, Outcome
from geed_onnx.ending import unbroken
from geed_onnx.errors import DataError, GeedError, UsageError
from geed_onnx.results import (
    DEVIATIONS,
    JACKKNIFE,
    JOURNAL,
    RESULTS,
    RUN,
    SCHEMA,
    SUITE,
    CellTables,
    Result,
    TableFiles,
    from_json,
    merge_tables,
    place_of,
    read_table,
    table_paths,
    write_tables,
    write_text,
)

#: What a line is found by: its key, its model's label, its data's address.
Line = tuple[str, str, str]
Notify = Callable[[str], None]
DONE = "done.jsonl"
SUPERSEDED = "superseded.jsonl"
LOCK = ".lock"
#: How every line of ours begins.
HEAD = f'{{"schema": "{SCHEMA}"'.encode()
_TICKET = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """What the journal says of a task that was done whole: its cells in their order, and their lines."""

    ticket: str
    cells: tuple[Line, ...]
    lines: tuple[Result, ...] = ()


class Journal:
    """The folder of a run, held by one process at a time; a context manager.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    GeedError
        If another run holds it.
    DataError
        If it holds something else, or lines that are no results.
    """

    def __init__(self, folder: Path, notify: Notify, fetch: Callable[[], None] | None = None) -> None:
        self.folder, self._notify, self._fetch = folder, notify, fetch
        self._journal = folder / JOURNAL
        self._lock = FileLock(str(folder / LOCK), blocking=False)
        self._rows: dict[Line, Result] = {}
        self._tickets: dict[str, tuple[Line, ...]] = {}
        self._failed: dict[int, list[Result]] = {}
        self._order: dict[int, tuple[Line, ...]] = {}
        self._tables: TableFiles | None = None
        self._fresh: dict[str, Line] = {}
        self._text: dict[int, tuple[Result, str]] = {}

    def __enter__(self) -> Journal:
        try:
            self._journal.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise GeedError(
                f"another run is writing to {str(self.folder)!r}: wait for it to end, or give another folder with -o"
            ) from None
        except OSError as error:
            raise UsageError(f"cannot write to {str(self.folder)!r}: {error.strerror or error}") from None
        try:
            if self._fetch is not None:
                self._fetch()
                self._journal.mkdir(parents=True, exist_ok=True)
            self._take_up()
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise UsageError(f"cannot take up {str(self.folder)!r}: {error}") from None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    # --- what is there ------------------------------------------------------------------------------------------

    @property
    def tickets(self) -> frozenset[str]:
        """Tickets of the tasks that were done whole."""
        return frozenset(self._tickets)

    @property
    def known(self) -> frozenset[str]:
        """Keys of the cells that were measured, by whatever name of the model."""
        return frozenset(self._fresh)

    def _take_up(self) -> None:
        ours = (RESULTS, DEVIATIONS, JACKKNIFE, SUITE, RUN)
        for stray in (*(p for name in ours for p in self.folder.glob(f".{name}.*")), *self._journal.glob(".*")):
            stray.unlink()  # a file that a killed run had not yet put in its place
        lines = self._lines(self.folder / RESULTS)
        entries = [*self._done(), *self._entries()]
        written = {line_of(r) for r in lines}
        restored = [r for e in entries for r in e.lines if line_of(r) not in written]
        if restored:
            self._append(restored)
        there = self._whole_tables().with_changes
        for result in (*lines, *restored):
            # a line without its tables is measured again: comparisons and pages need them
            if not result.failed and result.key is not None and (place_of(result) in there or result.value is None):
                self._rows[line_of(result)] = result
                self._fresh.setdefault(result.key, line_of(result))
        for entry in entries:
            if all(line in self._rows for line in entry.cells):
                self._tickets[entry.ticket] = entry.cells

    def _whole_tables(self) -> TableFiles:
        """Return the tables that can be read; a damaged file is put aside, and what it held is measured again."""
        tables = TableFiles(*table_paths(self.folder))
        try:
            len(tables)
        except DataError:
            for path in (p for paths in table_paths(self.folder) for p in paths):
                try:
                    read_table(path)
                except DataError as error:
                    self._notify(f"{error}; put aside as {path.name}.damaged")
                    path.rename(path.with_name(f"{path.name}.damaged"))
            tables = TableFiles(*table_paths(self.folder))
        self._tables = tables
        return tables

    def _lines(self, path: Path) -> list[Result]:
        if not path.exists():
            return []
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        half = raw[len(whole) :]
        foreign = not half.startswith(HEAD[: len(half)])
        found, damaged = [], 0
        for line in whole.decode("utf-8", errors="replace").split("\n"):
            if line.strip():
                try:
                    found.append(from_json(line))
                except DataError:
                    damaged += 1
        if (damaged or foreign) and not found:
            # what another program wrote is not ours to cut
            count = damaged + foreign
            raise DataError(
                f"{str(path)!r} holds no results ({count} line(s) of something else); give another folder with -o"
            )
        if half:
            self._notify(f"{path.name}: the last line was written half when the run was killed; it is measured again")
            with path.open("r+b") as file:
                file.truncate(len(whole))
        if damaged:
            self._notify(f"{path.name}: {damaged} damaged line(s) left aside; what they held is measured again")
        return found

    def _done(self) -> list[Entry]:
        path = self._journal / DONE
        if not path.exists():
            return []
        found = []
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                record = json.loads(line)
                found.append(Entry(record["ticket"], tuple((k, m, u) for k, m, u in record["cells"])))
            except (ValueError, KeyError, TypeError):
                continue  # what it said is found again by opening the model
        return found

    def _entries(self) -> list[Entry]:
        return [e for path in sorted(self._journal.glob("*.jsonl")) if (e := _entry(path)) is not None]

    # --- what is added ------------------------------------------------------------------------------------------

    def add(self, outcome: Outcome) -> None:
        """Take in what became of a task, written and fsynced before this returns."""
        with unbroken():
            self._add(outcome)

    def _add(self, outcome: Outcome) -> None:
        if outcome.unopened and outcome.ticket is not None:
            self._order[outcome.number] = self._tickets[outcome.ticket]
            return
        cells: list[Line] = []
        rows: list[tuple[Result, CellTables]] = []
        failed: list[Result] = []
        for cell in outcome.cells:
            if isinstance(cell, Kept):
                result = self._renamed(cell, rows)
            else:
                result = cell.result
                if result.failed or cell.tables is None:
                    failed.append(result)
                    continue
                rows.append((result, cell.tables))
            cells.append(line_of(result))
            self._rows[line_of(result)] = result
        self._order[outcome.number], self._failed[outcome.number] = tuple(cells), failed
        # a task that was not whole has no ticket: its cells are found by their keys
        name = outcome.ticket or _name_of(cells)
        if rows:
            # tables that a loss of power takes are noticed and measured again; lines are not to be lost
            files = self._journal / f"{name}.{DEVIATIONS}", self._journal / f"{name}.{JACKKNIFE}"
            write_tables(rows, *files, lasting=False)
            self._tables = None
            for result, _ in rows:
                self._fresh.setdefault(str(result.key), line_of(result))
        if cells:
            self._commit(name, tuple(cells), [r for r, _ in rows])
        if outcome.ticket is not None:
            self._tickets[outcome.ticket] = tuple(cells)
        self._append([*(r for r, _ in rows), *failed])

    def _renamed(self, cell: Kept, rows: list[tuple[Result, CellTables]]) -> Result:
        """Return the line of a cell measured before, with what its model and data are called now."""
        old = self._rows[self._fresh[cell.key]]
        result = replace(old, model=dict(cell.model), data={**old.data, **cell.data})
        if self._tables is None:
            self._tables = TableFiles(*table_paths(self.folder))
        if line_of(result) not in self._rows and (tables := self._tables.get(place_of(old))) is not None:
            rows.append((result, tables))
        return result

    def _commit(self, name: str, cells: Sequence[Line], lines: Sequence[Result]) -> None:
        head = json.dumps({"ticket": name, "cells": cells, "lines": len(lines)})
        text = "\n".join([head, *map(self._line, lines)]) + "\n"
        write_text(self._journal / f"{name}.jsonl", text)

    def _line(self, result: Result) -> str:
        """Return a result's line, made once however often it is written."""
        if id(result) not in self._text:
            self._text[id(result)] = (result, result.to_json())
        return self._text[id(result)][1]

    def _append(self, lines: Iterable[Result]) -> None:
        text = "".join(self._line(r) + "\n" for r in lines)
        if not text:
            return
        try:
            with (self.folder / RESULTS).open("ab") as file:
                file.write(text.encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(f"cannot write to {str(self.folder / RESULTS)!r}: {error.strerror or error}") from None

    def describe(self, suite: str, run: Mapping[str, Any]) -> None:
        """Write the suite as resolved, and the record of the run."""
        write_text(self.folder / SUITE, suite)
        write_text(self.folder / RUN, json.dumps(run, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    # --- the end ------------------------------------------------------------------------------------------------

    def results(self) -> list[Result]:
        """Return the lines of the tasks so far, in the suite's order."""
        numbers = sorted(self._order)
        found: dict[Line, Result] = {}
        for n in numbers:
            for line in self._order[n]:
                found.setdefault(line, self._rows[line])
            failed = self._failed.get(n, [])
            for i, result in enumerate(failed):
                found[f"failed {n}", str(i), ""] = result
            if failed and not self._order[n]:
                found |= self._before(failed[0])
        return list(found.values())

    def _before(self, failed: Result) -> dict[Line, Result]:
        """Return the lines of a task of which nothing could be measured now: a disk that is away takes no results."""

        def told(r: Result) -> tuple[str, str, str]:
            return r.label, str(r.group["name"]), str(r.data["uri"])

        return {line: r for line, r in self._rows.items() if told(r) == told(failed)}

    def finish(self) -> list[Result]:
        """Put lines and tables in the suite's order, and let the journal go; returns the lines."""
        results = self.results()
        wanted = {line_of(r) for r in results if not r.failed}
        order = list(dict.fromkeys(place_of(r) for r in results if not r.failed))
        gone = [r for line, r in self._rows.items() if line not in wanted]
        deviations, jackknife = table_paths(self.folder)
        if any(path.parent == self._journal for path in (*deviations, *jackknife)) or gone:
            merges = ((deviations, self.folder / DEVIATIONS), (jackknife, self.folder / JACKKNIFE))
            with ThreadPoolExecutor(len(merges)) as threads:
                list(threads.map(lambda merge: merge_tables(merge[0], merge[1], order), merges))
        if gone:
            with (self.folder / SUPERSEDED).open("ab") as file:
                file.write("".join(r.to_json() + "\n" for r in gone).encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
            self._notify(f"{len(gone)} result(s) of an earlier suite moved to {SUPERSEDED}")
        write_text(self.folder / RESULTS, "".join(self._line(r) + "\n" for r in results))
        current = {t: cells for t, cells in self._tickets.items() if all(c in wanted for c in cells)}
        done = "".join(json.dumps({"ticket": t, "cells": c}) + "\n" for t, c in sorted(current.items()))
        write_text(self._journal / DONE, done)
        for path in self._journal.iterdir():
            if path.name != DONE and path.is_file():
                path.unlink()
        return results


def known_keys(folder: str) -> frozenset[str]:
    """Return the keys of the cells that a run's folder holds, without touching it; none where there is no folder."""
    keys: set[str] = set()
    for path in (Path(folder) / RESULTS, *(Path(folder) / JOURNAL).glob("*.jsonl")):
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
                try:
                    result = from_json(line)
                except DataError:
                    continue
                if not result.failed and result.key is not None:
                    keys.add(result.key)
    return frozenset(keys)


def line_of(result: Result) -> Line:
    """Return what tells a line from every other."""
    return (*place_of(result), str(result.data["uri"]))


def _entry(path: Path) -> Entry | None:
    """Return an entry of the journal, or None if it is not whole."""
    if path.name == DONE or not _TICKET.fullmatch(path.stem):
        return None
    head, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    try:
        record = json.loads(head)
        results = tuple(from_json(line) for line in lines if line.strip())
        if len(results) != record["lines"]:
            return None
        return Entry(record["ticket"], tuple((k, m, u) for k, m, u in record["cells"]), results)
    except (ValueError, KeyError, TypeError, DataError):
        return None


def _name_of(cells: Sequence[Line]) -> str:
    import hashlib

    return hashlib.sha256(repr(cells).encode("utf-8", "backslashreplace")).hexdigest()
