"""Steps into one ONNX graph: each estimator is converted by itself and joined to the tensors of the steps before it.

Step by step, because a pipeline converted at once tells neither which tensor a step gave nor which step has no ONNX
form; and every tensor then carries its step's name.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from geed_exporters.errors import NotExportable, first_line
from geed_exporters.export import Array, InputSpec
from geed_exporters.graphs import needed, reads, rename
from geed_exporters.sklearn.plan import Step

IR_VERSION = 10
ML_OPSET = 3
SHORT, LONG = 15, 22
"""Opsets that skl2onnx is tested with, as far as this needs them."""


def converted(
    steps: Sequence[Step], widths: Mapping[str, int], spec: InputSpec, taps: Sequence[str], opset: int
) -> onnx.ModelProto:
    """Return the graph of all steps with `taps` as outputs `(batch, width)`; what no tap needs is left out.

    `widths` has the width of every step's output, every hidden layer, and, under `""`, of the flattened input.

    Raises
    ------
    NotExportable
        If a step has no ONNX form.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    flat = spec.name
    if len(spec.shape) > 1:
        flat = "flattened"
        nodes.append(helper.make_node("Flatten", [spec.name], [flat], name="flatten", axis=1))
    names = {"": flat}
    for step in steps:
        taken = [names[source] for source in step.sources]
        names[step.output] = step.output
        if step.estimator is None:
            nodes.append(helper.make_node("Concat", taken, [step.output], name=step.output, axis=1))
            continue
        part = _one(step, widths[step.sources[0]], opset)
        _join(part.graph, step, taken[0])
        nodes.extend(part.graph.node)
        weights.extend(part.graph.initializer)
    nodes = needed(nodes, taps)
    used = {name for node in nodes for name in reads(node)}
    outputs = [helper.make_tensor_value_info(tap, TensorProto.FLOAT, ["batch", widths[tap]]) for tap in taps]
    graph = helper.make_graph(
        nodes,
        "sklearn",
        [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, ["batch", *spec.shape])],
        outputs,
        [w for w in weights if w.name in used],
    )
    imports = [helper.make_opsetid("", opset)]
    if any(node.domain == "ai.onnx.ml" for node in nodes):
        imports.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="skl2onnx")


def _one(step: Step, width: int, opset: int) -> onnx.ModelProto:
    """Convert one estimator; its graph takes `X` and gives a float tensor named as the step's output."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common._registration import get_converter
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    # skl2onnx names the function that looks an estimator's converter up only from this module
    from skl2onnx._supported_operators import get_model_alias  # isort: skip

    kind = type(step.estimator).__name__
    where = f"step {step.path!r} ({kind})" if step.path else kind
    try:
        alias = get_model_alias(type(step.estimator))
    except RuntimeError as error:
        raise NotExportable(f"{where} has no ONNX form: skl2onnx has no converter for {kind}") from error
    try:
        allowed = get_converter(alias).get_allowed_options() or {}
        wanted = {"zipmap": False, "raw_scores": step.method == "decision_function"}
        chosen = {key: value for key, value in wanted.items() if key in allowed}
        with warnings.catch_warnings():
            # what skl2onnx uses of scikit-learn that is about to go is not the caller's to mend
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            model: onnx.ModelProto = convert_sklearn(
                step.estimator,
                initial_types=[("X", FloatTensorType([None, width]))],
                options={id(step.estimator): chosen} if chosen else None,
                target_opset={"": opset, "ai.onnx.ml": ML_OPSET},
            )
    except (MissingConverter, MissingShapeCalculator) as error:
        raise NotExportable(f"{where} has no ONNX form: skl2onnx has no converter for {kind}") from error
    except Exception as error:  # converters raise RuntimeError, ValueError, NameError, KeyError, …
        raise NotExportable(f"{where} has no ONNX form: {type(error).__name__}: {first_line(error, 200)}") from error
    _as_output(model.graph, step, where)
    for layer, tensor in zip(step.hidden, _hidden(model.graph, step), strict=True):
        rename(model.graph, {tensor: layer}.get)
    return model


def _as_output(graph: onnx.GraphProto, step: Step, where: str) -> None:
    """Give the tensor that the step's method returns the step's name, as float32."""
    outputs = {o.name: o for o in graph.output}
    found = next((n for n in ("probabilities", "scores", "variable") if n in outputs), None)
    if step.method == "transform" and found == "probabilities":
        raise NotExportable(f"{where} has an ONNX form as a classifier only, not as a transformer")
    if found is None:
        floats = [o.name for o in graph.output if o.name != "label"]
        if len(floats) != 1:
            raise NotExportable(f"{where} gives {', '.join(outputs)} in ONNX; expected one matrix")
        found = floats[0]
    value = outputs[found]
    if value.type.WhichOneof("value") != "tensor_type":
        raise NotExportable(f"{where} gives no tensor in ONNX, but a {value.type.WhichOneof('value')}")
    result = found
    if value.type.tensor_type.elem_type != TensorProto.FLOAT:
        result = "as_float"
        graph.node.append(helper.make_node("Cast", [found], [result], name="cast_output", to=TensorProto.FLOAT))
    if step.method == "decision_function" and len(step.estimator.classes_) == 2:
        # skl2onnx gives a column a class, scikit-learn the second one's only
        graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "second"))
        graph.node.append(helper.make_node("Gather", [result, "second"], ["of_second"], name="of_second", axis=1))
        result = "of_second"
    # a path has dots, and no tensor of skl2onnx has: the name is free
    rename(graph, {result: f".{step.output}"}.get)


def _hidden(graph: onnx.GraphProto, step: Step) -> list[str]:
    """Return the tensors of a perceptron's hidden layers: what each further weight matrix is multiplied with."""
    if not step.hidden:
        return []
    held = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    found: list[str] = []
    for matrix in step.estimator.coefs_[1:]:
        layer = next((n.input[0] for n in graph.node if _multiplies(n, matrix, held)), None)
        if layer is None:
            raise NotExportable(
                f"the hidden layers of {step.path or 'the perceptron'} are not found in what skl2onnx made of it; this"
                " version of skl2onnx converts them in another way than 1.20"
            )
        found.append(layer)
    return found


def _multiplies(node: onnx.NodeProto, matrix: Array, held: Mapping[str, Array]) -> bool:
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in held:
        return False
    there = held[node.input[1]]
    return there.shape == matrix.shape and np.array_equal(there, matrix.astype(there.dtype))


def _join(graph: onnx.GraphProto, step: Step, source: str) -> None:
    """Rename a part's tensors and nodes: its input, its taps, and all else with the step's path before it."""
    prefix = step.path or type(step.estimator).__name__.lower()
    kept = {f".{step.output}": step.output, "X": source} | {layer: layer for layer in step.hidden}
    rename(graph, lambda name: kept.get(name, f"{prefix}/{name}"))
    for node in graph.node:
        node.name = f"{prefix}/{node.name}"
