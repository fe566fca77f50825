"""escnn: `load` a steerable network by name, look at its `candidates`, `export_escnn` it with actions declared."""

from __future__ import annotations

from collections.abc import Sequence

from geed_exporters.candidates import Candidate
from geed_exporters.escnn.loading import described, load, load_steerable
from geed_exporters.export import Export
from geed_exporters.pytorch.loading import Loaded

__all__ = ["Loaded", "candidates", "described", "export_escnn", "load", "load_steerable"]

OPSET = 20


def candidates(loaded: Loaded) -> tuple[Candidate, ...]:
    """Return every module output of a forward pass that can be tapped, in the order of the pass.

    Raises
    ------
    NotExportable
        If the network takes several inputs, or does not run on an image of `loaded.input`.
    """
    from geed_exporters.escnn.conversion import prepared
    from geed_exporters.pytorch import candidates as of_torch

    return of_torch(prepared(loaded).plain)


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
    from geed_exporters.escnn.conversion import convert

    return convert(loaded, taps, opset)
