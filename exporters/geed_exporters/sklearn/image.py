"""The image that a model on flattened pixels stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from geed_exporters.errors import ExportError
from geed_exporters.export import Array, InputSpec
from geed_exporters.facts import COMMAND_LINE, NOTHING, Facts, over
from geed_exporters.facts import input_spec as spec_of
from geed_onnx.errors import UsageError


@dataclass(frozen=True)
class Image:
    """How a row of features was an image before it was flattened, in C order."""

    height: int
    width: int
    channels: int = 1
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    """NHWC for colour images that were flattened as (H, W, C) arrays."""
    colour: Literal["grey", "rgb", "bgr"] | None = None
    """None: grey where there is one channel, undeclared otherwise."""
    range: tuple[float, float] | None = None
    """What black and white are for the model, before mean and std."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Without the batch, in the layout."""
        if self.layout == "NCHW":
            return self.channels, self.height, self.width
        return self.height, self.width, self.channels

    @property
    def features(self) -> int:
        """How many numbers it flattens to."""
        return self.height * self.width * self.channels

    def normalised(self, pixels: Array) -> Array:
        """Return what the model sees of pixels within its range, `(batch, *shape)`: (pixels − mean) / std."""
        each = (-1, 1, 1) if self.layout == "NCHW" else (-1,)
        mean, std = (np.reshape(numbers, each) for numbers in (self.mean or (0.0,), self.std or (1.0,)))
        seen: Array = ((pixels - mean) / std).astype(np.float32)
        return seen


def image_of(facts: Facts, layout: Literal["NCHW", "NHWC"], whose: str = COMMAND_LINE) -> Image | None:
    """Return the image that facts describe, or None where they describe none; it has one channel unless they say more.

    Raises
    ------
    UsageError
        If they describe an image without a size, or do not agree with one another.
    """
    if facts == NOTHING:
        return None
    if facts.size is None:
        raise UsageError("--channels, --colour, --range, --mean and --std describe an image: give its --size HxW too")
    # grey is not said for two channels or four
    spec = spec_of(over(Facts(channels=1), facts) if facts.colour is None else facts, layout=layout, whose=whose)
    channels = spec.shape[0 if layout == "NCHW" else 2]
    return Image(*facts.size, channels, layout, spec.colour, spec.range, spec.mean, spec.std)


def input_spec(name: str, features: int, image: Image | None) -> InputSpec:
    """Return the file's input: the image, or a plain vector `(batch, features)`.

    Raises
    ------
    ExportError
        If the image has another number of values than the model has features.
    """
    if image is None:
        return InputSpec(name, (features,))
    if image.features != features:
        side = round((features / image.channels) ** 0.5)
        square = f"; {features} would be {side}x{side}" if side * side * image.channels == features else ""
        more = f" with {image.channels} channels" if image.channels > 1 else ""
        raise ExportError(
            f"the model takes {features} features, but --size {image.height}x{image.width}{more} has"
            f" {image.features}{square}{more if square else ''}"
        )
    colour = image.colour or ("grey" if image.channels == 1 else None)
    return InputSpec(name, image.shape, image.layout, colour, range=image.range, mean=image.mean, std=image.std)
