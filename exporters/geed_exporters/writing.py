"""From an `Export` to a file: metadata in, the exporter's traces out, verified before it is left in its place."""

from __future__ import annotations

import ast
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from geed_exporters.errors import ExportError
from geed_exporters.export import Export, TapEntry
from geed_exporters.graphs import graphs
from geed_exporters.pooling import keep_zero_padding
from geed_exporters.verification import Agreement, verify
from geed_onnx.actions import parse_declared
from geed_onnx.errors import ActionError

SCHEMA = "1"
SCOPES = "pkg.torch.onnx.name_scopes"
#: protobuf ends at 2 GiB; beyond this, weights lie in a file of their own beside the model
LARGEST_SINGLE_FILE = 1_900_000_000


@dataclass(frozen=True)
class Written:
    """What was left on disk."""

    path: Path
    taps: tuple[str, ...]
    agreement: Agreement | None
    """None where it was not verified."""


def write(export: Export, path: str | os.PathLike[str], *, check: bool = True, tolerance: float = 1e-4) -> Written:
    """Write the file, verified against its framework first; an existing file is replaced only by one that agrees.

    Raises
    ------
    ExportError
        If the folder cannot be written to, or the graph is no valid ONNX.
    Differs
        If file and framework disagree; nothing is written then.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ExportError(f"{path}: expected a file name that ends in .onnx")
    model = finished(export)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".geed-export-") as folder:
            draft = Path(folder) / path.name
            _save(model, draft)
            agreement = verify(draft, export, tolerance=tolerance) if check else None
            # the weights first: a model must never lie beside weights that are not its own for long
            for part in sorted(Path(folder).iterdir(), key=lambda p: p == draft):
                os.replace(part, path.parent / part.name)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror or error})") from error
    return Written(path, tuple(tap.name for tap in export.taps), agreement)


def _save(model: onnx.ModelProto, path: Path) -> None:
    if model.ByteSize() > LARGEST_SINGLE_FILE:
        onnx.save_model(model, path, save_as_external_data=True, location=f"{path.name}.data")
        onnx.checker.check_model(str(path))
    else:
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"the exported graph is no valid ONNX: {error}") from error
        path.write_bytes(model.SerializeToString(deterministic=True))


def finished(export: Export) -> onnx.ModelProto:
    """Return a copy of the model with `geed.*` metadata, free of the exporter's notes on the machine it ran on.

    Raises
    ------
    ExportError
        If a tap is no output of the graph, two taps share a name, or a declared action breaks its group's law or does
        not fit the tap.
    """
    model = onnx.ModelProto()
    model.CopyFrom(export.model)
    outputs = {o.name for o in model.graph.output}
    names = [tap.name for tap in export.taps]
    for name in names:
        if name not in outputs:
            raise ExportError(f"the exported graph has no output {name!r}, which should be a tap")
    if len(set(names)) != len(names):
        raise ExportError("two taps share one name: " + ", ".join(sorted(n for n in names if names.count(n) > 1)))
    for tap in export.taps:
        check_action(tap, {o.name: o for o in model.graph.output}[tap.name])
    strip(model)
    keep_zero_padding(model)
    del model.metadata_props[:]
    entries: dict[str, Any] = {
        "geed.schema": SCHEMA,
        "geed.input": export.input.as_json(),
        "geed.taps": [tap.as_json() for tap in export.taps],
        "geed.source": export.source.as_json(),
    }
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    return model


def check_action(tap: TapEntry, output: onnx.ValueInfoProto) -> None:
    """Raise ExportError where `geed-onnx measure` would refuse the action that a tap declares."""
    if tap.action is None or isinstance(tap.action, str):
        return
    try:
        declared = parse_declared(tap.action)
    except ActionError as error:
        raise ExportError(f"the action declared for {tap.name!r} cannot be used: {error}") from error
    dims = output.type.tensor_type.shape.dim
    told = len(dims) > 1 and (tap.kind != "map" or tap.layout is not None)
    channels = dims[-1 if tap.layout == "NHWC" else 1].dim_value if told else 0
    if channels not in (0, declared.width):  # 0: not known
        raise ExportError(
            f"the action declared for {tap.name!r} cannot be used: {declared} are {declared.width} channels, but the"
            f" tap has {channels}"
        )


def strip(model: onnx.ModelProto) -> None:
    """Keep of an exporter's notes the module path of each node only: stack traces hold paths of its machine."""
    model.doc_string = ""
    for function in model.functions:
        function.doc_string = ""
        _strip_nodes(function.node)
    for graph in graphs(model.graph):
        graph.doc_string = ""
        del graph.metadata_props[:]
        _strip_nodes(graph.node)
        for item in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
            item.doc_string = ""
            del item.metadata_props[:]


def _strip_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        kept = [p.value for p in node.metadata_props if p.key == SCOPES and _is_list(p.value)]
        node.doc_string = ""
        del node.metadata_props[:]
        for value in kept:
            node.metadata_props.add(key=SCOPES, value=value)


def _is_list(text: str) -> bool:
    try:
        return isinstance(ast.literal_eval(text), list)
    except (ValueError, SyntaxError):
        return False
