"""A cell's key: a hash of everything its number depends on, and of nothing else.

Not of paths, addresses or names, of batch size, threads or workers, nor of which other taps were drawn off with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from geed_onnx.actions import Declared
from geed_onnx.engine.plan import Plan
from geed_onnx.engine.targets import Target
from geed_onnx.results import SCHEMA
from geed_onnx.variants import Variant

#: Counted up when a number comes out otherwise for the same cell, so that what was measured before is measured anew.
STATISTICS = 2


def plan_facts(plan: Plan, sample: str, points: str) -> dict[str, Any] | None:
    """Return what the cells of a plan depend on, as JSON; None where the model is no file.

    `sample` and `points` are the fingerprints of the sample's images and of the spread points outside it.
    """
    if plan.opened.model.get("sha256") is None:
        return None
    settings = plan.settings
    feed = plan.feed
    clustered: dict[str, Any] = {}
    if plan.units is not None:
        units = list(plan.units.items())
        clustered = {"cluster": plan.request.data.cluster, "units": sorted(units[: len(plan.indices)])}
        clustered["points"] = [points, sorted(units[len(plan.indices) :])]
    return {
        "schema": SCHEMA,
        "statistics": STATISTICS,
        "model": plan.opened.model["sha256"],
        "input": plan.opened.input,
        "constants": {name: _hashed(value) for name, value in sorted(plan.opened.constants.items())},
        "data": sample,
        "points": points,
        "preprocessing": feed.preprocessing.to_json() if feed.preprocessing else "as is",
        "layout": feed.layout,
        "group": plan.group.name,
        "samples": len(plan.indices),
        "order": settings.samples == "all",
        "mask": plan.masked,
        **settings.keyed,
        **clustered,
        "provider": plan.session.facts.provider,
        "tf32": plan.session.facts.tf32,
    }


def cell_key(facts: Mapping[str, Any] | None, plan: Plan, target: Target, variant: Variant) -> str | None:
    """Return the key of one (tap, variant) of the plan."""
    if facts is None:
        return None
    shared = {k: v for k, v in facts.items() if k != "points"}
    act = plan.acts.get(target.name, variant.action)
    return hashed(
        {
            **shared,
            "tap": [target.name, target.kind, target.layout, target.logits],
            "action": _declared(act) if isinstance(act, Declared) else act,
            "variant": [variant.name, variant.distance, variant.normaliser],
            # M is over other images too; what is not relative to M does not depend on them
            "spread": [facts["points"], len(plan.spread_indices)] if variant.scale.spread else None,
        }
    )


def hashed(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of facts as JSON with sorted names."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _declared(act: Declared) -> dict[str, Any]:
    return {
        "group": act.group.name,
        "fields": [[f.count, [_hashed(image) for image in f.images]] for f in act.fields],
        "pixels": act.pixels,
        "order": act.order,
    }


def _hashed(value: Any) -> str:
    array = np.ascontiguousarray(value)
    return hashlib.sha256(repr((array.dtype.str, array.shape)).encode() + array.tobytes()).hexdigest()
