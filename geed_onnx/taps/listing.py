"""Taps: what can be drawn off a graph, of which kind, and in which shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from onnx import NodeProto

from geed_onnx.errors import UsageError
from geed_onnx.taps.graph import Graph, declared_taps, image_input, image_inputs, stated
from geed_onnx.taps.heads import Head, heads, softmax_due
from geed_onnx.taps.index import reached
from geed_onnx.taps.layout import BY_NAME
from geed_onnx.taps.modules import Modules, modules, scopes
from geed_onnx.taps.ops import CONVOLUTIONS

Kind = Literal["map", "vector", "probability"]
Role = Literal["stage", "latent", "scores"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Tap:
    """A tensor of the graph that can be drawn off as an extra output."""

    name: str
    kind: Kind
    shape: tuple[int | None, ...]
    """Without batch; maps as (C, H, W) whatever the file's layout (in the file's order where that is not known)."""
    rank: int
    """In the file, batch included; 0: not known."""
    layout: str | None
    """Of the tensor in the file, rank 4 only: "NCHW", "NHWC", or None where the graph does not tell."""
    module: str | None
    op: str
    role: Role | None = None
    """Its place in the default choice, None outside it."""
    flags: tuple[str, ...] = ()
    """`folded-batch-norm: EVIDENCE`, `batch-not-first`, `sigmoid`."""
    logits: bool | None = None
    """For probabilities: whether a softmax is still to be applied; None where the graph does not tell."""
    action: object | None = None
    """The channel action that `geed.taps` declares, verbatim."""


def image_names(graph: Graph, input: str | None) -> frozenset[str]:
    """Return the inputs that taps must depend on: the image input, or all that could be it, or all there are."""
    if input is not None:
        return frozenset({image_input(graph, input).name})
    return frozenset(p.name for p in image_inputs(graph) or graph.inputs)


def all_taps(graph: Graph, *, input: str | None = None) -> tuple[Tap, ...]:
    """Return the taps without their roles."""
    index = graph.index
    alive = reached(index, image_names(graph, input))
    paths, head = modules(graph), heads(graph)
    declared = {e["name"]: e for e in declared_taps(graph.metadata)}
    taps = []
    for node in index.nodes:
        for name in node.output:
            rank = index.rank(name)
            listed = name in alive and name in index.own and index.variable(name) and index.is_float(name) and rank
            if listed:
                taps.append(_tap(graph, node, name, paths, head, declared.get(name, {})))
    return tuple(taps)


def _tap(graph: Graph, node: NodeProto, name: str, paths: Modules, head: Head, declared: dict[str, object]) -> Tap:
    shape = graph.index.shape(name) or ()
    layout = graph.layout(name) if len(shape) == 4 else None
    kind = declared.get("kind")
    if kind not in KINDS or (kind == "map" and len(shape) != 4):  # what cannot be is not believed
        kind = "probability" if name in head.logits else natural_kind(shape, layout)
    return Tap(
        name=name,
        kind=kind,
        shape=tap_shape(shape, layout, kind),
        rank=len(shape),
        layout=layout,
        module=paths.of.get(name),
        op=node.op_type,
        flags=tuple(_flags(graph, node, name, shape, head)),
        logits=told_logits(graph, head, name) if kind == "probability" else None,
        action=declared.get("action"),
    )


def told_logits(graph: Graph, head: Head, name: str) -> bool | None:
    """Return what the graph tells of class scores: True before a softmax, False after it, None: neither."""
    due = softmax_due(graph.index, name)
    return head.logits.get(name) if due is None else due


def natural_kind(shape: tuple[int | None, ...], layout: str | None) -> Kind:
    """Return what a tensor is by its rank: rank 4 with more than one position is a map, everything else a vector."""
    if len(shape) != 4:
        return "vector"
    _, *spatial = channels_first(shape[1:], layout)
    if layout is None and sum(n != 1 for n in shape[1:]) <= 1:
        return "vector"
    return "vector" if layout is not None and all(n == 1 for n in spatial) else "map"


def channels_first(shape: tuple[int | None, ...], layout: str | None) -> tuple[int | None, ...]:
    """Return (C, H, W) from the three axes in the file's order."""
    return (shape[2], shape[0], shape[1]) if layout == "NHWC" else shape


def tap_shape(shape: tuple[int | None, ...], layout: str | None, kind: Kind) -> tuple[int | None, ...]:
    """Return a tap's shape without batch: maps as (C, H, W), vectors and scores without axes of one position."""
    rest = shape[1:]
    if len(shape) != 4:
        return rest
    rest = channels_first(rest, layout)
    if kind == "map":
        return rest
    if layout is None:
        whole = tuple(n for n in rest if n != 1)
        return whole if len(whole) == 1 else rest
    return rest[:1] if all(n == 1 for n in rest[1:]) else rest


def check_kind(name: str, kind: Kind, shape: tuple[int | None, ...] | None) -> None:
    """Raise UsageError where a tensor of this shape (batch included, None: unknown) cannot be of this kind."""
    if shape is None:
        return
    # the batch is bound to a number of our own while shapes are inferred: none of the user's business
    printed = "[" + ", ".join(["batch", *("?" if n is None else str(n) for n in shape[1:])][: len(shape)]) + "]"
    if kind == "map" and len(shape) != 4:
        raise UsageError(f"tap {name!r} has shape {printed}: a map has rank 4; take it as {name}:vector")
    if len(shape) < 2:
        raise UsageError(
            f"tap {name!r} has shape {printed}: a {kind} has one entry per image and at least one axis beside"
        )
    if kind == "probability" and (len(shape) > 4 or (len(shape) == 4 and sum(n != 1 for n in shape[1:]) > 1)):
        raise UsageError(f"tap {name!r} has shape {printed}: class scores have rank 2 or 3; take it as {name}:map")


def batch_first(graph: Graph, shape: tuple[int | None, ...]) -> bool:
    """Return whether the first axis has one entry per image, as far as shapes tell."""
    batch, first = graph.index.batch, shape[0] if shape else None
    return bool(shape) and (first is None or batch is None or first == batch)


def _flags(graph: Graph, node: NodeProto, name: str, shape: tuple[int | None, ...], head: Head) -> Iterable[str]:
    if not batch_first(graph, shape):
        yield "batch-not-first"
    if name in head.sigmoid:
        yield "sigmoid"
    if node.op_type in CONVOLUTIONS:
        evidence = _folded(graph, node, name)
        if evidence:
            yield f"folded-batch-norm: {evidence}"


BATCH_NORM = re.compile(r"(^|[./_])(bn|batch_?norm(alization)?|fusedbatchnorm\w*)\d*([./_:]|$)", re.IGNORECASE)
RENAMED = re.compile(r"^(onnx::Conv_)?\d+$")


def _folded(graph: Graph, node: NodeProto, name: str) -> str | None:
    """Return how the file tells that a convolution carries a batch norm, or None; only Convs with a bias can."""
    users = graph.index.consumers.get(name, ())
    if len(node.input) < 3 or any(graph.index.nodes[i].op_type == "BatchNormalization" for i in users):
        return None
    for prop in getattr(node, "metadata_props", ()):
        if prop.key == "pkg.torch.onnx.class_hierarchy" and "BatchNorm" in prop.value:
            return "the node lies in a batch norm's scope"
        if prop.key == "pkg.torch.onnx.name_scopes" and "batch_norm" in prop.value:
            return "the node was traced from a batch norm"
    if any(BATCH_NORM.search(scope) for scope in scopes(node)[-1:]):
        return "the node lies in a batch norm's scope"
    if BATCH_NORM.search(name):
        return "the tensor is named after a batch norm"
    weight, bias = node.input[1], node.input[2]
    if bias == weight + "_bias":
        return "the bias was made by the exporter"
    named = any("." in i.name and not RENAMED.match(i.name) for i in graph.model.graph.initializer)
    if graph.producer.startswith("pytorch") and named and RENAMED.match(weight) and RENAMED.match(bias):
        return "weight and bias were renamed by the exporter, as folding does"
    return None


# --- what others wrote in `geed.*` is checked before it is believed ------------------------------------------------


def declaration_problems(graph: Graph) -> tuple[str, ...]:
    """Return a line for every part of `geed.taps` that is left aside, and for a `geed.input` that names no input."""
    return (*_taps_problems(graph), *_input_problems(graph))


def _taps_problems(graph: Graph) -> Iterator[str]:
    entries = stated(graph.metadata, "geed.taps", [])
    if entries is None:
        yield "the file's geed.taps is no JSON list: left aside; export the model again"
        return
    for i, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            yield f"the file's geed.taps, entry {i}: expected an object with the name of a tensor; left aside"
        elif name not in graph.index.own:
            yield f"the file's geed.taps names {name!r}, which is no tensor of its graph: left aside"
        else:
            yield from (f"the file's geed.taps, {name!r}: {what}; left aside" for what in _wrong(graph, name, entry))


def _wrong(graph: Graph, name: str, entry: dict[str, Any]) -> Iterator[str]:
    kind, layout, module = (entry.get(key) for key in ("kind", "layout", "module"))
    rank = graph.index.rank(name)
    if kind is not None and kind not in KINDS:
        yield f"expected the kind {', '.join(KINDS[:-1])} or {KINDS[-1]}, got {kind!r:.60}"
    elif kind == "map" and rank not in (4, None):
        yield f"a map has 4 axes, this tensor has {rank}"
    if layout is not None and not (isinstance(layout, str) and layout.upper() in BY_NAME):
        yield f"expected the layout NCHW or NHWC, got {layout!r:.60}"
    if module is not None and not isinstance(module, str):
        yield f"expected the module path as text, got {module!r:.60}"


def _input_problems(graph: Graph) -> Iterator[str]:
    name = (stated(graph.metadata, "geed.input", {}) or {}).get("name")
    if isinstance(name, str) and name not in {p.name for p in graph.inputs}:
        yield f"the file's geed.input names {name!r}, which is no input of its graph: the name is left aside"
