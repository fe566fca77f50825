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
from geed_exporters.errors import NotExportable
from geed_exporters.export import Array, Export, InputSpec, Source, TapEntry
from geed_exporters.pytorch.loading import Loaded
from geed_exporters.pytorch.tapping import Observed, observe
from geed_exporters.writing import SCOPES
from geed_onnx.errors import UnknownName

WRAPPER = "model"  # the attribute of `hooks.Tapped` that holds the network


def convert(loaded: Loaded, globs: Sequence[str], opset: int) -> Export:
    """Return the export of a model with the taps that `globs` choose.

    Raises
    ------
    NotExportable
        If the model has no ONNX form.
    UnknownName
        If a glob, or an action that the model was given, meets no module.
    """
    import torch

    from geed_exporters.pytorch.hooks import Tapped, steady

    seen = observe(loaded)
    every = [c.module for c in seen.candidates]
    for path in loaded.actions:
        if path not in every:
            raise UnknownName("module", path, every, f"given an action by {loaded.name}")
    chosen = select(seen.candidates, globs)
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
        taps=tuple(_entry(c, seen, loaded) for c in chosen),
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


def _entry(c: Candidate, seen: Observed, loaded: Loaded) -> TapEntry:
    return TapEntry(
        name=c.module,
        kind=c.natural_kind,
        layout=seen.layouts.get(c.module) if c.natural_kind == "map" else None,
        module=c.module,
        role=c.role,
        action=loaded.actions.get(c.module),
    )


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
    said = (str(last).strip().splitlines() or [""])[0]
    return f"it has no ONNX form: the exporter fails{where} ({type(last).__name__}: {said:.300})"


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
