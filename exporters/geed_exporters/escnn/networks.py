"""The steerable networks that have names: the C8-CNN of the paper, and a small one of the same build.

Imports torch and escnn: to be imported after `stubs.import_escnn`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from escnn import gspaces
from escnn import nn as enn
from torch import Tensor, nn

SIZE = 29
KERNELS = (7, 5, 5, 5, 5, 5)


class Pool(NamedTuple):
    """A Gaussian blur, then a stride."""

    sigma: float
    """In pixels; the filter is 2·round(3σ)+1 wide."""
    stride: int
    padding: int | None
    """None: half the filter's width."""


@dataclass(frozen=True)
class Plan:
    """Widths of a six-block network.

    Every size on the way is odd and every stride meets the centre, so that a quarter turn is exact.
    """

    fields: tuple[int, int, int, int, int, int]
    """Regular fields of each block; eight times as many channels."""
    paddings: tuple[int, int, int, int, int, int]
    """Of each block's convolution."""
    pools: tuple[Pool, Pool, Pool]
    """After blocks 2, 4 and 6; the last one takes in all that is left."""
    masks: Literal["image", "blocks"]
    """What is masked to its disc: the image, or what goes into each block."""
    hidden: int
    """Width of the first linear layer."""
    classes: int


PLANS = {
    # 29 → 25 → 25, 13 → 13 → 13, 7 → 7 → 5, 1
    "c8-cnn": Plan(
        fields=(24, 48, 48, 96, 96, 64),
        paddings=(1, 2, 2, 2, 2, 1),
        pools=(Pool(0.66, 2, None), Pool(0.66, 2, None), Pool(0.66, 1, 0)),
        masks="image",
        hidden=64,
        classes=9,
    ),
    # 29 → 25 → 25, 13 → 13 → 13, 7 → 7 → 7, 1. A file holds the filters written out, 18 numbers a parameter: this one
    # stays below a megabyte. Away from the image a batch norm's offset makes a constant, the zeros around a map cut a
    # square out of it, and the square's edge grows into the disc from block to block: .90 of similarity at 45 degrees
    # in block 6. Masks in every block keep it at .95
    "c8-cnn-small": Plan(
        fields=(3, 4, 4, 5, 6, 9),
        paddings=(1, 2, 2, 2, 2, 2),
        pools=(Pool(1.0, 2, None), Pool(1.0, 2, None), Pool(1.0, 1, 0)),
        masks="blocks",
        hidden=32,
        classes=9,
    ),
}


class C8CNN(nn.Module):  # type: ignore[misc]  # Any where torch is not installed
    """Six blocks of steerable convolution, the maximum over turns, two linear layers.

    `block1` … `block6` are convolution, batch norm and ReLU on regular fields of C8, after a mask to the disc of the
    image (`block1`) or of each block's input; `pool1` to `pool3`, after blocks 2, 4 and 6, blur before they stride;
    `invariant` is the maximum over the turns of each field. `latent` is what the last linear layer sees.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        turns = gspaces.rot2dOnR2(8)
        self.image_type = enn.FieldType(turns, [turns.trivial_repr])
        coming, size = self.image_type, SIZE
        for i, (fields, kernel, padding) in enumerate(zip(plan.fields, KERNELS, plan.paddings, strict=True), 1):
            going = enn.FieldType(turns, fields * [turns.regular_repr])
            parts: list[tuple[str, Any]] = [
                ("conv", enn.R2Conv(coming, going, kernel_size=kernel, padding=padding, bias=False)),
                ("norm", enn.InnerBatchNorm(going)),
                ("relu", enn.ReLU(going)),
            ]
            if i == 1 or plan.masks == "blocks":
                parts.insert(0, ("mask", enn.MaskModule(coming, size, margin=1)))
            size += 2 * padding - kernel + 1
            self.add_module(f"block{i}", enn.SequentialModule(OrderedDict(parts)))
            if i % 2 == 0:
                pool = plan.pools[i // 2 - 1]
                blur = enn.PointwiseAvgPoolAntialiased(going, pool.sigma, pool.stride, pool.padding)
                self.add_module(f"pool{i // 2}", blur)
                size = blur.evaluate_output_shape((1, going.size, size, size))[-1]
            coming = going
        self.invariant = enn.GroupPooling(coming)
        width = plan.fields[-1]
        self.latent = nn.Sequential(
            OrderedDict(
                flat=nn.Flatten(),
                linear=nn.Linear(width, plan.hidden),
                norm=nn.BatchNorm1d(plan.hidden),
                elu=nn.ELU(),
            )
        )
        self.classifier = nn.Linear(plan.hidden, plan.classes)
        self.scores = nn.Softmax(1)

    def logits(self, image: Tensor) -> Tensor:
        """Return logits `(B, classes)` of images `(B, 1, 29, 29)`."""
        x = self.image_type(image)
        for i in range(1, 7):
            x = getattr(self, f"block{i}")(x)
            if i % 2 == 0:
                x = getattr(self, f"pool{i // 2}")(x)
        return self.classifier(self.latent(self.invariant(x).tensor))

    def forward(self, image: Tensor) -> Tensor:
        """Return class probabilities `(B, classes)` of images `(B, 1, 29, 29)`."""
        return self.scores(self.logits(image))
