"""`geed-export escnn MODEL -o FILE.onnx`."""

from __future__ import annotations

from pathlib import Path

import click

from geed_exporters.facts import Facts
from geed_exporters.options import DOOR, image_options, output_wanted, shared_options, show_candidates, show_written
from geed_exporters.writing import write


@click.command("escnn", context_settings=DOOR)
@click.argument("model")
@shared_options
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights from a file: the network's state_dict, .safetensors or written by torch.save (weights only).",
)
@click.option(
    "--opset", type=click.IntRange(18, 25), default=20, show_default=True, help="Version of ONNX's operators."
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
    opset: int,
    image: Facts,
) -> None:
    """Export a steerable network of escnn: escnn:c8-cnn (the paper's), escnn:c8-cnn-small, or FILE.py:FACTORY.

    Each tap that is a field of escnn declares how its channels move. A factory is a function without arguments that
    returns a module of escnn, a torch.nn.Module made of such, or (module, {"size": (29, 29), ...}).

    \b
    geed-export escnn escnn:c8-cnn -o c8-cnn.onnx
    geed-export escnn net.py:build --size 29x29 --tap 'block*' -o net.onnx
    """
    from geed_exporters.escnn import candidates, export_escnn, load

    path = None if listing else output_wanted(output)
    loaded = load(model, checkpoint=checkpoint, facts=image)
    if loaded.weights == "random":
        click.echo("weights: random; --checkpoint FILE reads trained ones", err=True)
    if path is None:
        show_candidates(candidates(loaded))
        return
    export = export_escnn(loaded, taps=taps, opset=opset)
    for note in export.source.notes:
        click.echo(f"note: {note}", err=True)
    show_written(write(export, path, check=check, tolerance=tolerance))
