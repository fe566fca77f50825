"""What every exporter's command takes and says: -o, --tap, --list, --verify, --tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from geed_exporters.candidates import Candidate, default_roles
from geed_exporters.writing import Written

F = TypeVar("F", bound=Callable[..., Any])


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
