"""No silent number: what `measure` refuses, what it leaves out with a reason, and what it skips when told to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_nets
import pytest
from engine_tools import SMALL_TAPS, Array, measured, noise, numbers, saved, small_net, tables

from geed_onnx import CallableSession, measure
from geed_onnx.errors import ActionError, DataError, GeedError, MeasureError, UnknownName, UsageError
from geed_onnx.sources import ArraySource


# ── no silent number ─────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf")])
@pytest.mark.parametrize("tap", ["map", "latent", "scores"])
def test_a_tap_that_is_no_number_is_named_with_its_image(bad: float, word: str, tap: str) -> None:
    images = noise(9)
    special = images[6].tobytes()

    def poisoned(x: Array) -> dict[str, Array]:
        out = small_net(x)
        for i, row in enumerate(x):
            if row.tobytes() == special:
                out[tap].reshape(len(x), -1)[i, 0] = bad
        return out

    with pytest.raises(MeasureError, match=rf"(?s)'{tap}'.*{word}.*'6'"):
        measure(CallableSession(poisoned), images, "C4", taps=SMALL_TAPS, samples="all")
    # wherever it stands in its block
    for seed in range(1, 5):
        with pytest.raises(MeasureError, match=rf"'{tap}' holds {word} for image '6'"):
            measure(CallableSession(poisoned), images, "C4", taps=SMALL_TAPS, samples="all", seed=seed,
                    batch_size=4)  # fmt: skip
    # the same among the points of the spread alone
    names = tuple("abcdefghi")
    others = [i for i in np.random.default_rng(0).permutation(9)[:3] if i != 6]
    with pytest.raises(MeasureError, match=rf"(?s)'{tap}'.*{word}.*'g'"):
        measure(
            CallableSession(poisoned), ArraySource("a", images, names), "C4", taps=SMALL_TAPS,
            samples=len(others), spread_samples=9,
        )  # fmt: skip


def test_the_nan_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match=r"'bad' holds NaN for image '\d'"):
        measure(saved(onnx_nets.nan_tap(), tmp_path), noise(5) - 0.5, "C4", taps=["bad:map"], samples=4)


def test_constant_features_give_no_value_and_say_why(tmp_path: Path) -> None:
    path = saved(onnx_nets.constant_features(), tmp_path)
    results = measured(path, noise(8), "C4", taps=["map:map", "latent:vector", "logits:probability"], samples=6)
    by = {r.variant: r for r in results}
    for name in ("latent-l2", "latent-cosine-bounded"):
        assert by[name].value is by[name].low is by[name].calibrated is by[name].per_element is None
        assert "same" in str(by[name].reason)
    assert by["latent-l2"].spread == 0
    assert by["latent-l2"].sensitivity == 0
    assert by["latent-cosine"].value == pytest.approx(-1)  # c = M = 1
    assert by["softmax"].value == pytest.approx(0, abs=1e-12)
    assert by["softmax"].calibrated is None
    assert str(by["softmax"].calibrated_reason).startswith("insensitive: ")
    assert by["channelwise"].value is not None
    assert by["channelwise"].value > -1


def test_an_infinite_deviation_gives_no_value_and_says_why() -> None:
    def sharp(x: Array) -> dict[str, Array]:
        left = x[:, 0, :, 0].sum(axis=1) > 0
        return {"p": np.stack([left, ~left], axis=1).astype(np.float64), "latent": x.reshape(len(x), -1)}

    results = measured(
        CallableSession(sharp), noise(5), "flip", taps=["p:probability", "latent:vector"], samples="all",
        actions={"p": "permute:1:1,0"}, variants=["softmax", "probability:trivial:jensen-shannon", "latent-l2"],
    )  # fmt: skip
    by = {r.variant: r for r in results}
    assert by["softmax"].value is None
    assert "infinite" in str(by["softmax"].reason)
    assert by["probability:trivial:jensen-shannon"].value == pytest.approx(math.log(2) / 2)
    assert by["latent-l2"].value is not None


def test_one_class_is_no_distribution() -> None:
    def one(x: Array) -> dict[str, Array]:
        return {"p": x.mean(axis=(1, 2, 3))[:, None]}

    with pytest.raises(MeasureError, match="p:vector"):
        measure(CallableSession(one), noise(4), "C4", taps=["p:probability"], samples=4)


def oblong(x: Array) -> dict[str, Array]:
    return {"oblong": np.repeat(x[:, :, :4], 2, axis=1), "square": x}


def test_a_default_tap_that_cannot_be_acted_on_is_a_row_with_a_reason_and_an_explicit_one_an_error() -> None:
    results = measured(CallableSession(oblong), noise(5), "C4", samples=4)
    by = {r.tap["name"]: r for r in results}
    assert by["oblong"].value is None
    assert "4×8" in str(by["oblong"].reason)
    assert by["oblong"].tap["kernel"] is None
    assert by["square"].value == -1
    with pytest.raises(ActionError, match="oblong"):
        measure(CallableSession(oblong), noise(5), "C4", samples=4, taps=["oblong:map"])
    assert measured(CallableSession(oblong), noise(5), "C2", samples=4, taps=["oblong:map"])[0].value is not None


def test_more_samples_than_images() -> None:
    with pytest.raises(DataError, match=r"(?s)9.*only 5"):
        measure(CallableSession(small_net), noise(5), "C4", samples=9)
    with pytest.raises(DataError, match=r"(?s)9.*only 5"):
        measure(CallableSession(small_net), noise(5), "C4", samples=4, spread_samples=9)
    assert measured(CallableSession(small_net), noise(5), "C4", samples=4, reference_samples=99)[0].samples == 4


def test_one_image_has_a_value_without_an_interval() -> None:
    by = {r.variant: r for r in measured(CallableSession(small_net), noise(1), "C4", taps=SMALL_TAPS, samples="all")}
    assert by["channelwise"].value is not None
    assert by["channelwise"].low is by["channelwise"].calibrated is None
    assert by["latent-l2"].value is None
    assert "two" in str(by["latent-l2"].reason)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"group": "C0"}, UsageError),
        ({"group": "Q8"}, UsageError),
        ({"taps": ["mapp"]}, UnknownName),
        ({"variants": ["latent-l3"]}, UnknownName),
        ({"variants": ["softmax"], "taps": ["map:map"]}, UsageError),
        ({"actions": {"nowhere": "trivial"}}, UnknownName),
        ({"actions": {"latent": "permute:1:1,0"}, "taps": SMALL_TAPS}, ActionError),
        ({"samples": 0}, UsageError),
        ({"spread_samples": 1}, UsageError),
        ({"batch_size": 0}, UsageError),
        ({"level": 1.0}, UsageError),
        ({"group": "T3"}, ActionError),
        ({"mask": "disc", "group": "T2"}, ActionError),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_an_error(options: dict[str, Any], error: type[GeedError]) -> None:
    with pytest.raises(error):
        measure(CallableSession(small_net), noise(6), **{"group": "C4", "samples": 4, **options})


# ── the disc mask ────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("group", "resamples"),
    [("C8", True), ("D8", True), ("C12", True), ("C3", True), ("C8xS2@channel", True),
     ("C4", False), ("D4", False), ("flip", False), ("T2", False), ("S2@channel", False), ("C1", False)],
)  # fmt: skip
def test_auto_is_the_disc_where_an_element_resamples(group: str, resamples: bool) -> None:
    model, words = CallableSession(lambda b: {"map": b + 1}), ("auto", "disc", "none")
    by_word = {
        mask: measured(model, noise(4, 8, 2), group, samples=4, mask=mask)[0].data["mask"]
        for mask in words
        if (group, mask) != ("T2", "disc")  # which is refused
    }
    assert by_word["none"] is None
    assert by_word.get("disc", "disc") == "disc"
    assert by_word["auto"] == ("disc" if resamples else None)


@pytest.mark.parametrize("size", [8, 9])
def test_with_the_mask_nothing_outside_the_disc_reaches_the_model(size: int) -> None:
    y, x = np.mgrid[0:size, 0:size] - (size - 1) / 2
    outside = (np.hypot(y, x) > size / 2).astype(np.float32)
    seen = []

    def watching(batch: Array) -> dict[str, Array]:
        seen.append(np.abs(batch[:, :, outside > 0]).max())
        return {"map": batch + 1}

    (result,) = measured(CallableSession(watching), noise(5, size), "C8", samples=5, mask="disc", floor=True)
    assert max(seen[1:]) == 0  # the first run only tells the shapes, before any group is there
    assert len(seen) > 2
    assert result.data["mask"] == "disc"
    assert 0 < result.law_defect == result.input_law_defect
    # outside the disc both sides are 0, whatever the network says there
    shifted = measured(
        CallableSession(lambda b: {"map": b + 1 + 100 * outside}),
        noise(5, size),
        "C8",
        samples=5,
        mask="disc",
        floor=True,
    )[0]
    assert shifted.value == result.value


# ── broken images ────────────────────────────────────────────────────────────────────────────────────────────────────
def folder_of(path: Path, bad: tuple[int, ...], left_out: bool = False) -> str:
    from PIL import Image

    path.mkdir()
    for i, image in enumerate(noise(14, 8)):
        name = path / f"{i:02d}.png"
        if i not in bad:
            Image.fromarray((255 * image[0]).astype(np.uint8)).save(name)
        elif not left_out:
            name.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return str(path)


def test_skipped_images_leave_everything_else_where_it_belongs(tmp_path: Path) -> None:
    bad = (0, 3, 4, 9)
    holes, whole = folder_of(tmp_path / "holes", bad), folder_of(tmp_path / "whole", bad, left_out=True)
    net = saved(onnx_nets.cnn(8, (3, 4), 5), tmp_path)
    with pytest.raises(DataError, match=r"00\.png"):
        measure(net, holes, "C8", samples="all", provider="cpu")
    one = measured(net, holes, "C8", samples="all", skip_bad=True, floor=True, provider="cpu")
    other = measured(net, whole, "C8", samples="all", floor=True, provider="cpu")
    # who partners whom goes by places in the source, so the nulls are two draws from the same images
    drawn_anew = ("null", "calibrated", "calibrated_low", "calibrated_high", "sensitivity", "parts")
    for a, b in zip(one, other, strict=True):
        # other micro-batches: a runtime may round them in another way
        for name, number in numbers(a, *drawn_anew).items():
            there = numbers(b)[name]
            assert number == (there if there is None else pytest.approx(there, rel=1e-4, abs=1e-6)), (a.variant, name)
        assert (a.calibrated is None) == (b.calibrated is None)
        for x, y in ((a, b), (b, a)):
            if x.calibrated is not None:
                assert y.calibrated_low is not None
                assert y.calibrated_high is not None
                assert y.calibrated_low <= x.calibrated <= y.calibrated_high, a.variant
        assert [n for n in a.notes if "skipped" not in n] == list(b.notes)
    assert one[0].data["fingerprint"] == other[0].data["fingerprint"]
    assert one[0].samples == other[0].samples == 10
    assert one[0].spread_samples == other[0].spread_samples
    assert all("skipped 4" in " ".join(r.notes) and "03.png" in " ".join(r.notes) for r in one)

    everything = tables(net, whole, "C8", samples="all")
    for seed in range(3):
        drawn = [f"{i:02d}.png" for i in np.random.default_rng(seed).permutation(14)[:8] if i not in bad]
        for part, all_of_it in zip(tables(net, holes, "C8", samples=8, seed=seed), everything, strict=True):
            assert sorted(part) == sorted(drawn)
            for name, row in part.items():
                np.testing.assert_allclose(row, all_of_it[name], rtol=1e-4, atol=1e-6)


def test_every_image_broken_is_an_error(tmp_path: Path) -> None:
    net = saved(onnx_nets.cnn(8, (3, 4), 5), tmp_path)
    with pytest.raises(DataError):
        measure(net, folder_of(tmp_path / "holes", tuple(range(14))), "C4", samples="all", skip_bad=True)
