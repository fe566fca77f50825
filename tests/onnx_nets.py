"""Small ONNX networks with seeded weights, for tests: each builder returns a ModelProto (or writes a file)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
NP = {"float32": (np.float32, TensorProto.FLOAT), "float16": (np.float16, TensorProto.FLOAT16)}


class Net:
    """Collects nodes and weights; `done` makes the model."""

    def __init__(self, seed: int = 0, dtype: str = "float32") -> None:
        self.rng = np.random.default_rng(seed)
        self.np, self.onnx = NP[dtype]
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def weight(self, name: str, *shape: int, scale: float | None = None) -> str:
        fan = max(1, int(np.prod(shape[1:])))
        values = self.rng.normal(size=shape) * (scale or (2 / fan) ** 0.5)
        return self.constant(name, values.astype(self.np))

    def constant(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op: str, inputs: list[str], output: str, scope: str | None = None, **attributes: Any) -> str:
        node = helper.make_node(op, inputs, [output], **attributes)
        if scope is not None:
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scope)
        self.nodes.append(node)
        return output

    def done(
        self,
        inputs: list[tuple[str, list[Any]]],
        outputs: list[tuple[str, list[Any]]],
        opset: int = 17,
        ir: int = 8,
        producer: str = "onnx_nets",
        metadata: dict[str, str] | None = None,
    ) -> ModelProto:
        ports = [helper.make_tensor_value_info(n, self.onnx, s) for n, s in inputs]
        if ir < 4:  # before IR 4 every initialiser is an input as well
            ports += [helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)) for w in self.weights]
        outs = [helper.make_tensor_value_info(n, self.onnx, s) for n, s in outputs]
        graph = helper.make_graph(self.nodes, "net", ports, outs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name=producer)
        model.ir_version = ir
        for key, value in (metadata or {}).items():
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model)
        return model


def cnn(
    size: int = 29,
    channels: tuple[int, ...] = (4, 8),
    classes: int = 9,
    layout: str = "NCHW",
    dtype: str = "float32",
    batch: str | int = "N",
    opset: int = 17,
    ir: int = 8,
    softmax: bool = True,
    seed: int = 0,
    metadata: dict[str, str] | None = None,
) -> ModelProto:
    """Conv-Relu blocks (stride 1, then 2), global average, Gemm, softmax.

    Tensors: input `x` (batch, 1, size, size) or (batch, size, size, 1), `block1`… (in `layout`), `latent`, `logits`,
    `scores` (only with softmax).
    """
    net = Net(seed, dtype)
    x, before = "x", 1
    for i, width in enumerate(channels, 1):
        if layout == "NHWC":
            x = net.add("Transpose", [x], f"first{i}", perm=[0, 3, 1, 2])
        w, b = net.weight(f"w{i}", width, before, 3, 3), net.weight(f"b{i}", width, scale=0.1)
        stride = 1 if i == 1 else 2
        x = net.add("Conv", [x, w, b], f"conv{i}", kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2)
        if layout == "NHWC":
            x = net.add("Transpose", [x], f"last{i}", perm=[0, 2, 3, 1])
        x, before = net.add("Relu", [x], f"block{i}"), width
    if layout == "NHWC":
        x = net.add("Transpose", [x], "pooled_from", perm=[0, 3, 1, 2])
    x = net.add("GlobalAveragePool", [x], "pooled")
    x = net.add("Flatten", [x], "latent")
    x = net.add("Gemm", [x, net.weight("wc", classes, before), net.weight("bc", classes)], "logits", transB=1)
    if softmax:
        x = net.add("Softmax", [x], "scores", axis=1)
    shape = [batch, 1, size, size] if layout == "NCHW" else [batch, size, size, 1]
    return net.done([("x", shape)], [(x, [batch, classes])], opset, ir, metadata=metadata)


def identity_map(channels: int = 3, size: int = 8) -> ModelProto:
    """y = x, a map (N, channels, size, size); AveragePool of one position makes the layout known."""
    net = Net()
    net.add("AveragePool", ["x"], "y", kernel_shape=[1, 1])
    shape = ["N", channels, size, size]
    return net.done([("x", shape)], [("y", shape)])


def two_inputs(size: int = 8, images: int = 1) -> ModelProto:
    """A CNN over `image` (N, 3, size, size) scaled by `gain` (N, 1), or by a second `image2` when images=2."""
    net = Net()
    net.add("Conv", ["image", net.weight("w", 4, 3, 3, 3)], "conv", pads=[1] * 4)
    net.add("Relu", ["conv"], "map")
    if images == 2:
        net.add("Conv", ["image2", net.weight("w2", 4, 3, 3, 3)], "conv2", pads=[1] * 4)
        net.add("Add", ["map", "conv2"], "both")
    x = net.add("GlobalAveragePool", ["both" if images == 2 else "map"], "pooled")
    x = net.add("Flatten", [x], "latent")
    other = ("image2", ["N", 3, size, size])
    if images != 2:
        x, other = net.add("Mul", [x, "gain"], "scaled"), ("gain", ["N", 1])
    net.add("Gemm", [x, net.weight("wc", 4, 5)], "logits")
    return net.done([("image", ["N", 3, size, size]), other], [("logits", ["N", 5])])


def with_if(size: int = 8) -> ModelProto:
    """An If whose branches capture the outer `map` and whose condition hangs on the image; its output is `chosen`."""
    net = Net()
    net.add("Conv", ["x", net.weight("w", 4, 1, 3, 3)], "conv", pads=[1] * 4)
    net.add("Relu", ["conv"], "map")
    net.add("ReduceMax", ["x"], "peak", keepdims=0)
    net.add("Greater", ["peak", net.constant("zero", np.float32(0))], "bright")
    shape = ["N", 4, size, size]
    branches = {}
    for key, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
        node = helper.make_node(op, ["map"], [f"inside_{op}"])
        branches[key] = helper.make_graph(
            [node], key, [], [helper.make_tensor_value_info(f"inside_{op}", FLOAT, shape)]
        )
    net.add("If", ["bright"], "chosen", **branches)
    net.add("Conv", ["chosen", net.weight("w2", 2, 4, 3, 3)], "y")
    return net.done([("x", ["N", 1, size, size])], [("y", ["N", 2, size - 2, size - 2])])


def linear_head(features: int = 4, size: int = 6, classes: int = 3) -> ModelProto:
    """The flattened image times a matrix: no map, latent `flat`, scores `logits`."""
    net = Net()
    net.add("Flatten", ["x"], "flat")
    net.add("MatMul", ["flat", net.weight("w", features * size * size, classes)], "product")
    net.add("Add", ["product", net.weight("b", classes)], "logits")
    return net.done([("x", ["N", features, size, size])], [("logits", ["N", classes])], producer="pytorch")


def nan_tap(size: int = 8) -> ModelProto:
    """A CNN whose map `bad` is NaN wherever a value is negative (the square root of it)."""
    net = Net()
    net.add("Conv", ["x", net.weight("w", 4, 1, 3, 3)], "conv", pads=[1] * 4)
    net.add("Sqrt", ["conv"], "bad")
    net.add("GlobalAveragePool", ["bad"], "pooled")
    net.add("Flatten", ["pooled"], "latent")
    net.add("Gemm", ["latent", net.weight("wc", 4, 3)], "logits")
    return net.done([("x", ["N", 1, size, size])], [("logits", ["N", 3])])


def constant_features(size: int = 8) -> ModelProto:
    """A CNN whose `latent` and `logits` are the same for every image (the pooled map times zero, plus a constant)."""
    net = Net()
    net.add("Conv", ["x", net.weight("w", 4, 1, 3, 3)], "conv", pads=[1] * 4)
    net.add("Relu", ["conv"], "map")
    net.add("GlobalAveragePool", ["map"], "pooled")
    net.add("Flatten", ["pooled"], "flat")
    net.add("Mul", ["flat", net.constant("zeros", np.zeros(4, np.float32))], "zeroed")
    net.add("Add", ["zeroed", net.constant("ones", np.ones(4, np.float32))], "latent")
    net.add("Gemm", ["latent", net.weight("wc", 4, 3)], "logits")
    return net.done([("x", ["N", 1, size, size])], [("logits", ["N", 3])])


def external(path: str | Path, **options: Any) -> Path:
    """Write `cnn(**options)` to `path` with its weights in `<name>.data` beside it; return the path."""
    path = Path(path)
    onnx.save_model(
        cnn(**options), str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=0
    )
    return path


def residual(folded: bool = False, size: int = 16, seed: int = 0, scoped: bool = True) -> ModelProto:
    """A two-block residual network, batch norms written out or folded into the convolutions (equal functions).

    With `scoped`, nodes carry torch's name scopes: `conv1`, `bn1`, `layer1` (`layer1.conv`, `layer1.bn`), `layer2`,
    `fc`.
    """
    net = Net(seed)

    def scope(*parts: str) -> str | None:
        return str(["", *parts, "op"]) if scoped else None

    def conv_bn(x: str, name: str, before: int, width: int, stride: int, outer: tuple[str, ...]) -> str:
        w = net.rng.normal(size=(width, before, 3, 3)).astype(np.float32) * np.float32((2 / (9 * before)) ** 0.5)
        gamma, beta, mean = (net.rng.normal(size=width).astype(np.float32) for _ in range(3))
        var = net.rng.uniform(0.5, 2, width).astype(np.float32)
        bn = scope(*outer, f"{outer[-1]}.bn" if outer else "bn1")
        kwargs: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [stride] * 2}
        if folded:
            gain = gamma / np.sqrt(var + np.float32(1e-5))
            weight = net.constant(f"{name}.w", w * gain[:, None, None, None])
            bias = net.constant(f"{name}.b", beta - mean * gain)
            return net.add("Conv", [x, weight, bias], f"{name}_bn", bn, **kwargs)
        conv = scope(*outer, f"{outer[-1]}.conv" if outer else "conv1")
        x = net.add("Conv", [x, net.constant(f"{name}.w", w)], f"{name}_conv", conv, **kwargs)
        params = {"gamma": gamma, "beta": beta, "mean": mean, "var": var}
        extra = [net.constant(f"{name}.{k}", v) for k, v in params.items()]
        return net.add("BatchNormalization", [x, *extra], f"{name}_bn", bn)

    x = net.add("Relu", [conv_bn("x", "stem", 1, 4, 1, ())], "stem", scope("relu"))
    for i in (1, 2):
        layer = f"layer{i}"
        y = conv_bn(x, layer, 4, 4, 1, (layer,))
        y = net.add("Add", [y, x], f"{layer}_sum", scope(layer))
        x = net.add("Relu", [y], f"{layer}_out", scope(layer))
    x = net.add("GlobalAveragePool", [x], "pooled", scope("pool"))
    x = net.add("Flatten", [x], "latent", scope())
    net.add("Gemm", [x, net.weight("fc.w", 4, 5), net.weight("fc.b", 5)], "logits", scope("fc"))
    return net.done([("x", ["N", 1, size, size])], [("logits", ["N", 5])], 18, 10, producer="pytorch")


def baked_batch(size: int = 6) -> ModelProto:
    """Batch 1, whose pooling over channels is a Reshape that mixes images, without an error, if the batch is rewritten.

    `map` (1, 4, size, size) goes through `rows` (4, size·size) and `columns` (size·size, 4) to `mixed`
    (1, 4·size·size): with n images, rows of several images land in one row of `mixed`.
    """
    net = Net()
    net.add("Conv", ["x", net.weight("w", 4, 1, 3, 3)], "conv", pads=[1] * 4)
    net.add("Relu", ["conv"], "map")
    net.add("Reshape", ["map", net.constant("to", np.array([4, -1]))], "rows")
    net.add("Transpose", ["rows"], "columns", perm=[1, 0])
    net.add("Reshape", ["columns", net.constant("back", np.array([-1, 4 * size * size]))], "mixed")
    net.add("Gemm", ["mixed", net.weight("wc", 4 * size * size, 3)], "logits")
    return net.done([("x", [1, 1, size, size])], [("logits", [1, 3])])
