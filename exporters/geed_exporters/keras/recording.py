"""What every layer gives during one forward pass, under the path by which the model reaches it.

`keras.layers.Layer.__call__` is wrapped while the pass runs: that one place sees functional, Sequential, subclassed and
nested models alike, eager or traced. The paths are Keras' layer names joined by slashes (`mobilenet/Conv1`); a second
call of the same path is `name#1`; a layer with several outputs gives `name.0` or `name.key`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

OWN = "output"


@dataclass(frozen=True)
class Call:
    """One call of one layer, in the order in which the calls end."""

    path: str
    layer: Any
    inputs: tuple[Any, ...]
    """Tensors given by position."""
    outputs: Mapping[str, Any]
    """Tensors by name: the path itself, or the path with an index or a key."""
    leaf: bool
    """Whether no other layer was called inside."""


@dataclass(frozen=True)
class Pass:
    """One forward pass: its calls, and what the model itself returned."""

    calls: tuple[Call, ...]
    outputs: Mapping[str, Any]
    """Tensors by name: `output`, or `output.0`, `output.key`."""

    def tensors(self) -> dict[str, Any]:
        """Return {name: tensor} of all layers, in the order of the pass."""
        return {name: tensor for call in self.calls for name, tensor in call.outputs.items()}


def forward(keras: Any, model: Any, x: Any) -> Pass:
    """Run `model` on `x` in inference and record it."""
    calls: list[Call] = []
    with _wrapped(keras.layers.Layer, model, calls):
        y = model(x, training=False)
    return Pass(tuple(calls), named(OWN, y))


def named(path: str, value: Any) -> dict[str, Any]:
    """Return {name: tensor} of a layer's return value: a tensor, or lists, tuples and dicts of them."""
    if isinstance(value, Mapping):
        parts = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(str(i), part) for i, part in enumerate(value)]
    else:
        return {path: value} if hasattr(value, "shape") and hasattr(value, "dtype") else {}
    return {name: t for key, part in parts for name, t in named(f"{path}.{key}", part).items()}


@contextmanager
def _wrapped(base: Any, model: Any, calls: list[Call]) -> Iterator[None]:
    original = base.__call__
    open_calls: list[str] = []
    parents: set[str] = set()
    counts: Counter[str] = Counter()
    inside = False

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        if self is model and not inside:
            inside = True
            try:
                return original(self, *args, **kwargs)
            finally:
                inside = False
        if not inside:
            return original(self, *args, **kwargs)
        # a parent's own number is left out of its children's paths: they have their own
        path = "/".join([*open_calls, self.name])
        counts[path] += 1
        unique = path if counts[path] == 1 else f"{path}#{counts[path] - 1}"
        parents.update("/".join(open_calls[: i + 1]) for i in range(len(open_calls)))
        open_calls.append(self.name)
        try:
            value = original(self, *args, **kwargs)
        finally:
            open_calls.pop()
        inputs = tuple(named("", list(args)).values())
        calls.append(Call(unique, self, inputs, named(unique, value), path not in parents))
        return value

    base.__call__ = call
    try:
        yield
    finally:
        base.__call__ = original
