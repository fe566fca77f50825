"""From a traced TensorFlow function to an ONNX graph whose outputs carry the layers' paths."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from geed_exporters.errors import NotExportable
from geed_exporters.export import InputSpec, Layout
from geed_exporters.graphs import needed, nodes, rename, state_shapes
from geed_exporters.keras import frameworks

TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


def converted(function: Any, spec: Any, names: Sequence[str], *, opset: int, channels_first: bool) -> onnx.ModelProto:
    """Return the ONNX model of a `tf.function` that returns as many tensors as there are `names`.

    The input keeps the name of `spec`, with axes `(B, C, H, W)` if `channels_first`; outputs are as TensorFlow has
    them.

    Raises
    ------
    NotExportable
        If an operation has no ONNX form; the message names it and the layer.
    """
    convert = frameworks.tf2onnx()
    concrete = function.get_concrete_function(spec)
    given = [t.name for t in concrete.outputs]
    try:
        with frameworks.quiet():
            model: onnx.ModelProto = convert.from_function(
                function,
                [spec],
                opset=opset,
                inputs_as_nchw=[concrete.inputs[0].name] if channels_first else None,
                custom_op_handlers={"Erfc": (_erfc, [])},
            )[0]
    except Exception as error:  # tf2onnx raises whatever its handlers raise
        raise NotExportable(f"tf2onnx cannot convert the model: {frameworks.words(error)}") from error
    _all_known(model, opset)
    _hold_constants(model.graph, concrete)
    _cancel_transposes(model.graph)
    _rename(model.graph, dict(zip(given, names, strict=True)))
    _name_batch(model.graph)
    # the converter moves transpositions about without telling the shapes it noted; readers infer their own
    del model.graph.value_info[:]
    model.graph.name = "keras"
    return model


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Write erfc(x) as 1 − erf(x): TensorFlow computes GELU by it, and tf2onnx has no word for it."""
    x, dtype = node.input[0], ctx.get_dtype(node.input[0])
    one = ctx.make_const(f"{name}_one", np.array(1, helper.tensor_dtype_to_np_dtype(dtype)))
    shapes, outputs = node.output_shapes, node.output
    erf = ctx.make_node("Erf", [x], name=f"{name}_erf", shapes=shapes, dtypes=[dtype])
    ctx.remove_node(name)
    inputs = [one.output[0], erf.output[0]]
    ctx.make_node("Sub", inputs, name=name, outputs=outputs, shapes=shapes, dtypes=[dtype])


def _hold_constants(graph: onnx.GraphProto, concrete: Any) -> None:
    """Put tensors that layers hold outside their variables (a Normalization's mean) into the graph.

    TensorFlow's tracing turns them into inputs of the function.
    """
    captured = concrete.captured_inputs
    names = [t.name for t in concrete.inputs[len(concrete.inputs) - len(captured) :]]
    held = {n: t for n, t in zip(names, captured, strict=True) if t.dtype.name != "resource"}
    for item in [i for i in graph.input if i.name in held]:
        graph.input.remove(item)
        if any(item.name in node.input for node in nodes(graph)):
            graph.initializer.append(numpy_helper.from_array(held[item.name].numpy(), item.name))


def _all_known(model: onnx.ModelProto, opset: int) -> None:
    unknown = {
        node.op_type: node.name
        for node in nodes(model.graph)
        if node.domain not in DOMAINS or not onnx.defs.has(node.op_type, opset if node.domain == "" else 2, node.domain)
    }
    if unknown:
        listed = ", ".join(f"{op} (at {where.rpartition('/')[0] or where})" for op, where in unknown.items())
        raise NotExportable(
            f"no ONNX form for the TensorFlow operation{'s' if len(unknown) > 1 else ''} {listed}: write that layer"
            " with other operations (keras.ops), or tap and export the part of the model before it"
        )


def _cancel_transposes(graph: onnx.GraphProto) -> None:
    """Read past pairs of transpositions that undo each other, which the converter leaves behind at tapped tensors."""
    made = {o: node for node in graph.node for o in node.output}
    outputs = {o.name for o in graph.output}
    instead: dict[str, str] = {}
    for node in graph.node:
        if _perm(node) not in (TO_FIRST, TO_LAST):
            continue
        before = made.get(node.input[0])
        if before is None or {_perm(node), _perm(before)} != {TO_FIRST, TO_LAST}:
            continue
        source = instead.get(before.input[0], before.input[0])
        if node.output[0] in outputs:
            node.op_type, node.input[0] = "Identity", source
            del node.attribute[:]
        else:
            instead[node.output[0]] = source
    for node in nodes(graph):
        node.input[:] = [instead.get(name, name) for name in node.input]
    kept = needed(graph.node, outputs)
    del graph.node[:]
    graph.node.extend(kept)


def _perm(node: onnx.NodeProto) -> tuple[int, ...] | None:
    return tuple(node.attribute[0].ints) if node.op_type == "Transpose" and node.attribute else None


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors everywhere; one that bears a wanted name by chance makes room."""
    taken = {o for n in nodes(graph) for o in n.output} | {i.name for i in graph.initializer}
    taken |= {i.name for i in graph.input}
    new = dict(names)
    for name in names.values():
        if name in taken and name not in names:
            new[name] = next(f"{name}__{k}" for k in range(len(taken) + 1) if f"{name}__{k}" not in taken)
    rename(graph, new.get)


def _name_batch(graph: onnx.GraphProto) -> None:
    """Call the free first axis `batch`, and leave other free axes nameless: the converter numbers them all."""
    for item in (*graph.input, *graph.output, *graph.value_info):
        for k, dim in enumerate(item.type.tensor_type.shape.dim):
            if dim.HasField("dim_param") or not dim.HasField("dim_value"):
                dim.Clear()
                if k == 0:
                    dim.dim_param = "batch"


def layouts(model: onnx.ModelProto, spec: InputSpec, names: Sequence[str]) -> dict[str, Layout | None]:
    """Return the layout of tensors of rank 4, by what the graph says of them, the input being declared."""
    from geed_onnx.taps import graph_of

    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    entry = {"name": spec.name, "layout": spec.layout}
    seen.metadata_props.add(key="geed.input", value=json.dumps(entry))
    graph = graph_of(seen)
    return {name: graph.layout(name) for name in names}  # type: ignore[misc]


def to_channels_first(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    """Turn outputs `(B, H, W, C)` into `(B, C, H, W)` of the same name."""
    outputs = {o.name: o for o in graph.output}
    inner = {name: f"{name}__channels_last" for name in names}
    for node in nodes(graph):
        node.input[:] = [inner.get(n, n) for n in node.input]
        node.output[:] = [inner.get(n, n) for n in node.output]
    for name, last in inner.items():
        graph.node.append(helper.make_node("Transpose", [last], [name], name=f"{name}__channels_first", perm=TO_FIRST))
        _, h, w, c = [d.dim_param or d.dim_value for d in outputs[name].type.tensor_type.shape.dim]
        state_shapes(graph, {name: (c, h, w)}, "batch")
    _cancel_transposes(graph)
