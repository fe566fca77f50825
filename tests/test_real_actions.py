"""Published networks whose outputs move under the group: measured on the command line, with and without saying so."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw, ImageFont

from geed_onnx.cli import main

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"
MODELS, MNIST = SHARED / "models-real", SHARED / "data" / "mnist"
needs_models = pytest.mark.skipif(
    not MODELS.is_dir(), reason="../shared/models-real is not there: no real files to run"
)
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason="../shared/data/mnist is not there: no digits to give")
WORDS = "Rotation Symmetry Invariant 1984 Hello-World Paris Quantity Total: Street Number_7 Zebra (open) maximal Jungle"


def measured(*args: object) -> dict[str, Any]:
    """The one line of a command that gives one, and must not fail."""
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == 0, result.output
    [line] = result.stdout.splitlines()
    return dict(json.loads(line))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of text as the classifier wants them: 48×192, dark on light, values −1 to 1."""
    font = ImageFont.load_default(size=32)
    images = []
    for word in WORDS.split():
        image = Image.new("RGB", (192, 48), "white")
        left, top, right, bottom = font.getbbox(word)
        ImageDraw.Draw(image).text(((192 - right - left) / 2, (48 - bottom - top) / 2), word, fill="black", font=font)
        images.append(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1)
    path = tmp_path_factory.mktemp("words") / "words.npy"
    np.save(path, np.stack(images))
    return path


@needs_models
def test_a_text_direction_classifier_whose_classes_swap_under_a_half_turn(words: Path) -> None:
    scores = "softmax_0.tmp_0"
    ask = ["measure", MODELS / "ppocr_v2_angle_cls_paddle2onnx.onnx", "--data", words, "--group", "C2", "--samples"]
    ask += ["all", "--tap", f"{scores}:probability", "--variant", "softmax", "--json"]
    swapped = measured(*ask, "--act", f"{scores}=permute:1:1,0")
    invariant = measured(*ask)
    # 0 or 180 degrees is what it tells apart: f(gx) is as far from the orbit's mean as two classes allow …
    assert invariant["tap"]["kernel"] == [0, 1]
    assert 0.6 < invariant["value"] <= np.log(2)
    # … and where its classes are said to swap, hardly anything is left
    assert swapped["tap"]["kernel"] == [0]
    assert swapped["tap"]["action"] == "permute:1:1,0"
    assert 0 <= swapped["value"] < 0.1 * invariant["value"]
    # every line stands upright, so unrelated lines answer alike too, but not those that are upside down
    assert swapped["null"] > 0.5
    assert 0 <= swapped["calibrated"] < 0.1


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 50 test digits of MNIST, `(50, 1, 28, 28)` in 0..1."""
    [packed] = sorted(MNIST.glob("t10k-images*"))
    raw = gzip.decompress(packed.read_bytes()) if packed.suffix == ".gz" else packed.read_bytes()
    path = tmp_path_factory.mktemp("digits") / "digits.npy"
    np.save(path, np.frombuffer(raw, np.uint8, 50 * 784, 16).reshape(50, 1, 28, 28).astype(np.float32) / 255)
    return path


@needs_models
@needs_mnist
def test_a_table_that_rolls_by_four_under_a_quarter_turn(digits: Path) -> None:
    ask = ["measure", MODELS / "rednn16_RRT.onnx", "--data", digits, "--group", "C4", "--samples", "all"]
    ask += ["--tap", "Output_table:vector", "--variant", "vector:trivial:relative-l2", "--json"]
    rolled = measured(*ask, "--act", "Output_table=roll:1:-4")
    invariant, backwards = measured(*ask), measured(*ask, "--act", "Output_table=roll:1:4")
    assert rolled["tap"]["kernel"] == [0]
    assert rolled["value"] < 0.02
    assert rolled["per_element"][2] < 1e-4  # a half-turn is exact
    assert invariant["value"] > 10 * rolled["value"]
    assert backwards["value"] > 10 * rolled["value"]


@needs_models
@needs_mnist
def test_the_table_rolls_by_one_under_a_sixteenth(digits: Path) -> None:
    ask = [
        "measure",
        MODELS / "rednn16_RRT.onnx",
        "--data",
        digits,
        "--group",
        "C16",
        "--samples",
        "20",
        "--mask",
        "disc",
    ]
    ask += ["--tap", "Output_table:vector", "--variant", "latent-cosine-bounded", "--json"]
    rolled, invariant = measured(*ask, "--act", "Output_table=roll:1:-1"), measured(*ask)
    assert rolled["value"] < 0.5 * invariant["value"]
    profile = np.array(rolled["per_element"])
    # exact at the quarter turns, and off between them: 22.5 degrees are no action on a grid
    assert profile[[4, 8, 12]].max() < profile[[1, 2, 3, 5, 6, 7]].min()
