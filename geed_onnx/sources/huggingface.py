"""A Hugging Face `preprocessor_config.json`, read as fields of `Preprocessing`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geed_onnx.errors import DataError

NAME = "preprocessor_config.json"

# Pillow's numbers
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# processors that read a plain number as the short side; all others read it as both sides
_SHORT_SIDE = ("clip", "convnext", "mobilenet", "mobilevit", "poolformer", "levit", "pvt", "bit")


def config_beside(folder: Path) -> Path | None:
    """Return the configuration beside a model; exports often keep the model in a folder `onnx` below it."""
    for place in (folder, folder.parent) if folder.name == "onnx" else (folder,):
        if (place / NAME).is_file():
            return place / NAME
    return None


def fields_of(path: Path) -> dict[str, Any]:
    """Return what an image processor's configuration says, as fields of `Preprocessing` (and notes).

    Raises
    ------
    DataError
        If it is no JSON object, or asks for something that cannot be followed.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{NAME} beside the model cannot be read as JSON ({error}); mend or remove it") from error
    if not isinstance(config, Mapping):
        raise DataError(f"{NAME} beside the model is no JSON object; mend or remove it")
    # one file may serve a text or sound model too; some nest the image part
    config = config.get("image_processor", config)
    try:
        return {**_geometry(config), **_values(config)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{NAME} beside the model cannot be understood ({error!r}); give flags, or mend it") from error


def _geometry(config: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if config.get("resample") in _RESAMPLE:
        fields["resample"] = _RESAMPLE[config["resample"]]
    kind = str(config.get("image_processor_type", config.get("feature_extractor_type", ""))).lower()
    size = _sides(config.get("size"), short=any(name in kind for name in _SHORT_SIDE))
    crops = bool(config.get("do_center_crop", "crop_size" in config))
    crop = _sides(config.get("crop_size"), short=False) if crops else None
    ratio = config.get("crop_pct")
    if not config.get("do_resize", True):
        size = None
    if crop is None and isinstance(size, int):
        # ConvNeXT: below 384 the short side is enlarged by 1/crop_pct and the centre cut out
        if ratio and size < 384:
            return {**fields, "size": (size, size), "fit": "crop", "resize": int(size / ratio)}
        if "convnext" in kind:
            return {**fields, "size": (size, size), "fit": "resize"}
        note = f"{NAME} gives the short side {size} only: the centre {size}×{size} is taken"
        return {**fields, "size": (size, size), "fit": "crop", "notes": (note,)}
    if crop is None:
        return fields if size is None else {**fields, "size": size, "fit": "resize"}
    if isinstance(crop, int):
        crop = (crop, crop)
    if ratio and isinstance(size, int):
        size = int(size / ratio)
    if "levit" in kind and isinstance(size, int):
        size = int(size * 256 / 224)
    # without a resize step the crop is taken from the image as it comes, for which there is no field
    if size is None:
        raise DataError(f"{NAME} beside the model crops without resizing; give --size and --fit")
    return {**fields, "size": crop, "fit": "crop", "resize": size}


def _sides(size: Any, *, short: bool) -> int | tuple[int, int] | None:
    """Return (height, width), or the short side, or None where nothing is said."""
    if size is None:
        return None
    if isinstance(size, (int, float)):
        return int(size) if short else (int(size), int(size))
    if isinstance(size, list):
        height, width = size
        return int(height), int(width)
    if "height" in size:
        return int(size["height"]), int(size["width"])
    if "shortest_edge" in size:
        return int(size["shortest_edge"])
    raise DataError(
        f"{NAME} beside the model has a size of {sorted(size)}, which is not followed; give --size and --fit"
    )


def _values(config: Mapping[str, Any]) -> dict[str, Any]:
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    # 255·(1/255) is 1 to the last bit or two; a range of 0..1 should read so
    top = round(255 * factor, 9)
    fields: dict[str, Any] = {"range": (-1.0, top - 1.0) if config.get("rescale_offset") else (0.0, top)}
    if config.get("do_flip_channel_order"):
        fields["colour"] = "bgr"
    if not config.get("do_normalize", "image_mean" in config):
        return fields
    if config.get("image_mean") is None or config.get("image_std") is None:
        raise DataError(
            f"{NAME} beside the model normalises but has no image_mean and image_std; give --mean and --std"
        )
    mean, std = _numbers(config["image_mean"]), _numbers(config["image_std"])
    if config.get("include_top"):  # EfficientNet divides by std once more
        std = tuple(s * s for s in std)
    return {**fields, "mean": mean, "std": std}


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in value) if isinstance(value, list) else (float(value),)
