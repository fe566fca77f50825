"""Floor, null and both jackknives against tests/oracle.py to 1e-9: one network of NumPy, so that nothing rounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import oracle
import pytest

from geed_onnx import engine
from geed_onnx.engine import Plan, measure_plan
from geed_onnx.engine.plan import reference_blocks
from geed_onnx.requests import request_of

SEED = 3


def network(x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Maps (B, 4, H, W), features (B, 6), scores (B, 4) of images (B, 1, H, W), one after the other."""
    rng = np.random.default_rng(1)
    kernel, mix, heads = rng.normal(size=(4, 3, 3)), rng.normal(size=(4, 6)), rng.normal(size=(6, 4))
    maps, features, scores = [], [], []
    for image in np.asarray(x, dtype=np.float64)[:, 0]:
        p = np.pad(image, 1)
        h, w = image.shape
        one = np.stack([sum(k[i, j] * p[i : i + h, j : j + w] for i in range(3) for j in range(3)) for k in kernel])
        one = np.maximum(one, 0)
        rows = np.stack([(m * np.linspace(0.5, 1.5, h)[:, None]).mean() for m in one])
        features.append(np.tanh(rows @ mix * 3))
        e = np.exp(3 * features[-1] @ heads)
        scores.append(e / e.sum())
        maps.append(one)
    return {"map": np.stack(maps), "features": np.stack(features), "scores": np.stack(scores)}


def pictures(count: int, size: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[0:size, 0:size] / size
    a, b, c = (rng.uniform(low, high, (count, 1, 1, 1)) for low, high in ((0, 1), (0, 1), (3, 30)))
    return np.exp(-c * ((y - a) ** 2 + (x - b) ** 2)) + 0.3 * rng.random((count, 1, size, size))


@dataclass(frozen=True)
class Case:
    group: str
    images: int = 9
    size: int = 7
    samples: int | str = "all"
    spread: int = 6
    reference: int | None = None
    mask: str = "auto"
    floor: bool = False
    acts: tuple[tuple[str, str], ...] = ()
    patients: int = 0
    """of whom images come in turn; 0: each image is its own unit"""
    variants: tuple[str, ...] = ("channelwise", "latent-l2", "latent-cosine-bounded", "softmax")

    @property
    def name(self) -> str:
        return " ".join(f"{k}={v}" for k, v in vars(self).items() if k == "group" or v != getattr(Case, k, None))


CASES = [
    Case("C4"),
    Case("C8"),
    Case("C8", mask="none", floor=True),
    Case("C8", floor=True, images=33, reference=32, spread=4, size=4),
    Case("C4", images=36, samples=34, spread=36, size=4),
    Case("C8", reference=3),
    Case("C8", reference=2),
    Case("C3"),
    Case("D4", images=6),
    Case("D8", images=5, spread=5, floor=True),
    Case("flip"),
    Case("C4", images=12, patients=4),
    Case("C8", images=18, samples=17, patients=6, size=5, spread=9),
    Case("flipxflip"),
    Case("T2", size=6),
    Case("C4", acts=(("scores", "roll:1:1"),)),
    Case("C4", acts=(("scores", "permute:1:1,0,3,2"), ("features", "trivial")), images=7),
    Case("C8", acts=(("scores", "roll:1:1"),), floor=True, images=6),
    Case("D4", acts=(("scores", "permute:1:1,2,3,0;0,3,2,1"),), images=10),
    Case("C8", acts=(("map", "pixels+permute:1:1,2,3,0"),), images=10),
    Case("C4", acts=(("map", "trivial"),), variants=("channelwise", "map:pixels:l2", "map:pixels:relative-l2")),
    Case(
        "C8",
        variants=(
            "map:pixels:channelwise-correlation",
            "vector:trivial:l2",
            "probability:trivial:jensen-shannon",
            "probability:trivial:disagreement",
        ),
        floor=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_levels_and_jackknives_agree_with_the_slow_ones(case: Case) -> None:
    images = pictures(case.images, case.size)
    drawn = [int(i) for i in np.random.default_rng(SEED).permutation(case.images)]
    sample = list(range(case.images)) if case.samples == "all" else drawn[: int(case.samples)]
    plan = plan_of(case, images)
    if case.patients:
        plan = in_clusters(plan, {i: f"p{i % case.patients}" for i in range(case.images)}, case)
    measured = measure_plan(plan)
    assert {m.result.tap["name"] for m in measured} == {"map", "features", "scores"} or len(case.variants) == 3
    for m in measured:
        r = m.result
        tap = r.tap["name"]
        expected = oracle.geed(
            lambda image: {name: y[0] for name, y in network(image[None]).items()},
            list(images),
            case.group,
            tap,
            r.variant,
            sample=sample,
            spread=drawn[: case.spread],
            action=dict(case.acts).get(tap),
            floor_passes=case.floor,
            reference=case.reference,
            seed=SEED,
            mask=case.mask == "auto" and not all(oracle.exact(g) for g in oracle.elements(case.group)),
            jackknife=True,
            units={i: f"p{i % case.patients}" for i in range(case.images)} if case.patients else None,
        )
        where = f"{tap} {r.variant}"
        for name in ("value", "floor", "null"):
            assert math.isclose(getattr(r, name), getattr(expected, name), rel_tol=1e-9, abs_tol=1e-11), (where, name)
        assert r.null_per_element == pytest.approx(expected.null_per_element, rel=1e-9, abs=1e-11), where
        jackknives = [(m.tables.value, 0, r.value)]
        if r.calibrated is None:
            assert r.calibrated_reason is not None
        else:
            jackknives.append((m.tables.calibrated, 1, r.calibrated))
        for change, which, whole in jackknives:
            assert change is not None
            without = {change.ids[i]: whole - change.changes[i] for i in range(len(change.ids))}
            slow = {name: pair[which] for name, pair in expected.without.items()}
            assert without.keys() == slow.keys(), where
            for name, value in slow.items():
                got = without[name]
                assert math.isclose(got, value, rel_tol=1e-9, abs_tol=1e-10) or (
                    math.isnan(got) and math.isnan(value)
                ), (
                    where,
                    which,
                    name,
                )


def in_clusters(plan: Plan, cluster: dict[int, str], case: Case) -> Plan:
    """The plan as it is where a column names the clusters; ids of an array are its indices."""
    sample = plan.indices
    blocks = reference_blocks(sample, case.reference, SEED, cluster)
    first = [i for block in blocks for i in block]
    return replace(
        plan,
        references=blocks,
        indices=(*first, *(i for i in sample if i not in first)),
        units={str(i): c for i, c in cluster.items()},
    )


def plan_of(case: Case, images: np.ndarray[Any, Any], model: Callable[..., Any] = network) -> Any:
    request = request_of(
        model,
        images,
        case.group,
        taps=["map", "features", "scores:probability"],
        variants=list(case.variants),
        acts=dict(case.acts),
        samples=case.samples,
        spread_samples=case.spread,
        reference_samples=case.reference,
        seed=SEED,
        floor=case.floor,
        mask=case.mask,
    )
    return engine.plan_of(request)
