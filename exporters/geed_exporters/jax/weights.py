"""Weights of a checkpoint into a Flax model; only formats that hold data and no code are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geed_exporters.errors import ExportError, first_line
from geed_exporters.export import Array
from geed_onnx.errors import suggestion

FORMATS = ".safetensors, .msgpack (flax.serialization), .npz, or an Orbax folder"
#: of a training state that was saved whole; none of it is a weight
NO_WEIGHTS = ("opt_state", "step", "rngs")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib")


def read_checkpoint(path: Path) -> dict[str, Array]:
    """Return {dotted name: array} of a checkpoint.

    Raises
    ------
    ExportError
        If it is not there, is a pickle, or is no file of weights.
    """
    path = path.expanduser()
    if path.is_dir():
        return _flat(_read(path, "an Orbax checkpoint", _orbax))
    if not path.is_file():
        raise ExportError(f"{path}: no such checkpoint; expected {FORMATS}")
    with path.open("rb") as file:
        head = file.read(2)
    # protocols 2 to 5 begin so, and no msgpack map of anything does
    if (len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5) or path.suffix in PICKLES:
        raise ExportError(
            f"{path}: a pickle, which could run code when it is loaded, is not read; save the weights as {FORMATS}"
        )
    readers: dict[str, tuple[str, Callable[[Path], Mapping[str, Any]]]] = {
        ".safetensors": ("a safetensors file", _safetensors),
        ".msgpack": ("a flax.serialization file", _msgpack),
        ".npz": ("an .npz file of arrays", _npz),
    }
    if path.suffix not in readers:
        raise ExportError(f"{path}: expected {FORMATS}")
    return _flat(_read(path, *readers[path.suffix]))


def _read(path: Path, what: str, reader: Callable[[Path], Mapping[str, Any]]) -> Mapping[str, Any]:
    try:
        found = reader(path)
    except Exception as error:  # each format's reader has its own classes; none has a common one
        raise ExportError(f"{path}: cannot be read as {what} ({type(error).__name__}: {first_line(error)})") from error
    if not isinstance(found, Mapping):
        raise ExportError(f"{path}: holds no dict of arrays")
    return found


def _safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(path))


def _msgpack(path: Path) -> Mapping[str, Any]:
    from flax import serialization

    return serialization.msgpack_restore(path.read_bytes())  # type: ignore[no-any-return, unused-ignore]


def _npz(path: Path) -> Mapping[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _orbax(path: Path) -> Mapping[str, Any]:
    import orbax.checkpoint

    with orbax.checkpoint.StandardCheckpointer() as reader:
        return reader.restore(path.resolve())  # type: ignore[no-any-return, unused-ignore]


def _flat(tree: Mapping[str, Any]) -> dict[str, Array]:
    """Return {dotted name: array}: nested dicts, `/` and `.` all come to the same name."""

    def leaves(node: Any, path: tuple[str, ...]) -> Iterable[tuple[str, Array]]:
        if isinstance(node, Mapping):
            for key, value in node.items():
                yield from leaves(value, (*path, str(key).replace("/", ".")))
        elif node is not None:
            yield ".".join(path), np.asarray(node)

    # an nnx State that was saved whole has one more level, `value`, below each variable
    return {name.removesuffix(".value"): array for name, array in leaves(tree, ())}


def fitted(given: Mapping[str, Array], wanted: Mapping[str, Any], where: str) -> dict[str, Array]:
    """Return the arrays by the model's own names and in its types; every weight is there and has the model's shape.

    Parameters
    ----------
    given
        {dotted name: array} of the checkpoint. The collection's name (`params.`) may be missing; what a training
        state holds beside its weights is left out.
    wanted
        {dotted name: anything with shape and dtype} of the model.

    Raises
    ------
    ExportError
        If a name is missing or unknown, or a shape differs; the message names the first of them.
    """
    rest = {n: a for n, a in given.items() if n.split(".")[0] not in NO_WEIGHTS}
    collections = {n.split(".")[0] for n in wanted}
    if "params" in collections and rest and not any(n.split(".")[0] in collections for n in rest):
        rest = {f"params.{n}": a for n, a in rest.items()}
    missing = [n for n in wanted if n not in rest]
    unknown = [n for n in rest if n not in wanted]
    if unknown:
        raise ExportError(
            f"{where}: {_some(unknown, 'array')} in the file, but not in the model{suggestion(unknown[0], wanted)}"
            + (f"; {_some(missing, 'weight')} in the model, but not in the file" if missing else "")
        )
    if missing:
        raise ExportError(f"{where}: {_some(missing, 'weight')} in the model, but not in the file")
    for name, model in wanted.items():
        array = rest[name]
        if tuple(array.shape) != tuple(model.shape):
            raise ExportError(f"{where}: {name!r} has shape {tuple(array.shape)}, the model's has {tuple(model.shape)}")
        if not np.issubdtype(array.dtype, np.number):
            # bfloat16 and its like count as numbers of no kind that NumPy knows
            try:
                array.astype(np.float32)
            except (TypeError, ValueError):
                raise ExportError(f"{where}: {name!r} holds {array.dtype}, not numbers") from None
    return {name: rest[name].astype(model.dtype) for name, model in wanted.items()}


def _some(names: list[str], what: str) -> str:
    more = len(names) - 3
    shown = ", ".join(repr(n) for n in names[:3]) + (f" and {more} more" if more > 0 else "")
    return f"{what}{'s' if len(names) != 1 else ''} {shown} {'are' if len(names) != 1 else 'is'}"
