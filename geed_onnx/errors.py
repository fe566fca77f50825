"""The error tree. Every error says what was expected, what came, where, and what to do.

::

    GeedError (exit 1)
    ├── UsageError (exit 2)        the request itself is wrong
    │   └── UnknownName            a name that no registry, file or graph knows; ends in "did you mean …"
    ├── ModelError                 the ONNX file cannot be read, or is not what is needed
    ├── DataError                  the images cannot be read, or do not fit the model
    ├── ActionError                a group that cannot act on this array
    ├── SessionError               the model does not run
    │   ├── ProviderError          a provider that was asked for and is not obtained
    │   └── OutOfMemory            one micro-batch does not fit
    └── MeasureError               the model ran, but no honest number comes of it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

Word = TypeVar("Word", bound=str)


class GeedError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with.

    Every error of the tree comes through pickle as it is, whatever its class asks for to be made: workers send them.
    """

    exit_code = 1

    @property
    def said(self) -> tuple[str, ...]:
        """What a terminal shows, a line each; an error that names several faults has several."""
        return (str(self),)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args), self.__dict__ or None


class UsageError(GeedError):
    """The request itself is wrong: a flag, a name or a combination that cannot be meant."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that is not known here; the message lists what is near it, or what there is."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.what, self.name = what, name
        super().__init__(f"unknown {what} {name!r}{suggestion(name, known)}{'; ' + hint if hint else ''}")


class ModelError(GeedError):
    """The ONNX file cannot be read, or is not what is needed."""


class DataError(GeedError):
    """The images cannot be read, or do not fit the model."""


class ActionError(GeedError):
    """A group that cannot act on this array."""


class SessionError(GeedError):
    """The model does not run."""


class ProviderError(SessionError):
    """An execution provider that was asked for and is not obtained."""


class OutOfMemory(SessionError):
    """One micro-batch does not fit into memory."""


class MeasureError(GeedError):
    """The model ran, but no honest number comes of it (NaN, Inf, an empty sample)."""


def _again(kind: type[GeedError], args: tuple[Any, ...]) -> GeedError:
    """Make an error of what it was made to hold, not of what it was made from."""
    return kind.__new__(kind, *args)


def one_of(what: str, word: str, known: Sequence[Word]) -> Word:
    """Return the known word that `word` is; `UnknownName` where it is none of them."""
    for one in known:
        if word == one:
            return one
    raise UnknownName(what, str(word), known)


def suggestion(name: str, known: Iterable[str], most: int = 3) -> str:
    """Return ': did you mean …?' from the names near `name`, else the list of what is known."""
    names = sorted(set(known))
    lower = {n.lower(): n for n in reversed(names)}
    near = difflib.get_close_matches(name.lower(), lower, n=most, cutoff=0.6)
    if near:
        return ": did you mean " + " or ".join(repr(lower[n]) for n in near) + "?"
    if not names:
        return ""
    shown = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
    return f"; known: {shown}"
