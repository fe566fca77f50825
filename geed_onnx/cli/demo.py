"""`geed-onnx demo`: the shipped models measured on the shipped images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geed_onnx.cli.door import warn
from geed_onnx.cli.main import main
from geed_onnx.cli.measuring import progress_bar, show
from geed_onnx.errors import DataError

if TYPE_CHECKING:
    from geed_onnx.results import Result

TRAINED, UNTRAINED, IMAGES = "digits-cnn.onnx", "digits-cnn-untrained.onnx", "digits-test.parquet"


def shipped_folder() -> Path:
    """Return the folder of the shipped models: inside the installed package, or in the checkout it runs from.

    Raises
    ------
    DataError
        If neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "shipped", package.parent / "models" / "shipped"):
        if (folder / TRAINED).is_file():
            return folder
    raise DataError("the shipped models are not in this installation; install the wheel, or run from a checkout")


@main.command(short_help="Measure the shipped models on the shipped images.")
@click.option("--group", default="C8", show_default=True, metavar="G", help="As measure takes it.")
@click.option(
    "--samples", type=click.IntRange(2, 300), metavar="N", default=50, show_default=True, help="Images drawn."
)
@click.option("--json", "as_json", is_flag=True, help="One Result a line on stdout, nothing else.")
def demo(group: str, samples: int, as_json: bool) -> None:
    """Measure the shipped digits network and its untrained twin, and say what the numbers tell.

    \b
    geed-onnx demo
    """
    from geed_onnx.engine import measure

    folder = shipped_folder()
    folder = Path(min(str(folder), os.path.relpath(folder), key=len))
    results: list[Result] = []
    for name in (TRAINED, UNTRAINED):
        with progress_bar() as bar:
            results += measure(folder / name, folder / IMAGES, group, samples=samples, progress=bar, notify=warn)
    show(results, as_json=as_json)
    if not as_json:
        click.echo("\n" + story(results))


def story(results: list[Result]) -> str:
    """Return what the table says about raw and calibrated values, from the numbers in it."""

    def pick(file: str, variant: str) -> Result:
        return [r for r in results if str(r.model["path"]).endswith(file) and r.variant == variant][-1]

    def said(x: float | None) -> str:
        return "none" if x is None else f"{x:.3g}"

    trained, twin = pick(f"/{TRAINED}", "channelwise"), pick(f"/{UNTRAINED}", "channelwise")
    soft, soft_twin = pick(f"/{TRAINED}", "softmax"), pick(f"/{UNTRAINED}", "softmax")
    latent = pick(f"/{TRAINED}", "latent-l2")
    if trained.value is None or twin.value is None:
        return "The last map has no value here; see the reasons above."
    more = "more" if twin.value < trained.value else "less"
    return "\n".join(
        [
            f"How to read it: {trained.tap['name']} reads {said(trained.value)} trained and {said(twin.value)}"
            f" untrained (−1 is equivariant), so raw the untrained network looks {more} equivariant.",
            f"But unrelated images already score {said(twin.null)} there (its null), {said(trained.null)} in the"
            f" trained one: calibrated they read {said(twin.calibrated)} and {said(trained.calibrated)} (0: as"
            " equivariant as the grid allows, 1: no better than unrelated images).",
            f"Down the trained network invariance arises at the end: {said(trained.calibrated)} in the last map,"
            f" {said(latent.calibrated)} in the latent, {said(soft.calibrated)} at the scores.",
            f"The untrained scores differ by {said(soft_twin.value)} nats, the smallest of all, and so do those of"
            f" unrelated images ({said(soft_twin.null)}): insensitive, not invariant, so no calibrated value is given.",
        ]
    )
