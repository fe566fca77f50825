"""`geed-export jax FILE.py:FACTORY -o FILE.onnx`."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import Any, Literal

import click

from geed_exporters.jax.exporting import OPSETS, candidates, export_jax
from geed_exporters.jax.facts import CHANNELS
from geed_exporters.jax.loading import load
from geed_exporters.options import output_wanted, shared_options, show_candidates, show_written
from geed_exporters.writing import write


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Return numbers with commas between them."""
    try:
        return None if value is None else tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r}: expected numbers with commas between them, such as 0.5,0.5,0.5", ctx, param
        ) from None


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Return (height, width)."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", value)
    if not found:
        raise click.BadParameter(f"{value!r}: expected HxW, such as 224x224", ctx, param)
    return int(found[1]), int(found[2] or found[1])


@click.command("jax")
@click.argument("model", metavar="FILE.py:FACTORY")
@shared_options
@click.option("--checkpoint", metavar="FILE", help="Weights: .safetensors, .msgpack, .npz or an Orbax folder.")
@click.option(
    "--layout",
    type=click.Choice(["NHWC", "NCHW"]),
    default="NHWC",
    show_default=True,
    help="Of the file's input and maps: as Flax has them, or transposed.",
)
@click.option("--opset", type=click.IntRange(OPSETS[0], OPSETS[-1]), default=20, show_default=True)
@click.option("--size", callback=_size, metavar="HxW", help="Of the input image.")
@click.option("--channels", type=click.IntRange(1), help="Of the input image.")
@click.option("--colour", type=click.Choice(sorted(CHANNELS)), help="Order of the input's channels.")
@click.option("--range", "span", callback=_numbers, metavar="LO,HI", help="What black and white become, before mean.")
@click.option("--mean", callback=_numbers, metavar="X,…", help="Subtracted, one a channel.")
@click.option("--std", callback=_numbers, metavar="X,…", help="Divided by, one a channel.")
def command(
    model: str,
    output: str | None,
    taps: tuple[str, ...],
    listing: bool,
    check: bool,
    tolerance: float,
    checkpoint: str | None,
    layout: Literal["NHWC", "NCHW"],
    opset: int,
    span: tuple[float, ...] | None,
    **flags: Any,
) -> None:
    """Export a Flax model (nnx or linen) that a Python file makes.

    The factory returns an nnx.Module, or (linen.Module, variables); a dict may follow, with size, channels, colour,
    range, mean, std, and with blocks (globs), latent and scores (module paths).

    \b
    geed-export jax net.py:build --list
    geed-export jax net.py:build --checkpoint net.msgpack -o net.onnx --tap 'blocks.*'
    """
    if not listing:
        output = output_wanted(output)
    # one CPU computes a reference that does not change from machine to machine, and no GPU memory is taken
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # the user's file may print; stdout is for the path alone
    with contextlib.redirect_stdout(sys.stderr):
        loaded = load(model, checkpoint=checkpoint, range=span, **flags)
        if checkpoint is None:
            factory = model.rpartition(":")[2]
            click.echo(f"weights are those that {factory}() makes (random, unless it loads some);", err=True, nl=False)
            click.echo(" --checkpoint FILE loads others", err=True)
        found = candidates(loaded) if listing else ()
        export = None if listing else export_jax(loaded, taps=taps, layout=layout, opset=opset)
    if export is None:
        show_candidates(found)
        return
    with contextlib.redirect_stdout(sys.stderr):
        written = write(export, str(output), check=check, tolerance=tolerance)
    show_written(written)
