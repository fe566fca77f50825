"""Models with taps as outputs: truncated ones to run, whole ones to keep."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import onnx
from onnx import GraphProto, ModelProto, ValueInfoProto

from geed_onnx.errors import ModelError, UnknownName, UsageError
from geed_onnx.taps.choice import list_taps
from geed_onnx.taps.graph import Graph, declared_taps, image_inputs, location, tensors
from geed_onnx.taps.index import MARK, reads, runtime_inputs
from geed_onnx.taps.listing import Tap

Batch = Literal["keep", "dynamic"]
SYMBOL = "batch"


def exposed(graph: Graph, names: Sequence[str], *, batch: Batch = "keep") -> ModelProto:
    """Return a model whose outputs are exactly `names`, cut down to what they need.

    Local functions, metadata, opset imports and references to external data are kept; weights are not loaded, so
    serialise it and tell the runtime the folder of `graph.path`. Inputs that `names` do not need are gone.
    With `batch="dynamic"` the first axis of the inputs that share the image's fixed batch, and of the outputs, is
    rewritten to an open one. The nodes are untouched: a graph with the batch baked into a Reshape may then fail or mix
    images, so verify against single images before believing it.

    Raises
    ------
    UnknownName
        If a name is no tensor of the graph outside If and Loop bodies.
    UsageError
        If no name is given, or one is given twice.
    """
    _check_names(graph, names)
    source = graph.model.graph
    wanted = _wanted(source, names)
    model = _shell(graph.model)
    target = model.graph
    target.node.extend(n for n in source.node if any(o in wanted for o in n.output if o))
    target.initializer.extend(t for t in source.initializer if t.name in wanted)
    target.sparse_initializer.extend(t for t in source.sparse_initializer if t.values.name in wanted)
    target.input.extend(v for v in source.input if v.name in wanted)
    made = {o for n in target.node for o in n.output}
    declared = {v.name: v for v in source.output}
    target.output.extend(declared[n] if n in declared else _info(graph, n) for n in names)
    if batch == "dynamic":
        _open_batch(graph, target)
    else:
        target.value_info.extend(v for v in source.value_info if v.name in made and v.name not in names)
    return model


def save_exposed(graph: Graph, names: Sequence[str], path: str | Path) -> None:
    """Write the whole model with `names` as outputs behind the original ones, and `geed.taps` brought up to date.

    External data stays where it is when the file is written beside the original, and is copied beside the new file
    (as `NAME.data`) otherwise. The file passes onnx.checker if the original did.

    Raises
    ------
    UnknownName
        If a name is no tensor of the graph.
    UsageError
        If no name is given, one is given twice, or `path` is the model itself or one of its data files.
    ModelError
        If the file cannot be written, or does not pass the checker although the original does.
    """
    path = Path(path)
    _check_names(graph, names)
    if any(_same(path, p) for p in (graph.path, *graph.external)):
        raise UsageError(f"{path} is the model itself: choose another output file")
    model = ModelProto()
    model.CopyFrom(graph.model)
    model.graph.name = model.graph.name or "graph"  # some writers leave it out, and the checker wants one
    there = {v.name for v in model.graph.output}
    model.graph.output.extend(_info(graph, n) for n in names if n not in there)
    kept = [v for v in model.graph.value_info if v.name not in names]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    taps = {t.name: t for t in list_taps(graph)}
    _write_metadata(graph, model, [taps[n] for n in names if n in taps])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _same(path.parent, graph.path.parent):
            _copy_external(graph, model, path)
        path.write_bytes(model.SerializeToString())
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror or error}") from None
    _check(graph, path)


def _check_names(graph: Graph, names: Sequence[str]) -> None:
    if not names:
        raise UsageError("no tap is given: name at least one tensor to expose")
    for name in names:
        if name not in graph.index.own:
            raise UnknownName("tensor", name, graph.index.own, "tensors inside If and Loop bodies cannot be exposed")
        if list(names).count(name) > 1:
            raise UsageError(f"tap {name!r} is given twice: an output has one name")


def _wanted(source: GraphProto, names: Sequence[str]) -> set[str]:
    """Return all tensors that `names` need, by a backward walk over the file's own nodes."""
    makers = {o: n for n in source.node for o in n.output if o}
    wanted, left = set(names), list(names)
    while left:
        node = makers.get(left.pop())
        if node is not None:
            fresh = [n for n in reads(node) if n not in wanted]
            wanted.update(fresh)
            left.extend(fresh)
    return wanted


def _shell(model: ModelProto) -> ModelProto:
    """Return the model without its graph's contents."""
    shell = ModelProto(ir_version=model.ir_version)
    shell.producer_name, shell.producer_version = model.producer_name, model.producer_version
    shell.domain, shell.model_version, shell.doc_string = model.domain, model.model_version, model.doc_string
    shell.opset_import.extend(model.opset_import)
    shell.metadata_props.extend(model.metadata_props)
    shell.functions.extend(model.functions)
    shell.graph.name = model.graph.name or "graph"
    shell.graph.quantization_annotation.extend(model.graph.quantization_annotation)
    return shell


def _info(graph: Graph, name: str) -> ValueInfoProto:
    """Return the typed description of a tensor that becomes an output; open axes get names of their own."""
    value = graph.index.values.get(name)
    for written in graph.model.graph.value_info:
        if written.name == name and written.type.tensor_type.HasField("shape"):
            found: ValueInfoProto = written
            return found
    if value is None or not value.dtype:
        return ValueInfoProto(name=name)  # a runtime infers what is not written
    if value.shape is None:
        return _typed(name, value.dtype, None)
    dims: list[int | str] = []
    for axis, n in enumerate(value.shape):
        # sizes that only the caller bound are no property of the file, nor is what was computed from the batch mark
        sure = n is not None and not (graph.sizes and axis >= 2) and (n < MARK or graph.index.batch != MARK)
        dims.append(n if sure and n is not None else _symbol(graph) if n == MARK else f"{name}_dim_{axis}")
    return _typed(name, value.dtype, dims)


def _typed(name: str, dtype: int, dims: Sequence[int | str] | None) -> ValueInfoProto:
    info: ValueInfoProto = onnx.helper.make_tensor_value_info(name, dtype, dims)
    return info


def _symbol(graph: Graph) -> str:
    """Return the name of the file's open batch axis."""
    first = next((p.shape[0] for p in (*image_inputs(graph), *graph.inputs) if p.shape), None)
    return first if isinstance(first, str) and first != "?" else SYMBOL


def _open_batch(graph: Graph, target: GraphProto) -> None:
    """Open the first axis of inputs and outputs in place; shapes of inner tensors are not carried over."""
    fixed = graph.index.batch
    weights = {t.name for t in target.initializer}
    images = {p.name for p in image_inputs(graph)}
    for v in runtime_inputs(target):
        dims = v.type.tensor_type.shape.dim
        # a vector of one entry per image goes with the images; a scalar or a state of another length does not
        shared = v.name in images or (bool(dims) and dims[0].dim_value == fixed)
        if len(dims) >= 2 and shared and v.name not in weights and dims[0].HasField("dim_value"):
            dims[0].dim_param = SYMBOL
    for v in target.output:
        for dim in v.type.tensor_type.shape.dim[:1]:
            if dim.HasField("dim_value"):
                dim.dim_param = SYMBOL if dim.dim_value == fixed else f"{v.name}_dim_0"


def _write_metadata(graph: Graph, model: ModelProto, taps: Sequence[Tap]) -> None:
    """Bring `geed.taps` up to date with the taps, keeping what was declared of others and of these."""
    entries = {e["name"]: dict(e) for e in declared_taps(graph.metadata)}
    for tap in taps:
        entry = entries.setdefault(tap.name, {"name": tap.name})
        entry.setdefault("kind", tap.kind)
        entry.setdefault("layout", tap.layout)
        entry.setdefault("module", tap.module)
        if tap.role:
            entry.setdefault("role", tap.role)
    props = {p.key: p for p in model.metadata_props}
    for key, text in (
        ("geed.schema", graph.metadata.get("geed.schema", "1")),
        ("geed.taps", json.dumps([*entries.values()])),
    ):
        prop = props[key] if key in props else model.metadata_props.add(key=key)
        prop.value = text


def _copy_external(graph: Graph, model: ModelProto, path: Path) -> None:
    """Copy the external data beside `path` under names of its own, and point the tensors there."""
    moved: dict[str, str] = {}
    for tensor in tensors(model):
        old = location(tensor)
        if old is None:
            continue
        if old not in moved:
            moved[old] = f"{path.name}.data" if not moved else f"{path.name}.{len(moved)}.data"
            shutil.copyfile(graph.path.parent / old, path.parent / moved[old])
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = moved[old]


def _check(graph: Graph, path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        try:
            onnx.checker.check_model(str(graph.path))
        except Exception:  # the original does not pass either (an unknown domain, a loose writer): no fault of the taps
            return
        path.unlink(missing_ok=True)
        line = str(error).strip().splitlines()[0]
        raise ModelError(f"{path} with these taps does not pass onnx.checker: {line}") from None


def _same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)
