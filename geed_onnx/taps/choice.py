"""Which tensors: what a user names, else the ends of the network's stages, its latent vector and its class scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import get_args

from geed_onnx.errors import UnknownName, UsageError
from geed_onnx.taps.graph import Graph, declared_taps
from geed_onnx.taps.heads import Head, heads, nearest_float
from geed_onnx.taps.index import Index, needed, reached
from geed_onnx.taps.listing import KINDS, Kind, Role, Tap, all_taps, check_kind, image_names, tap_shape, told_logits
from geed_onnx.taps.modules import modules
from geed_onnx.taps.ops import MOVERS, ONWARD, POOLS, SHAPE_READERS, WEIGHTED

HINT = "`geed-onnx taps MODEL` lists what there is"
MOST_MAPS = 12
FEWEST_MAPS = 3
FEW_STAGES = 4
ROLES: tuple[Role, ...] = get_args(Role)
BY_KIND: dict[Kind, Role] = {"map": "stage", "vector": "latent", "probability": "scores"}


def choose_taps(graph: Graph, *, input: str | None = None) -> tuple[Tap, ...]:
    """Return the default taps in topological order: those of `geed.taps` if there, else found from the graph.

    Maps are the tensors through which every path from the image to the main output passes and at which a stage ends
    (behind its norm, activation and pooling: what the next weight layer takes in); at most twelve of them. A network
    without class scores (a U-Net, a detector), where paths lead around stages, gives the last map of each resolution
    as well.

    Raises
    ------
    UnknownName
        If `input` names no input of the file.
    """
    return tuple(t for t in list_taps(graph, input=input) if t.role)


def list_taps(graph: Graph, *, input: str | None = None) -> tuple[Tap, ...]:
    """Return every float activation that depends on the image input, in topological order, graph outputs included.

    Tensors inside If and Loop bodies, constants, and tensors of unknown rank are not listed.

    Raises
    ------
    UnknownName
        If `input` names no input of the file.
    """
    taps = all_taps(graph, input=input)
    roles = chosen_roles(graph, taps, input)
    return tuple(replace(t, role=roles.get(t.name)) for t in taps)


def chosen_roles(graph: Graph, taps: Sequence[Tap], input: str | None) -> dict[str, Role]:
    """Return the tensors of the default choice and what each stands for."""
    head = heads(graph)
    by_name = {t.name: t for t in taps}
    declared = {e["name"]: e.get("role") for e in declared_taps(graph.metadata) if e["name"] in by_name}
    if declared:
        return {n: role if role in ROLES else BY_KIND[by_name[n].kind] for n, role in declared.items()}
    maps = stage_ends(graph, taps, head, input)
    roles: dict[str, Role] = dict.fromkeys(maps, "stage")
    usable = {t.name for t in taps if "batch-not-first" not in t.flags}
    if head.latent in usable and head.latent != head.main:
        roles[str(head.latent)] = "latent"
    if head.scores in usable:
        roles[str(head.scores)] = "scores"
    elif head.latent is not None and head.main in usable and by_name[str(head.main)].kind == "vector":
        roles[str(head.main)] = "scores"
    if not roles:  # nothing that looks like an image network: its outputs are all there is to say
        roles = {t.name: "latent" for t in taps if t.name in graph.index.outputs and t.name in usable and t.rank > 1}
    return roles


def stage_ends(graph: Graph, taps: Sequence[Tap], head: Head, input: str | None) -> list[str]:
    """Return the tensors at which stages end, in topological order."""
    index = graph.index
    maps = {t.name: t for t in taps if t.kind == "map" and t.layout is not None and "batch-not-first" not in t.flags}
    if not maps:
        return []
    sources = image_names(graph, input)
    alive = reached(index, sources)
    weighty = _behind_weights(index)
    outputs = [n for n in (nearest_float(index, o) for o in index.outputs) if n in alive and n is not None]
    sinks = [head.main] if head.main in alive and head.scores else outputs
    found = _ends(index, maps, alive, [n for n in sinks if n])
    if head.scores is None:
        # paths lead around most stages of a U-Net or a detector: no resolution of it goes unseen
        blocks = [n for n in _blocks(index, maps) if n in alive]
        last_of = {maps[n].shape[1:]: n for n in blocks}
        seen = {maps[n].shape[1:] for n in found}
        found += blocks if len(found) < FEWEST_MAPS else [n for size, n in last_of.items() if size not in seen]
    unweighted = [n for n in maps if n in found and n not in weighty]
    ends = [n for n in maps if n in found and n in weighty]
    # a network without weights (an identity, a fixed filter) still has maps to look at
    chosen = [_pooled(index, maps, n) for n in ends or unweighted or [list(maps)[-1]]]
    return _spread(list(dict.fromkeys(chosen)), maps)


def _pooled(index: Index, maps: dict[str, Tap], name: str) -> str:
    """Return what the next stage takes in: the map behind a pooling that is all that reads this one."""
    users = [index.nodes[i] for i in index.consumers.get(name, ())]
    while len(users) == 1 and users[0].op_type in POOLS and users[0].output[0] in maps and name not in index.outputs:
        name = users[0].output[0]
        users = [index.nodes[i] for i in index.consumers.get(name, ())]
    return name


def _behind_weights(index: Index) -> frozenset[str]:
    made = [o for n in index.nodes if n.op_type in WEIGHTED or n.domain for o in n.output]
    return reached(index, made)


def _ends(index: Index, maps: dict[str, Tap], alive: frozenset[str], sinks: Sequence[str]) -> list[str]:
    """Return the ends of stages among the tensors that lie on every path to the sinks."""
    cuts, makers = _cuts(index, alive, sinks)
    found = []
    for k, name in enumerate(cuts):
        if name not in maps:
            continue
        last = k + 1 == len(cuts)
        if index.maker(name) is None or (_moved(index, name) and not (last or name in index.outputs)):
            continue
        # a quantised or a transposed copy may stand between a map and what carries it on
        ahead = next((m for m in range(k + 1, len(cuts)) if cuts[m] in maps and not _moved(index, cuts[m])), None)
        if ahead is not None:
            between = [i for cut in cuts[k + 1 : ahead + 1] for i in makers[cut]]
            if _goes_on(index, maps, between, name, cuts[ahead]):
                continue
        found.append(name)
    return found


def _moved(index: Index, name: str) -> bool:
    node = index.maker(name)
    return node is not None and node.op_type in MOVERS


def _cuts(index: Index, alive: frozenset[str], sinks: Sequence[str]) -> tuple[list[str], dict[str, list[int]]]:
    """Return the tensors through which every path to the sinks passes, and the nodes between each and the one before.

    In topological order a tensor lies on every path exactly if no edge leaps over its position.
    """
    wanted = needed(index, sinks) & alive
    order = [n for n in index.inputs if n in wanted]
    order += [o for node in index.nodes for o in node.output if o in wanted]
    position = {n: k for k, n in enumerate(order)}
    reach = [0] * len(order)
    nodes_at: dict[int, int] = {}
    for i, node in enumerate(index.nodes):
        made = [position[o] for o in node.output if o in position]
        for k in made:
            nodes_at[k] = i
        if node.op_type in SHAPE_READERS:
            continue
        for name in index.reads[i]:
            if made and name in position:
                reach[position[name]] = max(reach[position[name]], *made)
    last_sink = len(order)
    for name in sinks:
        if len(sinks) > 1 and name in position:
            reach[position[name]] = last_sink
    cuts, makers = list[str](), dict[str, list[int]]()
    furthest, since = 0, list[int]()
    for k, name in enumerate(order):
        if k in nodes_at:
            since.append(nodes_at[k])
        if furthest <= k:
            cuts.append(name)
            makers[name], since = since, []
        furthest = max(furthest, reach[k])
    return cuts, makers


def _goes_on(index: Index, maps: dict[str, Tap], between: Sequence[int], name: str, following: str) -> bool:
    """Return whether a stage goes on from one cut to the next: norms, activations and gates computed on the way only.

    What is computed on vectors on the way (squeeze-and-excitation) gates the map and begins no new stage.
    """
    if maps[name].shape != maps[following].shape:
        return False
    for i in between:
        node = index.nodes[i]
        # whole numbers of the map's own shape are one, and what multiplies them by weights begins another stage
        shape = index.shape(node.output[0])
        spatial = any(o == following or o in maps for o in node.output) or shape in (None, index.shape(following))
        if (spatial or node.op_type == "QuantizeLinear") and node.op_type not in ONWARD | {"Transpose"}:
            return False
    return True


def _blocks(index: Index, maps: dict[str, Tap]) -> list[str]:
    """Return every map behind which no norm or activation follows directly, whether or not paths lead around it."""
    found: list[str] = []
    for name in maps:
        node = index.maker(name)
        users = [index.nodes[i] for i in index.consumers.get(name, ())]
        goes_on = len(users) == 1 and users[0].op_type in ONWARD and users[0].output[0] in maps
        if node is not None and node.op_type not in MOVERS and not goes_on:
            found.append(name)
    return found


def _spread(names: Sequence[str], maps: dict[str, Tap]) -> list[str]:
    """Return at most twelve: of each stage its last block, or all blocks of a network with few stages.

    A stage is a run of blocks whose maps have one shape (C, H, W). Beyond twelve, the last of each resolution and the
    very last are kept, and the rest is filled in evenly.
    """
    stages = [a for a, b in pairwise(names) if maps[a].shape != maps[b].shape] + list(names[-1:])
    if len(stages) >= FEW_STAGES:
        names = stages
    if len(names) <= MOST_MAPS:
        return list(names)
    last_of = {maps[n].shape[1:]: n for n in names}
    keep = [n for n in names if n in last_of.values()][-MOST_MAPS:]
    rest = [n for n in names if n not in keep]
    free = MOST_MAPS - len(keep)
    keep += [rest[(2 * i + 1) * len(rest) // (2 * free)] for i in range(free)]
    return [n for n in names if n in keep]


# --- what a user writes: tensor name, module path or glob, with the kind after the last colon -----------------------


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
