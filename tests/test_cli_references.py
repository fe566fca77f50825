"""What stands beside a number, over the command line: references whatever the order, the disc, clusters, reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_nets as nets
import pytest
from click.testing import CliRunner
from PIL import Image

from geed_onnx.cli import main
from geed_onnx.sources import open_source

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "models" / "shipped"
CNN, DIGITS = SHIPPED / "digits-cnn.onnx", SHIPPED / "digits-test.parquet"
Array = np.ndarray[Any, Any]


def measured(*args: object) -> dict[tuple[str, str], dict[str, Any]]:
    """Return {(tap, variant): result} of a `measure --json` that ends well."""
    ran = CliRunner().invoke(main, ["measure", *map(str, args), "--json"], prog_name="geed-onnx")
    assert ran.exit_code == 0, ran.output
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    return {(r["tap"]["name"], r["variant"]): r for r in lines}


def saved(net: nets.Net, folder: Path, inputs: list[Any], output: str, shape: list[Any]) -> Path:
    onnx.save(net.done([("x", inputs)], [(output, shape)]), folder / "net.onnx")
    return folder / "net.onnx"


def classes_in_order(folder: Path, *, shuffled: bool) -> Path:
    """Write 96 shipped digits under names that follow their classes, or a seeded shuffle."""
    rows = list(open_source(str(DIGITS)).items(range(96)))
    labels = np.array([int(np.asarray(a, dtype=np.int64).sum() // 3000) for _, a in rows])  # by how much ink there is
    order = np.argsort(labels, kind="stable")
    places = np.random.default_rng(0).permutation(96) if shuffled else np.arange(96)
    folder.mkdir()
    for place, row in zip(places, order, strict=True):
        Image.fromarray(np.asarray(rows[row][1]).squeeze()).save(folder / f"{place:03d}.png")
    return folder


def test_a_folder_in_class_order_reads_as_a_shuffled_one(tmp_path: Path) -> None:
    ordered, mixed = (
        measured(CNN, "--data", classes_in_order(tmp_path / name, shuffled=name == "mixed"), "--group", "C4",
                 "--samples", "all")
        for name in ("ordered", "mixed")
    )  # fmt: skip
    for cell, a in ordered.items():
        b = mixed[cell]
        assert a["value"] == pytest.approx(b["value"], rel=1e-6, abs=1e-9), cell  # the same images
        assert b["calibrated_low"] <= a["calibrated"] <= b["calibrated_high"], cell
        assert a["calibrated_low"] <= b["calibrated"] <= a["calibrated_high"], cell
        assert a["reference_samples"] == 96


def test_the_disc_is_taken_where_an_element_resamples_and_nowhere_else(tmp_path: Path) -> None:
    onnx.save(nets.identity_map(1, 32), tmp_path / "same.onnx")
    smooth = np.random.default_rng(0).standard_normal((16, 1, 33, 33)).cumsum(2).cumsum(3)
    smooth = smooth[:, :, 1:, 1:] - smooth.min((2, 3), keepdims=True)
    smooth = (smooth / smooth.max((2, 3), keepdims=True)).astype(np.float32)  # fills the frame, as photographs do
    np.save(tmp_path / "x.npy", smooth)

    def read(group: str, *more: str) -> dict[str, Any]:
        [found] = measured(
            tmp_path / "same.onnx", "--data", tmp_path / "x.npy", "--group", group, "--samples", "all", *more
        ).values()
        return found

    auto, none, disc = read("C8"), read("C8", "--mask", "none"), read("C8", "--mask", "disc")
    assert (auto["data"]["mask"], none["data"]["mask"], disc["data"]["mask"]) == ("disc", None, "disc")
    assert auto["value"] == disc["value"] == none["value"] == -1.0  # the identity moves with its image
    assert abs(auto["calibrated"]) <= 0.05  # the systematic error of the scale
    assert none["calibrated"] < -0.1  # corners that the value never lost
    exact = read("C4")
    assert exact["data"]["mask"] is None
    assert exact["floor"] == -1.0


def test_a_mask_that_is_none_is_named(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["measure", str(CNN), "--data", str(DIGITS), "--group", "C8", "--mask", "disk"])
    assert ran.exit_code == 2
    assert "'disk'" in ran.output
    assert "disc" in ran.output


def test_images_without_a_change_of_class_prove_nothing(tmp_path: Path) -> None:
    """A network whose class is never changed by a turn: its 20 images bound the rest, they do not settle it."""
    net = nets.Net()
    net.add("ReduceMean", ["x"], "mean", axes=[2, 3], keepdims=0)
    net.add("Gemm", ["mean", net.constant("w", np.array([[4.0], [-4.0]], np.float32))], "logits", transB=1)
    net.add("Softmax", ["logits"], "scores", axis=1)
    path = saved(net, tmp_path, ["N", 1, 8, 8], "scores", ["N", 2])
    images = np.random.default_rng(0).integers(0, 2, (20, 1, 8, 8)).astype(np.float32)  # sums of whole numbers: exact
    np.save(tmp_path / "x.npy", images)
    found = measured(
        path, "--data", tmp_path / "x.npy", "--group", "C4", "--samples", "all", "--tap", "scores:probability",
        "--variant", "softmax", "--variant", "probability:trivial:disagreement",
    )  # fmt: skip
    p = 1 - 0.025 ** (1 / 20)  # of all images, what 20 can have missed at 95 %
    for variant, largest in (("probability:trivial:disagreement", 1.0), ("softmax", np.log(2))):
        r = found["scores", variant]
        assert r["value"] == pytest.approx(0.0, abs=1e-15)
        assert r["high"] == pytest.approx(p * largest, rel=1e-6)
        assert r["low"] == pytest.approx(0.0, abs=1e-15)
    ran = CliRunner().invoke(
        main,
        ["measure", str(path), "--data", str(tmp_path / "x.npy"), "--group", "C4", "--samples", "all", "--tap",
         "scores:probability", "--fail-above", "softmax=0.01", "--prove"],
    )  # fmt: skip
    assert ran.exit_code == 3  # not shown to hold


def test_a_mean_similarity_near_0_divides_nothing(tmp_path: Path) -> None:
    net = nets.Net()
    net.add("Flatten", ["x"], "flat")
    net.add("Gemm", ["flat", net.constant("w", np.eye(16, dtype=np.float32))], "latent")
    path = saved(net, tmp_path, ["N", 1, 4, 4], "latent", ["N", 16])
    # directions that know nothing of one another: M is 0 but for chance
    np.save(tmp_path / "x.npy", np.random.default_rng(3).standard_normal((40, 1, 4, 4)).astype(np.float32))
    found = measured(path, "--data", tmp_path / "x.npy", "--group", "C4", "--samples", "all", "--tap", "latent:vector",
                     "--layout", "NCHW")  # fmt: skip
    r = found["latent", "latent-cosine"]
    assert r["value"] is None
    assert "not told from 0" in r["reason"]
    assert "latent-cosine-bounded" in r["reason"]
    assert found["latent", "latent-cosine-bounded"]["value"] is not None


def upright(tmp_path: Path) -> tuple[Path, Path]:
    """Write a network that tells on which side the bright edge is, and pages that all have it at the top."""
    net = nets.Net()
    sides = np.zeros((4, 1, 12, 12), np.float32)
    for k in range(4):
        sides[k, 0] = np.rot90(np.pad(np.ones((4, 12)), ((0, 8), (0, 0))), k) / 4
    net.add("Conv", ["x", net.constant("k", sides)], "edges")
    net.add("Flatten", ["edges"], "logits")
    net.add("Softmax", ["logits"], "scores", axis=1)
    pages = np.random.default_rng(0).random((24, 1, 12, 12)).astype(np.float32) * 0.3
    pages[:, :, :4] += 1
    np.save(tmp_path / "pages.npy", pages)
    return saved(net, tmp_path, ["N", 1, 12, 12], "scores", ["N", 4]), tmp_path / "pages.npy"


def test_a_stated_action_is_held_against_images_in_other_orientations(tmp_path: Path) -> None:
    path, pages = upright(tmp_path)

    def read(action: str) -> dict[str, Any]:
        ask = [path, "--data", pages, "--group", "C4", "--samples", "all", "--tap", "scores:probability"]
        return measured(*ask, "--act", f"scores={action}")["scores", "softmax"]

    right, wrong = read("roll:1:1"), read("roll:1:-1")
    assert right["value"] < 1e-3
    assert right["calibrated"] == pytest.approx(0.0, abs=1e-2)
    assert wrong["calibrated"] > 0.5


def test_a_group_that_is_not_faithful_reads_as_the_one_that_is(tmp_path: Path) -> None:
    """`flipxflip` has each motion twice: value, null and calibrated value are those of `flip`."""
    found = {}
    for group in ("flip", "flipxflip"):
        found[group] = measured(CNN, "--data", DIGITS, "--group", group, "--samples", 40)
    for cell, r in found["flip"].items():
        twice = found["flipxflip"][cell]
        for name in ("value", "null", "calibrated"):
            if r[name] is None:
                assert twice[name] is None
            else:
                assert twice[name] == pytest.approx(r[name], rel=1e-4, abs=1e-7), (cell, name)


@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_small_features_are_calibrated_as_large_ones_are(tmp_path: Path, scale: float) -> None:
    net = nets.Net()
    net.add("Conv", ["x", net.weight("k", 4, 1, 3, 3)], "conv", pads=[1] * 4)
    net.add("Relu", ["conv"], "map")
    net.add("GlobalAveragePool", ["map"], "pooled")
    net.add("Flatten", ["pooled"], "flat")
    net.add(
        "Gemm", ["flat", net.constant("w", (scale * np.random.default_rng(1).normal(size=(4, 6))).astype("f4"))], "y"
    )
    path = saved(net, tmp_path, ["N", 1, 9, 9], "y", ["N", 6])
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((24, 1, 9, 9), dtype=np.float32))
    ask = [path, "--data", tmp_path / "x.npy", "--group", "C4", "--samples", "all", "--tap", "y:vector"]
    for variant in ("latent-l2", "vector:trivial:l2"):
        r = measured(*ask, "--variant", variant)["y", variant]
        assert r["calibrated"] is not None, r["calibrated_reason"]
        assert 0 < r["calibrated"] < 2


def test_a_reason_says_which_of_three_it_is(tmp_path: Path) -> None:
    onnx.save(nets.constant_features(), tmp_path / "constant.onnx")
    few = measured(CNN, "--data", DIGITS, "--group", "C4", "--samples", 2, "--tap", "block1")["block1", "channelwise"]
    assert few["value"] is not None
    assert few["calibrated"] is None
    assert few["calibrated_reason"].startswith("few images: ")
    untrained = measured(SHIPPED / "digits-cnn-untrained.onnx", "--data", DIGITS, "--group", "C8")["scores", "softmax"]
    assert untrained["calibrated_reason"].startswith("insensitive: ")
    assert untrained["reason"] is None
    none = measured(CNN, "--data", DIGITS, "--group", "C4", "--reference-samples", 0, "--tap", "block1")
    assert none["block1", "channelwise"]["calibrated_reason"].startswith("not computed: ")
    # a checkerboard of one-pixel squares is gone after a turn by 45 degrees, while these images are alike
    onnx.save(nets.identity_map(1, 16), tmp_path / "same.onnx")
    y, x = np.mgrid[:16, :16]
    boards = np.where((x + y) % 2, 1.0, -1.0) * np.linspace(1, 2, 24)[:, None, None, None]
    boards += 0.01 * np.random.default_rng(0).standard_normal(boards.shape)
    np.save(tmp_path / "boards.npy", boards.astype(np.float32))
    coarse = measured(tmp_path / "same.onnx", "--data", tmp_path / "boards.npy", "--group", "C8", "--samples", "all")
    [r] = coarse.values()
    assert r["calibrated"] is None
    assert r["calibrated_reason"].startswith("floor above null: ")


def test_patients_are_the_unit_where_they_are_named(tmp_path: Path) -> None:
    """Twelve images of each of 6 patients, alike within: as 72 images they seem to tell far more than they do."""
    rng = np.random.default_rng(1)
    each = rng.random((6, 1, 1, 29, 29))
    images = (each + 0.02 * rng.random((6, 12, 1, 29, 29))).reshape(72, 1, 29, 29).astype(np.float32)
    np.savez(tmp_path / "x.npz", images=images, patient=np.repeat([f"p{i}" for i in range(6)], 12))
    ask = [CNN, "--data", tmp_path / "x.npz", "--column", "images", "--group", "C4", "--samples", "all"]
    alone, together = measured(*ask), measured(*ask, "--cluster", "patient")
    for cell, a in alone.items():
        b = together[cell]
        assert (a["units"], b["units"]) == (None, 6)
        assert b["data"]["cluster"] == "patient"
        assert a["value"] == pytest.approx(b["value"], rel=1e-9)
        if cell[1] in ("channelwise", "latent-l2"):
            assert b["high"] - b["low"] > 1.5 * (a["high"] - a["low"]), cell


def test_references_are_the_whole_sample_unless_told() -> None:
    ask = [CNN, "--data", DIGITS, "--group", "C4", "--samples", 70, "--tap", "block1"]
    assert measured(*ask)["block1", "channelwise"]["reference_samples"] == 70
    assert measured(*ask, "--reference-samples", 20)["block1", "channelwise"]["reference_samples"] == 20
