"""What an exporter hands over, as data: the graph, its taps, its input, where it came from, and how to check it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[Any]
Kind = Literal["map", "vector", "probability"]
Layout = Literal["NCHW", "NHWC"]
Role = Literal["stage", "latent", "scores"]
#: fields of `InputSpec` that say what is done to an image before it
PREPARATION = ("colour", "range", "mean", "std", "fit", "resize", "resample")


@dataclass(frozen=True)
class InputSpec:
    """The image input of the file and what is done to an image before it; goes into `geed.input`.

    A field that is None is left out of the metadata, and `geed-onnx` then reads it from the graph or asks.
    """

    name: str
    shape: tuple[int, ...]
    """Without the batch, in the file's layout: (C, H, W), (H, W, C) or, for what is no image, any."""
    layout: Layout | None = None
    """None for what is no image."""
    colour: Literal["grey", "rgb", "bgr"] | None = None
    range: tuple[float, float] | None = None
    """What black and white become, before mean and std."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: Literal["resize", "crop", "pad", "none"] | None = None
    resize: int | None = None
    """With fit crop: the short side an image is resized to before its centre is cut out."""
    resample: str | None = None
    """nearest, box, bilinear, hamming, bicubic or lanczos."""
    dtype: str = "float32"

    @property
    def chw(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        a, b, c = self.shape
        return (a, b, c) if self.layout == "NCHW" else (c, a, b)

    def as_json(self) -> dict[str, Any]:
        """Return the value of `geed.input`."""
        entry: dict[str, Any] = {"name": self.name, "layout": self.layout}
        if self.layout is not None:
            entry |= {"size": list(self.chw[1:]), "channels": self.chw[0]}
        for key in PREPARATION:
            value = getattr(self, key)
            entry[key] = list(value) if isinstance(value, tuple) else value
        return {key: value for key, value in entry.items() if value is not None}


@dataclass(frozen=True)
class TapEntry:
    """One entry of `geed.taps`: an output of the file."""

    name: str
    """Of the ONNX tensor; by default the module path."""
    kind: Kind
    layout: Layout | None
    """Of maps only."""
    module: str
    """Path of the module or layer in its framework."""
    role: Role | None = None
    """Its place in the default choice."""
    action: Any = None
    """How the tap moves under the group, where the architecture fixes it; see `geed_onnx.actions.fields`."""

    def as_json(self) -> dict[str, Any]:
        """Return the entry as `geed.taps` holds it."""
        entry = {"name": self.name, "kind": self.kind, "layout": self.layout, "module": self.module}
        return entry | {k: v for k, v in (("role", self.role), ("action", self.action)) if v is not None}


@dataclass(frozen=True)
class Source:
    """Where a file came from; goes into `geed.source`."""

    framework: str
    version: str
    model: str
    """As it was named to the exporter, folders left out: `timm:resnet50`, `net.py:build`."""
    weights: Any
    """`random`, `pretrained`, a file's name and sha256, or what a training script says of itself."""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the value of `geed.source`."""
        entry = asdict(self) | {"notes": list(self.notes)}
        return {key: value for key, value in entry.items() if key != "notes" or value}


@dataclass(frozen=True)
class Export:
    """A model on its way into a file.

    Attributes
    ----------
    model : onnx.ModelProto
        One float32 image input of free batch; graph outputs include every tap, by its name.
    reference : callable
        The framework's own forward pass: input `(B, *input.shape)` in the file's layout → {tap name: array} as the
        file should give it (in the file's layout too).
    """

    model: onnx.ModelProto
    input: InputSpec
    taps: tuple[TapEntry, ...]
    source: Source
    reference: Callable[[Array], Mapping[str, Array]]
    probe: Callable[[int], Array] | None = None
    """Inputs to verify with, `(B, *input.shape)`; standard normal values where there is none."""

    def inputs(self, batch: int) -> Array:
        """Return `(batch, *input.shape)` to verify with."""
        if self.probe is not None:
            return self.probe(batch)
        values = np.random.default_rng(batch).standard_normal((batch, *self.input.shape))
        return values.astype(self.input.dtype)
