"""Who says what is done to an image: flags, the file's `geed.input`, a `preprocessor_config.json`, or nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geed_onnx.errors import DataError, GeedError, UnknownName, UsageError, one_of
from geed_onnx.sources import huggingface
from geed_onnx.sources.preprocessing import LAYOUTS, Preprocessing

METADATA = "metadata geed.input"

_FLAGS = ("size", "fit", "resize", "colour", "range", "mean", "std", "layout", "dtype", "resample")
# the words of geed.input, and other spellings of them
_KEYS = {name: name for name in _FLAGS} | {"value range": "range", "value_range": "range", "color": "colour"}
_ONNX_DTYPES = {"float": "float32", "double": "float64"}


def preprocessing_for(
    *,
    input_shape: tuple[int | None, ...],
    input_layout: str | None,
    input_dtype: str,
    metadata: Mapping[str, str],
    model_folder: Path | None,
    flags: Mapping[str, Any],
) -> Preprocessing:
    """Return what is done to images for a model: flags, over `geed.input`, over `preprocessor_config.json`, over 0..1.

    The first of `metadata["geed.input"]` (JSON) and `preprocessor_config.json` in `model_folder` that exists is
    followed whole; `flags` (size, fit, resize, colour, range, mean, std, layout, dtype, resample; as values or as
    text such as `224x224` and `0,255`; None is no flag) then replace it field by field. What nobody says is taken
    from the input itself, in 0..1 with mean 0 and std 1. A uint8 input is given 0..255.

    Parameters
    ----------
    input_shape
        The model's input, batch axis included, `(N, C, H, W)` or `(N, H, W, C)`; None for a free axis.
    input_layout
        `NCHW`, `NHWC`, or None where the graph does not tell.
    input_dtype
        A NumPy name (`float32`) or ONNX Runtime's (`tensor(float)`).

    Raises
    ------
    DataError
        If size or layout stay unknown, or do not fit the input; the message names the flag to add.
    UsageError
        If a flag is not known or cannot be read.
    """
    if len(input_shape) != 4:
        raise DataError(
            f"expected a model input of 4 axes for images, got {len(input_shape)} (shape {_text(input_shape)}); "
            "give arrays (.npy, .npz) that fit it"
        )
    said = _flags(flags)
    origin, lower = _lower(metadata, model_folder)
    layout = said.get("layout") or lower.get("layout") or input_layout
    if layout is None:
        raise DataError(
            f"the layout of the model's input (shape {_text(input_shape)}) is not known from the file; "
            "add --layout NCHW or --layout NHWC"
        )
    notes = [*lower.pop("notes", ())]
    merged = _merged(said, lower)
    merged["layout"] = one_of("layout", str(layout).upper(), LAYOUTS)
    merged.setdefault("colour", _colour(input_shape, merged, notes))
    _set_size(merged, input_shape, origin if "size" not in said else "flags", notes)
    _set_values(merged, input_dtype)
    if "range" not in {**said, **lower} and "mean" not in {**said, **lower}:
        low, high = merged["range"]
        notes.append(f"no value range is declared: {low:g}..{high:g} assumed; --range, --mean and --std change it")
    if said:
        origin = "flags" if origin == "assumed" else f"flags over {origin}"
    try:
        p = Preprocessing(**merged, origin=origin, notes=tuple(notes))
    except UnknownName as error:
        if said:
            raise
        raise DataError(f"{origin}: {error}") from error
    except (GeedError, TypeError) as error:
        raise DataError(f"{origin}: {error}") from error
    _check_channels(p, input_shape)
    return p


def _lower(metadata: Mapping[str, str], model_folder: Path | None) -> tuple[str, dict[str, Any]]:
    """Return (origin, fields) of what comes with the model."""
    if "geed.input" in metadata:
        return METADATA, _of_metadata(metadata["geed.input"])
    config = None if model_folder is None else huggingface.config_beside(model_folder)
    if config is not None:
        return huggingface.NAME, huggingface.fields_of(config)
    return "assumed", {}


def declared_input(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of `Preprocessing` that `geed.input` states; empty where there is none.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    return _of_metadata(metadata["geed.input"]) if "geed.input" in metadata else {}


def _of_metadata(text: str) -> dict[str, Any]:
    try:
        stated = json.loads(text)
        if not isinstance(stated, Mapping):
            raise ValueError("no JSON object")
        # keys that are not ours (a tensor name, an exporter's remark) are left alone
        return {
            _KEYS[key.lower()]: _read(_KEYS[key.lower()], value)
            for key, value in stated.items()
            if key.lower() in _KEYS and value is not None
        }
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"the model's metadata geed.input cannot be understood ({error}); export it again") from error


def _flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    said = {}
    for name, value in flags.items():
        if name not in _FLAGS:
            raise UnknownName("preprocessing flag", name, _FLAGS)
        if value is None:
            continue
        try:
            said[name] = _read(name, value)
        except (ValueError, TypeError, KeyError) as error:
            example = {"size": "224x224", "resize": "256", "range": "0,255", "std": "0.229,0.224,0.225"}.get(
                name, "0.5"
            )
            raise UsageError(
                f"--{name} {value!r} cannot be read ({error}); write it like --{name} {example}"
            ) from error
    return said


def _read(name: str, value: Any) -> Any:
    """Return the field `name` from text, numbers or JSON."""
    if name in ("size", "resize"):
        return _read_size(value, name)
    if name in ("range", "mean", "std"):
        if isinstance(value, str):
            value = value.replace(",", " ").split()
        numbers = tuple(float(v) for v in (value if isinstance(value, (list, tuple)) else [value]))
        if not numbers or (name == "range" and len(numbers) != 2):
            raise ValueError(f"expected {'two numbers' if name == 'range' else 'numbers'}")
        return numbers
    if not isinstance(value, str):
        raise TypeError(f"expected a word for {name}")
    return _plain_dtype(value) if name == "dtype" else value.upper() if name == "layout" else _word(name, value)


def _word(name: str, value: str) -> str:
    word = value.lower()
    return {"gray": "grey", "l": "grey"}.get(word, word) if name == "colour" else word


def _read_size(value: Any, name: str) -> int | tuple[int, int]:
    if isinstance(value, Mapping):
        value = [value["height"], value["width"]]
    if isinstance(value, str):
        value = value.lower().replace("×", "x").replace(",", "x").split("x")
    sides = [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
    if len(sides) == 1:
        return sides[0] if name == "resize" else (sides[0], sides[0])
    if len(sides) != 2:
        raise ValueError("expected one or two sides")
    return sides[0], sides[1]


def _merged(said: Mapping[str, Any], lower: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**lower, **said}
    # the resize before a crop belongs to the size and the fit it was written with
    if ("size" in said or "fit" in said) and "resize" not in said:
        merged.pop("resize", None)
    if said.get("colour") == "grey":
        for name in ("mean", "std"):
            if name not in said and len(merged.get(name, (0,))) > 1:
                raise DataError(f"{name} is declared for {len(merged[name])} channels; add --{name} for grey images")
    return merged


def _colour(shape: tuple[int | None, ...], merged: Mapping[str, Any], notes: list[str]) -> str:
    channels = _channels(shape, merged["layout"])
    if channels is None:
        channels = max(len(merged.get("mean", ())), len(merged.get("std", ()))) or 3
        notes.append(f"the input's number of channels is free: {channels} assumed; --colour changes it")
    elif channels not in (1, 3):
        raise DataError(
            f"the model's input has {channels} channels ({merged['layout']}, shape {_text(shape)}); images give "
            "1 or 3: give arrays (.npy, .npz) that fit it, or --layout if the layout is another"
        )
    if channels == 1:
        notes.append("the input has one channel: colour images are brought to grey by their ITU-R 601 luma")
        return "grey"
    notes.append("the input has three channels: RGB order assumed, grey images repeated; --colour bgr changes it")
    return "rgb"


def _channels(shape: tuple[int | None, ...], layout: str) -> int | None:
    return shape[1] if layout == "NCHW" else shape[3]


def _set_size(merged: dict[str, Any], shape: tuple[int | None, ...], origin: str, notes: list[str]) -> None:
    """Put height and width into `merged`: what is declared, held against what the input allows."""
    sides = shape[2:] if merged["layout"] == "NCHW" else shape[1:3]
    size = merged.pop("size", None)
    if size is None:
        if sides[0] is None or sides[1] is None:
            raise DataError(f"the model takes images of any size (input shape {_text(shape)}); add --size HxW")
        size = (sides[0], sides[1])
    fixed = tuple(given if side is None else side for side, given in zip(sides, size, strict=True))
    if fixed != tuple(size):
        if origin != huggingface.NAME:
            raise DataError(
                f"{origin}: size {size[0]}×{size[1]} does not fit the model's input of shape {_text(shape)} "
                f"({merged['layout']}); expected {fixed[0]}×{fixed[1]}: give --size {fixed[0]}x{fixed[1]}"
            )
        # such files are often copied along from the model before its resolution was changed
        notes.append(
            f"{huggingface.NAME} says {size[0]}×{size[1]}, the model takes {fixed[0]}×{fixed[1]}, which is used"
        )
        merged.pop("resize", None)
    merged["height"], merged["width"] = fixed


def _set_values(merged: dict[str, Any], input_dtype: str) -> None:
    """Put dtype and range into `merged` where nobody gave them."""
    dtype = merged.setdefault("dtype", _plain_dtype(input_dtype))
    if "range" in merged or dtype.startswith("float"):
        merged.setdefault("range", (0.0, 1.0))
    elif dtype == "uint8":
        merged["range"] = (0.0, 255.0)
    else:
        raise DataError(
            f"the model's input is {dtype}, and nothing tells what black and white are in it; add --range LOW,HIGH, "
            "or give arrays (.npy, .npz) of that dtype"
        )


def _plain_dtype(name: str) -> str:
    word = name.lower().removeprefix("tensor(").removesuffix(")")
    return _ONNX_DTYPES.get(word, word)


def _check_channels(p: Preprocessing, shape: tuple[int | None, ...]) -> None:
    channels = _channels(shape, p.layout)
    if channels not in (None, p.channels):
        raise DataError(
            f"{p.origin}: colour {p.colour} has {p.channels} channel(s), but the model's input of shape {_text(shape)} "
            f"({p.layout}) has {channels}; give --colour or --layout"
        )


def _text(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("?" if side is None else str(side) for side in shape) + ")"
