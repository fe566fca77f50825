"""JSON Lines files of results: read with the line that is wrong named, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from geed_onnx.errors import DataError
from geed_onnx.results.record import Result, from_json
from geed_onnx.results.writing import whole


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


def write_results(path: str | os.PathLike[str], results: Iterable[Result]) -> None:
    """Write JSON Lines whole or not at all.

    Raises
    ------
    UsageError
        If they cannot be written there.
    GeedError
        If writing fails on the way.
    """
    with whole(path, "results") as file:
        for result in results:
            # a path that is no UTF-8 holds lone surrogates: escaped, they are JSON and read back as they were
            file.write((result.to_json() + "\n").encode("utf-8", "backslashreplace"))
