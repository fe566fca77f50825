"""The page's words: what was measured, what was judged, what has no number, where it all comes from."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geed_onnx.gates import Judged, Threshold, Verdict
from geed_onnx.reports.gate import limit_of
from geed_onnx.reports.page.contents import Contents
from geed_onnx.reports.table import IN_DISC, clean, images_of, number, open_ends, some
from geed_onnx.results import Collection, Result

#: Numbers that crossed, or are undecided, that are written out.
JUDGED_ROWS = 200


@dataclass(frozen=True)
class Banner:
    """One line at the top; `tone` is `good`, `bad` or empty."""

    tone: str
    headline: str
    text: str


Rows = list[dict[str, Any]]


def counted(count: int, noun: str) -> str:
    """Return `1 model`, `2 models`."""
    return f"{count} {noun if count == 1 else noun + 's'}"


def page_title(collection: Collection, contents: Contents) -> str:
    """Return the suite's title, or what the models are."""
    try:
        title = tomllib.loads(collection.suite or "").get("title")
    except tomllib.TOMLDecodeError:
        title = None
    if isinstance(title, str) and title.strip():
        return clean(title.strip())
    models = contents.models
    if len(models) == 1:
        return f"Equivariance of {models[0].label}"
    return f"Equivariance of {counted(len(models), 'model')}" if models else "Equivariance: no results"


def lead(contents: Contents) -> str:
    """Return the sentence under the title."""
    if not contents.cells:
        return "Nothing was measured: the run holds no results."
    groups = list(dict.fromkeys(c.group for c in contents.contexts))
    data = list(dict.fromkeys(c.data.rstrip("/").rpartition("/")[2] or c.data for c in contents.contexts))
    counts = {c.images for c in contents.contexts if c.samples != "0"}
    images = f"{counts.pop()} of " if len(counts) == 1 else ""
    masks = {c.others.masked for c in contents.contexts if c.samples != "0"}
    disc = "" if True not in masks else f", {IN_DISC}" if len(masks) == 1 else f", some of it {IN_DISC}"
    return f"{counted(len(contents.models), 'model')} under {some(groups)}, on {images}{some(data)}{disc}."


def facts(contents: Contents) -> list[dict[str, str]]:
    """Return the boxes at the top: name, short, long."""
    models, contexts = contents.models, contents.contexts
    groups = list(dict.fromkeys(c.group for c in contexts))
    data = list(dict.fromkeys(f"{c.images} of {c.data}" for c in contexts))
    variants = list(dict.fromkeys(c.variant for c in contents.cells if c.slot is not None))
    families = list(dict.fromkeys(m.family for m in models if m.family is not None))
    found = [
        ("Models", str(len(models)), some([m.label for m in models])),
        ("Images", data[0].partition(" of ")[0] if len(data) == 1 else counted(len(data), "set"),
         data[0].partition(" of ")[2] if len(data) == 1 else some(data)),
        ("Groups", some(groups), some([counted(len(c.elements.names), "element") for c in contexts][: len(groups)])
         if len(groups) == 1 else ""),
        ("Taps", str(len(contents.slots)), some([s.label for s in contents.slots], 9)),
        ("Variants", str(len(variants)), some(variants)),
    ]  # fmt: skip
    if families:
        found.append(("Families", str(len(families)), some(families)))
    if contents.runs:
        steps = sorted({step for run in contents.runs for step, _ in run.points})
        found.append(("Checkpoints", counted(len(steps), "step"), f"{steps[0]:g} to {steps[-1]:g}"))
    return [{"name": n, "short": s, "long": long} for n, s, long in found if contents.cells]


def banners(contents: Contents, verdict: Verdict | None, unjudged: str | None = None) -> list[Banner]:
    """Return what must be seen first: thresholds and failed cells."""
    found = []
    if unjudged is not None:
        found.append(Banner("bad", "✕ Thresholds could not be judged.", clean(unjudged)))
    if verdict is None or not verdict.judged:
        if unjudged is None:
            found.append(Banner("", "No thresholds were set.", "Nothing was judged."))
    else:
        numbers, total = counted(len(verdict.judged), "number"), len(verdict.thresholds)
        bad = {j.threshold for j in verdict.crossed}
        unsure = len(verdict.undecided)
        open_ = f" {unsure} undecided: the limit lies in the interval." if unsure else ""
        against = f" Held against the baseline {clean(verdict.baseline)}." if verdict.baseline else ""
        if bad:
            head = f"{len(bad)} of {counted(total, 'threshold')} {'is' if len(bad) == 1 else 'are'} crossed"
            said = f"{len(verdict.crossed)} of {numbers} lie beyond, or nothing shows that they hold."
            found.append(Banner("bad", f"✕ {head}.", f"{said}{open_}{against}"))
        elif unsure:
            head = "The threshold is not crossed" if total == 1 else f"None of {total} thresholds is crossed"
            found.append(Banner("", f"? {head}.", f"{numbers} judged.{open_}{against}"))
        else:
            hold = "The threshold holds" if total == 1 else f"All {total} thresholds hold"
            found.append(Banner("good", f"✓ {hold}.", f"{numbers} judged.{against}"))
    results = [c.reading for c in contents.cells]
    failed = sum(r.failed for r in results)
    if failed:
        found.append(Banner("bad", f"✕ {failed} of {counted(len(results), 'cell')} failed.", "The reasons are below."))
    return found


def thresholds(verdict: Verdict | None) -> Rows:
    """Return one row for each threshold."""
    rows: Rows = []
    for t in verdict.thresholds if verdict is not None else ():
        mine = [j for j in verdict.worst_first if j.threshold == t] if verdict is not None else []
        counts = {"held": len(mine), "crossed": sum(j.crossed for j in mine),
                  "undecided": sum(j.outcome == "undecided" for j in mine)}  # fmt: skip
        rows.append({"text": threshold_text(t), **counts, "worst": clean(mine[0].message)})
    return rows


def threshold_text(t: Threshold) -> str:
    """Return a threshold in words, with what it is for where that is not everything."""
    on = "calibrated " if t.on == "calibrated" else ""
    limit = f"{100 * t.limit:g} % worse than the baseline" if t.relative else f"{t.limit:g}"
    scopes = (("tap", t.tap), ("model", t.model), ("group", t.group), ("data", t.data))
    only = "".join(f", {what} {glob}" for what, glob in scopes if glob != "*")
    strict = "".join(f", {word}" for word, is_set in (("proven", t.prove), ("family-wise", t.family_wise)) if is_set)
    return clean(f"{on}{t.variant} at {'least' if t.below else 'most'} {limit}{only}{strict}")


def judged_lists(verdict: Verdict | None) -> Rows:
    """Return what crossed and what else is undecided: name, title, rows, the worst first, and how many more."""
    every = verdict.worst_first if verdict is not None else ()
    lists = {
        ("crossed", "What crossed"): [j for j in every if j.crossed],
        ("undecided", "What is undecided"): [j for j in every if j.outcome == "undecided" and not j.crossed],
    }
    return [
        {
            "name": name,
            "title": title,
            "rows": [_judged(j) for j in some[:JUDGED_ROWS]],
            "more": len(some) - JUDGED_ROWS,
        }
        for (name, title), some in lists.items()
        if some
    ]


def _judged(j: Judged) -> dict[str, Any]:
    return {
        "names": [clean(n) for n in (j.result.label, j.result.tap["name"], j.result.variant, j.result.group["name"])],
        "numbers": [(number(j.observed), j.observed), (number(j.end), j.end), (limit_of(j), j.limit)],
        "message": clean(j.message),
    }


def reasons(contents: Contents) -> Rows:
    """Return why numbers are missing: what is missing, how often, where."""
    groups: dict[tuple[str, str], list[str]] = {}
    for c in contents.cells:
        r = c.reading
        why = r.reason if r.value is None else r.why_uncalibrated
        what = "failed" if r.failed else "no value" if r.value is None else "not calibrated" if why else None
        if what is not None:
            tap = "all taps" if c.tap == "*" else c.tap
            where = f"{contents.entities[c.entity].label}: {tap}"
            groups.setdefault((what, clean(why or "no reason was given")), []).append(where)
    order = ("failed", "no value", "not calibrated")
    return [
        {"what": what, "reason": reason, "count": len(where), "where": some(list(dict.fromkeys(where)), 4)}
        for (what, reason), where in sorted(groups.items(), key=lambda item: order.index(item[0][0]))
    ]


def model_rows(contents: Contents) -> Rows:
    """Return the models' files."""
    return [
        {"label": m.label, **{k: clean(_said((m.model or {}).get(k))) for k in ("path", "producer", "sha256")}}
        for m in contents.models
    ]


def data_rows(contents: Contents) -> Rows:
    """Return the images: how many, which, and how they were made the models' input."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for r in _results(contents):
        if r.failed:
            continue
        row = {
            "uri": clean(r.data["uri"]),
            "samples": str(r.samples) if r.units is None else images_of(r.samples, r.units),
            "seed": str(r.seed),
            "fingerprint": clean(_said(r.data.get("fingerprint"))),
            "preprocessing": clean(
                ", ".join(filter(None, (_said(r.data.get("preprocessing")), IN_DISC if r.data.get("mask") else "")))
            ),
        }
        found.setdefault(tuple(row.values()), row)
    return list(found.values())


def runtime_rows(contents: Contents) -> Rows:
    """Return what the models ran on, and how many results came of it."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for r in _results(contents):
        if not r.runtime:
            continue
        versions = r.runtime.get("versions")
        own = {"geed-onnx": r.runtime.get("geed_onnx")} if r.runtime.get("geed_onnx") else {}
        apart = ("provider", "versions", "geed_onnx", "notes")
        settings = {k: v for k, v in r.runtime.items() if k not in apart}
        both = {**own, **(versions if isinstance(versions, Mapping) else {})}
        counts[clean(_said(r.runtime.get("provider"))), clean(_said(both)), clean(_said(settings))] += 1
    return [{"provider": p, "versions": v, "settings": s, "count": n} for (p, v, s), n in counts.items()]


def note_rows(contents: Contents) -> Rows:
    """Return every note once, and how many results carry it."""
    counts: Counter[str] = Counter(clean(note) for r in _results(contents) for note in r.notes)
    return [{"text": text, "count": n} for text, n in counts.items()]


def unit(contents: Contents) -> str:
    """Return what intervals are over."""
    grouped = {c.others.units is not None for c in contents.contexts}
    return "images" if True not in grouped else "clusters" if False not in grouped else "images or clusters"


def methods(contents: Contents) -> str:
    """Return how the intervals were made, and what a dash for an end of one means."""
    results = [r for r in _results(contents) if r.value is not None]
    return clean("; ".join(dict.fromkeys([*(r.method for r in results), *open_ends(results)])))


def pretty(text: str) -> str:
    """Return text of several lines with all else that does not print spelled out."""
    return "\n".join(clean(line.replace("\t", "    ")) for line in text.replace("\r\n", "\n").split("\n"))


def run_text(collection: Collection) -> str:
    """Return run.json, laid out."""
    return pretty(json.dumps(collection.run, indent=2, ensure_ascii=False, default=str)) if collection.run else ""


def _results(contents: Contents) -> list[Result]:
    return [c.reading for c in contents.cells if isinstance(c.reading, Result)]


def _said(value: object) -> str:
    """Return a record in words: `height 29, width 29, colour grey`; what is None is left out."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_said(v)}" for k, v in value.items() if v is not None and v != [])
    if isinstance(value, list | tuple):
        return " ".join(map(_said, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
