"""The graph as tables: who makes a tensor, who reads it, its type and shape, and whether it is a constant.

Everything else in this package asks these tables and never walks protobuf itself. Local functions are inlined in the
tables (names outside a function stay), so that what a function does to a layout is seen; `Index.own` says which
tensors really exist in the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from geed_onnx.taps.folding import MOST_KEPT, evaluate
from geed_onnx.taps.ops import RANDOM, SHAPE_READERS

Shape = tuple[int | None, ...]

# A dynamic batch is bound to a large prime for shape inference: a tensor whose first axis is this number is one
# entry per image, one whose first axis is a multiple of it has other axes folded in, and no real axis is this long.
MARK = 7919
ROUNDS = 8
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Value:
    """What is known of one tensor: the ONNX element type (0: unknown) and the shape (None: rank unknown)."""

    dtype: int
    shape: Shape | None


@dataclass(frozen=True, eq=False)
class Index:
    """The tables of one graph; `nodes` are in topological order and `reads[i]` includes what a body captures."""

    nodes: tuple[NodeProto, ...]
    reads: tuple[tuple[str, ...], ...]
    producer: Mapping[str, int]
    consumers: Mapping[str, tuple[int, ...]]
    values: Mapping[str, Value]
    known: Mapping[str, np.ndarray]
    constants: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    own: frozenset[str]
    batch: int | None

    def shape(self, name: str) -> Shape | None:
        """Return the shape of a tensor, batch included, or None where the rank is not known."""
        value = self.values.get(name)
        return value.shape if value else None

    def rank(self, name: str) -> int | None:
        """Return the rank of a tensor, batch included, or None."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def is_float(self, name: str) -> bool:
        """Return whether the tensor is known to hold floating-point numbers."""
        value = self.values.get(name)
        return value is not None and value.dtype in FLOATS

    def maker(self, name: str) -> NodeProto | None:
        """Return the node that makes a tensor, None for inputs and initialisers."""
        at = self.producer.get(name)
        return None if at is None else self.nodes[at]

    def variable(self, name: str) -> bool:
        """Return whether a tensor is an activation: named, and no constant."""
        return bool(name) and name not in self.constants


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """Return a node's attribute as a Python value, or `default`."""
    for a in node.attribute:
        if a.name == name:
            value: object = onnx.helper.get_attribute_value(a)
            return value
    return default


def integers(node: NodeProto, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
    """Return a list-of-integers attribute of a node."""
    value = attribute(node, name)
    return tuple(default) if value is None else tuple(int(v) for v in value)  # type: ignore[attr-defined]


def integer(node: NodeProto, name: str, default: int) -> int:
    """Return an integer attribute of a node."""
    value = attribute(node, name, default)
    return int(value)  # type: ignore[call-overload, no-any-return]


def told(index: Index, node: NodeProto, name: str, at: int) -> tuple[int, ...] | None:
    """Return integers that older files have as an attribute, newer ones as the input `at`; None where not known."""
    if attribute(node, name) is not None:
        return integers(node, name)
    value = index.known.get(node.input[at]) if len(node.input) > at else None
    return None if value is None else tuple(int(v) for v in value.reshape(-1))


def text(node: NodeProto, name: str, default: str = "") -> str:
    """Return a string attribute of a node."""
    value = attribute(node, name)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else default


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """Return the bodies of an If, Loop or Scan node."""
    found: list[GraphProto] = []
    for a in node.attribute:
        if a.type == AttributeProto.GRAPH:
            found.append(a.g)
        elif a.type == AttributeProto.GRAPHS:
            found.extend(a.graphs)
    return found


def reads(node: NodeProto) -> tuple[str, ...]:
    """Return what a node reads, in order, with the outer tensors its bodies capture."""
    names = [n for n in node.input if n]
    for body in subgraphs(node):
        inside = {v.name for v in body.input} | {t.name for t in body.initializer}
        for inner in body.node:
            names.extend(n for n in reads(inner) if n not in inside)
            inside.update(inner.output)
        names.extend(v.name for v in body.output if v.name not in inside)
    return tuple(dict.fromkeys(names))


def runtime_inputs(graph: GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs a caller feeds; initialisers, which are listed as inputs before IR 4, are never counted."""
    weights = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    return [v for v in graph.input if v.name not in weights]


def build(model: ModelProto, sizes: Mapping[str, tuple[int, ...]]) -> Index:
    """Return the tables of a model; `sizes` binds the axes that the file leaves open (input name -> full shape)."""
    lean, batch = _lean(model), None
    _bind(lean, sizes)
    inputs = tuple(v.name for v in runtime_inputs(model.graph))
    for v in lean.graph.input:
        dims = v.type.tensor_type.shape.dim
        if v.name in inputs and len(dims) >= 2 and dims[0].HasField("dim_value"):
            first = dims[0].dim_value
            # an image decides over a recurrent state or a vector that happens to stand first
            batch = first if batch is None or (len(dims) == 4 and batch != MARK) else batch
    lean = _inlined(lean)
    for node in lean.graph.node:
        node.domain = "" if node.domain == "ai.onnx" else node.domain  # two names of one
    nodes = _ordered(lean.graph)
    del lean.graph.node[:]
    lean.graph.node.extend(nodes)
    values, known = _inferred(lean, nodes)
    constants = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    constants |= set(known) - set(inputs)
    read = tuple(reads(n) for n in nodes)
    producer: dict[str, int] = {}
    consumers: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        producer.update({o: i for o in node.output if o})
        for name in read[i]:
            consumers.setdefault(name, []).append(i)
        if node.op_type not in RANDOM and all(n in constants for n in read[i]):
            constants.update(o for o in node.output if o)
    return Index(
        nodes=nodes,
        reads=read,
        producer=producer,
        consumers={k: tuple(v) for k, v in consumers.items()},
        values=values,
        known=known,
        constants=frozenset(constants),
        inputs=inputs,
        outputs=tuple(v.name for v in model.graph.output),
        own=frozenset(o for n in model.graph.node for o in n.output if o),
        batch=batch,
    )


def reached(index: Index, sources: Iterable[str]) -> frozenset[str]:
    """Return the tensors whose values depend on `sources`; reading a shape is no dependence."""
    seen = set(sources)
    for i, node in enumerate(index.nodes):
        if node.op_type not in SHAPE_READERS and any(n in seen for n in index.reads[i]):
            seen.update(o for o in node.output if o)
    return frozenset(seen)


def needed(index: Index, targets: Iterable[str]) -> frozenset[str]:
    """Return the tensors that `targets` are computed from, themselves included."""
    seen = set(targets)
    for i in range(len(index.nodes) - 1, -1, -1):
        if any(o in seen for o in index.nodes[i].output):
            seen.update(index.reads[i])
    return frozenset(seen)


def _lean(model: ModelProto) -> ModelProto:
    """Copy what shape inference needs: large weights become typed inputs, so that no gigabyte is copied."""
    lean = ModelProto(ir_version=model.ir_version)
    for opset in model.opset_import:
        lean.opset_import.add(domain="" if opset.domain == "ai.onnx" else opset.domain, version=opset.version)
    lean.functions.extend(model.functions)
    graph = lean.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    listed = {v.name for v in graph.input}
    for t in model.graph.initializer:
        if math.prod(t.dims) <= MOST_KEPT and t.data_location != TensorProto.EXTERNAL:
            graph.initializer.append(t)
        elif t.name not in listed:
            graph.input.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
    for s in model.graph.sparse_initializer:
        if s.values.name not in listed:
            info = onnx.helper.make_tensor_value_info(s.values.name, s.values.data_type, list(s.dims))
            graph.input.append(info)
    return lean


def _bind(lean: ModelProto, sizes: Mapping[str, tuple[int, ...]]) -> None:
    """Bind a dynamic first axis of an input to `MARK`, and the axes that `sizes` names to their sizes, in place."""
    graph = lean.graph
    bound: dict[str, int] = {}
    for v in graph.input:
        dims = v.type.tensor_type.shape.dim
        names = [d.dim_param for d in dims]
        for axis, dim in enumerate(dims):
            if dim.dim_value > 0:
                continue
            size = MARK if axis == 0 and len(dims) > 1 else sizes.get(v.name, (0,) * len(dims))[axis]
            if size > 0:
                # some writers call every open axis "?": a name that stands twice in one shape names nothing
                if dim.dim_param and dim.dim_param != "?" and names.count(dim.dim_param) == 1:
                    bound.setdefault(dim.dim_param, size)
                dim.dim_value = size
    if sizes:  # shapes that were written for other sizes would contradict these
        del graph.value_info[:]
        for v in graph.output:
            v.type.tensor_type.ClearField("shape")
    for v in [*graph.input, *graph.output, *graph.value_info]:
        for dim in v.type.tensor_type.shape.dim:
            if dim.dim_param in bound:
                dim.dim_value = bound[dim.dim_param]


def _inlined(lean: ModelProto) -> ModelProto:
    if not lean.functions:
        return lean
    from onnx import inliner

    try:
        return inliner.inline_local_functions(lean)
    except Exception:  # the functions stay closed boxes; nothing else is lost
        return lean


def _ordered(graph: GraphProto) -> tuple[NodeProto, ...]:
    """Return the nodes in topological order; the standard asks for it and not every writer obeys."""
    left, done, order = list(graph.node), set[str](), list[NodeProto]()
    made = {o for n in left for o in n.output if o}
    while left:
        later = []
        for node in left:
            if all(n in done or n not in made for n in reads(node)):
                order.append(node)
                done.update(node.output)
            else:
                later.append(node)
        if len(later) == len(left):  # a cycle: keep the file's order rather than lose nodes
            return (*order, *later)
        left = later
    return tuple(order)


def _infer(model: ModelProto) -> ModelProto:
    """Infer shapes from the inputs on; what the file itself says of inner tensors only fills what stays unknown.

    Written shapes can be stale (another batch, another size), and inference would believe them.
    """
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for v in bare.graph.output:
        v.type.tensor_type.ClearField("shape")
    inferred = _tried(bare)
    values = _values(inferred)
    outputs = {v.name: v for v in bare.graph.output}
    filled = False
    for v in [*model.graph.value_info, *model.graph.output]:
        if _adds(_value(v), values.get(v.name, Value(0, None))):
            target = outputs[v.name] if v.name in outputs else bare.graph.value_info.add()
            target.CopyFrom(v)
            filled = True
    return _tried(bare) if filled else inferred


def _tried(model: ModelProto) -> ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    except Exception:  # shapes stay unknown; a file is not refused for them
        return model


def _adds(written: Value, inferred: Value) -> bool:
    """Return whether a written shape says more than the inferred one, and nothing against it."""
    if written.shape is None or inferred.shape is None:
        return written.shape is not None
    if len(written.shape) != len(inferred.shape):
        return False
    pairs = list(zip(written.shape, inferred.shape, strict=True))
    agrees = all(w is None or n is None or w == n for w, n in pairs)
    return agrees and any(w is not None and n is None for w, n in pairs)


def _value(v: onnx.ValueInfoProto) -> Value:
    t = v.type.tensor_type
    shape = None
    if t.HasField("shape"):
        shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in t.shape.dim)
    return Value(t.elem_type, shape)


def _values(model: ModelProto) -> dict[str, Value]:
    graph = model.graph
    values = {v.name: _value(v) for v in [*graph.value_info, *graph.output, *graph.input]}
    values.update({i.name: Value(i.data_type, tuple(i.dims)) for i in graph.initializer})
    return values


def _inferred(lean: ModelProto, nodes: Sequence[NodeProto]) -> tuple[dict[str, Value], dict[str, np.ndarray]]:
    """Return types and shapes, and the small tensors whose values are known, shape arithmetic included.

    onnx's own data propagation gives up at many ops (a Resize whose size is cut from a Shape, say), and everything
    downstream loses its shape. Here what can be computed is computed, put in as an initialiser, and inferred again.
    """
    known = {t.name: numpy_helper.to_array(t) for t in lean.graph.initializer}
    opset = next((o.version for o in lean.opset_import if not o.domain), 1)
    values: dict[str, Value] = {}
    work = ModelProto()
    work.CopyFrom(lean)
    for _ in range(ROUNDS):
        values = _values(_infer(work)) | {k: v for k, v in values.items() if k in known}
        fresh: dict[str, np.ndarray] = {}
        for node in nodes:
            if node.output and node.output[0] not in known:
                shape = values.get(node.input[0], Value(0, None)).shape if node.input else None
                result = evaluate(node, [known.get(n) for n in node.input], shape, opset)
                if result is not None:
                    fresh[node.output[0]] = known[node.output[0]] = result
        if not fresh:
            break
        values.update({k: Value(onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for k, a in fresh.items()})
        if not _would_help(nodes, fresh, values):
            break
        kept = [n for n in work.graph.node if not (n.output and n.output[0] in fresh)]
        del work.graph.node[:]
        work.graph.node.extend(kept)
        work.graph.initializer.extend(numpy_helper.from_array(a, k) for k, a in fresh.items())
    return values, known


def _would_help(nodes: Iterable[NodeProto], fresh: Mapping[str, np.ndarray], values: Mapping[str, Value]) -> bool:
    for node in nodes:
        if any(n in fresh for n in node.input):
            for out in node.output:
                shape = values.get(out, Value(0, None)).shape
                if out and out not in fresh and (shape is None or None in shape):
                    return True
    return False
