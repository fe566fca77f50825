"""A Flax model seen as one function of an image batch, and the calls of its modules while it runs.

nnx modules are named by attribute path with dots, as their states are (`blocks.0.conv`); linen modules by scope path
with slashes, as `tabulate` prints them (`Block_0/Conv_0`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from geed_exporters.errors import NotExportable

#: arguments that switch between training and evaluation, and what they are in evaluation
EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "inference": True,
    "use_running_average": True,
}
ROOT = "output"


@dataclass(frozen=True)
class Network:
    """A Flax model in evaluation mode."""

    flavour: Literal["nnx", "linen"]
    forward: Callable[[Any], Any]
    """`(B, H, W, C)` → what the model returns."""
    classes: tuple[Any, ...]
    """Of its modules: those whose `__call__` is watched."""
    path: Callable[[Any], tuple[str, ...] | None]
    """Where a module lies in the model; None for one that Flax made for the moment only."""
    dense: tuple[type, ...]
    """Classes of linear layers, the last of which is the classifier."""

    @property
    def separator(self) -> str:
        """Return what stands between the parts of a module path."""
        return "." if self.flavour == "nnx" else "/"

    def name(self, path: tuple[str, ...]) -> str:
        """Return the module path as text; the model itself is `output`."""
        return self.separator.join(path) or ROOT


@dataclass(frozen=True)
class Call:
    """One call of one module: its name (`conv`, then `conv#1`), the first argument and what it returned."""

    name: str
    path: tuple[str, ...]
    module: Any
    argument: Any
    output: Any


def network(model: Any, variables: Any, example: Any) -> Network:
    """Return the model as a function that takes one batch; `example` is an abstract one.

    Raises
    ------
    NotExportable
        If its `__call__` takes no input, or several.
    """
    from flax import linen, nnx

    flags = _evaluation_flags(model)
    if isinstance(model, linen.Module):

        def forward(x: Any) -> Any:
            return model.apply(variables, x, **flags)

        classes = _linen_classes(forward, example)
        return Network("linen", forward, classes, _linen_path, (linen.Dense, linen.DenseGeneral))
    paths = {
        id(module): tuple(map(str, path))
        for path, module in nnx.iter_modules(model)
        if not isinstance(module, (nnx.List, nnx.Dict))
    }
    found = {type(module) for _, module in nnx.iter_modules(model) if callable(module)}

    def path_of(module: Any) -> tuple[str, ...] | None:
        return paths.get(id(module))

    ordered = tuple(sorted(found, key=lambda c: f"{c.__module__}.{c.__qualname__}"))
    return Network("nnx", functools.partial(model, **flags), ordered, path_of, (nnx.Linear, nnx.LinearGeneral))


def _linen_path(module: Any) -> tuple[str, ...] | None:
    return tuple(module.path)


def _linen_classes(forward: Callable[[Any], Any], example: Any) -> tuple[type, ...]:
    """Return the classes of the modules that one forward pass calls: linen makes them only then."""
    import jax
    from flax import linen

    classes: dict[type, None] = {}

    def note(function: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__":
            classes[type(context.module)] = None
        return function(*args, **kwargs)

    with linen.intercept_methods(note):
        jax.eval_shape(forward, example)
    return tuple(classes)


def _evaluation_flags(model: Any) -> dict[str, bool]:
    kind = type(model).__name__
    if not callable(model):
        raise NotExportable(f"{kind} has no __call__: expected a model that is called with one batch of images")
    parameters = list(inspect.signature(type(model).__call__).parameters.values())[1:]
    flags = {p.name: EVALUATION[p.name] for p in parameters if p.name in EVALUATION}
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    inputs = [p for p in parameters if p.name not in EVALUATION]
    needed = [
        p.name for p in inputs if p.default is p.empty and p.kind in (*positional, inspect.Parameter.KEYWORD_ONLY)
    ]
    takes_one = any(p.kind in (*positional, inspect.Parameter.VAR_POSITIONAL) for p in inputs)
    if len(needed) > 1:
        raise NotExportable(
            f"{kind} takes several inputs ({', '.join(needed)}), expected one batch of images: write a factory whose"
            " module takes the images alone and gives the others their values"
        )
    if not takes_one:
        raise NotExportable(f"{kind}.__call__ takes no input, expected one batch of images")
    return flags


def run_watched(net: Network, x: Any) -> tuple[Any, list[Call], list[str]]:
    """Run the model on a batch and return its output, the calls of its modules, and modules that cannot be seen into.

    Calls are in the order in which they ended, the model's own last. The modules that cannot be seen into are called
    inside a transform that traces them anew (`nn.scan`, `nnx.jit`, `remat`): what they make never leaves it.
    """
    from jax.extend.core import get_opaque_trace_state

    calls: list[Call] = []
    hidden: list[str] = []
    counts: Counter[str] = Counter()
    outside = get_opaque_trace_state(convention="flax")

    def seen(module: Any, argument: Any, output: Any) -> None:
        path = net.path(module)
        if path is None or get_opaque_trace_state(convention="flax") != outside:
            hidden.append(type(module).__name__ if path is None else net.name(path))
            return
        base = net.name(path)
        name = f"{base}#{counts[base]}" if counts[base] else base
        counts[base] += 1
        calls.append(Call(name, path, module, argument, output))

    with _watching(net.classes, seen):
        output = net.forward(x)
    return output, calls, list(dict.fromkeys(hidden))


@contextlib.contextmanager
def _watching(classes: tuple[Any, ...], seen: Callable[[Any, Any, Any], None]) -> Iterator[None]:
    """Watch every call of these classes.

    The classes themselves are patched, after jax2onnx has patched them: Flax's own way (`capture_intermediates`) loses
    the layers that jax2onnx has replaced.
    """
    running: set[int] = set()

    def watched(original: Any) -> Any:
        @functools.wraps(original)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            # a subclass that calls its parent's __call__ is one call, not two
            if id(self) in running:
                return original(self, *args, **kwargs)
            running.add(id(self))
            try:
                output = original(self, *args, **kwargs)
            finally:
                running.discard(id(self))
            argument = args[0] if args else next(iter(kwargs.values()), None)
            seen(self, argument, output)
            return output

        return call

    # all are looked up before the first is replaced: a class may inherit the __call__ of another
    originals = [(cls, cls.__call__, "__call__" in vars(cls)) for cls in classes]
    try:
        for cls, original, _ in originals:
            cls.__call__ = watched(original)
        yield
    finally:
        for cls, original, own in originals:
            if own:
                cls.__call__ = original
            else:
                del cls.__call__


def tensors(net: Network, name: str, value: Any) -> dict[str, Any]:
    """Return the arrays of a module's output: `name` for one, `name.0` or `name.key` for several."""
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(value)
    return {
        net.separator.join([name, *(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)]): t
        for path, t in leaves
        if hasattr(t, "shape") and hasattr(t, "dtype")
    }
