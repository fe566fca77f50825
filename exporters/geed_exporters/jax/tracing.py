"""What a Flax model's forward pass makes: which tensors can be tapped, which of them is latent vector and scores."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geed_exporters.candidates import Candidate
from geed_exporters.errors import NotExportable, first_line
from geed_exporters.export import Array, Role
from geed_exporters.jax.modules import ROOT, Call, Network, network, run_watched, tensors
from geed_exporters.loaded import Loaded
from geed_onnx.errors import GeedError

INPUT = "input"


@dataclass(frozen=True)
class Trace:
    """One abstract forward pass with a batch of any length."""

    net: Network
    candidates: tuple[Candidate, ...]
    """In the order of the forward pass; the model's own output is there where no module gave it."""
    outputs: tuple[tuple[str, str], ...]
    """Of each tensor that the model returns: its own name (`output`) and the module that gave it, if one did."""
    hidden: tuple[str, ...]
    """Modules that cannot be tapped, since a Flax transform runs them apart."""


def traced(loaded: Loaded) -> Trace:
    """Run the model on an abstract batch and return what it made.

    Raises
    ------
    NotExportable
        If the model takes several inputs, asks for values or the batch's length in Python, or returns no float tensor
        with the batch first.
    """
    import jax
    import jax.numpy as jnp
    from jax import export

    (batch,) = export.symbolic_shape("B")
    example = jax.ShapeDtypeStruct((batch, *loaded.input.shape), jnp.float32)
    found: list[Trace] = []

    with in_words(loaded):
        net = network(loaded.model, loaded.variables, example)

        def look(x: Any) -> Any:
            output, calls, hidden = run_watched(net, x)
            found.append(_looked_at(loaded, net, calls, tuple(hidden), batch))
            return output

        jax.eval_shape(look, example)
    return found[-1]


def values(net: Network, x: Any) -> dict[str, Any]:
    """Return every tensor that has a name, of a real or an abstract batch `(B, H, W, C)`."""
    _, calls, _ = run_watched(net, x)
    found: dict[str, Any] = {}
    for call in calls:
        found |= tensors(net, call.name, call.output)
        if isinstance(call.module, net.dense):
            found[net.separator.join([call.name, INPUT])] = call.argument
    return found


def _looked_at(loaded: Loaded, net: Network, calls: list[Call], hidden: tuple[str, ...], batch: Any) -> Trace:
    named = {
        name: (tensor, call)
        for call in calls
        for name, tensor in tensors(net, call.name, call.output).items()
        if _tappable(tensor, batch)
    }
    own = {name: tensor for name, (tensor, call) in named.items() if not call.path}
    if not own:
        shapes = [tuple(map(str, t.shape)) for t in tensors(net, ROOT, calls[-1].output).values()]
        said = ", ".join(f"({', '.join(s)})" for s in shapes) or "nothing"
        raise NotExportable(
            f"{loaded.name} returns no float tensor whose first axis is the batch B (it returns {said}): a reshape to"
            " fixed numbers is the usual cause; write x.reshape(x.shape[0], -1)"
        )
    inner = {name: pair for name, pair in named.items() if name not in own}

    def giver(tensor: Any) -> str | None:
        # the outermost module that returned this very tensor
        return next((n for n, (t, _) in reversed(inner.items()) if t is tensor), None)

    outputs = tuple((name, giver(tensor) or name) for name, tensor in own.items())
    shown = inner | {name: named[name] for name, source in outputs if name == source}
    roles: dict[str, Role] = {}
    if len(outputs) == 1 and len(own[outputs[0][0]].shape) == 2:
        # without classes, what comes out is the latent vector
        roles[outputs[0][1]] = "latent" if loaded.scores == "" else "scores"
    latent: dict[str, Any] = {}
    classifier = _classifier(net, calls, tuple(own.values()))
    if classifier is not None and loaded.latent is None and loaded.scores != "":
        name = giver(classifier.argument)
        if name is None:
            name = net.separator.join([classifier.name, INPUT])
            latent = {name: (classifier.argument, classifier)}
        roles.setdefault(name, "latent")
    shown = latent | shown
    _declared(loaded, roles, list(shown))
    order = [n for n in shown if n not in latent]
    if latent:  # made just before its classifier answered
        order[order.index(classifier.name) : order.index(classifier.name)] = list(latent)  # type: ignore[union-attr]
    candidates = tuple(_candidate(loaded, net, name, *shown[name], roles) for name in order)
    return Trace(net, candidates, outputs, hidden)


def _declared(loaded: Loaded, roles: dict[str, Role], known: list[str]) -> None:
    """Let the latent vector and the scores that a factory names stand above what was found."""
    declared: list[tuple[Role, str | None]] = [("latent", loaded.latent), ("scores", loaded.scores)]
    loaded.check_names(known)
    for role, name in declared:
        if not name:
            continue
        for other in [n for n, r in roles.items() if r == role]:
            del roles[other]
        roles[name] = role


def _classifier(net: Network, calls: list[Call], outputs: tuple[Any, ...]) -> Call | None:
    """Return the last call of a linear layer that ends as wide as one of the model's outputs, from vectors."""
    widths = {t.shape for t in outputs if len(t.shape) == 2}
    linear = [c for c in calls if isinstance(c.module, net.dense) and getattr(c.output, "shape", None) in widths]
    return linear[-1] if linear and len(linear[-1].argument.shape) == 2 else None


def _tappable(tensor: Any, batch: Any) -> bool:
    import jax.numpy as jnp

    return (
        jnp.issubdtype(tensor.dtype, jnp.floating)
        and len(tensor.shape) > 1
        # a symbol compares equal to itself alone; to ask it about a number may be inconclusive
        and not isinstance(tensor.shape[0], int)
        and str(tensor.shape[0]) == str(batch)
        and all(isinstance(n, int) for n in tensor.shape[1:])
    )


def _candidate(loaded: Loaded, net: Network, name: str, tensor: Any, call: Call, roles: dict[str, Role]) -> Candidate:
    shape = tuple(tensor.shape[1:])
    if len(shape) == 3:
        shape = (shape[2], *shape[:2])
    if loaded.blocks:
        block = loaded.in_blocks(name)
    else:
        # an entry of a list has a number for its last part; linen has no lists, only names
        block = len(call.path) == 1 or (net.flavour == "nnx" and bool(call.path) and call.path[-1].isdigit())
    return Candidate(name, shape, block=block and call.output is tensor, role=roles.get(name))


@contextlib.contextmanager
def in_words(loaded: Loaded) -> Iterator[None]:
    """Turn what JAX, Flax and jax2onnx raise over a model into one sentence that names the cause and what to do."""
    import flax.errors
    import jax

    try:
        yield
    except GeedError:
        raise
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise NotExportable(
            f"{loaded.name} asks for a tensor's values in Python{_where(error)}: data-dependent control flow (if,"
            " while, int(), NumPy calls on a tensor) has no ONNX form; use jnp.where or jax.lax.cond"
        ) from error
    except jax.errors.NonConcreteBooleanIndexError as error:
        raise NotExportable(
            f"{loaded.name} picks entries by a tensor of booleans{_where(error)}: a shape that depends on the data has"
            " no ONNX form here; use jnp.where"
        ) from error
    except jax.errors.InconclusiveDimensionOperation as error:
        raise NotExportable(
            f"{loaded.name} does different things for different lengths of the batch{_where(error)}"
            f" ({first_line(error)}): the batch is free in the exported file"
        ) from error
    except (flax.errors.ModifyScopeVariableError, flax.errors.InvalidRngError, flax.errors.TraceContextError) as error:
        raise NotExportable(
            f"{loaded.name} runs in training mode{_where(error)} ({first_line(error)}): batch norm and dropout have to"
            " be in evaluation mode; let __call__ take train=False, or build them with use_running_average and"
            " deterministic True"
        ) from error
    except NotImplementedError as error:
        primitive = first_line(error).partition("for primitive '")[2].partition("'")[0]
        what = f"the operator {primitive!r} has" if primitive else f"an operator has ({first_line(error)})"
        raise NotExportable(
            f"{loaded.name}: {what} no ONNX form in jax2onnx; replace it, or write the model so that ONNX's operators"
            " can say it"
        ) from error
    except Exception as error:  # the user's model, Flax, JAX and jax2onnx: there is no common class
        raise NotExportable(
            f"{loaded.name} cannot be run on an image batch of shape (B, {', '.join(map(str, loaded.input.shape))})"
            f"{_where(error)}: {type(error).__name__}: {first_line(error)}"
        ) from error


def _where(error: BaseException) -> str:
    """Return ' (net.py, line 12)' of the innermost line that is the user's own."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if "site-packages" not in path.parts and "geed_exporters" not in path.parts and path.is_file():
            return f" ({path.name}, line {frame.lineno})"
    return ""


def as_array(tensor: Any) -> Array:
    """Return a JAX array as NumPy's."""
    import numpy as np

    return np.asarray(tensor)
