"""Networks to time, built from `onnx.helper` and seeded NumPy weights: no framework, no download."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 17, 8


@dataclass(frozen=True)
class Net:
    """A graph under construction; each verb adds one node and returns the name of its output tensor."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def weight(self, name: str, shape: tuple[int, ...], scale: float) -> str:
        """Add a normal weight of the given standard deviation."""
        values = (self.rng.standard_normal(shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Add a node named like its output."""
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x: str, name: str, cin: int, cout: int, kernel: int, stride: int = 1, gain: float = 2) -> str:
        """Add a convolution `(B, cin, H, W)` -> `(B, cout, ⌈H/stride⌉, ⌈W/stride⌉)`.

        It has a bias, as one that carries a folded batch norm. The default gain is He's, which keeps the activations'
        variance through a ReLU.
        """
        scale = math.sqrt(gain / (cin * kernel * kernel))
        inputs = [
            x,
            self.weight(f"{name}.weight", (cout, cin, kernel, kernel), scale),
            self.weight(f"{name}.bias", (cout,), 0.05),
        ]
        pads = [kernel // 2] * 4
        return self.node("Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def relu(self, x: str, name: str) -> str:
        """Add a ReLU."""
        return self.node("Relu", [x], name)

    def head(self, x: str, features: int, classes: int) -> str:
        """Add the mean over pixels (`latent`), a linear layer (`logits`) and softmax (`scores`)."""
        pooled = self.node("GlobalAveragePool", [x], "pooled")
        latent = self.node("Flatten", [pooled], "latent")
        matrix = self.weight("classifier.weight", (classes, features), math.sqrt(1 / features))
        bias = self.weight("classifier.bias", (classes,), 0.05)
        logits = self.node("Gemm", [latent, matrix, bias], "logits", transB=1)
        return self.node("Softmax", [logits], "scores", axis=-1)

    def model(self, name: str, channels: int, size: int, scores: str, classes: int) -> onnx.ModelProto:
        """Return the checked model with input `image` `(batch, channels, size, size)`."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", channels, size, size])],
            [helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["batch", classes])],
            self.weights,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="geed-onnx benchmarks"
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def resnet18_like(path: str | Path | None = None, size: int = 224, seed: int = 0) -> onnx.ModelProto:
    """Return a ResNet-18 with batch norm folded, `(batch, 3, size, size)` -> `(batch, 1000)`; also written to `path`.

    Activations are named after the modules of the original (`layer1.0.relu1`); the output `scores` sums to 1.
    """
    net = Net(np.random.default_rng(seed))
    x = net.relu(net.conv("image", "stem.conv", 3, 64, kernel=7, stride=2), "stem.relu")
    x = net.node("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    cin = 64
    for stage, cout in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            x = _basic_block(net, x, f"layer{stage}.{block}", cin, cout, stride=2 if stage > 1 and block == 0 else 1)
            cin = cout
    model = net.model("resnet18-like", 3, size, net.head(x, cin, 1000), 1000)
    if path is not None:
        onnx.save(model, path)
    return model


def _basic_block(net: Net, x: str, name: str, cin: int, cout: int, stride: int) -> str:
    inner = net.relu(net.conv(x, f"{name}.conv1", cin, cout, 3, stride), f"{name}.relu1")
    branch = net.conv(
        inner, f"{name}.conv2", cout, cout, 3, gain=0.5
    )  # small, so that eight sums do not add up to much
    shortcut = x if stride == 1 and cin == cout else net.conv(x, f"{name}.downsample", cin, cout, 1, stride, gain=1)
    return net.relu(net.node("Add", [branch, shortcut], f"{name}.add"), f"{name}.relu2")


def digits_cnn(seed: int = 0) -> onnx.ModelProto:
    """Return the shape of the shipped digits CNN with random weights, `(batch, 1, 29, 29)` -> `(batch, 9)`."""
    net = Net(np.random.default_rng(seed))
    x, cin = "image", 1
    pool_padding = {2: 1, 4: 0}  # 29 -> 15 -> 7
    for i, cout in enumerate((16, 16, 32, 32, 64, 64), 1):
        pooled = i in pool_padding
        x = net.relu(net.conv(x, f"block{i}.conv", cin, cout, 3), f"block{i}.relu" if pooled else f"block{i}")
        if pooled:
            pads = [pool_padding[i]] * 4
            x = net.node(
                "AveragePool", [x], f"block{i}", kernel_shape=[3, 3], strides=[2, 2], pads=pads, count_include_pad=1
            )
        cin = cout
    return net.model("digits-cnn-like", 1, 29, net.head(x, cin, 9), 9)


def relu_taps(model: onnx.ModelProto) -> list[str]:
    """Return the names of all ReLU outputs of `model`, in graph order."""
    return [node.output[0] for node in model.graph.node if node.op_type == "Relu"]
