"""Networks that are equivariant in the continuum: whatever they read beside 0 is the grid's doing, or the scale's.

Every step commutes with turns and reflections of the plane: blur by an isotropic Gaussian, the length of the gradient,
the Laplacian, anything pointwise. On a grid they commute with quarter turns and reflections exactly, with other turns
as far as sampling allows. "Same" zero padding; channels stay apart.

A network is written once, against `Steps`, and read twice: by NumPy, as `measure` takes a callable, and as a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from onnx import ModelProto
from onnx_nets import Net
from scipy import ndimage

Array = npt.NDArray[Any]
CENTRAL = np.array([-0.5, 0.0, 0.5])
SECOND = np.array([1.0, -2.0, 1.0])
ACROSS = np.array([1.0, 10.0, 1.0]) / 12
"""smooths a second difference across its direction: together the nine-point Laplacian, isotropic to fourth order"""
ALONE = np.array([1.0])


def gaussian(sigma: float) -> Array:
    """A Gaussian of this width in pixels, sampled out to 4 sigma, sum 1."""
    reach = int(np.ceil(4 * sigma))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


class Steps(Protocol):
    """What networks are made of; `x` and `y` are arrays `(B, C, H, W)`, or names of them in a graph."""

    def correlate(self, x: Any, rows: Array, columns: Array, stride: int = 1) -> Any:
        """Every channel with `rows` along H and `columns` along W (odd lengths); one position in `stride` is kept."""

    def point(self, op: str, x: Any, y: Any = None) -> Any:
        """An ONNX operator pixel by pixel: of x, or of x and y (a number, or what other steps gave)."""


class InNumPy:
    """Steps on float32 arrays."""

    operators: dict[str, Callable[..., Array]] = {  # noqa: RUF012
        "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Sqrt": np.sqrt, "Tanh": np.tanh, "Neg": np.negative,
        "Relu": lambda x: np.maximum(x, 0),
    }  # fmt: skip

    def correlate(self, x: Array, rows: Array, columns: Array, stride: int = 1) -> Array:
        once = ndimage.correlate1d(x, rows, axis=2, mode="constant")
        return np.asarray(ndimage.correlate1d(once, columns, axis=3, mode="constant"))[:, :, ::stride, ::stride]

    def point(self, op: str, x: Array, y: Array | float | None = None) -> Array:
        given = (x,) if y is None else (x, np.float32(y))
        return self.operators[op](*given)


class InGraph:
    """Steps as nodes of a graph for `channels` channels."""

    def __init__(self, channels: int) -> None:
        self.net, self.channels = Net(), channels

    def _new(self) -> str:
        return f"t{len(self.net.nodes)}_{len(self.net.weights)}"

    def correlate(self, x: str, rows: Array, columns: Array, stride: int = 1) -> str:
        kernel = np.repeat(np.outer(rows, columns)[None, None], self.channels, axis=0).astype(np.float32)
        pads = [len(rows) // 2, len(columns) // 2] * 2
        inputs = [x, self.net.constant(self._new(), kernel)]
        return self.net.add("Conv", inputs, self._new(), group=self.channels, pads=pads, strides=[stride] * 2)

    def point(self, op: str, x: str, y: str | float | None = None) -> str:
        given = [] if y is None else [y if isinstance(y, str) else self.net.constant(self._new(), np.float32(y))]
        return self.net.add(op, [x, *given], self._new())


# ------------------------------------------------------------------------------------------------------ the networks


def blur(s: Steps, x: Any, sigma: float = 1.0, stride: int = 1) -> Any:
    return s.correlate(x, gaussian(sigma), gaussian(sigma), stride)


def gradient(s: Steps, x: Any) -> Any:
    """|∇|, by central differences of the slightly blurred image."""
    soft = blur(s, x)
    parts = [s.correlate(soft, *way) for way in ((CENTRAL, ALONE), (ALONE, CENTRAL))]
    return s.point("Sqrt", s.point("Add", *(s.point("Mul", p, p) for p in parts)))


def minus_log(s: Steps, x: Any) -> Any:
    """−LoG: the negative Laplacian of the image blurred by 1.5 pixels, as one convolution.

    As two, the second would meet the edge that the first was cut off at: padding a padded map is no blur of anything.
    """
    second, across = (np.convolve(way, gaussian(1.5)) for way in (SECOND, ACROSS))
    return s.point("Neg", s.point("Add", s.correlate(x, second, across), s.correlate(x, across, second)))


def band(s: Steps, x: Any) -> Any:
    """The difference of two blurs: of either sign, whatever the images are."""
    return s.point("Sub", blur(s, x, 1.0), blur(s, x, 2.0))


def two_layers(s: Steps, x: Any) -> Any:
    return blur(s, s.point("Relu", s.point("Add", blur(s, x), -0.3)), 1.0)


def squared(s: Steps, x: Any) -> Any:
    soft = blur(s, x)
    return s.point("Mul", soft, soft)


NETWORKS: dict[str, Callable[[Steps, Any], Any]] = {
    "identity": lambda s, x: s.point("Add", x, 0.0),
    "blur": blur,
    "wide blur": lambda s, x: blur(s, x, 2.0),
    "relu": lambda s, x: s.point("Relu", band(s, x)),
    "relu with bias": lambda s, x: s.point("Relu", s.point("Add", blur(s, x), -0.3)),
    "tanh": lambda s, x: s.point("Tanh", blur(s, x)),
    "gradient": gradient,
    "-LoG": minus_log,
    "stride 2": lambda s, x: blur(s, x, 1.0, 2),
    "square": squared,
    "two layers": two_layers,
}


def on_odd_sizes(name: str) -> bool:
    """Whether a network turns with its images on grids of odd size only: a stride of 2 keeps the centre of those."""
    return name == "stride 2"


def function(name: str) -> Callable[[Array], dict[str, Array]]:
    """Return a network as a callable `(B, C, H, W) -> {"map": (B, C, H', W')}`."""
    return lambda x: {"map": NETWORKS[name](InNumPy(), x)}


def graph(name: str, size: int, channels: int = 1) -> ModelProto:
    """Return a network as an ONNX file's graph: `x` (N, channels, size, size) to `map`."""
    steps = InGraph(channels)
    made = steps.net.add("Identity", [NETWORKS[name](steps, "x")], "map")
    out = -(-size // 2) if name == "stride 2" else size
    return steps.net.done([("x", ["N", channels, size, size])], [(made, ["N", channels, out, out])])
