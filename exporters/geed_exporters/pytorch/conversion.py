"""From a network and its chosen taps to an ONNX graph."""

from __future__ import annotations

import ast
import contextlib
import io
import linecache
import logging
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from geed_exporters.candidates import Candidate, select
from geed_exporters.errors import NotExportable, first_line
from geed_exporters.export import Array, Export, InputSpec, Source
from geed_exporters.loaded import Loaded
from geed_exporters.pytorch.tapping import Observed, observe
from geed_exporters.writing import SCOPES

OPSET = 20
WRAPPER = "model"  # the attribute of `hooks.Tapped` that holds the network


def candidates(loaded: Loaded) -> tuple[Candidate, ...]:
    """Return every module output of a forward pass that can be tapped, in the order of the pass.

    Raises
    ------
    NotExportable
        If the model takes several inputs, or does not run on an image of `loaded.input`.
    """
    return observe(loaded).candidates


def export_pytorch(loaded: Loaded, *, taps: Sequence[str] = (), opset: int = OPSET) -> Export:
    """Return the model as an ONNX graph with the chosen module outputs as outputs named by their module paths.

    The graph's first output is the model's own; the batch is free. A module's output is copied where it is caught, so
    a later in-place operation does not reach the tap, and a convolution is not folded into the batch norm after it.

    Parameters
    ----------
    taps
        Globs of module paths, or `stages`, `latent`, `scores`; none: all three (see `geed_exporters.select`).

    Raises
    ------
    NotExportable
        If the model has no ONNX form: several inputs, control flow that depends on values, an operator ONNX lacks.
    UnknownName
        If a glob, or an action that the model was given, meets no module.
    """
    import torch

    from geed_exporters.pytorch.hooks import Tapped, steady

    seen = observe(loaded)
    chosen = select(seen.candidates, taps)
    own = _own_names(seen, chosen)
    others = [c.module for c in chosen if c.module not in own]
    spec = _input(loaded, [*own, *others])
    tapped = Tapped(loaded.model, others).eval()
    example = torch.zeros(2, *spec.shape)
    with _quiet(), steady():
        try:
            program = torch.onnx.export(
                tapped,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[spec.name],
                output_names=[*own, *others],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except Exception as error:  # the exporter wraps the model's own exceptions and several of its own
            raise NotExportable(f"{loaded.name}: {cause(error)}") from error
    model = program.model_proto
    _check_batch(model, loaded.name)
    unwrap(model, {spec.name, *own, *others})
    names = [c.module for c in chosen]

    def reference(x: Array) -> Mapping[str, Array]:
        with steady():
            found = Tapped(loaded.model, others)(torch.from_numpy(np.ascontiguousarray(x)))
        values = {n: t.detach().cpu().numpy() for n, t in zip([*own, *others], found, strict=True)}
        return {n: values[n] for n in names}

    return Export(
        model=model,
        input=spec,
        taps=loaded.entries(chosen, seen.layouts),
        source=Source("torch", torch.__version__.split("+")[0], loaded.name, loaded.weights, loaded.notes),
        reference=reference,
    )


def _check_batch(model: onnx.ModelProto, name: str) -> None:
    """Raise NotExportable where the exporter quietly fixed the batch to that of its example."""
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    if first.HasField("dim_value"):
        raise NotExportable(f"{name}: {_fixed('')}")


def _own_names(seen: Observed, chosen: Sequence[Candidate]) -> list[str]:
    """Return the names of the network's own outputs: a chosen tap's where it is one, the scores' before others."""
    names = []
    for own in seen.own:
        alike = [c for c in chosen if c.module == own or seen.aliases.get(c.module) == own]
        alike.sort(key=lambda c: c.role != "scores")
        names.append(alike[0].module if alike else own)
    return names


def _input(loaded: Loaded, outputs: Sequence[str]) -> InputSpec:
    """Return the input under a name that no output has."""
    spec = loaded.input
    return replace(spec, name=f"{spec.name}_input") if spec.name in outputs else spec


def unwrap(model: onnx.ModelProto, outer: set[str]) -> None:
    """Take the wrapper that catches the taps out of the module paths and the names of weights, in place.

    `outer` are the names of the graph's inputs and outputs, which no weight may take.
    """
    graph = model.graph
    prefix = f"{WRAPPER}."
    used = {n for node in graph.node for n in (*node.input, *node.output)} | outer
    renamed: dict[str, str] = {}
    for weight in graph.initializer:
        bare = weight.name.removeprefix(prefix)
        if bare != weight.name and bare not in used:
            renamed[weight.name] = weight.name = bare
            used.add(bare)
    old = {prefix + new: new for new in renamed.values()}
    for node in graph.node:
        node.input[:] = [old.get(n, n) for n in node.input]
        for prop in node.metadata_props:
            if prop.key == SCOPES:
                prop.value = repr(_without_wrapper(prop.value))
    for info in graph.value_info:
        info.name = old.get(info.name, info.name)


def _without_wrapper(text: str) -> list[str]:
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    return [str(s).removeprefix(f"{WRAPPER}.") for s in scopes if s != WRAPPER]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, warnings and log from the terminal; what it cannot do arrives as an exception."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        redirected = contextlib.redirect_stderr(io.StringIO())  # torch.export prints the graph it got stuck in
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), redirected:
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# ----------------------------------------------------------------------------------------------------- what went wrong


def cause(error: BaseException) -> str:
    """Return in words why the exporter gave up, and what to do about it."""
    chain = _chain(error)
    text = "\n".join(f"{type(e).__name__}: {e}" for e in chain)
    where = _where(chain)
    if re.search(r"data.dependent|DataDependent|DYNAMIC_CONTROL_FLOW|_local_scalar_dense", text):
        return (
            f"the forward pass decides by the values of a tensor{where}, and an ONNX graph is fixed before it sees any;"
            " compute both branches and choose with torch.where, or export a model that takes one of them"
        )
    if re.search(r"[Nn]o ONNX function found|No decompositions registered|not.{0,40}supported.{0,20}opset", text):
        found = re.search(r"overload.{0,3}op='([^']+)'|<OpOverload\(op='([^']+)'", text)
        operator = next((g for g in found.groups() if g), None) if found else None
        return (
            f"the operator {operator or 'of one of its modules'} has no ONNX form{where}; write that part of the model"
            " with other operators, or export the part before it"
        )
    if re.search(r"Constraints violated \(batch\)|specialized .{0,40}batch|batch.{0,80}constant", text, re.DOTALL):
        return _fixed(where)
    if re.search(r"\.numpy\(\)|numpy\.ndarray|\.tolist\(\)", text):
        return (
            f"the forward pass leaves torch{where}, and what NumPy or Python computes there cannot be recorded; write"
            " it with torch's operators"
        )
    last = chain[-1]
    return f"it has no ONNX form: the exporter fails{where} ({type(last).__name__}: {first_line(last)})"


def _fixed(where: str) -> str:
    return (
        f"the batch is fixed inside the model{where}: a reshape to a number, or a loop over the images, is the usual"
        " cause; write it for a batch of any size"
    )


def _chain(error: BaseException) -> list[BaseException]:
    """Return the exception and what caused it, the first cause last."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def _where(chain: Sequence[BaseException]) -> str:
    """Return the line of the model's own code that the failure comes from, folders left out."""
    ours = str(Path(__file__).parent)
    for error in reversed(chain):
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            path = Path(frame.filename)
            if frame.filename.startswith(("<", ours)) or {"torch", "onnxscript", "onnx_ir"} & set(path.parts):
                continue
            line = frame.line or (linecache.getline(frame.filename, frame.lineno).strip() if frame.lineno else "")
            return f" ({path.name}, line {frame.lineno}: {line:.100})"
    return ""
