"""Weights of a fixed seed, or from a file: safetensors, or what `torch.save` wrote, read without running its code."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import itertools
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError
from geed_exporters.factories import framework
from geed_exporters.loaded import SEED
from geed_exporters.pytorch.stubs import INSTALL
from geed_onnx.errors import suggestion

#: where training scripts keep the weights inside a checkpoint, the likelier ones first
WRAPPERS = (
    *("state_dict", "model_state_dict", "teacher", "model", "net", "network", "module", "weights", "params"),
    *("classy_state_dict", "base_model", "trunk"),  # one within the other in VISSL's
)
PREFIXES = ("", "module.", "backbone.", "encoder.", "model.")
SHOWN = 3

Adapt = Callable[[dict[str, Any], Any], Mapping[str, Any]]


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Give random weights of one fixed seed, and leave torch's own randomness as it was."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        yield


def load_state(
    model: Any,
    path: Path,
    *,
    prefixes: Sequence[str] = PREFIXES,
    drop: Sequence[str] = (),
    adapt: Adapt | None = None,
    install: str = INSTALL,
) -> tuple[str, ...]:
    """Copy the weights of a checkpoint file into `model` (nn.Module), in place, and return what is to be said of it.

    A checkpoint may hold the weights under a key (`state_dict`, `model`, `teacher`, …), and may write all of their
    names with a prefix; of `prefixes`, and of two in a row, the one that meets most names is taken off.

    Parameters
    ----------
    drop
        Names that may be left over: beginnings, or globs with `*` and `?`, with the prefix or without.
    adapt
        Turns `{name: tensor}`, prefix taken off, into the model's own names and shapes; called as
        `adapt(state, model)` where they do not fit as they are.
    install
        What to say where safetensors is missing.

    Raises
    ------
    ExportError
        If the file is missing, holds no weights, holds code (a pickle that is more than weights), or if weights are
        missing, left over, of another shape, or there twice, with the prefix and without.
    MissingFramework
        If the file is safetensors, which is not installed.
    """
    state, notes = _unwrapped(_read(path, install), path)
    wanted = model.state_dict()
    if adapt is not None:
        bare, _ = _without_prefix(state, wanted, prefixes, path)
        if not _fits(bare, wanted):
            state = dict(adapt(dict(bare), model))
    state, prefix = _without_prefix(state, wanted, prefixes, path)
    if prefix:
        notes.append(f"the prefix {prefix!r} was taken off the names of the weights")
    left_over = [k for k in state if k not in wanted]
    dropped = [k for k in left_over if any(_meets(k, d) or _meets(prefix + k, d) for d in drop)]
    if dropped:
        notes.append(f"{len(dropped)} weights of the checkpoint are not used: {_some(dropped)}")
    _check(path, state, wanted, [k for k in left_over if k not in set(dropped)])
    model.load_state_dict({k: state.get(k, v) for k, v in wanted.items()})
    return tuple(notes)


def _read(path: Path, install: str) -> Any:
    if not path.is_file():
        raise ExportError(f"{path}: no such file; expected a checkpoint (.safetensors, or written by torch.save)")
    if path.suffix == ".safetensors":
        safetensors = framework("safetensors.torch", install)
        try:
            return safetensors.load_file(path)
        except Exception as error:  # safetensors raises classes of its own, from Rust
            raise ExportError(f"{path}: no safetensors file ({error})") from error
    import torch

    try:
        # the command line of a training script (DINO keeps it) is a table of plain values
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign pickles; what cannot be read is an error in our own words
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, TypeError) as error:
        text = str(error)
        if "nsupported global" in text or "GLOBAL" in text or "TorchScript" in text or "nsupported operand" in text:
            raise ExportError(
                f"{path}: holds Python objects beside weights, and reading those could run code: refused. Save the"
                ' weights alone, with torch.save(model.state_dict(), "weights.pt") or safetensors'
            ) from error
        raise ExportError(
            f"{path}: no weights that torch can read; expected .safetensors or a file written by torch.save"
        ) from error


def _unwrapped(found: Any, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return `{name: tensor}` and what was taken out of what."""
    notes: list[str] = []
    for _ in range(4):  # as deep as VISSL's
        if not isinstance(found, Mapping):
            raise ExportError(f"{path}: expected a table of weights, got {type(found).__name__}")
        inner = next((k for k in WRAPPERS if isinstance(found.get(k), Mapping) and found[k]), None)
        if inner is None:
            break
        others = [str(k) for k, v in found.items() if k != inner and isinstance(v, Mapping) and _tensors(v)]
        beside = f" (not taken: {', '.join(map(repr, others))})" if others else ""
        notes.append(f"weights taken from {inner!r} of the checkpoint{beside}")
        found = found[inner]
    state = _tensors(found) if isinstance(found, Mapping) else {}
    if not state:
        keys = ", ".join(repr(str(k)) for k in itertools.islice(found, 6)) if isinstance(found, Mapping) else ""
        raise ExportError(f"{path}: holds no weights{f' (its keys: {keys})' if keys else ''}")
    return state, notes


def _tensors(table: Mapping[Any, Any]) -> dict[str, Any]:
    import torch

    return {k: v for k, v in table.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}


def _without_prefix(
    state: Mapping[str, Any], wanted: Mapping[str, Any], prefixes: Sequence[str], path: Path
) -> tuple[dict[str, Any], str]:
    """Return the weights under the names that meet most of the wanted ones, and the prefix taken off.

    Raises ExportError where a wanted weight is in the file with the prefix and without: one of them would be lost.
    """
    both = dict.fromkeys([*prefixes, *(a + b for a, b in itertools.permutations([p for p in prefixes if p], 2))])
    best = max(both, key=lambda p: sum(k.startswith(p) and k.removeprefix(p) in wanted for k in state))
    twice = [k for k in wanted if best and k in state and best + k in state]
    if twice:
        raise ExportError(
            f"{path}: {len(twice)} weights are in the file twice, with the prefix {best!r} and without:"
            f" {_some([f'{k!r} and {best + k!r}' for k in twice], '; ')}. Save the network's own weights alone"
        )
    return {k.removeprefix(best): v for k, v in state.items()}, best


def _meets(name: str, pattern: str) -> bool:
    return name.startswith(pattern) or fnmatch.fnmatchcase(name, pattern)


def _fits(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    counters = set(_counters(wanted))
    return all(k in counters or (k in state and state[k].shape == v.shape) for k, v in wanted.items())


def _counters(wanted: Mapping[str, Any]) -> list[str]:
    """Names of counters of training batches: no use in a trained network, and absent from old checkpoints."""
    return [k for k in wanted if k.endswith("num_batches_tracked")]


def _check(path: Path, state: Mapping[str, Any], wanted: Mapping[str, Any], unexpected: Sequence[str]) -> None:
    counters = set(_counters(wanted))
    missing = [k for k in wanted if k not in state and k not in counters]
    if missing:
        near = suggestion(missing[0], unexpected or state)
        raise ExportError(
            f"{path}: {len(missing)} of the model's {len(wanted)} weights are not in the file: {_some(missing)}."
            f" For {missing[0]!r} the file has none{near}"
        )
    if unexpected:
        near = suggestion(unexpected[0], wanted)
        raise ExportError(
            f"{path}: the file holds {len(unexpected)} weights that the model has not: {_some(unexpected)}."
            f" {unexpected[0]!r} is unknown{near}"
        )
    wrong = [
        f"{k} expected {tuple(wanted[k].shape)}, got {tuple(v.shape)}"
        for k, v in state.items()
        if k in wanted and tuple(v.shape) != tuple(wanted[k].shape)
    ]
    if wrong:
        raise ExportError(f"{path}: {len(wrong)} weights have another shape: {_some(wrong, '; ')}")


def _some(names: Sequence[str], between: str = ", ") -> str:
    more = f"{between}… ({len(names)} in all)" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more
