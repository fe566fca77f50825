"""Models of PyTorch by name: `timm:resnet50`, `paper:simclr-resnet50`, `net.py:build`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError
from geed_exporters.factories import called, framework, load_factory, parse_name
from geed_exporters.facts import NOTHING, Facts, input_spec, over, read_facts, refuse_other_inputs
from geed_exporters.loaded import Loaded
from geed_exporters.pytorch.checkpoints import load_state, seeded
from geed_exporters.pytorch.paper import load_paper
from geed_exporters.pytorch.stubs import INSTALL
from geed_exporters.pytorch.timm_models import load_timm
from geed_onnx.errors import UsageError

SCHEMES = ("timm", "paper")


def load(
    name: str,
    *,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    classes: int | None = None,
    facts: Facts = NOTHING,
) -> Loaded:
    """Return a model by its name: `timm:NAME`, `paper:NAME` or `FILE.py:FACTORY`.

    Parameters
    ----------
    checkpoint
        A file of weights, over those that the model comes with.
    pretrained
        Whether to fetch the weights from the model's usual place; random ones otherwise (`timm:`, `paper:`).
    classes
        How many classes the network tells apart, where they are not those of its usual weights (`timm:`, `paper:`).
    facts
        What stands over what timm, the paper or the factory says of the model and its images.

    Raises
    ------
    MissingFramework
        If torch, or timm where it is asked for, is not installed.
    UsageError
        If the name is none of these forms, unknown, the input's size is not known, facts do not fit the model, or
        classes are given to a model that has its own.
    ExportError
        If the factory or the checkpoint fails, or pretrained weights cannot be had.
    """
    named = parse_name(name, SCHEMES)
    if checkpoint is not None and pretrained:
        raise UsageError("--pretrained and --checkpoint both give weights; give one of them")
    if pretrained and classes is not None:
        raise UsageError(
            "--classes: the pretrained classifier has classes of its own, and another would be random; give the"
            " weights of the network that was trained on yours: --checkpoint FILE"
        )
    framework("torch", INSTALL)
    if named.scheme == "timm":
        options = {} if classes is None else {"num_classes": classes}
        loaded = load_timm(
            named.name,
            checkpoint=checkpoint,
            pretrained=pretrained,
            size=facts.size,
            channels=facts.channels,
            **options,
        )
        return loaded.with_facts(facts)
    if named.scheme == "paper":
        refuse_other_inputs(facts, "the models of paper: have the input of the paper")
        loaded = load_paper(named.name, checkpoint=checkpoint, pretrained=pretrained, classes=classes)
        return loaded.with_facts(facts)
    if classes is not None:
        raise UsageError("--classes: a factory makes its own classifier; leave it out")
    if pretrained:
        raise UsageError("--pretrained: a factory gives its own weights; --checkpoint FILE puts others in their place")
    assert named.path is not None
    factory = load_factory(named.path, named.name)
    with seeded():
        made = called(factory, str(named))
    loaded = from_factory(made, str(named), facts=facts)
    return loaded if checkpoint is None else loaded.with_checkpoint(checkpoint, load_state(loaded.model, checkpoint))


def from_factory(made: Any, name: str, *, facts: Facts = NOTHING, channels: int | None = None) -> Loaded:
    """Return what a factory made, an nn.Module or (nn.Module, facts), as `Loaded`; the model is put in eval mode.

    The factory's facts are a dict of what `geed_exporters.Facts` has: `size` (H, W), `channels`, `colour`, ….

    Parameters
    ----------
    facts
        What stands over the factory's.
    channels
        Of the input, where it is known from the model; None: its first convolution's.

    Raises
    ------
    ExportError
        If it is neither.
    UnknownName
        If the facts hold a word that means nothing here.
    UsageError
        If nothing tells the input's size or channels, or facts do not fit one another.
    """
    import torch

    model, given = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(model, torch.nn.Module) or not isinstance(given, Mapping):
        kind = " of ".join(
            [type(made).__name__, ", ".join(type(m).__name__ for m in made)][: 1 + isinstance(made, tuple)]
        )
        raise ExportError(f"{name} gives {kind}; expected a torch.nn.Module, or (torch.nn.Module, dict)")
    said = over(read_facts(given, name), facts)
    if said.channels is None:
        said = replace(said, channels=channels or _first_channels(model))
    spec = input_spec(said, layout="NCHW", whose=name)
    return Loaded(model.eval(), spec, "as the factory gives them", name).said(said)


def _first_channels(model: Any) -> int | None:
    """Return the input channels of the first convolution, where the model begins with one."""
    import torch

    first = next((m for m in model.modules() if isinstance(m, torch.nn.Conv2d)), None)
    return None if first is None else int(first.in_channels)
