"""`geed-onnx measure`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from geed_onnx.cli.door import say, warn
from geed_onnx.cli.limits import limit_options, limits_given
from geed_onnx.cli.options import asked_options, request_from
from geed_onnx.cli.output import CROSSED, progress_bar, show_results, until_closed
from geed_onnx.errors import UsageError

if TYPE_CHECKING:
    from geed_onnx.engine import Measured
    from geed_onnx.gates import Threshold, Verdict

EXIT_CODES = "Exit codes: 0 ok, 1 error, 2 usage, 3 a threshold was crossed."


@click.command(short_help="Measure a model's taps: every variant, with interval, floor and null.", epilog=EXIT_CODES)
@click.argument("model", type=click.Path())
@click.option(
    "--data", required=True, metavar="SRC", help="FILE.npz|npy|parquet|arrow|csv, a folder, or hf:NAME[:SPLIT]."
)
@click.option("--group", required=True, metavar="G", help="C8, D4, flip, T4, … (geed-onnx list groups).")
@asked_options("measure")
@limit_options("V=X", "Exit with 3 if a value of variant V lies above X, its whole interval considered.")
@click.option("--json", "as_json", is_flag=True, help="One Result a line on stdout, nothing else.")
@click.option("-o", "--output", metavar="FILE.jsonl", type=click.Path(), help="Write the Results there too.")
@click.option("--tables", "with_tables", is_flag=True, help="With -o: deviations and jackknife beside it, in Parquet.")
@asked_options("input", "images")
def measure(model: str, data: str, group: str, **options: Any) -> None:
    """Measure every G-EED variant of a model's taps, from one set of forward passes.

    \b
    geed-onnx measure model.onnx --data photos/ --group C8
    geed-onnx measure model.onnx --data test.npz --group D4 --samples all --tap 'layer*' --tap logits:probability
    geed-onnx measure model.onnx --data x.parquet --group flip --fail-above softmax=0.01 --json -o results.jsonl
    """
    from geed_onnx.engine import measure_request
    from geed_onnx.results import writable, write_results

    output, as_json, with_tables = options["output"], options["as_json"], options["with_tables"]
    if with_tables and output is None:
        raise UsageError("--tables writes them beside the results: add -o FILE.jsonl")
    limits = limits_of(options, options["variants"])
    if output is not None:
        writable(output, "results")
    request = request_from(model, data, group, options)
    with progress_bar() as bar:
        measured = measure_request(request, progress=bar, notify=warn)
    results = [m.result for m in measured]
    try:
        if output is not None:
            if with_tables:
                tables_beside(output, measured)
            write_results(output, results)
    finally:
        # a full disk takes the file, not what was measured
        with until_closed():
            show_results(results, as_json=as_json)
    verdict = judged(measured, limits)
    for one in verdict.judged:
        if one.outcome != "holds":
            say("crossed" if one.crossed else "undecided", one.message)
    if verdict.crossed:
        sys.exit(CROSSED)


def tables_beside(output: str, measured: Sequence[Measured]) -> None:
    """Write ``STEM.deviations.parquet`` and ``STEM.jackknife.parquet`` beside a file of results."""
    from pathlib import Path

    from geed_onnx.results import DEVIATIONS, JACKKNIFE, write_tables

    path = Path(output)
    files = (path.with_name(f"{path.stem}.{name}") for name in (DEVIATIONS, JACKKNIFE))
    write_tables([(m.result, m.tables) for m in measured], *files)


def limits_of(options: Mapping[str, Any], chosen: Sequence[str]) -> list[Threshold]:
    """Return the thresholds that are given, as `geed_onnx.gates.parse_threshold` reads them.

    Raises
    ------
    UsageError
        If a limit is malformed, given twice, relative, or for a variant that is not among those `chosen`; or if there
        is none to prove or to correct.
    """
    flags = [f"--{name.replace('_', '-')}" for name in ("prove", "family_wise") if options[name]]
    if not options["fail_above"] and not options["fail_below"]:
        if flags:
            raise UsageError(f"{' and '.join(flags)}: there is no limit to hold a value against; add --fail-above V=X")
        return []
    from geed_onnx.variants import PAPER, parse_variant

    measured = [parse_variant(name).name for name in chosen or PAPER]
    limits: dict[tuple[str, bool], Threshold] = {}
    for limit, text in zip(limits_given(options), (*options["fail_above"], *options["fail_below"]), strict=True):
        option = f"--fail-{'below' if limit.below else 'above'} {text!r}"
        if limit.relative:
            raise UsageError(
                f"{option}: a limit relative to a baseline is held by geed-onnx gate, with --baseline; measure takes a"
                " number"
            )
        if (limit.subject, limit.below) in limits:
            raise UsageError(f"{option}: {limit.subject} has a limit already; give one")
        if limit.variant not in measured:
            raise UsageError(
                f"{option}: that variant is not measured ({', '.join(measured)} are); add --variant {limit.variant}"
            )
        limits[limit.subject, limit.below] = limit
    return list(limits.values())


def judged(measured: Sequence[Measured], limits: Sequence[Threshold]) -> Verdict:
    """Hold what was measured against its limits, whole intervals considered (`geed_onnx.gates.judge`).

    Raises
    ------
    UsageError
        If no tap was measured in a variant that has a limit, or none of the name that a limit is for.
    """
    from geed_onnx.comparisons import model_of
    from geed_onnx.gates import judge
    from geed_onnx.variants import parse_variant

    results = [m.result for m in measured]
    for limit in limits:
        if not any(r.variant == limit.variant for r in results):
            kind = parse_variant(limit.variant).kind
            raise UsageError(
                f"--fail-{'below' if limit.below else 'above'} {limit.text}: none of the taps is a {kind}, so nothing"
                f" was held against it; name one with --tap NAME:{kind}"
            )
    return judge(results, limits, current=model_of("", [(m.result, m.tables) for m in measured]))
