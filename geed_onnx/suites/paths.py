"""Where the files of a suite are: paths relative to it, patterns with placeholders, addresses that fsspec knows."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from geed_onnx.errors import UsageError
from geed_onnx.suites.faults import nearby

#: What a pattern may capture; seed and step are digits.
PLACEHOLDERS = ("name", "family", "seed", "step")
ONNX = ".onnx"
_PARTS = re.compile(r"\*\*(?=/|$)|\*|\?|\{\{|\}\}|\{[^{}]*\}|[{}]")
_DIGITS = ("seed", "step")


@dataclass(frozen=True)
class Match:
    """One file, and what the placeholders of its pattern stand for."""

    path: str
    captured: Mapping[str, str]


def is_remote(address: str) -> bool:
    """Say whether an address is one for fsspec: ``s3://…``, ``memory://…``, ``file://…``, a chain with ``::``."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)", address) is not None


def located(folder: str, path: str) -> str:
    """Return where a path is that is written relative to a folder; either may be remote."""
    if is_remote(path) or os.path.isabs(path) or not folder:
        return path
    return f"{folder.rstrip('/')}/{path}" if is_remote(folder) else os.path.join(folder, path)


def as_typed(path: str) -> str:
    """Return a path as one would type it here: relative to the working directory where that is below or shorter."""
    if is_remote(path):
        return path
    absolute = os.path.abspath(path)
    try:
        relative = os.path.relpath(absolute)
    except ValueError:  # another drive
        return absolute
    below = relative.split(os.sep, 1)[0] != os.pardir
    return relative if below or len(relative) < len(absolute) else absolute


def stem_parts(path: str) -> list[str]:
    """Return the parts of a path, the last one without its suffix."""
    *folders, last = [p for p in path.split("://")[-1].replace(os.sep, "/").split("/") if p] or [path]
    return [*folders, last.rsplit(".", 1)[0] or last]


def filled(template: str, values: Mapping[str, Any], known: Iterable[str]) -> str:
    """Return a name with its placeholders filled in; ``{{`` is a brace.

    Raises
    ------
    UsageError
        If a placeholder is not known or has no value here, or a brace stands alone.
    """

    def one(part: re.Match[str]) -> str:
        text = part[0]
        if text in ("{{", "}}"):
            return text[0]
        if text[0] not in "{}":
            return text
        value = values.get(_placeholder(text, known))
        if value is None:
            give = "" if text == "{name}" else f"give {text[1:-1]}, or "
            raise UsageError(f"{text} has no value here: {give}put {text} in path")
        return str(value)

    return _PARTS.sub(one, template)


def _placeholder(text: str, known: Iterable[str]) -> str:
    names = tuple(known)
    if len(text) < 2:
        raise UsageError(f"a brace stands alone; write {text * 2} for a brace in a name")
    if text[1:-1] not in names:
        there = ", ".join("{" + n + "}" for n in names)
        raise UsageError(f"unknown placeholder {text}{nearby(text[1:-1], names) or f'; there are {there}'}")
    return text[1:-1]


# --- what a pattern finds ---------------------------------------------------------------------------------------


def find_models(folder: str, pattern: str) -> list[Match]:
    """Return the files that a path relative to `folder` names, numbers in them in natural order.

    A path that is there is taken as it is written; else ``*`` and ``?`` stand for characters within one part of the
    path, ``**`` for any folders, and ``{name}``, ``{family}``, ``{seed}``, ``{step}`` for one part or some of it, which
    is captured (seed and step: digits).

    Raises
    ------
    UsageError
        If there is no such file, the pattern matches none, is malformed, or the address cannot be read.
    """
    full = located(folder, pattern)
    if is_remote(full):
        return _remote(full)
    if os.path.isfile(full):
        return [Match(existing(folder, pattern, folders=False), {})]
    if os.path.isdir(full):
        advice = as_written(pattern)
        raise UsageError(f"expected an ONNX file, this is a folder; {advice!r} would take the files in it")
    if not _is_pattern(pattern):
        raise UsageError(f"no such file: {as_typed(full)!r}{_near_file(full)}{_home(pattern)}")
    prefix = full[: len(full) - len(pattern)].replace(os.sep, "/")
    wanted = re.compile(re.escape(prefix) + _regex(pattern.replace(os.sep, "/")))
    paths = glob.iglob(glob.escape(full[: len(full) - len(pattern)]) + _glob(pattern), recursive=True)
    found = [m for p in paths if (m := _captured(wanted, p)) and os.path.isfile(p) and _wanted_kind(pattern, p)]
    if not found:
        raise UsageError(f"no file matches {as_typed(full)!r}{_home(pattern)}")
    return [_checked(Match(as_typed(m.path), m.captured)) for m in sorted(found, key=lambda m: _natural(m.path))]


def as_written(folder: str) -> str:
    """Return the pattern of the ONNX files in a folder."""
    return f"{folder.rstrip('/')}/*{ONNX}"


def _remote(full: str) -> list[Match]:
    import fsspec

    # an http address has question marks of its own, and a server lists no files
    literal = not _is_pattern(full) or full.startswith(("http://", "https://")) or "::" in full
    there, paths = False, list[str]()
    try:
        files, path = fsspec.core.url_to_fs(full)
        there = bool(files.exists(path))
        if there and files.isdir(path):
            raise UsageError(f"expected an ONNX file, this is a folder; {as_written(full)!r} takes the files in it")
        if not there and not literal:
            wanted = re.compile(_regex(path))
            paths = files.glob(_glob(path), detail=False)
    except UsageError:
        raise
    except ImportError as error:
        raise UsageError(f"this address needs a package that is not here: {error}") from None
    except Exception as error:  # every file system has errors of its own
        raise UsageError(f"cannot be reached: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    if there:
        return [Match(full, {})]
    if literal:
        raise UsageError(f"no such file: {full!r}")
    scheme = full[: len(full) - len(path)] if full.endswith(path) else ""
    found = [m for p in sorted(paths, key=_natural) if (m := _captured(wanted, p)) and _wanted_kind(full, p)]
    if not found:
        raise UsageError(f"no file matches {full!r}")
    return [Match(scheme + m.path if scheme else str(files.unstrip_protocol(m.path)), m.captured) for m in found]


def _is_pattern(path: str) -> bool:
    return any(c in path for c in "*?{}")


def _regex(pattern: str) -> str:
    """Return the regular expression of a pattern; a placeholder that comes again stands for the same."""
    out, at, seen = "", 0, set[str]()
    for part in _PARTS.finditer(pattern):
        out += re.escape(pattern[at : part.start()])
        at = part.end()
        text = part[0]
        if text == "**":
            out += ".*"
        elif text in "*?":
            out += "[^/]*" if text == "*" else "[^/]"
        elif text in ("{{", "}}"):
            out += re.escape(text[0])
        else:
            name = _placeholder(text, PLACEHOLDERS)
            part_of = "[0-9]+" if name in _DIGITS else "[^/]+?"
            out += f"(?P={name})" if name in seen else f"(?P<{name}>{part_of})"
            seen.add(name)
    out += re.escape(pattern[at:])
    return out.replace(".*/", "(?:.*/)?")  # ** may stand for no folder at all


def _glob(pattern: str) -> str:
    """Return the pattern as `glob` reads it, which sees no placeholders and brackets as sets."""

    def one(part: re.Match[str]) -> str:
        text = part[0]
        return text if text[0] in "*?" else text[0] if text in ("{{", "}}") else "*"

    return _PARTS.sub(one, pattern.replace("[", "[[]"))


def _captured(wanted: re.Pattern[str], path: str) -> Match | None:
    found = wanted.fullmatch(path.replace(os.sep, "/"))
    return Match(path, found.groupdict()) if found else None


def _wanted_kind(pattern: str, path: str) -> bool:
    """Say whether a file's ending was asked for: a pattern that leaves it open means ONNX files."""
    ending = re.search(r"\.[A-Za-z0-9]+$", pattern)
    return ending is not None or path.lower().endswith(ONNX)


def _natural(path: str) -> list[Any]:
    """Sort step10 after step2."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", path))]


def _checked(match: Match) -> Match:
    try:
        match.path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the file name {match.path!r} is no UTF-8; rename the file") from None
    return match


def _near_file(full: str) -> str:
    folder, name = os.path.split(full)
    try:
        there = os.listdir(folder or ".")
    except (OSError, ValueError):
        return f"; there is no folder {as_typed(folder)!r}"
    return nearby(name, there)


def _home(path: str) -> str:
    return "; '~' is not read as your home folder: write the path out" if path.startswith("~") else ""


def existing(folder: str, path: str, *, folders: bool) -> str:
    """Return a path relative to `folder` as one would type it here; remote addresses as they are.

    Raises
    ------
    UsageError
        If nothing is there, a file is empty, or it is a folder and none is wanted.
    """
    full = located(folder, path)
    if is_remote(full):
        return full
    if not os.path.exists(full):
        raise UsageError(f"no such file{' or folder' * folders}: {as_typed(full)!r}{_near_file(full)}{_home(path)}")
    if os.path.isdir(full) and not folders:
        raise UsageError("expected a file, this is a folder")
    if os.path.isfile(full) and os.path.getsize(full) == 0:
        raise UsageError("the file is empty (0 bytes)")
    return _checked(Match(as_typed(full), {})).path
