"""Small steerable networks; each function is a factory as `geed-export escnn FILE.py:FACTORY` takes it."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
from escnn import gspaces
from escnn import nn as enn
from torch import nn

SIZE = 13
FACTS = {"size": (SIZE, SIZE), "colour": "grey", "range": (0, 1)}


def statistics(net: Any, seed: int = 0) -> Any:
    """Give every batch norm statistics of its own, field by field, so that none of them is the identity."""
    draw = torch.Generator().manual_seed(seed)
    for module in net.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=draw) * 0.2)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)
        if isinstance(module, enn.NormNonLinearity):
            module.log_bias.data.fill_(-3.0)  # where it starts, hardly a vector is longer, and all channels are zero
    return net.eval()


class Classifier(nn.Module):
    """Two steerable convolutions with what is between them, invariants, a linear layer."""

    def __init__(self, space: Any, hidden: Any, nonlinearity: Any, pool: Any, norm: Any = enn.InnerBatchNorm) -> None:
        super().__init__()
        self.image_type = enn.FieldType(space, [space.trivial_repr])
        self.block1 = enn.SequentialModule(
            OrderedDict(
                mask=enn.MaskModule(self.image_type, SIZE, margin=1),
                conv=enn.R2Conv(self.image_type, hidden, 5, padding=2),
                norm=norm(hidden),
                act=nonlinearity(hidden),
            )
        )
        self.blur = enn.PointwiseAvgPoolAntialiased(hidden, sigma=0.66, stride=2)
        self.block2 = enn.SequentialModule(
            OrderedDict(conv=enn.R2Conv(hidden, hidden, 3, padding=1, bias=False), act=nonlinearity(hidden))
        )
        self.invariant = pool(hidden)
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(len(hidden), 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.block2(self.blur(self.block1(self.image_type(image))))
        return self.head(self.mean(self.invariant(x).tensor))


def cyclic() -> Any:
    """C8: regular, trivial, quotient fields, not in the order of their kinds."""
    s = gspaces.rot2dOnR2(8)
    hidden = [s.regular_repr, s.trivial_repr, s.regular_repr, s.regular_repr, s.quotient_repr(2), s.quotient_repr(4)]
    return statistics(Classifier(s, enn.FieldType(s, hidden), enn.ReLU, enn.GroupPooling)), FACTS


def dihedral(axis: float = math.pi / 2) -> Any:
    """D4, its reflection across the line at this angle."""
    s = gspaces.flipRot2dOnR2(4, axis=axis)
    hidden = [s.regular_repr, s.regular_repr, s.trivial_repr, s.quotient_repr((0, 1)), s.quotient_repr((None, 2))]
    return statistics(Classifier(s, enn.FieldType(s, hidden), enn.ReLU, enn.GroupPooling)), FACTS


def slanted() -> Any:
    return dihedral(axis=math.pi / 4)


def nameless() -> Any:
    """D4 whose reflections are across lines that geed-onnx has no name for."""
    return dihedral(axis=math.pi / 8)


def flip() -> Any:
    """Left-right flip; the network is an EquivariantModule itself and gives a GeometricTensor."""
    s = gspaces.flip2dOnR2()
    coming = enn.FieldType(s, [s.trivial_repr] * 3)
    going = enn.FieldType(s, [s.regular_repr] * 3 + [s.trivial_repr])
    net = enn.SequentialModule(
        enn.R2Conv(coming, going, 3, padding=1),
        enn.InnerBatchNorm(going),
        enn.ReLU(going),
        enn.R2Conv(going, going, 3, padding=1),
    )
    return statistics(net), {"size": (SIZE, SIZE)}


def irreducible() -> Any:
    """C8: irreducible fields under a nonlinearity of norms."""
    s = gspaces.rot2dOnR2(8)
    hidden = enn.FieldType(s, [s.irrep(0)] * 2 + [s.irrep(1)] * 3 + [s.irrep(4)] + [s.irrep(2)] * 2)
    return statistics(Classifier(s, hidden, enn.NormNonLinearity, enn.NormPool, enn.IIDBatchNorm2d)), FACTS


def continuous() -> Any:
    """All rotations: a group that geed-onnx has no name for."""
    s = gspaces.rot2dOnR2(-1, maximum_frequency=3)
    hidden = enn.FieldType(s, [s.irrep(0)] * 2 + [s.irrep(1)] * 2)
    return statistics(Classifier(s, hidden, enn.NormNonLinearity, enn.NormPool, enn.IIDBatchNorm2d)), FACTS


class Residual(enn.EquivariantModule):
    """A module of the user's own: it adds GeometricTensors, and calls one ReLU twice."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.in_type = self.out_type = kind
        self.conv1 = enn.R2Conv(kind, kind, 3, padding=1)
        self.conv2 = enn.R2Conv(kind, kind, 3, padding=1)
        self.relu = enn.ReLU(kind, inplace=True)

    def forward(self, x: Any) -> Any:
        return x + self.conv2(self.relu(self.conv1(self.relu(x))))

    def evaluate_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def residual() -> Any:
    s = gspaces.rot2dOnR2(4)
    kind = enn.FieldType(s, [s.regular_repr] * 2)
    first = enn.R2Conv(enn.FieldType(s, [s.trivial_repr]), kind, 3, padding=1)
    return enn.SequentialModule(OrderedDict(first=first, body=Residual(kind))).eval(), FACTS


# ------------------------------------------------------------------------------------- what cannot be exported, and why


class Wrapped(nn.Module):
    """A steerable convolution, and then something else."""

    def __init__(self) -> None:
        super().__init__()
        s = gspaces.rot2dOnR2(4)
        self.image_type = enn.FieldType(s, [s.trivial_repr])
        self.conv = enn.R2Conv(self.image_type, enn.FieldType(s, [s.regular_repr]), 3)


class TwoInputs(Wrapped):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.conv(self.image_type(image * mask)).tensor


class Deciding(Wrapped):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.image_type(image)).tensor
        return x if x.abs().max() > 0 else -x


class NoOnnxForm(Wrapped):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.image_type(image)).tensor
        return torch.special.bessel_j0(x)


def two_inputs() -> Any:
    return TwoInputs(), FACTS


def deciding() -> Any:
    return Deciding(), FACTS


def no_onnx_form() -> Any:
    return NoOnnxForm(), FACTS


def no_size() -> Any:
    return cyclic()[0]


def wrong_size() -> Any:
    return cyclic()[0], {"size": (15, 15)}


def not_steerable() -> Any:
    return nn.Conv2d(1, 4, 3), FACTS


def failing() -> Any:
    raise RuntimeError("the disk with the weights is not there")
