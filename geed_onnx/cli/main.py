"""The commands; each parses, calls the library, prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geed_onnx.cli.door import Door
from geed_onnx.errors import UsageError, suggestion

if TYPE_CHECKING:
    from geed_onnx.results import Collection

F = TypeVar("F", bound=Callable[..., Any])
EXIT_CODES = "Exit codes: 0 ok, 1 error, 2 usage, 3 a threshold was crossed."
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Door, context_settings=SETTINGS)
@click.version_option(package_name="geed-onnx")
def main() -> None:
    """How invariant, how equivariant is a trained network, layer by layer, on the data it will really see?

    \b
    geed-onnx measure model.onnx --data photos/ --group C8
    """


# --- shared options ---------------------------------------------------------------------------------------------


def samples_of(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Read `--samples`: a positive number, `all`, or nothing."""
    if value is None or value == "all":
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


def results_at(place: str) -> Collection:
    """Return the results of a run's folder or of a file; one at a remote address is fetched first."""
    from geed_onnx.results import open_results

    if "://" in place:
        from geed_onnx.batch.remote import local_copy

        place = local_copy(place)
    return open_results(place)


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


from geed_onnx.cli import (  # noqa: E402  the commands register themselves
    comparing,
    demo,
    gating,
    listing,
    measuring,
    models,
    reporting,
    running,
)

__all__ = ["comparing", "demo", "gating", "listing", "main", "measuring", "models", "reporting", "running"]
