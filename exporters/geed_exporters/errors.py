"""What can go wrong on the way to a file; every message says what was expected, what came and what to do.

::

    GeedError (exit 1)
    └── ExportError
        ├── MissingFramework    the framework is not installed; the message is the pip line
        ├── NotExportable       the model has no ONNX form as it stands
        └── Differs             the exported file does not compute what the framework computes
"""

from __future__ import annotations

from geed_onnx.errors import GeedError


class ExportError(GeedError):
    """The model cannot be loaded or exported."""


class MissingFramework(ExportError):
    """A framework that is not installed here."""

    def __init__(self, module: str, lines: str) -> None:
        self.module, self.lines = module, lines
        super().__init__(f"{module} is not installed in this environment; install it with: {lines}")


class NotExportable(ExportError):
    """The model has no ONNX form: several inputs, data-dependent control flow, an operator that ONNX lacks."""


class Differs(ExportError):
    """The exported file and the framework disagree; nothing is left behind."""


def first_line(error: BaseException, most: int = 300) -> str:
    """Return the first line of what an exception says, which may be nothing."""
    return (str(error).strip().splitlines() or [""])[0][:most]
