"""A loaded Keras model in, an `Export` out: one traced pass names the taps, another hands them to the converter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geed_exporters.candidates import Candidate, select
from geed_exporters.errors import NotExportable
from geed_exporters.export import Array, Export, InputSpec, Layout, Source
from geed_exporters.graphs import state_shapes
from geed_exporters.keras import conversion, frameworks, recording
from geed_exporters.keras.loading import described
from geed_exporters.keras.structure import Structure, classifier, structure
from geed_exporters.loaded import Loaded

FORMATS = {"channels_first": True, "channels_last": False}


@dataclass(frozen=True)
class Traced:
    """One pass through a model as TensorFlow's graph, and what of it can be tapped."""

    candidates: tuple[Candidate, ...]
    first: Mapping[str, bool | None]
    """Whether a layer's own setting says channels first (True) or last (False); None where it has none."""
    shapes: Mapping[str, tuple[int, ...]]
    """Without batch, as Keras has them."""
    own: tuple[str, ...]
    """What the model returns, under the name of the layer that made it."""


def candidates(model: Any) -> tuple[Candidate, ...]:
    """Return what can be tapped of a `Loaded` or a Keras model, in the order of the forward pass.

    Raises
    ------
    NotExportable
        If the forward pass cannot be traced.
    """
    return _traced(_as_loaded(model)).candidates


def export_keras(model: Any, *, taps: Sequence[str] = (), layout: Layout = "NHWC", opset: int = 18) -> Export:
    """Return the `Export` of a `Loaded`, or of a Keras model (functional, Sequential, subclassed, nested).

    Parameters
    ----------
    model
        In inference: dropout and batch statistics are off.
    taps
        Globs over layer paths (`mobilenet/block_*_add`); none: stages, latent and scores.
    layout
        NHWC leaves axes as Keras has them; NCHW transposes input and maps inside the file, so that it reads like one
        that came from PyTorch. Each tap declares its own.
    opset
        13 to 18, which is what tf2onnx writes.

    Raises
    ------
    NotExportable
        If the model takes several inputs, its control flow depends on values, or an operation has no ONNX form.
    UnknownName
        If a glob meets nothing.
    """
    loaded = _as_loaded(model)
    keras = frameworks.keras()
    traced = _traced(loaded)
    chosen = select(traced.candidates, taps)
    # the graph's first outputs are the model's own, as in a file without taps
    names = list(dict.fromkeys([*traced.own, *(c.module for c in chosen)]))
    name = next(n for n in (loaded.input.name, "image", "input", "model_input") if n not in names)
    spec = replace(loaded.input, name=name)
    first = layout == "NCHW" and spec.layout == "NHWC"
    with frameworks.quiet(), frameworks.without_xla():
        function = _function(keras, loaded.model, names)
        proto = conversion.converted(function, _tensor_spec(spec), names, opset=opset, channels_first=first)
    if first:
        spec = replace(spec, shape=spec.chw, layout="NCHW")
    state_shapes(proto.graph, {n: s for n, s in traced.shapes.items() if n in names}, "batch")
    layouts, turned = _layouts(proto, spec, traced, chosen, layout)
    entries = loaded.entries(chosen, layouts)
    conversion.to_channels_first(proto.graph, turned)
    source = Source("keras", _versions(keras), loaded.name, loaded.weights, loaded.notes)
    return Export(
        proto, spec, entries, source, _reference(loaded, [c.module for c in chosen], first, turned), _probe(spec)
    )


def _as_loaded(model: Any) -> Loaded:
    return model if isinstance(model, Loaded) else described(model)


def _versions(keras: Any) -> str:
    return f"{keras.__version__} (TensorFlow {frameworks.tensorflow().__version__})"


def _tensor_spec(spec: InputSpec) -> Any:
    return frameworks.tensorflow().TensorSpec((None, *spec.shape), spec.dtype, name=spec.name)


def _traced(loaded: Loaded) -> Traced:
    tf, keras = frameworks.tensorflow(), frameworks.keras()
    held: list[recording.Pass] = []

    def call(x: Any) -> Any:
        held.append(recording.forward(keras, loaded.model, x))
        return list(held[0].outputs.values())

    try:
        with frameworks.quiet(), frameworks.without_xla():
            concrete = tf.function(call, autograph=False).get_concrete_function(_tensor_spec(loaded.input))
    except Exception as error:  # the user's forward pass runs here, whatever it raises
        raise NotExportable(_why_not(error, tf)) from error
    seen, graph = held[0], concrete.graph
    if not seen.outputs:
        raise NotExportable("the model's forward pass returns no tensor")

    def fits(t: Any) -> bool:
        # what is made inside a loop or a branch lives in a graph of its own and cannot be drawn off
        return (
            getattr(t, "graph", None) is graph
            and t.dtype.is_floating
            and len(t.shape or ()) >= 2
            and t.shape[0] is None
        )

    # the cell of a recurrent layer is called for one step or inside a loop: no output of the network
    loops = tuple(f"{c.path}/" for c in seen.calls if isinstance(c.layer, keras.layers.RNN))
    tensors = {n: t for n, t in seen.tensors().items() if fits(t) and not n.startswith(loops)}
    own = {name: t for name, t in seen.outputs.items() if fits(t)}
    makers = {name: next((n for n, t in tensors.items() if t is own.get(name)), None) for name in seen.outputs}
    for name, t in own.items():
        if makers[name] is None:
            tensors[_free(name, tensors)] = t
    names = tuple(makers[name] or _free(name, {} if name in own else tensors) for name in seen.outputs)
    found = _declared(structure(seen, list(tensors), graph, concrete.inputs[0], keras), loaded, list(tensors))
    tensors |= _given_to_classifier(seen, found, fits)
    loaded.check_names(list(tensors))
    settings = {
        name: FORMATS.get(str(getattr(call.layer, "data_format", None))) for call in seen.calls for name in call.outputs
    }
    shapes = _shapes(loaded, tensors)
    listed = tuple(
        Candidate(
            name,
            shapes[name] if settings.get(name) else _channels_first(shapes[name]),
            block=name in found.blocks,
            role="latent" if name == found.latent else "scores" if name == found.scores else None,
        )
        for name in tensors
    )
    return Traced(listed, settings, shapes, names)


def _declared(found: Structure, loaded: Loaded, names: Sequence[str]) -> Structure:
    """Return the structure with what a factory says of it in place of what was found."""
    blocks, latent, scores = found.blocks, found.latent, found.scores
    if loaded.scores == "":  # without classes, what comes out is the latent vector
        latent, scores = scores or latent, None
    latent, scores = loaded.latent or latent, loaded.scores or scores
    if loaded.blocks:
        blocks = frozenset(filter(loaded.in_blocks, names))
    return Structure(blocks - {latent, scores}, latent, scores)


def _free(name: str, tensors: Mapping[str, Any]) -> str:
    return name if name not in tensors else f"model.{name}"


def _given_to_classifier(seen: recording.Pass, found: Structure, fits: Callable[[Any], bool]) -> dict[str, Any]:
    """Return what the classifier takes in where no layer made it: an operation between layers, as in a `call`."""
    last = classifier(seen)
    if last is None or found.latent != f"{last.path}.input" or not fits(last.inputs[0]):
        return {}
    return {found.latent: last.inputs[0]}


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape


def _shapes(loaded: Loaded, tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return shapes without batch; where the trace leaves an axis open, one eager pass tells."""
    shapes = {name: tuple(t.shape[1:]) for name, t in tensors.items()}
    unknown = [name for name, shape in shapes.items() if None in shape]
    if unknown:
        zeros = np.zeros((1, *loaded.input.shape), loaded.input.dtype)
        shapes |= {name: a.shape[1:] for name, a in _activations(loaded.model, zeros, unknown).items()}
    return shapes


def _why_not(error: Exception, tf: Any) -> str:
    data_dependent = isinstance(error, tf.errors.OperatorNotAllowedInGraphError) or any(
        sign in str(error)
        for sign in ("numpy() is only available", "has no attribute 'numpy'", "__array__", "as a Python")
    )
    if data_dependent:
        return (
            "the model's forward pass decides in Python by the values of a tensor, so it has no fixed graph: use"
            f" keras.ops.cond, keras.ops.where or keras.ops.while_loop instead ({frameworks.words(error, 160)})"
        )
    return f"the model's forward pass cannot be traced by TensorFlow: {frameworks.words(error)}"


def _tensors(keras: Any, model: Any, x: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return {name: tensor} of one pass, traced or eager; names as `_traced` gave them."""
    seen = recording.forward(keras, model, x)
    found: dict[str, Any] = {n: t for k, t in seen.outputs.items() for n in (k, f"model.{k}")}
    for call in seen.calls:
        if call.inputs:
            found[f"{call.path}.input"] = call.inputs[0]
    # a layer's own name stands over the model's `output`
    found |= seen.tensors()
    return {name: found[name] for name in names if name in found}


def _function(keras: Any, model: Any, names: Sequence[str]) -> Any:
    tf = frameworks.tensorflow()

    def call(x: Any) -> list[Any]:
        # one Identity each: a tensor that is two outputs (dropout hands on what it was given) keeps both names
        return [tf.identity(t) for t in _tensors(keras, model, x, names).values()]

    return tf.function(call, autograph=False)


def _activations(model: Any, x: Array, names: Sequence[str]) -> dict[str, Array]:
    tf, keras = frameworks.tensorflow(), frameworks.keras()
    tensors = _tensors(keras, model, tf.convert_to_tensor(x), names)
    return {name: np.asarray(t) for name, t in tensors.items()}


def _layouts(
    proto: Any, spec: InputSpec, traced: Traced, chosen: Sequence[Candidate], layout: Layout
) -> tuple[dict[str, Layout | None], list[str]]:
    """Return the layouts of maps, and which outputs are to be transposed to channels first."""
    maps = [c.module for c in chosen if len(c.shape) == 3]
    found = conversion.layouts(proto, spec, maps) if maps else {}
    for name in maps:
        first = traced.first.get(name)
        found[name] = found.get(name) if first is None else ("NCHW" if first else "NHWC")
    turned = [name for name in maps if layout == "NCHW" and found[name] == "NHWC"]
    return found | dict.fromkeys(turned, "NCHW"), turned


def _reference(
    loaded: Loaded, names: Sequence[str], first: bool, turned: Sequence[str]
) -> Callable[[Array], Mapping[str, Array]]:
    """Return Keras' own eager pass, in the layouts of the file."""

    def run(x: Array) -> Mapping[str, Array]:
        given = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if first else x
        found = _activations(loaded.model, given, names)
        return {name: np.moveaxis(a, -1, 1) if name in turned else a for name, a in found.items()}

    return run


def _probe(spec: InputSpec) -> Callable[[int], Array] | None:
    """Return inputs for models of integers; floats are the exporters' usual ones."""
    if spec.dtype.startswith("float"):
        return None

    def integers(batch: int) -> Array:
        return np.random.default_rng(batch).integers(0, 128, (batch, *spec.shape)).astype(spec.dtype)

    return integers
