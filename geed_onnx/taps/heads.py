"""The end of the network: class scores, what the last classifier takes, and whether a softmax was applied already."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto

from geed_onnx.taps.graph import Graph
from geed_onnx.taps.index import Index, Shape, integer
from geed_onnx.taps.ops import AFFINE, CLASSIFIERS, PLUMBING, REDUCTIONS, SOFTMAXES


@dataclass(frozen=True)
class Head:
    """What the graph tells of its outputs."""

    logits: dict[str, bool | None]
    """Tensors of class scores: True before a softmax (or after a LogSoftmax), False after it, None: neither."""
    sigmoid: frozenset[str]
    scores: str | None
    """The class scores nearest to the graph's output."""
    latent: str | None
    """What the last classifier takes."""
    main: str | None
    """The float tensor nearest to the main output: the scores, else the first output."""


@dataclass(frozen=True)
class _Walk:
    logits: dict[str, bool | None]
    sigmoid: set[str]
    latent: str | None


def heads(graph: Graph) -> Head:
    """Return the class scores and the latent of a graph; the first class-like output is the main one."""
    index = graph.index
    logits: dict[str, bool | None] = {}
    sigmoid: set[str] = set()
    scores = latent = main = None
    for output in index.outputs:
        walk = _walk(index, output)
        if walk is None:
            continue
        logits.update(walk.logits)
        sigmoid |= walk.sigmoid
        if scores is None:
            first = nearest_float(index, output)
            if first in walk.logits and len(index.shape(first) or ()) in (2, 4):
                scores, latent, main = first, walk.latent, first
    if scores is None:
        # a regressor or a one-class network still has a vector that its last layer takes
        for output in index.outputs:
            last = nearest_float(index, output)
            if last is not None and _classes(index, last) is not None:
                main, latent = last, _latent(index, _behind(index, last, activated=True))
                break
    if main is None:
        main = next((n for n in (nearest_float(index, o) for o in index.outputs) if n), None)
    return Head(logits, frozenset(sigmoid), scores, latent, main)


def nearest_float(index: Index, output: str) -> str | None:
    """Return the output, or the float tensor that it is the quantised form of."""
    name = output
    while index.variable(name) and not index.is_float(name):
        node = index.maker(name)
        if node is None or node.op_type not in PLUMBING:
            return None
        name = node.input[0]
    return name if index.is_float(name) and index.maker(name) is not None else None


def _classes(index: Index, name: str) -> int | None:
    """Return the length of the class axis of scores of one image, (N, K) or (N, K, 1, 1) or (N, 1, 1, K), else None."""
    return _width(index, index.shape(name))


def _width(index: Index, shape: Shape | None) -> int | None:
    if shape is None or len(shape) not in (2, 4) or (index.batch is not None and shape[0] not in (index.batch, None)):
        return None
    whole = [n for n in shape[1:] if n != 1]
    if len(shape) == 2:
        return shape[1]
    return whole[0] if len(whole) == 1 else 1 if not whole else None


def _walk(index: Index, output: str) -> _Walk | None:
    """Walk back from an output over softmax and affine ops to a classifier; None if the output is not class-like."""
    found: dict[str, bool | None] = {}
    sigmoid: set[str] = set()
    name, state = output, "open"  # open: no softmax met yet; done: behind one; odd: a sigmoid or a reduction was met
    behind: list[str] = []
    shape: Shape | None = None
    while True:
        node = index.maker(name)
        if node is None or not index.variable(name):
            return None
        width = _classes(index, name)
        shape = index.shape(name) or shape
        if index.is_float(name) and (width or 0) > 1:
            behind.append(name)
        if node.op_type in PLUMBING:
            name = node.input[0]
        elif node.op_type in SOFTMAXES and state in ("open", "reduced") and _class_axis(index, node, shape):
            if index.rank(name) == 3 and index.is_float(name) and (index.shape(name) or (1,))[-1] != 1:
                behind.append(name)
            found.update(dict.fromkeys(behind, node.op_type == "LogSoftmax" if state == "open" else None))
            if state == "reduced":
                found[name] = node.op_type == "LogSoftmax"
            behind, state, name = [], "done", node.input[0]
        elif node.op_type in ("Sigmoid", "HardSigmoid") and state == "open" and width is not None and width > 1:
            found.update(dict.fromkeys(behind))
            sigmoid.update(behind)
            behind, state, name = [], "done", node.input[0]
        elif node.op_type in REDUCTIONS and state == "open" and index.rank(node.input[0]) == 3:
            # votes of several views (a (N, views, K) table) taken together
            state, name = "reduced", node.input[0]
        else:
            break
    before = _behind(index, name, activated=state != "open")
    if state == "reduced" or (state == "open" and (before is None or not behind)):
        return None
    # the scores before the softmax; an activation before it (SqueezeNet) makes no difference
    found.update(dict.fromkeys(behind, True))
    wide = (index.rank(name) in (2, 3) and (index.shape(name) or (1,))[-1] != 1) or (_classes(index, name) or 0) > 1
    if wide and index.is_float(name):
        found[name] = True
    return _Walk(found, sigmoid, _latent(index, before))


def _class_axis(index: Index, node: NodeProto, behind: Shape | None = None) -> bool:
    """Return whether a softmax runs over the classes of an image: (N, K), (N, K, 1, 1), the last axis of (N, V, K).

    `behind` is the shape of what follows, for an operator whose own output has none (those of quantised graphs).
    """
    shape = index.shape(node.output[0]) or behind
    if (_width(index, shape) or 0) > 1:
        return True
    return shape is not None and len(shape) == 3 and integer(node, "axis", -1) in (-1, 2)


def _softmax_of_scores(index: Index, node: NodeProto, shape: Shape | None) -> bool:
    """Return whether a node is a softmax of what the user calls scores; where no shape tells, over the last axis."""
    if node.op_type not in SOFTMAXES:
        return False
    return _class_axis(index, node, shape) or (shape is None and integer(node, "axis", -1) == -1)


def softmax_due(index: Index, name: str) -> bool | None:
    """Return whether class scores still want their softmax: False behind one, True before one, None: neither.

    Only what moves and rounds values may stand between.
    """
    before, shape = name, index.shape(name)
    while (node := index.maker(before)) is not None:
        if _softmax_of_scores(index, node, shape):
            return node.op_type == "LogSoftmax"
        if node.op_type not in PLUMBING:
            break
        before = node.input[0]
        shape = index.shape(before) or shape
    ahead = [name]
    for after in ahead:
        for node in (index.nodes[i] for i in index.consumers.get(after, ())):
            if _softmax_of_scores(index, node, index.shape(name)):
                return True
            if node.op_type in PLUMBING:
                ahead.append(node.output[0])
    return None


def _behind(index: Index, name: str, activated: bool) -> NodeProto | None:
    """Return the classifier that makes `name`, directly or through bias, scale, plumbing, else None.

    With `activated`, an activation may stand between: behind a softmax it makes the scores no less scores.
    """
    while True:
        node = index.maker(name)
        if node is None:
            return None
        if node.op_type in CLASSIFIERS:
            return node
        # a single number, such as the scale of what was quantised as it came, moves all scores alike
        variables = [n for n in node.input if index.variable(n) and index.shape(n) not in ((), (1,))]
        if node.op_type in PLUMBING or (node.op_type in AFFINE and len(variables) == 1):
            name = variables[0] if variables else node.input[0]
        elif node.op_type in ("GlobalAveragePool", "AveragePool", *REDUCTIONS) or (
            activated and node.op_type in ("Sigmoid", "HardSigmoid", "Tanh", "Relu", "Clip")
        ):
            name = node.input[0]
        else:
            return None


def _latent(index: Index, node: NodeProto | None) -> str | None:
    """Return the vector that a classifier takes, back through copies to where it was made; None: a map."""
    if node is None:
        return None
    name = node.input[0]
    if not index.variable(name) or not _vector(index.shape(name)):
        return None
    found = name if _plain(index, name) else None
    while found is None or index.maker(name) is not None:
        maker = index.maker(name)
        # a dequantised vector is what the classifier sees: nothing before it is
        if maker is None or maker.op_type not in PLUMBING or (found and maker.op_type == "DequantizeLinear"):
            break
        before = maker.input[0]
        if not index.variable(before) or (_plain(index, name) and not _vector(index.shape(before))):
            break
        if _plain(index, before) and (found is None or index.rank(before) == index.rank(found)):
            found = before
        name = before
    return found


def _plain(index: Index, name: str) -> bool:
    shape = index.shape(name)
    first = shape is not None and (index.batch is None or shape[0] in (index.batch, None))
    return first and index.is_float(name) and len(shape or ()) in (2, 3)


def _vector(shape: Shape | None) -> bool:
    return shape is not None and (len(shape) in (2, 3) or (len(shape) == 4 and sum(n != 1 for n in shape[1:]) <= 1))
