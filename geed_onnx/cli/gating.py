"""`geed-onnx gate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geed_onnx.cli.limits import STDOUT, in_suite, limit_options, show_verdict, thresholds_of, write_verdict
from geed_onnx.cli.options import stacked
from geed_onnx.cli.output import CROSSED, SOME_FAILED, results_at, until_closed
from geed_onnx.errors import UsageError

if TYPE_CHECKING:
    from geed_onnx.gates import Threshold
    from geed_onnx.gates.threshold import InSuite
    from geed_onnx.results import Collection

F = TypeVar("F", bound=Callable[..., Any])


def gate_options(command: F) -> F:
    """Add the options that hold results against thresholds and write what came of it."""
    reports = stacked(
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
    )
    above = "The limit of a variant: a number, or +N% (worse than the baseline); beside those of the suite."
    return limit_options("[TAP@][calibrated:]V=X", above)(reports(command))


@click.command(
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
    write_verdict(verdict, options)
    with until_closed():
        show_verdict(verdict, as_json=options["as_json"], as_markdown=options["markdown"] == STDOUT)
    if verdict.crossed:
        sys.exit(CROSSED)
    if verdict.failed:
        sys.exit(SOME_FAILED)


def _resolved(suite: InSuite, found: Collection) -> str | None:
    """Return where the suite's baseline is: from the suite's root, else from here."""
    if suite.baseline is None or "://" in suite.baseline:
        return suite.baseline
    there = os.path.join(found.uri, suite.root or "", suite.baseline)
    return os.path.normpath(there) if os.path.exists(there) else suite.baseline


def _baseline(place: str | None, thresholds: Sequence[Threshold]) -> Collection | None:

    return results_at(place) if place is not None and any(t.relative for t in thresholds) else None
