"""Models by name: `timm:resnet50`, `keras:MobileNetV2`, `net.py:build`."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from geed_exporters.errors import ExportError, MissingFramework
from geed_onnx.errors import UnknownName, UsageError


class Named(NamedTuple):
    """A model's name, taken apart."""

    scheme: str
    """`timm`, `keras`, …, or `file` for a Python file."""
    name: str
    """The model's own name, or the factory's."""
    path: Path | None
    """The Python file."""

    def __str__(self) -> str:
        """Return it as `geed.source` holds it: without folders."""
        return f"{self.path.name}:{self.name}" if self.path else f"{self.scheme}:{self.name}"


def parse_name(text: str, schemes: Sequence[str]) -> Named:
    """Take `SCHEME:NAME` or `FILE.py:FACTORY` apart.

    Raises
    ------
    UsageError
        If it is neither; the message lists the schemes.
    """
    found = re.fullmatch(r"(.+\.py):([A-Za-z_]\w*)", text)
    if found:
        return Named("file", found[2], Path(found[1]))
    scheme, colon, name = text.partition(":")
    if not colon or not name or Path(text).suffix == ".py":
        forms = ", ".join(f"{s}:NAME" for s in schemes)
        raise UsageError(f"model {text!r}: expected {forms}{', or ' if forms else ''}FILE.py:FACTORY")
    if scheme not in schemes:
        raise UnknownName("kind of model", scheme, [*schemes, "FILE.py"])
    return Named(scheme, name, None)


def load_factory(path: Path, name: str) -> Callable[[], Any]:
    """Run a Python file and return the function of that name; its own folder can be imported from.

    Raises
    ------
    ExportError
        If the file is not there or fails when run.
    UnknownName
        If it holds no such function.
    """
    path = path.expanduser()
    if not path.is_file():
        raise ExportError(f"{path}: no such file; expected FILE.py:FACTORY")
    spec = importlib.util.spec_from_file_location(f"geed_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ExportError(f"{path}: cannot be read as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is the user's: whatever it raises is to be shown with its name
        raise ExportError(f"{path} fails when it is run: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    factory = getattr(module, name, None)
    if not callable(factory):
        own = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UnknownName("function", name, own, f"looked for in {path}")
    return factory  # type: ignore[no-any-return]


def called(factory: Callable[[], Any], what: str) -> Any:
    """Call a factory without arguments.

    Raises
    ------
    ExportError
        If it fails; the message carries its own.
    """
    try:
        return factory()
    except Exception as error:  # the user's code again
        raise ExportError(f"{what}() fails: {type(error).__name__}: {error}") from error


def framework(module: str, lines: str) -> Any:
    """Import a framework, or say the exact pip line.

    Raises
    ------
    MissingFramework
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == module.split(".")[0]:
            raise MissingFramework(module, lines) from None
        raise
