"""A Flax model from `FILE.py:factory`, with weights from a checkpoint where one is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError
from geed_exporters.export import InputSpec
from geed_exporters.factories import called, framework, load_factory, parse_name
from geed_exporters.jax.facts import checked_facts, input_spec
from geed_exporters.jax.weights import fingerprint, fitted, read_checkpoint
from geed_onnx.errors import UnknownName, UsageError

INSTALL = "pip install 'geed-onnx[jax]'"


@dataclass(frozen=True)
class Loaded:
    """A Flax model ready to be exported."""

    model: Any
    """An nnx.Module in evaluation mode, or a linen.Module."""
    variables: Any
    """Of a linen module: `{"params": …, "batch_stats": …}`; None for nnx."""
    input: InputSpec
    """As Flax has it: (H, W, C)."""
    weights: Any
    """What `geed.source` says of them."""
    name: str
    blocks: tuple[str, ...] = ()
    """Globs of the module paths that are blocks; none: the children of the model and the entries of its lists."""
    latent: str | None = None
    """Module path of the latent vector; None: the input of the last linear layer."""
    scores: str | None = None
    """Module path of the scores; None: the model's output, where it is a vector."""


def load(name: str, *, checkpoint: str | Path | None = None, **flags: Any) -> Loaded:
    """Return the model that a factory makes.

    Parameters
    ----------
    name
        `FILE.py:FACTORY`. The factory returns an nnx.Module, or (linen.Module, variables); a dict of facts may follow
        as one more entry: size, channels, colour, range, mean, std, and blocks (globs), latent, scores (module paths).
    checkpoint
        Weights: .safetensors, .msgpack, .npz or an Orbax folder.
    flags
        Input facts that stand above the factory's; None is not told.

    Raises
    ------
    MissingFramework
        If jax, flax or jax2onnx is not installed.
    UsageError
        If the name is no `FILE.py:FACTORY`, or the input is not fully told.
    ExportError
        If the file, the factory or the checkpoint fails, or what the factory returns is no Flax model.
    """
    try:
        named = parse_name(name, ())
    except UnknownName:
        raise UsageError(
            f"model {name!r}: expected FILE.py:FACTORY; there is no collection of Flax models that are known by name"
            " here, so a Python file makes the model and --checkpoint gives its weights"
        ) from None
    assert named.path is not None
    for module in ("jax", "flax", "jax2onnx"):
        framework(module, INSTALL)
    made = called(load_factory(named.path, named.name), str(named))
    return prepared(made, name=str(named), checkpoint=checkpoint, **flags)


def prepared(
    made: Any, *, name: str, checkpoint: str | Path | None = None, weights: Any = None, **flags: Any
) -> Loaded:
    """Return what a factory made, in evaluation mode and with the checkpoint's weights.

    `made` is as `load` says; `weights` is what `geed.source` says of weights that come from no checkpoint.
    """
    for key in flags:
        checked_facts({key: None}, f"{name} (keyword)")
    model, variables, facts = _taken_apart(made, name)
    facts |= {key: value for key, value in flags.items() if value is not None}
    spec = input_spec(facts)
    if variables is None:
        model.eval()
    if checkpoint is not None:
        path = Path(checkpoint)
        variables = _with_weights(model, variables, path)
        weights = fingerprint(path)
    blocks = facts.get("blocks") or ()
    return Loaded(
        model,
        variables,
        spec,
        weights if weights is not None else "as the factory made them",
        name,
        blocks=(blocks,) if isinstance(blocks, str) else tuple(blocks),
        latent=facts.get("latent"),
        scores=facts.get("scores"),
    )


def _taken_apart(made: Any, name: str) -> tuple[Any, Any, dict[str, Any]]:
    """Return (model, variables or None, facts)."""
    from flax import linen, nnx

    model, *rest = made if isinstance(made, tuple) and made else (made,)
    if isinstance(model, nnx.Module):
        if len(rest) > 1:
            raise ExportError(f"{name} returned {len(rest) + 1} things; expected an nnx.Module, and a dict of facts")
        return model, None, checked_facts(rest[0], name) if rest else {}
    if isinstance(model, linen.Module):
        if len(rest) not in (1, 2) or not isinstance(rest[0], Mapping) or "params" not in rest[0]:
            raise ExportError(
                f"{name} returned a linen module without its weights; expected (module, variables) with variables ="
                " module.init(key, images), a dict of 'params' (and 'batch_stats'), and perhaps a dict of facts"
            )
        return model, rest[0], checked_facts(rest[1], name) if rest[1:] else {}
    raise ExportError(
        f"{name} returned {type(model).__name__}; expected an nnx.Module, or (linen.Module, variables), and perhaps a"
        " dict of facts as the last entry"
    )


def _with_weights(model: Any, variables: Any, path: Path) -> Any:
    """Put a checkpoint's arrays into an nnx model in place, or return linen variables made of them."""
    from flax import nnx, traverse_util

    given = read_checkpoint(path)
    if variables is not None:
        flat = traverse_util.flatten_dict(_plain(variables))
        arrays = fitted(given, {".".join(map(str, key)): value for key, value in flat.items()}, str(path))
        return traverse_util.unflatten_dict({key: arrays[".".join(map(str, key))] for key in flat})
    state = nnx.state(model, nnx.Not(nnx.RngState))
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    arrays = fitted(given, {".".join(map(str, key)): value for key, value in flat.items()}, str(path))
    nnx.replace_by_pure_dict(
        state, traverse_util.unflatten_dict({key: arrays[".".join(map(str, key))] for key in flat})
    )
    nnx.update(model, state)
    return None


def _plain(tree: Any) -> Any:
    return {key: _plain(value) for key, value in tree.items()} if isinstance(tree, Mapping) else tree
