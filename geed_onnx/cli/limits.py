"""The options that say what values may be, shared by `measure` and `gate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from geed_onnx.gates import Threshold

F = TypeVar("F", bound=Callable[..., Any])


def limit_options(metavar: str, above: str) -> Callable[[F], F]:
    """Add --fail-above (with this metavar and help), --fail-below, --prove and --family-wise."""

    def added(command: F) -> F:
        for option in reversed(
            [
                click.option("--fail-above", multiple=True, metavar=metavar, help=above),
                click.option(
                    "--fail-below",
                    multiple=True,
                    metavar=metavar,
                    help="The other way round: a number that a value must not lie below (an invariance too large).",
                ),
                click.option(
                    "--prove",
                    is_flag=True,
                    help="Exit with 3 too where an interval still holds the limit: within it must be shown.",
                ),
                click.option(
                    "--family-wise",
                    is_flag=True,
                    help="All values of a limit together cross by chance no more often than one would (Holm).",
                ),
            ]
        ):
            command = option(command)
        return command

    return added


def limits_given(options: Mapping[str, Any], others: Iterable[Threshold] = ()) -> list[Threshold]:
    """Return the thresholds of --fail-above and --fail-below after `others`, as --prove and --family-wise want them.

    Raises
    ------
    UsageError
        If one is malformed.
    """
    from geed_onnx.gates import parse_threshold

    found = [*others]
    for name, below in (("fail_above", False), ("fail_below", True)):
        found += [parse_threshold(text, f"--{name.replace('_', '-')}", below=below) for text in options[name]]
    return [
        replace(t, prove=t.prove or options["prove"], family_wise=t.family_wise or options["family_wise"])
        for t in found
    ]
