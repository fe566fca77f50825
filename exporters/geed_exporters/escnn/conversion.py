"""From a steerable network to an ONNX graph whose taps say how their channels move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geed_exporters.errors import NotExportable
from geed_exporters.escnn.fields import declared
from geed_exporters.escnn.opened import copied, opened, run
from geed_exporters.escnn.stubs import import_escnn
from geed_exporters.export import Array, Export, Source, TapEntry
from geed_exporters.pytorch import Loaded, export_pytorch


@dataclass(frozen=True)
class Prepared:
    """A steerable network, as escnn runs it and as torch can trace it."""

    own: Any
    """A copy of the network, in eval mode, escnn's in every part."""
    plain: Loaded
    """Its torch form."""
    types: Mapping[str, Any]
    """{name of a module output: FieldType} of those that are GeometricTensors."""


def prepared(loaded: Loaded) -> Prepared:
    """Run the network once and return its torch form and field types.

    Raises
    ------
    NotExportable
        If it takes several inputs, does not run on its own kind of input, or gives nothing of escnn.
    """
    from geed_exporters.pytorch.tapping import check_inputs

    import_escnn()
    check_inputs(loaded.model, loaded.name)
    own = copied(loaded.model)
    x = np.random.default_rng(0).standard_normal((2, *loaded.input.shape)).astype(np.float32)
    try:
        _, types = run(own, x)
    except NotExportable as error:
        raise NotExportable(f"{loaded.name}: {error}") from error
    return Prepared(own, replace(loaded, model=opened(own, types)), types)


def convert(loaded: Loaded, globs: Sequence[str], opset: int) -> Export:
    """Return the export of a steerable network with the taps that `globs` choose; see `export_escnn`."""
    escnn = import_escnn()
    ready = prepared(loaded)
    export = export_pytorch(ready.plain, taps=globs, opset=opset)
    actions: dict[Any, dict[str, Any] | None] = {}
    nameless: dict[str, str] = {}
    taps = []
    for tap in export.taps:
        field_type = ready.types.get(tap.module)
        if field_type is not None:
            if field_type not in actions:
                actions[field_type] = declared(field_type)
            tap = _with(tap, actions[field_type])
            if actions[field_type] is None:
                nameless[tap.name] = str(field_type.gspace)
        taps.append(tap)
    source = export.source
    notes = (*source.notes, *_said(nameless))
    versions = f"{escnn.__version__}, torch {source.version}"

    def reference(x: Array) -> Mapping[str, Array]:
        arrays, _ = run(ready.own, x)
        return {tap.module: arrays[tap.module] for tap in export.taps}

    return replace(
        export,
        taps=tuple(taps),
        source=Source("escnn", versions, source.model, source.weights, notes),
        reference=reference,
    )


def _with(tap: TapEntry, action: dict[str, Any] | None) -> TapEntry:
    """Return a tap with the action of its field type, unless its author declared one, and the layout escnn has."""
    said = action if tap.action is None else tap.action
    return replace(tap, layout="NCHW" if tap.kind == "map" else None, action=said)


def _said(nameless: Mapping[str, str]) -> list[str]:
    """Return what is to be said of taps whose group geed-onnx has no name for."""
    return [
        f"no action is declared for {', '.join(t for t, s in nameless.items() if s == space)}: geed-onnx has no name"
        f" for the group of {space}"
        for space in dict.fromkeys(nameless.values())
    ]
