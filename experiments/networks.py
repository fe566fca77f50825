"""The networks of the experiments in colour, in plain PyTorch: a small ResNet and a small LeViT for 32x32 images.

Both take images whose values `normalised` has shifted and scaled, both have three parts that give maps (`stage1` to
`stage3`), a module `latent` whose output is the feature vector, and class probabilities as their output. The CNN for
digits is `models/digits_cnn.py`, the C8-CNN `geed_exporters/escnn/networks.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import torch
from torch import Tensor, nn

from geed_exporters import InputSpec

SIZE = 32
#: Mean and deviation of each colour over CIFAR-10's training images, of values 0..1.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
INPUT = InputSpec("image", (3, SIZE, SIZE), "NCHW", colour="rgb", range=(0.0, 1.0), mean=MEAN, std=STD)
TAPS = ("stage?", "latent", "scores")


def normalised(x: Tensor) -> Tensor:
    """Return images `(B, 3, H, W)` of values 0..1 as the networks take them: less the mean, over the deviation."""
    mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


class Network(nn.Module):
    """What the networks share: four parts that give maps, `latent`, `classifier`, `scores`."""

    stem: nn.Module
    stage1: nn.Module
    stage2: nn.Module
    stage3: nn.Module
    latent: nn.Module
    classifier: nn.Module
    scores: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """Return the latent vectors `(B, width)` of normalised images `(B, 3, 32, 32)`."""
        for part in (self.stem, self.stage1, self.stage2, self.stage3, self.latent):
            x = part(x)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Return logits `(B, classes)`."""
        found: Tensor = self.classifier(self.features(x))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return class probabilities `(B, classes)`."""
        found: Tensor = self.scores(self.logits(x))
        return found


# -------------------------------------------------------------------------------------------------------------- ResNet


def convolved(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias, zero padded so that stride 1 keeps the size, and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Basic(nn.Module):
    """A basic block: two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolved(inputs, outputs, 3, stride)
        self.second = convolved(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else convolved(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, outputs, H', W')` for `(B, inputs, H, W)`; H' = H over the stride, rounded up."""
        found: Tensor = self.relu(self.second(self.relu(self.first(x))) + self.shortcut(x))
        return found


class ResNet(Network):
    """A stem of stride 2, three stages of two basic blocks (16, 8, 4 pixels wide), the mean over pixels as latent."""

    def __init__(self, classes: int, widths: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(convolved(3, first, 3, 2), nn.ReLU())
        stages = [
            nn.Sequential(Basic(inputs, outputs, stride), Basic(outputs, outputs, 1))
            for (inputs, outputs), stride in zip(pairwise((first, *widths)), (1, 2, 2), strict=True)
        ]
        self.stage1, self.stage2, self.stage3 = stages
        self.latent = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(widths[-1], classes)
        self.scores = nn.Softmax(1)


# --------------------------------------------------------------------------------------------------------------- LeViT

KEY = 16  # channels of a head's queries and keys


def mixed(inputs: int, outputs: int, scale: float = 1.0) -> nn.Sequential:
    """Return a 1x1 convolution (a linear layer of each pixel) and its batch norm, which begins with this scale."""
    norm = nn.BatchNorm2d(outputs)
    nn.init.constant_(norm.weight, scale)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), norm)


class Attention(nn.Module):
    """LeViT's attention among the pixels of a square map, with a learned bias for each distance in x and in y.

    With a stride, only every so many pixels ask, and the map that comes out is as much smaller. A head's values have
    `ratio` times as many channels as its keys.
    """

    askers: Tensor
    offsets: Tensor

    def __init__(self, inputs: int, outputs: int, heads: int, side: int, stride: int = 1, ratio: int = 2) -> None:
        super().__init__()
        self.heads, self.stride, self.side = heads, stride, side // stride
        self.channels = [KEY, KEY, KEY * ratio]  # of a head's queries, keys and values
        self.read = mixed(inputs, heads * sum(self.channels))
        self.activation = nn.Hardswish()
        # zero at the start, as in LeViT: a block begins as its shortcut alone
        self.out = mixed(heads * KEY * ratio, outputs, 0.0 if stride == 1 else 1.0)
        self.bias = nn.Parameter(torch.zeros(heads, side * side))
        askers = torch.arange(side * side).view(side, side)[::stride, ::stride].flatten()
        self.register_buffer("askers", askers, persistent=False)
        self.register_buffer("offsets", offsets(side)[askers], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, outputs, side / stride, side / stride)` for `(B, inputs, side, side)`."""
        read = self.read(x).reshape(-1, self.heads, sum(self.channels), self.bias.shape[1])
        queries, keys, values = read.split(self.channels, 2)  # each (B, heads, channels, pixels)
        asked = queries if self.stride == 1 else queries[..., self.askers]
        weights = (asked.transpose(2, 3) @ keys * KEY**-0.5 + self.bias[:, self.offsets]).softmax(3)
        found = values @ weights.transpose(2, 3)  # (B, heads, channels, pixels that ask)
        found = found.reshape(-1, self.heads * self.channels[2], self.side, self.side)
        out: Tensor = self.out(self.activation(found))
        return out


def offsets(side: int) -> Tensor:
    """Return `(pixels, pixels)`: which bias each pair of pixels takes, by its distances in y and in x."""
    pixels = list(product(range(side), repeat=2))
    return torch.tensor([[abs(a - c) * side + abs(b - d) for c, d in pixels] for a, b in pixels])


class Added(nn.Module):
    """A module beside a shortcut."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return `x + inner(x)`."""
        found: Tensor = x + self.inner(x)
        return found


def mlp(width: int) -> Added:
    """Return LeViT's two linear layers of each pixel, twice as wide between them."""
    return Added(nn.Sequential(mixed(width, 2 * width), nn.Hardswish(), mixed(2 * width, width, 0.0)))


def attended(width: int, side: int, depth: int) -> nn.Sequential:
    """Return blocks of attention and two linear layers, each beside a shortcut."""
    blocks: Sequence[nn.Module] = [
        block for _ in range(depth) for block in (Added(Attention(width, width, width // KEY, side)), mlp(width))
    ]
    return nn.Sequential(*blocks)


class SmallLeViT(Network):
    """LeViT for 32x32 images: two convolutions of stride 2, attention at 8x8, shrinking attention, attention at 4x4.

    In its form with 1x1 convolutions, so that every stage gives a map `(B, C, H, W)`: `stage1` at 8x8, `stage2` after
    shrinking and `stage3` at 4x4.
    """

    def __init__(self, classes: int, widths: tuple[int, int] = (32, 64), depths: tuple[int, int] = (1, 2)) -> None:
        super().__init__()
        first, last = widths
        half = first // 2
        self.stem = nn.Sequential(convolved(3, half, 3, 2), nn.Hardswish(), convolved(half, first, 3, 2))
        self.stage1 = attended(first, SIZE // 4, depths[0])
        self.stage2 = nn.Sequential(Attention(first, last, first // KEY, SIZE // 4, stride=2, ratio=4), mlp(last))
        self.stage3 = attended(last, SIZE // 8, depths[1])
        self.latent = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        linear = nn.Linear(last, classes)
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        self.classifier = nn.Sequential(nn.BatchNorm1d(last), linear)
        self.scores = nn.Softmax(1)
