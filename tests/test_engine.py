"""What `measure` promises whatever is measured: closed forms, the same bits, one pass per row, memory."""

from __future__ import annotations

import hashlib
import json
import math
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_nets
import pytest
from engine_tools import SMALL_TAPS, Array, Function, measured, noise, numbers, saved, small_net, softmax, tables

from geed_onnx import CallableSession, measure
from geed_onnx.actions import input_action, orbit_of
from geed_onnx.errors import OutOfMemory
from geed_onnx.groups import parse_group
from geed_onnx.sources import ArraySource

FIVE = ("channelwise", "latent-l2", "latent-cosine", "latent-cosine-bounded", "softmax")


# ── closed forms ─────────────────────────────────────────────────────────────────────────────────────────────────────
def equivariant_net(size: int, classes: int = 4) -> onnx.ModelProto:
    """1×1 convolutions, then 3×3 ones whose kernels every quarter turn and reflection leaves alone; average, scores."""
    net = onnx_nets.Net(4)
    net.add("Conv", ["x", net.weight("w1", 3, 1, 1, 1), net.weight("b1", 3, scale=0.1)], "conv1")
    net.add("Relu", ["conv1"], "block1")
    ring = net.rng.normal(size=(4, 3, 3)).astype(np.float32)  # centre, edge, corner
    kernel = np.empty((4, 3, 3, 3), np.float32)
    for i in range(3):
        for j in range(3):
            kernel[:, :, i, j] = ring[:, :, abs(i - 1) + abs(j - 1)]
    net.add("Conv", ["block1", net.constant("w2", kernel)], "conv2", pads=[1] * 4)
    net.add("Relu", ["conv2"], "block2")
    net.add("GlobalAveragePool", ["block2"], "pooled")
    net.add("Flatten", ["pooled"], "latent")
    net.add("Gemm", ["latent", net.weight("wc", 4, classes)], "logits")
    net.add("Softmax", ["logits"], "scores", axis=1)
    return net.done([("x", ["N", 1, size, size])], [("scores", ["N", classes])])


@pytest.mark.parametrize("group", ["C4", "D4", "flip", "flip-ud", "C2"])
@pytest.mark.parametrize("size", [8, 9])
def test_an_exactly_equivariant_network_scores_the_optimum(group: str, size: int, tmp_path: Path) -> None:
    taps = ["block1:map", "block2:map", "latent:vector", "scores:probability"]
    results = measured(saved(equivariant_net(size), tmp_path), noise(10, size), group, taps=taps, samples=8)
    assert {r.variant for r in results} == set(FIVE)
    for r in results:
        assert r.value is not None
        assert r.low is not None
        assert r.value == pytest.approx(r.optimum, rel=1e-6, abs=1e-6), r.variant
        assert r.per_element == pytest.approx([r.optimum] * len(r.per_element or ()), rel=1e-6, abs=1e-6)
        assert r.floor == pytest.approx(r.optimum, rel=1e-9, abs=1e-9)
        if r.variant != "latent-cosine":  # whose optimum −1/M is as uncertain as M
            assert r.value - r.low < 1e-5  # rounding of float32, and the skewness of it
            if "no variance" in r.method:
                # 8 images without any deviation: 1 − 0.025^(1/8) = 37 % of all may have one, of ln 2 at least (the
                # divergence of two distributions from their mean)
                assert r.high is None or r.high - r.value > (1 - 0.025 ** (1 / 8)) * math.log(2) - 1e-5
            else:
                assert r.high is not None
                assert r.high - r.low < 1e-5
        if r.calibrated is not None:
            assert r.calibrated == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("group", "exact"), [("C8", "C4"), ("D8", "D4"), ("C12", "C4"), ("C6", "C2")])
def test_the_exact_part_is_a_measurement_under_the_exact_subgroup(group: str, exact: str) -> None:
    """Where f̂ is f itself: then all elements of a broken orbit are of one partner, whatever the group."""
    model, images = CallableSession(small_net), noise(12, 9)
    [whole], [alone] = (
        measured(model, images, g, taps=["map:map"], samples=10, reference_samples=6, mask="none")
        for g in (group, exact)
    )
    assert alone.parts is None
    assert whole.parts is not None
    part = whole.parts["exact"]
    for name in ("value", "low", "high", "null"):
        assert part[name] == pytest.approx(getattr(alone, name), rel=1e-12), name
    assert part["floor"] == alone.floor == -1.0
    assert whole.parts["resampled"]["floor"] > -1.0
    # its invariant taps keep the mean over the whole group
    options: dict[str, Any] = {"taps": ["latent:vector"], "variants": ["vector:trivial:l2"], "mask": "none"}
    [latent], [other] = (measured(model, images, g, samples=10, **options) for g in (group, exact))
    assert latent.parts is not None
    assert latent.parts["exact"]["value"] != pytest.approx(other.value, rel=1e-6)


def test_what_has_no_value_has_no_parts_and_the_identity_alone_is_not_calibrated() -> None:
    images = noise(8, 9)
    flat = measured(lambda x: {"latent": np.ones((len(x), 3))}, images, "C8", variants=["latent-l2"], samples="all")
    assert [(r.value, r.parts) for r in flat] == [(None, None)]
    [result] = measured(CallableSession(small_net), images, "C3", taps=["map:map"], samples="all")
    assert result.parts is not None
    part = result.parts["exact"]
    assert (part["elements"], part["value"], part["low"]) == ([0], -1.0, -1.0)
    assert part["calibrated"] is None
    assert part["reason"] is None
    assert part["calibrated_reason"].startswith("insensitive: ")  # x itself is no other image than x


@pytest.mark.parametrize("group", ["C4", "D4", "flip", "T2"])
def test_a_perfect_sample_has_an_interval_to_what_other_images_may_hide(group: str) -> None:
    """Sums of whole numbers are exact, so that nothing at all differs between the elements of an orbit."""

    def perfect(x: Array) -> dict[str, Array]:
        whole = np.rint(8 * x).astype(np.float64)
        latent = np.stack([whole.sum(axis=(1, 2, 3)), (whole**2).sum(axis=(1, 2, 3))], axis=1)
        return {"map": whole, "latent": latent, "scores": softmax(latent / 500)}

    results = measured(CallableSession(perfect), noise(12), group, taps=SMALL_TAPS, samples=10)
    assert len(results) == 5
    for r in results:
        assert r.value == r.optimum or r.value == pytest.approx(r.optimum, rel=1e-14, abs=1e-14)
        if r.variant != "latent-cosine":
            assert r.low == r.value
            assert r.method == "no variance among 10 images: up to 30.8 % of all images may be unlike them" + (
                ", by how much is not bounded" if r.high is None else ""
            )
        if r.variant == "channelwise":  # 1 − 0.025^(1/10) of all images may have −1 + 2
            assert r.high == pytest.approx(-1 + 2 * (1 - 0.025 ** (1 / 10)))


@pytest.mark.parametrize("group", ["C4", "C8", "D8", "T2"])
def test_the_identity_networks_channelwise_value_is_minus_one(group: str, tmp_path: Path) -> None:
    results = measured(saved(onnx_nets.identity_map(), tmp_path), noise(6, 8, 3), group, taps=["y:map"], samples=6)
    (result,) = results
    assert result.value == pytest.approx(-1, abs=1e-6)
    assert result.optimum == -1.0


def structureless(x: Array) -> dict[str, Array]:
    """Features that depend on the whole input, but on nothing in it."""
    seeds = [int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8]) for row in x]
    return {"latent": np.stack([np.random.default_rng(s).standard_normal(2000) for s in seeds])}


@pytest.mark.parametrize(("group", "order"), [("flip", 2), ("C4", 4), ("C8", 8), ("D8", 16)])
def test_structureless_features_score_the_closed_form(group: str, order: int) -> None:
    l2 = measured(CallableSession(structureless), noise(24), group, taps=["latent:vector"], variants=["latent-l2"],
                  samples=20)[0]  # fmt: skip
    expected = math.sqrt((1 - 1 / order) / 2)
    assert l2.value == pytest.approx(expected, rel=0.01)
    assert l2.null == pytest.approx(expected, rel=0.01)
    assert l2.calibrated == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("group", ["flip", "C4", "C8"])
def test_the_softmax_value_is_the_orbits_jensen_shannon_divergence(group: str) -> None:
    images = noise(5)
    (result,) = measured(
        CallableSession(lambda x: {"scores": small_net(x)["scores"]}), images, group,
        taps=["scores:probability"], samples="all", mask="none",
    )  # fmt: skip
    order = result.group["order"]
    turned = orbit_of(input_action(parse_group(group), images.shape[1:]), images)
    orbits = small_net(turned.reshape(-1, *images.shape[1:]))["scores"].reshape(5, order, -1).astype(np.float64)

    def entropy(p: Array) -> Array:
        return np.asarray(-(p * np.log(p)).sum(axis=-1))

    divergence = entropy(orbits.mean(axis=1)) - entropy(orbits).mean(axis=1)
    assert result.value == pytest.approx(divergence.mean(), rel=1e-6)
    assert result.value <= math.log(min(order, 6))


def test_the_kl_has_its_order() -> None:
    """KL(f(gx) ‖ f̂) is finite where f(gx) has zeros; the reverse is not."""

    def sharp(x: Array) -> dict[str, Array]:
        left = x[:, 0, :, 0].sum(axis=1) > x[:, 0, :, -1].sum(axis=1)
        return {"p": np.stack([left, ~left], axis=1).astype(np.float64)}

    (result,) = measured(CallableSession(sharp), noise(6), "flip", taps=["p:probability"], samples="all")
    assert result.value == pytest.approx(math.log(2), rel=1e-12)


# ── bits ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("group", ["C4", "C8"])
def test_no_bit_depends_on_the_batch_size(group: str) -> None:
    reference = None
    for batch_size in (None, 1, 3, 8, 64):
        results = measured(
            CallableSession(small_net), noise(20), group, taps=SMALL_TAPS, samples=17, spread_samples=19,
            floor=True, batch_size=batch_size,
        )  # fmt: skip
        now = [numbers(r) for r in results]
        reference = reference or now
        assert now == reference, batch_size
        assert all(r.value is not None for r in results)


def test_no_bit_depends_on_the_order_of_the_images() -> None:
    images, names = noise(14), tuple(f"image{i}" for i in range(14))
    order = np.random.default_rng(1).permutation(14)
    there = ArraySource("a", images, names)
    back = ArraySource("a", images[order], tuple(names[i] for i in order))
    options: dict[str, Any] = {"taps": SMALL_TAPS, "samples": "all", "floor": True}
    one = measured(CallableSession(small_net), there, "C8", **options)
    other = measured(CallableSession(small_net), back, "C8", **options)
    # who partners whom in a broken orbit goes by places in the source, and so does the sensitivity
    ordered = ("null", "calibrated", "calibrated_low", "calibrated_high", "calibrated_reason", "sensitivity")
    assert [numbers(r, "parts", *ordered) for r in one] == [numbers(r, "parts", *ordered) for r in other]
    parts = [
        [{k: v for k, v in part.items() if k not in ordered} for r in some for part in (r.parts or {}).values()]
        for some in (one, other)
    ]
    assert parts[0] == parts[1]
    assert len(parts[0]) == 2 * len(one)
    assert {r.data["fingerprint"] for r in one} == {r.data["fingerprint"] for r in other}
    assert any(a.null != b.null for a, b in zip(one, other, strict=True))
    changed = images.copy()
    changed[3, 0, 0, 0] += 1
    third = measured(CallableSession(small_net), ArraySource("a", changed, names), "C8", **options)
    assert third[0].data["fingerprint"] != one[0].data["fingerprint"]


def test_the_seed_reproduces_everything_and_another_one_draws_others() -> None:
    def run(seed: int) -> list[str]:
        return [
            r.to_json()
            for r in measured(CallableSession(small_net), noise(30), "C4", taps=SMALL_TAPS, samples=6, seed=seed)
        ]

    assert run(3) == run(3)
    three, four = ([json.loads(line) for line in run(seed)] for seed in (3, 4))
    assert all(a["value"] != b["value"] for a, b in zip(three, four, strict=True))
    assert three[0]["data"]["fingerprint"] != four[0]["data"]["fingerprint"]


def test_a_larger_sample_holds_the_smaller_one() -> None:
    def ids(samples: int) -> set[str]:
        return set(tables(CallableSession(small_net), noise(30), "C4", samples=samples)[0])

    assert ids(5) < ids(12)


# ── passes, memory ───────────────────────────────────────────────────────────────────────────────────────────────────
class Counting:
    """A session that remembers which rows it saw."""

    def __init__(self, function: Function = small_net) -> None:
        self.session = CallableSession(function)
        self.rows: list[bytes] = []
        self.facts = self.session.facts

    def run(self, x: Array) -> dict[str, Array]:
        self.rows += [row.tobytes() for row in x]
        return self.session.run(x)


@pytest.mark.parametrize(("group", "order"), [("C4", 4), ("C8", 8)])
@pytest.mark.parametrize(("samples", "spread", "extra"), [(6, 15, 9), (6, 6, 0), (10, 4, 0)])
@pytest.mark.parametrize("batch_size", [3, 64, None])
def test_one_forward_pass_per_image_and_element(
    group: str, order: int, samples: int, spread: int, extra: int, batch_size: int | None
) -> None:
    images = noise(20)
    session = Counting()
    results = measured(
        session,
        images,
        group,
        taps=SMALL_TAPS,
        samples=samples,
        spread_samples=spread,
        batch_size=batch_size,
        mask="none",
    )
    assert len(results) == 5  # all variants of all taps from the same passes
    first, *rows = session.rows
    assert first == images[0].tobytes()  # a session says what it yields only when it is run once
    two, rows = rows[:2], rows[2:]  # and two images settle what is to be decided once for all
    assert len(rows) == samples * order + extra
    assert set(two) < set(rows)
    assert max(Counter(rows).values()) == 1


def test_without_a_spread_no_pass_is_spent_on_it() -> None:
    session = Counting()
    measured(session, noise(20), "C4", taps=["map:map"], samples=3)
    assert len(session.rows) == 1 + 2 + 3 * 4


def test_the_floor_costs_passes_on_the_reference_images_only_when_asked() -> None:
    session = Counting()
    measured(session, noise(9), "C8", taps=SMALL_TAPS, samples=9, spread_samples=9, reference_samples=4, floor=True)
    # g⁻¹(g x) is x for the exact half, which costs nothing, and one image for the other
    assert len(session.rows) == 1 + 2 + 9 * 8 + 4
    exact = Counting()
    measured(exact, noise(9), "C4", taps=SMALL_TAPS, samples=9, spread_samples=9, floor=True)
    assert len(exact.rows) == 1 + 2 + 9 * 4


def test_progress_ends_with_all_passes_done() -> None:
    calls: list[tuple[int, int]] = []
    measured(CallableSession(small_net), noise(9), "C4", taps=SMALL_TAPS, samples=5, spread_samples=9, batch_size=7,
             progress=lambda done, total: calls.append((done, total)))  # fmt: skip
    assert calls[-1] == (26, 26)  # 2 + 5 · 4 + 4
    assert [c[0] for c in calls] == sorted({c[0] for c in calls})


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    def wide(x: Array) -> dict[str, Array]:
        return {"map": np.repeat(x, 48, axis=1), "latent": x.reshape(len(x), -1)[:, :16]}

    images = noise(600, 12)

    def peak(samples: int) -> int:
        tracemalloc.start()
        try:
            measured(CallableSession(wide), images, "C4", taps=["map:map", "latent:vector"], samples=samples,
                     batch_size=32)  # fmt: skip
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(20)  # what is cached for good
    few, many = peak(50), peak(600)
    # the 550 further images come to 60 MB of activations
    assert many - few < 10e6, (few, many)


@pytest.mark.parametrize("error", [MemoryError, OutOfMemory])
@pytest.mark.parametrize("most", [1, 3, 10])
def test_out_of_memory_halves_the_batch_and_says_so(error: type[Exception], most: int) -> None:
    def tight(x: Array) -> dict[str, Array]:
        if len(x) > most:
            raise error("too much")
        return small_net(x)

    options: dict[str, Any] = {"taps": SMALL_TAPS, "samples": 12, "spread_samples": 18, "floor": True}
    roomy = measured(CallableSession(small_net), noise(18), "C8", **options)
    notes: list[str] = []
    narrow = measured(CallableSession(tight), noise(18), "C8", **options, notify=notes.append)
    assert [numbers(r) for r in narrow] == [numbers(r) for r in roomy]
    assert all(any("out of memory" in note for note in r.notes) for r in narrow)
    assert not any("out of memory" in note for r in roomy for note in r.notes)
    assert any("out of memory" in note for note in notes)
    assert narrow[0].runtime["batch"] <= most


@pytest.mark.parametrize("error", [MemoryError, OutOfMemory])
@pytest.mark.parametrize("after", [0, 1])
def test_not_even_one_row_is_an_error(error: type[Exception], after: int) -> None:
    calls = []

    def full(x: Array) -> dict[str, Array]:
        calls.append(len(x))
        if len(calls) > after:
            raise error("too much")
        return small_net(x)

    with pytest.raises(OutOfMemory):
        measure(CallableSession(full), noise(4), "C4", taps=SMALL_TAPS, samples=4)
