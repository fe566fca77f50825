"""Small Keras networks of every kind, and what the tests do to them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops


def functional() -> Any:
    x = image = layers.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = y = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="inner")(x)
    x = layers.Add(name="sum")([x, y])
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    return keras.Model(image, layers.Dense(5, activation="softmax", name="head")(x), name="functional")


def sequential() -> Any:
    return keras.Sequential(
        [
            layers.Input((12, 12, 3)),
            layers.Conv2D(6, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Activation("gelu", name="gelu"),
            layers.AveragePooling2D(2, name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(4, name="logits"),
        ]
    )


def unbuilt_sequential() -> Any:
    return keras.Sequential(
        [layers.Conv2D(6, 3, name="conv"), layers.Flatten(name="flat"), layers.Dense(4, name="out")]
    )


class Unit(layers.Layer):
    """Convolution, norm, activation: a layer of one's own, with layers inside."""

    def __init__(self, width: int, name: str) -> None:
        super().__init__(name=name)
        self.conv = layers.Conv2D(width, 3, padding="same", name="conv")
        self.norm = layers.BatchNormalization(name="norm")

    def call(self, x: Any) -> Any:
        return ops.relu(self.norm(self.conv(x)))


class Subclassed(keras.Model):
    """Layers and plain operations mixed; the softmax is no layer, nor is the mean over pixels."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.units = [Unit(w, f"unit{i}") for i, w in enumerate((4, 6, 8))]
        self.fc = layers.Dense(5, name="fc")

    def call(self, x: Any) -> Any:
        for unit in self.units:
            x = unit(x)
        return ops.softmax(self.fc(ops.mean(x, axis=(1, 2))))


def nested() -> Any:
    inner = keras.Sequential(
        [layers.Conv2D(8, 3, padding="same", name="conv"), layers.BatchNormalization(name="norm")], name="inner"
    )
    body_in = layers.Input((12, 12, 3))
    body = keras.Model(body_in, layers.ReLU(name="act")(inner(body_in)), name="body")
    x = image = layers.Input((12, 12, 3))
    x = layers.GlobalMaxPooling2D(name="peak")(body(x))
    return keras.Model(image, layers.Dense(3, name="head")(x), name="nested")


def repeated() -> Any:
    conv, halve = layers.Conv2D(3, 3, padding="same", name="conv"), layers.AveragePooling2D(2, name="halve")
    shared = keras.Sequential([conv, layers.LeakyReLU(name="leak")], name="shared")
    x = image = layers.Input((12, 12, 3))
    x = halve(shared(shared(x)))
    x = layers.Flatten(name="flat")(halve(x))
    return keras.Model(image, layers.Dense(3, name="head")(x), name="repeated")


class Split(layers.Layer):
    """Returns a dict with a tuple inside."""

    def call(self, x: Any) -> Any:
        return {"low": x[..., :2], "rest": (x[..., 2:4], x[..., 4:])}


def several_tensors() -> Any:
    x = image = layers.Input((12, 12, 3))
    parts = Split(name="split")(layers.Conv2D(6, 3, name="conv")(x))
    x = layers.Concatenate(name="join")([parts["low"], parts["rest"][0], parts["rest"][1]])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, layers.Dense(3, name="head")(x), name="several")


def transformer() -> Any:
    x = image = layers.Input((12, 12, 3))
    x = layers.Conv2D(16, 4, strides=4, name="patches")(x)
    x = layers.Reshape((9, 16), name="tokens")(x)
    for i in (1, 2):
        y = layers.LayerNormalization(name=f"norm{i}")(x)
        x = layers.Add(name=f"add{i}")([x, layers.MultiHeadAttention(2, 8, name=f"attention{i}")(y, y)])
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(image, layers.Dense(4, name="head")(x), name="transformer")


def recurrent() -> Any:
    """The cell runs inside a loop, where nothing can be drawn off."""
    x = image = layers.Input((12, 12, 3))
    x = layers.Reshape((12, 36), name="rows")(layers.Conv2D(3, 3, padding="same", name="conv")(x))
    x = layers.LSTM(7, name="lstm")(x)
    return keras.Model(image, layers.Dense(3, name="head")(x), name="recurrent")


def permuted() -> Any:
    """Channels first for a while: the layout is each tensor's own."""
    x = image = layers.Input((12, 10, 3))
    x = layers.Conv2D(5, 3, padding="same", name="conv")(x)
    x = layers.Permute((3, 1, 2), name="first")(x)
    x = layers.BatchNormalization(axis=1, name="norm")(x)
    x = layers.Permute((2, 3, 1), name="last")(x)
    x = layers.Conv2D(4, 3, name="conv2")(x)
    return keras.Model(image, layers.GlobalAveragePooling2D(name="mean")(x), name="permuted")


def headless() -> Any:
    x = image = layers.Input((12, 12, 3))
    for i in (1, 2, 3):
        x = layers.Conv2D(6, 3, activation="relu", padding="same", name=f"conv{i}")(x)
    return keras.Model(image, x, name="headless")


KINDS = {
    f.__name__: f
    for f in (
        functional,
        sequential,
        unbuilt_sequential,
        Subclassed,
        nested,
        repeated,
        several_tensors,
        transformer,
        recurrent,
        permuted,
        headless,
    )
}


class Decides(keras.Model):
    """Control flow that depends on values, in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(3, 3, name="conv")

    def call(self, x: Any) -> Any:
        x = self.conv(x)
        return x + 1 if ops.sum(x) > 0 else x


class Decided(Decides):
    """The same, as an operation of the graph; the layer in the branch cannot be drawn off."""

    def __init__(self) -> None:
        super().__init__()
        self.more = layers.Activation("relu", name="more")

    def call(self, x: Any) -> Any:
        x = self.conv(x)
        return ops.cond(ops.sum(x) > 0, lambda: self.more(x), lambda: x)


class NoForm(layers.Layer):
    """The incomplete beta function, which ONNX does not have."""

    def call(self, x: Any) -> Any:
        y = ops.sigmoid(x)
        return tf.raw_ops.Betainc(a=y, b=y, x=y)


def no_onnx_form() -> Any:
    return keras.Sequential([layers.Input((12, 12, 3)), layers.Conv2D(3, 3, name="conv"), NoForm(name="beta")])


class TwoArguments(keras.Model):
    """A subclassed model of two inputs."""

    def call(self, image: Any, mask: Any, other: Any) -> Any:
        return image * other


def two_inputs() -> Any:
    a, b = layers.Input((12, 12, 3), name="left"), layers.Input((12, 12, 3), name="right")
    return keras.Model([a, b], layers.Add(name="sum")([a, b]))


def lived(model: Any, seed: int = 0) -> Any:
    """Give a built model statistics and offsets that are not those of its first day."""
    draw = np.random.default_rng(seed)
    for v in model.weights:
        kind = v.path.rpartition("/")[2]
        if kind in ("moving_mean", "beta", "bias"):
            v.assign(draw.normal(0, 0.2, v.shape))
        elif kind in ("moving_variance", "gamma"):
            v.assign(draw.uniform(0.5, 1.5, v.shape))
    return model
