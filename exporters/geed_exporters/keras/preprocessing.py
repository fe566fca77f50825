"""What is done to an image before a Keras model: read from the application's own function, or declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from geed_exporters.errors import ExportError
from geed_onnx.errors import UnknownName, UsageError

FACTS = ("size", "channels", "colour", "range", "mean", "std", "fit", "resize", "resample")


def of_application(preprocess_input: Callable[..., Any]) -> dict[str, Any]:
    """Return colour, range, mean and std of a `preprocess_input`, found by what it makes of black, white and red.

    It is given `(1, 1, 1, 3)` RGB values in 0..255. Functions that do nothing (the model rescales inside) give the
    range 0..255.

    Raises
    ------
    ExportError
        If the function is not the same straight line for every pixel of a channel.
    """

    def seen(*rgb: float) -> Any:
        return np.asarray(preprocess_input(np.array(rgb, np.float64).reshape(1, 1, 1, 3))).reshape(3)

    black, white = seen(0, 0, 0), seen(255, 255, 255)
    if not np.allclose(seen(51, 51, 51), black + (white - black) / 5, atol=1e-6):
        raise ExportError("preprocess_input is not linear in the pixel values; geed.input cannot say that")
    colour = "bgr" if seen(255, 0, 0)[2] != black[2] else "rgb"
    gain = white - black
    if np.allclose(black, black[0]) and np.allclose(gain, gain[0]):
        return {"colour": colour, "range": _rounded(black[0], white[0]), "mean": (0.0,), "std": (1.0,)}
    if np.allclose(gain, 255):
        return {"colour": colour, "range": (0.0, 255.0), "mean": _rounded(*-black), "std": (1.0,)}
    return {"colour": colour, "range": (0.0, 1.0), "mean": _rounded(*(-black / gain)), "std": _rounded(*(1 / gain))}


def _rounded(*values: float) -> tuple[float, ...]:
    return tuple(round(float(v), 9) for v in values)


def checked(facts: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """Return declared facts of an input (size, channels, colour, range, mean, std, …) as `InputSpec` wants them.

    Raises
    ------
    UnknownName
        If a key is not known.
    UsageError
        If a value cannot be meant.
    """
    read: dict[str, Any] = {}
    for key, value in facts.items():
        if key not in FACTS:
            raise UnknownName("fact of the input", str(key), FACTS, f"given by {whose}")
        if value is None:
            continue
        try:
            read[key] = _read(key, value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{whose}: {key} {value!r} cannot be read ({error})") from error
    return read


def _read(key: str, value: Any) -> Any:
    if key == "size":
        given = value.lower().replace("×", "x").split("x") if isinstance(value, str) else value
        sides = [int(v) for v in (given if isinstance(given, (list, tuple)) else [given])]
        if len(sides) not in (1, 2) or min(sides) < 1:
            raise ValueError("expected HxW, as in 224x224")
        return (sides[0], sides[-1])
    if key in ("channels", "resize"):
        return int(value)
    if key in ("range", "mean", "std"):
        parts = value.replace(",", " ").split() if isinstance(value, str) else value
        numbers = tuple(float(v) for v in (parts if isinstance(parts, (list, tuple)) else [parts]))
        if not numbers or (key == "range" and len(numbers) != 2):
            raise ValueError("expected two numbers, as in 0,255" if key == "range" else "expected numbers")
        return numbers
    if key == "colour" and value not in ("grey", "rgb", "bgr"):
        raise ValueError("expected grey, rgb or bgr")
    return str(value)
