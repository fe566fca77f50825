"""`geed-onnx gate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geed_onnx.cli.door import warn
from geed_onnx.cli.limits import limit_options, limits_given
from geed_onnx.cli.main import main, results_at
from geed_onnx.cli.measuring import CROSSED, until_closed
from geed_onnx.errors import UsageError

if TYPE_CHECKING:
    from geed_onnx.gates import Threshold, Verdict
    from geed_onnx.gates.threshold import InSuite
    from geed_onnx.results import Collection

F = TypeVar("F", bound=Callable[..., Any])
SOME_FAILED = 4
STDOUT = "-"


def gate_options(command: F) -> F:
    """Add the options that hold results against thresholds and write what came of it."""
    for option in reversed(
        [
            click.option(
                "--baseline",
                metavar="DIR|FILE.jsonl",
                type=click.Path(),
                help="Results that relative limits are held against.  [default: the suite's]",
            ),
            click.option("--junit", metavar="FILE", type=click.Path(), help="Write JUnit XML there."),
            click.option("--sarif", metavar="FILE", type=click.Path(), help="Write SARIF 2.1.0 there."),
            click.option(
                "--markdown",
                metavar="FILE",
                type=click.Path(allow_dash=True),
                help="Write a markdown summary there; - is stdout.",
            ),
        ]
    ):
        command = option(command)
    above = "The limit of a variant: a number, or +N% (worse than the baseline); beside those of the suite."
    return limit_options("[TAP@][calibrated:]V=X", above)(command)


@main.command(
    short_help="Hold results against thresholds: exit code 3, JUnit, SARIF, markdown.",
    epilog="Exit codes: 0 all hold, 1 error, 2 usage, 3 a threshold was crossed (a failed cell crosses those that it"
    " is for), 4 none was, but some cells failed that no threshold is for.",
)
@click.argument("results", type=click.Path(), metavar="DIR|FILE.jsonl")
@gate_options
@click.option("--json", "as_json", is_flag=True, help="What was judged, one object a line, in place of the summary.")
def gate(results: str, **options: Any) -> None:
    """Hold the results of a run or a file against thresholds.

    A threshold is crossed where the lower end of the interval lies above it, so that noise does not flip a release, and
    where there is no value to show that it holds. Where the interval holds the limit it is undecided, which closes the
    gate with --prove.

    \b
    geed-onnx gate runs/digits
    geed-onnx gate results.jsonl --fail-above softmax=0.05 --fail-above 'block*@calibrated:channelwise=0.9'
    geed-onnx gate runs/digits --fail-above softmax=0.05 --fail-below left@calibrated:latent-l2=0.2 --prove
    geed-onnx gate runs/new --baseline runs/old --fail-above softmax=+2% --junit gate.xml --markdown gate.md
    """
    from geed_onnx.gates import judge

    thresholds_of(options)
    found = results_at(results)
    suite = in_suite(found)
    thresholds = thresholds_of(options, suite.thresholds)
    if not thresholds:
        raise UsageError(
            f"nothing to hold {found.uri!r} against: give --fail-above or --fail-below VARIANT=NUMBER, or"
            " [[thresholds]] in the suite"
        )
    baseline = _baseline(options["baseline"] or _resolved(suite, found), thresholds)
    verdict = judge(found.results, thresholds, baseline=baseline, current=found)
    write(verdict, options)
    with until_closed():
        show(verdict, as_json=options["as_json"], as_markdown=options["markdown"] == STDOUT)
    if verdict.crossed:
        sys.exit(CROSSED)
    if verdict.failed:
        sys.exit(SOME_FAILED)


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


def _resolved(suite: InSuite, found: Collection) -> str | None:
    """Return where the suite's baseline is: from the suite's root, else from here."""
    if suite.baseline is None or "://" in suite.baseline:
        return suite.baseline
    there = os.path.join(found.uri, suite.root or "", suite.baseline)
    return os.path.normpath(there) if os.path.exists(there) else suite.baseline


def _baseline(place: str | None, thresholds: Sequence[Threshold]) -> Collection | None:

    return results_at(place) if place is not None and any(t.relative for t in thresholds) else None


def write(verdict: Verdict, options: Mapping[str, Any]) -> None:
    """Write the reports that were asked for."""
    from geed_onnx.reports import write_junit, write_markdown, write_sarif

    for name, writer in (("junit", write_junit), ("sarif", write_sarif), ("markdown", write_markdown)):
        if options[name] not in (None, STDOUT):
            writer(verdict, options[name])


def show(verdict: Verdict, *, as_json: bool, as_markdown: bool) -> None:
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


__all__ = ["gate", "gate_options", "in_suite", "show", "thresholds_of", "write"]
