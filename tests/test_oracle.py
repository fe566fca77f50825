"""`measure` held against tests/oracle.py, a slow implementation that shares no code with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_nets
import oracle
import pytest

from geed_onnx import Result, measure

SEED = 5
LATENT = ("latent-l2", "latent-cosine", "latent-cosine-bounded")
FIVE = {"map": ("channelwise",), "vector": LATENT, "probability": ("softmax",)}


def pictures(count: int, height: int, width: int, dtype: str = "float32", channels: int = 1) -> np.ndarray[Any, Any]:
    """Seeded pictures (count, channels, height, width) with something large and something small in each."""
    rng = np.random.default_rng(SEED)
    small = rng.random((count, channels, height, width))
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    a, b, c, d = (rng.uniform(low, high, (count, channels, 1, 1)) for low, high in ((0, 1), (0, 1), (3, 30), (0.3, 2)))
    blob = d * np.exp(-c * ((y - a) ** 2 + (x - b) ** 2))
    return (blob + 0.2 * small).astype(dtype)


def drawn(count: int, size: int) -> list[int]:
    """The first `count` of one seeded permutation: how a sample, or the spread points, are drawn."""
    return [int(i) for i in np.random.default_rng(SEED).permutation(size)[:count]]


@dataclass(frozen=True)
class Case:
    group: str
    size: int = 12
    layout: str = "NCHW"
    dtype: str = "float32"
    batch: str | int = "N"
    softmax: bool = True
    batch_size: int | None = None
    samples: int = 6
    spread: int = 8
    images: int = 10
    reference: int | None = None
    mask: bool = False
    floor: bool = False
    actions: tuple[tuple[str, str], ...] = ()
    variants: tuple[str, ...] = ()
    classes: int = 5
    pooled: bool = False
    everything: bool = False  # samples="all"
    extra: tuple[tuple[str, str], ...] = ()  # taps of another network than `net`

    @property
    def name(self) -> str:
        new = {k: v for k, v in vars(self).items() if v != getattr(Case, k, None)}
        return " ".join(f"{k}={v}" if k != "group" else str(v) for k, v in new.items())

    def net(self) -> onnx.ModelProto:
        return onnx_nets.cnn(
            self.size, (3, 4), self.classes, self.layout, self.dtype, self.batch, softmax=self.softmax, seed=3
        )

    @property
    def taps(self) -> dict[str, str]:
        if self.extra:
            return dict(self.extra)
        kinds = {"block1": "map", "block2": "map", "latent": "vector"}
        if self.pooled:
            kinds["pooled"] = "map"  # 1×1
        return kinds | {"scores" if self.softmax else "logits": "probability"}


def write(model: onnx.ModelProto, folder: Path) -> str:
    path = folder / "net.onnx"
    onnx.save(model, str(path))
    return str(path)


def close(name: str, got: float | None, expected: float | None, tolerance: float) -> None:
    if expected is None:
        assert got is None, name
        return
    assert got is not None, name
    assert abs(got - expected) <= tolerance * max(1.0, abs(expected)), (name, got, expected)


def same(result: Result, expected: oracle.Reading, tolerance: float) -> None:
    """Every number of a Result that the oracle has too."""
    where = f"{result.tap['name']} {result.variant}"
    for name in ("value", "optimum", "spread", "floor", "null"):
        close(f"{where} {name}", getattr(result, name), getattr(expected, name), tolerance)
    for name in ("per_element", "floor_per_element", "null_per_element"):
        by_element = getattr(result, name)
        if by_element is None:  # a floor that was not measured is the optimum
            by_element = [result.optimum] * len(expected.per_element)
        for got, value in zip(by_element, getattr(expected, name), strict=True):
            close(f"{where} {name}", got, value, tolerance)
    assert result.tap["kernel"] == expected.kernel, where
    if result.calibrated is None:
        assert result.calibrated_reason is not None
        assert result.calibrated_reason.startswith(("insensitive:", "few images:", "floor above null:"))
    else:
        gap = abs(expected.null - expected.floor)
        # a quotient: its error is that of its parts over the gap
        close(f"{where} calibrated", result.calibrated, expected.calibrated, 3 * tolerance / min(gap, 1.0))
        assert result.value is not None
        assert result.null is not None
        assert result.floor is not None
        own = (result.value - result.floor) / (result.null - result.floor)
        assert math.isclose(result.calibrated, own, rel_tol=1e-9, abs_tol=1e-12)
    assert result.low is not None
    assert result.high is not None
    assert result.low <= result.value <= result.high  # type: ignore[operator]


def check_parts(result: Result, read: Callable[..., oracle.Reading], tolerance: float) -> None:
    """The number over the exact elements alone and over the others, each against the oracle, and their mean."""
    exact = [oracle.exact(g) for g in oracle.elements(result.group["name"])]
    if all(exact):
        assert result.parts is None
        return
    assert result.parts is not None
    assert list(result.parts) == ["exact", "resampled"]
    total = 0.0
    for name, part in result.parts.items():
        elements = part["elements"]
        assert elements == [g for g, is_exact in enumerate(exact) if is_exact == (name == "exact")]
        reading = read(only=elements)
        where = f"{result.tap['name']} {result.variant} {name}"
        for what in ("value", "floor", "null"):
            close(f"{where} {what}", part[what], getattr(reading, what), tolerance)
        assert part["low"] <= part["value"] <= part["high"], where
        if part["calibrated"] is None:
            assert part["calibrated_reason"], where
            assert part["calibrated_low"] is part["calibrated_high"] is None
        else:
            assert part["calibrated_reason"] is None
            own = (part["value"] - part["floor"]) / (part["null"] - part["floor"])
            assert math.isclose(part["calibrated"], own, rel_tol=1e-9, abs_tol=1e-12), where
            assert part["calibrated_low"] <= part["calibrated"] <= part["calibrated_high"], where
        # a value is affine in the mean over the group
        assert result.per_element is not None
        mean = math.fsum(result.per_element[g] for g in elements) / len(elements)
        assert math.isclose(part["value"], mean, rel_tol=1e-9, abs_tol=1e-12), where
        total += part["value"] * len(elements)
    assert result.value is not None
    assert math.isclose(total / len(exact), result.value, rel_tol=1e-9, abs_tol=1e-12)


def check(
    case: Case, folder: Path, model: onnx.ModelProto | None = None, shape: tuple[int, int] | None = None
) -> dict[tuple[str, str], Result]:
    """Measure a case, hold all of it against the oracle, and return the results by (tap, variant)."""
    model = model or case.net()
    height, width = shape or (case.size, case.size)
    images = pictures(case.images, height, width, case.dtype)
    given = images.transpose(0, 2, 3, 1).copy() if case.layout == "NHWC" else images
    actions: Mapping[str, str] = dict(case.actions)
    results = measure(
        write(model, folder),
        given,
        case.group,
        taps=[f"{name}:{kind}" for name, kind in case.taps.items()],
        variants=case.variants or None,
        actions=actions,
        samples="all" if case.everything else case.samples,
        spread_samples=case.spread,
        reference_samples=case.reference,
        seed=SEED,
        floor=case.floor,
        mask="disc" if case.mask else "none",
        batch_size=case.batch_size,
        provider="cpu",
        threads=1,
    )
    network = oracle.Network(model, list(case.taps), case.layout)
    float_images = images.astype(np.float64)
    chosen = list(range(case.images)) if case.everything else drawn(case.samples, case.images)
    wanted = [
        (tap, v)
        for tap, kind in case.taps.items()
        for v in (case.variants or FIVE[kind])
        if v in FIVE[kind] or v.startswith(kind + ":")
    ]
    assert [(r.tap["name"], r.variant) for r in results] == wanted
    for result in results:
        tap = result.tap["name"]
        read = partial(
            oracle.geed,
            network,
            list(float_images),
            case.group,
            tap,
            result.variant,
            sample=chosen,
            spread=drawn(case.spread, case.images),
            seed=SEED,
            action=actions.get(tap),
            logits=not case.softmax,
            floor_passes=case.floor,
            reference=case.reference,
            mask=case.mask,
        )
        tolerance = 1e-3 if case.dtype == "float16" else 1e-5
        same(result, read(), tolerance)
        check_parts(result, read, tolerance)
        assert result.samples == len(chosen)
        assert result.logits == (None if case.taps[tap] != "probability" else not case.softmax)
    return {(r.tap["name"], r.variant): r for r in results}


EVERY_SIDE = [
    Case("C4"),
    Case("C4", size=13, layout="NHWC", batch_size=1, spread=4),
    Case("C4", dtype="float16", batch=1, batch_size=8),
    Case("C4", layout="NHWC", batch=1, softmax=False, batch_size=64),
    Case("D4", size=13, batch_size=3, softmax=False),
    Case("D4", layout="NHWC", dtype="float16", batch_size=64, spread=3),
    Case("D4", batch=1, floor=True, samples=3, images=5, spread=5),
    Case("flip", batch_size=8, spread=10),
    Case("flip", size=13, layout="NHWC", softmax=False, batch_size=3),
    Case("flip", dtype="float16", size=13, batch=1),
    Case("C8", batch_size=3),
    Case("C8", size=13, floor=True, batch_size=8),
    Case("C8", layout="NHWC", softmax=False, floor=True, batch_size=1, samples=4),
    Case("C8", size=13, layout="NHWC", dtype="float16", batch_size=64),
    Case("C8", size=13, batch=1, softmax=False, spread=6),
    Case("C8", samples=20, images=24, spread=22, reference=7, batch_size=64),
    Case("C8", samples=18, images=24, spread=5, floor=True),
    Case("C8", everything=True, spread=6),
    Case("D4", everything=True, images=19, spread=19, batch_size=64, layout="NHWC", batch=1),
    Case("C4", mask=True),
    Case("C8", size=13, mask=True, floor=True),
    Case("C8", mask=True, layout="NHWC"),
    Case("D8", size=13, samples=4, floor=True),
    Case("C3", size=13, samples=4),
    Case("T2", size=12),
    Case("T3", size=12, softmax=False),
    Case("flip-ud", size=13),
]


@pytest.mark.parametrize("case", EVERY_SIDE, ids=lambda c: c.name)
def test_all_five_variants_agree_with_the_oracle(case: Case, tmp_path: Path) -> None:
    results = check(case, tmp_path)
    assert len(results) == 6
    # the comparison is of numbers that mean something: none of the networks is equivariant, nor blind
    assert all(r.value is not None and r.optimum is not None and r.value > r.optimum + 1e-6 for r in results.values())
    assert any(r.calibrated is not None for r in results.values())


@pytest.mark.parametrize("batch_size", [1, 3, 8, 64, None])
@pytest.mark.parametrize("batch", [1, "N"])
def test_no_batch_size_changes_what_is_read(batch_size: int | None, batch: str | int, tmp_path: Path) -> None:
    check(Case("C8", size=13, batch=batch, batch_size=batch_size, samples=5), tmp_path)


# ── kernels between trivial and full ─────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("floor", [False, True])
def test_c8_acting_on_the_scores_through_c4(layout: str, floor: bool, tmp_path: Path) -> None:
    action = "roll:1:1"
    results = check(
        Case("C8", layout=layout, classes=4, actions=(("scores", action), ("latent", action)), floor=floor), tmp_path
    )
    for tap, variant in (("scores", "softmax"), ("latent", "latent-l2"), ("latent", "latent-cosine")):
        assert results[tap, variant].tap["kernel"] == [0, 4]


def test_a_roll_backwards_differs_from_one_forwards(tmp_path: Path) -> None:
    forwards = check(Case("C4", classes=4, actions=(("scores", "roll:1:1"),)), tmp_path)
    backwards = check(Case("C4", classes=4, actions=(("scores", "roll:1:-1"),)), tmp_path)
    assert forwards["scores", "softmax"].value != pytest.approx(backwards["scores", "softmax"].value, abs=1e-4)


def test_d4_acts_with_two_generators(tmp_path: Path) -> None:
    action = "permute:1:1,2,3,0;0,3,2,1"
    results = check(Case("D4", classes=4, actions=(("logits", action),), softmax=False), tmp_path)
    assert results["logits", "softmax"].tap["kernel"] == [0]


def test_d4_acts_through_its_sign(tmp_path: Path) -> None:
    results = check(Case("D4", classes=2, actions=(("scores", "permute:1:0,1;1,0"),), floor=True), tmp_path)
    assert results["scores", "softmax"].tap["kernel"] == [0, 1, 2, 3]


def test_classes_that_swap_under_a_flip(tmp_path: Path) -> None:
    check(Case("flip", classes=3, actions=(("scores", "permute:1:1,0,2"),)), tmp_path)


@pytest.mark.parametrize("group", ["C4", "C8"])
def test_a_trivial_action_on_a_map(group: str, tmp_path: Path) -> None:
    results = check(Case(group, actions=(("block1", "trivial"),), floor=True), tmp_path)
    assert len(results["block1", "channelwise"].tap["kernel"]) == int(group[1:])


@pytest.mark.parametrize("group", ["C4", "C8"])
def test_channels_and_pixels_move_together(group: str, tmp_path: Path) -> None:
    check(Case(group, size=13, actions=(("block2", "pixels+permute:1:1,2,3,0"),)), tmp_path)


@pytest.mark.parametrize(("group", "order"), [("C4", 4), ("C8", 8), ("D4", 8)])
def test_the_kernel_on_a_1x1_map_is_the_whole_group(group: str, order: int, tmp_path: Path) -> None:
    results = check(Case(group, pooled=True), tmp_path)
    assert results["pooled", "channelwise"].tap["kernel"] == list(range(order))


# ── the general form, rectangles ─────────────────────────────────────────────────────────────────────────────────────
GENERAL = (
    "map:pixels:relative-l2",
    "map:pixels:channelwise-correlation",
    "map:pixels:l2",
    "probability:trivial:jensen-shannon",
    "probability:trivial:total-variation",
    "probability:trivial:disagreement",
    "vector:trivial:l2",
)


@pytest.mark.parametrize(
    "case",
    [
        Case("C4", variants=GENERAL),
        Case("C8", size=13, softmax=False, variants=GENERAL, floor=True),
        Case("D4", layout="NHWC", variants=GENERAL, batch_size=3),
    ],
    ids=lambda c: c.group,
)
def test_the_general_form(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.parametrize("group", ["C4", "C8"])
def test_a_file_that_would_mix_images_in_a_batch_is_measured_image_by_image(group: str, tmp_path: Path) -> None:
    taps = (("map", "map"), ("mixed", "vector"), ("logits", "probability"))
    results = check(Case(group, size=6, softmax=False, extra=taps), tmp_path, onnx_nets.baked_batch())
    assert {r.runtime["batching"] for r in results.values()} == {"looped"}


def rectangle(height: int, width: int) -> onnx.ModelProto:
    """A small CNN on (N, 1, height, width): `block1`, `block2`, `latent`, `scores`."""
    net = onnx_nets.Net(2)
    net.add("Conv", ["x", net.weight("w1", 3, 1, 3, 3)], "conv1", pads=[1] * 4)
    net.add("Relu", ["conv1"], "block1")
    net.add("Conv", ["block1", net.weight("w2", 4, 3, 3, 3)], "conv2")
    net.add("Relu", ["conv2"], "block2")
    net.add("GlobalAveragePool", ["block2"], "pooled")
    net.add("Flatten", ["pooled"], "latent")
    net.add("Gemm", ["latent", net.weight("wc", 4, 5)], "logits")
    net.add("Softmax", ["logits"], "scores", axis=1)
    return net.done([("x", ["N", 1, height, width])], [("scores", ["N", 5])])


@pytest.mark.parametrize("group", ["C2", "D2", "flip", "flip-ud", "T2"])
def test_rectangles_where_the_group_keeps_them(group: str, tmp_path: Path) -> None:
    check(Case(group), tmp_path, rectangle(10, 14), (10, 14))


# ── the oracle itself: laws that hold whatever the library does ─────────────────────────────────────────────────────
def test_the_oracle_turns_as_numpy_does() -> None:
    image = pictures(1, 7, 7, "float64")[0]
    for k in range(4):
        turned = (image.reshape(1, -1) @ oracle.bilinear(7, 2 * k, 8).T).reshape(image.shape)
        np.testing.assert_allclose(turned, np.rot90(image, k, (1, 2)), atol=1e-12)


@pytest.mark.parametrize("group", ["C4", "D4", "C8", "D8", "flip", "flip-ud", "T3"])
def test_the_oracle_inverts(group: str) -> None:
    image = np.exp(-((np.mgrid[0:9, 0:9] - 4.5) ** 2).sum(0) / 60)[None]  # smooth: resampling costs little
    for g in oracle.elements(group):
        np.testing.assert_allclose(
            oracle.move(oracle.inverse(g), oracle.move(g, image))[:, 2:-2, 2:-2], image[:, 2:-2, 2:-2], atol=0.02
        )


def test_the_oracle_can_fail(tmp_path: Path) -> None:
    case = Case("C4")
    result = next(iter(check(case, tmp_path).values()))
    network = oracle.Network(case.net(), ["block1"])
    images, sample = list(pictures(10, 12, 12).astype(np.float64)), drawn(6, 10)
    reading = oracle.geed(network, images, "C4", "block1", "channelwise", sample=sample, seed=SEED)
    same(result, reading, 1e-5)
    with pytest.raises(AssertionError):
        same(result, replace(reading, null=reading.null + 1e-4), 1e-5)
    with pytest.raises(AssertionError):
        # the null hangs on who partners whom
        same(result, oracle.geed(network, images, "C4", "block1", "channelwise", sample=sample, seed=SEED + 1), 1e-5)
