"""PyTorch: `load` a model by name, look at its `candidates`, `export_pytorch` it with named taps."""

from __future__ import annotations

from collections.abc import Sequence

from geed_exporters.candidates import Candidate
from geed_exporters.export import Export
from geed_exporters.pytorch.loading import Loaded, from_factory, load, load_state

__all__ = ["Loaded", "candidates", "export_pytorch", "from_factory", "load", "load_state"]

OPSET = 20


def candidates(loaded: Loaded) -> tuple[Candidate, ...]:
    """Return every module output of a forward pass that can be tapped, in the order of the pass.

    Raises
    ------
    NotExportable
        If the model takes several inputs, or does not run on an image of `loaded.input`.
    """
    from geed_exporters.pytorch.tapping import observe

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
        If a glob meets no module.
    """
    from geed_exporters.pytorch.conversion import convert

    return convert(loaded, taps, opset)
