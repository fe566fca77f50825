"""Which axis of a module's output is the channel: told by what modules take and give, never by sizes.

Some modules are defined on (B, C, H, W), others on (…, C); activations and dropout give what they take. What is then
still unknown stays so, and `geed-onnx` reads it from the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from geed_exporters.pytorch.hooks import Event

Layout = Literal["NCHW", "NHWC"]
Key = tuple[int, int]

FIRST = (
    *(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.LocalResponseNorm),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d, nn.FractionalMaxPool2d),
    *(nn.PixelShuffle, nn.PixelUnshuffle, nn.Upsample, nn.Dropout2d, nn.ZeroPad2d, nn.ReflectionPad2d),
    *(nn.ReplicationPad2d, nn.ConstantPad2d),
)
LAST = (nn.Linear, nn.LayerNorm)
#: files whose modules give what they take, position by position
ELEMENTWISE = ("torch.nn.modules.activation", "torch.nn.modules.dropout", "timm.layers.activations", "timm.layers.drop")
#: blocks of timm that work on (B, H, W, C)
TIMM_LAST = {
    "timm.models.swin_transformer": ("SwinTransformerBlock", "SwinTransformerStage", "PatchMerging"),
    "timm.models.swin_transformer_v2": ("SwinTransformerV2Block", "SwinTransformerV2Stage", "PatchMerging"),
}


def layouts(model: Any, events: Sequence[Event]) -> dict[str, Layout]:
    """Return {name: layout} of the rank-4 tensors of a pass whose layout is certain."""
    modules = dict(model.named_modules())
    known: dict[Key, Layout | None] = {}
    same: list[tuple[Key, Key]] = []
    taken: dict[str, Event] = {}

    def note(key: Key, layout: Layout) -> bool:
        """Keep a fact; two that disagree leave a tensor unknown. Return whether it is news."""
        before = known.get(key, layout)
        after = layout if before == layout else None
        news = key not in known or known[key] != after
        known[key] = after
        return news

    for event in events:
        module = modules[event.module]
        if len(event.shape) == 4:
            layout = _of_module(module, event.given)
            if layout is not None:
                note(event.key, layout)
        if not event.given:
            taken[event.module] = event
        elif event.module in taken and _elementwise(module) and taken[event.module].shape == event.shape:
            same.append((taken[event.module].key, event.key))
    news = True
    while news:
        news = False
        for a, b in same:
            for here, there in ((a, b), (b, a)):
                layout = known.get(here)
                if layout is not None and known.get(there, layout) is not None:
                    news |= note(there, layout)
    found = ((e.name, known.get(e.key)) for e in events if len(e.shape) == 4)
    return {name: layout for name, layout in found if layout is not None}


def _of_module(module: Any, given: bool) -> Layout | None:
    """Return the layout of what a module takes or gives, where its class fixes it."""
    kind = type(module)
    if kind.__module__.startswith("timm.layers") and "2d" in kind.__name__.lower():
        return "NCHW"  # LayerNorm2d and its like are layer norms that turn the axes themselves
    if isinstance(module, FIRST):
        return "NCHW"
    if isinstance(module, LAST) and kind.__module__.startswith(("torch.nn.", "timm.layers.")):
        # a layer norm over several axes says nothing of the last one
        return "NHWC" if len(getattr(module, "normalized_shape", (1,))) == 1 else None
    if kind.__name__ in TIMM_LAST.get(kind.__module__, ()):
        return "NHWC"
    if kind.__module__ == "timm.layers.patch_embed" and given:
        name = getattr(getattr(module, "output_fmt", None), "value", None)
        return _FORMATS.get(str(name))
    return None


_FORMATS: Mapping[str, Layout] = {"NCHW": "NCHW", "NHWC": "NHWC"}


def _elementwise(module: Any) -> bool:
    kind = type(module)
    named = kind.__module__.startswith(ELEMENTWISE) and not isinstance(module, nn.MultiheadAttention)
    return named or isinstance(module, nn.Identity)
