"""What ships in `models/shipped`: the files are what their cards say, and show what DESIGN 4.9 tells."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from scipy import ndimage

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "models" / "shipped"
NETWORKS = ("digits-cnn", "digits-cnn-untrained")
FILES = ("digits-cnn.onnx", "digits-cnn-untrained.onnx", "digits-test.parquet")
SHAPES = {
    "scores": (9,),
    "block1": (16, 29, 29),
    "block2": (16, 15, 15),
    "block3": (32, 15, 15),
    "block4": (32, 7, 7),
    "block5": (64, 7, 7),
    "block6": (64, 7, 7),
    "latent": (64,),
}


@cache
def load(name: str) -> onnx.ModelProto:
    return onnx.load(SHIPPED / f"{name}.onnx")


def metadata(name: str, key: str):
    return json.loads({p.key: p.value for p in load(name).metadata_props}[key])


@cache
def session(name: str):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        SHIPPED / f"{name}.onnx", sess_options=options, providers=["CPUExecutionProvider"]
    )


def run(name: str, x: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(SHAPES, session(name).run(list(SHAPES), {"image": x}), strict=True))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory):
    import datasets

    datasets.disable_progress_bars()
    file = str(SHIPPED / "digits-test.parquet")
    cache_dir = str(tmp_path_factory.mktemp("datasets"))
    return datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=cache_dir, keep_in_memory=True)


@pytest.fixture(scope="module")
def images(table) -> np.ndarray:
    """`(300, 1, 29, 29)` float32, prepared as the model file declares."""
    declared = metadata("digits-cnn", "geed.input")
    assert (declared["layout"], declared["colour"], declared["channels"]) == ("NCHW", "grey", 1)
    pixels = np.stack([np.asarray(image) for image in table["image"]])
    assert pixels.dtype == np.uint8
    assert list(pixels.shape[1:]) == declared["size"]
    low, high = declared["range"]
    x = pixels[:, None].astype(np.float32) / 255 * (high - low) + low
    return ((x - declared["mean"][0]) / declared["std"][0]).astype(np.float32)


def accuracy(name: str, x: np.ndarray, labels: np.ndarray) -> float:
    return float((run(name, x)["scores"].argmax(1) == labels).mean())


@pytest.mark.parametrize("file", FILES)
def test_is_under_a_megabyte_and_the_one_its_card_describes(file: str) -> None:
    data = (SHIPPED / file).read_bytes()
    assert 0 < len(data) < 1_000_000
    card = (SHIPPED / file).with_suffix(".md").read_text(encoding="utf-8")
    assert hashlib.sha256(data).hexdigest() in card
    assert card.startswith(f"# {file}\n")


@pytest.mark.parametrize("file", [*FILES, *(Path(f).with_suffix(".md").name for f in FILES)])
def test_names_no_machine_and_no_user(file: str) -> None:
    data = (SHIPPED / file).read_bytes()
    found = re.findall(
        rb"/(?:home|root|Users|tmp|work|usr|opt|mnt|var|private)/[\w.-]*|[A-Z]:\\\w+|site-packages", data
    )
    assert found == []
    assert b"stack_trace" not in data
    assert str(ROOT).encode() not in data


def test_the_data_card_states_source_changes_and_licence() -> None:
    card = (SHIPPED / "digits-test.md").read_text(encoding="utf-8")
    for words in ("Alpaydin", "UCI", "10.24432/C50P49", "CC BY 4.0", "scikit-learn", "**Changes**"):
        assert words in card


@pytest.mark.parametrize("name", NETWORKS)
def test_is_a_checked_model_of_dynamic_batch_with_module_paths(name: str) -> None:
    model = load(name)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert [i.name for i in model.graph.input] == ["image"]
    assert [o.name for o in model.graph.output] == list(SHAPES)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param
    for node in model.graph.node:
        assert [p.key for p in node.metadata_props] == ["pkg.torch.onnx.name_scopes"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 3])
def test_runs_at_any_batch(name: str, batch: int, images: np.ndarray) -> None:
    outputs = run(name, images[:batch])
    assert {tap: array.shape for tap, array in outputs.items()} == {tap: (batch, *s) for tap, s in SHAPES.items()}
    assert all(np.isfinite(array).all() for array in outputs.values())
    np.testing.assert_allclose(outputs["scores"].sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(outputs["latent"], outputs["block6"].mean((2, 3)), atol=1e-5)
    one_by_one = [run(name, images[i : i + 1])["block6"] for i in range(batch)]
    np.testing.assert_allclose(outputs["block6"], np.concatenate(one_by_one), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_metadata_follow_the_contract_of_exporters(name: str) -> None:
    assert metadata(name, "geed.schema") == 1
    taps = {tap["name"]: tap for tap in metadata(name, "geed.taps")}
    assert taps.keys() == SHAPES.keys()
    scopes = {
        node.output[0]: {p.key: p.value for p in node.metadata_props}["pkg.torch.onnx.name_scopes"]
        for node in load(name).graph.node
    }
    for tap, shape in SHAPES.items():
        kind = "map" if len(shape) == 3 else "probability" if tap == "scores" else "vector"
        assert (taps[tap]["kind"], taps[tap]["layout"]) == (kind, "NCHW" if kind == "map" else None)
        assert f"'{taps[tap]['module']}'" in scopes[tap]
    source = metadata(name, "geed.source")
    assert (source["framework"], source["version"], source["model"]) == ("torch", "2.13.0", "DigitsCNN")
    assert source["weights"]["seed"] == 0
    assert (source["weights"]["steps"] == 0) == (name == "digits-cnn-untrained")


def test_images_are_read_through_datasets(table) -> None:
    import datasets

    assert isinstance(table.features["image"], datasets.Image)
    assert (table.features["id"].dtype, table.features["label"].dtype) == ("string", "int64")
    assert len(table) == len(set(table["id"])) == 300
    labels = np.bincount(table["label"])
    assert len(labels) == 9
    assert labels.min() >= 30
    assert {(image.mode, image.size) for image in table["image"]} == {("L", (29, 29))}


def test_turning_an_image_loses_no_ink(images: np.ndarray) -> None:
    y, x = np.mgrid[:29, :29] - 14.0
    outside = np.hypot(x, y) > 14.5
    assert images[:, 0, outside].sum() < 1e-3 * images.sum()


def test_trained_network_reads_upright_and_turned_digits(table, images: np.ndarray) -> None:
    labels = np.array(table["label"])
    upright = accuracy("digits-cnn", images, labels)
    assert upright > 0.95
    turns = [ndimage.rotate(images, 45 * k, (2, 3), False, order=1, mode="grid-constant") for k in range(8)]
    rotated = float(np.mean([accuracy("digits-cnn", turn, labels) for turn in turns]))
    assert rotated > 0.95
    card = (SHIPPED / "digits-cnn.md").read_text(encoding="utf-8")
    stated = [float(number) for number in re.findall(r"accuracy, \w+ \| (\d\.\d+)", card)]
    np.testing.assert_allclose(stated, [upright, rotated], atol=0.005)
    assert accuracy("digits-cnn-untrained", images, labels) < 0.3


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over images and channels of the cosine of two `(N, C, H, W)`; two zero channels are equal."""
    a, b = (z.reshape(*z.shape[:2], -1).astype(np.float64) for z in (a, b))
    norm = np.linalg.norm(a, axis=2) * np.linalg.norm(b, axis=2)
    both_zero = ~a.any(2) & ~b.any(2)
    return float(np.where(norm > 0, (a * b).sum(2) / np.where(norm > 0, norm, 1), both_zero).mean())


def _block6(name: str, images: np.ndarray) -> tuple[float, float]:
    """Return the raw and the calibrated channelwise C8 value of the last map, written down independently."""

    def turned(x: np.ndarray, k: int) -> np.ndarray:
        return ndimage.rotate(x, 45 * k, (2, 3), False, order=1, mode="grid-constant")

    orbit = [run(name, turned(images, k))["block6"] for k in range(8)]
    few = orbit[0][:16]
    broken = [np.stack([orbit[k][(i + k) % 16] for i in range(16)]) for k in range(8)]
    value = -np.mean([_cosine(orbit[k], turned(orbit[0], k)) for k in range(8)])
    floor = -np.mean([_cosine(turned(turned(few, k), -k), few) for k in range(8)])
    null = -np.mean([_cosine(broken[k], turned(few, k)) for k in range(8)])
    return float(value), float((value - floor) / (null - floor))


def test_raw_and_calibrated_values_disagree_about_the_untrained_twin(images: np.ndarray) -> None:
    sample = images[np.random.default_rng(0).permutation(len(images))[:50]]
    trained, trained_calibrated = _block6("digits-cnn", sample)
    untrained, untrained_calibrated = _block6("digits-cnn-untrained", sample)
    assert untrained < trained - 0.1  # raw: the untrained map seems the more equivariant one
    assert trained_calibrated < 0.7 < 0.9 < untrained_calibrated  # calibrated: it is no better than unrelated images


def test_untrained_scores_hardly_depend_on_the_image(images: np.ndarray) -> None:
    scores = run("digits-cnn-untrained", images)["scores"].astype(np.float64)
    mean = scores.mean(0)
    assert (scores * np.log(scores / mean)).sum(1).mean() < 1e-6
