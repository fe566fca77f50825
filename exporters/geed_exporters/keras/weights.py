"""Weights from a file into a Keras model, with every key and shape held against the model's own first."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError
from geed_exporters.keras.frameworks import words
from geed_exporters.loaded import fingerprint
from geed_onnx.errors import suggestion

HDF5 = b"\x89HDF\r\n\x1a\n"
SHOWN = 3


def load_weights(model: Any, path: Path) -> dict[str, str]:
    """Read `.weights.h5`, `.keras` or a whole `.h5` into a built model; return the file's name and sha256.

    Raises
    ------
    ExportError
        If the file is missing, holds no Keras weights, or its keys or shapes are not the model's.
    """
    path = Path(path).expanduser()
    held = _held(path)
    if held is not None:
        _compare(held, _own(model), path)
    try:
        model.load_weights(str(path))
    except Exception as error:  # Keras raises whatever its readers raise; the file is the user's
        raise ExportError(f"{path.name}: the weights do not fit the model: {words(error)}") from error
    return fingerprint(path)


def refuse_others(path: Path) -> None:
    """Raise unless the file is HDF5 or a `.keras` archive by its content.

    Raises
    ------
    ExportError
        If it is missing, a pickle, or anything else.
    """
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(8)
    if start == HDF5:
        return
    if zipfile.is_zipfile(path):
        names = zipfile.ZipFile(path).namelist()
        if "model.weights.h5" in names:
            return
        if any(n.endswith(".pkl") for n in names):
            start = b"\x80"
    if start[:1] == b"\x80":
        raise ExportError(
            f"{path.name} is a pickle, which can run code and is never read; save the weights with"
            " model.save_weights('FILE.weights.h5')"
        )
    raise ExportError(
        f"{path.name} holds no Keras weights: expected HDF5 (.weights.h5, .h5) or a .keras archive, as"
        " model.save_weights and model.save write them"
    )


def _held(path: Path) -> dict[str, tuple[int, ...]] | None:
    """Return {key: shape} of a Keras 3 file; None for the older whole-model HDF5, which Keras matches by order."""
    import h5py

    refuse_others(path)
    try:
        if zipfile.is_zipfile(path):
            return _shapes(h5py.File(io.BytesIO(zipfile.ZipFile(path).read("model.weights.h5")), "r"))
        return _shapes(h5py.File(path, "r")) if path.name.endswith(".weights.h5") else None
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise ExportError(f"{path.name} cannot be read ({error})") from error


def _own(model: Any) -> dict[str, tuple[int, ...]]:
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.weights.h5"
        model.save_weights(str(path))
        return _shapes(h5py.File(path, "r"))


def _shapes(file: Any) -> dict[str, tuple[int, ...]]:
    import h5py

    found: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/"):
            found[name] = tuple(item.shape)

    with file:
        file.visititems(visit)
    return found


def _compare(held: Mapping[str, tuple[int, ...]], own: Mapping[str, tuple[int, ...]], path: Path) -> None:
    missing = [k for k in own if k not in held]
    extra = [k for k in held if k not in own]
    wrong = [k for k in own if k in held and held[k] != own[k]]
    said = []
    if missing:
        near = suggestion(missing[0], extra) if extra else ""
        said.append(f"it lacks {_listed(missing)}{near if near.startswith(': did') else ''}")
    if extra:
        said.append(f"it holds {_listed(extra)}, which the model does not have")
    if wrong:
        first = wrong[0]
        said.append(f"{_listed(wrong)} of another shape (expected {own[first]}, got {held[first]})")
    if said:
        raise ExportError(f"{path.name}: the weights do not fit the model: {'; '.join(said)}")


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
