"""From the text of a suite to plain tables: TOML, YAML or JSON, with the place of what cannot be read."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from geed_onnx.suites.faults import Fault, SuiteError, place, unexpected
from geed_onnx.suites.paths import is_remote

if TYPE_CHECKING:
    import yaml

#: A suite of ten thousand models is far below it.
LARGEST_BYTES = 4_000_000
#: What aliases of a YAML file may come to once they are followed.
MOST_NODES = 200_000
SUFFIXES = (".toml", ".yaml", ".yml", ".json")
#: The booleans, numbers and nulls of YAML 1.2: in 1.1 the key `on` would be true, and `1e-3` a text.
CORE = (
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", r"^(?:[-+]?[0-9]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    ("tag:yaml.org,2002:merge", r"^<<$", ["<"]),
)


class _Unreadable(Exception):
    """A text that is none of its format: what is wrong, and in which line and column (from 1)."""

    def __init__(self, said: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(said)
        self.line, self.column = line, column


def read_document(path: str) -> dict[str, Any]:
    """Return the tables of a suite; the suffix says whether they are written in TOML, YAML or JSON.

    Raises
    ------
    SuiteError
        If the file cannot be read, is no UTF-8 text, or breaks the rules of its format: line and column are named.
    """
    suffix = PurePosixPath(path.replace(os.sep, "/")).suffix.lower()
    if suffix not in SUFFIXES:
        raise _at_all(path, f"a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    text = _text(path)
    if not text.strip():
        raise _at_all(path, "at least groups, [[models]] and [[data]]", "; the file is empty")
    try:
        found = {".toml": _toml, ".json": _json}.get(suffix, _yaml)(text)
    except _Unreadable as error:
        raise SuiteError(path, [_syntax(error, suffix, text, path)]) from None
    except RecursionError:
        raise _at_all(path, "tables in tables", "; these are nested too deeply") from None
    except ValueError as error:
        raise _at_all(path, f"{suffix[1:].upper()} text", f"; {error}") from None
    if not isinstance(found, dict):
        raise _at_all(path, "a table with groups, models and data", f"; this is a {type(found).__name__}")
    if faults := _nameless(found, ""):
        raise SuiteError(path, faults)
    return found


def _at_all(path: str, expected: str, more: str = "") -> SuiteError:
    return SuiteError(path, [unexpected("(file)", path, expected, more)])


def _text(path: str) -> str:
    try:
        if is_remote(path):
            import fsspec

            with fsspec.open(path, "rb") as file:
                found: bytes = file.read(LARGEST_BYTES + 1)
        else:
            with open(path, "rb") as file:
                found = file.read(LARGEST_BYTES + 1)
    except IsADirectoryError:
        raise _at_all(path, "a file", "; this is a folder") from None
    except OSError as error:
        raise _at_all(path, "a file that can be read", f"; {(error.strerror or str(error)).lower()}") from None
    except (ValueError, ImportError) as error:
        raise _at_all(path, "an address that fsspec can read", f"; {error}") from None
    if len(found) > LARGEST_BYTES:
        raise _at_all(path, f"at most {LARGEST_BYTES // 1_000_000} MB of text")
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _at_all(
            path, "UTF-8 text", f"; byte {error.start} is 0x{found[error.start]:02x}: save the file as UTF-8"
        ) from None


def _syntax(error: _Unreadable, suffix: str, text: str, path: str) -> Fault:
    form = {".yml": "YAML"}.get(suffix, suffix[1:].upper())
    if error.line is None:
        return unexpected("(file)", path, f"{form} text", f"; {error}")
    lines = text.splitlines()
    line = lines[error.line - 1].strip() if error.line <= len(lines) else ""
    column = "" if error.column is None else f", column {error.column}"
    return unexpected(f"line {error.line}{column}", line, f"{form} text", f"; {error}")


def _nameless(found: Any, where: str) -> list[Fault]:
    """Return a fault for every key that is no text (YAML has others)."""
    faults: list[Fault] = []
    if isinstance(found, dict):
        for key, value in found.items():
            if isinstance(key, str):
                faults += _nameless(value, place(where, key))
            else:
                faults.append(unexpected(where or "(file)", key, "a key that is text", "; put it in quotes"))
    elif isinstance(found, list):
        for i, value in enumerate(found):
            faults += _nameless(value, place(where, i))
    return faults


# --- formats ----------------------------------------------------------------------------------------------------


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        at = re.search(r" \(at line (\d+), column (\d+)\)$", said)
        if at:
            raise _Unreadable(said[: at.start()], int(at[1]), int(at[2])) from None
        raise _Unreadable(said.removesuffix(" (at end of document)"), len(text.splitlines())) from None


def _json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise _Unreadable(f"the key {key!r} is there twice")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise _Unreadable(error.msg, error.lineno, error.colno) from None


def _yaml(text: str) -> Any:
    import yaml

    loader = _loader()(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}
        _weigh(node)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = error.problem or str(error).splitlines()[0]
        raise _Unreadable(said, *((mark.line + 1, mark.column + 1) if mark else ())) from None
    except yaml.YAMLError as error:
        raise _Unreadable(str(error).splitlines()[0]) from None
    finally:
        loader.dispose()


def _weigh(root: yaml.Node) -> None:
    """Refuse aliases that come to too much once they are followed, or that lead back to themselves."""
    weights: dict[int, int] = {}
    open_: set[int] = set()

    def weight(node: yaml.Node) -> int:
        if id(node) in open_:
            raise _Unreadable("an alias leads back to itself", node.start_mark.line + 1, node.start_mark.column + 1)
        if id(node) not in weights:
            open_.add(id(node))
            parts = node.value if isinstance(node.value, list) else []
            weights[id(node)] = 1 + sum(
                sum(map(weight, part)) if isinstance(part, tuple) else weight(part) for part in parts
            )
            open_.discard(id(node))
        return weights[id(node)]

    if weight(root) > MOST_NODES:
        raise _Unreadable(f"its aliases come to more than {MOST_NODES} values once they are followed")


def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.2's scalars, and no key twice."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  as PyYAML declares it

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        raise yaml.MarkedYAMLError(
                            problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                        )
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

        def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
            text = str(self.construct_scalar(node))
            return int(text, 16) if text.startswith("0x") else int(text)

        def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
            return float(str(self.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_yaml_float)
    for tag, form, first in CORE:
        Loader.add_implicit_resolver(tag, re.compile(form), first)
    return Loader
