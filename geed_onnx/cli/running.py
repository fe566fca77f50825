"""`geed-onnx run`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geed_onnx.cli.door import say, warn
from geed_onnx.cli.galleries import gallery_of
from geed_onnx.cli.limits import show_verdict, write_verdict
from geed_onnx.cli.options import stacked
from geed_onnx.cli.output import CROSSED, SOME_FAILED, progress_bar, results_at, show_results, until_closed, watching
from geed_onnx.errors import UsageError

if TYPE_CHECKING:
    from geed_onnx.batch import Engine, Ran, Watcher
    from geed_onnx.gates import Threshold, Verdict
    from geed_onnx.results import Collection, Result
    from geed_onnx.suites import Suite

F = TypeVar("F", bound=Callable[..., Any])
EXIT_CODES = (
    "Exit codes: 0 ok, 1 error, 2 usage, 3 a threshold was crossed, 4 no threshold was crossed but some cells failed."
)
#: More networks than this are not put side by side on a terminal; the page and --json have them all.
MOST_SHOWN = 40


def report_options(command: F) -> F:
    """Add the options that say what is written beside the folder of the run."""
    return stacked(
        [
            click.option(
                "--fail-above", multiple=True, metavar="V=X", help="A threshold beside the suite's; as gate takes it."
            ),
            click.option("--baseline", metavar="DIR|FILE.jsonl", help="What relative thresholds are held against."),
            click.option("--junit", metavar="FILE", type=click.Path(), help="Write the gate as JUnit XML."),
            click.option("--sarif", metavar="FILE", type=click.Path(), help="Write the gate as SARIF 2.1.0."),
            click.option("--markdown", metavar="FILE", type=click.Path(), help="Write the gate as markdown."),
            click.option("--page", metavar="FILE.html", type=click.Path(), help="Write the page, as report does."),
            click.option("--mlflow", metavar="URI", help="Log parameters, values and the page to an MLflow server."),
        ]
    )(command)


@click.command(short_help="Measure a suite: models × data × groups × variants; resumes.", epilog=EXIT_CODES)
@click.argument("suite", type=click.Path())
@click.option("-o", "--output", metavar="DIR", help="Folder of the run, or s3://….  [default: the suite's]")
@click.option("--root", metavar="DIR", help="What the suite's paths are relative to.  [default: its root, its folder]")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes.  [default: 1; one a device on GPUs]")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Who works.")
@click.option("--address", metavar="HOST:PORT", help="Of a Ray cluster; without it one is started here.")
@click.option("--dry-run", is_flag=True, help="Print cells, forward passes, an estimate of time; run nothing.")
@click.option("--quiet", is_flag=True, help="No progress bar: one line per cell on stderr.")
@click.option("--json", "as_json", is_flag=True, help="One Result a line on stdout, nothing else.")
@report_options
def run(suite: str, output: str | None, **options: Any) -> None:
    """Measure every cell of a suite (TOML or YAML) into a folder; what is there already is not measured again.

    \b
    geed-onnx run suite.toml -o runs/digits
    geed-onnx run suite.toml --dry-run
    geed-onnx run suites/digits.toml --root work -o work/results
    geed-onnx run suite.toml -o runs/digits --workers 4 --junit gate.xml --page digits.html
    """
    from geed_onnx.suites import load_suite

    asked = load_suite(suite, root=options["root"])
    folder = output or asked.output
    check_options(options, folder)
    if options["dry_run"]:
        dry_run(asked, folder, as_json=options["as_json"])
        return
    if folder is None:
        raise UsageError("where to? give a folder with -o DIR, or the suite an output")
    thresholds = thresholds_of(asked, options["fail_above"])
    baseline = baseline_of(asked, options["baseline"], thresholds)
    said = {"suite": suite, "output": output, **{k: v for k, v in options.items() if v not in (None, False, ())}}
    said.pop("mlflow", None)  # it may hold a password
    with watching(len(list(asked.jobs())), quiet=options["quiet"]) as watcher:
        from geed_onnx.batch import run_suite

        engine = engine_of(asked, options, watcher)
        ran = run_suite(asked, folder, engine=engine, watcher=watcher, arguments=said)
    with until_closed():
        show(ran.results, as_json=options["as_json"])
    say("run", summary(ran))
    found = results_at(folder)
    verdict = verdict_of(found, thresholds, baseline, options)
    reports(found, verdict, options)
    if verdict is not None and verdict.crossed:
        sys.exit(CROSSED)
    if ran.failed:
        sys.exit(SOME_FAILED)


def check_options(options: dict[str, Any], folder: str | None) -> None:
    """Refuse what does not go together, and files that cannot be written, before anything is measured.

    Reports may be asked for in the folder of the run, which need not be there yet.

    Raises
    ------
    UsageError
        For either.
    """
    from geed_onnx.results import writable

    if options["address"] is not None and options["engine"] != "ray":
        raise UsageError("--address names a Ray cluster: add --engine ray")
    if options["markdown"] == "-":
        raise UsageError("--markdown - would write among the tables on stdout: give it a file")
    if options["quiet"] and options["dry_run"]:
        raise UsageError("--quiet says one line per cell that is measured, and --dry-run measures none; leave one out")
    for name in ("junit", "sarif", "markdown", "page"):
        if options[name] is not None and (folder is None or not within(options[name], folder)):
            writable(options[name])


def within(file: str, folder: str) -> bool:
    """Say whether a file lies in a folder itself."""
    from pathlib import Path

    return Path(file).resolve().parent == Path(folder).resolve()


# --- who works, and what is said meanwhile ----------------------------------------------------------------------


def engine_of(asked: Suite, options: dict[str, Any], watcher: Watcher) -> Engine:
    """Return who does the tasks.

    Raises
    ------
    UsageError
        If Ray is asked for and not installed.
    """
    from geed_onnx.batch import Here, Processes

    if options["engine"] == "ray":
        from geed_onnx.batch.ray import RayEngine

        return RayEngine(address=options["address"], workers=options["workers"], notify=watcher.note)
    devices = _devices(asked)
    count = options["workers"] or max(1, len(devices))
    return Here() if count == 1 else Processes(count, watcher.note, devices)


def _devices(asked: Suite) -> tuple[str, ...]:
    """Return the CUDA devices that workers are given, one each; none where the CPU is asked for."""
    from geed_onnx.sessions import cuda_devices, resolve_provider

    if not resolve_provider(asked.runtime.provider).startswith("CUDA"):
        return ()
    import os

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(visible.split(",")) if visible else tuple(map(str, range(cuda_devices())))


# --- what is shown and written at the end -----------------------------------------------------------------------


def show(results: Sequence[Result], *, as_json: bool) -> None:
    """Print results to stdout: lines of JSON, or networks side by side, a table for each data set and group."""
    if as_json:
        show_results(results, as_json=True)
        return
    from geed_onnx.reports import clean, print_side_by_side

    tables: dict[tuple[str, str, int, int], dict[str, list[Result]]] = {}
    for r in results:
        if not r.failed:
            place = (str(r.data["uri"]), str(r.group["name"]), r.samples, r.seed)
            tables.setdefault(place, {}).setdefault(r.label, []).append(r)
    for (uri, group, samples, seed), networks in tables.items():
        click.echo(clean(f"{group} · {samples} images of {uri} (seed {seed})"))
        if len(networks) > MOST_SHOWN:
            click.echo(f"{len(networks)} networks: too many to stand side by side here; see the page")
        else:
            print_side_by_side(networks)
        click.echo()


def summary(ran: Ran) -> str:
    """Return what a run has come to, in one line."""
    failed = f", {len(ran.failed)} failed (see the reasons in results.jsonl)" if ran.failed else ""
    kept = f", {ran.kept} known from before" if ran.kept else ""
    return f"{len(ran.results)} cells in {ran.seconds:.1f} s: {ran.measured} measured{kept}{failed}; in {ran.folder}"


def thresholds_of(asked: Suite, texts: Sequence[str]) -> list[Threshold]:
    """Return the suite's thresholds and those of `--fail-above`."""
    from geed_onnx.gates import parse_threshold

    return [*asked.thresholds, *(parse_threshold(text, "--fail-above") for text in texts)]


def baseline_of(asked: Suite, given: str | None, thresholds: Sequence[Threshold]) -> Collection | None:
    """Return what relative thresholds are held against, opened before anything is measured.

    Raises
    ------
    UsageError
        If there is none and one is needed.
    DataError
        If it cannot be read.
    """
    if not any(t.relative for t in thresholds):
        return None
    place = given or asked.baseline
    if place is None:
        raise UsageError("a threshold is relative to a baseline: give one with --baseline, or in the suite")
    return results_at(place)


def verdict_of(
    found: Collection, thresholds: Sequence[Threshold], baseline: Collection | None, options: dict[str, Any]
) -> Verdict | None:
    """Hold the results against the thresholds, and show and write what comes of it; None where there are none."""
    from geed_onnx.gates import judge

    if not thresholds:
        return None
    verdict = judge(found.results, thresholds, baseline=baseline, current=found)
    write_verdict(verdict, options)
    if not options["as_json"]:
        with until_closed():
            show_verdict(verdict, as_json=False, as_markdown=False)
    else:
        from geed_onnx.reports.gate import headline

        say("gate", headline(verdict))
    return verdict


def reports(found: Collection, verdict: Verdict | None, options: dict[str, Any]) -> None:
    """Write the page, and log to MLflow, where that is asked for."""
    from pathlib import Path

    page = options["page"]
    if page is not None:
        from geed_onnx.reports.page import write_page

        sections, reasons = gallery_of([found], None)
        for reason in reasons:
            warn(reason)
        write_page(found, page, sections=sections, verdict=verdict)
        say("page", page)
    if options["mlflow"] is not None:
        from geed_onnx.reports.mlflow import hidden, log_to_mlflow

        file = Path(page) if page else None
        run_id = log_to_mlflow(found, options["mlflow"], page=file, verdict=verdict, notify=warn)
        say("mlflow", f"run {run_id} at {hidden(options['mlflow'])}")


# --- dry runs ---------------------------------------------------------------------------------------------------


def dry_run(asked: Suite, folder: str | None, *, as_json: bool) -> None:
    """Print every cell, the forward passes and the time that a run would take, from a trial on a few images."""
    from geed_onnx.batch import tasks_of
    from geed_onnx.batch.estimate import estimated
    from geed_onnx.batch.journal import known_keys
    from geed_onnx.reports import clean

    known = known_keys(folder) if folder is not None and "://" not in folder else frozenset[str]()
    with progress_bar("jobs") as bar:
        found = list(estimated(tasks_of(asked), known, bar))
    cells = passes = 0
    seconds = 0.0
    failed = 0
    for each in found:
        job = each.task.request
        settings, samples = job.settings, job.settings.samples or each.samples
        cells, passes, seconds = cells + len(each.cells), passes + each.passes, seconds + (each.seconds or 0.0)
        failed += each.reason is not None
        if as_json:
            click.echo(
                json.dumps(
                    {
                        "model": job.model.name,
                        "data": job.data.source,
                        "group": job.group,
                        "samples": samples,
                        "seed": settings.seed,
                        "settings": settings.unusual,
                        "cells": [{"tap": tap, "variant": variant} for tap, variant in each.cells],
                        "known": each.known,
                        "passes": each.passes,
                        "seconds": each.seconds,
                        "reason": each.reason,
                    },
                    ensure_ascii=False,
                )
            )
            continue
        how = ", ".join(f"{name} {value}" for name, value in {"seed": settings.seed, **settings.unusual}.items())
        place = f"{job.model.name} · {job.group} · {samples or 'the'} images of {job.data.source} ({how})"
        click.echo(clean(place))
        if each.reason is not None:
            click.echo(clean(f"  cannot be measured: {each.reason}"))
            continue
        for tap, variant in each.cells:
            click.echo(clean(f"  {tap} · {variant}"))
        what = "known from before" if each.known == len(each.cells) else f"{each.passes} forward passes"
        click.echo(f"  {len(each.cells)} cells, {what}, about {duration(each.seconds or 0.0)}")
    if not as_json:
        wrong = f"; {failed} job(s) cannot be measured" if failed else ""
        click.echo(f"{len(found)} jobs, {cells} cells, {passes} forward passes, about {duration(seconds)} here{wrong}")


def duration(seconds: float) -> str:
    """Return a span of time in the unit that suits it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
