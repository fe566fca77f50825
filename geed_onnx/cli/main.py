"""The commands; each parses, calls the library, prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from geed_onnx.errors import GeedError, UsageError, suggestion

F = TypeVar("F", bound=Callable[..., Any])
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Door(click.Group):
    """A group whose unknown commands say what was meant, and whose errors are one clear line."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which was meant."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"no such command {args[0]!r}{suggestion(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of ours becomes its message and its exit code."""
        try:
            return super().invoke(ctx)
        except GeedError as error:
            complain(error)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            # whoever read our output has seen enough (head, less)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except Exception as error:
            if os.environ.get("GEED_ONNX_TRACEBACK"):
                raise
            first = (str(error).splitlines() or [""])[0]
            complain(
                f"unexpected {type(error).__name__}: {first[:300]} (this is a bug here: GEED_ONNX_TRACEBACK=1 shows"
                " where; please report it)"
            )
            ctx.exit(1)


def complain(message: object) -> None:
    """Write one line to stderr."""
    from geed_onnx.reports import clean

    click.echo("error: " + clean(" ".join(str(message).splitlines())), err=True)


def warn(message: str) -> None:
    """Write one warning to stderr."""
    from geed_onnx.reports import clean

    click.echo("warning: " + clean(message), err=True)


@click.group(cls=Door, context_settings=SETTINGS)
@click.version_option(package_name="geed-onnx")
def main() -> None:
    """How invariant, how equivariant is a trained network, layer by layer, on the data it will really see?

    \b
    geed-onnx measure model.onnx --data photos/ --group C8
    """


# --- shared options ---------------------------------------------------------------------------------------------


def samples_of(ctx: click.Context, param: click.Parameter, value: str) -> int | str:
    """Read `--samples`: a positive number, or `all`."""
    if value == "all":
        return value
    try:
        number = int(value)
    except ValueError:
        raise click.BadParameter(f"expected a number of images or 'all', got {value!r}", ctx, param) from None
    if number < 1:
        raise click.BadParameter(f"expected at least 1, got {number}", ctx, param)
    return number


def pair(text: str, what: str) -> tuple[str, str]:
    """Split NAME=VALUE at the last `=`; tensor names may hold one too."""
    name, sign, value = text.rpartition("=")
    if not sign or not name or not value:
        raise UsageError(f"{what} {text!r}: expected NAME=VALUE")
    return name, value


def input_options(command: F) -> F:
    """Add the options that say how the model's input is made."""
    for option in reversed(
        [
            click.option("--input", "input_name", metavar="NAME", help="The input the group acts on."),
            click.option(
                "--constant",
                "constants",
                multiple=True,
                metavar="NAME=VALUE",
                help="A value for a further input: a number, or a .npy file.",
            ),
            click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Where the graph does not tell."),
            click.option("--provider", default="auto", show_default=True, metavar="auto|cpu|cuda|…"),
            click.option("--threads", type=click.IntRange(1), help="ONNX Runtime's threads; default: all cores."),
            click.option("--tf32/--no-tf32", default=False, help="TF32 on CUDA; off by default."),
        ]
    ):
        command = option(command)
    return command


def image_options(command: F) -> F:
    """Add the options that say what is done to images; over what the file declares."""
    for option in reversed(
        [
            click.option("--size", metavar="HxW", help="Height and width of the model's input."),
            click.option("--fit", metavar="resize|crop|pad|none", help="How an image comes to that size."),
            click.option("--resize", metavar="N|HxW", help="With --fit crop: resize to this first."),
            click.option("--colour", metavar="grey|rgb|bgr"),
            click.option("--range", "value_range", metavar="LO,HI", help="What black and white become, as 0,1."),
            click.option("--mean", metavar="M[,M,M]", help="Subtracted after the range."),
            click.option("--std", metavar="S[,S,S]", help="Divided by after the mean."),
            click.option("--resample", metavar="bilinear|…", help="How images are resized."),
            click.option("--column", metavar="NAME", help="The image column of a table, the array of an .npz."),
            click.option("--skip-bad", is_flag=True, help="Leave unreadable images out, and say so."),
            click.option("--streaming/--no-streaming", default=None, help="Read a data set as a stream."),
        ]
    ):
        command = option(command)
    return command


def constants_of(texts: Sequence[str]) -> dict[str, Any]:
    """Return {input: array} from NAME=VALUE texts."""
    import numpy as np

    found = {}
    for text in texts:
        name, value = pair(text, "--constant")
        try:
            found[name] = np.load(value, allow_pickle=False) if value.endswith(".npy") else np.asarray(float(value))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--constant {text!r}: expected a number or a .npy file with an array ({str(error).splitlines()[0]})"
            ) from None
    return found


from geed_onnx.cli import demo, listing, measuring, models  # noqa: E402  the commands register themselves

__all__ = ["demo", "listing", "main", "measuring", "models"]
