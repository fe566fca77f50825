"""The frame of a command line: one clear line for every error, the exit codes of the house, UTF-8."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from geed_onnx.errors import GeedError, suggestion

INTERRUPTED = 130


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
            raise click.UsageError(f"no such command {args[0]!r}{suggestion(args[0], self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of ours becomes its message and its exit code."""
        try:
            return super().invoke(ctx)
        except GeedError as error:
            for line in error.said:
                complain(line)
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
