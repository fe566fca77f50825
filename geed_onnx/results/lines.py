"""JSON Lines files of results: read with the line that is wrong named, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from geed_onnx.errors import DataError, GeedError, UsageError
from geed_onnx.results.record import Result, from_json


def read_results(path: str | os.PathLike[str]) -> Iterator[Result]:
    """Yield the results of a JSON Lines file.

    Raises
    ------
    DataError
        If the file is missing or a line is not a Result; the line's number is named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read results from {os.fspath(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"cannot read results from {os.fspath(path)!r}: expected JSON Lines in UTF-8 text") from None
    # not splitlines(): U+2028, U+0085 and the like may stand unescaped within a JSON string
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield from_json(line)
            except DataError as error:
                raise DataError(f"{os.fspath(path)}, line {number}: {error}") from None


def writable(path: str | os.PathLike[str]) -> Path:
    """Return the path if a file can be written there, so that nothing is measured in vain.

    Raises
    ------
    UsageError
        If the folder is missing or not writable, or the path is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"cannot write results to {os.fspath(path)!r}: it is a folder; give a file name in it")
    if not target.parent.is_dir():
        raise UsageError(f"cannot write results to {os.fspath(path)!r}: there is no folder {str(target.parent)!r}")
    if not os.access(target.parent, os.W_OK) or (target.exists() and not os.access(target, os.W_OK)):
        raise UsageError(f"cannot write results to {os.fspath(path)!r}: permission denied")
    return target


def write_results(path: str | os.PathLike[str], results: Iterable[Result]) -> None:
    """Write JSON Lines whole or not at all: to a temporary file beside it, fsynced, then renamed over."""
    target = writable(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise UsageError(f"cannot write results to {os.fspath(path)!r}: {error.strerror}") from None
    try:
        # a path that is no UTF-8 holds lone surrogates: escaped, they are JSON and read back as they were
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            for result in results:
                file.write(result.to_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~file_mask())
        os.replace(temporary, target)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise GeedError(f"cannot write results to {os.fspath(path)!r}: {error.strerror}") from None
        raise


def file_mask() -> int:
    """Return the process's mask of permissions, which temporary files know nothing of."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
