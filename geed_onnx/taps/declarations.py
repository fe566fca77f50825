"""What is wrong with the `geed.*` metadata of a file: others wrote it, so it is checked before it is believed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from geed_onnx.taps.graph import Graph
from geed_onnx.taps.layout import BY_NAME
from geed_onnx.taps.listing import KINDS


def declaration_problems(graph: Graph) -> tuple[str, ...]:
    """Return a line for every part of `geed.taps` that is left aside, and for a `geed.input` that names no input."""
    return (*_taps_problems(graph), *_input_problems(graph))


def _taps_problems(graph: Graph) -> Iterator[str]:
    entries = _json(graph, "geed.taps", [])
    if not isinstance(entries, list):
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
    entry = _json(graph, "geed.input", {})
    name = entry.get("name") if isinstance(entry, dict) else None
    if isinstance(name, str) and name not in {p.name for p in graph.inputs}:
        yield f"the file's geed.input names {name!r}, which is no input of its graph: the name is left aside"


def _json(graph: Graph, key: str, absent: Any) -> Any:
    try:
        return json.loads(graph.metadata[key]) if key in graph.metadata else absent
    except (ValueError, RecursionError):
        return None
