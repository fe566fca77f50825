"""The commands; each parses, calls the library, prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from geed_onnx.errors import GeedError, UsageError, suggestion

F = TypeVar("F", bound=Callable[..., Any])
INTERRUPTED = 130
EXIT_CODES = "Exit codes: 0 ok, 1 error, 2 usage, 3 a threshold was crossed."
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Door(click.Group):
    """A group whose unknown commands say what was meant, and whose errors are one clear line."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; what click has to complain of becomes one line too, and stdout is UTF-8."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        speak_utf8()
        try:
            code = super().main(args, prog_name, complete_var, False, **extra)
        except click.UsageError as error:
            if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
                error.show()
            else:
                complain(usage_line(error))
            sys.exit(error.exit_code)
        except click.ClickException as error:
            complain(error.format_message())
            sys.exit(error.exit_code)
        except click.Abort:
            complain("interrupted")
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)

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
            stop_talking()
            ctx.exit(0)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            complain("interrupted")
            ctx.exit(INTERRUPTED)
        except Exception as error:
            if os.environ.get("GEED_ONNX_TRACEBACK"):
                raise
            first = (str(error).splitlines() or [""])[0]
            complain(
                f"unexpected {type(error).__name__}: {first[:300]} (this is a bug here: GEED_ONNX_TRACEBACK=1 shows"
                " where; please report it)"
            )
            ctx.exit(1)


def usage_line(error: click.UsageError) -> str:
    """Return what click has to say in one line of ours: what is wrong, what was meant, where it is explained."""
    if isinstance(error, click.NoSuchOption):
        known = [name for p in (error.ctx.command.get_params(error.ctx) if error.ctx else []) for name in p.opts]
        said = f"no such option {error.option_name!r}{suggestion(error.option_name, known)}"
    else:
        said = error.format_message().strip().removesuffix(".")
        said = said[:1].lower() + said[1:]
    return f"{said} (see {error.ctx.command_path} --help)" if error.ctx is not None else said


def complain(message: object) -> None:
    """Write one line to stderr: `error: …`."""
    say("error", message)


def warn(message: str) -> None:
    """Write one line to stderr: `warning: …`."""
    say("warning", message)


def say(what: str, message: object) -> None:
    """Write one line to stderr, whatever control characters a file's names bring into it."""
    from geed_onnx.reports import clean

    click.echo(f"{what}: {clean(str(message).strip())}", err=True)


def speak_utf8() -> None:
    """Write UTF-8 where no terminal says otherwise, and escape what cannot be written instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace", **({} if stream.isatty() else {"encoding": "utf-8"}))


def stop_talking() -> None:
    """Send stdout nowhere: whoever read it has seen enough (head, less)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def one_of(*words: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return the callback of an option that takes one of a few words, and says which was meant."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is not None and value not in words:
            raise click.BadParameter(f"unknown word {value!r}{suggestion(value, words)}", ctx, param)
        return value

    return read


def pair(text: str, what: str, form: str) -> tuple[str, str]:
    """Split NAME=VALUE at the last `=`; tensor names may hold one too."""
    name, sign, value = text.rpartition("=")
    if not sign or not name or not value:
        raise UsageError(f"{what} {text!r}: expected {form}")
    return name, value


def pairs(texts: Sequence[str], what: str, form: str) -> dict[str, str]:
    """Return {name: value} of an option that may be given several times, once for each name."""
    found: dict[str, str] = {}
    for text in texts:
        name, value = pair(text, what, form)
        if name in found:
            raise UsageError(f"{what} {text!r}: {name!r} is given twice, as {found[name]!r} too; give one")
        found[name] = value
    return found


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
            click.option(
                "--layout",
                callback=one_of("NCHW", "NHWC"),
                metavar="NCHW|NHWC",
                help="Of input and maps, where the graph does not tell.",
            ),
            click.option(
                "--provider",
                default="auto",
                show_default=True,
                metavar="auto|cpu|cuda|…",
                help="What the model runs on.",
            ),
            click.option(
                "--threads", type=click.IntRange(1), metavar="N", help="ONNX Runtime's threads.  [default: all cores]"
            ),
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
            click.option("--colour", metavar="grey|rgb|bgr", help="What the model's channels are."),
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
    for name, value in pairs(texts, "--constant", "NAME=VALUE").items():
        try:
            found[name] = np.load(value, allow_pickle=False) if value.endswith(".npy") else np.asarray(float(value))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--constant {f'{name}={value}'!r}: expected a number or a .npy file with an array"
                f" ({getattr(error, 'strerror', None) or str(error).splitlines()[0]})"
            ) from None
    return found


from geed_onnx.cli import demo, listing, measuring, models  # noqa: E402  the commands register themselves

__all__ = ["demo", "listing", "main", "measuring", "models"]
