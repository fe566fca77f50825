"""The page, put together: one file that opens from disk and asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from geed_onnx.errors import UsageError
from geed_onnx.gates import Verdict
from geed_onnx.reports.page import summary
from geed_onnx.reports.page.contents import contents_of
from geed_onnx.reports.page.payload import as_json, payload
from geed_onnx.reports.page.section import Section
from geed_onnx.reports.table import clean
from geed_onnx.results import Collection, writable, write_text

SCRIPTS = ("charts.js", "tables.js", "drawing.js", "explore.js", "page.js")
#: What the page itself calls its parts.
TAKEN = ("top", "thresholds", "reasons", "depth", "profile", "side-by-side", "training", "results", "provenance")


def write_page(
    collection: Collection,
    target: str | os.PathLike[str],
    *,
    sections: Sequence[Section] = (),
    verdict: Verdict | None = None,
    unjudged: str | None = None,
    title: str | None = None,
) -> None:
    """Write the page of a run, whole or not at all.

    Parameters
    ----------
    collection
        The results, and where there are any `run.json` and `suite.toml`.
    sections
        Further parts, after the training curves: trusted HTML, whose tables become sortable too.  Scripts in it do not
        run.
    verdict
        What `gates.judge` made of the results and their thresholds.
    unjudged
        Why thresholds that there are could not be judged.
    title
        By default the suite's title, or how many models there are.

    Raises
    ------
    DataError
        If a result holds something else than its schema says.
    UsageError
        If the page cannot be written there.
    """
    page_target(target)
    text = page_html(collection, sections=sections, verdict=verdict, unjudged=unjudged, title=title)
    write_text(target, text, "the page")


def page_target(target: str | os.PathLike[str]) -> Path:
    """Return the path if a page can be written there, so that nothing is drawn in vain.

    Raises
    ------
    UsageError
        If it is a folder, its folder is missing, or it may not be written.
    """
    return writable(target, "the page")


def page_html(
    collection: Collection,
    *,
    sections: Sequence[Section] = (),
    verdict: Verdict | None = None,
    unjudged: str | None = None,
    title: str | None = None,
) -> str:
    """Return the page as text; the same collection makes the same page."""
    import jinja2
    from markupsafe import Markup

    from geed_onnx import __version__

    _check(sections)
    contents = contents_of(collection.results)
    scripts = [_read("vega/vega.js"), application()]
    levels = {r.level for r in collection.results}
    explore = any(c.slot is not None for c in contents.cells)
    values: dict[str, Any] = {
        "policy": policy(scripts),
        "css": Markup(_read("page.css")),
        "title": clean(title) if title else summary.page_title(collection, contents),
        "lead": summary.lead(contents),
        "verdicts": summary.banners(contents, verdict, unjudged),
        "facts": summary.facts(contents),
        "thresholds": summary.thresholds(verdict),
        "judged": summary.judged_lists(verdict),
        "reasons": summary.reasons(contents),
        "explore": explore,
        "failed": bool(contents.cells),
        "level": f"{100 * levels.pop():g} %" if len(levels) == 1 else "stated",
        "unit": summary.unit(contents),
        "families": bool(contents.means),
        "training": bool(contents.runs),
        "sections": [{"id": s.id, "title": clean(s.title), "html": Markup(s.html)} for s in sections],
        "repeated": contents.repeated,
        "models": summary.model_rows(contents),
        "data": summary.data_rows(contents),
        "runtimes": summary.runtime_rows(contents),
        "notes": summary.note_rows(contents),
        "methods": summary.methods(contents),
        "run": summary.run_text(collection),
        "suite": summary.pretty(collection.suite or ""),
        "uri": clean(collection.uri),
        "version": __version__,
        "payload": Markup(as_json(payload(contents))),
        "scripts": [Markup(s) for s in scripts],
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_read("page.html")).render(values)


def _check(sections: Sequence[Section]) -> None:
    ids = [*TAKEN, *(s.id for s in sections)]
    for s in sections:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", s.id) or ids.count(s.id) > 1:
            raise UsageError(f"section {s.id!r}: expected an id of letters, digits and hyphens, once on the page")


@cache
def application() -> str:
    """Return the page's own script."""
    return '(() => {\n"use strict";\n' + "\n".join(map(_read, SCRIPTS)) + "\n})();"


def policy(scripts: Sequence[str]) -> str:
    """Return a policy that lets these scripts run and no other, and nothing be fetched."""
    hashes = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
        " form-action 'none'"
    )


@cache
def _read(name: str) -> str:
    return files("geed_onnx.reports.page").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")
