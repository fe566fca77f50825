"""The options that say what values may be, and what is done with the verdict; shared by several commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geed_onnx.cli.door import warn
from geed_onnx.cli.options import stacked
from geed_onnx.errors import UsageError

if TYPE_CHECKING:
    from geed_onnx.gates import Threshold, Verdict
    from geed_onnx.gates.threshold import InSuite
    from geed_onnx.results import Collection

F = TypeVar("F", bound=Callable[..., Any])

STDOUT = "-"


def limit_options(metavar: str, above: str) -> Callable[[F], F]:
    """Add --fail-above (with this metavar and help), --fail-below, --prove and --family-wise."""

    return stacked(
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
    )


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


# --- the gate ---------------------------------------------------------------------------------------------------


def thresholds_of(options: Mapping[str, Any], suite: Sequence[Threshold] = ()) -> list[Threshold]:
    """Return the suite's thresholds and those that are given; reports that cannot be written are refused now.

    Raises
    ------
    UsageError
        If a threshold is malformed, two things would go to one place, or a file cannot be written.
    """
    from geed_onnx.results import writable

    if options["markdown"] == STDOUT and options["as_json"]:
        raise UsageError("--json and --markdown - both write to stdout; give one of them a file or leave it out")
    files = [options[k] for k in ("junit", "sarif", "markdown") if options[k] not in (None, STDOUT)]
    places = [os.path.realpath(f) for f in files]
    for file, place in zip(files, places, strict=True):
        if places.count(place) > 1 and place != os.path.realpath(os.devnull):
            raise UsageError(f"{file!r} is given for two reports; each needs a file of its own")
        writable(file)
    return limits_given(options, suite)


def in_suite(found: Collection) -> InSuite:
    """Return what the run's suite says of the gate.

    Of the suite only that is read (no `load_suite`): its models and images need not be on this machine.
    """
    from geed_onnx.gates import suite_thresholds
    from geed_onnx.results import SUITE

    return suite_thresholds(found.suite or "", os.path.join(found.uri, SUITE))


def write_verdict(verdict: Verdict, options: Mapping[str, Any]) -> None:
    """Write the reports that were asked for."""
    from geed_onnx.reports import write_junit, write_markdown, write_sarif

    for name, writer in (("junit", write_junit), ("sarif", write_sarif), ("markdown", write_markdown)):
        if options[name] not in (None, STDOUT):
            writer(verdict, options[name])


def show_verdict(verdict: Verdict, *, as_json: bool, as_markdown: bool) -> None:
    """Print the verdict to stdout: lines of JSON, markdown, or the summary."""
    from geed_onnx.reports import markdown, print_gate

    if as_json:
        for one in verdict.judged:
            click.echo(one.to_json())
        for result in verdict.failed:
            warn(f"no threshold is for a failed cell of {result.label}, {result.group['name']}: {result.reason}")
    elif as_markdown:
        click.echo(markdown(verdict), nl=False)
    else:
        print_gate(verdict)
