"""`geed-onnx taps`, `expose` and `doctor`: what a file holds, and what will or will not work."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from geed_onnx.cli.door import warn
from geed_onnx.cli.options import SIZE, asked_options, asked_values
from geed_onnx.errors import GeedError, UsageError
from geed_onnx.requests import Model, Runtime, of_fields

if TYPE_CHECKING:
    from geed_onnx.taps import Graph, Tap


def sized_graph(model: str, input_name: str | None, size: str | None) -> Graph:
    """Return the graph, at the given height and width where the file leaves them open."""
    from geed_onnx.taps import image_input, read_graph

    graph = read_graph(model)
    if size is None:
        return graph
    try:
        height, width = (int(part) for part in size.lower().split("x"))
    except ValueError:
        raise UsageError(f"--size {size!r}: expected HEIGHTxWIDTH, as in 224x224") from None
    port = image_input(graph, input_name)
    if len(port.shape) != 4:
        raise UsageError(f"--size: the input {port.name!r} is {list(port.shape)}, no batch of images")
    shape = [d if isinstance(d, int) else 1 for d in port.shape]
    spatial = (1, 2) if port.layout == "NHWC" else (2, 3)
    for axis, value in zip(spatial, (height, width), strict=True):
        shape[axis] = value
    return read_graph(model, sizes={port.name: tuple(shape)})


def described(tap: Tap) -> dict[str, Any]:
    """Return a tap as JSON values."""
    return {
        "name": tap.name,
        "kind": tap.kind,
        "shape": list(tap.shape),
        "layout": tap.layout,
        "module": tap.module,
        "op": tap.op,
        "default": tap.role is not None,
        "role": tap.role,
        "flags": list(tap.flags),
        "action": tap.action,
    }


def remarks(tap: Tap) -> str:
    """Return a tap's flags and the action that the file declares for it, in one line."""
    from geed_onnx.engine.targets import declared_action

    if tap.action is None:
        return ", ".join(tap.flags)
    try:
        acts = f"moves by {declared_action(tap.name, tap.action)}"
    except GeedError:
        acts = "declares an action that cannot be used (doctor says why)"
    return ", ".join((*tap.flags, acts))


@click.command(short_help="List what can be tapped in a model, the default choice marked.")
@click.argument("model", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One tap a line as JSON.")
@asked_options("input", only=("input",))
@SIZE
def taps(model: str, as_json: bool, input: str | None, size: str | None) -> None:
    """List what can be tapped: name, kind, shape, layout, module path; the default choice is marked.

    \b
    geed-onnx taps model.onnx
    """
    from geed_onnx.taps import declaration_problems, list_taps

    graph = sized_graph(model, input, size)
    found = list_taps(graph, input=input)
    for problem in declaration_problems(graph):
        warn(problem)
    if as_json:
        for tap in found:
            click.echo(json.dumps(described(tap), ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from geed_onnx.reports import clean
    from geed_onnx.reports.table import PLAIN_WIDTH

    table = Table(pad_edge=False)
    for heading in ("", "name", "kind", "shape", "layout", "module", "op", ""):
        table.add_column(heading, overflow="fold")
    for tap in found:
        shape = "×".join("?" if d is None else str(d) for d in tap.shape)
        cells = ("●" if tap.role else "", tap.name, tap.kind, shape, tap.layout or "", tap.module or "", tap.op)
        table.add_row(*(Text(clean(c)) for c in (*cells, remarks(tap))))
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, emoji=False)
    console.print(table)
    console.print("● measured where no --tap is given")


@click.command()
@click.argument("model", type=click.Path())
@click.option("-o", "--output", required=True, metavar="OUT", type=click.Path(), help="The file to write.")
@click.option(
    "--tap", "specs", multiple=True, required=True, metavar="NAME[:KIND]", help="A tensor, a module path or a glob."
)
def expose(model: str, output: str, specs: tuple[str, ...]) -> None:
    """Write the ONNX file with its taps as outputs, for any ONNX tool.

    \b
    geed-onnx expose model.onnx -o tapped.onnx --tap 'layer*' --tap latent
    """
    from geed_onnx.results import writable
    from geed_onnx.taps import read_graph, resolve_taps, save_exposed

    target = writable(output, "the model")
    graph = read_graph(model)
    found = resolve_taps(graph, list(specs))
    if target.exists() and target.samefile(model):
        raise UsageError(f"-o {output}: this is the model itself; write to another file")
    save_exposed(graph, [t.name for t in found], target)
    click.echo(f"wrote {output} with {len(found)} tap(s) as outputs", err=True)


@click.command()
@click.argument("model", type=click.Path())
@SIZE
@click.option("--json", "as_json", is_flag=True, help="One finding a line as JSON.")
@asked_options("input")
def doctor(model: str, size: str | None, as_json: bool, **options: Any) -> None:
    """Say what will or will not work with a file, and why.

    \b
    geed-onnx doctor model.onnx
    """
    from geed_onnx.doctor import examine
    from geed_onnx.reports import clean

    values = asked_values(options)
    asked = of_fields(Model, {**values, "path": model})
    findings = examine(sized_graph(model, asked.input, size), asked, of_fields(Runtime, values))
    for finding in findings:
        if as_json:
            line = {"topic": finding.topic, "verdict": finding.verdict, "text": finding.text}
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            mark = {"ok": "✓", "note": "·", "warning": "!", "error": "✗"}[finding.verdict]
            click.echo(f"{mark} {finding.topic:10} {clean(finding.text)}")
    if any(f.verdict == "error" for f in findings):
        raise GeedError("this model cannot be measured as it is; see the lines marked ✗")
