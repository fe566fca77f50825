"""What a forward pass shows: every module output that can be tapped, and which of them are blocks, latent, scores."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from geed_exporters.candidates import Candidate
from geed_exporters.errors import NotExportable, first_line
from geed_exporters.loaded import Loaded

if TYPE_CHECKING:
    from geed_exporters.pytorch.axes import Layout
    from geed_exporters.pytorch.hooks import Event

FEWEST_BLOCKS = 3
STEADY = 1e-2  # relative; rounding is far below, chance far above
BATCHES = (2, 3)  # not 1: a one would hide which axes follow the batch


@dataclass(frozen=True)
class Observed:
    """One look at a network."""

    candidates: tuple[Candidate, ...]
    layouts: Mapping[str, Layout]
    """Of taps, where it is certain."""
    own: tuple[str, ...]
    """The network's own outputs: the names of the graph's first outputs where they are no taps."""
    aliases: Mapping[str, str]
    """{module: own output} of the modules whose output it is."""


class _Roles(NamedTuple):
    latent: str | None
    scores: str | None
    extra: Event | None
    """What goes into the classifier, where no module gives it."""


def observe(loaded: Loaded) -> Observed:
    """Run the model on noise, in batches of 2 and 3, and return what can be tapped.

    Tapped is every float tensor that a module gives, with the batch as first axis and at least one axis beside.

    Raises
    ------
    NotExportable
        If the forward pass takes several inputs or fails.
    UnknownName
        If `loaded` names a latent, scores or blocks that the pass does not show.
    """
    import torch

    from geed_exporters.pytorch.axes import layouts

    check_inputs(loaded.model, loaded.name)
    events, own = _run(loaded, BATCHES[0])
    more, own_of_more = _run(loaded, BATCHES[1])
    _check_steady(loaded, own, own_of_more)
    later = {e.name: e.shape for e in (*more, *own_of_more)}
    if not any(e.tensor.is_floating_point() for e in own):
        raise NotExportable(f"{loaded.name}: the forward pass gives no float tensor; expected class scores or features")

    def tappable(e: Event) -> bool:
        batched = len(e.shape) > 1 and e.shape[0] == BATCHES[0] and 0 not in e.shape
        return (
            batched
            and e.tensor.dtype in (torch.float16, torch.float32, torch.float64)
            and later.get(e.name) == (BATCHES[1], *e.shape[1:])
        )

    given = [e for e in events if e.given and tappable(e)]
    roles = _roles(loaded, [e for e in events if tappable(e)], given, own)
    aliases = _aliases(given, own)
    shown = list(given)
    if roles.extra is not None:
        before = next(i for i, e in enumerate(events) if e is roles.extra)
        shown.insert(sum(e.given and tappable(e) for e in events[:before]), roles.extra)
    shown += [e for e in own if tappable(e) and e.name not in aliases.values()]
    blocks = _blocks(loaded, given)
    axes = layouts(loaded.model, events)
    role = {roles.scores: "scores", roles.latent: "latent"}
    found = tuple(
        Candidate(
            module=e.name,
            shape=_chw(e.shape[1:], axes.get(e.name)),
            block=e.name in blocks,
            role=role.get(e.name),  # type: ignore[arg-type]
        )
        for e in shown
    )
    loaded.check_names([c.module for c in found])
    return Observed(found, axes, tuple(e.name for e in own), aliases)


def check_inputs(model: Any, name: str) -> None:
    """Raise NotExportable where the forward pass wants more than one input."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return
    wanted = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(wanted) > 1:
        raise NotExportable(
            f"{name}: the forward pass takes several inputs ({', '.join(wanted)}); expected one, a batch of images."
            " Give a factory whose model takes the images alone and fills in the rest"
        )


def _run(loaded: Loaded, batch: int) -> tuple[list[Event], list[Event]]:
    from geed_exporters.pytorch.hooks import observed

    shape = (batch, *loaded.input.shape)
    try:
        return observed(loaded.model, noise(loaded, batch))
    except Exception as error:  # the model's own code
        raise NotExportable(
            f"{loaded.name}: the forward pass fails on images of shape {shape} ({type(error).__name__}:"
            f" {first_line(error)}); --size and --channels give others"
        ) from error


def noise(loaded: Loaded, batch: int) -> Any:
    """Return standard normal images `(batch, *input.shape)`; a smaller batch is the beginning of a larger one."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randn(loaded.input.shape, generator=generator) for _ in range(batch)])


def _check_steady(loaded: Loaded, few: Sequence[Event], many: Sequence[Event]) -> None:
    """Raise NotExportable where the first images of a batch get other values beside further ones."""
    for a, b in zip(few, many, strict=False):
        if a.value is None or b.value is None or b.shape[1:] != a.shape[1:] or not a.tensor.is_floating_point():
            continue
        gap = (a.value - b.value[: len(a.value)]).abs().max()
        if gap > STEADY * a.value.abs().max():
            raise NotExportable(
                f"{loaded.name}: the same image gets other values at each pass, or beside other images; no tap of it"
                " would be a function of the image. Switch off what is random in it (dropout that stays on outside of"
                " training) and what mixes a batch (batch norm with batch statistics)"
            )


def _aliases(given: Sequence[Event], own: Sequence[Event]) -> dict[str, str]:
    keys = {e.key: e.name for e in reversed(own)}
    return {e.name: keys[e.key] for e in given if e.key in keys}


def _chw(shape: tuple[int, ...], layout: str | None) -> tuple[int, ...]:
    return (shape[2], shape[0], shape[1]) if layout == "NHWC" and len(shape) == 3 else shape


# -------------------------------------------------------------------------------------------------- latent and scores


def _roles(loaded: Loaded, events: Sequence[Event], given: Sequence[Event], own: Sequence[Event]) -> _Roles:
    """Return the latent vector and the scores: as `loaded` says, as timm says, or by structure.

    Scores are the network's output where it is a vector that a linear layer (or a 1×1 convolution) gives, perhaps
    through a softmax; latent is what goes into that layer. A network without classes gives its latent vector.
    """
    lone = next((e for e in own if e.name.endswith(".logits")), own[0] if len(own) == 1 else None)
    output = None if lone is None else _outermost([e for e in given if e.key == lone.key]) or lone
    classifier = None if lone is None else _classifier(loaded, given, lone)
    scores = loaded.scores
    if scores is None and output is not None and classifier is not None:
        scores = output.name
    if loaded.latent is not None:
        extra = next((e for e in events if e.name == loaded.latent and not e.given), None)
        return _Roles(loaded.latent, scores or None, extra)
    if loaded.scores == "" and output is not None and sum(n > 1 for n in output.shape[1:]) <= 1:
        return _Roles(output.name, None, None)
    latent = _before_the_classes(loaded, events)
    if latent is None and classifier is not None:
        went_in = next(e for e in reversed(events) if not e.given and e.module == classifier)
        latent = _outermost([e for e in given if e.key == went_in.key]) or went_in
    if latent is None:
        return _Roles(None, scores or None, None)
    return _Roles(latent.name, scores or None, None if latent.given else latent)


def _classifier(loaded: Loaded, given: Sequence[Event], output: Event) -> str | None:
    """Return the path of the last linear layer or 1×1 convolution whose output is as wide as the network's."""
    from torch import nn

    if sum(n > 1 for n in output.shape[1:]) != 1:
        return None
    modules = dict(loaded.model.named_modules())
    for e in reversed(given):
        module = modules[e.module]
        point = isinstance(module, nn.Conv2d) and set(module.kernel_size) == {1}
        if (isinstance(module, nn.Linear) or point) and _flat(e.shape) == _flat(output.shape):
            return e.module
    return None


def _before_the_classes(loaded: Loaded, events: Sequence[Event]) -> Event | None:
    """Return what timm itself calls the features before the classifier, where it is a model of timm with classes."""
    import torch

    from geed_exporters.pytorch.hooks import steady

    model = loaded.model
    if not getattr(model, "num_classes", 0) or not type(model).__module__.startswith("timm.models."):
        return None
    if not hasattr(model, "forward_head") or "pre_logits" not in inspect.signature(model.forward_head).parameters:
        return None
    x = noise(loaded, BATCHES[0])
    with steady():
        features = model.forward_head(model.forward_features(x), pre_logits=True)
    if not isinstance(features, torch.Tensor):
        return None
    alike = [
        e
        for e in events
        if e.value is not None
        and _flat(e.shape) == _flat(features.shape)
        and torch.equal(e.value.reshape(features.shape), features)
    ]
    # the last of them: in a new network, whose residual branches give zeros, earlier values can be equal by chance
    same = [e for e in alike if e.key == alike[-1].key]
    return _outermost([e for e in same if e.given]) or _outermost(same)


def _outermost(events: Sequence[Event]) -> Event | None:
    """Return the one whose path is shortest in modules, the first of those."""
    return min(events, key=lambda e: e.name.count("."), default=None)


def _flat(shape: Sequence[int]) -> tuple[int, ...]:
    return (shape[0], *(n for n in shape[1:] if n > 1))


# ------------------------------------------------------------------------------------------------------------- blocks


def _blocks(loaded: Loaded, given: Sequence[Event]) -> set[str]:
    """Return the names that are blocks; of several names for one value, the innermost block's."""
    if loaded.blocks:
        return {e.name for e in given if loaded.in_blocks(e.name)}
    paths = block_paths(loaded.model)
    found: dict[tuple[int, int], Event] = {}
    for e in given:
        if e.name in paths:  # the first call only; parts of tuples are none
            found.setdefault(e.key, e)
    ranks = [len(e.shape) for e in found.values() if len(e.shape) > 2]
    # a network that ends in tokens (B, N, C) is a transformer: the maps of its stem are no stages
    tokens = bool(ranks) and ranks[-1] == 3
    return {e.name for e in found.values() if not (tokens and len(e.shape) == 4)}


def block_paths(model: Any) -> set[str]:
    """Return the paths of modules that their author made blocks.

    They are the entries of lists (nn.Sequential, nn.ModuleList), as far as they have children themselves; of a list
    inside a block, only where all of its entries have. Where that gives fewer than three: the model's children too;
    and where no more of those have children, all of the model's children and all entries of its lists.
    """
    from torch import nn

    lists = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    children = dict(model.named_children())
    blocks: set[str] = set()
    leaves: set[str] = set()
    for path, module in model.named_modules():
        if type(module) not in lists:  # their subclasses are modules of their own (a dense block)
            continue
        prefix = f"{path}." if path else ""
        entries = {f"{prefix}{name}": any(True for _ in entry.children()) for name, entry in module.named_children()}
        if path.count(".") == 0 or all(entries.values()):
            blocks.update(p for p, composite in entries.items() if composite)
            leaves.update(p for p, composite in entries.items() if not composite)
    if len(blocks) < FEWEST_BLOCKS:
        composite_children = {path for path, module in children.items() if any(True for _ in module.children())}
        blocks |= composite_children
        leaves |= set(children) - composite_children
    return blocks if len(blocks) >= FEWEST_BLOCKS else blocks | leaves
