"""What a factory or a flag says of the input: its size, its channels and what is done to an image before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geed_exporters.export import InputSpec
from geed_onnx.errors import UnknownName, UsageError

#: keys of the dict that a factory may return beside its model
INPUT_FACTS = ("size", "channels", "colour", "range", "mean", "std")
MODEL_FACTS = ("blocks", "latent", "scores")
CHANNELS = {"grey": 1, "rgb": 3, "bgr": 3}


def checked_facts(given: Any, where: str) -> dict[str, Any]:
    """Return a factory's dict of facts, or say which key is not one.

    Raises
    ------
    UsageError
        If it is no dict, or holds a key that no fact has.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"{where}: expected a dict of input facts ({', '.join(INPUT_FACTS)}), got {given!r}")
    for key in given:
        if key not in (*INPUT_FACTS, *MODEL_FACTS):
            raise UnknownName("input fact", str(key), (*INPUT_FACTS, *MODEL_FACTS), f"in the dict that {where} returns")
    return dict(given)


def input_spec(facts: Mapping[str, Any]) -> InputSpec:
    """Return the input as Flax has it, (H, W, C), from the facts of factory and flags.

    Raises
    ------
    UsageError
        If the size or the channels are told by nobody, or a fact does not fit the others.
    """
    if facts.get("size") is None:
        raise UsageError(
            "the input's size is not known: give --size HxW, or let the factory return (model, {'size': (H, W), …})"
        )
    height, width = _whole(facts["size"], "size")
    colour = facts.get("colour")
    if colour is not None and colour not in CHANNELS:
        raise UnknownName("colour", str(colour), CHANNELS)
    channels = facts.get("channels")
    if channels is None:
        if colour is None:
            raise UsageError(
                "the number of input channels is not known: give --channels N (or --colour), or let the factory"
                " return (model, {'channels': N, …})"
            )
        channels = CHANNELS[colour]
    if not isinstance(channels, int) or channels < 1:
        raise UsageError(f"channels: expected a whole number from 1, got {channels!r}")
    if colour is not None and CHANNELS[colour] != channels:
        raise UsageError(f"colour {colour} has {CHANNELS[colour]} channel(s), but {channels} are given")
    span = _numbers(facts.get("range"), "range", (2,))
    return InputSpec(
        name="image",
        shape=(height, width, channels),
        layout="NHWC",
        colour=colour,
        range=(span[0], span[1]) if span else None,
        mean=_numbers(facts.get("mean"), "mean", (1, channels)),
        std=_numbers(facts.get("std"), "std", (1, channels)),
    )


def _whole(value: Any, name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
        raise UsageError(f"{name}: expected a whole number or (height, width), got {value!r}")
    return pair[0], pair[1]


def _numbers(value: Any, name: str, lengths: Sequence[int]) -> tuple[float, ...] | None:
    if value is None:
        return None
    numbers = (value,) if isinstance(value, (int, float)) else tuple(value) if isinstance(value, Sequence) else ()
    if len(numbers) not in lengths or not all(isinstance(v, (int, float)) for v in numbers):
        counts = " or ".join(str(n) for n in sorted(set(lengths)))
        raise UsageError(f"{name}: expected {counts} number(s), got {value!r}")
    return tuple(float(v) for v in numbers)
