"""What the training scripts of models/ share, and the two networks that are made in this environment."""

from __future__ import annotations

import hashlib
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
from conftest import metadata
from scipy import ndimage

from geed_onnx.actions import resample

MODELS = Path(__file__).resolve().parents[3] / "models"
SHIPPED = MODELS / "shipped"
sys.path.insert(0, str(MODELS))

import cards  # noqa: E402
import digits  # noqa: E402


@pytest.fixture(scope="module")
def data() -> tuple[digits.Digits, digits.Digits]:
    return digits.digits(0)


# ------------------------------------------------------------------------------------- the turns


@pytest.mark.parametrize("k", range(8))
def test_turns_by_45_degrees_are_those_of_geed_onnx(k: int) -> None:
    x = np.random.default_rng(0).random((3, 2, 29, 29), dtype=np.float32)
    expected = resample(Fraction(k, 8), x.reshape(6, -1).astype(np.float64), 29, 29).reshape(x.shape)
    np.testing.assert_allclose(digits.rotated(x, k * np.pi / 4), expected, atol=1e-7)


def test_every_image_has_its_own_angle_and_quarter_turns_are_exact() -> None:
    x = np.random.default_rng(0).random((4, 1, 29, 29), dtype=np.float32)
    turned = digits.rotated(x, np.arange(4) * np.pi / 2)
    for k in range(4):
        np.testing.assert_array_equal(turned[k], np.rot90(x[k], k, (1, 2)))
    angles = np.array([0.3, -1.2, 2.0, 5.5])
    turned = digits.rotated(x, angles)
    for image, angle, ours in zip(x, angles, turned, strict=True):
        theirs = ndimage.rotate(image, np.degrees(angle), (1, 2), reshape=False, order=1, mode="grid-constant")
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


# ------------------------------------------------------------------------------------- data and training


def test_the_test_images_are_the_shipped_ones(tmp_path: Path, data: tuple[digits.Digits, digits.Digits]) -> None:
    training, test = data
    digits.write_images(test, tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").equals(pq.read_table(SHIPPED / "digits-test.parquet"))
    assert (len(training.rows), len(test.rows)) == (1317, 300)
    assert not set(training.rows) & set(test.rows)
    x, labels = test.batch()
    assert (x.shape, x.dtype, x.min(), x.max()) == ((300, 1, 29, 29), np.float32, 0, 1)
    assert set(labels) == set(range(digits.CLASSES))


def test_batches_are_drawn_anew_by_the_seed_alone(data: tuple[digits.Digits, digits.Digits]) -> None:
    training, _ = data
    recipe = digits.Recipe(seed=3, steps=4, batch=5)
    first, again = (list(digits.batches(training, recipe)) for _ in range(2))
    assert [x.shape for x, _ in first] == [(5, 1, 29, 29)] * 4
    for (x, labels), (x2, labels2) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(labels, labels2)
    assert not np.array_equal(first[0][0], first[1][0])
    other = next(digits.batches(training, digits.Recipe(seed=4, steps=1, batch=5)))
    assert not np.array_equal(first[0][0], other[0])


def test_the_learning_rate_cycles_once() -> None:
    recipe = digits.Recipe(seed=0, steps=1000, learning_rate=1.0)
    rates = [digits.one_cycle(step, recipe) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 25)
    assert int(np.argmax(rates)) == 299
    assert rates[299] == pytest.approx(1)
    assert rates[-1] == pytest.approx(1 / 25 / 1e4)
    # half way up and down the cosine lies half way
    assert digits.one_cycle(149, recipe) == pytest.approx((1 + 1 / 25) / 2, abs=5e-3)
    assert digits.one_cycle(649, recipe) == pytest.approx(1 / 2, abs=5e-3)


def test_accuracy_of_predictions_that_are_right_upright_only(data: tuple[digits.Digits, digits.Digits]) -> None:
    _, test = data
    x, labels = test.batch()

    def upright_only(images: np.ndarray) -> np.ndarray:
        known = np.array_equal(images, x)
        return np.eye(digits.CLASSES)[labels if known else (labels + 1) % digits.CLASSES]

    assert digits.accuracy(upright_only, test) == (1.0, 1 / 8)


# ------------------------------------------------------------------------------------- what is shipped


def shipped(name: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(SHIPPED / name), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("name", "output", "least"), [("digits-mlp", "probabilities", 0.85), ("digits-cnn-int8", "scores", 0.95)]
)
def test_the_networks_are_as_good_as_their_cards_say(
    data: tuple[digits.Digits, digits.Digits], name: str, output: str, least: float
) -> None:
    session = shipped(f"{name}.onnx")
    upright, turned = digits.accuracy(lambda x: np.asarray(session.run([output], {"image": x})[0]), data[1])
    assert min(upright, turned) > least
    card = (SHIPPED / f"{name}.md").read_text(encoding="utf-8")
    # other processors round 8 bits in other ways: a few images of 300 may change sides
    stated = [float(line.split("|")[2].split()[0].rstrip(",")) for line in card.splitlines() if "accuracy, " in line]
    np.testing.assert_allclose(stated, [upright, turned], atol=0.01)
    content = (SHIPPED / f"{name}.onnx").read_bytes()
    assert len(content) < 1_000_000
    assert hashlib.sha256(content).hexdigest() in card


def test_the_8_bit_network_is_the_shipped_one_in_8_bits() -> None:
    entries = metadata(SHIPPED / "digits-cnn-int8.onnx")
    origin = entries["geed.source"]["weights"]["quantised_from"]
    assert origin == {"file": "digits-cnn.onnx", "sha256": cards.sha256(SHIPPED / "digits-cnn.onnx")}
    original = metadata(SHIPPED / "digits-cnn.onnx")
    assert [t["name"] for t in entries["geed.taps"]] == [t["name"] for t in original["geed.taps"]]
    model = onnx.load(str(SHIPPED / "digits-cnn-int8.onnx"))
    weights = {w.name: w for w in model.graph.initializer}
    matrices = [w for n, w in weights.items() if n.endswith("weight_quantized")]
    assert len(matrices) == 7
    assert {w.data_type for w in matrices} == {onnx.TensorProto.INT8}
    assert list(weights["block6.conv.weight_scale"].dims) == [64]  # a scale a channel
    by_output = {o: n.op_type for n in model.graph.node for o in n.output}
    assert {by_output[f"block{i}"] for i in range(1, 7)} == {"DequantizeLinear"}
    assert by_output["scores"] == "Softmax"  # rounded to 8 bits, probabilities would not sum to 1


def test_cards_keep_words_whole_and_say_what_was_not_done() -> None:
    path = SHIPPED / "digits-mlp.onnx"
    card = cards.model_card(
        cards.Facts(
            path=path,
            title="A network",
            framework="NumPy",
            exporter="by hand",
            opset=20,
            outputs="`scores`.",
            architecture="None.",
            training=None,
            upright=0.5,
            rotated=0.25,
            test_images=300,
            parameters=1234,
            seed=7,
            difference=2e-6,
            versions={"NumPy": "2"},
        )
    )
    assert card.startswith("# digits-mlp.onnx\n\nA network.\n")
    assert "**Training** None." in card
    assert "| parameters | 1,234 |" in card
    assert "agrees with NumPy's to 2e-06 (absolute) in batches of 1 and 3" in " ".join(card.split())
    assert cards.sha256(path) in card
    assert max(map(len, card.splitlines())) <= 118
