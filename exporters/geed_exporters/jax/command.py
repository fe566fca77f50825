"""`geed-export jax FILE.py:FACTORY -o FILE.onnx`."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Literal

import click

from geed_exporters.facts import Facts
from geed_exporters.jax.exporting import OPSETS, candidates, export_jax
from geed_exporters.jax.loading import load
from geed_exporters.options import DOOR, image_options, output_wanted, shared_options, show_candidates, show_written
from geed_exporters.writing import write


@click.command("jax", context_settings=DOOR)
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
@click.option(
    "--opset",
    type=click.IntRange(OPSETS[0], OPSETS[-1]),
    default=20,
    show_default=True,
    help="Version of ONNX's operators.",
)
@image_options
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
    image: Facts,
) -> None:
    """Export a Flax model (nnx or linen) that a Python file makes.

    The factory returns an nnx.Module, or (linen.Module, variables); a dict may follow, with facts of the images (size,
    channels, colour, range, mean, std, …) and of the model (blocks, latent, scores, …).

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
        loaded = load(model, checkpoint=checkpoint, facts=image)
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
