"""From a raw image to the model's input, in two steps, because the group acts between them.

`sized` brings an image to the model's height, width and colours, in 0..1; `normalised` maps that to the values,
layout and dtype the network expects. Zero stays black until `normalised`, so what a rotation brings in from outside
the frame is black too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from geed_onnx.errors import DataError, one_of
from geed_onnx.sources.source import Array

FITS = ("resize", "crop", "pad", "none")
COLOURS = ("grey", "rgb", "bgr")
LAYOUTS = ("NCHW", "NHWC")
RESAMPLES = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
DTYPES = ("float16", "float32", "float64", "uint8", "int8", "uint16", "int16", "int32", "int64")

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601
_SLACK = 1e-3  # a resampled or stored float image may pass 0..1 by rounding


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before the model sees it; echoed in every result.

    Raises
    ------
    DataError
        If the fields cannot be meant: a size below 1, an empty range, a zero std, a mean that fits no channel count.
    UnknownName
        If a word (fit, colour, layout, resample, dtype) is not known.
    """

    height: int
    width: int
    fit: str = "resize"
    """resize: to exactly height × width; crop: the frame is filled and the centre kept; pad: the whole image is kept
    and black put around it; none: images have that size already"""
    resize: int | tuple[int, int] | None = None
    """with fit crop, the short side, or (height, width), that an image is resized to before its centre is cut out"""
    colour: str = "rgb"
    """grey (one channel, ITU-R 601 luma), rgb or bgr; a grey image gets three equal channels"""
    range: tuple[float, float] = (0.0, 1.0)
    """what black and white become"""
    mean: tuple[float, ...] = (0.0,)
    """subtracted after `range`; one number, or one per channel in the model's order"""
    std: tuple[float, ...] = (1.0,)
    """divided by after `mean`; one number, or one per channel in the model's order"""
    layout: str = "NCHW"
    dtype: str = "float32"
    resample: str = "bilinear"
    origin: str = "flags"
    """who says so: metadata geed.input, preprocessor_config.json, flags, assumed; `flags over …` where they mix"""
    notes: tuple[str, ...] = ()
    """what was assumed or bent, in words"""

    def __post_init__(self) -> None:
        for what, name, known in (
            ("fit", self.fit, FITS),
            ("colour", self.colour, COLOURS),
            ("layout", self.layout, LAYOUTS),
            ("resample", self.resample, RESAMPLES),
            ("dtype", self.dtype, DTYPES),
        ):
            one_of(what, name, known)
        before = (self.resize,) if isinstance(self.resize, int) else self.resize or ()
        if min(self.height, self.width, *before) < 1:
            raise DataError(f"the size {self.height}×{self.width} (resize {self.resize}) must be at least 1×1")
        if not all(np.isfinite([*self.range, *self.mean, *self.std])):
            raise DataError("range, mean and std must be finite numbers")
        if len(self.range) != 2 or self.range[0] == self.range[1]:
            raise DataError(f"the range must be two different numbers, not {self.range}")
        for word, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise DataError(f"{word} has {len(values)} numbers; expected 1, or one for each of {self.channels}")
        if 0 in self.std:
            raise DataError(f"std must not be 0, but is {self.std}")

    @property
    def channels(self) -> int:
        """The number of channels of the model's input: 1 or 3."""
        return 1 if self.colour == "grey" else 3

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def sized(raw: Array, p: Preprocessing) -> Array:
    """Return an image at the model's size and colours: `(C, H, W)` float32 in 0..1, not normalised.

    `raw` is `(H, W)`, `(H, W, 1)` or `(H, W, 3)` RGB: bool, uint8, uint16, or float in 0..1. Resizing averages over
    what it shrinks (antialias), as Pillow does; 8-bit images are resized in 8 bits, as data pipelines do.

    Raises
    ------
    DataError
        If `raw` is no image of that kind, or `p.fit` is `none` and its size is another.
    """
    image = raw[:, :, None] if raw.ndim == 2 else raw
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape:
        raise DataError(f"expected an image (H, W), (H, W, 1) or (H, W, 3), got shape {raw.shape}")
    planes = _unit(_coloured(_fitted(_readable(image), p), p.colour))
    return np.ascontiguousarray(np.moveaxis(planes, -1, 0))


def normalised(x: Array, p: Preprocessing) -> Array:
    """Return the model's input: `(x·(hi − lo) + lo − mean) / std`, in `p.layout` and `p.dtype`.

    `x` is `(…, C, H, W)` in 0..1, any number of leading axes; the result has the same leading axes and then
    `(C, H, W)` or `(H, W, C)`. Integer dtypes are rounded and held within their bounds. Where
    nothing is to be done the result is `x` itself.

    Raises
    ------
    DataError
        If `x` has another number of channels.
    """
    if x.ndim < 3 or x.shape[-3] != p.channels:
        raise DataError(f"expected images (…, {p.channels}, H, W), got shape {x.shape}")
    exact = np.float64 if p.dtype == "float64" else np.float32
    low, high = p.range
    mean, std = (np.asarray(values, dtype=np.float64).reshape(-1, 1, 1) for values in (p.mean, p.std))
    scale, shift = (high - low) / std, (low - mean) / std
    if (scale == 1).all() and (shift == 0).all():
        values = x.astype(exact, copy=False)
    else:
        values = x.astype(exact, copy=False) * scale.astype(exact)
        values += shift.astype(exact)
    dtype = np.dtype(p.dtype)
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        values = np.clip(np.rint(values), bounds.min, bounds.max)
    if p.layout == "NHWC":
        values = np.moveaxis(values, -3, -1)
    return np.ascontiguousarray(values, dtype=dtype)


# ---- the steps of `sized` ----------------------------------------------------------------------------------------


def _readable(image: Array) -> Array:
    """Return uint8 as it is and everything else as float32 in 0..1."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.bool_:
        return image.astype(np.float32)
    if image.dtype == np.uint16:
        return image.astype(np.float32) / np.float32(65535)
    if image.dtype.kind != "f":
        raise DataError(f"expected pixels as uint8, uint16 or float in 0..1, got {image.dtype}; convert them")
    low, high = float(image.min()), float(image.max())
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise DataError(
            f"expected float pixels in 0..1, got values from {low:g} to {high:g}; scale them to 0..1, or give arrays "
            "that are the model's input already without preprocessing flags"
        )
    return image.astype(np.float32)


def _unit(image: Array) -> Array:
    return image / np.float32(255) if image.dtype == np.uint8 else np.clip(image, 0, 1)


def _coloured(image: Array, colour: str) -> Array:
    """Return `(H, W, C)` in the model's colours; luma is a float, so an 8-bit image leaves its 8 bits there."""
    if colour == "grey":
        return image if image.shape[-1] == 1 else (_unit(image) @ _LUMA)[:, :, None]
    if image.shape[-1] == 1:
        return np.repeat(image, 3, axis=-1)
    return image[:, :, ::-1] if colour == "bgr" else image


def _fitted(image: Array, p: Preprocessing) -> Array:
    """Return the image `(H, W, C)` at the model's size."""
    height, width = image.shape[:2]
    if p.fit == "none":
        if (height, width) != (p.height, p.width):
            raise DataError(
                f"expected an image of {p.height}×{p.width}, got {height}×{width}; --fit resize, crop or pad brings "
                "images to size"
            )
        return image
    if p.fit == "resize":
        return _resized(image, p.height, p.width, p.resample)
    if p.fit == "pad":
        scale = min(p.height / height, p.width / width)
        inside = (max(1, round(height * scale)), max(1, round(width * scale)))
        return _centred(_resized(image, *inside, p.resample), p.height, p.width)
    return _centred(_resized(image, *_before_crop(height, width, p), p.resample), p.height, p.width)


def _before_crop(height: int, width: int, p: Preprocessing) -> tuple[int, int]:
    """Return (height, width) that an image is resized to before its centre is cut out, rounded down as usual."""
    if isinstance(p.resize, tuple):
        return p.resize
    tall, wide = (p.height, p.width) if p.resize is None else (p.resize, p.resize)
    if tall * width >= wide * height:
        return tall, max(1, width * tall // height)
    return max(1, height * wide // width), wide


def _centred(image: Array, height: int, width: int) -> Array:
    """Return the centre `height` × `width` of an image, black where the image does not reach."""
    for axis, wanted in ((0, height), (1, width)):
        spare = image.shape[axis] - wanted
        if spare > 0:
            image = np.take(image, range(spare // 2, spare // 2 + wanted), axis=axis)
        elif spare < 0:
            before = -spare // 2
            image = np.pad(image, [(before, -spare - before) if a == axis else (0, 0) for a in range(3)])
    return image


def _resized(image: Array, height: int, width: int, resample: str) -> Array:
    """Return the image `(H, W, C)` resampled by Pillow: 8-bit as it is, floats channel by channel in mode F."""
    if image.shape[:2] == (height, width):
        return image
    from PIL import Image

    how = Image.Resampling[resample.upper()]
    planes: Iterable[Array] = [image] if image.dtype == np.uint8 and image.shape[-1] == 3 else np.moveaxis(image, -1, 0)
    resized = [np.asarray(Image.fromarray(np.ascontiguousarray(q)).resize((width, height), how)) for q in planes]
    return resized[0] if resized[0].ndim == 3 else np.stack(resized, axis=-1)
