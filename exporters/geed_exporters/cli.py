"""`geed-export FRAMEWORK MODEL -o FILE.onnx`: one command a framework, the same options everywhere."""

from __future__ import annotations

import click

from geed_exporters.options import DOOR
from geed_onnx.cli.door import Door

COMMANDS = ("pytorch", "keras", "jax", "sklearn", "escnn")


class Frameworks(Door):
    """Commands that are imported when they are called: no framework is needed to read the help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the frameworks."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one framework's door; it imports the framework itself only when it runs."""
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        command = import_module(f"geed_exporters.{cmd_name}.command").command
        return command if isinstance(command, click.Command) else None


@click.group(cls=Frameworks, context_settings=DOOR)
@click.version_option(package_name="geed-onnx", prog_name="geed-export")
def main() -> None:
    """Export a model to ONNX with its intermediate tensors as named outputs.

    \b
    geed-export pytorch timm:resnet50 -o resnet50.onnx
    geed-export keras keras:MobileNetV2 -o mobilenet.onnx --tap 'block_*_add'
    geed-onnx measure resnet50.onnx --data images/ --group flip
    """


if __name__ == "__main__":
    main()
