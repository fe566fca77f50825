"""`geed-export sklearn MODEL -o FILE.onnx`."""

from __future__ import annotations

import re
from typing import Literal

import click

from geed_exporters.options import output_wanted, shared_options, show_candidates, show_written
from geed_exporters.sklearn.image import Image
from geed_onnx.errors import UsageError


@click.command("sklearn", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", metavar="MODEL")
@click.option("--size", metavar="HxW", help="The features are the pixels of an image of this size: make it the input.")
@click.option("--channels", type=click.IntRange(1), default=1, show_default=True, help="Of the image.")
@click.option(
    "--layout",
    type=click.Choice(["NCHW", "NHWC"]),
    default="NCHW",
    show_default=True,
    help="Order in which the image was flattened: NHWC for (H, W, C) arrays.",
)
@click.option("--colour", type=click.Choice(["grey", "rgb", "bgr"]), help="[default: grey for one channel]")
@click.option("--range", "span", type=float, nargs=2, metavar="BLACK WHITE", help="Pixel values the model expects.")
@click.option("--opset", type=int, default=20, show_default=True, metavar="N", help="ONNX opset, 15 to 22.")
@click.option("--trust", is_flag=True, help="Read a pickle (.joblib, .pkl): it can run any code.")
@shared_options
def command(
    model: str,
    size: str | None,
    channels: int,
    layout: Literal["NCHW", "NHWC"],
    colour: Literal["grey", "rgb", "bgr"] | None,
    span: tuple[float, float] | None,
    opset: int,
    trust: bool,
    output: str | None,
    taps: tuple[str, ...],
    listing: bool,
    check: bool,
    tolerance: float,
) -> None:
    """Export a fitted scikit-learn model: FILE.py:FACTORY, FILE.skops, or, with --trust, FILE.joblib or FILE.pkl.

    \b
    geed-export sklearn digits.skops --size 8x8 --range 0 16 -o digits.onnx
    geed-export sklearn net.py:build --tap 'mlp.*' -o net.onnx
    """
    from geed_exporters.sklearn.exporting import candidates, export_sklearn
    from geed_exporters.sklearn.loading import load
    from geed_exporters.writing import write

    image = _image(size, channels, layout, colour, span)
    target = None if listing else output_wanted(output)
    loaded = load(model, trust=trust)
    if target is None:
        show_candidates(candidates(loaded.model))
        return
    export = export_sklearn(loaded.model, image=image, taps=taps, opset=opset, name=loaded.name, weights=loaded.weights)
    show_written(write(export, target, check=check, tolerance=tolerance))


def _image(
    size: str | None,
    channels: int,
    layout: Literal["NCHW", "NHWC"],
    colour: Literal["grey", "rgb", "bgr"] | None,
    span: tuple[float, float] | None,
) -> Image | None:
    """Return the image that the options describe, or None where no size is given."""
    if size is None:
        if channels != 1 or colour or span:
            raise UsageError("--channels, --colour and --range describe an image: give its --size HxW too")
        return None
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)
    if not found:
        raise UsageError(f"--size {size!r}: expected height and width in pixels, like 28x28")
    if span is not None and not span[0] < span[1]:
        raise UsageError(f"--range {span[0]:g} {span[1]:g}: expected black below white, like 0 255")
    return Image(int(found[1]), int(found[2]), channels, layout, colour, span)
