"""What is wrong with a suite: every fault with its place, the value that is there and what was expected."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from geed_onnx.errors import UsageError

LONGEST_SHOWN = 80


class Absent(Enum):
    """The value of what is not there."""

    MISSING = "missing"


MISSING = Absent.MISSING


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and where.

    Attributes
    ----------
    path : str
        As in ``models[2].taps[0]``; ``line 3, column 7`` where the text itself cannot be read.
    value : Any
        What is there; `MISSING` where nothing is.
    expected : str
        What could stand there.
    message : str
        What is wrong, in words.

    >>> print(Fault("seeds[1]", -3, "a whole number from 0", "expected a whole number from 0"))
    seeds[1]: -3 – expected a whole number from 0
    """

    path: str
    value: Any
    expected: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {shown(self.value)} – {self.message}"


class SuiteError(UsageError):
    """A suite that cannot be meant: all its faults at once.

    Attributes
    ----------
    uri : str
        The suite, as it was named.
    faults : tuple[Fault, ...]
    """

    def __init__(self, uri: str, faults: Iterable[Fault]) -> None:
        self.uri, self.faults = uri, tuple(faults)
        super().__init__("\n".join(self.said))

    @property
    def said(self) -> tuple[str, ...]:
        """A headline, then one line for each fault."""
        count = f"{len(self.faults)} faults" if len(self.faults) != 1 else "1 fault"
        return (f"suite {self.uri!r}: {count}", *map(str, self.faults))

    def __reduce__(self) -> tuple[type[SuiteError], tuple[str, tuple[Fault, ...]]]:
        return SuiteError, (self.uri, self.faults)


def unexpected(path: str, value: Any, expected: str, more: str = "") -> Fault:
    """Return the fault of a value that is not what was expected, with `more` said after it."""
    return Fault(path, value, expected, f"expected {expected}{more}")


def nearby(name: str, known: Iterable[str]) -> str:
    """Return '; did you mean …?' where a known name is near, else nothing."""
    lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), lower, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(lower[n]) for n in near)}?" if near else ""


def place(where: str, *parts: str | int) -> str:
    """Return the path of a part: ``place("models[2]", "taps", 0)`` is ``models[2].taps[0]``."""
    for part in parts:
        if isinstance(part, int):
            where += f"[{part}]"
        else:
            key = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else shown(part)
            where += f".{key}" if where else key
    return where


def shown(value: Any) -> str:
    """Return a value in one short line, as a suite spells it; whatever a name holds, it stays one line."""
    text = _shown(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 2].rstrip() + " …"


def _shown(value: Any, depth: int = 0) -> str:
    if value is MISSING:
        return "missing"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, str):
        return repr(value[: LONGEST_SHOWN + 1])
    if isinstance(value, dict):
        return "{…}" if depth > 2 else "{" + _joined([(k, v) for k, v in value.items()], depth) + "}"
    if isinstance(value, (list, tuple)):
        return "[…]" if depth > 2 else "[" + _joined(value, depth) + "]"
    return str(value) if hasattr(value, "isoformat") else repr(value)


def _joined(values: Sequence[Any], depth: int) -> str:
    texts = []
    for value in values[:9]:
        if isinstance(value, tuple):
            texts.append(f"{place('', str(value[0]))} = {_shown(value[1], depth + 1)}")
        else:
            texts.append(_shown(value, depth + 1))
    return ", ".join(texts) + (", …" if len(values) > 9 else "")
