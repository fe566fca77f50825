"""Files written whole or not at all: beside their place first, then renamed into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from geed_onnx.ending import put_away, temporary_file
from geed_onnx.errors import GeedError, UsageError

#: A temporary name is the file's own with something behind it; names may be 255 bytes long.
MOST_NAME = 80


def writable(path: str | os.PathLike[str], what: str = "") -> Path:
    """Return the path if a file can be written there, so that nothing is made in vain.

    `what` is what the file is, for the message: `results`, `the page`.

    Raises
    ------
    UsageError
        If the folder is missing or not writable, or the path is a folder.
    """
    target, said = Path(path), _said(path, what)
    if target.is_dir():
        raise UsageError(f"{said}: it is a folder; give a file name in it")
    if not target.parent.is_dir():
        raise UsageError(f"{said}: there is no folder {str(target.parent)!r}")
    if not os.access(target.parent, os.W_OK) or (target.exists() and not os.access(target, os.W_OK)):
        raise UsageError(f"{said}: permission denied")
    return target


@contextmanager
def whole(path: str | os.PathLike[str], what: str = "", *, lasting: bool = True) -> Iterator[IO[bytes]]:
    """Yield a file to write bytes to, which takes the place of `path` when all has gone well.

    A link stays one: what it points to is written.  A pipe or a device is written as it is.  `lasting`: fsynced, so
    that it outlives a loss of power too, and not only a kill.

    Raises
    ------
    UsageError
        If it cannot be written there.
    GeedError
        If writing fails on the way (a full disk).
    """
    writable(path, what)
    target = Path(os.path.realpath(path))
    temporary: Path | None = None
    try:
        if target.exists() and not target.is_file():
            with target.open("wb") as device:
                yield device
            return
        temporary, opened = temporary_file(target.parent, f".{target.name[:MOST_NAME]}.")
        with opened as file:
            yield file
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.chmod(temporary, target.stat().st_mode & 0o7777 if target.exists() else 0o666 & ~_mask())
        os.replace(temporary, target)
    except OSError as error:
        raise GeedError(f"{_said(path, what)}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            put_away(temporary)


def write_text(path: str | os.PathLike[str], text: str, what: str = "") -> None:
    """Write UTF-8 text whole or not at all; lone surrogates (of a path that is no UTF-8) become their escapes.

    Raises
    ------
    UsageError, GeedError
        As `whole`.
    """
    with whole(path, what) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def _said(path: str | os.PathLike[str], what: str) -> str:
    return f"cannot write {f'{what} to ' if what else ''}{os.fspath(path)!r}"


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
