"""Steerable networks by name: `escnn:c8-cnn`, `net.py:build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError
from geed_exporters.escnn.stubs import INSTALL, import_escnn
from geed_exporters.export import InputSpec
from geed_exporters.factories import called, load_factory, parse_name
from geed_exporters.facts import NOTHING, Facts, refuse_other_inputs
from geed_exporters.loaded import Loaded
from geed_exporters.pytorch.checkpoints import load_state, seeded
from geed_exporters.pytorch.loading import from_factory
from geed_onnx.errors import UnknownName

SCHEMES = ("escnn",)
#: what escnn computes from the weights when a network is put in eval mode, and state_dict then holds beside them
COMPUTED = ("filter", "*.filter", "expanded_bias", "*.expanded_bias", "matrix", "*.matrix")


def load(name: str, *, checkpoint: Path | None = None, facts: Facts = NOTHING) -> Loaded:
    """Return a steerable network by its name: `escnn:c8-cnn`, `escnn:c8-cnn-small` or `FILE.py:FACTORY`.

    Weights are random (named networks) or the factory's own, unless a checkpoint is given.

    Parameters
    ----------
    checkpoint
        A state_dict of the escnn network, of train or eval mode: safetensors, or written by torch.save.
    facts
        What stands over what is known, or a factory says, of the network and its images.

    Raises
    ------
    MissingFramework
        If torch or escnn is not installed.
    UsageError
        If the name is none of these forms, unknown, or the input's size is not known.
    ExportError
        If the factory or the checkpoint fails.
    """
    named = parse_name(name, SCHEMES)
    import_escnn()
    with seeded():
        if named.path is None:
            refuse_other_inputs(facts, "the networks of escnn: have one input")
            loaded = _known(named.name).with_facts(facts)
        else:
            made = called(load_factory(named.path, named.name), str(named))
            loaded = described(made, str(named), facts=facts)
    return (
        loaded if checkpoint is None else loaded.with_checkpoint(checkpoint, load_steerable(loaded.model, checkpoint))
    )


def load_steerable(net: Any, path: Path) -> tuple[str, ...]:
    """Copy the weights of a checkpoint into a steerable network, in place, and leave it in eval mode.

    Returns what is to be said of it; raises what `load_state` raises.
    """
    # in train mode a network's state_dict is the weights; in eval mode escnn adds the filters it expands them to, and
    # computes those when eval mode begins: loaded the other way round, old filters would stay beside new weights
    net.train()
    notes = load_state(net, path, drop=COMPUTED, install=INSTALL)
    net.eval()
    return tuple(f"{n}: escnn computes them from the others" if "are not used" in n else n for n in notes)


def described(made: Any, name: str, *, facts: Facts = NOTHING) -> Loaded:
    """Return what a factory made, a network or (network, facts), as `Loaded`; the network is put in eval mode.

    The factory's facts are those of `geed_exporters.pytorch.from_factory`, and `facts` stand over them; `actions` need
    not be given, since field types say them, and neither need the channels of the input.

    Raises
    ------
    ExportError
        If it is neither, or holds nothing of escnn.
    UnknownName, UsageError
        As `from_factory`.
    """
    escnn = import_escnn()
    import torch

    net = made[0] if isinstance(made, tuple) and len(made) == 2 else made
    channels = None
    if isinstance(net, torch.nn.Module):
        steerable = [m for m in net.modules() if isinstance(m, escnn.nn.EquivariantModule)]
        if not steerable:
            raise ExportError(
                f"{name} gives {type(net).__name__}, which holds no module of escnn; geed-export pytorch takes it"
            )
        first = getattr(steerable[0], "in_type", None)
        if isinstance(first, escnn.nn.FieldType):
            channels = first.size
    return from_factory(made, name, facts=facts, channels=channels)


def _known(name: str) -> Loaded:
    from geed_exporters.escnn.networks import C8CNN, PLANS, SIZE

    if name not in PLANS:
        raise UnknownName("network", name, PLANS)
    return Loaded(
        model=C8CNN(PLANS[name]).eval(),
        input=InputSpec("image", (1, SIZE, SIZE), "NCHW", colour="grey", range=(0.0, 1.0), mean=(0.0,), std=(1.0,)),
        weights="random",
        name=f"escnn:{name}",
        blocks=("block?",),
        latent="latent",
        scores="scores",
    )
