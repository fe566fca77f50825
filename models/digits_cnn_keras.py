"""The six-block CNN of `digits_cnn.py` in Keras 3: new, or with weights that PyTorch has trained.

geed-export keras models/digits_cnn_keras.py:copied -o digits-cnn-keras-copied.onnx
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from safetensors.numpy import load_file

SIZE = 29
CLASSES = 9
WIDTHS = (16, 16, 32, 32, 64, 64)
WEIGHTS = Path(__file__).parent / "shipped" / "digits-cnn.safetensors"
#: What an image is before it meets the network: grey, 0 is background and 1 is ink.
INPUT: dict[str, Any] = {"colour": "grey", "range": (0.0, 1.0), "mean": (0.0,), "std": (1.0,)}


def network() -> Any:
    """Return the network: images `(B, 29, 29, 1)` in 0..1 to class probabilities `(B, 9)`."""
    x = image = layers.Input((SIZE, SIZE, 1), name="image")
    for number, width in enumerate(WIDTHS, 1):
        x = block(f"block{number}", width, pool_padding={2: 1, 4: 0}.get(number))(x)
    latent = layers.GlobalAveragePooling2D(name="latent")(x)
    logits = layers.Dense(CLASSES, name="classifier")(latent)
    return keras.Model(image, layers.Softmax(name="scores")(logits), name="digits_cnn")


def block(name: str, width: int, pool_padding: int | None = None) -> Any:
    """Return 3x3 convolution, batch norm, ReLU and, where a padding is given, 3x3 average pooling of stride 2.

    Batch norm with PyTorch's epsilon and momentum. Keras' own padding "same" leaves the zeros of the margin out of the
    mean, PyTorch counts them: so they are laid around the map first.
    """
    parts = [
        layers.Conv2D(width, 3, padding="same", name="conv"),
        layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="norm"),
        layers.ReLU(name="relu"),
    ]
    if pool_padding:
        parts.append(layers.ZeroPadding2D(pool_padding, name="pad"))
    if pool_padding is not None:
        parts.append(layers.AveragePooling2D(3, 2, name="pool"))
    return keras.Sequential(parts, name=name)


def copy_weights(net: Any, state: Mapping[str, Any]) -> None:
    """Set the weights of `net` from the state dict of PyTorch's `DigitsCNN`."""
    for number in range(1, len(WIDTHS) + 1):
        here, there = net.get_layer(f"block{number}"), f"block{number}"
        kernel = np.transpose(state[f"{there}.conv.weight"], (2, 3, 1, 0))  # (out, in, 3, 3) to (3, 3, in, out)
        here.get_layer("conv").set_weights([kernel, state[f"{there}.conv.bias"]])
        norm = ("weight", "bias", "running_mean", "running_var")
        here.get_layer("norm").set_weights([state[f"{there}.norm.{part}"] for part in norm])
    net.get_layer("classifier").set_weights([state["classifier.weight"].T, state["classifier.bias"]])


def copied() -> tuple[Any, dict[str, Any]]:
    """Return the network with the shipped PyTorch weights, and what an image is before it meets the network."""
    net = network()
    copy_weights(net, load_file(WEIGHTS))
    return net, INPUT
