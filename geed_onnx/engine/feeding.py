"""How data get to the model: what is read, what the group acts on, and what the network is finally given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geed_onnx.errors import DataError
from geed_onnx.sources import (
    Preprocessing,
    Source,
    as_images,
    normalised,
    preprocessing_for,
    sized,
)

if TYPE_CHECKING:
    from geed_onnx.taps import Graph, Port

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Feed:
    """How a raw array of the source becomes an array the group acts on, and that one a model input."""

    preprocessing: Preprocessing | None
    """None: arrays are used as they are"""
    layout: str | None
    """of arrays used as they are: NHWC ones are turned to NCHW for the group and back for the model"""
    dtype: str

    def prepare(self, raw: Array) -> Array:
        """Return what the group acts on: the sized image `(C, H, W)`, or the array with its channels first."""
        if self.preprocessing is not None:
            return sized(raw, self.preprocessing)
        first = np.moveaxis(raw, -1, 0) if self.layout == "NHWC" and raw.ndim == 3 else raw
        return np.ascontiguousarray(first)

    def model_input(self, x: Array) -> Array:
        """Return the rows `(B, …)` that the model is given, from rows that the group acted on."""
        if self.preprocessing is not None:
            return normalised(x, self.preprocessing)
        last = np.moveaxis(x, 1, -1) if self.layout == "NHWC" and x.ndim == 4 else x
        return np.ascontiguousarray(last, dtype=np.dtype(self.dtype))


def first_raw(source: Source) -> Array:
    """Return the first readable array of a source."""
    for _, raw in islice(source.items(None), 1):
        return raw
    raise DataError(f"{source.uri}: there are no images")


def check_array(raw: Array, port: Port, uri: str) -> None:
    """Hold an array used as it is against the model's input.

    Raises
    ------
    DataError
        If its rank, a size, the channel count or the type does not fit; the message says what to do.
    """
    expected = port.shape[1:]
    wanted = f"(N, {', '.join('any' if not isinstance(d, int) else str(d) for d in expected)}) {port.dtype}"
    got = f"(N, {', '.join(map(str, raw.shape))}) {raw.dtype}"
    where = f"{uri}: the model's input {port.name!r} is {wanted}, but the arrays are {got}"
    if raw.ndim != len(expected):
        raise DataError(f"{where}: expected {len(expected) + 1} axes, got {raw.ndim + 1}; arrays are used as they are")
    wrong = [i for i, (d, size) in enumerate(zip(expected, raw.shape, strict=True)) if isinstance(d, int) and d != size]
    if wrong:
        swapped = len(expected) == 3 and all(
            not isinstance(d, int) or d == size
            for d, size in zip(expected, _other_layout(raw.shape, port), strict=True)
        )
        advice = f"; they look like the other layout: transpose them to {port.layout or 'fit'}" if swapped else ""
        channel = len(expected) == 3 and wrong == [2 if port.layout == "NHWC" else 0]
        what = "another number of channels" if channel else "another size"
        raise DataError(f"{where}: {what}{advice}; arrays are used as they are")
    kind, need = raw.dtype.kind, np.dtype(port.dtype) if port.dtype != "bfloat16" else np.dtype("float32")
    if need.kind == "f" and kind != "f":
        raise DataError(
            f"{where}: another type; arrays are used as they are, so give x.astype('{port.dtype}') in the range the"
            " model expects, or let them be read as images (--range 0,1 or another preprocessing flag)"
        )
    if need.kind != "f" and raw.dtype != need:
        raise DataError(f"{where}: another type; arrays are used as they are, so give {port.dtype}")


def _other_layout(shape: tuple[int, ...], port: Port) -> tuple[int, ...]:
    return (shape[-1], *shape[:-1]) if port.layout != "NHWC" else (*shape[1:], shape[0])


@dataclass(frozen=True)
class FileModel:
    """A file read for measuring: its graph at the data's size, its input, and how arrays get there."""

    graph: Graph
    port: Port
    feed: Feed
    shape: tuple[int, ...]
    """of what the group acts on"""


def prepare_file(
    graph: Graph,
    source: Source,
    *,
    input: str | None,
    layout: str | None,
    flags: Mapping[str, Any],
) -> tuple[FileModel, Source]:
    """Read the file at the size of the data, and settle how the data become its input."""
    from geed_onnx.taps import image_input, read_graph

    port = image_input(graph, input)
    declared_layout, layout = layout, layout or port.layout
    given = {k: v for k, v in flags.items() if v is not None}
    if source.as_is and given:
        source = as_images(source)
    raw = first_raw(source)
    if source.as_is:
        check_array(raw, port, source.uri)
        if len(port.shape) == 4 and layout is None:
            raise DataError(
                f"the graph does not tell whether its input {port.name!r} {list(port.shape)} is NCHW or NHWC; add"
                " --layout NCHW or --layout NHWC"
            )
        feed = Feed(None, layout, port.dtype)
    else:
        how = preprocessing_for(
            input_shape=tuple(d if isinstance(d, int) else None for d in port.shape),
            input_layout=layout,
            input_dtype=port.dtype,
            metadata=graph.metadata,
            model_folder=graph.path.parent,
            flags={**given, "layout": declared_layout},
        )
        feed = Feed(how, how.layout, port.dtype)
    first = feed.prepare(raw)
    concrete = feed.model_input(first[None]).shape
    if any(not isinstance(d, int) for d in port.shape[1:]):
        graph = read_graph(graph.path, sizes={port.name: concrete})
        port = image_input(graph, port.name)
    return FileModel(graph, port, feed, first.shape), source
