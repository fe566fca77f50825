"""What every exporter's command takes and says: -o, --tap, --list, --verify, --tolerance; --size, --range, …."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from geed_exporters.candidates import Candidate, default_roles
from geed_exporters.facts import COMMAND_LINE, read_facts
from geed_exporters.writing import Written

F = TypeVar("F", bound=Callable[..., Any])

#: `context_settings` of every command
DOOR = {"help_option_names": ["-h", "--help"]}


def shared_options(function: F) -> F:
    """Give a command the options that every exporter has: -o, --tap, --list, --verify, --tolerance, --opset."""
    options = [
        click.option("-o", "--output", metavar="FILE.onnx", help="Where to write; needed unless --list is given."),
        click.option(
            "--tap",
            "taps",
            multiple=True,
            metavar="GLOB",
            help="Modules to tap, by path, with * and ?; stages, latent and scores stand for the default's parts."
            " [default: stages, latent, scores]",
        ),
        click.option("--list", "listing", is_flag=True, help="Print what can be tapped and stop."),
        click.option(
            "--verify/--no-verify",
            "check",
            default=True,
            show_default=True,
            help="Run file and framework on the same inputs; a file that differs is not left behind.",
        ),
        click.option(
            "--tolerance",
            type=click.FloatRange(0, min_open=True),
            default=1e-4,
            show_default=True,
            metavar="X",
            help="Largest relative difference of a tap.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def image_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that describe its images; it receives them read, as one argument `image: Facts`.

    What cannot be meant is a UsageError that names the option, the same for every framework.
    """

    described = {
        "size": ("HxW", "Size of the images, 224x224, or 224 for a square."),
        "channels": ("N", "Channels of the images."),
        "colour": ("grey|rgb|bgr", "To record: the order of the channels."),
        "range": ("LO,HI", "To record: what black and white become, before mean and std."),
        "mean": ("X[,X,X]", "To record: subtracted from an image after --range."),
        "std": ("X[,X,X]", "To record: divided by after --mean."),
    }

    @functools.wraps(function)
    def read(**given: Any) -> Any:
        image = read_facts({key: given.pop(key) for key in described}, COMMAND_LINE)
        return function(**given, image=image)

    for key, (metavar, text) in reversed(described.items()):
        read = click.option(f"--{key}", metavar=metavar, help=text)(read)
    return read


def output_wanted(output: str | None) -> str:
    """Return the output path, or say that it is missing."""
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output': the file to write (or --list to look first).")
    return output


def show_candidates(candidates: Sequence[Candidate]) -> None:
    """Print one line a module on stdout: role, kind, shape, path."""
    roles = default_roles(candidates)
    for c in candidates:
        shape = "x".join(map(str, c.shape)) or "-"
        click.echo(f"{roles.get(c.module, '') or '-':<7} {c.natural_kind:<12} {shape:<14} {c.module}")


def show_written(written: Written) -> None:
    """Say on stderr what was written and how well it agrees; the path goes to stdout."""
    taps = len(written.taps)
    said = f"{taps} tap{'s' if taps != 1 else ''}"
    if written.agreement is None:
        said += ", not verified"
    else:
        a = written.agreement
        batches = " and ".join(map(str, a.batches))
        said += f"; agrees with the framework to {a.difference:.1e} (batches {batches}; worst: {a.tap})"
    click.echo(said, err=True)
    click.echo(str(written.path))
