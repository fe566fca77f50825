"""Which axes of a tensor are the picture's height and width, told by the graph and by nothing else.

The fact is kept as the pair of spatial axes, (2, 3) for NCHW and (1, 2) for NHWC, for tensors of any rank, and
travels along the graph in both directions. It comes from, in this order (a later one never overrules an earlier one):

1. metadata (`geed.input`, `geed.taps`);
2. operators that the standard defines on N×C×H×W: convolution, pooling, resampling by blocks, normalisation by channel;
3. what contracts, biases or normalises one axis as the channel: a MatMul with a weight, an Add of a (C,)
   or (C,1,1) constant;
4. for the graph's input only, where no node tells: the convention of the framework that the producer field names.

Two facts that contradict each other leave the tensor undetermined. Sizes are never a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from onnx import NodeProto

from geed_onnx.taps.index import Index, Shape, integer, integers, told
from geed_onnx.taps.ops import CHANNELS_FIRST, CHANNELWISE, ELEMENTWISE_INPUTS, MATMULS, REDUCTIONS, SAME_AXES

Axes = tuple[int, int]
NCHW: Axes = (2, 3)
NHWC: Axes = (1, 2)
NAMES = {NCHW: "NCHW", NHWC: "NHWC"}
BY_NAME = {"NCHW": NCHW, "CHW": NCHW, "NHWC": NHWC, "HWC": NHWC}


FRAMEWORKS = {"tf2onnx": NHWC, "keras2onnx": NHWC, "tflite2onnx": NHWC, "pytorch": NCHW, "cntk": NCHW}


def layouts(index: Index, producer: str, declared: Mapping[str, str]) -> dict[str, Axes]:
    """Return the spatial axes of every tensor the graph tells them of; `declared` maps tensor names to layouts."""
    spread = _Spread(index)
    spread.add({k: BY_NAME[v.upper()] for k, v in declared.items() if v.upper() in BY_NAME})
    spread.add(_by_operator(index))
    spread.add(_by_channel(index))
    convention = next((axes for k, axes in FRAMEWORKS.items() if producer.lower().startswith(k)), None)
    if convention:
        spread.add({n: convention for n in index.inputs if index.rank(n) == 4})
    return {k: v for k, v in spread.axes.items() if v is not None}


class _Spread:
    """Carries facts along the graph; None marks a tensor on which two facts met that do not agree."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.axes: dict[str, Axes | None] = {}

    def add(self, facts: Mapping[str, Axes]) -> None:
        settled = set(self.axes)
        work = [(n, a) for n, a in facts.items() if n not in settled]
        for name, axes in work:
            self.axes[name] = axes if self.axes.get(name, axes) == axes else None
        while work:
            following: list[tuple[str, Axes]] = []
            for name, axes in work:
                if self.axes.get(name) == axes:
                    following.extend(self._neighbours(name, axes))
            work = []
            for name, axes in following:
                if name in settled or not self.index.variable(name):
                    continue
                if name not in self.axes:
                    self.axes[name] = axes
                    work.append((name, axes))
                elif self.axes[name] != axes:
                    self.axes[name] = None

    def _neighbours(self, name: str, axes: Axes) -> Iterable[tuple[str, Axes]]:
        maker = self.index.producer.get(name)
        for i in (*self.index.consumers.get(name, ()), *([] if maker is None else [maker])):
            if self.index.nodes[i].input:
                yield from _across(self.index, self.index.nodes[i], name, axes)


def _across(index: Index, node: NodeProto, name: str, axes: Axes) -> Iterable[tuple[str, Axes]]:
    """Yield what else has axes that follow from those of `name`, an input or an output of the node."""
    source, forward = node.input[0], name not in node.output
    other = node.output[0] if forward else source
    if node.op_type in SAME_AXES:
        rank = index.rank(name)
        for near in (*_data(node), *(o for o in node.output if o and forward)):
            if near != name and index.variable(near) and index.rank(near) == rank:
                yield near, axes
    elif forward and name != source:
        return  # a shape, a scale, a list of axes
    elif node.op_type == "Transpose":
        perm = _perm(index, node)
        if perm and max(axes) < len(perm):
            moved = [perm.index(a) if forward else perm[a] for a in axes]
            yield other, (moved[0], moved[1])
    elif node.op_type in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
        yield from _carried(other, axes, survivors(index.shape(name), index.shape(other)))
    elif (node.op_type in REDUCTIONS and integer(node, "keepdims", 1)) or (
        node.op_type in MATMULS and _contracts_channel(index, node, axes)
    ):
        yield other, axes


def _contracts_channel(index: Index, node: NodeProto, axes: Axes) -> bool:
    """Return whether a weight on the right contracts the last axis, no spatial one, and leaves the others in place."""
    rank = index.rank(node.input[0])
    return node.input[-1] in index.constants and rank is not None and max(axes) < rank - 1


def _data(node: NodeProto) -> tuple[str, ...]:
    """Return the inputs that share the axes of the output: not the scales, shapes and thresholds beside them."""
    many = node.op_type in ELEMENTWISE_INPUTS
    return tuple(n for n in (node.input if many else node.input[:1]) if n)


def _perm(index: Index, node: NodeProto) -> tuple[int, ...]:
    rank = index.rank(node.input[0]) or 0
    return integers(node, "perm", range(rank - 1, -1, -1))


def _carried(name: str, axes: Axes, kept: Mapping[int, tuple[int, Fraction]]) -> Iterable[tuple[str, Axes]]:
    """Yield the axes after a reshape: both whole, or both coarsened or refined by one factor (a pixel shuffle's)."""
    if axes[0] in kept and axes[1] in kept:
        (height, first), (width, second) = kept[axes[0]], kept[axes[1]]
        if first == second and height != width:
            yield name, (height, width)


def survivors(before: Shape | None, after: Shape | None) -> dict[int, tuple[int, Fraction]]:
    """Return the axes that a reshape leaves recognisable: axis before -> (axis after, size after / size before).

    Axes of size 1 carry nothing and may go anywhere. The others are grouped from the left into runs of equal product.
    A run of one axis on both sides is the same axis, moved; one axis split into several goes on in the first of them,
    and the first of several merged ones goes on in the whole.

    >>> {k: v[0] for k, v in survivors((2, 28, 28, 1), (2, 1, 28, 28)).items()}
    {0: 0, 1: 2, 2: 3}
    >>> {k: v[0] for k, v in survivors((2, 7, 28, 3, 28, 3), (2, 7, 84, 84)).items()}
    {0: 0, 1: 1, 2: 2, 4: 3}
    """
    if before is None or after is None or None in before or None in after:
        same = before is not None and before == after
        return {i: (i, Fraction(1)) for i in range(len(before or ()))} if same else {}
    left = [(i, n) for i, n in enumerate(before) if n is not None and n > 1]
    right = [(i, n) for i, n in enumerate(after) if n is not None and n > 1]
    kept: dict[int, tuple[int, Fraction]] = {}
    i = j = 0
    while i < len(left) and j < len(right):
        start, other = i, j
        a, b = left[i][1], right[j][1]
        while a != b:
            if a < b and i + 1 < len(left):
                i += 1
                a *= left[i][1]
            elif b < a and j + 1 < len(right):
                j += 1
                b *= right[j][1]
            else:
                return kept
        if i == start or j == other:
            kept[left[start][0]] = (right[other][0], Fraction(right[other][1], left[start][1]))
        i, j = i + 1, j + 1
    return kept


def _by_operator(index: Index) -> dict[str, Axes]:
    facts: dict[str, Axes] = {}
    for node in index.nodes:
        if node.op_type in CHANNELS_FIRST and node.input:
            for name in (node.input[0], *node.output[:1]):
                if index.variable(name) and _rank_4(index, node, name):
                    facts[name] = NCHW
    return facts


def _rank_4(index: Index, node: NodeProto, name: str) -> bool:
    rank = index.rank(name)
    if rank is not None:
        return rank == 4
    # a pool or a convolution with a two-axis kernel has rank-4 data even where inference could not follow
    return len(integers(node, "kernel_shape")) == 2


def _by_channel(index: Index) -> dict[str, Axes]:
    """Facts from what treats one axis of a rank-4 tensor as the channel; contradictory ones are dropped."""
    found: dict[str, set[Axes]] = {}
    for node in index.nodes:
        if not node.input or index.rank(node.input[0]) is None:
            continue
        if node.op_type in MATMULS and node.input[-1] in index.constants and index.rank(node.input[-1]) == 2:
            _note(index, found, node.input[0], NHWC)
        elif node.op_type in CHANNELWISE and len(node.input) == 2:
            for name, constant in (tuple(node.input), tuple(reversed(node.input))):
                if constant in index.constants:
                    axes = _channel_constant(index.shape(constant))
                    if axes:
                        _note(index, found, name, axes)
        elif node.op_type == "LayerNormalization" and integer(node, "axis", -1) in (-1, 3):
            _note(index, found, node.input[0], NHWC)
        elif node.op_type in REDUCTIONS:
            spatial = tuple(sorted(a % 4 for a in told(index, node, "axes", 1) or ()))
            if spatial in NAMES:
                _note(index, found, node.input[0], (spatial[0], spatial[1]))
    return {k: next(iter(v)) for k, v in found.items() if len(v) == 1}


def _note(index: Index, found: dict[str, set[Axes]], name: str, axes: Axes) -> None:
    if index.variable(name) and index.rank(name) == 4:
        found.setdefault(name, set()).add(axes)


def _channel_constant(shape: Shape | None) -> Axes | None:
    """Return the layout that a per-channel constant implies: (C,) is added to the last axis, (C,1,1) to the second."""
    whole = [len(shape) - i for i, n in enumerate(shape) if n != 1] if shape and None not in shape else []
    return {1: NHWC, 3: NCHW}.get(whole[0]) if len(whole) == 1 else None
