"""One self-contained HTML page of a run.

::

    write_page(open_results("runs/digits"), "page.html")
"""

from geed_onnx.reports.page.section import Section
from geed_onnx.reports.page.writing import page_html, page_target, write_page

__all__ = ["Section", "page_html", "page_target", "write_page"]
