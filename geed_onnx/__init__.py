"""geed-onnx: how invariant, how equivariant is a trained network, layer by layer, on the data it will really see?

>>> from geed_onnx import measure
>>> results = measure("model.onnx", "images/", "C8")  # doctest: +SKIP

Everything else is one import away: `geed_onnx.groups`, `.actions`, `.distances`, `.variants`, `.taps`, `.sources`,
`.sessions`, `.results`, `.engine`. Importing this package loads neither ONNX Runtime nor datasets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geed_onnx.errors import GeedError

if TYPE_CHECKING:
    from geed_onnx.engine import measure
    from geed_onnx.groups import Group, parse_group
    from geed_onnx.results import Result, read_results, write_results
    from geed_onnx.sessions import CallableSession

__version__ = "0.1.0"

_HOMES = {
    "measure": "engine",
    "Group": "groups",
    "parse_group": "groups",
    "Result": "results",
    "read_results": "results",
    "write_results": "results",
    "CallableSession": "sessions",
}
__all__ = [
    "CallableSession",
    "GeedError",
    "Group",
    "Result",
    "__version__",
    "measure",
    "parse_group",
    "read_results",
    "write_results",
]


def __getattr__(name: str) -> Any:
    # imported on first use: numpy, scipy and onnx cost a second that `geed-onnx --help` need not pay
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"geed_onnx.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'geed_onnx' has no attribute {name!r}")
