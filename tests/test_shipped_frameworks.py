"""The shipped networks of every framework: what their cards say, and what they are shipped to prove."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from geed_onnx import Result, measure
from geed_onnx.actions import Mask
from geed_onnx.sources import open_source
from geed_onnx.taps import list_taps, read_graph

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "models" / "shipped"
IMAGES = SHIPPED / "digits-test.parquet"
FRAMEWORKS = {
    "digits-cnn": "torch",
    "digits-cnn-untrained": "torch",
    "digits-cnn-int8": "onnxruntime.quantization",
    "digits-cnn-keras": "keras",
    "digits-cnn-keras-copied": "keras",
    "digits-cnn-flax": "flax",
    "digits-mlp": "scikit-learn",
    "digits-c8cnn": "escnn",
}
CNNS = [name for name in FRAMEWORKS if name.startswith("digits-cnn")]
ACCURATE = [name for name in FRAMEWORKS if name != "digits-cnn-untrained"]


def metadata(name: str, key: str) -> Any:
    model = onnx.load(SHIPPED / f"{name}.onnx")
    return json.loads({p.key: p.value for p in model.metadata_props}[key])


@cache
def measured(name: str, group: str = "C8", declared: bool = True, mask: Mask = "auto") -> dict[tuple[str, str], Result]:
    results = measure(SHIPPED / f"{name}.onnx", IMAGES, group, declared_action=declared, mask=mask)
    return {(str(r.tap["name"]), r.variant): r for r in results}


def test_every_file_is_listed_here_and_in_the_folder_s_own_list() -> None:
    assert {p.stem for p in SHIPPED.glob("*.onnx")} == set(FRAMEWORKS)
    listed = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    for name in FRAMEWORKS:
        assert f"`{name}.onnx`" in listed


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_is_small_and_the_one_its_card_describes(name: str) -> None:
    data = (SHIPPED / f"{name}.onnx").read_bytes()
    card = (SHIPPED / f"{name}.md").read_text(encoding="utf-8")
    assert 0 < len(data) < 1_000_000
    assert hashlib.sha256(data).hexdigest() in card
    assert card.startswith(f"# {name}.onnx\n")
    for word in ("**Data**", "**Export**", "accuracy, upright", "Made with", "**Limits**", "**Licence**"):
        assert word in " ".join(card.split()), word


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_says_what_it_is_and_no_path_of_a_machine(name: str) -> None:
    for suffix in (".onnx", ".md"):
        data = (SHIPPED / f"{name}{suffix}").read_bytes()
        assert not re.findall(rb"/(?:home|root|Users|tmp|work|usr|opt|mnt|var|private)/[\w.-]*|site-packages", data)
    assert metadata(name, "geed.schema") == 1
    assert metadata(name, "geed.source")["framework"] == FRAMEWORKS[name]
    declared = metadata(name, "geed.input")
    assert (declared["size"], declared["channels"], declared["range"]) == ([29, 29], 1, [0, 1])
    names = [t["name"] for t in metadata(name, "geed.taps")]
    if name in CNNS or name == "digits-c8cnn":
        assert sorted(names) == sorted([*(f"block{i}" for i in range(1, 7)), "latent", "scores"])
    listed = {t.name: t for t in list_taps(read_graph(SHIPPED / f"{name}.onnx"))}
    for entry in metadata(name, "geed.taps"):
        assert listed[entry["name"]].module == entry["module"]
        assert listed[entry["name"]].role is not None


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_reads_the_test_images_as_well_as_its_card_says(name: str) -> None:
    import onnxruntime
    import pyarrow.parquet as pq

    labels = np.array(pq.read_table(IMAGES, columns=["label"])["label"].to_pylist())
    pixels = np.stack([np.asarray(raw) for _, raw in open_source(str(IMAGES)).items(range(len(labels)))])
    x = pixels.reshape(len(labels), 1, 29, 29).astype(np.float32) / (255 if pixels.max() > 1 else 1)
    if metadata(name, "geed.input")["layout"] == "NHWC":
        x = x.transpose(0, 2, 3, 1)
    session = onnxruntime.InferenceSession(SHIPPED / f"{name}.onnx", providers=["CPUExecutionProvider"])
    [scores] = [t["name"] for t in metadata(name, "geed.taps") if t["kind"] == "probability"]
    upright = float((session.run([scores], {"image": x})[0].argmax(1) == labels).mean())
    stated = re.search(r"accuracy, upright \| (\d\.\d+)", (SHIPPED / f"{name}.md").read_text(encoding="utf-8"))
    assert stated is not None
    assert upright == pytest.approx(float(stated[1]), abs=0.0034)  # one image of 300
    assert (upright > 0.95) == (name in ACCURATE)


def test_equal_weights_in_two_frameworks_give_equal_values() -> None:
    """PyTorch's weights in Keras, NHWC, through another exporter and another opset: every number within 1e-4."""
    torch, keras = measured("digits-cnn"), measured("digits-cnn-keras-copied")
    assert torch.keys() == keras.keys()
    assert len(torch) == 10
    for key, r in torch.items():
        s = keras[key]
        for field in ("value", "low", "high", "optimum", "spread", "floor", "null", "calibrated"):
            a, b = getattr(r, field), getattr(s, field)
            assert (a is None) == (b is None), (key, field)
            if a is not None:
                assert abs(a - b) <= 1e-4 * max(1.0, abs(a)), (key, field, a, b)
        assert s.per_element == pytest.approx(r.per_element, abs=1e-4)
    assert {t["layout"] for t in metadata("digits-cnn-keras-copied", "geed.taps")} == {"NHWC", None}


def test_one_architecture_and_recipe_tells_nearly_one_story_in_three_frameworks() -> None:
    torch, untrained = measured("digits-cnn"), measured("digits-cnn-untrained")
    for name in ("digits-cnn-keras", "digits-cnn-flax"):
        other = measured(name)
        assert other.keys() == torch.keys()
        gaps = [abs(other[k].calibrated - torch[k].calibrated) for k in torch]  # type: ignore[operator]
        assert max(gaps) < 0.15
        # and none of them is the network that was not trained
        last = ("block6", "channelwise")
        assert untrained[last].calibrated > 0.9  # type: ignore[operator]
        assert other[last].calibrated < 0.7  # type: ignore[operator]


def test_int8_says_what_float32_says() -> None:
    whole, eighth = measured("digits-cnn"), measured("digits-cnn-int8")
    assert whole.keys() == eighth.keys()
    gaps = [abs(r.value - eighth[key].value) for key, r in whole.items()]  # type: ignore[operator]
    assert 0 < max(gaps) < 0.02
    assert metadata("digits-cnn-int8", "geed.source")  # what it was quantised from
    model = onnx.load(SHIPPED / "digits-cnn-int8.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {n.op_type for n in model.graph.node}
    text = json.dumps(metadata("digits-cnn-int8", "geed.source"))
    assert hashlib.sha256((SHIPPED / "digits-cnn.onnx").read_bytes()).hexdigest() in text


@pytest.mark.parametrize("mask", ["disc", "none"])
def test_the_steerable_network_is_exact_at_quarter_turns_where_its_channels_move(mask: Mask) -> None:
    declared, naive = measured("digits-c8cnn", mask=mask), measured("digits-c8cnn", declared=False, mask=mask)
    for i in range(1, 7):
        key = (f"block{i}", "channelwise")
        profile, pixels_only = declared[key].per_element, naive[key].per_element
        assert profile is not None
        assert pixels_only is not None
        assert str(declared[key].tap["action"]).startswith("pixels+fields(C8: ")
        assert naive[key].tap["action"] == "pixels"
        for quarter in (2, 4, 6):
            assert profile[quarter] == pytest.approx(-1, abs=5e-4)
            assert pixels_only[quarter] > -0.8
        for odd in (1, 3, 5, 7):
            assert profile[odd] < (-0.9 if mask == "disc" else -0.85)
            assert pixels_only[odd] > -0.8
        # calibrated: all that 45 degrees cost is the grid's doing
        assert abs(declared[key].calibrated) < 0.05  # type: ignore[operator]
        assert naive[key].calibrated > 0.85  # type: ignore[operator]


def test_the_steerable_network_is_exactly_invariant_under_quarter_turns() -> None:
    for key, r in measured("digits-c8cnn", group="C4").items():
        assert r.value == pytest.approx(r.optimum, abs=1e-3), key
        assert r.law_defect == 0
    assert measured("digits-cnn", group="C4")["block6", "channelwise"].value > -0.9  # type: ignore[operator]
