"""ONNX Runtime's optimiser takes zero padding before max pooling for padding with minus infinity."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from geed_exporters import Export, InputSpec, Source, TapEntry
from geed_exporters.pooling import keep_zero_padding
from geed_exporters.writing import finished


def padded_pool(opset: int = 20, *, between: bool = False) -> onnx.ModelProto:
    """Pad by a pixel of zeros, then the maximum of 3x3 with stride 2: (B, 2, 8, 8) to (B, 2, 4, 4)."""
    nodes = [helper.make_node("Pad", ["x", "pads", "zero"], ["p"])]
    if between:
        nodes.append(helper.make_node("Identity", ["p"], ["q"]))
    source = "q" if between else "p"
    nodes.append(helper.make_node("MaxPool", [source], ["y"], kernel_shape=[3, 3], strides=[2, 2]))
    weights = [
        numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"),
        numpy_helper.from_array(np.float32(0), "zero"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2, 4, 4])
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


NEGATIVE = -1 - np.random.default_rng(0).random((3, 2, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("opset", [13, 20, 22])
def test_zeros_at_the_border_win_over_negative_values(opset: int, between: bool) -> None:
    model = padded_pool(opset, between=between)
    assert keep_zero_padding(model) == ("y",)
    onnx.checker.check_model(model, full_check=True)
    y = run(model, NEGATIVE)
    assert (y[:, :, 0] == 0).all()
    assert (y[:, :, :, 0] == 0).all()
    inner = np.lib.stride_tricks.sliding_window_view(NEGATIVE, (3, 3), axis=(2, 3))[:, :, 1::2, 1::2].max((-2, -1))
    assert (y[:, :, 1:, 1:] == inner).all()


def test_pools_without_padding_before_them_are_left_alone() -> None:
    model = padded_pool()
    model.graph.node[0].op_type = "Relu"
    del model.graph.node[0].input[1:]
    assert keep_zero_padding(model) == ()
    assert [len(node.output) for node in model.graph.node] == [1, 1]


def test_every_written_file_is_treated() -> None:
    export = Export(
        model=padded_pool(),
        input=InputSpec("x", (2, 8, 8), "NCHW"),
        taps=(TapEntry("y", "map", "NCHW", "pool"),),
        source=Source("none", "0", "net", "random"),
        reference=lambda x: {},
    )
    assert [list(n.output) for n in finished(export).graph.node] == [["p"], ["y", "y_indices"]]
