"""From a steerable network to an ONNX graph whose taps say how their channels move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geed_exporters.candidates import Candidate
from geed_exporters.errors import NotExportable
from geed_exporters.escnn.fields import declared
from geed_exporters.escnn.opened import copied, opened, run
from geed_exporters.escnn.stubs import import_escnn
from geed_exporters.export import Array, Export, Source
from geed_exporters.loaded import Loaded
from geed_exporters.pytorch.conversion import OPSET, export_pytorch
from geed_exporters.pytorch.tapping import check_inputs, observe


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
    import_escnn()
    check_inputs(loaded.model, loaded.name)
    own = copied(loaded.model)
    x = np.random.default_rng(0).standard_normal((2, *loaded.input.shape)).astype(np.float32)
    try:
        _, types = run(own, x)
    except NotExportable as error:
        raise NotExportable(f"{loaded.name}: {error}") from error
    return Prepared(own, replace(loaded, model=opened(own, types)), types)


def candidates(loaded: Loaded) -> tuple[Candidate, ...]:
    """Return every module output of a forward pass that can be tapped, in the order of the pass.

    Raises
    ------
    NotExportable
        If the network takes several inputs, or does not run on an image of `loaded.input`.
    """
    return observe(prepared(loaded).plain).candidates


def export_escnn(loaded: Loaded, *, taps: Sequence[str] = (), opset: int = OPSET) -> Export:
    """Return a steerable network as an ONNX graph whose taps declare how their channels move.

    Every tap that is a GeometricTensor in escnn has an `action`: its field type as geed-onnx's fields, held against
    escnn's matrix of every element of the group. The reference is escnn's own forward pass, GeometricTensors and all.

    Parameters
    ----------
    loaded
        An escnn EquivariantModule, or an nn.Module made of them and of plain torch parts; see `load` and
        `described`. The network is left as it is.
    taps
        Globs of module paths, or `stages`, `latent`, `scores`; none: all three (see `geed_exporters.select`).

    Raises
    ------
    NotExportable
        If the network has no ONNX form: several inputs, control flow that depends on values, an operator ONNX lacks.
    UnknownName
        If a glob meets no module.
    ExportError
        If a field type's representations cannot be declared.
    """
    escnn = import_escnn()
    ready = prepared(loaded)
    export = export_pytorch(ready.plain, taps=taps, opset=opset)
    actions: dict[Any, dict[str, Any] | None] = {}
    nameless: dict[str, str] = {}
    entries = []
    for tap in export.taps:
        field_type = ready.types.get(tap.module)
        if field_type is not None:
            if field_type not in actions:
                actions[field_type] = declared(field_type)
            # the layout is the one that escnn has, and an action that the author declared stands
            said = actions[field_type] if tap.action is None else tap.action
            tap = replace(tap, layout="NCHW" if tap.kind == "map" else None, action=said)
            if actions[field_type] is None:
                nameless[tap.name] = str(field_type.gspace)
        entries.append(tap)
    source = export.source
    notes = (*source.notes, *_said(nameless))
    versions = f"{escnn.__version__}, torch {source.version}"

    def reference(x: Array) -> Mapping[str, Array]:
        arrays, _ = run(ready.own, x)
        return {tap.module: arrays[tap.module] for tap in export.taps}

    return replace(
        export,
        taps=tuple(entries),
        source=Source("escnn", versions, source.model, source.weights, notes),
        reference=reference,
    )


def _said(nameless: Mapping[str, str]) -> list[str]:
    """Return what is to be said of taps whose group geed-onnx has no name for."""
    return [
        f"no action is declared for {', '.join(t for t, s in nameless.items() if s == space)}: geed-onnx has no name"
        f" for the group of {space}"
        for space in dict.fromkeys(nameless.values())
    ]
