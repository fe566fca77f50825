"""Module paths: which tensor is the output of which module of the network that was exported.

Three writers leave paths: torch's dynamo exporter (`pkg.torch.onnx.name_scopes` on nodes), torch's TorchScript exporter
(`/layer1/layer1.0/conv1/Conv_output_0`) and tf2onnx (`StatefulPartitionedCall/model/conv2d/Relu:0`). A module's output
is the last value that is produced inside it and used outside it. Metadata `geed.taps` overrules that.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from onnx import NodeProto

from geed_onnx.taps.graph import Graph, declared_taps

SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Modules:
    """`outputs` maps a module path to its tensor, `of` a tensor to the innermost module whose output it is."""

    outputs: dict[str, str]
    of: dict[str, str]


def modules(graph: Graph) -> Modules:
    """Return the module paths that the file carries."""
    index = graph.index
    tensorflow = graph.producer.startswith(("tf2onnx", "keras2onnx"))
    within = [scopes(node, tensorflow) for node in index.nodes]
    outside: dict[str, set[str] | None] = {}
    for node in index.nodes:
        for name in node.output:
            if not index.variable(name):
                continue
            users = [set(within[c]) for c in index.consumers.get(name, ())]
            # None: used by nobody inside, so outside every scope
            outside[name] = None if name in index.outputs or not users else set.intersection(*users)
    outputs: dict[str, str] = {}
    for i, node in enumerate(index.nodes):
        for scope in within[i]:
            for name in node.output[:1]:
                if name in outside and name in index.own:
                    common = outside[name]
                    if common is None or scope not in common:
                        outputs[scope] = name
    of: dict[str, str] = {}
    for path in sorted(outputs, key=len):  # the longest, written last, is the innermost
        of[outputs[path]] = path
    for entry in declared_taps(graph.metadata):
        if isinstance(entry.get("module"), str) and entry["name"] in index.own:
            outputs[entry["module"]] = entry["name"]
            of[entry["name"]] = entry["module"]
    return Modules(outputs, of)


def scopes(node: NodeProto, tensorflow: bool = False) -> tuple[str, ...]:
    """Return the module paths that a node lies in, outermost first."""
    for prop in getattr(node, "metadata_props", ()):
        if prop.key == SCOPES:
            return _listed(prop.value)
    names = [n for n in (node.name, *node.output[:1]) if n]
    if tensorflow:
        return next((s for s in map(_tensorflow, reversed(names)) if s), ())
    return next((s for s in map(_torchscript, names) if s), ())


def _listed(value: str) -> tuple[str, ...]:
    try:
        entries = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return ()
    # the first entry is the root, the last the operator itself
    return tuple(str(e) for e in entries[:-1] if e) if isinstance(entries, list | tuple) else ()


def _torchscript(name: str) -> tuple[str, ...]:
    if not name.startswith("/"):
        return ()
    found: list[str] = []
    parts: list[str] = []
    for part in name[1:].split("/")[:-1]:
        # a container's child repeats the container's name: /layer1/layer1.0
        if parts and part.startswith(parts[-1] + "."):
            parts[-1] = part
        else:
            parts.append(part)
        found.append(".".join(parts))
    return tuple(found)


def _tensorflow(name: str) -> tuple[str, ...]:
    if ";" in name:  # TFLite joins the names of what it fused: no one module
        return ()
    parts = name.split(":")[0].split("/")[:-1]
    parts = [p for p in parts if p not in ("StatefulPartitionedCall", "PartitionedCall")]
    return tuple("/".join(parts[: i + 1]) for i in range(len(parts)))
