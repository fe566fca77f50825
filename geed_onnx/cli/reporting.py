"""`geed-onnx report`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from geed_onnx.cli.door import say, warn
from geed_onnx.cli.galleries import gallery_of, seen_from
from geed_onnx.cli.limits import in_suite
from geed_onnx.cli.output import results_at
from geed_onnx.errors import GeedError

if TYPE_CHECKING:
    from geed_onnx.gates import Threshold, Verdict
    from geed_onnx.results import Collection


@click.command(short_help="One self-contained page of a run: charts, images, tables, provenance.")
@click.argument("results", nargs=-1, required=True, type=click.Path(), metavar="DIR|FILE.jsonl…")
@click.option("-o", "--output", required=True, metavar="PAGE.html", type=click.Path(), help="Write the page there.")
@click.option("--figures", metavar="DIR", type=click.Path(), help="Write static PNG and SVG figures there too.")
@click.option("--means", metavar="FILE.jsonl", type=click.Path(), help="Write means over families there, one a line.")
@click.option("--no-gallery", is_flag=True, help="Leave out images and feature maps, which run the models again.")
@click.option("--tap", metavar="NAME", help="The map whose channels the gallery shows.  [default: the last]")
@click.option("--title", metavar="TEXT", help="Of the page.  [default: the suite's]")
@click.option(
    "--fail-above",
    multiple=True,
    metavar="[TAP@][calibrated:]V=X",
    help="A limit to judge on the page, beside those of the suite; the exit code stays 0 (see gate).",
)
@click.option("--baseline", metavar="DIR|FILE.jsonl", type=click.Path(), help="What relative limits are held against.")
def report(results: Sequence[str], output: str, figures: str | None, means: str | None, no_gallery: bool,
           tap: str | None, title: str | None, fail_above: Sequence[str], baseline: str | None) -> None:  # fmt: skip
    """Write the results of runs or files as one HTML page that opens from disk and asks for nothing.

    \b
    geed-onnx report runs/digits -o page.html
    geed-onnx report fp32.jsonl int8.jsonl -o page.html --title 'int8 beside fp32'
    geed-onnx report runs/digits -o page.html --figures figures/ --means means.jsonl
    """
    from geed_onnx.gates import parse_threshold
    from geed_onnx.reports import figures as drawing
    from geed_onnx.reports.means import family_means, write_means
    from geed_onnx.reports.page import page_target, write_page
    from geed_onnx.results import writable

    page_target(output)
    if means is not None:
        writable(means, "the means")
    if figures is not None:
        drawing.figures_target(figures)
    given = [parse_threshold(text, "--fail-above") for text in fail_above]
    found = [results_at(path) for path in results]
    verdict, unjudged = judged(found, given, baseline)
    sections, reasons = ((), ()) if no_gallery else gallery_of(found, tap)
    for reason in [*([f"the thresholds could not be judged: {unjudged}"] if unjudged else []), *reasons]:
        warn(reason)
    whole = together(found)
    write_page(whole, output, sections=sections, verdict=verdict, unjudged=unjudged, title=title)
    say("page", f"{output} ({os.path.getsize(output) / 1e6:.1f} MB)")
    if means is not None:
        write_means(means, family_means(whole.results))
        say("means", means)
    if figures is not None:
        for path in drawing.write_figures(whole, figures):
            say("figure", path)


def together(found: Sequence[Collection]) -> Collection:
    """Return several runs or files as one, each result as it was."""
    from geed_onnx.results import Collection

    if len(found) == 1:
        return found[0]
    return Collection(
        ", ".join(c.uri for c in found),
        tuple(r for c in found for r in c.results),
        run={c.uri: c.run for c in found if c.run},
        suite="\n".join(f"# {c.uri}\n{c.suite}" for c in found if c.suite) or None,
    )


def judged(
    found: Sequence[Collection], given: Sequence[Threshold], baseline: str | None
) -> tuple[Verdict | None, str | None]:
    """Hold each run against its own suite's thresholds, and all of them against the given ones.

    Returns the verdict, and why there is none: a suite whose thresholds cannot be judged here keeps no page from being
    written, but it is said on it.  What is wrong with the given ones is an error.
    """
    from geed_onnx.gates import Verdict, judge

    base = results_at(baseline) if baseline is not None else None
    verdicts = []
    reason = None
    for one in found:
        try:
            suite = in_suite(one)
            if not suite.thresholds:
                continue
            place = seen_from(one, suite.root, suite.baseline)
            relative = any(t.relative for t in suite.thresholds)
            against = base or (results_at(place) if relative and place is not None else None)
            verdicts.append(judge(one.results, suite.thresholds, baseline=against, current=one))
        except GeedError as error:
            reason = reason or str(error)
    if given:
        whole = together(found)
        verdicts.append(judge(whole.results, given, baseline=base, current=found[0] if len(found) == 1 else None))
    if not verdicts:
        return None, reason
    baselines = {v.baseline for v in verdicts if v.baseline}
    parts = tuple(j for v in verdicts for j in v.judged), tuple(r for v in verdicts for r in v.failed)
    return Verdict(*parts, ", ".join(sorted(baselines)) or None), reason
