"""What the exporters do to an ONNX graph that a converter made, bodies of loops and branches included."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs inside a node: the body of a scan or a loop, the branches of a choice."""
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else a.graphs)]


def graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph, or a function, and all graphs that lie in it, at any depth."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of all that lie in it."""
    return (node for inner in graphs(graph) for node in inner.node)


def rename(graph: onnx.GraphProto, new: Callable[[str], str | None]) -> None:
    """Rename a graph's tensors in place; where `new` gives None the name stays."""

    def name(old: str) -> str:
        return (new(old) or old) if old else old  # an empty name is an input left out

    for inner in graphs(graph):
        for node in inner.node:
            node.input[:] = map(name, node.input)
            node.output[:] = map(name, node.output)
        for item in (*inner.input, *inner.output, *inner.initializer, *inner.value_info):
            item.name = name(item.name)


def reads(node: onnx.NodeProto) -> set[str]:
    """Return the tensors a node needs, those that its bodies take from outside included."""
    return {name for inner in (node, *(n for body in bodies(node) for n in nodes(body))) for name in inner.input}


def needed(given: Sequence[onnx.NodeProto], wanted: Collection[str]) -> list[onnx.NodeProto]:
    """Return copies of the nodes that some wanted tensor needs, in order; nodes stand behind what they read."""
    read = set(wanted)
    kept = []
    for node in reversed(given):
        if read & set(node.output):
            # a copy: clearing the list that a node lies in would empty the node itself
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            read |= reads(node)
    return kept[::-1]


def state_shapes(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]], batch: str) -> None:
    """State the shapes of outputs, `(batch, *shape)`: converters do not know them all, or leave stale ones behind."""
    for item in graph.output:
        if item.name in shapes:
            kind = item.type.tensor_type.elem_type
            item.CopyFrom(helper.make_tensor_value_info(item.name, kind, [batch, *shapes[item.name]]))
