"""Which layers of a traced network are its blocks, which gives its latent vector and which its scores.

Blocks are the sub-models and layers of one's own that the model is made of. A flat functional model, as in
keras.applications, has none; there it is the tensors through which every path from the image to the output passes and
behind which neither norm, activation nor pooling follows, narrowed to one a block where the author's layer names
number blocks (`block_3_add`, `conv4_block1_out`, `mixed5`), and to one a resolution where there would be too many or
too few.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from geed_exporters.candidates import MOST_STAGES
from geed_exporters.keras.recording import Call, Pass

#: what comes behind a classifier without making it another: shapes and activations
PASSIVE = {"Activation", "Softmax", "ReLU", "LeakyReLU", "Flatten", "Reshape", "Dropout", "Identity", "Permute"}
#: layers that end a stage rather than begin one
ONWARD = re.compile(r"Normalization|Activation|ReLU|ELU|Softmax|Pooling|Dropout|Identity|Rescaling")
#: layers that only lay values out anew
MOVERS = re.compile(r"^(ZeroPadding|Cropping|Reshape|Permute|Flatten)")
NUMBERED = re.compile(
    r"^(.*?(?:block|stage|expanded_conv|conv_pw|mixed|cell)(?:_?(?:block_?)?\d+[a-z]?)+(?=_|$|\.)|mixed\d+)"
)
#: fewer than this say little of a network
FEWEST = 3
#: operations that read sizes and carry no values on
SIZES = {"Shape", "ShapeN", "Size", "Rank"}


@dataclass(frozen=True)
class Structure:
    """Names of tensors by what they are in the network."""

    blocks: frozenset[str]
    latent: str | None
    scores: str | None


def structure(traced: Pass, names: Sequence[str], graph: Any, x: Any, keras: Any) -> Structure:
    """Return the structure of a traced pass; `names` are those of its tensors that can be tapped.

    `graph` is the TensorFlow graph in which tensor `x` is the input.
    """
    tensors = {k: v for k, v in {**traced.tensors(), **traced.outputs}.items() if k in set(names)}
    latent, scores = _head(traced, tensors)
    blocks = _containers(traced.calls, tensors, keras)
    if not blocks:
        # where the body is one sub-model, as with a nested application, its layers are the network's
        level = _body(traced.calls, tensors)
        passed = _cuts(graph, x, list(traced.outputs.values()))
        ends = _ends(traced.calls, tensors, passed, level)
        sizes = _last_of_each([n for n, _ in _line(traced.calls, tensors, level)], tensors)
        # where paths lead around most of the network (NASNet), the last map of each resolution
        blocks = _numbered(ends, tensors) if 2 * len(_last_of_each(ends, tensors)) >= len(sizes) else sizes
    sequences = [n for n in blocks if len(tensors[n].shape) == 3]
    if 2 * len(sequences) > len(blocks):
        # a transformer's embedding of patches is a map, but none of its blocks
        blocks = sequences
    return Structure(frozenset(blocks) - {latent, scores}, latent, scores)


def classifier(traced: Pass) -> Call | None:
    """Return the call of the layer that makes the scores: the last weighted one, with nothing but shape behind it."""
    leaves = [c for c in traced.calls if c.leaf]
    while leaves and type(leaves[-1].layer).__name__ in PASSIVE:
        leaves.pop()
    if not leaves or not leaves[-1].inputs:
        return None
    last, name = leaves[-1], type(leaves[-1].layer).__name__
    if "Dense" in name:
        return last if len(last.inputs[0].shape) == 2 else None
    # MobileNets classify by a 1x1 convolution of the pooled map
    pooled = "Conv" in name and len(last.inputs[0].shape) == 4 and tuple(last.inputs[0].shape[1:3]) == (1, 1)
    return last if pooled else None


def _head(traced: Pass, tensors: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the names of the latent vector and of the scores."""
    vectors = [t for t in traced.outputs.values() if len(t.shape) == 2]
    own = vectors[0] if len(vectors) == 1 else None
    if own is None:
        return None, None
    made = _maker(own, tensors)
    last = classifier(traced)
    if last is None:
        return made, None
    return _maker(last.inputs[0], tensors) or f"{last.path}.input", made


def _maker(tensor: Any, tensors: dict[str, Any]) -> str | None:
    """Return the first name under which a tensor was given: dropout hands on what it was given."""
    return next((name for name, t in tensors.items() if t is tensor), None)


def _containers(calls: Sequence[Call], tensors: dict[str, Any], keras: Any) -> list[str]:
    """Return the outputs of the direct children (of the model, or of its only body) that hold layers themselves."""

    def own(call: Call) -> bool:
        kind = type(call.layer)
        return not call.leaf and (isinstance(call.layer, keras.Model) or not kind.__module__.startswith("keras."))

    prefix = ""
    while True:
        level = [c for c in calls if _parent(c.path) == prefix and own(c) and _spatial(c, tensors)]
        if len(level) != 1 or not _is_last_map(level[0], calls, tensors):
            inside = sum(1 for c in calls if c.leaf and any(c.path.startswith(f"{b.path}/") for b in level))
            # a stem and some downsampling beside a flat body (ConvNeXt) are not what the network is made of
            most = 2 * inside > sum(1 for c in calls if c.leaf)
            return [name for c in level for name in c.outputs if name in tensors] if most else []
        prefix = level[0].path


def _body(calls: Sequence[Call], tensors: dict[str, Any]) -> str:
    """Return the path of the sub-model that holds all the maps, where there is one such; else the model's own, ""."""
    prefix = ""
    while True:
        inner = [c for c in calls if _parent(c.path) == prefix and not c.leaf and _spatial(c, tensors)]
        if len(inner) != 1 or not _is_last_map(inner[0], calls, tensors):
            return prefix
        prefix = inner[0].path


def _is_last_map(body: Call, calls: Sequence[Call], tensors: dict[str, Any]) -> bool:
    """Return whether no map comes after this one on its level: what follows a body is the head."""
    beside = [c for c in calls if _parent(c.path) == _parent(body.path) and _spatial(c, tensors)]
    return beside[-1] is body


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _spatial(call: Call, tensors: dict[str, Any]) -> bool:
    return any(name in tensors and len(t.shape) in (3, 4) for name, t in call.outputs.items())


def _cuts(graph: Any, x: Any, outputs: Sequence[Any]) -> set[int]:
    """Return the ids of the operations through which every path from `x` to the outputs passes.

    In an order where inputs come first, an operation lies on every path exactly if no edge leaps over its place.
    """
    order = graph.get_operations()
    place = {id(op): k for k, op in enumerate(order)}
    alive, needed = {id(x.op)}, {id(t.op) for t in outputs if t.graph is graph}
    for op in order:
        if op.type not in SIZES and any(id(t.op) in alive for t in op.inputs):
            alive.add(id(op))
    for op in reversed(order):
        if id(op) in needed:
            needed |= {id(t.op) for t in op.inputs}
    chosen = [op for op in order if id(op) in alive and id(op) in needed]
    reach = {id(op): place[id(op)] for op in chosen}
    for op in chosen:
        for t in op.inputs:
            if id(t.op) in reach:
                reach[id(t.op)] = max(reach[id(t.op)], place[id(op)])
    found, furthest = set[int](), 0
    for op in chosen:
        if furthest <= place[id(op)]:
            found.add(id(op))
        furthest = max(furthest, reach[id(op)])
    return found


def _line(calls: Sequence[Call], tensors: dict[str, Any], level: str) -> list[tuple[str, str]]:
    """Return (tensor, class of layer) of the maps and sequences that the layers of one level give, in order."""
    line: list[tuple[str, str]] = []
    seen: set[int] = set()
    for call in calls:
        if _parent(call.path) != level or MOVERS.match(type(call.layer).__name__):
            continue
        for name, t in call.outputs.items():
            if name in tensors and len(t.shape) in (3, 4) and id(t) not in seen:
                seen.add(id(t))
                line.append((name, type(call.layer).__name__))
    return line


def _ends(calls: Sequence[Call], tensors: dict[str, Any], passed: set[int], level: str) -> list[str]:
    """Return the tensors on every path at which a stage ends, in order."""
    line = [(name, kind) for name, kind in _line(calls, tensors, level) if id(tensors[name].op) in passed]
    following = [*(kind for _, kind in line[1:]), ""][: len(line)]
    return [name for (name, _), after in zip(line, following, strict=True) if not ONWARD.search(after)]


def _numbered(ends: Sequence[str], tensors: dict[str, Any]) -> list[str]:
    """Return the last end of each numbered block, and the very last end; all ends where layers are not so named."""
    groups: dict[str, str] = {}
    for name in ends:
        found = NUMBERED.match(name.rpartition("/")[2])
        if found:
            groups[found[1]] = name
    kept = [n for n in ends if n in groups.values() or n == ends[-1]] if len(groups) >= FEWEST else list(ends)
    shapes = [tuple(tensors[n].shape) for n in kept]
    runs = 1 + sum(a != b for a, b in pairwise(shapes))
    # where every block widens (DenseNet), the shapes' ends would all lie in one part of the network
    return _last_of_each(ends, tensors) if runs > MOST_STAGES else kept


def _last_of_each(names: Sequence[str], tensors: dict[str, Any]) -> list[str]:
    """Return the last tensor of each resolution, in order; layers work on channels last."""
    last = {tuple(tensors[n].shape[1:-1]): n for n in names}
    return [n for n in names if n in last.values()]
