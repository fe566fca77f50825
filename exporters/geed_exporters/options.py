"""What every exporter's command takes and says: -o, --tap, --list, --verify, --tolerance; --size, --range, …."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from geed_exporters.candidates import Candidate, default_roles
from geed_exporters.export import Export
from geed_exporters.facts import COMMAND_LINE, read_facts
from geed_exporters.writing import Written, write

#: `context_settings` of every command
DOOR = {"help_option_names": ["-h", "--help"]}

SHARED = (
    click.Option(["-o", "--output"], metavar="FILE.onnx", help="Where to write; needed unless --list is given."),
    click.Option(
        ["--tap", "taps"],
        multiple=True,
        metavar="GLOB",
        help="Modules to tap, by path, with * and ?; stages, latent and scores stand for the default's parts."
        " [default: stages, latent, scores]",
    ),
    click.Option(["--list", "listing"], is_flag=True, help="Print what can be tapped and stop."),
    click.Option(
        ["--verify/--no-verify", "check"],
        default=True,
        show_default=True,
        help="Run file and framework on the same inputs; a file that differs is not left behind.",
    ),
    click.Option(
        ["--tolerance"],
        type=click.FloatRange(0, min_open=True),
        default=1e-4,
        show_default=True,
        metavar="X",
        help="Largest relative difference of a tap.",
    ),
)
#: what describes the images of a model: {fact: (metavar, help)}
IMAGE = {
    "size": ("HxW", "Size of the images, 224x224, or 224 for a square."),
    "channels": ("N", "Channels of the images."),
    "colour": ("grey|rgb|bgr", "To record: the order of the channels."),
    "range": ("LO,HI", "To record: what black and white become, before mean and std."),
    "mean": ("X[,X,X]", "To record: subtracted from an image after --range."),
    "std": ("X[,X,X]", "To record: divided by after --mean."),
}


class Job(NamedTuple):
    """What a command has loaded: what can be tapped of it, and how it is exported."""

    candidates: Callable[[], Sequence[Candidate]]
    export: Callable[..., Export]
    """Takes `taps` and `opset`."""


def checkpoint_option(text: str) -> click.Option:
    """Return the option of a file of weights."""
    return click.Option(["--checkpoint"], type=click.Path(path_type=Path), metavar="FILE", help=text)


def layout_option(*choices: str, text: str) -> click.Option:
    """Return the option of the order of axes; the first choice is the default."""
    return click.Option(["--layout"], type=click.Choice(choices), default=choices[0], show_default=True, help=text)


def opset_option(first: int, last: int, default: int) -> click.Option:
    """Return the option of the version of ONNX's operators, from first to last."""
    versions = click.IntRange(first, last)
    return click.Option(
        ["--opset"], type=versions, default=default, show_default=True, help="Version of ONNX's operators."
    )


def exporter(
    framework: str, *own: click.Option, metavar: str = "MODEL"
) -> Callable[[Callable[..., Job]], click.Command]:
    """Return the command of a framework, made of the function that loads a model: `(model, image, **own) → Job`.

    Its options are the shared ones and `own`, of which `opset` goes to the export. What describes the images is read
    (`image: Facts`); what cannot be meant is a UsageError that names the option, the same for every framework. What
    the model's own code prints goes to stderr: stdout is for the path alone.
    """

    def decorate(load: Callable[..., Job]) -> click.Command:
        @functools.wraps(load)
        def command(model: str, output: str | None, listing: bool, **given: Any) -> None:
            if output is None and not listing:
                raise click.UsageError("Missing option '-o' / '--output': the file to write (or --list to look first).")
            image = read_facts({key: given.pop(key) for key in IMAGE}, COMMAND_LINE)
            chosen = {key: given.pop(key) for key in ("taps", "opset")}
            how = {key: given.pop(key) for key in ("check", "tolerance")}
            with contextlib.redirect_stdout(sys.stderr):
                job = load(model, image, **given)
                found = job.candidates() if listing else ()
                written = write(job.export(**chosen), output, **how) if output is not None and not listing else None
            if written is None:
                show_candidates(found)
            else:
                show_written(written)

        described = [click.Option([f"--{key}"], metavar=form, help=text) for key, (form, text) in IMAGE.items()]
        return click.Command(
            framework,
            context_settings=DOOR,
            callback=command,
            params=[click.Argument(["model"], metavar=metavar), *SHARED, *own, *described],
            help=inspect.cleandoc(load.__doc__ or ""),
        )

    return decorate


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
