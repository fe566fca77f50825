"""Small tensors of known value: the arithmetic on shapes that exporters leave in the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

# larger tensors are weights, of which only the shape matters here
MOST_KEPT = 512

Known = Sequence[np.ndarray | None]


def evaluate(node: NodeProto, inputs: Known, shape: tuple[int | None, ...] | None) -> np.ndarray | None:
    """Return the value of a node's first output if it is small and can be told, else None.

    `inputs` are the values of the node's inputs where known (None elsewhere), `shape` the shape of its first input.
    """
    if node.domain not in ("", "ai.onnx"):
        return None
    attributes = {a.name: a for a in node.attribute}
    if node.op_type == "Constant":
        return _constant(attributes)
    if node.op_type == "Shape":
        if shape is None:
            return None
        start, end = _int(attributes, "start", 0), _int(attributes, "end", len(shape))
        part = shape[start:end]
        return None if None in part else np.array(part, np.int64)
    rule = RULES.get(node.op_type)
    if rule is None or not inputs or any(x is None for x, n in zip(inputs, node.input, strict=True) if n):
        return None
    try:
        result = np.asarray(rule([x for x in inputs if x is not None], attributes))
    except (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError, MemoryError):
        return None
    return result if result.size <= MOST_KEPT else None


def _constant(attributes: dict[str, Any]) -> np.ndarray | None:
    for name, dtype in (("value_int", np.int64), ("value_ints", np.int64)):
        if name in attributes:
            return np.array(onnx.helper.get_attribute_value(attributes[name]), dtype)
    for name in ("value_float", "value_floats"):
        if name in attributes:
            return np.array(onnx.helper.get_attribute_value(attributes[name]), np.float32)
    if "value" in attributes:
        tensor = attributes["value"].t
        size = int(np.prod(tensor.dims)) if len(tensor.dims) else 1
        if size <= MOST_KEPT and tensor.data_location != TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor)
    return None


def _int(attributes: dict[str, Any], name: str, default: int) -> int:
    return int(attributes[name].i) if name in attributes else default


def _axes(x: Sequence[np.ndarray], attributes: dict[str, Any]) -> tuple[int, ...] | None:
    """Return the axes of Squeeze or Unsqueeze: an attribute before opset 13, an input since."""
    if len(x) > 1:
        return tuple(int(a) for a in x[1].reshape(-1))
    return tuple(attributes["axes"].ints) if "axes" in attributes else None


def _unsqueeze(x: Sequence[np.ndarray], a: dict[str, Any]) -> np.ndarray:
    axes = _axes(x, a)
    if axes is None:
        raise ValueError("Unsqueeze without axes")
    return np.expand_dims(x[0], axes)


def _slice(x: Sequence[np.ndarray], a: dict[str, Any]) -> np.ndarray:
    if len(x) == 1:
        starts, ends = a["starts"].ints, a["ends"].ints
        axes = a["axes"].ints if "axes" in a else range(len(starts))
        steps: Sequence[int] = [1] * len(starts)
    else:
        starts, ends = x[1].tolist(), x[2].tolist()
        axes = x[3].tolist() if len(x) > 3 else range(len(starts))
        steps = x[4].tolist() if len(x) > 4 else [1] * len(starts)
    cut = [slice(None)] * x[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # an end before the first element cannot be written as a non-negative stop when stepping backwards
        cut[axis] = slice(start, None if step < 0 and end < -x[0].shape[axis] else end, step)
    return x[0][tuple(cut)]


def _divide(x: Sequence[np.ndarray], _: dict[str, Any]) -> np.ndarray:
    quotient = x[0] / x[1]
    result: np.ndarray = (np.trunc(quotient) if x[0].dtype.kind in "iu" else quotient).astype(x[0].dtype)
    return result


def _cast(x: Sequence[np.ndarray], a: dict[str, Any]) -> np.ndarray:
    return x[0].astype(onnx.helper.tensor_dtype_to_np_dtype(a["to"].i))


def _reshape(x: Sequence[np.ndarray], _: dict[str, Any]) -> np.ndarray:
    return x[0].reshape([x[0].shape[i] if n == 0 else n for i, n in enumerate(x[1].tolist())])


def _filled(x: Sequence[np.ndarray], a: dict[str, Any]) -> np.ndarray:
    if np.prod(x[0]) > MOST_KEPT:
        raise MemoryError
    value = numpy_helper.to_array(a["value"].t).reshape(-1)[0] if "value" in a else np.float32(0)
    return np.full(x[0].tolist(), value)


def _range(x: Sequence[np.ndarray], _: dict[str, Any]) -> np.ndarray:
    if abs(float(x[1]) - float(x[0])) > MOST_KEPT * abs(float(x[2])):
        raise MemoryError
    return np.arange(x[0].item(), x[1].item(), x[2].item(), dtype=x[0].dtype)


def _expand(x: Sequence[np.ndarray], _: dict[str, Any]) -> np.ndarray:
    if np.prod(x[1]) > MOST_KEPT:
        raise MemoryError
    return x[0] * np.ones(x[1].tolist(), x[0].dtype)


RULES: dict[str, Callable[[Sequence[np.ndarray], dict[str, Any]], Any]] = {
    "Identity": lambda x, a: x[0],
    "Gather": lambda x, a: np.take(x[0], x[1], axis=_int(a, "axis", 0)),
    "Concat": lambda x, a: np.concatenate(x, axis=_int(a, "axis", 0)),
    "Squeeze": lambda x, a: np.squeeze(x[0], _axes(x, a)),
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Cast": _cast,
    "Reshape": _reshape,
    "ConstantOfShape": _filled,
    "Range": _range,
    "Expand": _expand,
    "Add": lambda x, a: x[0] + x[1],
    "Sub": lambda x, a: x[0] - x[1],
    "Mul": lambda x, a: x[0] * x[1],
    "Div": _divide,
    "Neg": lambda x, a: -x[0],
    "Floor": lambda x, a: np.floor(x[0]),
    "Ceil": lambda x, a: np.ceil(x[0]),
    "Equal": lambda x, a: x[0] == x[1],
    "Where": lambda x, a: np.where(x[0], x[1], x[2]),
    "ReduceProd": lambda x, a: np.prod(x[0], keepdims=bool(_int(a, "keepdims", 1))).astype(x[0].dtype),
}
