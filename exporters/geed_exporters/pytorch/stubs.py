"""timm without torchvision: timm imports a few names of it at its top, for training and for datasets only.

The torchvision of the package index fails to import beside another build of torch (`operator torchvision::nms does not
exist`), and is no use to an exporter. Where it cannot be imported, stand-ins take its place while timm is imported, and
are gone afterwards: nobody else takes them for the real ones.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from geed_exporters.factories import framework
from geed_exporters.stand_ins import stand_in

#: what to say where torch, timm or safetensors is missing
INSTALL = "pip install 'geed-onnx[pytorch]'"
MODULES = ("models.feature_extraction", "ops.misc", "transforms.functional", "datasets")
#: the names that timm puts into tables when it is imported
MODES = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")
InterpolationMode = enum.Enum("InterpolationMode", {name.replace("-", "_").upper(): name for name in MODES})  # type: ignore[misc]


def import_timm() -> Any:
    """Return the module timm, imported without torchvision where that cannot be imported.

    Raises
    ------
    MissingFramework
        If torch or timm is not installed.
    """
    framework("torch", INSTALL)
    if "timm" in sys.modules:
        return sys.modules["timm"]
    with _torchvision():
        return framework("timm", INSTALL)


@contextlib.contextmanager
def _torchvision() -> Iterator[None]:
    """Keep torchvision's names importable, by the real ones if they are."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError, AttributeError):
        _forget()  # what a failed import left behind
        given = {"__version__": "0", "InterpolationMode": InterpolationMode}
        stand_in((f"torchvision.{name}" for name in MODULES), "torchvision cannot be imported here", given)
        try:
            yield
        finally:
            _forget()
    else:
        yield


def _forget() -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
