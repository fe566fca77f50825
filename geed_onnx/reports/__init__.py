"""How people see results: tables on a terminal."""

from geed_onnx.reports.table import clean, print_results, results_table

__all__ = ["clean", "print_results", "results_table"]
