"""`geed-onnx demo`: the shipped suite, networks from every framework, run and told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geed_onnx.cli.door import say
from geed_onnx.cli.output import show_results, watching
from geed_onnx.ending import put_away, temporary_folder
from geed_onnx.errors import ActionError, DataError

if TYPE_CHECKING:
    from geed_onnx.results import Result
    from geed_onnx.suites import Suite

#: Names in the suite that the story speaks of.
TRAINED, UNTRAINED, INT8 = "PyTorch CNN", "PyTorch CNN, untrained", "PyTorch CNN, int8"
COPIED, KERAS, FLAX = "PyTorch weights in Keras", "Keras CNN", "Flax CNN"
C8, NAIVE = "escnn C8-CNN", "escnn C8-CNN, read naively"

Readings = Mapping[str, Sequence["Result"]]


def shipped_suite() -> Path:
    """Return the demo's suite: inside the installed package, or in the checkout it runs from.

    Raises
    ------
    DataError
        If neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package, package.parent / "models"):
        if (folder / "demo.toml").is_file() and (folder / "shipped").is_dir():
            return folder / "demo.toml"
    raise DataError("the shipped models are not in this installation; install the wheel, or run from a checkout")


@click.command(short_help="Measure the shipped models, from every framework, on the shipped images.")
@click.option("--group", default="C8", show_default=True, metavar="G", help="As measure takes it.")
@click.option(
    "--samples", type=click.IntRange(2, 300), metavar="N", default=50, show_default=True, help="Images drawn."
)
@click.option("-o", "--output", metavar="DIR", help="Folder of the run; kept, and taken up again.  [default: none]")
@click.option("--full", is_flag=True, help="Every row of every network, with intervals and reference levels.")
@click.option("--json", "as_json", is_flag=True, help="One Result a line on stdout, nothing else.")
def demo(group: str, samples: int, output: str | None, full: bool, as_json: bool) -> None:
    """Run the shipped suite of digit networks and say what the numbers tell.

    One architecture trained in PyTorch, Keras and Flax, the PyTorch weights copied into Keras and quantised to int8,
    an untrained twin, an MLP, and a network that is equivariant by construction, read with and without the channel
    action that it declares.

    \b
    geed-onnx demo
    geed-onnx demo -o runs/demo
    """
    from geed_onnx.batch import run_suite
    from geed_onnx.groups import parse_group
    from geed_onnx.reports import print_side_by_side
    from geed_onnx.suites import load_suite

    parse_group(group)
    asked = suite_of(load_suite(shipped_suite()), group, samples)
    folder = output or str(temporary_folder())
    try:
        with watching(len(asked.models), quiet=False) as watcher:
            ran = run_suite(asked, folder, watcher=watcher, arguments={"group": group, "samples": samples})
    finally:
        if output is None:
            put_away(Path(folder))
    found: dict[str, list[Result]] = {}
    for result in ran.results:
        found.setdefault(result.label, []).append(result)
    for name in found if full or as_json else (TRAINED, UNTRAINED):
        # one by one: the same file read in two ways is two tables
        show_results(found[name], as_json=as_json)
    if not as_json:
        click.echo()
        print_side_by_side(found)
        click.echo("\n" + story(found))
        if output is not None:
            say("run", f"{output}; its page: geed-onnx report {output} -o page.html")


def suite_of(shipped: Suite, group: str, samples: int) -> Suite:
    """Return the shipped suite for a group and sample; its thresholds are for its own."""
    # fields of C8 tell how the parts of C8 move them, and nothing of a flip
    models = tuple(m for m in shipped.models if m.name != C8 or _within(group, "C8"))
    asked = replace(shipped, models=models, groups=(group,), samples=(samples,))
    return asked if asked == shipped else replace(asked, thresholds=())


def _within(group: str, larger: str) -> bool:
    """Say whether fields of the larger group tell how `group` moves them: C8's do not for a flip."""
    from geed_onnx.actions.fields import embedding
    from geed_onnx.groups import parse_group

    part = parse_group(group)
    try:
        embedding(part, parse_group(larger))
    except ActionError:
        return False
    return True


def story(found: Readings) -> str:
    """Return what the tables say, from the numbers in them."""
    return "\n".join([*_raw_and_calibrated(found), *_frameworks(found), *_by_construction(found)])


def _raw_and_calibrated(found: Readings) -> Iterable[str]:
    def pick(name: str, variant: str) -> Result:
        return [r for r in found[name] if r.variant == variant][-1]

    trained, twin = pick(TRAINED, "channelwise"), pick(UNTRAINED, "channelwise")
    soft, soft_twin, latent = pick(TRAINED, "softmax"), pick(UNTRAINED, "softmax"), pick(TRAINED, "latent-l2")
    if trained.value is None or twin.value is None:
        yield "The last map has no value here; see the reasons above."
        return
    more = "more" if twin.value < trained.value else "less"
    yield (
        f"How to read it: {trained.tap['name']} reads {_said(trained.value)} trained and {_said(twin.value)}"
        f" untrained (−1 is equivariant), so raw the untrained network looks {more} equivariant."
    )
    yield (
        f"But unrelated images already score {_said(twin.null)} there (its null), {_said(trained.null)} in the"
        f" trained one: calibrated they read {_said(twin.calibrated)} and {_said(trained.calibrated)} (0: as"
        " equivariant as the grid allows, 1: no better than unrelated images)."
    )
    yield (
        f"Down the trained network invariance arises at the end: {_said(trained.calibrated)} in the last map,"
        f" {_said(latent.calibrated)} in the latent, {_said(soft.calibrated)} at the scores."
    )
    if soft_twin.calibrated is None:
        yield (
            f"The untrained scores differ by {_said(soft_twin.value)} nats, the smallest of all, and so do those of"
            f" unrelated images ({_said(soft_twin.null)}): insensitive, not invariant, so no calibrated value is given."
        )
    else:
        yield (
            f"The untrained scores differ by {_said(soft_twin.value)} nats, the smallest of all, but so do those of"
            f" unrelated images ({_said(soft_twin.null)}): calibrated they read {_said(soft_twin.calibrated)}."
        )


def _frameworks(found: Readings) -> Iterable[str]:
    yield (
        f"One architecture and recipe in three frameworks: calibrated values of PyTorch and Keras are at most"
        f" {_said(_apart(found, TRAINED, KERAS, calibrated=True))} apart, of PyTorch and Flax"
        f" {_said(_apart(found, TRAINED, FLAX, calibrated=True))}. The PyTorch weights in Keras differ from PyTorch by"
        f" {_said(_apart(found, TRAINED, COPIED))} in any value; int8 moves a value by up to"
        f" {_said(_apart(found, TRAINED, INT8))}."
    )


def _by_construction(found: Readings) -> Iterable[str]:
    def quarter_turns(name: str) -> list[float]:
        maps = [r for r in found[name] if r.variant == "channelwise" and r.per_element]
        order = len(maps[0].per_element or ()) if maps else 1
        exact = [g for g in range(1, order) if 4 * g % order == 0]
        return [r.per_element[g] for r in maps for g in exact if r.per_element]

    if C8 in found and quarter_turns(C8):
        yield (
            f"The C8-CNN is equivariant by construction: at quarter turns no map reads worse than"
            f" {max(quarter_turns(C8)):.4f} where pixels and channels move as it declares; where only pixels do"
            f" (--no-declared-action), one reads {max(quarter_turns(NAIVE)):.4f}."
        )


def _apart(found: Readings, one: str, other: str, *, calibrated: bool = False) -> float | None:
    """Return the largest difference of any (tap, variant) that both networks have."""
    there = {(r.tap["name"], r.variant): r for r in found[other]}
    gaps = []
    for r in found[one]:
        s = there.get((r.tap["name"], r.variant))
        a, b = (None, None) if s is None else (r.calibrated, s.calibrated) if calibrated else (r.value, s.value)
        if a is not None and b is not None:
            gaps.append(abs(a - b))
    return max(gaps, default=None)


def _said(x: float | None) -> str:
    return "none" if x is None else f"{x:.3g}"
