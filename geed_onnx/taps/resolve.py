"""From what a user writes to taps: tensor name, module path or glob, with the kind after the last colon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from geed_onnx.errors import UnknownName, UsageError
from geed_onnx.taps.choice import list_taps
from geed_onnx.taps.graph import Graph
from geed_onnx.taps.heads import heads
from geed_onnx.taps.listing import KINDS, Kind, Tap, check_kind, tap_shape, told_logits
from geed_onnx.taps.modules import modules

HINT = "`geed-onnx taps MODEL` lists what there is"


def resolve_taps(graph: Graph, specs: Sequence[str], *, input: str | None = None) -> tuple[Tap, ...]:
    """Return the taps that `NAME[:KIND]` specs name, in the order of the specs, each tensor once.

    NAME is a tensor name, else a module path, else a glob over both; KIND (`map`, `vector`, `probability`) overrides
    what the graph tells. A tensor of unknown rank needs a KIND and gets shape ().

    Raises
    ------
    UnknownName
        If a name is no tensor, module path or matching glob; names what is near.
    UsageError
        If a kind is impossible for the tensor's rank, or one tensor is asked for with two kinds.
    """
    taps = {t.name: t for t in list_taps(graph, input=input)}
    paths = modules(graph).outputs
    found: dict[str, Tap] = {}
    explicit: dict[str, Kind] = {}
    for spec in specs:
        name, kind = split_spec(spec)
        if spec in taps and name not in taps:  # a tensor that is really called `a:map`
            name, kind = spec, None
        for tensor in _names(graph, name, taps, paths):
            tap = _with_kind(graph, tensor, taps.get(tensor), kind)
            if kind and explicit.setdefault(tensor, kind) != kind:
                raise UsageError(f"tap {tensor!r} is asked for as {explicit[tensor]} and as {kind}: choose one")
            if kind or tensor not in found:
                found[tensor] = tap
    return tuple(found.values())


def split_spec(spec: str) -> tuple[str, Kind | None]:
    """Return name and kind; only the three kinds count after the last colon, since tensor names have colons too."""
    name, colon, last = spec.rpartition(":")
    for kind in KINDS:
        if colon and name and last == kind:
            return name, kind
    return spec, None


def _names(graph: Graph, name: str, taps: dict[str, Tap], paths: dict[str, str]) -> list[str]:
    index = graph.index
    if name in taps:
        return [name]
    if name in index.own and index.rank(name) is None:
        return [name]
    if name in paths and (paths[name] in taps or index.rank(paths[name]) is None):
        return [paths[name]]
    if name in index.own or name in index.inputs or name in index.constants:
        raise UsageError(f"tensor {name!r} cannot be tapped: it {_why(graph, name)}; {HINT}")
    if any(c in name for c in "*?["):
        matches = {n for n in taps if fnmatchcase(n, name)}
        matches |= {t for path, t in paths.items() if t in taps and fnmatchcase(path, name)}
        if matches:
            return [n for n in taps if n in matches]  # topological order
    raise UnknownName("tap", name, [*taps, *paths], HINT)


def _why(graph: Graph, name: str) -> str:
    if name in graph.index.inputs:
        return "is an input of the model"
    if name in graph.index.constants:
        return "is a constant"
    if not graph.index.is_float(name):
        return "does not hold floating-point numbers"
    return "does not depend on the image, or has no axis"


def _with_kind(graph: Graph, name: str, tap: Tap | None, kind: Kind | None) -> Tap:
    shape = graph.index.shape(name)
    if tap is None:
        if kind is None:
            raise UsageError(
                f"the shape of tap {name!r} is not known: say what it is, {name}:map, :vector or :probability"
            )
        node = graph.index.maker(name)
        layout = graph.layout(name) if kind == "map" else None
        module, op = modules(graph).of.get(name), node.op_type if node else ""
        logits = told_logits(graph, heads(graph), name) if kind == "probability" else None
        return Tap(name, kind, (), 0, layout, module, op, logits=logits)
    if kind is None or kind == tap.kind:
        return tap
    check_kind(name, kind, shape)
    logits = told_logits(graph, heads(graph), name) if kind == "probability" else None
    return replace(tap, kind=kind, shape=tap_shape(shape or (), tap.layout, kind), logits=logits)
