"""keras.applications: every layer tapped, and preprocessing held against the application's own function."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras_networks as networks
import numpy as np
import pytest

from geed_exporters import Facts, write
from geed_exporters.candidates import default_roles
from geed_exporters.keras import candidates, described, export_keras, load
from geed_onnx.sources.preprocessing import Preprocessing, normalised

#: tf2onnx takes minutes for hundreds of outputs of a deep network: of the last two, a part (all was run once by hand)
FAMILIES = {
    "MobileNetV2": (32, "*", 155),
    "ResNet50": (32, "*", 176),
    "EfficientNetB0": (32, "*", 239),
    "DenseNet121": (32, "conv2_*", 42),
    "ConvNeXtTiny": (64, "*stage_3*", 21),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_of_a_family(name: str, tmp_path: Path) -> None:
    size, glob, layers = FAMILIES[name]
    loaded = load(f"keras:{name}", facts=Facts(size=(size, size)))
    networks.lived(loaded.model)
    written = write(export_keras(loaded, taps=[glob]), tmp_path / "m.onnx", tolerance=1e-5)
    assert len(written.taps) == layers
    assert written.agreement is not None
    print(f"{name} {size}x{size}: {layers} taps, {written.agreement.difference:.1e} at {written.agreement.tap}")
    assert written.agreement.difference <= 1e-5


def test_a_nested_mobilenet(tmp_path: Path, keras: Any) -> None:
    body = keras.applications.MobileNetV2(input_shape=(64, 64, 3), include_top=False, weights=None, name="mobilenet")
    head = [keras.layers.GlobalAveragePooling2D(name="pool"), keras.layers.Dense(5, name="logits")]
    loaded = described(networks.lived(keras.Sequential([keras.layers.Input((64, 64, 3)), body, *head])))
    written = write(export_keras(loaded, taps=["*"]), tmp_path / "m.onnx", tolerance=1e-5)
    assert len(written.taps) == 156
    assert {"mobilenet/Conv1", "mobilenet/block_3_add", "mobilenet", "pool", "logits"} - set(written.taps) == {
        "mobilenet/block_3_add"  # block 3 has a stride, and so no sum
    }
    print(f"nested MobileNetV2: 156 taps, {written.agreement.difference:.1e}")  # type: ignore[union-attr]
    roles = default_roles(candidates(loaded))
    assert [m for m, r in roles.items() if r == "stage"][:2] == ["mobilenet/block_2_add", "mobilenet/block_5_add"]
    assert (roles["pool"], roles["logits"]) == ("latent", "scores")


STAGES = {
    "MobileNetV2": ["block_2_add", "block_5_add", "block_9_add", "block_12_add", "block_15_add"],
    "ResNet50": ["conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"],
    "VGG16": ["block1_pool", "block2_pool", "block3_pool", "block4_pool", "block5_pool"],
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_the_ends_of_the_blocks(name: str) -> None:
    roles = default_roles(candidates(load(f"keras:{name}", facts=Facts(size=(64, 64)))))
    stages = [m for m, r in roles.items() if r == "stage"]
    assert stages[: len(STAGES[name])] == STAGES[name]
    assert [r for r in roles.values() if r != "stage"] == ["latent", "scores"]


@pytest.mark.parametrize("name", ["MobileNetV2", "VGG16", "DenseNet121", "EfficientNetB0", "MobileNetV3Small"])
def test_preprocessing_is_the_applications_own(name: str, keras: Any) -> None:
    """What geed-onnx does with the recorded range, mean, std and colour, against preprocess_input."""
    spec = load(f"keras:{name}", facts=Facts(size=(32, 32))).input
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    own = sys.modules[getattr(keras.applications, name).__module__].preprocess_input(image.copy())
    assert spec.range is not None
    seen = image[..., ::-1] if spec.colour == "bgr" else image
    low, high = spec.range
    ours = (low + seen / 255 * (high - low) - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(ours, own, atol=2e-4)
    # and the same through geed-onnx's own arithmetic
    said = {"range": spec.range, "mean": spec.mean, "std": spec.std, "colour": spec.colour, "layout": "NHWC"}
    preprocessing = Preprocessing(height=32, width=32, **said)  # type: ignore[arg-type]
    theirs = normalised(np.moveaxis(seen / 255, -1, 1), preprocessing)
    np.testing.assert_allclose(theirs, own, atol=2e-4)
