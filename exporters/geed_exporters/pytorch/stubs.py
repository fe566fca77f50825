"""timm without torchvision: timm imports a few names of it at its top, for training and for datasets only.

The torchvision of the package index fails to import beside another build of torch (`operator torchvision::nms does not
exist`), and is no use to an exporter. Where it cannot be imported, these names stand in for it while timm is imported,
and are gone afterwards: nobody else takes them for the real ones.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import importlib.machinery
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from geed_exporters.factories import framework

#: what to say where torch, timm or safetensors is missing
INSTALL = "pip install 'geed-onnx[pytorch]'"

DATASETS = (
    "CIFAR10",
    "CIFAR100",
    "FashionMNIST",
    "ImageFolder",
    "KMNIST",
    "MNIST",
    "INaturalist",
    "Places365",
    "QMNIST",
)
TRANSFORMS = ("Compose", "ToTensor")
MODULES = ("models", "models.feature_extraction", "ops", "ops.misc", "transforms", "transforms.functional", "datasets")


class InterpolationMode(enum.Enum):
    """The names that timm puts into tables when it is imported."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


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
        stubs = _stubs()
        sys.modules.update(stubs)
        try:
            yield
        finally:
            _forget()
    else:
        yield


def _forget() -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _stubs() -> dict[str, ModuleType]:
    found = {f"torchvision.{n}": ModuleType(f"torchvision.{n}") for n in MODULES}
    found["torchvision"] = root = ModuleType("torchvision")
    for name, module in found.items():
        # importlib.util.find_spec raises where a loaded module has none
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(found[parent], last, module)
    root.__dict__["__version__"] = "0"
    given: dict[str, dict[str, Any]] = {
        "models.feature_extraction": {n: _absent(n) for n in ("create_feature_extractor", "get_graph_node_names")},
        "ops.misc": {"FrozenBatchNorm2d": _absent("FrozenBatchNorm2d")},
        "transforms": {n: _absent(n) for n in TRANSFORMS} | {"InterpolationMode": InterpolationMode},
        "transforms.functional": {"InterpolationMode": InterpolationMode},
        "datasets": {n: _absent(n) for n in DATASETS},
    }
    for name, names in given.items():
        found[f"torchvision.{name}"].__dict__.update(names)
    return found


def _absent(name: str) -> type:
    """Return a class that nothing is an instance of, and that says so where it is called."""

    def missing(self: Any, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(f"torchvision.{name}: torchvision cannot be imported here")

    return type(name, (), {"__init__": missing})
