"""Small tensors of known value: the arithmetic on shapes that exporters leave in the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto
from onnx.helper import make_graph

from geed_onnx.taps.ops import FOLDED

# larger tensors are weights, of which only the shape matters here
MOST_KEPT = 512


def evaluate(
    node: NodeProto, inputs: Sequence[np.ndarray | None], shape: tuple[int | None, ...] | None, opset: int
) -> np.ndarray | None:
    """Return the value of a node's first output if it is small and can be told, else None.

    `inputs` are the values of the node's inputs where known (None elsewhere), `shape` the shape of its first input.
    """
    if node.domain or (node.op_type == "Shape" and shape is None):
        return None
    if shape is not None and node.op_type == "Shape":
        ends = {a.name: a.i for a in node.attribute}
        part = shape[ends.get("start", 0) : ends.get("end", len(shape))]
        return None if None in part else np.array(part, np.int64)
    given = {n: x for n, x in zip(node.input, inputs, strict=True) if n}
    known = {n: x for n, x in given.items() if x is not None}
    if node.op_type not in FOLDED or len(known) < len(given):
        return None
    from onnx.reference import ReferenceEvaluator

    try:
        # by place: one tensor may be several of a node's inputs
        if _length(node, [x for x in inputs if x is not None]) > MOST_KEPT:
            return None
        graph = make_graph([node], "node", [], [])
        outputs: Any = ReferenceEvaluator(graph, opsets={"": opset}).run([node.output[0]], known)
    except Exception:  # what the reference cannot compute stays unknown; it has errors of many kinds
        return None
    value = np.asarray(outputs[0])
    return value if value.dtype.kind in "biuf" and value.size <= MOST_KEPT else None


def _length(node: NodeProto, x: Sequence[np.ndarray]) -> float:
    """Return how many entries what is made anew will have, before it is made; 0 for what only moves its inputs."""
    if node.op_type == "Constant":
        tensors = [a.t for a in node.attribute if a.name == "value"]
        external = any(t.data_location == TensorProto.EXTERNAL for t in tensors)
        return float("inf") if external else sum(float(np.prod(t.dims)) for t in tensors)
    if node.op_type == "Range":
        return abs(float(x[1]) - float(x[0])) / abs(float(x[2]))
    if node.op_type == "Where":
        return float(math.prod(np.broadcast_shapes(*(each.shape for each in x))))
    return float(np.prod(x[-1])) if node.op_type in ("ConstantOfShape", "Expand") else 0.0
