"""What a number is: the record and its lines, the tables it is made of, and a run's folder read as a whole.

::

    found = open_results("runs/digits")        # or a .jsonl file
    for result in found.results:
        tables = found.tables(result)          # deviations by image and element; None where they were not kept
"""

from __future__ import annotations

from geed_onnx.results.collection import JOURNAL, RESULTS, RUN, SUITE, Collection, open_results, table_paths
from geed_onnx.results.record import CAUTION, SCHEMA, Result, finite, from_json, read_results, write_results
from geed_onnx.results.tables import (
    DEVIATIONS,
    JACKKNIFE,
    CellTables,
    TableFiles,
    merge_tables,
    place_of,
    read_table,
    write_tables,
)
from geed_onnx.results.writing import whole, writable, write_text

__all__ = [
    "CAUTION",
    "DEVIATIONS",
    "JACKKNIFE",
    "JOURNAL",
    "RESULTS",
    "RUN",
    "SCHEMA",
    "SUITE",
    "CellTables",
    "Collection",
    "Result",
    "TableFiles",
    "finite",
    "from_json",
    "merge_tables",
    "open_results",
    "place_of",
    "read_results",
    "read_table",
    "table_paths",
    "whole",
    "writable",
    "write_results",
    "write_tables",
    "write_text",
]
