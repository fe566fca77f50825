"""`geed-export keras MODEL -o FILE.onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from geed_exporters.facts import Facts
from geed_exporters.options import DOOR, image_options, output_wanted, shared_options, show_candidates, show_written


@click.command("keras", context_settings=DOOR)
@click.argument("model", metavar="MODEL")
@shared_options
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), metavar="FILE", help="Weights: .weights.h5, .keras, .h5."
)
@click.option("--pretrained", is_flag=True, help="ImageNet's weights, from the application's own place.")
@click.option("--layout", type=click.Choice(["NHWC", "NCHW"]), default="NHWC", show_default=True, help="Of the file.")
@click.option(
    "--opset", type=click.IntRange(13, 18), default=18, show_default=True, help="Version of ONNX's operators."
)
@image_options
def command(
    model: str,
    output: str | None,
    taps: tuple[str, ...],
    listing: bool,
    check: bool,
    tolerance: float,
    checkpoint: Path | None,
    pretrained: bool,
    layout: Literal["NHWC", "NCHW"],
    opset: int,
    image: Facts,
) -> None:
    """Export a Keras 3 model: keras:NAME (keras.applications), FILE.py:FACTORY, or a saved FILE.keras.

    Taps are layers by name (block_1_add), inside a nested model by path (mobilenet/Conv1), and name#1 for the second
    call of one layer. A factory returns a model, or a model and a dict of facts (size, channels, mean, …).

    \b
    geed-export keras keras:MobileNetV2 --pretrained -o mobilenet.onnx
    geed-export keras net.py:build --size 64x64 --tap 'block_*' -o net.onnx
    geed-export keras net.keras --layout NCHW -o net.onnx
    """
    from geed_exporters.keras import candidates, export_keras, frameworks, load
    from geed_exporters.writing import write

    if not listing:
        output_wanted(output)
    frameworks.tensorflow(cpu=True)
    # random weights are the same every time, so that a file can be made again
    frameworks.keras().utils.set_random_seed(0)
    loaded = load(model, checkpoint=checkpoint, pretrained=pretrained, facts=image)
    if listing:
        show_candidates(candidates(loaded))
        return
    if loaded.weights == "random":
        click.echo(f"{loaded.name}: random weights (--pretrained or --checkpoint gives others)", err=True)
    export = export_keras(loaded, taps=taps, layout=layout, opset=opset)
    show_written(write(export, output_wanted(output), check=check, tolerance=tolerance))
