"""`geed-onnx measure`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from geed_onnx.cli.door import complain, say, stop_talking, warn
from geed_onnx.cli.limits import limit_options, limits_given
from geed_onnx.cli.main import (
    EXIT_CODES,
    constants_of,
    image_options,
    input_options,
    main,
    one_of,
    pairs,
    samples_of,
)
from geed_onnx.errors import UsageError

if TYPE_CHECKING:
    from geed_onnx.engine import Measured
    from geed_onnx.engine.plan import Progress
    from geed_onnx.gates import Threshold, Verdict
    from geed_onnx.results import Result

CROSSED = 3


@main.command(short_help="Measure a model's taps: every variant, with interval, floor and null.", epilog=EXIT_CODES)
@click.argument("model", type=click.Path())
@click.option(
    "--data", required=True, metavar="SRC", help="FILE.npz|npy|parquet|arrow|csv, a folder, or hf:NAME[:SPLIT]."
)
@click.option("--group", required=True, metavar="G", help="C8, D4, flip, T4, … (geed-onnx list groups).")
@click.option("--tap", "taps", multiple=True, metavar="NAME[:KIND]", help="A tensor, a module path or a glob.")
@click.option("--variant", "variants", multiple=True, metavar="V", help="A name, or KIND:ACTION:DISTANCE[:NORMALISER].")
@click.option(
    "--samples",
    callback=samples_of,
    metavar="N|all",
    help="Images drawn with the seed, or all; copies of one count once.  [default: 50, or as many as there are]",
)
@click.option(
    "--spread-samples", type=click.IntRange(2), metavar="N", help="Images for the spread M.  [default: up to 200]"
)
@click.option(
    "--seed", type=click.IntRange(0), metavar="S", default=0, show_default=True, help="Of the draw of images."
)
@click.option(
    "--act",
    "acts",
    multiple=True,
    metavar="TAP=ACTION",
    help="What the group does to a tap: trivial, pixels, permute:AXIS:i,j,…, roll:AXIS:STEPS.",
)
@click.option("--no-declared-action", is_flag=True, help="Measure naively where the file declares channel actions.")
@click.option(
    "--scores",
    "scores",
    multiple=True,
    metavar="TAP=logits|probabilities",
    help="What a tap's scores are, over what the graph shows.",
)
@click.option("--floor", is_flag=True, help="Measure the floor of invariance variants, by extra passes.")
@click.option(
    "--reference-samples",
    type=click.IntRange(0),
    metavar="N",
    help="Images for floor and null.  [default: all of the sample]",
)
@click.option(
    "--mask",
    callback=one_of("auto", "disc", "none"),
    metavar="auto|disc|none",
    default="auto",
    show_default=True,
    help="Zero outside the inscribed disc; auto: where a turn resamples.",
)
@click.option(
    "--interpolation",
    callback=one_of("nearest", "bilinear", "bicubic"),
    metavar="nearest|bilinear|bicubic",
    default="bilinear",
    show_default=True,
    help="How turns by no multiple of 90° resample, input and maps alike.",
)
@click.option(
    "--cluster",
    metavar="COLUMN",
    help="Names each image's cluster (patient, scene), the unit of intervals: a column, an array, or folder.",
)
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Rows of one forward pass.  [default: fitting]")
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="P",
    default=0.95,
    show_default=True,
    help="Of the intervals.",
)
@limit_options("V=X", "Exit with 3 if a value of variant V lies above X, its whole interval considered.")
@click.option("--json", "as_json", is_flag=True, help="One Result a line on stdout, nothing else.")
@click.option("-o", "--output", metavar="FILE.jsonl", type=click.Path(), help="Write the Results there too.")
@click.option("--tables", "with_tables", is_flag=True, help="With -o: deviations and jackknife beside it, in Parquet.")
@input_options
@image_options
def measure(model: str, data: str, group: str, **options: Any) -> None:
    """Measure every G-EED variant of a model's taps, from one set of forward passes.

    \b
    geed-onnx measure model.onnx --data photos/ --group C8
    geed-onnx measure model.onnx --data test.npz --group D4 --samples all --tap 'layer*' --tap logits:probability
    geed-onnx measure model.onnx --data x.parquet --group flip --fail-above softmax=0.01 --json -o results.jsonl
    """
    from geed_onnx.results import writable, write_results

    output, as_json, with_tables = options.pop("output"), options.pop("as_json"), options.pop("with_tables")
    if with_tables and output is None:
        raise UsageError("--tables writes them beside the results: add -o FILE.jsonl")
    limits = limits_of(options, options["variants"])
    if output is not None:
        writable(output, "results")
    arguments = measure_arguments(options)
    with progress_bar() as bar:
        measured = measured_tables(model, data, group, arguments, bar, warn)
    results = [m.result for m in measured]
    try:
        if output is not None:
            if with_tables:
                tables_beside(output, measured)
            write_results(output, results)
    finally:
        # a full disk takes the file, not what was measured
        with until_closed():
            show(results, as_json=as_json)
    verdict = judged(measured, limits)
    for one in verdict.judged:
        if one.outcome != "holds":
            say("crossed" if one.crossed else "undecided", one.message)
    if verdict.crossed:
        sys.exit(CROSSED)


def measured_tables(
    model: str,
    data: str,
    group: str,
    arguments: dict[str, Any],
    progress: Progress | None,
    notify: Callable[[str], None],
) -> list[Measured]:
    """Return what `engine.measure` would of these arguments, with the tables that the results are made of."""
    from geed_onnx.engine import Settings, make_plan, measure_plan
    from geed_onnx.sessions import RuntimeOptions

    a = arguments
    plan = make_plan(
        model,
        data,
        group,
        taps=a["taps"],
        variants=a["variants"],
        acts=a["actions"],
        declared=a["declared_action"],
        settings=Settings(**{f: a[f] for f in SETTINGS}),
        input=a["input"],
        layout=a["layout"],
        preprocessing=a["preprocessing"],
        runtime=RuntimeOptions(a["provider"], a["threads"], a["tf32"], layout=a["layout"], constants=a["constants"]),
        column=a["column"],
        skip_bad=a["skip_bad"],
        streaming=a["streaming"],
        scores=a["scores"],
    )
    return measure_plan(plan, progress=progress, notify=notify)


def tables_beside(output: str, measured: Sequence[Measured]) -> None:
    """Write ``STEM.deviations.parquet`` and ``STEM.jackknife.parquet`` beside a file of results."""
    from pathlib import Path

    from geed_onnx.results import DEVIATIONS, JACKKNIFE, write_tables

    path = Path(output)
    files = (path.with_name(f"{path.stem}.{name}") for name in (DEVIATIONS, JACKKNIFE))
    write_tables([(m.result, m.tables) for m in measured], *files)


#: Arguments that make up the engine's settings.
SETTINGS = (
    "samples",
    "spread_samples",
    "reference_samples",
    "seed",
    "level",
    "floor",
    "mask",
    "interpolation",
    "batch_size",
    "cluster",
)


def measure_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return `engine.measure`'s arguments from the command's options."""
    flags = {k: options.pop(k) for k in ("size", "fit", "resize", "colour", "mean", "std", "resample")}
    return {
        "taps": list(options["taps"]) or None,
        "variants": list(options["variants"]) or None,
        "actions": pairs(options["acts"], "--act", "TAP=ACTION"),
        "scores": pairs(options["scores"], "--scores", "TAP=logits|probabilities"),
        "declared_action": not options["no_declared_action"],
        "samples": options["samples"],
        "spread_samples": options["spread_samples"],
        "reference_samples": options["reference_samples"],
        "seed": options["seed"],
        "level": options["level"],
        "floor": options["floor"],
        "mask": options["mask"],
        "interpolation": options["interpolation"],
        "batch_size": options["batch_size"],
        "cluster": options["cluster"],
        "provider": options["provider"],
        "threads": options["threads"],
        "tf32": options["tf32"],
        "input": options["input_name"],
        "layout": options["layout"],
        "constants": constants_of(options["constants"]),
        "preprocessing": {**flags, "range": options["value_range"]},
        "column": options["column"],
        "skip_bad": options["skip_bad"],
        "streaming": options["streaming"],
    }


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


def show(results: Sequence[Result], *, as_json: bool) -> None:
    """Print results to stdout: lines of JSON, or the table."""
    from geed_onnx.reports import print_results

    if as_json:
        for result in results:
            click.echo(result.to_json())
    else:
        print_results(results)


@contextmanager
def until_closed() -> Iterator[None]:
    """Go on where the reader of stdout went away: thresholds are still held against the results."""
    try:
        yield
    except BrokenPipeError:
        stop_talking()


@contextmanager
def progress_bar(what: str = "forward passes") -> Iterator[Progress | None]:
    """Yield a progress callback that draws on stderr, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("passes", total=None)
        last = 0.0

        def update(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > 0.1 or done == total:
                last = time.monotonic()
                bar.update(task, completed=done, total=total)

        yield update


__all__ = ["complain", "judged", "measure", "progress_bar", "show"]
