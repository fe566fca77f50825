"""From a Flax model to an ONNX graph whose outputs are named after its modules."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import onnx

from geed_exporters.candidates import Candidate, select
from geed_exporters.errors import NotExportable
from geed_exporters.export import Array, Export, Layout, Source
from geed_exporters.graphs import rename, state_shapes
from geed_exporters.jax.pooling import flax_pooling, own_pooling
from geed_exporters.jax.tracing import Trace, as_array, in_words, traced, values
from geed_exporters.loaded import Loaded
from geed_onnx.errors import UsageError

OPSETS = range(17, 26)
#: before an output's name while jax2onnx works: it refuses names that it has given to tensors of its own
TAP = "tap:"


def candidates(loaded: Loaded) -> tuple[Candidate, ...]:
    """Return what can be tapped, in the order of the forward pass; shapes of maps in (C, H, W)."""
    with _quiet():
        return traced(loaded).candidates


def export_jax(loaded: Loaded, *, taps: Sequence[str] = (), layout: Layout = "NHWC", opset: int = 20) -> Export:
    """Return the model as an ONNX graph with its taps as outputs, named by module path.

    nnx paths have dots (`blocks.0.conv`), linen paths slashes (`Block_0/Conv_0`); a module that is called again gives
    `path#1`, a module that returns several tensors `path.0` or `path.key`. The latent vector is what the last linear
    layer takes; where no module gives it, it is called `path.input`. The model's own output is the graph's first,
    under the path of the module that made it where that one is tapped, else `output`.

    Parameters
    ----------
    loaded
        Of `load` or `prepared`.
    taps
        Globs of module paths; none: stages, latent and scores.
    layout
        Of the file's input and of its maps: NHWC as Flax has it, or NCHW with a transposition at every door.
    opset
        ONNX operator set, 17 to 25.

    Raises
    ------
    UsageError
        If the layout or the opset is none of these.
    UnknownName
        If a glob meets no module.
    NotExportable
        If the model takes several inputs, has data-dependent control flow or an operator without an ONNX form, or
        fails on an image batch.
    """
    if layout not in ("NHWC", "NCHW"):
        raise UsageError(f"layout {layout!r}: expected NHWC or NCHW")
    if opset not in OPSETS:
        raise UsageError(f"opset {opset}: expected {OPSETS[0]} to {OPSETS[-1]}")
    import flax

    with _quiet():
        trace = traced(loaded)
        chosen = select(trace.candidates, taps)
        named = _graph_outputs(trace, [c.module for c in chosen])
        if loaded.input.name in named:  # a module that is called `image` keeps its name
            loaded = replace(loaded, input=replace(loaded.input, name=f"{loaded.input.name}#input"))
        model = _converted(loaded, trace, named, layout, opset)
    entries = loaded.entries(chosen, dict.fromkeys(named, layout))

    def reference(x: Array) -> Mapping[str, Array]:
        import jax

        with jax.default_matmul_precision("highest"), _quiet():
            made = values(trace.net, jax.numpy.asarray(x.transpose(0, 2, 3, 1) if layout == "NCHW" else x))
            return {c.module: as_array(_in_layout(made[c.module], layout)) for c in chosen}

    spec = loaded.input
    if layout == "NCHW":
        height, width, channels = spec.shape
        spec = replace(spec, layout="NCHW", shape=(channels, height, width))
    source = Source("flax", flax.__version__, loaded.name, loaded.weights, (*loaded.notes, *_notes(trace)))
    return Export(model=model, input=spec, taps=entries, source=source, reference=reference)


def _graph_outputs(trace: Trace, taps: Sequence[str]) -> dict[str, str]:
    """Return {name in the graph: name in the trace}, the model's own outputs first."""
    own = {giver if giver in taps else name: giver for name, giver in trace.outputs}
    return own | {name: name for name in taps}


def _converted(loaded: Loaded, trace: Trace, named: Mapping[str, str], layout: Layout, opset: int) -> onnx.ModelProto:
    import jax
    import jax2onnx

    shapes: dict[str, tuple[int, ...]] = {}
    places = flax_pooling()

    def forward(x: Any) -> Any:
        with own_pooling(places):
            made = values(trace.net, x.transpose(0, 2, 3, 1) if layout == "NCHW" else x)
        wanted = {output: _in_layout(made[name], layout) for output, name in named.items()}
        shapes.update({output: tensor.shape[1:] for output, tensor in wanted.items()})
        # the barrier keeps jax2onnx from deleting what made a tensor that is an output as well
        return tuple(jax.lax.optimization_barrier(tensor) for tensor in wanted.values())

    height, width, channels = loaded.input.shape
    shape = (channels, height, width) if layout == "NCHW" else (height, width, channels)
    with in_words(loaded):
        model: onnx.ModelProto = jax2onnx.to_onnx(
            forward,
            [("B", *shape)],
            model_name=re.sub(r"\W+", "-", loaded.name),
            opset=opset,
            input_names=[loaded.input.name],
            output_names=[f"{TAP}{name}" for name in named],
        )
    # a tensor that jax2onnx happens to have called as an output is called gets another name
    new = {f"{TAP}{name}": name for name in named} | {name: f"{name}_inner" for name in named}
    rename(model.graph, new.get)
    outputs = [o.name for o in model.graph.output]
    if outputs != list(named):
        raise NotExportable(f"jax2onnx gave the outputs {outputs}, expected {list(named)}")
    # its optimiser moves transpositions and leaves stale shapes behind, on inner tensors and on outputs; the forward
    # pass knows those of the outputs, and what ONNX infers for the others is right
    del model.graph.value_info[:]
    state_shapes(model.graph, shapes, "B")
    return model


def _in_layout(tensor: Any, layout: Layout) -> Any:
    """Return a map of Flax's, (B, H, W, C), in the file's layout; other tensors as they are."""
    return tensor.transpose(0, 3, 1, 2) if layout == "NCHW" and len(tensor.shape) == 4 else tensor


def _notes(trace: Trace) -> tuple[str, ...]:
    versions = ", ".join(f"{package} {version(package)}" for package in ("jax", "jax2onnx"))
    notes = [f"flax.{trace.net.flavour}, {versions}"]
    if trace.hidden:
        notes.append("inside a Flax transform, so not to be tapped: " + ", ".join(trace.hidden))
    return tuple(notes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what jax2onnx and onnx-ir say of types they could not infer off the user's terminal; errors still show."""
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir", "jax", "absl")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
