"""A suite as it was resolved, in TOML: it loads back to an equal suite."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from geed_onnx.suites.paths import is_remote
from geed_onnx.suites.suite import SUITE_SCHEMA, Suite


def suite_toml(suite: Suite, folder: str | os.PathLike[str] | None = None) -> str:
    """Return a suite as TOML, every pattern followed and every default written out.

    `load_suite` of it is an equal suite from any working directory (paths as one would type them there), as long as the
    files stay where they are.

    Parameters
    ----------
    folder
        Where the text will be a file. At or below the working directory, `root` leads from there to the working
        directory and names no folder above it; without it, and elsewhere, `root` is the working directory's full path.
    """
    import tomli_w

    document: dict[str, Any] = {
        "schema": SUITE_SCHEMA,
        "title": suite.title,
        "output": suite.output,
        "root": _root(folder),
        "groups": list(suite.groups),
        "samples": None if suite.samples == (None,) else list(suite.samples),
        "seeds": list(suite.seeds),
        "variants": _plain_value(suite.settings.variants),
        "baseline": suite.baseline,
        "measure": _written(suite.settings) | _written(suite.runtime) | dict.fromkeys(("variants", "samples", "seed")),
        "models": [_written(m) | {"name": _plain(m.name), "family": _plain(m.family)} for m in suite.models],
        "data": [_written(d) for d in suite.data],
        "thresholds": [
            {("worse_by" if t.relative else "below" if t.below else "above"): t.limit}
            | _written(t)
            | {"limit": None, "relative": None, "below": t.limit if t.below else None}
            for t in suite.thresholds
        ]
        or None,
    }
    return tomli_w.dumps(_without_none(document))


def _root(folder: str | os.PathLike[str] | None) -> str:
    here = os.getcwd()
    if folder is None or is_remote(os.fspath(folder)):
        return here
    there = os.path.abspath(folder)
    try:
        below = os.path.commonpath([here, there]) == here
    except ValueError:  # another drive
        below = False
    return os.path.relpath(here, there) if below else here


def _written(entry: Any) -> dict[str, Any]:
    return {f.name: _plain_value(getattr(entry, f.name)) for f in fields(entry)}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain_value(v) for k, v in value.items()} or None
    return [_plain_value(v) for v in value] if isinstance(value, (tuple, list)) else value


def _plain(name: str | None) -> str | None:
    """Return a name whose braces are braces."""
    return None if name is None else name.replace("{", "{{").replace("}", "}}")


def _without_none(value: Any) -> Any:
    """Return tables without the keys that say nothing: TOML has no null."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value
