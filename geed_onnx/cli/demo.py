"""`geed-onnx demo`: the shipped models, from every framework, measured on the shipped images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geed_onnx.cli.door import warn
from geed_onnx.cli.main import main
from geed_onnx.cli.measuring import progress_bar, show
from geed_onnx.errors import ActionError, DataError

if TYPE_CHECKING:
    from geed_onnx.results import Result

IMAGES = "digits-test.parquet"


@dataclass(frozen=True)
class Shipped:
    """One row of the demo: a file, and whether the channel actions that it declares are used."""

    file: str
    title: str
    declared: bool = True


TRAINED = Shipped("digits-cnn.onnx", "PyTorch CNN")
UNTRAINED = Shipped("digits-cnn-untrained.onnx", "PyTorch CNN, untrained")
INT8 = Shipped("digits-cnn-int8.onnx", "PyTorch CNN, int8")
COPIED = Shipped("digits-cnn-keras-copied.onnx", "PyTorch weights in Keras")
KERAS = Shipped("digits-cnn-keras.onnx", "Keras CNN")
FLAX = Shipped("digits-cnn-flax.onnx", "Flax CNN")
MLP = Shipped("digits-mlp.onnx", "scikit-learn MLP")
C8 = Shipped("digits-c8cnn.onnx", "escnn C8-CNN")
NAIVE = Shipped("digits-c8cnn.onnx", "escnn C8-CNN, read naively", declared=False)
ROWS = (TRAINED, UNTRAINED, INT8, COPIED, KERAS, FLAX, MLP, C8, NAIVE)

Readings = Mapping[Shipped, Sequence["Result"]]


def shipped_folder() -> Path:
    """Return the folder of the shipped models: inside the installed package, or in the checkout it runs from.

    Raises
    ------
    DataError
        If neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "shipped", package.parent / "models" / "shipped"):
        if (folder / TRAINED.file).is_file():
            return folder
    raise DataError("the shipped models are not in this installation; install the wheel, or run from a checkout")


@main.command(short_help="Measure the shipped models, from every framework, on the shipped images.")
@click.option("--group", default="C8", show_default=True, metavar="G", help="As measure takes it.")
@click.option(
    "--samples", type=click.IntRange(2, 300), metavar="N", default=50, show_default=True, help="Images drawn."
)
@click.option("--full", is_flag=True, help="Every row of every network, with intervals and reference levels.")
@click.option("--json", "as_json", is_flag=True, help="One Result a line on stdout, nothing else.")
def demo(group: str, samples: int, full: bool, as_json: bool) -> None:
    """Measure the shipped digit networks on the same images and say what the numbers tell.

    One architecture trained in PyTorch, Keras and Flax, the PyTorch weights copied into Keras and quantised to int8,
    an untrained twin, an MLP, and a network that is equivariant by construction, read with and without the channel
    action that it declares.

    \b
    geed-onnx demo
    """
    from geed_onnx.engine import measure
    from geed_onnx.reports import print_side_by_side

    rows = [row for row in ROWS if row is not C8 or _within(group, "C8")]
    folder = shipped_folder()
    folder = Path(min(str(folder), os.path.relpath(folder), key=len))
    found: dict[Shipped, list[Result]] = {}
    for row in rows:
        with progress_bar() as bar:
            found[row] = measure(
                folder / row.file,
                folder / IMAGES,
                group,
                samples=samples,
                declared_action=row.declared,
                progress=bar,
                notify=warn,
            )
    detailed = rows if full or as_json else [TRAINED, UNTRAINED]
    for row in detailed:
        # one by one: the same file read in two ways is two tables
        show(found[row], as_json=as_json)
    if not as_json:
        click.echo()
        print_side_by_side({row.title: found[row] for row in rows})
        click.echo("\n" + story(found))


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
    def pick(row: Shipped, variant: str) -> Result:
        return [r for r in found[row] if r.variant == variant][-1]

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
    yield (
        f"The untrained scores differ by {_said(soft_twin.value)} nats, the smallest of all, and so do those of"
        f" unrelated images ({_said(soft_twin.null)}): insensitive, not invariant, so no calibrated value is given."
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
    def quarter_turns(row: Shipped) -> list[float]:
        maps = [r for r in found[row] if r.variant == "channelwise" and r.per_element]
        order = len(maps[0].per_element or ()) if maps else 1
        exact = [g for g in range(1, order) if 4 * g % order == 0]
        return [r.per_element[g] for r in maps for g in exact if r.per_element]

    if C8 in found and quarter_turns(C8):
        yield (
            f"The C8-CNN is equivariant by construction: at quarter turns no map reads worse than"
            f" {max(quarter_turns(C8)):.4f} where pixels and channels move as it declares; where only pixels do"
            f" (--no-declared-action), one reads {max(quarter_turns(NAIVE)):.4f}."
        )


def _apart(found: Readings, one: Shipped, other: Shipped, *, calibrated: bool = False) -> float | None:
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
