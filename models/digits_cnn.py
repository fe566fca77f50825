"""The six-block CNN for handwritten digits in PyTorch, new or with the shipped weights.

geed-export pytorch models/digits_cnn.py:trained -o digits-cnn.onnx
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn  # noqa: TID251 (the ban is the library's; this is a PyTorch network)

SIZE = 29
CLASSES = 9
WIDTHS = (16, 16, 32, 32, 64, 64)
WEIGHTS = Path(__file__).parent / "shipped" / "digits-cnn.safetensors"
#: What an image is before it meets the network: grey, 0 is background and 1 is ink.
INPUT: dict[str, Any] = {
    "size": (SIZE, SIZE),
    "channels": 1,
    "colour": "grey",
    "range": (0.0, 1.0),
    "mean": (0.0,),
    "std": (1.0,),
}


class Block(nn.Module):
    """3x3 convolution, batch norm, ReLU and, where a padding is given, 3x3 average pooling of stride 2."""

    def __init__(self, inputs: int, outputs: int, pool_padding: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.pool = nn.Identity() if pool_padding is None else nn.AvgPool2d(3, 2, pool_padding)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, outputs, H', W')` for `(B, inputs, H, W)`."""
        return self.pool(self.relu(self.norm(self.conv(x))))


class DigitsCNN(nn.Module):
    """Six blocks (29, 15, 15, 7, 7, 7 pixels wide), the mean over pixels as latent vector, a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, e, f = WIDTHS
        self.block1 = Block(1, a)
        self.block2 = Block(a, b, pool_padding=1)  # 29 -> 15
        self.block3 = Block(b, c)
        self.block4 = Block(c, d, pool_padding=0)  # 15 -> 7
        self.block5 = Block(d, e)
        self.block6 = Block(e, f)
        self.latent = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(f, CLASSES)
        self.scores = nn.Softmax(1)

    def logits(self, x: Tensor) -> Tensor:
        """Return logits `(B, 9)` of images `(B, 1, 29, 29)` in 0..1."""
        for block in (self.block1, self.block2, self.block3, self.block4, self.block5, self.block6):
            x = block(x)
        return self.classifier(self.latent(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return class probabilities `(B, 9)` of images `(B, 1, 29, 29)` in 0..1."""
        return self.scores(self.logits(x))


def trained() -> tuple[DigitsCNN, dict[str, Any]]:
    """Return the network with the shipped weights, and what an image is before it meets the network."""
    net = DigitsCNN()
    net.load_state_dict(load_file(WEIGHTS))
    return net.eval(), INPUT
