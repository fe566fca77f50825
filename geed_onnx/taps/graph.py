"""Reading an ONNX file: ports, metadata, the tables, and one clear line for everything that is no such file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

from geed_onnx.errors import ModelError, UnknownName, UsageError
from geed_onnx.taps.index import Index, build, runtime_inputs
from geed_onnx.taps.layout import BY_NAME, NAMES, Axes, layouts

IMAGE_TYPES = frozenset({"float16", "float32", "float64", "bfloat16", "int8", "uint8"})


@dataclass(frozen=True)
class Port:
    """An input or output of the file: numpy dtype, shape with batch (str: a named open axis, None: a nameless one)."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]
    layout: str | None
    """\"NCHW\" or \"NHWC\" where the graph or the metadata tells, for rank 4."""


@dataclass(frozen=True, eq=False)
class Graph:
    """An ONNX file that was read: what it says of itself, and the tables that the rest of the package asks."""

    path: Path
    producer: str
    ir: int
    opset: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: Mapping[str, str]
    external: tuple[Path, ...]
    """Files with weights beside the model; never loaded here."""
    model: ModelProto = field(repr=False)
    sizes: Mapping[str, tuple[int, ...]] = field(repr=False)
    """What open axes of inputs were bound to for shape inference; empty: nothing."""
    index: Index = field(repr=False)
    axes: Mapping[str, Axes] = field(repr=False)
    """Spatial axes of tensors, where known."""

    def layout(self, name: str) -> str | None:
        """Return "NCHW", "NHWC" or None for a tensor."""
        axes = self.axes.get(name)
        rank = self.index.rank(name)
        return NAMES.get(axes) if axes and rank in (4, None) else None


def read_graph(path: str | Path, *, sizes: Mapping[str, tuple[int, ...]] | None = None) -> Graph:
    """Read an ONNX file without its external weights.

    Parameters
    ----------
    path
        The `.onnx` file.
    sizes
        Full input shapes (batch included, which is ignored where the file leaves it open) by input name, used to infer
        the shapes of a file with open height and width.

    Raises
    ------
    ModelError
        If the file is missing, empty, truncated, no ONNX, newer than the installed onnx, or lacks its weights.
    UsageError
        If `sizes` does not fit the inputs.
    """
    path = Path(path)
    return graph_of(_parsed(path), path=path, sizes=sizes)


def graph_of(
    model: ModelProto, *, path: str | Path = "model.onnx", sizes: Mapping[str, tuple[int, ...]] | None = None
) -> Graph:
    """Return the graph of a model in memory; `path` says where its external weights would be.

    Raises
    ------
    ModelError, UsageError
        As `read_graph`.
    """
    path = Path(path)
    _check_version(model, path)
    _check_sizes(model, sizes or {})
    metadata = {p.key: p.value for p in model.metadata_props}
    index = build(model, sizes or {})
    inputs = [v for v in runtime_inputs(model.graph) if v.type.HasField("tensor_type")]
    producer = f"{model.producer_name} {model.producer_version}".strip()
    axes = layouts(index, producer, _declared(metadata, [v.name for v in inputs if _rank(v) == 4]))

    def port(v: onnx.ValueInfoProto) -> Port:
        known = NAMES.get(axes.get(v.name, (0, 0))) if _rank(v) in (4, None) else None
        return Port(v.name, _dtype(v.type.tensor_type.elem_type), _port_shape(v), known)

    return Graph(
        path=path,
        producer=producer,
        ir=model.ir_version,
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1),
        inputs=tuple(port(v) for v in inputs),
        outputs=tuple(port(v) for v in model.graph.output),
        metadata=metadata,
        external=_external(model, path),
        model=model,
        sizes=dict(sizes or {}),
        index=index,
        axes=axes,
    )


def image_input(graph: Graph, name: str | None = None) -> Port:
    """Return the input that the group acts on: the named one, else the only one that can be a batch of images.

    Raises
    ------
    UnknownName
        If there is no input of that name.
    UsageError
        If several inputs could be meant.
    ModelError
        If none could.
    """
    if name is not None:
        for port in graph.inputs:
            if port.name == name:
                return port
        raise UnknownName("model input", name, [p.name for p in graph.inputs])
    found = image_inputs(graph)
    listed = ", ".join(f"{p.name} {p.dtype}{_printed(p.shape)}" for p in graph.inputs) or "none"
    if not found:
        raise ModelError(
            f"{graph.path} has no input of rank 4 for images; its inputs: {listed}; name one: --input NAME"
        )
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise UsageError(f"{graph.path} has several inputs that could be images ({names}): say which with --input NAME")
    return found[0]


def image_inputs(graph: Graph) -> tuple[Port, ...]:
    """Return every input that could be a batch of images: rank 4 and float, int8 or uint8."""
    return tuple(p for p in graph.inputs if len(p.shape) == 4 and p.dtype in IMAGE_TYPES)


def file_sha256(graph: Graph) -> str:
    """Return the SHA-256 of the model file followed by its external data files, in hex, read in pieces.

    Raises
    ------
    ModelError
        If a file cannot be read.
    """
    return _sha256((graph.path, *graph.external))


def model_sha256(path: str | Path) -> str:
    """Return what `file_sha256` returns, without reading the graph; a file is parsed to find its external data.

    Raises
    ------
    ModelError
        As `read_graph`, as far as it concerns the files.
    """
    path = Path(path)
    return _sha256((path, *_external(_parsed(path), path)))


def external_files(path: str | Path) -> tuple[Path, ...]:
    """Return where a model's external data belong, whether they are there or not.

    Raises
    ------
    ModelError
        If the file is no ONNX file, or names a place outside its own folder.
    """
    path = Path(path)
    return tuple(_external_places(_parsed(path), path))


def _sha256(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror or error}") from None
    return digest.hexdigest()


def declared_taps(metadata: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the entries of `geed.taps` that name a tensor, [] where there are none or they cannot be read."""
    entries = stated(metadata, "geed.taps", [])
    return [e for e in entries or () if isinstance(e, dict) and isinstance(e.get("name"), str)]


def stated(metadata: Mapping[str, str], key: str, absent: list[Any] | dict[str, Any]) -> Any:
    """Return what a property holds as JSON, `absent` where it is not there, None where it is of no such type."""
    try:
        value = json.loads(metadata[key]) if key in metadata else absent
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, type(absent)) else None


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor stored in a model: initialisers, Constant nodes, the bodies of If and Loop, functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _attribute_tensors(node.attribute)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        yield from _attribute_tensors(node.attribute)


def _attribute_tensors(attributes: Sequence[AttributeProto]) -> Iterator[TensorProto]:
    for a in attributes:
        if a.HasField("t"):
            yield a.t
        yield from a.tensors
        if a.HasField("g"):
            yield from _graph_tensors(a.g)
        for body in a.graphs:
            yield from _graph_tensors(body)


def location(tensor: TensorProto) -> str | None:
    """Return the external file that a tensor's values lie in, as written in the model, or None."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    return next((e.value for e in tensor.external_data if e.key == "location"), None)


def _parsed(path: Path) -> ModelProto:
    if path.is_dir():
        raise ModelError(f"{path} is a directory: an ONNX file was expected")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"no such file: {path}: an ONNX file was expected") from None
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None
    if not data:
        raise ModelError(f"{path} is empty: an ONNX file was expected")
    for magic, what in MAGIC.items():
        if data.startswith(magic):
            raise ModelError(f"{path} is no ONNX file but {what}")
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:  # protobuf's DecodeError, whose package has no types
        raise ModelError(f"{path} is no ONNX file, or a truncated one ({len(data)} bytes): it does not parse") from None
    if not model.ir_version or not (model.graph.node or model.graph.output):
        raise ModelError(f"{path} is no ONNX file, or a truncated one ({len(data)} bytes): it holds no graph")
    return model


MAGIC = {
    b"version https://git-lfs": "a Git LFS pointer: fetch it with `git lfs pull`",
    b"PK\x03\x04": "a zip archive (a PyTorch or Keras model?): export it to ONNX first",
    b"\x89HDF": "an HDF5 file (a Keras model?): export it to ONNX first",
    b"\x80\x02": "a pickle: export the model to ONNX first",
    b"<": "markup (a web page that was saved?)",
}


def _check_version(model: ModelProto, path: Path) -> None:
    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{path} has IR version {model.ir_version}; the installed onnx {onnx.__version__} reads up to "
            f"{onnx.IR_VERSION}: upgrade onnx, or export with an older IR"
        )
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise ModelError(
                f"{path} has opset {opset.version}; the installed onnx {onnx.__version__} knows up to {newest}: "
                "upgrade onnx, or export with an older opset"
            )


def _check_sizes(model: ModelProto, sizes: Mapping[str, tuple[int, ...]]) -> None:
    ports = {v.name: _port_shape(v) for v in runtime_inputs(model.graph)}
    for name, size in sizes.items():
        if name not in ports:
            raise UnknownName("model input", name, ports)
        shape = ports[name]
        fits = len(size) == len(shape) and all(
            n == s or not isinstance(s, int) for n, s in zip(size[1:], shape[1:], strict=True)
        )
        if not fits:
            raise UsageError(f"input {name!r} has shape {_printed(shape)}, which {_printed(size)} does not fit")


def _declared(metadata: Mapping[str, str], images: Sequence[str]) -> dict[str, str]:
    """Return the layouts that `geed.input` and `geed.taps` declare, by tensor name."""
    declared = {e["name"]: e["layout"] for e in declared_taps(metadata) if isinstance(e.get("layout"), str)}
    entry = stated(metadata, "geed.input", {}) or {}
    if isinstance(entry.get("layout"), str):
        name = entry.get("name", images[0] if images else None)
        if isinstance(name, str):
            declared[name] = entry["layout"]
    return {k: v for k, v in declared.items() if v.upper() in BY_NAME}


def _external(model: ModelProto, path: Path) -> tuple[Path, ...]:
    found = []
    for file in _external_places(model, path):
        if not file.is_file():
            name = str(file.relative_to(path.parent))
            raise ModelError(f"{path} keeps weights in {name!r}, which is not beside it: copy that file there")
        found.append(file)
    return tuple(found)


def _external_places(model: ModelProto, path: Path) -> Iterator[Path]:
    for name in dict.fromkeys(filter(None, map(location, tensors(model)))):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"{path} keeps weights in {name!r}, outside its own folder; ONNX Runtime refuses that too")
        yield path.parent / name


def _rank(v: onnx.ValueInfoProto) -> int | None:
    t = v.type.tensor_type
    return len(t.shape.dim) if t.HasField("shape") else None


def _port_shape(v: onnx.ValueInfoProto) -> tuple[int | str | None, ...]:
    dims = v.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.dim_value > 0 else d.dim_param or None for d in dims)


def _dtype(code: int) -> str:
    if code == TensorProto.BFLOAT16:
        return "bfloat16"
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, ValueError):
        return "unknown"


def _printed(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
