"""How people see results: tables on a terminal."""

from geed_onnx.reports.comparison import print_comparisons
from geed_onnx.reports.gate import gate_summary, print_gate
from geed_onnx.reports.junit import junit, write_junit
from geed_onnx.reports.markdown import markdown, write_markdown
from geed_onnx.reports.sarif import sarif, write_sarif
from geed_onnx.reports.side_by_side import print_side_by_side
from geed_onnx.reports.table import clean, print_results, results_table

__all__ = [
    "clean",
    "gate_summary",
    "junit",
    "markdown",
    "print_comparisons",
    "print_gate",
    "print_results",
    "print_side_by_side",
    "results_table",
    "sarif",
    "write_junit",
    "write_markdown",
    "write_sarif",
]
