"""Means over families: against SciPy's interval, settings never mixed, what is there twice, what is missing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_results import failed, result
from scipy import stats

from geed_onnx.errors import DataError
from geed_onnx.reports.means import FamilyMean, family_means, write_means
from geed_onnx.results import Result

RNG = np.random.default_rng(4)


def model(family: str | None, which: int | None, step: int | None = None, **more: Any) -> Result:
    """One model's result with numbers of its own."""
    value = float(more.pop("value", RNG.uniform(-0.9, -0.2)))
    at = "" if step is None else f"@{step}"
    known = {"name": f"{family} {which}{at}", "path": f"{family}-{which}{at}.onnx"}
    facts = {"family": family, "model_seed": which, "step": step} if family is not None else {"step": step}
    calibrated = more.pop("calibrated", (value + 1) / 0.7)
    return result(**{**known, **facts, "value": value, "calibrated": calibrated, **more})


def numbers(means: list[FamilyMean], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(m, n) for n in names) for m in means]


def test_a_family_is_a_mean_with_students_interval() -> None:
    rows = [model(f, s, k) for f in ("cnn", "c8") for k in (0, 200, 1000) for s in range(5)]
    means = family_means(rows)
    assert numbers(means, "family", "step", "on") == [
        (f, k, on) for f in ("cnn", "c8") for k in (0, 200, 1000) for on in ("value", "calibrated")
    ]
    for m in means:
        own = np.array([
            getattr(r, m.on) for r in rows if (r.model["family"], r.model["step"]) == (m.family, m.step)
        ])  # fmt: skip
        low, high = stats.t.interval(0.95, 4, own.mean(), stats.sem(own))
        assert m.estimate is not None
        assert (m.estimate.value, m.estimate.low, m.estimate.high) == pytest.approx((own.mean(), low, high), rel=1e-12)
        assert (m.models, m.of, m.reason, m.estimate.n) == (5, 5, None, 5)
        assert m.estimate.method.endswith("on one set of images: nothing is said of other images")
        assert (m.data, m.uri, m.group, m.tap, m.kind) == ("images", "images/", "C4", "block1", "map")
        assert (m.variant, m.samples, m.seed, m.mask, m.interpolation) == ("channelwise", 8, 0, False, "bilinear")
        assert m.optimum == (-1.0 if m.on == "value" else None)


@given(st.permutations(range(12)))
def test_the_order_of_the_results_changes_no_number(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    rows = [model(f, s, k, value=rng.uniform(-1, 0)) for f in ("a", "b") for k in (1, 2) for s in range(3)]

    def said(some: list[Result]) -> dict[tuple[Any, ...], Any]:
        # sums are exact before they are rounded, so that no bit depends on the order
        return {(m.family, m.step, m.on): (m.estimate.value if m.estimate else None) for m in family_means(some)}

    assert said([rows[i] for i in order]) == said(rows)


def test_a_single_model_has_its_own_interval() -> None:
    rows = [model("cnn", 0, 100), model(None, None, name="alone", path="alone.onnx")]
    one, _, other, calibrated = family_means(rows)
    for m, r in ((one, rows[0]), (other, rows[1])):
        e = m.estimate
        assert e is not None
        assert (e.value, e.low, e.high, e.method, e.n) == (r.value, r.low, r.high, r.method, r.samples)
        assert (m.models, m.of) == (1, 1)
    assert calibrated.estimate is not None
    assert (calibrated.estimate.low, calibrated.estimate.high) == (0.4, 0.6)
    assert [m.family for m in (one, other)] == ["cnn", "alone"]


def test_checkpoints_without_a_family_are_one_line() -> None:
    rows = [model(None, None, k, name=f"net step {k}", path=f"{k}.onnx") for k in (10, 20)]
    assert numbers(family_means(rows), "family", "step", "on")[::2] == [
        ("net step ·", 10, "value"),
        ("net step ·", 20, "value"),
    ]


SETTINGS: list[dict[str, Any]] = [
    {"data": "others/"}, {"group": "C8", "order": 8}, {"samples": 20}, {"seed": 1}, {"level": 0.9}, {"units": 4},
    {"tap": "block2"}, {"variant": "map:pixels:l2"}, {"step": 5},
]  # fmt: skip


@pytest.mark.parametrize("other", SETTINGS, ids=lambda s: next(iter(s)))
def test_settings_are_never_mixed(other: dict[str, Any]) -> None:
    rows = [model("cnn", s, **{"step": 1, **more}) for more in ({}, other) for s in range(3)]
    means = [m for m in family_means(rows) if m.on == "value"]
    assert [m.models for m in means] == [3, 3]
    for m, some in zip(sorted(means, key=lambda m: m != means[0]), (rows[:3], rows[3:]), strict=True):
        assert m.estimate is not None
        assert m.estimate.value == pytest.approx(np.mean([r.value for r in some]))
        assert m.estimate.level == some[0].level


def test_masks_and_interpolations_are_settings_too() -> None:
    rows = [model("cnn", s) for s in range(2)]
    masked = [replace(r, data={**r.data, "mask": "disc"}) for r in rows]
    nearest = [replace(r, group={**r.group, "interpolation": "nearest"}) for r in rows]
    means = [m for m in family_means([*rows, *masked, *nearest]) if m.on == "value"]
    assert numbers(means, "mask", "interpolation", "models") == [
        (False, "bilinear", 2),
        (True, "bilinear", 2),
        (False, "nearest", 2),
    ]


def test_numbers_of_points_of_m_are_told_apart_and_the_rest_stays_one() -> None:
    """Two suites over the same models, one with fewer points for M: what has no M is there twice, and counted once."""
    rows = []
    for spread in (200, 20):
        for s in range(3):
            rows.append(model("cnn", s, value=-0.5 - 0.1 * s, key=f"map-{s}"))
            latent = {"tap": "latent", "kind": "vector", "variant": "latent-l2", "key": f"latent-{spread}-{s}"}
            rows.append(model("cnn", s, value=0.2 + 0.01 * s + 1 / spread, spread_samples=spread, **latent))
    means = [m for m in family_means(rows) if m.on == "value"]
    assert numbers(means, "tap", "spread_samples", "models") == [
        ("block1", None, 3),
        ("latent", 200, 3),
        ("latent", 20, 3),
    ]
    assert [m.estimate.value for m in means if m.estimate] == pytest.approx([-0.6, 0.215, 0.26])


def test_what_some_models_lack_is_said() -> None:
    rows = [model("cnn", s) for s in range(3)]
    none = {"calibrated": None, "calibrated_low": None, "calibrated_high": None}
    rows[1] = replace(rows[1], calibrated_reason="not told from 0", **none)
    value, calibrated = family_means(rows)
    assert (value.models, value.of, value.reason) == (3, 3, None)
    assert (calibrated.models, calibrated.of, calibrated.reason) == (2, 3, "cnn 1: not told from 0")
    for field in ("calibrated_reason", "reason"):  # the one of lines that had no other
        blind = [replace(r, calibrated=None, **{"calibrated_reason": None, field: "blind"}) for r in rows]
        found = family_means(blind)[1]
        assert (found.estimate, found.models, found.of, found.reason) == (None, 0, 3, "cnn 0: blind")


def test_models_that_differ_not_by_chance_are_no_family() -> None:
    rows = [model("cnn", 0, value=-0.5), model("cnn", 0, value=-0.6, name="naively", path="cnn-0.onnx")]
    for m in family_means(rows):
        assert m.estimate is None
        assert m.optimum is None
        assert m.reason == "seed 0 is there twice, with two numbers: give models that differ not by chance two families"
    twice = [model("cnn", None, value=v, name=n, path="a.onnx") for n, v in (("a", -0.5), ("b", -0.6))]
    assert {m.estimate for m in family_means(twice)} == {None}
    assert str(family_means(twice)[0].reason).startswith("b is there twice")


def test_failed_cells_are_no_numbers_and_nothing_is_nothing() -> None:
    assert family_means([]) == []
    assert family_means([failed(name="gone")]) == []
    rows = [model("cnn", 0), failed(name="cnn 1", family="cnn", model_seed=1)]
    assert [m.of for m in family_means(rows)] == [1, 1]


def test_a_damaged_result_is_refused() -> None:
    with pytest.raises(DataError, match="spread_samples is 'many'; expected a whole number or null"):
        family_means([result(spread_samples="many")])


def test_taps_are_named_as_models_share_them() -> None:
    rows = [
        model(f, s, tap=tap, kind="vector", variant="latent-l2")
        for f, tap in (("resnet", "flatten"), ("vit", "select"))
        for s in (0, 1)
    ]
    assert {(m.family, m.tap) for m in family_means(rows)} == {("resnet", "latent"), ("vit", "latent")}


def test_lines_hold_everything(tmp_path: Path) -> None:
    means = family_means([model("cnn ü", s, 7) for s in range(2)])
    write_means(tmp_path / "means.jsonl", means)
    lines = [json.loads(line) for line in (tmp_path / "means.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 2
    for line, m in zip(lines, means, strict=True):
        assert m.estimate is not None
        assert line.pop("schema") == "geed-mean/1"
        for name in ("value", "low", "high", "level", "method"):
            assert line.pop(name) == getattr(m.estimate, name)
        assert line == {k: v for k, v in vars(m).items() if k != "estimate"}
    nothing = json.loads(replace(means[0], estimate=None).to_json())
    assert nothing["value"] is nothing["low"] is None
    assert not math.isnan(nothing["samples"])
