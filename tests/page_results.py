"""Results made up for the page: every number given or drawn, no model run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geed_onnx.results import Collection, Result, write_results

HASH = "ab" * 32


def result(**changes: Any) -> Result:
    """One channelwise result of `model` at `tap`; `order` makes the deviations by element, of one floor and null."""
    model = {"path": changes.pop("path", "nets/one.onnx"), "sha256": changes.pop("sha256", HASH), "producer": "tests"}
    for name in ("name", "family", "model_seed", "step"):
        if name in changes:
            model[name.removeprefix("model_")] = changes.pop(name)
    group, order = changes.pop("group", "C4"), changes.pop("order", 4)
    value = changes.get("value", -0.7)
    elements = None if value is None else tuple(value + 0.1 * (g % 3 - 1) for g in range(order))
    facts: dict[str, Any] = {
        "model": model,
        "data": {"uri": changes.pop("data", "images/"), "fingerprint": changes.pop("fingerprint", "f" * 16),
                 "samples": 8, "preprocessing": {"height": 8, "width": 8}},
        "group": {"name": group, "order": order},
        "tap": {"name": changes.pop("tap", "block1"), "kind": changes.pop("kind", "map"), "shape": [4, 8, 8],
                "module": changes.pop("module", None), "action": "pixels"},
        "variant": "channelwise", "value": value, "low": None if value is None else value - 0.05,
        "high": None if value is None else value + 0.05, "level": 0.95, "method": "jackknife", "samples": 8,
        "optimum": -1.0, "spread": None, "floor": -0.98, "null": -0.4, "calibrated": 0.5, "calibrated_low": 0.4,
        "calibrated_high": 0.6, "per_element": elements, "law_defect": 0.0, "reason": None, "seed": 0,
        "runtime": {"provider": "CPUExecutionProvider", "versions": {"onnx": "1.0"}, "geed_onnx": "0.1.0"},
        "key": changes.pop("key", None),
    }  # fmt: skip
    facts = {**facts, **changes}
    for level in ("floor", "null"):
        known = facts[level] is not None and facts["per_element"] is not None
        facts.setdefault(f"{level}_per_element", (facts[level],) * len(facts["per_element"]) if known else None)
    return Result(**facts)


def before(r: Result) -> Result:
    """The result as lines held it before floor, null by element and the reason of the calibrated value were kept."""
    told = r.why_uncalibrated if r.reason is None else r.reason
    return replace(r, floor_per_element=None, null_per_element=None, calibrated_reason=None, reason=told)


def untrained(order: int = 2, group: str = "flip", **changes: Any) -> Result:
    """A network without any symmetry: each element but the identity, where f̂(x) is f(x), reads what its null does."""
    apart = tuple([-1.0] + [-0.5] * (order - 1))
    mean = sum(apart) / order
    facts = {"value": mean, "null": mean, "floor": -1.0, "calibrated": 1.0, "calibrated_low": 0.9,
             "calibrated_high": 1.1, "per_element": apart, "null_per_element": apart,
             "floor_per_element": (-1.0,) * order}  # fmt: skip
    return result(group=group, order=order, **{**facts, **changes})


def failed(**changes: Any) -> Result:
    nothing = dict.fromkeys(("value", "low", "high", "optimum", "floor", "null", "calibrated", "calibrated_low",
                             "calibrated_high", "per_element"))  # fmt: skip
    reason = changes.pop("reason", "the model does not run: no such file")
    given = {"tap": "*", "kind": None, "variant": "*", "sha256": None, "fingerprint": None, "samples": 0, **changes}
    return result(**nothing, failed=True, reason=reason, **given)


def collection(*results: Result, **facts: Any) -> Collection:
    return Collection("runs/made-up", tuple(results), **facts)


def many(models: int, taps: int, variants: int, order: int = 8, seed: int = 0) -> list[Result]:
    """models × taps × variants results with numbers drawn from a seed."""
    rng = np.random.default_rng(seed)
    found = []
    for m in range(models):
        for t in range(taps):
            for v in range(variants):
                low, value, high = sorted(rng.random(3))
                found.append(
                    result(
                        name=f"model {m}", path=f"nets/{m}.onnx", tap=f"layer{t}", variant=f"map:pixels:distance{v}",
                        value=value, low=low, high=high, calibrated=value, calibrated_low=low, calibrated_high=high,
                        per_element=tuple(rng.random(order).tolist()), group=f"C{order}", order=order,
                        key=f"{m}-{t}-{v}",
                    )
                )  # fmt: skip
    return found


def run_folder(folder: Path, results: list[Result], suite: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder / "results.jsonl", results)
    (folder / "run.json").write_text('{"geed_onnx": "0.1.0", "arguments": ["run", "suite.toml"]}', encoding="utf-8")
    if suite is not None:
        (folder / "suite.toml").write_text(suite, encoding="utf-8")
    return folder
