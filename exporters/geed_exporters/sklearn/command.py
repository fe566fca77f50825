"""`geed-export sklearn MODEL -o FILE.onnx`."""

from __future__ import annotations

from typing import Literal

import click

from geed_exporters.facts import Facts
from geed_exporters.options import DOOR, image_options, output_wanted, shared_options, show_candidates, show_written
from geed_exporters.sklearn.image import image_of


@click.command("sklearn", context_settings=DOOR)
@click.argument("model", metavar="MODEL")
@shared_options
@click.option("--trust", is_flag=True, help="Read a pickle (.joblib, .pkl): it can run any code.")
@click.option(
    "--layout",
    type=click.Choice(["NCHW", "NHWC"]),
    default="NCHW",
    show_default=True,
    help="Order in which the image was flattened: NHWC for (H, W, C) arrays.",
)
@click.option("--opset", type=int, default=20, show_default=True, metavar="N", help="ONNX opset, 15 to 22.")
@image_options
def command(
    model: str,
    output: str | None,
    taps: tuple[str, ...],
    listing: bool,
    check: bool,
    tolerance: float,
    trust: bool,
    layout: Literal["NCHW", "NHWC"],
    opset: int,
    image: Facts,
) -> None:
    """Export a fitted scikit-learn model: FILE.py:FACTORY, FILE.skops, or, with --trust, FILE.joblib or FILE.pkl.

    With --size the features are the pixels of an image of that size, which becomes the input; without, the input is a
    plain vector. One channel, unless --channels or --colour says otherwise.

    \b
    geed-export sklearn digits.skops --size 8x8 --range 0,16 -o digits.onnx
    geed-export sklearn net.py:build --tap 'mlp.*' -o net.onnx
    """
    from geed_exporters.sklearn.exporting import candidates, export_sklearn
    from geed_exporters.sklearn.loading import load
    from geed_exporters.writing import write

    pixels = image_of(image, layout)
    target = None if listing else output_wanted(output)
    loaded = load(model, trust=trust)
    if target is None:
        show_candidates(candidates(loaded.model))
        return
    export = export_sklearn(
        loaded.model, image=pixels, taps=taps, opset=opset, name=loaded.name, weights=loaded.weights
    )
    show_written(write(export, target, check=check, tolerance=tolerance))
