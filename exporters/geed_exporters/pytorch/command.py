"""`geed-export pytorch MODEL -o FILE.onnx`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geed_exporters.options import output_wanted, shared_options, show_candidates, show_written
from geed_exporters.writing import write
from geed_onnx.errors import UsageError

if TYPE_CHECKING:
    from geed_exporters.pytorch.loading import Loaded


@click.command("pytorch", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights from a file: .safetensors, or written by torch.save (weights only).",
)
@click.option("--pretrained", is_flag=True, help="Fetch weights from the model's usual place; random ones otherwise.")
@click.option(
    "--opset", type=click.IntRange(18, 25), default=20, show_default=True, help="Version of ONNX's operators."
)
@click.option("--size", metavar="HxW", help="Size of the images, 224x224 or 224, over what the model says.")
@click.option("--channels", type=click.IntRange(1), metavar="N", help="Channels of the images.")
@click.option("--mean", metavar="X[,X,X]", help="To record: subtracted from an image after --range.")
@click.option("--std", metavar="X[,X,X]", help="To record: divided by after --mean.")
@click.option("--range", "range_", metavar="LO,HI", help="To record: what black and white become, before mean and std.")
@click.option("--colour", type=click.Choice(["grey", "rgb", "bgr"]), help="To record: the order of the channels.")
@shared_options
def command(
    model: str,
    checkpoint: Path | None,
    pretrained: bool,
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
    """Export a model of PyTorch: timm:NAME, paper:NAME, or FILE.py:FACTORY.

    \b
    geed-export pytorch timm:resnet50 --pretrained -o resnet50.onnx
    geed-export pytorch timm:vit_tiny_patch16_224 --list
    geed-export pytorch net.py:build --size 64x64 --tap 'stage*' -o net.onnx

    A factory is a function without arguments that returns a torch.nn.Module, or (module, {"size": (64, 64), ...}).
    """
    from geed_exporters.pytorch import candidates, export_pytorch, load

    path = None if listing else output_wanted(output)
    loaded = load(model, checkpoint=checkpoint, pretrained=pretrained, size=parsed_size(size), channels=channels)
    loaded = recorded(
        loaded,
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        range=numbers("--range", range_),
        colour=colour,
    )
    if loaded.weights == "random":
        click.echo("weights: random; --pretrained fetches trained ones, --checkpoint FILE reads them", err=True)
    for note in loaded.notes:
        click.echo(f"note: {note}", err=True)
    if path is None:
        show_candidates(candidates(loaded))
        return
    show_written(write(export_pytorch(loaded, taps=taps, opset=opset), path, check=check, tolerance=tolerance))


def parsed_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of `224x224` or `224`.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise UsageError(f"--size {text}: expected HxW in pixels, as 224x224, or one number for a square")
    return int(parts[0]), int(parts[-1])


def numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    """Return the numbers of `0.5,0.5,0.5`.

    Raises
    ------
    UsageError
        If they are none.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} {text}: expected numbers with commas between, as 0.5,0.5,0.5") from None


def recorded(loaded: Loaded, **given: Any) -> Loaded:
    """Return the model with what flags say of its input over what is known; flags that are None say nothing.

    Raises
    ------
    UsageError
        If they do not fit the input's channels.
    """
    said = {key: value for key, value in given.items() if value is not None}
    channels = loaded.input.shape[0]
    for key in ("mean", "std"):
        if len(said.get(key, ())) not in (0, 1, channels):
            raise UsageError(f"--{key}: expected 1 number or {channels}, one a channel; got {len(said[key])}")
    if any(v == 0 for v in said.get("std", ())):
        raise UsageError("--std: 0 cannot be divided by")
    if len(said.get("range", (0, 1))) != 2:
        raise UsageError("--range: expected two numbers, what black and white become, as 0,255")
    if (said.get("colour") in ("rgb", "bgr") and channels != 3) or (said.get("colour") == "grey" and channels != 1):
        raise UsageError(f"--colour {said['colour']}: the input has {channels} channel{'s' if channels != 1 else ''}")
    return replace(loaded, input=replace(loaded.input, **said)) if said else loaded
