"""Forward hooks: what each module of a network gives in one pass, by module path.

Imported where torch is at hand only. A name is the module's path; its second call is `path#1`; the parts of a tuple or
dict are `path.0`, `path.key`; what goes into a module is `path.input`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn


@dataclasses.dataclass(frozen=True)
class Event:
    """A tensor that a module took or gave."""

    name: str
    module: str
    """Path of the module, without call and part."""
    given: bool
    """Whether it came out of the module, not in."""
    tensor: Any
    """Kept alive, so that its id stays its own."""
    version: int
    """How often it had been written to in place: the same object with another version is another value."""
    shape: tuple[int, ...]
    value: Any
    """A copy, of small tensors only."""

    @property
    def key(self) -> tuple[int, int]:
        """The same for two names of one value."""
        return id(self.tensor), self.version


def parts(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, tensor) of a tensor, or of the tensors in a tuple, list, dict or dataclass."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from parts(inner, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from parts(inner, f"{name}.{i}")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for f in dataclasses.fields(value):
            yield from parts(getattr(value, f.name), f"{name}.{f.name}")


class Names:
    """Counts the calls of each module in one pass, and keeps names apart where a part is called like a child."""

    def __init__(self, model: Any) -> None:
        self.paths = {path for path, _ in model.named_modules()}
        self.calls: dict[str, int] = {}

    @property
    def own(self) -> str:
        """Return the name of the network's own output."""
        return "output" if "output" not in self.paths else "model_output"

    def call(self, path: str) -> str:
        """Return `path`, then `path#1`, …"""
        n = self.calls.get(path, 0)
        self.calls[path] = n + 1
        return path if n == 0 else f"{path}#{n}"

    def part(self, label: str, name: str) -> str:
        """Return `name`, a part of `label`, or another where a module has that path."""
        return f"{label}.parts{name.removeprefix(label)}" if name != label and name in self.paths else name

    def input(self, label: str) -> str:
        """Return the name of what goes into a call."""
        return f"{label}.input" if f"{label}.input" not in self.paths else f"{label}#input"


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Run without gradients, and without the fused transformer layers that skip their own modules (and hooks)."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def hooked(
    model: Any,
    paths: Callable[[str], bool],
    took: Callable[[str, str, Any], None],
    gave: Callable[[str, str, Any], None],
) -> Iterator[Names]:
    """Call `took(name, path, tensor)` before, `gave(name, path, tensor)` after every call of the modules of `paths`.

    Of what a module takes, the first tensor counts.
    """
    names = Names(model)
    labels: dict[str, list[str]] = {}

    def before(path: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            labels.setdefault(path, []).append(names.call(path))
            first = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)), None)
            if first is not None:
                took(names.input(labels[path][-1]), path, first)

        return hook

    def after(path: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            label = labels[path].pop()
            for name, tensor in parts(output, label):
                gave(names.part(label, name), path, tensor)

        return hook

    handles = []
    for path, module in model.named_modules():
        if path and paths(path):
            handles.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
            handles.append(module.register_forward_hook(after(path)))
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()


def observed(model: Any, x: Any, small: int = 1 << 16) -> tuple[list[Event], list[Event]]:
    """Return the events of a forward pass of `x` `(B, C, H, W)`, and the network's own outputs as events.

    Tensors of up to `small` values an image are copied, as they are at that moment.
    """
    events: list[Event] = []

    def event(name: str, path: str, given: bool, tensor: Any) -> Event:
        copy = tensor.detach().clone() if tensor.numel() <= small * len(x) else None
        return Event(name, path, given, tensor, tensor._version, tuple(tensor.shape), copy)

    def took(name: str, path: str, tensor: Any) -> None:
        events.append(event(name, path, False, tensor))

    def gave(name: str, path: str, tensor: Any) -> None:
        events.append(event(name, path, True, tensor))

    with steady(), hooked(model, lambda path: True, took, gave) as names:
        own = model(x)
    return events, [event(name, "", True, tensor) for name, tensor in parts(own, names.own)]


class Tapped(nn.Module):  # type: ignore[misc]  # Any where torch is not installed
    """A network that returns its own output, as a flat tuple, and then the wanted taps, in their order."""

    def __init__(self, model: Any, wanted: Collection[str]) -> None:
        super().__init__()
        self.model = model
        self.wanted = tuple(wanted)

    def forward(self, image: Any) -> tuple[Any, ...]:
        """Return `(*own outputs, *taps)` of images `(B, C, H, W)`."""
        caught: dict[str, Any] = {}

        def keep(name: str, path: str, tensor: Any) -> None:
            if name in self.wanted:
                # a clone: a later in-place operation would rewrite the caught tensor, in torch and in ONNX alike
                caught[name] = tensor.clone()

        def near(path: str) -> bool:
            return any(name.startswith(path) for name in self.wanted)

        with hooked(self.model, near, keep, keep) as names:
            own = self.model(image)
        return (*(tensor for _, tensor in parts(own, names.own)), *(caught[name] for name in self.wanted))
