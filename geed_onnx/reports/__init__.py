"""How people see results: tables on a terminal."""

from geed_onnx.reports.side_by_side import print_side_by_side
from geed_onnx.reports.table import clean, print_results, results_table

__all__ = ["clean", "print_results", "print_side_by_side", "results_table"]
