"""What is done to an image before a model of keras.applications, read from the application's own function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from geed_exporters.errors import ExportError
from geed_exporters.facts import Facts


def of_application(preprocess_input: Callable[..., Any]) -> Facts:
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
    colour: Literal["bgr", "rgb"] = "bgr" if seen(255, 0, 0)[2] != black[2] else "rgb"
    gain = white - black
    if np.allclose(black, black[0]) and np.allclose(gain, gain[0]):
        low, high = _rounded(black[0], white[0])
        return Facts(colour=colour, range=(low, high), mean=(0.0,), std=(1.0,))
    if np.allclose(gain, 255):
        return Facts(colour=colour, range=(0.0, 255.0), mean=_rounded(*-black), std=(1.0,))
    return Facts(colour=colour, range=(0.0, 1.0), mean=_rounded(*(-black / gain)), std=_rounded(*(1 / gain)))


def _rounded(*values: float) -> tuple[float, ...]:
    return tuple(round(float(v), 9) for v in values)
