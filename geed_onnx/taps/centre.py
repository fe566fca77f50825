"""What keeps a network from exact C4 equivariance whatever its weights: sampling grids that miss the frame's centre.

A stride samples every s-th position; a quarter turn maps the sampled positions to each other only if they lie
symmetrically about the centre of the frame. For windows that begin at -p, end at -p + (out-1)·s + k and slide over n
positions, that is the case exactly if begin + end = n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onnx import NodeProto

from geed_onnx.taps.graph import Graph
from geed_onnx.taps.index import Index, attribute, integer, integers, reached, text, told
from geed_onnx.taps.layout import NCHW, Axes
from geed_onnx.taps.listing import image_names
from geed_onnx.taps.ops import WINDOWED

NEARBY = 8


@dataclass(frozen=True)
class Obstacle:
    """One node that breaks exact C4 equivariance."""

    node: str
    """Name of the node, or of its output where it has none."""
    op: str
    tensor: str
    """The tensor that comes in."""
    size: tuple[int | None, int | None]
    """Height and width of what comes in."""
    why: str
    exact_sizes: tuple[int, ...] = ()
    """Heights (= widths) near `size` of what comes in for which this node would be exact."""


@dataclass(frozen=True)
class _Window:
    """A sliding window along one axis: kernel reach, stride, padding (None: SAME), how the output size is rounded."""

    kernel: int
    stride: int
    begin: int
    end: int
    same: str
    ceil: bool

    def centred(self, n: int) -> bool:
        """Return whether the windows over n positions lie symmetrically about the centre."""
        begin, end = self.begin, self.end
        if self.same:
            out = -(-n // self.stride)
            total = max(0, (out - 1) * self.stride + self.kernel - n)
            begin = total // 2 if self.same == "SAME_UPPER" else total - total // 2
        else:
            room = n + begin + end - self.kernel
            if room < 0:
                return False
            out = (-(-room // self.stride) if self.ceil else room // self.stride) + 1
            # the standard drops a last window that begins in the padding behind the data
            if self.ceil and (out - 1) * self.stride >= n + begin:
                out -= 1
        return -begin + (-begin + (out - 1) * self.stride + self.kernel) == n


def lost_centre(graph: Graph, *, input: str | None = None) -> tuple[Obstacle, ...]:
    """Return what breaks exact C4 equivariance between the image input and the outputs, in topological order.

    Looked at are convolutions, poolings, transposed convolutions, resampling, spatial slices and spatial padding. An
    open height or width is reported where a stride's exactness hangs on it: read the graph with `sizes`.

    Raises
    ------
    UnknownName
        If `input` names no input of the file.
    """
    index = graph.index
    alive = reached(index, image_names(graph, input))
    found: list[Obstacle] = []
    for node in index.nodes:
        if not node.input or node.input[0] not in alive or not node.output:
            continue
        name = node.input[0]
        axes = graph.axes.get(name)
        if axes is None or index.rank(name) not in (4, None):
            continue
        rule = RULES.get(node.op_type)
        if rule is None:
            continue
        shape = index.shape(name) or (None,) * 4
        size = (shape[axes[0]], shape[axes[1]])
        for why, nearby in rule(index, node, axes, size):
            found.append(Obstacle(node.name or node.output[0], node.op_type, name, size, why, nearby))
    return tuple(found)


Findings = Iterable[tuple[str, tuple[int, ...]]]
Size = tuple[int | None, int | None]


def _nearby(n: int, exact: Callable[[int], bool]) -> tuple[int, ...]:
    return tuple(m for m in range(max(1, n - NEARBY), n + NEARBY + 1) if exact(m))


def _windowed(index: Index, node: NodeProto, axes: Axes, size: Size) -> Findings:
    windows = _windows(index, node)
    if windows is None or axes != NCHW:
        return
    if windows[0] != windows[1]:
        yield "kernel, stride or padding differ between height and width", ()
    if size[0] is None or size[1] is None:
        if any(w.stride > 1 for w in windows):
            yield f"stride {windows[0].stride} over an open size: read the model with sizes to tell", ()
        elif any(w.begin != w.end and not w.same for w in windows):
            yield f"padding {windows[0].begin} before and {windows[0].end} behind", ()
        return
    if size[0] == 1 and size[1] == 1 and all(w.kernel == 1 for w in windows):
        return
    missed = [(w, n) for w, n in zip(windows, (size[0], size[1]), strict=True) if not w.centred(n)]
    if missed:
        w, n = missed[0]
        pads = w.same or f"padding {w.begin} before and {w.end} behind{', ceil mode' if w.ceil else ''}"
        why = f"kernel reach {w.kernel}, stride {w.stride}, {pads} on size {n}: the windows miss the centre"
        yield why, _nearby(n, lambda m: all(v.centred(m) for v in windows))


def _windows(index: Index, node: NodeProto) -> tuple[_Window, _Window] | None:
    kernel = integers(node, "kernel_shape")
    if not kernel and len(node.input) > 1:
        at = 3 if node.op_type == "QLinearConv" else 1
        shape = index.shape(node.input[at]) if len(node.input) > at else None
        kernel = tuple(n for n in (shape or ())[2:] if n is not None)
    if len(kernel) != 2:
        return None
    strides, dilations = integers(node, "strides", (1, 1)), integers(node, "dilations", (1, 1))
    pads = integers(node, "pads", (0, 0, 0, 0))
    auto = text(node, "auto_pad", "NOTSET")
    if auto == "VALID":
        pads = (0, 0, 0, 0)
    same = auto if auto.startswith("SAME") else ""
    if same:
        pads = (0, 0, 0, 0)
    ceil = bool(integer(node, "ceil_mode", 0))
    first, second = (
        _Window((kernel[a] - 1) * dilations[a] + 1, strides[a], pads[a], pads[a + 2], same, ceil) for a in (0, 1)
    )
    return first, second


def _transposed(index: Index, node: NodeProto, axes: Axes, size: Size) -> Findings:
    windows = _windows(index, node)
    if windows is None or axes != NCHW:
        return
    if windows[0] != windows[1]:
        yield "kernel, stride or padding differ between height and width", ()
    extra = integers(node, "output_padding", (0, 0))
    out = index.shape(node.output[0])
    for axis, (w, n) in enumerate(zip(windows, size, strict=True)):
        if w.same or attribute(node, "output_shape") is not None:
            made = out[axes[axis]] if out is not None else None
            if n is None or made is None:
                continue
            uneven = ((n - 1) * w.stride + w.kernel - made) % 2 != 0
        else:
            uneven = w.begin != w.end - extra[axis]
        if uneven:
            yield (
                f"kernel reach {w.kernel}, stride {w.stride}, cut by {w.begin} before and "
                f"{w.end - extra[axis]} behind: the result is off centre",
                (),
            )
            return


def _sliced(index: Index, node: NodeProto, axes: Axes, size: Size) -> Findings:
    starts, ends = told(index, node, "starts", 1), told(index, node, "ends", 2)
    if starts is None or ends is None:
        return
    over = told(index, node, "axes", 3) or range(len(starts))
    steps = told(index, node, "steps", 4) or (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, over, steps, strict=True):
        if axis % 4 not in axes:
            continue
        n = size[axes.index(axis % 4)]

        def exact(m: int, cut: slice = slice(start, end, step)) -> bool:
            taken = range(m)[cut]
            return len(taken) > 0 and taken[0] + taken[-1] == m - 1

        if n is None:
            if step not in (1, -1):
                yield f"every {step}th position of an open size is taken: read the model with sizes to tell", ()
        elif not exact(n):
            yield (
                f"positions {start}:{end if end < 1 << 31 else ''}:{step} of {n} are taken: they miss the centre",
                _nearby(n, exact),
            )


def _padded(index: Index, node: NodeProto, axes: Axes, size: Size) -> Findings:
    pads = told(index, node, "pads", 1) or integers(node, "paddings")
    if len(pads) != 8:
        return
    for axis in axes:
        if pads[axis] != pads[axis + 4]:
            yield f"padding {pads[axis]} before and {pads[axis + 4]} behind", ()
            return


def _resampled(index: Index, node: NodeProto, axes: Axes, size: Size) -> Findings:
    out = index.shape(node.output[0])
    after = (out[axes[0]], out[axes[1]]) if out is not None else (None, None)
    if (after == size and None not in size) or size == (1, 1):
        return
    mode = text(node, "mode", "nearest")
    # Upsample, and Resize before opset 11, have no such attribute and count from the corner
    old = node.op_type == "Upsample" or (
        len(node.input) == 2 and attribute(node, "coordinate_transformation_mode") is None
    )
    place = "asymmetric" if old else text(node, "coordinate_transformation_mode", "half_pixel")
    whole = all(a is not None and b is not None and b % a == 0 for a, b in zip(size, after, strict=True))
    if mode == "nearest":
        if not whole:
            yield f"nearest-neighbour resampling from {size} to {after}, no whole multiple: ties are broken one way", ()
        elif place == "asymmetric" and text(node, "nearest_mode", "floor" if old else "round_prefer_floor") != "floor":
            yield "nearest-neighbour resampling that counts from the corner and rounds", ()
    elif place in ("asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize"):
        yield f"{mode} resampling from {size} to {after} that counts from the corner ({place})", ()


RULES: dict[str, Callable[[Index, NodeProto, Axes, Size], Findings]] = {
    **dict.fromkeys(WINDOWED, _windowed),
    "ConvTranspose": _transposed,
    "Slice": _sliced,
    "Pad": _padded,
    "Resize": _resampled,
    "Upsample": _resampled,
}
