"""`geed-export FRAMEWORK MODEL -o FILE.onnx`: one command a framework, the same options everywhere.

A command imports its framework when it runs: none is needed to read the help.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import click

from geed_exporters.export import Export, Layout
from geed_exporters.facts import Facts
from geed_exporters.options import DOOR, Job, checkpoint_option, exporter, layout_option, opset_option
from geed_onnx.cli.door import Door


class Frameworks(Door):
    """The frameworks in the order in which they are told of, not that of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return list(self.commands)


@click.group(cls=Frameworks, context_settings=DOOR)
@click.version_option(package_name="geed-onnx", prog_name="geed-export")
def main() -> None:
    """Export a model to ONNX with its intermediate tensors as named outputs.

    \b
    geed-export pytorch timm:resnet50 -o resnet50.onnx
    geed-export keras keras:MobileNetV2 -o mobilenet.onnx --tap 'block_*_add'
    geed-onnx measure resnet50.onnx --data images/ --group flip
    """


@exporter(
    "pytorch",
    checkpoint_option("Weights from a file: .safetensors, or written by torch.save (weights only)."),
    click.Option(
        ["--pretrained"], is_flag=True, help="Fetch weights from the model's usual place; random ones otherwise."
    ),
    click.Option(
        ["--classes"],
        type=click.IntRange(2),
        metavar="N",
        help="Classes of the weights in --checkpoint, where they are not the model's usual ones (timm:, paper:).",
    ),
    opset_option(18, 25, default=20),
)
def pytorch(model: str, image: Facts, **weights: Any) -> Job:
    """Export a model of PyTorch: timm:NAME, paper:NAME, or FILE.py:FACTORY.

    A factory is a function without arguments that returns a torch.nn.Module, or (module, {"size": (64, 64), ...}).

    \b
    geed-export pytorch timm:resnet50 --pretrained -o resnet50.onnx
    geed-export pytorch timm:vit_tiny_patch16_224 --list
    geed-export pytorch net.py:build --size 64x64 --tap 'stage*' -o net.onnx
    """
    from geed_exporters.pytorch import candidates, export_pytorch, load

    loaded = load(model, facts=image, **weights)
    if loaded.weights == "random":
        click.echo("weights: random; --pretrained fetches trained ones, --checkpoint FILE reads them", err=True)
    for note in loaded.notes:
        click.echo(f"note: {note}", err=True)
    return Job(partial(candidates, loaded), partial(export_pytorch, loaded))


@exporter(
    "keras",
    checkpoint_option("Weights: .weights.h5, .keras, .h5."),
    click.Option(["--pretrained"], is_flag=True, help="ImageNet's weights, from the application's own place."),
    layout_option("NHWC", "NCHW", text="Of the file."),
    opset_option(13, 18, default=18),
)
def keras(model: str, image: Facts, checkpoint: Path | None, pretrained: bool, layout: Layout) -> Job:
    """Export a Keras 3 model: keras:NAME (keras.applications), FILE.py:FACTORY, or a saved FILE.keras.

    Taps are layers by name (block_1_add), inside a nested model by path (mobilenet/Conv1), and name#1 for the second
    call of one layer. A factory returns a model, or a model and a dict of facts (size, channels, mean, …).

    \b
    geed-export keras keras:MobileNetV2 --pretrained -o mobilenet.onnx
    geed-export keras net.py:build --size 64x64 --tap 'block_*' -o net.onnx
    geed-export keras net.keras --layout NCHW -o net.onnx
    """
    from geed_exporters.keras import candidates, export_keras, frameworks, load

    frameworks.tensorflow(cpu=True)
    # random weights are the same every time, so that a file can be made again
    frameworks.keras().utils.set_random_seed(0)
    loaded = load(model, checkpoint=checkpoint, pretrained=pretrained, facts=image)

    def export(**chosen: Any) -> Export:
        if loaded.weights == "random":
            click.echo(f"{loaded.name}: random weights (--pretrained or --checkpoint gives others)", err=True)
        return export_keras(loaded, layout=layout, **chosen)

    return Job(partial(candidates, loaded), export)


@exporter(
    "jax",
    checkpoint_option("Weights: .safetensors, .msgpack, .npz or an Orbax folder."),
    layout_option("NHWC", "NCHW", text="Of the file's input and maps: as Flax has them, or transposed."),
    opset_option(17, 25, default=20),
    metavar="FILE.py:FACTORY",
)
def jax(model: str, image: Facts, checkpoint: Path | None, layout: Layout) -> Job:
    """Export a Flax model (nnx or linen) that a Python file makes.

    The factory returns an nnx.Module, or (linen.Module, variables); a dict may follow, with facts of the images (size,
    channels, colour, range, mean, std, …) and of the model (blocks, latent, scores, …).

    \b
    geed-export jax net.py:build --list
    geed-export jax net.py:build --checkpoint net.msgpack -o net.onnx --tap 'blocks.*'
    """
    from geed_exporters.jax import candidates, export_jax, load

    # one CPU computes a reference that does not change from machine to machine, and no GPU memory is taken
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    loaded = load(model, checkpoint=checkpoint, facts=image)
    if checkpoint is None:
        factory = model.rpartition(":")[2]
        click.echo(f"weights are those that {factory}() makes (random, unless it loads some);", err=True, nl=False)
        click.echo(" --checkpoint FILE loads others", err=True)
    return Job(partial(candidates, loaded), partial(export_jax, loaded, layout=layout))


@exporter(
    "sklearn",
    click.Option(["--trust"], is_flag=True, help="Read a pickle (.joblib, .pkl): it can run any code."),
    layout_option("NCHW", "NHWC", text="Order in which the image was flattened: NHWC for (H, W, C) arrays."),
    click.Option(["--opset"], type=int, default=20, show_default=True, metavar="N", help="ONNX opset, 15 to 22."),
)
def sklearn(model: str, image: Facts, trust: bool, layout: Layout) -> Job:
    """Export a fitted scikit-learn model: FILE.py:FACTORY, FILE.skops, or, with --trust, FILE.joblib or FILE.pkl.

    With --size the features are the pixels of an image of that size, which becomes the input; without, the input is a
    plain vector. One channel, unless --channels or --colour says otherwise.

    \b
    geed-export sklearn digits.skops --size 8x8 --range 0,16 -o digits.onnx
    geed-export sklearn net.py:build --tap 'mlp.*' -o net.onnx
    """
    from geed_exporters.sklearn import candidates, export_sklearn, image_input, load

    image_input(image, layout)  # what cannot be meant is said before the model's own code runs
    loaded = load(model, trust=trust)
    described = {"image": image, "layout": layout, "name": loaded.name, "weights": loaded.weights}
    return Job(partial(candidates, loaded.model), partial(export_sklearn, loaded.model, **described))


@exporter(
    "escnn",
    checkpoint_option(
        "Weights from a file: the network's state_dict, .safetensors or written by torch.save (weights only)."
    ),
    opset_option(18, 25, default=20),
)
def escnn(model: str, image: Facts, checkpoint: Path | None) -> Job:
    """Export a steerable network of escnn: escnn:c8-cnn (the paper's), escnn:c8-cnn-small, or FILE.py:FACTORY.

    Each tap that is a field of escnn declares how its channels move. A factory is a function without arguments that
    returns a module of escnn, a torch.nn.Module made of such, or (module, {"size": (29, 29), ...}).

    \b
    geed-export escnn escnn:c8-cnn -o c8-cnn.onnx
    geed-export escnn net.py:build --size 29x29 --tap 'block*' -o net.onnx
    """
    from geed_exporters.escnn import candidates, export_escnn, load

    loaded = load(model, checkpoint=checkpoint, facts=image)
    if loaded.weights == "random":
        click.echo("weights: random; --checkpoint FILE reads trained ones", err=True)

    def export(**chosen: Any) -> Export:
        made = export_escnn(loaded, **chosen)
        for note in made.source.notes:
            click.echo(f"note: {note}", err=True)
        return made

    return Job(partial(candidates, loaded), export)


for each in (pytorch, keras, jax, sklearn, escnn):
    main.add_command(each)

if __name__ == "__main__":
    main()
