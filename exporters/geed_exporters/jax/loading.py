"""A Flax model from `FILE.py:factory`, with weights from a checkpoint where one is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError
from geed_exporters.factories import called, framework, load_factory, parse_name
from geed_exporters.facts import NOTHING, Facts, input_spec, over, read_facts
from geed_exporters.jax.weights import fitted, read_checkpoint
from geed_exporters.loaded import Loaded
from geed_onnx.errors import UnknownName, UsageError

INSTALL = "pip install 'geed-onnx[jax]'"


def load(name: str, *, checkpoint: str | Path | None = None, facts: Facts = NOTHING) -> Loaded:
    """Return the model that a factory makes.

    Parameters
    ----------
    name
        `FILE.py:FACTORY`. The factory returns an nnx.Module, or (linen.Module, variables); a dict may follow as one
        more entry, of what `Facts` has: size, channels, …
    checkpoint
        Weights: .safetensors, .msgpack, .npz or an Orbax folder.
    facts
        What stands over the factory's.

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
    return prepared(made, name=str(named), checkpoint=checkpoint, facts=facts)


def prepared(
    made: Any, *, name: str, checkpoint: str | Path | None = None, weights: Any = None, facts: Facts = NOTHING
) -> Loaded:
    """Return what a factory made, in evaluation mode and with the checkpoint's weights.

    `made` and `facts` are as `load` says; `weights` is what `geed.source` says of weights that come from no checkpoint.
    """
    model, variables, said = _taken_apart(made, name)
    said = over(said, facts)
    spec = input_spec(said, layout="NHWC", whose=name)
    if variables is None:
        model.eval()
    loaded = Loaded(model, spec, "as the factory made them", name, variables=variables).said(said)
    if checkpoint is None:
        return loaded if weights is None else replace(loaded, weights=weights)
    path = Path(checkpoint)
    return replace(loaded, variables=_with_weights(model, variables, path)).with_checkpoint(path)


def _taken_apart(made: Any, name: str) -> tuple[Any, Any, Facts]:
    """Return (model, variables or None, facts)."""
    from flax import linen, nnx

    model, *rest = made if isinstance(made, tuple) and made else (made,)
    if isinstance(model, nnx.Module):
        if len(rest) > 1:
            raise ExportError(f"{name} returned {len(rest) + 1} things; expected an nnx.Module, and a dict of facts")
        return model, None, read_facts(rest[0], name) if rest else NOTHING
    if isinstance(model, linen.Module):
        if len(rest) not in (1, 2) or not isinstance(rest[0], Mapping) or "params" not in rest[0]:
            raise ExportError(
                f"{name} returned a linen module without its weights; expected (module, variables) with variables ="
                " module.init(key, images), a dict of 'params' (and 'batch_stats'), and perhaps a dict of facts"
            )
        return model, rest[0], read_facts(rest[1], name) if rest[1:] else NOTHING
    raise ExportError(
        f"{name} returned {type(model).__name__}; expected an nnx.Module, or (linen.Module, variables), and perhaps a"
        " dict of facts as the last entry"
    )


def _with_weights(model: Any, variables: Any, path: Path) -> Any:
    """Put a checkpoint's arrays into an nnx model in place, or return linen variables made of them."""
    from flax import nnx, traverse_util

    state = None if variables is not None else nnx.state(model, nnx.Not(nnx.RngState))
    tree = _plain(variables) if state is None else nnx.to_pure_dict(state)
    flat = {".".join(map(str, key)): key for key in traverse_util.flatten_dict(tree)}
    wanted = dict(zip(flat, traverse_util.flatten_dict(tree).values(), strict=True))
    arrays = fitted(read_checkpoint(path), wanted, str(path))
    filled = traverse_util.unflatten_dict({key: arrays[name] for name, key in flat.items()})
    if state is None:
        return filled
    nnx.replace_by_pure_dict(state, filled)
    nnx.update(model, state)
    return None


def _plain(tree: Any) -> Any:
    return {key: _plain(value) for key, value in tree.items()} if isinstance(tree, Mapping) else tree
