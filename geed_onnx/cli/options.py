"""The options that ask for a measurement, made from the fields of `geed_onnx.requests`, and what they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from geed_onnx.errors import UsageError, suggestion
from geed_onnx.requests import PARTS, PREPROCESSING, Asked, Request, asked_of, request_of

F = TypeVar("F", bound=Callable[..., Any])
SIZE = click.option("--size", metavar="HxW", help="Height and width, where the file leaves them open.")


def stacked(options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """Return what adds options to a command, shown in this order."""

    def added(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return added


def asked_options(*rooms: str, without: Sequence[str] = (), only: Sequence[str] | None = None) -> Callable[[F], F]:
    """Return what adds the options of these rooms (`Asked.room`), but for those of some fields."""
    options: list[Callable[[F], F]] = []
    for room in rooms:
        if room == "images":
            options += [click.option(f"--{n}", metavar=how.metavar, help=how.help) for n, how in PREPROCESSING.items()]
        for part in PARTS:
            for field, how in asked_of(part):
                wanted = how.help and how.room == room and field.name not in without
                if wanted and (only is None or field.name in only):
                    options.append(_option(field.name, how, field.default))
    return stacked(options)


def _option(name: str, how: Asked, default: Any) -> Callable[[F], F]:
    spelled = how.option or f"--{name.replace('_', '-')}"
    shared: dict[str, Any] = {"help": how.help}
    if how.form == "switch":
        # of one that is on by default the option turns it off
        both = {"default": default} if "/" in spelled else {"is_flag": True}
        return click.option(spelled, name, **both, **shared)
    shared["metavar"] = how.metavar
    if how.form in ("taps", "variants", "acts", "scores", "constants"):
        return click.option(spelled, name, multiple=True, **shared)
    if how.form == "whole":
        shared["type"] = click.IntRange(how.least)
    elif how.form == "share":
        shared["type"] = click.FloatRange(0, 1, min_open=True, max_open=True)
    elif how.form == "samples":
        shared["callback"] = _samples
    elif how.form == "word":
        shared["callback"] = one_of(*how.words)
    return click.option(spelled, name, default=default, show_default=default is not None, **shared)


def request_from(model: str, data: str, group: str, options: Mapping[str, Any]) -> Request:
    """Return the request that the options of `asked_options` make; what they do not say is as it is by default."""
    values = asked_values(options)
    flags = {name: options.get(name) for name in PREPROCESSING}
    return request_of(model, data, group, preprocessing={n: v for n, v in flags.items() if v is not None}, **values)


def asked_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of fields, {field: value}, that options of a command line stand for."""
    values: dict[str, Any] = {}
    for part in PARTS:
        for field, how in asked_of(part):
            if not how.help or field.name not in options:
                continue
            value = options[field.name]
            if how.form == "constants":
                value = _constants(value)
            elif how.form in ("acts", "scores"):
                value = _pairs(value, how.option or f"--{field.name}", how.metavar)
            elif how.form == "switch" and field.default is True:
                value = not value
            values[field.name] = value
    return values


# --- what a value may be ----------------------------------------------------------------------------------------


def _samples(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Read `--samples`: a positive number, `all`, or nothing."""
    if value is None or value == "all":
        return value
    try:
        number = int(value)
    except ValueError:
        raise click.BadParameter(f"expected a number of images or 'all', got {value!r}", ctx, param) from None
    if number < 1:
        raise click.BadParameter(f"expected at least 1, got {number}", ctx, param)
    return number


def one_of(*words: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return the callback of an option that takes one of a few words, and says which was meant."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is not None and value not in words:
            raise click.BadParameter(f"unknown word {value!r}{suggestion(value, words)}", ctx, param)
        return value

    return read


def _pairs(texts: Sequence[str], what: str, form: str) -> dict[str, str]:
    """Return {name: value} of NAME=VALUE texts, one for each name; tensor names may hold a `=` too."""
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.rpartition("=")
        if not sign or not name or not value:
            raise UsageError(f"{what} {text!r}: expected {form}")
        if name in found:
            raise UsageError(f"{what} {text!r}: {name!r} is given twice, as {found[name]!r} too; give one")
        found[name] = value
    return found


def _constants(texts: Sequence[str]) -> dict[str, Any]:
    """Return {input: array} from NAME=VALUE texts."""
    import numpy as np

    found = {}
    for name, value in _pairs(texts, "--constant", "NAME=VALUE").items():
        try:
            found[name] = np.load(value, allow_pickle=False) if value.endswith(".npy") else np.asarray(float(value))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--constant {f'{name}={value}'!r}: expected a number or a .npy file with an array"
                f" ({getattr(error, 'strerror', None) or str(error).splitlines()[0]})"
            ) from None
    return found
