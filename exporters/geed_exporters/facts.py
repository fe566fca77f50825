"""What a factory's dict or the command line says of a model and of its images, read the same way for every framework.

`read_facts` turns values or text into `Facts`, `over` lets one source stand above another, `input_spec` makes the
file's input of them.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from geed_exporters.export import PREPARATION, InputSpec, Layout
from geed_onnx.errors import UnknownName, UsageError

#: `whose` of what comes from options: errors then name `--size`, not `size`
COMMAND_LINE = "the command line"
CHANNELS = {"grey": 1, "rgb": 3, "bgr": 3}
FITS = ("resize", "crop", "pad", "none")
RESAMPLES = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclass(frozen=True)
class Facts:
    """What is said of a model and of the images it takes; a field that is None says nothing."""

    size: tuple[int, int] | None = None
    """(height, width)"""
    channels: int | None = None
    colour: Literal["grey", "rgb", "bgr"] | None = None
    range: tuple[float, float] | None = None
    """What black and white become, before mean and std."""
    mean: tuple[float, ...] | None = None
    """One number, or one a channel."""
    std: tuple[float, ...] | None = None
    fit: Literal["resize", "crop", "pad", "none"] | None = None
    resize: int | None = None
    """With fit crop: the short side an image is resized to before its centre is cut out."""
    resample: str | None = None
    input: str | None = None
    """Name of the file's input."""
    blocks: tuple[str, ...] | None = None
    """Globs of the module paths that are blocks."""
    latent: str | None = None
    """Path of the module that gives the latent vector."""
    scores: str | None = None
    """Path of the module that gives the class scores; empty: there are none."""
    weights: Any = None
    """As `Source.weights`."""
    notes: tuple[str, ...] | None = None
    actions: Mapping[str, Any] | None = None
    """How channels move under the group, by module path; see `geed_onnx.actions.fields`."""


NOTHING = Facts()


def read_facts(given: Any, whose: str) -> Facts:
    """Return what a mapping says: values as a factory gives them, or text as options have it.

    Parameters
    ----------
    given
        {name of a field of `Facts`: value}; None says nothing. A size is `224x224`, `224`, (224, 224) or 224; numbers
        are `0.5,0.5,0.5`, a sequence or one number.
    whose
        Who says it, for errors: `net.py:build`, or `COMMAND_LINE`.

    Raises
    ------
    UnknownName
        If a key is no field of `Facts`.
    UsageError
        If it is no mapping, a value cannot be meant, or values do not agree with one another.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"{whose}: expected a dict of facts ({', '.join(READERS)}), got {_shown(given)}")
    said: dict[str, Any] = {}
    for key, value in given.items():
        if key not in READERS:
            raise UnknownName("fact", str(key), READERS, f"given by {whose}")
        if value is None:
            continue
        read, expected = READERS[key]
        try:
            said[key] = read(value)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{_named(whose, key)}: expected {expected}, got {_shown(value)}") from None
    facts = Facts(**said)
    check_agreement(facts, whose)
    return facts


def over(base: Facts, more: Facts) -> Facts:
    """Return `base` with what `more` says in its place; fields of `more` that are None say nothing.

    The resize before a crop belongs to the size and the fit it was given with, and goes with them.
    """
    said = {f.name: value for f in fields(more) if (value := getattr(more, f.name)) is not None}
    if more.size is not None and base.size not in (None, more.size):
        said.setdefault("resize", None)
    if more.fit is not None and more.fit != (base.fit or "crop"):
        said.setdefault("resize", None)
    return replace(base, **said)


def input_spec(facts: Facts, *, layout: Layout, name: str = "image", whose: str = "the model") -> InputSpec:
    """Return the file's input: its shape is (C, H, W) or (H, W, C), as the layout has it.

    Channels that nobody tells follow from the colour. `name` is that of an input that the facts do not name.

    Raises
    ------
    UsageError
        If the size or the channels are told by nobody, or facts do not agree with one another.
    """
    check_agreement(facts, whose)
    if facts.size is None:
        raise UsageError(
            f"{whose}: the size of its images is not known; give --size HxW, or let the factory return (model,"
            ' {"size": (H, W)})'
        )
    channels = channels_of(facts)
    if channels is None:
        raise UsageError(
            f"{whose}: the number of channels of its images is not known; give --channels N or --colour, or let the"
            ' factory return (model, {"channels": N})'
        )
    shape = (channels, *facts.size) if layout == "NCHW" else (*facts.size, channels)
    said = {key: getattr(facts, key) for key in PREPARATION}
    return InputSpec(facts.input or name, shape, layout, **said)


def facts_of(spec: InputSpec) -> Facts:
    """Return what an image input of float32 says: `input_spec(facts_of(spec), layout=spec.layout)` is `spec` again."""
    channels, height, width = spec.chw
    said = {key: getattr(spec, key) for key in PREPARATION}
    return Facts(size=(height, width), channels=channels, input=spec.name, **said)


def channels_of(facts: Facts) -> int | None:
    """Return the number of channels: what is said, or what the colour has."""
    return facts.channels if facts.channels is not None else CHANNELS.get(facts.colour or "")


def check_agreement(facts: Facts, whose: str) -> None:
    """Raise UsageError where colour and channels, mean or std and channels, or fit and resize contradict each other."""
    channels = channels_of(facts)
    if facts.colour is not None and channels != CHANNELS[facts.colour]:
        wanted = CHANNELS[facts.colour]
        raise UsageError(
            f"{_named(whose, 'colour')}: expected {wanted} channel{'s' if wanted > 1 else ''} for {facts.colour},"
            f" got {channels}"
        )
    for key, numbers in (("mean", facts.mean), ("std", facts.std)):
        if channels is not None and numbers is not None and len(numbers) not in (1, channels):
            wanted_counts = f"1 number or {channels}, one a channel" if channels > 1 else "1 number"
            raise UsageError(f"{_named(whose, key)}: expected {wanted_counts}, got {len(numbers)}")
    if facts.resize is not None and facts.fit not in (None, "crop"):
        raise UsageError(
            f"{_named(whose, 'resize')}: expected with fit 'crop' only (what an image is resized to before its centre"
            f" is cut out), got {facts.resize} with fit {facts.fit!r}"
        )


def refuse_other_inputs(facts: Facts, reason: str) -> None:
    """Raise UsageError where facts give a size or channels to a network that has its own."""
    for key in ("size", "channels"):
        if getattr(facts, key) is not None:
            raise UsageError(f"--{key}: {reason}; leave it out")


def _named(whose: str, key: str) -> str:
    return f"--{key}" if whose == COMMAND_LINE else f"{whose}: {key}"


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}…"


# ---- values --------------------------------------------------------------------------------------------------------
# each returns the value as `Facts` has it, and raises ValueError or TypeError where it cannot be meant


def _count(value: Any) -> int:
    if isinstance(value, str) and not re.fullmatch(r"\s*\d+\s*", value):
        raise ValueError
    if isinstance(value, bool):
        raise TypeError
    number = int(value) if isinstance(value, str) else operator.index(value)
    if number < 1:
        raise ValueError
    return number


def _size(value: Any) -> tuple[int, int]:
    parts = value.lower().replace("×", "x").split("x") if isinstance(value, str) else _several(value)
    sides = [_count(part) for part in parts]
    if len(sides) not in (1, 2):
        raise ValueError
    return sides[0], sides[-1]


def _several(value: Any) -> list[Any]:
    """Return the entries of a sequence, or of one value."""
    return list(value) if isinstance(value, Iterable) else [value]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(value := float(value)):
        raise ValueError
    return float(value)


def _numbers(value: Any) -> tuple[float, ...]:
    numbers = tuple(_number(part) for part in (value.split(",") if isinstance(value, str) else _several(value)))
    if not numbers:
        raise ValueError
    return numbers


def _range(value: Any) -> tuple[float, float]:
    black, white = _numbers(value)
    if black == white:
        raise ValueError
    return black, white


def _divisors(value: Any) -> tuple[float, ...]:
    numbers = _numbers(value)
    if 0 in numbers:
        raise ValueError
    return numbers


def _word(known: Iterable[str]) -> Callable[[Any], str]:
    words = tuple(known)

    def read(value: Any) -> str:
        return words[words.index(value)]

    return read


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _name(value: Any) -> str:
    if not _text(value):
        raise ValueError
    return str(value)


def _path_or_none(value: Any) -> str:
    return "" if value is False else _text(value)


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(_text(part) for part in value)


def _jsonable(value: Any) -> Any:
    json.dumps(value)
    return value


def _actions(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    return {_text(path): _jsonable(action) for path, action in value.items()}


def _choice(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"


#: field of `Facts` → what reads it, what is expected
READERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "size": (_size, "height and width in pixels, 224x224 or (224, 224), or one number for a square"),
    "channels": (_count, "a whole number from 1"),
    "colour": (_word(CHANNELS), _choice(CHANNELS)),
    "range": (_range, "two different numbers, what black and white become, 0,255 or (0, 255)"),
    "mean": (_numbers, "a number, or one a channel, 0.5,0.5,0.5 or (0.5, 0.5, 0.5)"),
    "std": (_divisors, "a number, or one a channel, 0.5,0.5,0.5 or (0.5, 0.5, 0.5), and none of them 0"),
    "fit": (_word(FITS), _choice(FITS)),
    "resize": (_count, "a whole number from 1"),
    "resample": (_word(RESAMPLES), _choice(RESAMPLES)),
    "input": (_name, "the name of the file's input"),
    "blocks": (_texts, "globs of module paths"),
    "latent": (_name, "a module path"),
    "scores": (_path_or_none, "a module path, or '' where there are none"),
    "weights": (_jsonable, "what JSON can hold"),
    "notes": (_texts, "a text, or several"),
    "actions": (_actions, "a dict of module paths and actions that JSON can hold"),
}
