"""Random views of a batch of images, all images at once: flip, crop, colour.

Everything random comes from the generator that is given, so one seed gives one batch of views. Images are RGB in 0..1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: Luma of ITU-R BT.601, by which a colour becomes grey.
LUMA = (0.299, 0.587, 0.114)
SHAPE = (3 / 4, 4 / 3)  # width to height of a crop


@dataclass(frozen=True)
class Plan:
    """What is done to an image to make a view of it; as it stands, nothing."""

    size: int = 32
    """Side of a crop, in pixels of the view."""
    area: tuple[float, float] | None = None
    """Least and largest share of the image that a crop holds; None: the whole image."""
    flips: bool = False
    """Whether half of the views are reflected across the vertical axis."""
    colour: float = 0.0
    """Share of views whose colours are changed."""
    strength: float = 0.5
    """Of the change: brightness, contrast and saturation by up to 0.8 times this, hue by 0.2 times this of a turn."""
    grey: float = 0.0
    """Share of views without colour."""


def view(x: Tensor, plan: Plan, draw: np.random.Generator) -> Tensor:
    """Return a view of each image of `(B, 3, H, W)`: `(B, 3, size, size)` of a plan that crops, else as large."""
    if plan.flips:
        x = flipped(x, _uniform(draw, x, 0, 1) < 0.5)
    if plan.area is not None:
        x = cropped(x, windows(len(x), plan.area, draw).to(x.device), plan.size)
    if plan.colour:
        chosen = _uniform(draw, x, 0, 1) < plan.colour
        x = torch.where(_each(chosen), coloured(x, plan.strength, draw), x)
    if plan.grey:
        x = torch.where(_each(_uniform(draw, x, 0, 1) < plan.grey), grey(x), x)
    return x


def flipped(x: Tensor, chosen: Tensor) -> Tensor:
    """Return `(B, C, H, W)` with the chosen images `(B,)` reflected across the vertical axis."""
    return torch.where(_each(chosen), x.flip(-1), x)


def windows(count: int, area: tuple[float, float], draw: np.random.Generator) -> Tensor:
    """Return `(count, 4)`: width and height of each crop as shares of the image's, and its centre in -1..1.

    The share of the image is uniform, the shape log-uniform from 3:4 to 4:3, the place uniform within the image; a side
    that would be longer than the image is as long as it.
    """
    share = draw.uniform(*area, count)
    shape = np.exp(draw.uniform(math.log(SHAPE[0]), math.log(SHAPE[1]), count))
    width, height = np.minimum(1, np.sqrt(share * shape)), np.minimum(1, np.sqrt(share / shape))
    right, down = draw.uniform(-1, 1, (2, count))
    return torch.from_numpy(np.stack([width, height, right * (1 - width), down * (1 - height)], 1).astype(np.float32))


def cropped(x: Tensor, window: Tensor, size: int) -> Tensor:
    """Return the window `(B, 4)` of each image as `(B, C, size, size)`, bilinear; nothing comes from outside it."""
    width, height, right, down = window.unbind(1)
    zero = torch.zeros_like(width)
    place = torch.stack([torch.stack([width, zero, right], 1), torch.stack([zero, height, down], 1)], 1)
    grid = F.affine_grid(place, [len(x), x.shape[1], size, size], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def grey(x: Tensor) -> Tensor:
    """Return `(B, 3, H, W)` with the luma of each pixel in all three channels."""
    return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True).expand_as(x)


def coloured(x: Tensor, strength: float, draw: np.random.Generator) -> Tensor:
    """Return images with brightness, contrast, saturation and hue changed, in this order, kept within 0..1.

    A factor a of contrast gives a·x + (1 - a)·(the image's mean grey), of saturation a·x + (1 - a)·(each pixel's grey);
    the hue is turned about the grey axis of the colour cube.
    """
    most = 0.8 * strength
    brightness, contrast, saturation = (_uniform(draw, x, max(0, 1 - most), 1 + most) for _ in range(3))
    angle = _uniform(draw, x, -0.2 * strength, 0.2 * strength) * (2 * math.pi)
    x = (x * _each(brightness)).clamp(0, 1)
    x = torch.lerp(grey(x).mean((1, 2, 3), keepdim=True).expand_as(x), x, _each(contrast)).clamp(0, 1)
    x = torch.lerp(grey(x), x, _each(saturation)).clamp(0, 1)
    return torch.einsum("bij,bjhw->bihw", hue(angle), x).clamp(0, 1)


def hue(angle: Tensor) -> Tensor:
    """Return the rotation `(B, 3, 3)` of colours about the grey axis by each angle `(B,)`, in radians."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    axis = angle.new_full((3, 3), 1 / 3)  # projection onto grey
    across = angle.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return axis + cos * (torch.eye(3, device=angle.device) - axis) + sin * across


def _uniform(draw: np.random.Generator, x: Tensor, low: float, high: float) -> Tensor:
    return torch.from_numpy(draw.uniform(low, high, len(x)).astype(np.float32)).to(x.device)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
