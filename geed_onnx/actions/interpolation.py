"""What a sample between two pixels takes of them: nearest, bilinear or bicubic weights along one axis.

The weights of a sample are the products of its weights along the two axes, those of ONNX GridSample with `nearest`,
`linear` and `cubic`. Pixels outside the frame contribute 0, each by itself.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from geed_onnx.errors import one_of

Interpolation = Literal["nearest", "bilinear", "bicubic"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)

Floats = npt.NDArray[np.float64]

#: The free coefficient a of the cubic convolution kernel (Keys 1981): that of ONNX GridSample and of PyTorch.
CUBIC = -0.75
#: How far from the middle of two pixels a sample still is in the middle: rounding of a coordinate, and no more.
TIE = 1e-9


def interpolation_of(word: str) -> Interpolation:
    """Return the interpolation of this name.

    Raises
    ------
    UnknownName
        If there is none.
    """
    return one_of("interpolation", word, INTERPOLATIONS)


def axis_weights(part: Floats, interpolation: Interpolation) -> tuple[tuple[int, Floats], ...]:
    """Return (step, weights) of the pixels around samples that lie `part` (in 0..1) after pixel 0 of an axis.

    Pixel `step` enters sample i with `weights[i]`; the weights of a sample add up to 1.

    `nearest` takes the nearer pixel, and of a sample in the middle of two pixels the mean of both. GridSample takes the
    even one there. No choice of one of them commutes with turns and reflections of the frame (at 45° on an even size,
    the diagonal's samples lie in the middle of two pixels that a reflection swaps), the mean does. `bicubic` is the
    cubic convolution kernel with a = −0.75; some of its weights are negative, so that it over- and undershoots.
    """
    if interpolation == "nearest":
        middle = np.abs(part - 0.5) < TIE
        second = np.where(middle, 0.5, (part > 0.5).astype(np.float64))
        return (0, 1 - second), (1, second)
    if interpolation == "bilinear":
        return (0, 1 - part), (1, part)
    return (-1, _far(1 + part)), (0, _near(part)), (1, _near(1 - part)), (2, _far(2 - part))


def _near(t: Floats) -> Floats:
    """Return the cubic kernel at distances t from 0 to 1."""
    return ((CUBIC + 2) * t - (CUBIC + 3)) * t * t + 1


def _far(t: Floats) -> Floats:
    """Return the cubic kernel at distances t from 1 to 2."""
    return ((CUBIC * t - 5 * CUBIC) * t + 8 * CUBIC) * t - 4 * CUBIC
