"""AlexNet as torchvision has it, for the weights that go around are torchvision's."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

#: the end of each convolution's stage, pooling included
BLOCKS = ("features.2", "features.5", "features.7", "features.9", "features.12")
#: what the last linear layer sees: 4096 values; the 9216 before the first linear layer are `flatten`
LATENT = "classifier.5"
SCORES = "classifier.6"


def alexnet(classes: int = 1000) -> Any:
    """Return AlexNet (the one-column variant of 2014): images `(B, 3, H, W)` to logits `(B, classes)`.

    Keys and shapes of its state dict are those of torchvision's (`features.0.weight` … `classifier.6.bias`). Its ReLUs
    are not in place, so that a convolution's output can be tapped before its ReLU.
    """
    from torch import nn

    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    classifier = nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, classes),
    )
    parts = OrderedDict(
        features=features, avgpool=nn.AdaptiveAvgPool2d((6, 6)), flatten=nn.Flatten(1), classifier=classifier
    )
    return nn.Sequential(parts)
