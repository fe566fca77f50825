"""Every kind of Keras model, every layer tapped, against Keras' own forward pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import independent
import keras_networks as networks
import numpy as np
import onnx
import onnxruntime
import pytest

from geed_exporters import Facts, InputSpec, Written, write
from geed_exporters.candidates import default_roles
from geed_exporters.facts import NOTHING
from geed_exporters.keras import Loaded, candidates, described, export_keras, frameworks, load
from geed_onnx.engine import measure

SMALL = Facts(size=(12, 12), channels=3)


def made(name: str) -> Loaded:
    loaded = described(networks.KINDS[name](), facts=NOTHING if name == "permuted" else SMALL)
    networks.lived(loaded.model)
    return loaded


def declared(path: Path) -> dict[str, Any]:
    props = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    return {k: v if k == "geed.schema" else json.loads(v) for k, v in props.items()}


def images(n: int = 6, shape: tuple[int, ...] = (12, 12, 3)) -> Any:
    return np.random.default_rng(3).standard_normal((n, *shape)).astype(np.float32)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("name", networks.KINDS)
def test_every_layer_of_every_kind_of_model(name: str, layout: Any, tmp_path: Path) -> None:
    loaded = made(name)
    everything = [c.module for c in candidates(loaded)]
    written = write(export_keras(loaded, taps=["*"], layout=layout), tmp_path / "m.onnx", tolerance=1e-5)
    assert list(written.taps) == everything
    assert written.agreement is not None
    assert written.agreement.difference <= 1e-5
    assert written.agreement.batches == (1, 3)


PATHS = {
    "functional": ["stem", "norm", "relu", "inner", "sum", "pool", "mean", "drop", "head"],
    "sequential": ["conv", "norm", "gelu", "pool", "flat", "logits"],
    "Subclassed": [
        *(f"unit{i}{part}" for i in range(3) for part in ("/conv", "/norm", "")),
        "fc",
        "output",
        "fc.input",
    ],
    "nested": ["body/inner/conv", "body/inner/norm", "body/inner", "body/act", "body", "peak", "head"],
    "repeated": [
        *("shared/conv", "shared/leak", "shared", "shared/conv#1", "shared/leak#1", "shared#1"),
        *("halve", "halve#1", "flat", "head"),
    ],
    "several_tensors": ["conv", "split.low", "split.rest.0", "split.rest.1", "join", "mean", "head"],
    "recurrent": ["conv", "rows", "lstm", "head"],
}


@pytest.mark.parametrize("name", PATHS)
def test_taps_have_the_paths_of_the_layers(name: str) -> None:
    assert [c.module for c in candidates(made(name))] == PATHS[name]


ROLES = {
    "functional": {"relu": "stage", "pool": "stage", "mean": "latent", "head": "scores"},
    "Subclassed": {"unit0": "stage", "unit1": "stage", "unit2": "stage", "fc.input": "latent", "output": "scores"},
    "nested": {"body/act": "stage", "peak": "latent", "head": "scores"},
    "headless": {"conv1": "stage", "conv2": "stage", "conv3": "stage"},
    "transformer": {"add1": "stage", "add2": "stage", "mean": "latent", "head": "scores"},
}


@pytest.mark.parametrize("name", ROLES)
def test_the_default_choice(name: str) -> None:
    found = default_roles(candidates(made(name)))
    wanted = ROLES[name]
    assert {k: v for k, v in found.items() if v != "stage"} == {k: v for k, v in wanted.items() if v != "stage"}
    stages = [k for k, v in wanted.items() if v == "stage"]
    assert [c.module for c in candidates(made(name)) if found.get(c.module) == "stage"] == stages


def test_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write(export_keras(made("functional"), taps=["relu", "latent", "scores"]), path)
    said = declared(path)
    assert said["geed.schema"] == "1"
    assert said["geed.input"] == {
        "name": "image",
        "layout": "NHWC",
        "size": [12, 12],
        "channels": 3,
        "colour": "rgb",
    }
    assert said["geed.taps"] == [
        {"name": "relu", "kind": "map", "layout": "NHWC", "module": "relu"} | said["geed.taps"][0],
        {"name": "mean", "kind": "vector", "layout": None, "module": "mean", "role": "latent"},
        {"name": "head", "kind": "probability", "layout": None, "module": "head", "role": "scores"},
    ]
    source = said["geed.source"]
    assert source["framework"] == "keras"
    assert source["version"].startswith("3.")
    assert source["model"] == "functional"
    assert next(o.name for o in onnx.load(str(path)).graph.output) == "head"


def test_an_untapped_output_stays_the_first(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write(export_keras(made("functional"), taps=["relu"]), path)
    assert [o.name for o in onnx.load(str(path)).graph.output] == ["head", "relu"]


def test_geed_onnx_shows_the_layer_paths(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write(export_keras(made("nested"), taps=["*"]), path)
    ran = subprocess.run(
        [sys.executable, "-m", "geed_onnx", "taps", str(path), "--json"], capture_output=True, text=True, check=True
    )
    shown = {}
    for line in ran.stdout.splitlines():
        entry = json.loads(line)
        for tap in entry if isinstance(entry, list) else entry.get("taps", [entry]):
            shown[tap["name"]] = tap
    for module in PATHS["nested"]:
        assert shown[module]["module"] == module
    assert shown["body/inner/conv"]["layout"] == "NHWC"
    assert shown["body/inner/conv"]["kind"] == "map"


def test_a_conv_and_its_norm_stay_apart(tmp_path: Path) -> None:
    """The converter folds batch norm into the convolution where nobody looks in between."""
    loaded = made("functional")
    path = tmp_path / "m.onnx"
    write(export_keras(loaded, taps=["stem", "norm"]), path)
    x = images()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    conv, norm = session.run(["stem", "norm"], {"image": x})
    ours = np.asarray(loaded.model.get_layer("stem")(x))
    np.testing.assert_allclose(conv, ours, atol=1e-5)
    assert np.abs(conv - norm).max() > 0.1
    assert (norm < 0).any()


def test_dropout_is_off_and_statistics_stand_still() -> None:
    loaded = made("functional")
    before = [v.numpy() for v in loaded.model.weights]
    export = export_keras(loaded, taps=["drop", "mean"])
    seen = export.reference(images())
    assert np.array_equal(seen["drop"], seen["mean"])
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, loaded.model.weights, strict=True))


def test_layers_inside_a_branch_are_no_taps(tmp_path: Path) -> None:
    loaded = described(networks.Decided(), facts=SMALL)
    assert [c.module for c in candidates(loaded)] == ["conv", "output"]
    write(export_keras(loaded, taps=["*"]), tmp_path / "m.onnx", tolerance=1e-5)


def test_a_branch_is_taken_by_the_values(tmp_path: Path) -> None:
    loaded = described(networks.Decided(), facts=SMALL)
    path = tmp_path / "m.onnx"
    write(export_keras(loaded, taps=["*"]), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = images(2)
    outputs = [session.run(["output"], {"image": s * x})[0] for s in (1, -1)]
    assert sorted((o < 0).any() for o in outputs) == [False, True]


def test_layouts_are_each_taps_own(tmp_path: Path) -> None:
    for layout in ("NHWC", "NCHW"):
        path = tmp_path / f"{layout}.onnx"
        write(export_keras(made("permuted"), taps=["conv", "first", "norm", "last", "conv2"], layout=layout), path)
        got = {t["name"]: t["layout"] for t in declared(path)["geed.taps"]}
        assert (got["first"], got["norm"]) == ("NCHW", "NCHW")
        assert (got["conv"], got["last"], got["conv2"]) == (layout, layout, layout)
    shapes = {o.name: [d.dim_value for d in o.type.tensor_type.shape.dim] for o in onnx.load(str(path)).graph.output}
    assert shapes["conv"][1:] == [5, 12, 10]
    assert declared(path)["geed.input"] == {
        "name": "image",
        "layout": "NCHW",
        "size": [12, 10],
        "channels": 3,
        "colour": "rgb",
    }


@pytest.mark.parametrize("name", ["functional", "Subclassed", "nested"])
def test_both_layouts_measure_the_same(name: str, tmp_path: Path) -> None:
    loaded = made(name)
    x = images()
    values = {}
    for layout in ("NHWC", "NCHW"):
        path = tmp_path / f"{layout}.onnx"
        write(export_keras(loaded, taps=["*"], layout=layout), path)
        given = x if layout == "NHWC" else np.ascontiguousarray(np.moveaxis(x, -1, 1))
        results = measure(path, given, "C4", samples="all", spread_samples=len(x), reference_samples=0)
        values[layout] = {(r.tap["name"], r.variant): r.value for r in results}
    assert values["NHWC"].keys() == values["NCHW"].keys()
    assert len(values["NHWC"]) >= 6
    for key, value in values["NHWC"].items():
        assert value == pytest.approx(values["NCHW"][key], abs=1e-5), key


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(("name", "group"), [("functional", "C4"), ("Subclassed", "flip"), ("repeated", "C4")])
def test_round_trip(name: str, group: str, layout: Any, tmp_path: Path) -> None:
    """geed-onnx on the file, and a page of NumPy on Keras' own activations."""
    path = tmp_path / "m.onnx"
    export = export_keras(made(name), taps=["*"], layout=layout)
    write(export, path)
    x = images() if layout == "NHWC" else np.ascontiguousarray(np.moveaxis(images(), -1, 1))
    assert independent.check(path, export.reference, x, group=group) >= 6


def test_the_reference_is_keras_own_pass() -> None:
    """Held against calls of the layers one by one, which know nothing of the recorder."""
    model = networks.lived(networks.functional())
    x = images()
    seen = export_keras(model, taps=["*"]).reference(x)
    y = model.get_layer("norm")(model.get_layer("stem")(x), training=False)
    assert np.array_equal(seen["norm"], np.asarray(y))
    assert np.array_equal(seen["head"], np.asarray(model(x, training=False)))


def test_the_recorder_leaves_no_trace(keras: Any) -> None:
    before = keras.layers.Layer.__call__
    export_keras(networks.functional())
    assert keras.layers.Layer.__call__ is before
    with pytest.raises(ValueError, match="incompatible"):
        export_keras(networks.functional()).reference(images(2, (12, 12, 4)))
    assert keras.layers.Layer.__call__ is before


def test_the_input_makes_room_for_a_layer_of_its_name(tmp_path: Path, keras: Any) -> None:
    model = keras.Sequential(
        [keras.layers.Input((12, 12, 3)), keras.layers.Conv2D(3, 3, name="image"), keras.layers.Flatten(name="output")]
    )
    path = tmp_path / "m.onnx"
    write(export_keras(model, taps=["*"]), path, tolerance=1e-5)
    assert declared(path)["geed.input"]["name"] == "input"


def test_an_input_that_is_no_image(tmp_path: Path, keras: Any) -> None:
    model = keras.Sequential(
        [keras.layers.Input((7,)), keras.layers.Dense(5, name="a"), keras.layers.Dense(3, name="b")]
    )
    path = tmp_path / "m.onnx"
    write(export_keras(model), path, tolerance=1e-5)
    assert declared(path)["geed.input"] == {"name": "input"}


def test_eight_bit_images(tmp_path: Path, keras: Any) -> None:
    model = keras.Sequential(
        [
            keras.layers.Input((12, 12, 3), dtype="uint8"),
            keras.layers.Rescaling(1 / 255, name="scale"),
            keras.layers.Conv2D(3, 3, name="conv"),
        ]
    )
    path = tmp_path / "m.onnx"
    write(export_keras(model, taps=["*"]), path, tolerance=1e-5)
    assert onnx.load(str(path)).graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_half_precision_inside(tmp_path: Path, keras: Any) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = networks.functional()
    finally:
        keras.config.set_dtype_policy("float32")
    written = write(export_keras(model), tmp_path / "m.onnx", tolerance=1e-2)
    assert isinstance(written, Written)


def test_declared_preprocessing_is_written(tmp_path: Path) -> None:
    spec = InputSpec("image", (12, 12, 3), "NHWC", colour="bgr", range=(0.0, 255.0), mean=(1.0, 2.0, 3.0), std=(1.0,))
    path = tmp_path / "m.onnx"
    write(export_keras(Loaded(networks.functional(), spec, "random", "net")), path)
    got = declared(path)["geed.input"]
    assert (got["colour"], got["range"], got["mean"], got["std"]) == ("bgr", [0, 255], [1, 2, 3], [1])


def test_what_a_factory_says_is_written_and_flags_stand_over_it(tmp_path: Path) -> None:
    file, path = tmp_path / "net.py", tmp_path / "m.onnx"
    file.write_text(
        "import keras_networks\n"
        "FACTS = {'range': (0, 255), 'mean': (1, 2, 3), 'fit': 'crop', 'resize': 14, 'resample': 'bicubic',\n"
        "    'input': 'picture', 'blocks': 'in*r', 'latent': 'pool', 'notes': 'made for a test',\n"
        "    'weights': {'seed': 0},\n"
        "    'actions': {'pool': {'group': 'C4', 'fields': [{'type': 'trivial', 'count': 8}]}}}\n"
        "def build():\n    return keras_networks.functional(), FACTS\n"
    )
    loaded = load(f"{file}:build", facts=Facts(colour="bgr", mean=(0.5,)))
    write(export_keras(loaded), path)
    said = declared(path)
    assert said["geed.input"] == {
        **{"name": "picture", "layout": "NHWC", "size": [12, 12], "channels": 3, "colour": "bgr", "range": [0, 255]},
        **{"mean": [0.5], "fit": "crop", "resize": 14, "resample": "bicubic"},
    }
    roles = [(t["name"], t["role"], t.get("action")) for t in said["geed.taps"]]
    assert roles == [
        ("inner", "stage", None),
        ("pool", "latent", {"group": "C4", "fields": [{"type": "trivial", "count": 8}]}),
        ("head", "scores", None),
    ]
    assert (said["geed.source"]["weights"], said["geed.source"]["notes"]) == ({"seed": 0}, ["made for a test"])


def test_a_network_without_classes_gives_its_latent() -> None:
    for facts, latent in ((Facts(scores=""), "head"), (Facts(scores="", latent="mean"), "mean")):
        roles = default_roles(candidates(described(networks.functional(), facts=facts)))
        assert {name: role for name, role in roles.items() if role != "stage"} == {latent: "latent"}


def test_no_path_of_this_machine_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write(export_keras(made("Subclassed"), taps=["*"]), path)
    data = path.read_bytes()
    for trace in (str(Path.cwd()), str(tmp_path), "site-packages", ".py", str(Path.home()) + "/"):
        assert trace.encode() not in data, trace


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    export_keras(made("functional"))
    assert capfd.readouterr() == ("", "")


def test_quiet_gives_the_streams_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        with frameworks.quiet():
            print("hidden")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    print("shown")
    assert capfd.readouterr().out == "shown\n"
