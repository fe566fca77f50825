"""The image that a model on flattened pixels stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geed_exporters.errors import ExportError
from geed_exporters.export import InputSpec


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
    """What black and white are for the model."""

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
    return InputSpec(name, image.shape, image.layout, colour, range=image.range)
