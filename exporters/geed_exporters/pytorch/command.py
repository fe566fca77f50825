"""`geed-export pytorch MODEL -o FILE.onnx`."""

from __future__ import annotations

from pathlib import Path

import click

from geed_exporters.facts import Facts
from geed_exporters.options import DOOR, image_options, output_wanted, shared_options, show_candidates, show_written
from geed_exporters.writing import write


@click.command("pytorch", context_settings=DOOR)
@click.argument("model")
@shared_options
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights from a file: .safetensors, or written by torch.save (weights only).",
)
@click.option("--pretrained", is_flag=True, help="Fetch weights from the model's usual place; random ones otherwise.")
@click.option(
    "--classes",
    type=click.IntRange(2),
    metavar="N",
    help="Classes of the weights in --checkpoint, where they are not the model's usual ones (timm:, paper:).",
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
    pretrained: bool,
    classes: int | None,
    opset: int,
    image: Facts,
) -> None:
    """Export a model of PyTorch: timm:NAME, paper:NAME, or FILE.py:FACTORY.

    A factory is a function without arguments that returns a torch.nn.Module, or (module, {"size": (64, 64), ...}).

    \b
    geed-export pytorch timm:resnet50 --pretrained -o resnet50.onnx
    geed-export pytorch timm:vit_tiny_patch16_224 --list
    geed-export pytorch net.py:build --size 64x64 --tap 'stage*' -o net.onnx
    """
    from geed_exporters.pytorch import candidates, export_pytorch, load

    path = None if listing else output_wanted(output)
    loaded = load(model, checkpoint=checkpoint, pretrained=pretrained, classes=classes, facts=image)
    if loaded.weights == "random":
        click.echo("weights: random; --pretrained fetches trained ones, --checkpoint FILE reads them", err=True)
    for note in loaded.notes:
        click.echo(f"note: {note}", err=True)
    if path is None:
        show_candidates(candidates(loaded))
        return
    show_written(write(export_pytorch(loaded, taps=taps, opset=opset), path, check=check, tolerance=tolerance))
