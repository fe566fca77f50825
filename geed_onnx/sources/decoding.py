"""Image files and encoded bytes to raw arrays: Pillow's many modes brought to grey or RGB, 8 or 16 bits or float."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from geed_onnx.errors import DataError
from geed_onnx.sources.source import Array, one_line


def decode(encoded: bytes | Path, name: str, uri: str) -> Array:
    """Return the image in a file or in encoded bytes, upright by its EXIF orientation; errors name it, and its source.

    Returns `(H, W)` for grey (uint8, uint16, or float32 as stored) and `(H, W, 3)` uint8 for colour. Transparency
    is composited over black. The first frame of an animation is taken. Pillow reads 16-bit colour as 8-bit.

    Raises
    ------
    DataError
        If the image cannot be read, or its pixels are NaN, Inf or integers beyond 16 bits.
    """
    from PIL import Image, ImageOps

    try:
        # Pillow warns of odd metadata and of large pictures; neither harms the pixels
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
                image.load()
                array = _pixels(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders of damaged files raise nearly everything, from struct.error to SyntaxError
        raise DataError(
            f"{uri}: cannot read image {name!r}: {_reason(error)}; mend or remove it, or leave unreadable images out "
            "with --skip-bad"
        ) from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{uri}: image {name!r} holds NaN or Inf; mend or remove it")
    return array


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    # its own text names a BytesIO object or repeats the path
    return "not an image that Pillow knows" if isinstance(error, UnidentifiedImageError) else one_line(error)


def _pixels(image: Any) -> Array:
    """Return the pixels of a Pillow image, `(H, W)` or `(H, W, 3)`."""
    mode = image.mode
    if mode in ("LA", "PA", "La", "RGBA", "RGBa") or (mode in ("L", "P", "RGB") and "transparency" in image.info):
        return _over_black(image, grey=mode in ("L", "LA", "La"))
    if mode in ("L", "RGB", "F"):
        return np.array(image)
    if mode == "1":
        return np.array(image.convert("L"))
    if mode.startswith("I"):
        return _sixteen_bits(np.array(image))
    return np.array(image.convert("RGB"))  # P, CMYK, YCbCr, HSV


def _over_black(image: Any, *, grey: bool) -> Array:
    from PIL import Image

    # through premultiplied modes Pillow would round twice
    clear = image.convert("RGBA")
    black = Image.new("RGBA", clear.size, (0, 0, 0, 255))
    colours = Image.alpha_composite(black, clear).convert("RGB")
    return np.array(colours.getchannel(0) if grey else colours)


def _sixteen_bits(array: Array) -> Array:
    # mode I is 32 bits wide, but it is how Pillow holds 16-bit PPM and, before version 11.3, 16-bit PNG
    if array.dtype.itemsize > 2 and (array.min() < 0 or array.max() > 65535):
        raise ValueError(f"integer pixels from {array.min()} to {array.max()} are beyond 16 bits")
    return array.astype(np.uint16)
