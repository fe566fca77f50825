"""`geed-onnx compare`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from geed_onnx.cli.door import say, warn
from geed_onnx.cli.options import asked_options, one_of, request_from
from geed_onnx.cli.output import CROSSED, progress_bar, results_at, until_closed
from geed_onnx.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from geed_onnx.comparisons import Comparison, Comparisons, Model
    from geed_onnx.requests import Request

EXIT_CODES = "Exit codes: 0 ok, 1 error, 2 usage, 3 two were not shown equivalent (--within)."
#: What is said of rows that were not shown equivalent, before the rest is only counted.
MOST_LINES = 10


@click.command(
    short_help="Compare models or results on the same images: paired differences, equivalence.", epilog=EXIT_CODES
)
@click.argument("sources", metavar="A B …", nargs=-1, required=True, type=click.Path())
@click.option("--within", type=float, metavar="DELTA", help="Are they equivalent within ±DELTA? Exit with 3 if not.")
@click.option(
    "--on",
    callback=one_of("value", "calibrated"),
    default="value",
    show_default=True,
    metavar="value|calibrated",
    help="What is compared.",
)
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="P",
    help="Of intervals and verdicts.  [default: the results' own, 0.95]",
)
@click.option(
    "--align",
    callback=one_of("auto", "name", "module", "depth"),
    default="auto",
    show_default=True,
    metavar="auto|name|module|depth",
    help="How taps are brought together.",
)
@click.option("--tap", "taps", multiple=True, metavar="NAME[:KIND]", help="A tap's name, a module path or a glob.")
@click.option("--variant", "variants", multiple=True, metavar="V", help="Compare in this variant only.")
@click.option("--models", "globs", multiple=True, metavar="GLOB", help="Of a folder's models, those of these names.")
@click.option("--reference", metavar="NAME", help="Whom the others are compared with.  [default: the first]")
@click.option("--by-name", is_flag=True, help="Compare each model of A with that of its name in B: one run, another.")
@click.option("--families", is_flag=True, help="Models of one family (seeds) together, with intervals over models.")
@click.option(
    "--image-component",
    "images",
    is_flag=True,
    help="With --families: intervals cover other images too, by the tables of deviations.",
)
@click.option("--json", "as_json", is_flag=True, help="One comparison a line on stdout, nothing else.")
@click.option("-o", "--output", metavar="FILE.jsonl", type=click.Path(), help="Write the comparisons there too.")
@click.option("--data", metavar="SRC", help="For .onnx files: what they are measured on now, as for measure.")
@click.option("--group", metavar="G", help="For .onnx files: the group.")
@asked_options("measure", "input", "images", without=("taps", "variants", "level"))
@click.pass_context
def compare(ctx: click.Context, /, sources: tuple[str, ...], **options: Any) -> None:
    """Compare models on the same images: the difference A − B for every tap and variant, with its interval.

    Each of A, B, … is a run's folder, a file of results, or a model (.onnx), which is measured now with --data and
    --group. The first is the reference; every other one is compared with it.

    \b
    geed-onnx compare fp32.onnx int8.onnx --data photos/ --group C8 --within 0.02
    geed-onnx compare runs/last runs/this --by-name --json
    geed-onnx compare runs/digits --reference plain --on calibrated
    """
    from geed_onnx.comparisons import compare as compare_pairs
    from geed_onnx.comparisons import pairs_of, participants_of, picked, write_comparisons
    from geed_onnx.results import writable

    chosen = {k: options.pop(k) for k in ("within", "on", "align", "images")}
    output, as_json = options.pop("output"), options.pop("as_json")
    globs, reference, by_name, families = (options.pop(k) for k in ("globs", "reference", "by_name", "families"))
    taps, variants, level = options["taps"], options["variants"], options["level"]
    if chosen["images"] and not families:
        raise UsageError("--image-component is of intervals over models: add --families")
    check_request(ctx, sources, chosen["within"], level)
    if output is not None:
        writable(output, "comparisons")
    models = opened(sources, options)
    wanted = set(map(id, picked([m for source in models for m in source], globs)))
    groups = [some for source in models if (some := [m for m in source if id(m) in wanted])]
    pairs = pairs_of(
        [participants_of(some, families=families) for some in groups], reference=reference, by_name=by_name
    )
    found = compare_pairs(pairs, level=level, taps=taps, variants=variants, **chosen)
    for note in found.notes:
        warn(note)
    try:
        if output is not None:
            write_comparisons(output, found.rows)
    finally:
        with until_closed():
            show(found.rows, as_json=as_json)
    complain_of(found)


def check_request(ctx: click.Context, sources: Sequence[str], within: float | None, level: float | None) -> None:
    """Refuse what cannot be meant before anything is read or measured.

    Raises
    ------
    UsageError
        If δ is no positive number, models lack data or group, or options of measuring have nothing to measure.
    """
    from geed_onnx.estimators import check_margin

    if within is not None:
        check_margin(within, 0.95 if level is None else level)
    measured = [s for s in sources if is_model(s)]
    if measured:
        lacking = [f"--{name}" for name in ("data", "group") if ctx.params[name] is None]
        if lacking:
            raise UsageError(f"{measured[0]!r} is a model and is measured now: add {' and '.join(lacking)}")
        return
    own = {"sources", "within", "on", "level", "align", "taps", "variants", "globs", "reference", "by_name", "families"}
    own |= {"images", "as_json", "output"}
    given = [
        p.opts[0]
        for p in ctx.command.params
        if p.name not in own and ctx.get_parameter_source(str(p.name)) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(
            f"{', '.join(given)}: for models that are measured now, but none of {', '.join(sources)} is an .onnx file"
        )


def is_model(source: str) -> bool:
    """Say whether a source is a model to be measured now."""
    return source.lower().endswith(".onnx")


def opened(sources: Sequence[str], options: dict[str, Any]) -> list[tuple[Model, ...]]:
    """Return the models of every source; those that are files are measured, on the same images."""
    from geed_onnx.comparisons import models_of

    # results are read first: what is wrong with them shows before minutes of measuring
    read = {s: models_of(results_at(s)) for s in sources if not is_model(s)}
    if options["level"] is None:
        del options["level"]
    files = list(dict.fromkeys(s for s in sources if is_model(s)))
    taps = taps_by_model(files, options.pop("taps"), options["input"], others=bool(read))
    asked = {s: request_from(s, options["data"], options["group"], {**options, "taps": taps[s]}) for s in files}
    measured = {s: (measured_now(request),) for s, request in asked.items()}
    return [read[s] if s in read else measured[s] for s in sources]


def taps_by_model(
    models: Sequence[str], specs: Sequence[str], input: str | None, *, others: bool
) -> dict[str, list[str] | None]:
    """Return the taps that each model has of those asked for; two frameworks name theirs differently.

    Where they may be taps of results (`others`), a model that has none of them is measured at its default taps.

    Raises
    ------
    UnknownName
        If a tap is in none of the models.
    UsageError
        If a model has none of the taps.
    """
    if not specs:
        return dict.fromkeys(models)
    from geed_onnx.taps import read_graph, resolve_taps

    found: dict[str, list[str] | None] = {}
    unknown: dict[str, UnknownName] = {}
    for model in models:
        graph, here = read_graph(model), []
        for spec in specs:
            try:
                resolve_taps(graph, [spec], input=input)
            except UnknownName as error:
                unknown[spec] = error
            else:
                here.append(spec)
        if not here and not others:
            raise UsageError(f"{model}: {unknown[specs[0]]}")
        found[model] = here or None
    known = {spec for here in found.values() for spec in here or ()}
    for spec, refusal in unknown.items():
        if spec not in known and not others:
            raise refusal
    return found


def measured_now(request: Request) -> Model:
    """Measure one model, its tables kept in memory."""
    from geed_onnx.comparisons import model_of
    from geed_onnx.engine import measure_request

    model = str(request.model.path)
    with progress_bar() as bar:
        measured = measure_request(request, progress=bar, notify=lambda note: warn(f"{model}: {note}"))
    return model_of(model, [(m.result, m.tables) for m in measured])


def show(rows: Sequence[Comparison], *, as_json: bool) -> None:
    """Print comparisons to stdout: lines of JSON, or tables."""
    from geed_onnx.reports import print_comparisons

    if as_json:
        for row in rows:
            click.echo(row.to_json())
    else:
        print_comparisons(rows)


def complain_of(found: Comparisons) -> None:
    """Say on stderr what was not shown equivalent, and end with 3 if there is any."""
    from geed_onnx.reports.table import between, number

    rows = found.unproven
    for row in rows[:MOST_LINES]:
        d = row.judged
        what = "no difference" if d.difference is None else f"{number(d.difference)} {between(d.low, d.high)}".strip()
        why = f": {row.reason}" if row.reason else ""
        say(
            "crossed",
            f"{row.variant} of {row.tap_a['name']}, {row.a.name} − {row.b.name}: {what}, not shown to lie within"
            f" ±{row.within:g}{' (calibrated)' if row.wanted == 'calibrated' else ''}{why}",
        )
    if len(rows) > MOST_LINES:
        say("crossed", f"and {len(rows) - MOST_LINES} more")
    if rows:
        sys.exit(CROSSED)
