"""Models of PyTorch by name: `timm:resnet50`, `paper:simclr-resnet50`, `net.py:build`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError
from geed_exporters.export import InputSpec
from geed_exporters.factories import Named, called, framework, load_factory, parse_name
from geed_exporters.pytorch.checkpoints import load_state, weights_of
from geed_onnx.errors import UnknownName, UsageError

__all__ = ["Loaded", "from_factory", "load", "load_state", "weights_of"]

TORCH = "pip install torch==2.13.0 onnxscript safetensors"
SCHEMES = ("timm", "paper")
SEED = 0  # of random weights: the same file whenever it is written

#: what a factory may say of its model, beside the model
FACTS = (
    *("size", "channels", "colour", "range", "mean", "std", "fit", "resize", "resample", "input"),
    *("blocks", "latent", "scores", "weights", "notes", "actions"),
)


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
    size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> Loaded:
    """Return a model by its name: `timm:NAME`, `paper:NAME` or `FILE.py:FACTORY`.

    Parameters
    ----------
    checkpoint
        A file of weights, over those that the model comes with.
    pretrained
        Whether to fetch the weights from the model's usual place; random ones otherwise (`timm:`, `paper:`).
    size, channels
        (height, width) and number of channels of the input, over what the model says.

    Raises
    ------
    MissingFramework
        If torch, or timm where it is asked for, is not installed.
    UsageError
        If the name is none of these forms, unknown, or the input's size is not known.
    ExportError
        If the factory or the checkpoint fails, or pretrained weights cannot be had.
    """
    named = parse_name(name, SCHEMES)
    if checkpoint is not None and pretrained:
        raise UsageError("--pretrained and --checkpoint both give weights; give one of them")
    framework("torch", TORCH)
    if named.scheme == "timm":
        from geed_exporters.pytorch.timm_models import load_timm

        return load_timm(named.name, checkpoint=checkpoint, pretrained=pretrained, size=size, channels=channels)
    if named.scheme == "paper":
        for flag, value in (("--size", size), ("--channels", channels)):
            if value is not None:
                raise UsageError(f"{flag}: the models of paper: have the input of the paper; leave it out")
        from geed_exporters.pytorch.paper import load_paper

        found: Loaded = load_paper(named.name, checkpoint=checkpoint, pretrained=pretrained)
        return found
    if pretrained:
        raise UsageError("--pretrained: a factory gives its own weights; --checkpoint FILE puts others in their place")
    return _from_file(named, checkpoint, size, channels)


def _from_file(named: Named, checkpoint: Path | None, size: tuple[int, int] | None, channels: int | None) -> Loaded:
    import torch

    assert named.path is not None
    factory = load_factory(named.path, named.name)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        made = called(factory, str(named))
    loaded = from_factory(made, str(named), size=size, channels=channels)
    if checkpoint is None:
        return loaded
    notes = load_state(loaded.model, checkpoint)
    return Loaded(**vars(loaded) | {"weights": weights_of(checkpoint), "notes": (*loaded.notes, *notes)})


def from_factory(made: Any, name: str, *, size: tuple[int, int] | None = None, channels: int | None = None) -> Loaded:
    """Return what a factory made, an nn.Module or (nn.Module, facts), as `Loaded`; the model is put in eval mode.

    The facts are a dict of `size` (H, W), `channels`, `colour`, `range`, `mean`, `std`, `fit`, `resize`, `resample`,
    `input` (the name of the file's input), `blocks` (globs), `latent` and `scores` (module paths), `weights`, `notes`
    and `actions` ({module path: declared channel action}).

    Raises
    ------
    ExportError
        If it is neither.
    UnknownName
        If the facts hold a word that means nothing here.
    UsageError
        If nothing tells the input's size or channels.
    """
    import torch

    model, facts = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(model, torch.nn.Module) or not isinstance(facts, Mapping):
        kind = " of ".join(
            [type(made).__name__, ", ".join(type(m).__name__ for m in made)][: 1 + isinstance(made, tuple)]
        )
        raise ExportError(f"{name} gives {kind}; expected a torch.nn.Module, or (torch.nn.Module, dict)")
    for word in facts:
        if word not in FACTS:
            raise UnknownName("fact of a model", str(word), FACTS, f"given by {name}")
    size = size or _pair(facts.get("size"), name)
    if size is None:
        raise UsageError(
            f"{name}: the size of its images is not known; give --size HxW (or let the factory return (model,"
            ' {"size": (H, W)}))'
        )
    channels = channels or facts.get("channels") or _first_channels(model)
    if channels is None:
        raise UsageError(f"{name}: it has no convolution that tells the input's channels; give --channels N")
    spec = InputSpec(
        name=str(facts.get("input", "image")),
        shape=(int(channels), *size),
        layout="NCHW",
        colour=facts.get("colour"),
        range=_numbers(facts, "range", name),  # type: ignore[arg-type]  # two numbers, checked there
        mean=_numbers(facts, "mean", name),
        std=_numbers(facts, "std", name),
        fit=facts.get("fit"),
        resize=facts.get("resize"),
        resample=facts.get("resample"),
    )
    return Loaded(
        model=model.eval(),
        input=spec,
        weights=facts.get("weights", "as the factory gives them"),
        name=name,
        blocks=_texts(facts.get("blocks", ())),
        latent=facts.get("latent"),
        scores=facts.get("scores") if "scores" not in facts else facts["scores"] or "",
        notes=_texts(facts.get("notes", ())),
        actions=dict(facts.get("actions", {})),
    )


def _pair(value: Any, name: str) -> tuple[int, int] | None:
    if value is None:
        return None
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise ExportError(f"{name}: expected the size as (height, width), got {value!r}")
    return int(pair[0]), int(pair[1])


def _numbers(facts: Mapping[str, Any], word: str, name: str) -> tuple[float, ...] | None:
    value = facts.get(word)
    if value is None:
        return None
    try:
        numbers = tuple(float(v) for v in (value if isinstance(value, Sequence) else (value,)))
    except (TypeError, ValueError):
        raise ExportError(f"{name}: expected numbers as {word}, got {value!r}") from None
    if word == "range" and len(numbers) != 2:
        raise ExportError(f"{name}: expected two numbers as range, got {value!r}")
    return numbers


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(v) for v in value)


def _first_channels(model: Any) -> int | None:
    """Return the input channels of the first convolution, where the model begins with one."""
    import torch

    first = next((m for m in model.modules() if isinstance(m, torch.nn.Conv2d)), None)
    return None if first is None else int(first.in_channels)
