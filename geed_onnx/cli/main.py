"""The commands; each parses, calls the library, prints."""

from __future__ import annotations

import click

from geed_onnx.cli.comparing import compare
from geed_onnx.cli.demo import demo
from geed_onnx.cli.door import Door
from geed_onnx.cli.gating import gate
from geed_onnx.cli.listing import list_
from geed_onnx.cli.measuring import measure
from geed_onnx.cli.models import doctor, expose, taps
from geed_onnx.cli.reporting import report
from geed_onnx.cli.running import run

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Door, context_settings=SETTINGS)
@click.version_option(package_name="geed-onnx")
def main() -> None:
    """How invariant, how equivariant is a trained network, layer by layer, on the data it will really see?

    \b
    geed-onnx measure model.onnx --data photos/ --group C8
    """


for command in (compare, demo, doctor, expose, gate, list_, measure, report, run, taps):
    main.add_command(command)
