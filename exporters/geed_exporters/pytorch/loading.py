"""Models of PyTorch by name: `timm:resnet50`, `paper:simclr-resnet50`, `net.py:build`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError
from geed_exporters.export import InputSpec
from geed_exporters.factories import Named, called, framework, load_factory, parse_name
from geed_exporters.facts import NOTHING, Facts, facts_of, input_spec, over, read_facts
from geed_exporters.pytorch.checkpoints import load_state, weights_of
from geed_exporters.pytorch.stubs import INSTALL
from geed_onnx.errors import UsageError

__all__ = ["Loaded", "from_factory", "load", "load_state", "weights_of", "with_facts"]

SCHEMES = ("timm", "paper")
SEED = 0  # of random weights: the same file whenever it is written


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to be exported, and what is known of it."""

    model: Any
    """nn.Module, in eval mode."""
    input: InputSpec
    weights: Any
    """As `Source.weights`: random, pretrained, a file's name and sha256, or what a factory says."""
    name: str
    """As `geed.source` holds it: `timm:resnet50`, `net.py:build`."""
    blocks: tuple[str, ...] = ()
    """Globs of modules that are blocks, where they are known; found by structure where there are none."""
    latent: str | None = None
    """Path of the module whose output is the latent vector (`fc.input`: what goes into `fc`); None: found."""
    scores: str | None = None
    """Path of the module whose output is the class scores; None: found; empty: there are none."""
    notes: tuple[str, ...] = ()
    actions: Mapping[str, Any] = field(default_factory=dict)
    """How channels move under the group, by module path; see `geed_onnx.actions.fields`."""


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
        from geed_exporters.pytorch.timm_models import load_timm

        loaded = load_timm(
            named.name,
            checkpoint=checkpoint,
            pretrained=pretrained,
            size=facts.size,
            channels=facts.channels,
            **({} if classes is None else {"num_classes": classes}),
        )
        return with_facts(loaded, facts)
    if named.scheme == "paper":
        from geed_exporters.pytorch.paper import load_paper

        refuse_other_inputs(facts, "the models of paper: have the input of the paper")
        return with_facts(load_paper(named.name, checkpoint=checkpoint, pretrained=pretrained, classes=classes), facts)
    if classes is not None:
        raise UsageError("--classes: a factory makes its own classifier; leave it out")
    if pretrained:
        raise UsageError("--pretrained: a factory gives its own weights; --checkpoint FILE puts others in their place")
    return _from_file(named, checkpoint, facts)


def refuse_other_inputs(facts: Facts, reason: str) -> None:
    """Raise UsageError where facts give a size or channels to a network that has its own."""
    for key in ("size", "channels"):
        if getattr(facts, key) is not None:
            raise UsageError(f"--{key}: {reason}; leave it out")


def with_facts(loaded: Loaded, facts: Facts) -> Loaded:
    """Return the model with what facts say of it in place of what is known.

    Raises
    ------
    UsageError
        If they do not fit the input's channels.
    """
    spec = input_spec(over(facts_of(loaded.input), facts), layout="NCHW", whose=loaded.name)
    said = {key: getattr(facts, key) for key in ("blocks", "latent", "scores", "weights", "notes", "actions")}
    return replace(loaded, input=spec, **{key: value for key, value in said.items() if value is not None})


def _from_file(named: Named, checkpoint: Path | None, facts: Facts) -> Loaded:
    import torch

    assert named.path is not None
    factory = load_factory(named.path, named.name)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        made = called(factory, str(named))
    loaded = from_factory(made, str(named), facts=facts)
    if checkpoint is None:
        return loaded
    notes = load_state(loaded.model, checkpoint)
    return replace(loaded, weights=weights_of(checkpoint), notes=(*loaded.notes, *notes))


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
    return Loaded(
        model=model.eval(),
        input=input_spec(said, layout="NCHW", whose=name),
        weights=said.weights if said.weights is not None else "as the factory gives them",
        name=name,
        blocks=said.blocks or (),
        latent=said.latent,
        scores=said.scores,
        notes=said.notes or (),
        actions=said.actions or {},
    )


def _first_channels(model: Any) -> int | None:
    """Return the input channels of the first convolution, where the model begins with one."""
    import torch

    first = next((m for m in model.modules() if isinstance(m, torch.nn.Conv2d)), None)
    return None if first is None else int(first.in_channels)
