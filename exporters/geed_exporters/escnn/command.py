"""`geed-export escnn MODEL -o FILE.onnx`."""

from __future__ import annotations

from pathlib import Path

import click

from geed_exporters.options import output_wanted, shared_options, show_candidates, show_written
from geed_exporters.pytorch.command import numbers, parsed_size, recorded
from geed_exporters.writing import write


@click.command("escnn", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights from a file: the network's state_dict, .safetensors or written by torch.save (weights only).",
)
@click.option(
    "--opset", type=click.IntRange(18, 25), default=20, show_default=True, help="Version of ONNX's operators."
)
@click.option("--size", metavar="HxW", help="Size of the images, 29x29 or 29, over what a factory says.")
@click.option("--channels", type=click.IntRange(1), metavar="N", help="Channels of the images.")
@click.option("--mean", metavar="X[,X,X]", help="To record: subtracted from an image after --range.")
@click.option("--std", metavar="X[,X,X]", help="To record: divided by after --mean.")
@click.option("--range", "range_", metavar="LO,HI", help="To record: what black and white become, before mean and std.")
@click.option("--colour", type=click.Choice(["grey", "rgb", "bgr"]), help="To record: the order of the channels.")
@shared_options
def command(
    model: str,
    checkpoint: Path | None,
    opset: int,
    size: str | None,
    channels: int | None,
    mean: str | None,
    std: str | None,
    range_: str | None,
    colour: str | None,
    output: str | None,
    taps: tuple[str, ...],
    listing: bool,
    check: bool,
    tolerance: float,
) -> None:
    """Export a steerable network of escnn: escnn:c8-cnn (the paper's), escnn:c8-cnn-small, or FILE.py:FACTORY.

    \b
    geed-export escnn escnn:c8-cnn -o c8-cnn.onnx
    geed-export escnn net.py:build --size 29x29 --tap 'block*' -o net.onnx

    Each tap that is a field of escnn declares how its channels move. A factory is a function without arguments that
    returns a module of escnn, a torch.nn.Module made of such, or (module, {"size": (29, 29), ...}).
    """
    from geed_exporters.escnn import candidates, export_escnn, load

    path = None if listing else output_wanted(output)
    loaded = load(model, checkpoint=checkpoint, size=parsed_size(size), channels=channels)
    loaded = recorded(
        loaded,
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        range=numbers("--range", range_),
        colour=colour,
    )
    if loaded.weights == "random":
        click.echo("weights: random; --checkpoint FILE reads trained ones", err=True)
    if path is None:
        show_candidates(candidates(loaded))
        return
    export = export_escnn(loaded, taps=taps, opset=opset)
    for note in export.source.notes:
        click.echo(f"note: {note}", err=True)
    show_written(write(export, path, check=check, tolerance=tolerance))
