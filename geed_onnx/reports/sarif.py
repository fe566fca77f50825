"""A verdict as SARIF 2.1.0: a rule for every threshold, a result for everything that crossed one."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from geed_onnx.gates import Judged, Threshold, Verdict
from geed_onnx.reports.gate import writer
from geed_onnx.reports.table import clean
from geed_onnx.results import Result

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(verdict: Verdict) -> str:
    """Return the SARIF log, as strict JSON.

    Each result is placed at its model's file.  Its fingerprint holds what was measured and not the number, so that a
    viewer knows the same finding again in the next run.  Failed cells that no threshold is for are notifications of
    the run, which then counts as not successful.
    """
    from geed_onnx import __version__

    rules = verdict.thresholds
    run = {
        "tool": {
            "driver": {"name": "geed-onnx", "version": __version__, "rules": [_rule(t, rules) for t in rules]},
        },
        "invocations": [
            {
                "executionSuccessful": not verdict.failed,
                "toolExecutionNotifications": [_notification(r) for r in verdict.failed],
            }
        ],
        "results": [_result(j, rules) for j in verdict.crossed],
    }
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


write_sarif = writer(sarif)


def uri_of(path: str) -> str:
    """Return a path as a URI reference, percent-encoded.

    A relative path stays relative (to the root of the sources), an absolute one becomes ``file:///…``, an address with
    a scheme keeps it.  Bytes that are no UTF-8 are encoded as they are.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        scheme, _, rest = path.partition("://")
        return f"{scheme}://{quote(rest.encode('utf-8', 'surrogateescape'), safe='/:@')}"
    pure = PurePath(path)
    encoded = quote(_bytes(pure.as_posix()), safe="/")
    return f"file://{'' if encoded.startswith('/') else '/'}{encoded}" if pure.is_absolute() else encoded


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace")


def _rule_id(threshold: Threshold, rules: tuple[Threshold, ...]) -> str:
    """Return an id that stays when the limit is changed, unless two rules differ in nothing else."""
    others = [getattr(threshold, name) for name in ("model", "group", "data")]
    way = ["below"] if threshold.below else []
    plain = clean("/".join([*way, threshold.subject, *(o for o in others if o != "*")]))
    mine = (threshold.below, threshold.subject, *others)
    alike = [t for t in rules if (t.below, t.subject, t.model, t.group, t.data) == mine]
    return plain if len(alike) == 1 else f"{plain}={'+' if threshold.relative else ''}{threshold.limit:g}"


def _rule(threshold: Threshold, rules: tuple[Threshold, ...]) -> dict[str, Any]:
    limit = (
        f"at most {100 * threshold.limit:g} % worse than the baseline's deviation above the optimum"
        if threshold.relative
        else f"at {'least' if threshold.below else 'most'} {threshold.limit:g}"
    )
    return {
        "id": _rule_id(threshold, rules),
        "shortDescription": {"text": clean(f"{threshold.subject}: {limit}")},
        "fullDescription": {
            "text": clean(
                f"The equivariance deviation {threshold.text} of every result that it is for; judged at the"
                f" {'upper' if threshold.below else 'lower'} end of the interval over images"
                f"{', crossed where it is not shown to be within the limit' if threshold.prove else ''}, and crossed"
                " where there is no value."
            )
        },
        "defaultConfiguration": {"level": "error"},
    }


def _result(j: Judged, rules: tuple[Threshold, ...]) -> dict[str, Any]:
    r = j.result
    where = f"{r.label}, {r.group['name']}, {r.data['samples']} images of {r.data['uri']}"
    facts = {"observed": j.observed, "low": j.low, "high": j.high, "limit": j.limit}
    return {
        "ruleId": _rule_id(j.threshold, rules),
        "ruleIndex": rules.index(j.threshold),
        "level": "error",
        "message": {"text": clean(f"{j.message} ({where})")},
        "locations": [_location(r)],
        "partialFingerprints": {"geedCell/v1": _fingerprint(j)},
        "properties": {k: v for k, v in facts.items() if v is not None and abs(v) != float("inf")},
    }


def _location(r: Result) -> dict[str, Any]:
    tap = clean(r.tap["name"])
    place: dict[str, Any] = {"logicalLocations": [{"name": tap, "fullyQualifiedName": f"{clean(r.label)}/{tap}"}]}
    path = r.model.get("path")
    if path:
        # code scanning shows nothing without a line, which a binary file has not: the first stands for the file
        place["physicalLocation"] = {"artifactLocation": {"uri": uri_of(str(path))}, "region": {"startLine": 1}}
    return place


def _notification(r: Result) -> dict[str, Any]:
    said = f"{r.variant} of {r.tap['name']} was not measured: {r.reason}"
    return {
        "level": "error",
        "message": {"text": clean(f"{said} ({r.label}, {r.group['name']})")},
        "locations": [_location(r)],
    }


def _fingerprint(j: Judged) -> str:
    r = j.result
    parts = [r.label, r.group["name"], r.data["uri"], r.tap["name"], j.threshold.on, r.variant, j.threshold.relative]
    return hashlib.sha256(json.dumps([str(p) for p in parts]).encode()).hexdigest()
