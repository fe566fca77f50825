"""Fitted models of scikit-learn in ONNX: every step and hidden layer by its name, equal to what scikit-learn gives."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import skops.io
from conftest import FEATURES, PIPELINE, SIDE, export, fitted, geed_onnx, metadata
from independent import check
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC

from geed_exporters import Facts, write
from geed_exporters.sklearn import candidates, export_sklearn

Array = np.ndarray[Any, Any]
IMAGE = Facts(size=(SIDE, SIDE), range=(0, 1))


def mlp(*hidden: int, activation: str = "relu") -> MLPClassifier:
    return MLPClassifier(hidden, activation=activation, max_iter=8, random_state=0)


def pipeline() -> Pipeline:
    return fitted(Pipeline([("scaler", StandardScaler()), ("pca", PCA(10)), ("mlp", mlp(12, 8))]))


def own_layers(network: MLPClassifier | MLPRegressor, x: Array) -> list[Array]:
    """Every layer's activations by scikit-learn's own forward pass, input and output included."""
    return network._forward_pass([x] + [None] * (network.n_layers_ - 1))


def ran(path: Path, x: Array) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x.astype(np.float32)}), strict=True))


def images(n: int, *shape: int) -> Array:
    return np.random.default_rng(1).random((n, *(shape or (1, SIDE, SIDE)))).astype(np.float32)


# ------------------------------------------------------------------------------------- the round trip


@pytest.mark.parametrize("group", ["C4", "flip"])
def test_measured_values_are_those_of_scikit_learns_own_activations(tmp_path: Path, group: str) -> None:
    model = pipeline()
    path = write(export_sklearn(model, image=IMAGE), tmp_path / "p.onnx").path

    def activations(x: Array) -> dict[str, Array]:
        scaled = model["scaler"].transform(x.reshape(len(x), -1))
        reduced = model["pca"].transform(scaled)
        _, one, two, scores = own_layers(model["mlp"], reduced)
        return {"scaler": scaled, "pca": reduced, "mlp.hidden_1": one, "mlp.hidden_2": two, "probabilities": scores}

    assert check(path, activations, images(24), group=group) == 4 * 3 + 1


def test_colour_images_flattened_as_height_width_channels(tmp_path: Path) -> None:
    model = fitted(make_pipeline(MinMaxScaler(), mlp(7)), features=SIDE * SIDE * 3)
    image = Facts(size=(SIDE, SIDE), colour="rgb", range=(0, 1))
    path = write(export_sklearn(model, image=image, layout="NHWC"), tmp_path / "c.onnx").path
    declared = metadata(path)["geed.input"]
    assert [declared[k] for k in ("layout", "size", "channels", "colour")] == ["NHWC", [6, 6], 3, "rgb"]

    def activations(x: Array) -> dict[str, Array]:
        scaled = model[0].transform(x.reshape(len(x), -1))
        return {
            "minmaxscaler": scaled,
            "mlpclassifier.hidden_1": own_layers(model[1], scaled)[1],
            "probabilities": model.predict_proba(x.reshape(len(x), -1)),
        }

    assert check(path, activations, images(16, SIDE, SIDE, 3)) == 7


# ------------------------------------------------------------------------------------- the contents


@pytest.mark.parametrize("batch", [1, 3])
def test_runs_at_any_batch_with_every_tap_equal(tmp_path: Path, batch: int) -> None:
    model = pipeline()
    path = write(export_sklearn(model, image=IMAGE), tmp_path / "p.onnx").path
    x = images(batch)
    outputs = ran(path, x)
    flat = x.reshape(batch, -1)
    layers = own_layers(model["mlp"], model[:2].transform(flat))
    own = {"pca": layers[0], "mlp.hidden_1": layers[1], "mlp.hidden_2": layers[2], "probabilities": layers[3]}
    own["scaler"] = model["scaler"].transform(flat)
    assert outputs.keys() == own.keys()
    for tap, values in own.items():
        np.testing.assert_allclose(outputs[tap], values, atol=2e-5)


def test_metadata_follow_the_contract(tmp_path: Path) -> None:
    path = write(export_sklearn(pipeline(), image=IMAGE, name="net.py:build"), tmp_path / "p.onnx").path
    entries = metadata(path)
    assert entries["geed.schema"] == "1"
    assert entries["geed.input"] == {
        "name": "image",
        "layout": "NCHW",
        "size": [6, 6],
        "channels": 1,
        "colour": "grey",
        "range": [0, 1],
    }
    taps = {tap["name"]: (tap["kind"], tap["layout"], tap["module"], tap["role"]) for tap in entries["geed.taps"]}
    assert taps == {
        "scaler": ("vector", None, "scaler", "stage"),
        "pca": ("vector", None, "pca", "stage"),
        "mlp.hidden_1": ("vector", None, "mlp.hidden_1", "stage"),
        "mlp.hidden_2": ("vector", None, "mlp.hidden_2", "latent"),
        "probabilities": ("probability", None, "mlp.predict_proba", "scores"),
    }
    source = entries["geed.source"]
    assert (source["framework"], source["model"], source["weights"]) == ("scikit-learn", "net.py:build", "as fitted")
    model = onnx.load(str(path))
    assert [i.name for i in model.graph.input] == ["image"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert all(node.name.split("/")[0] in ("flatten", "scaler", "pca", "mlp") for node in model.graph.node)


def test_geed_onnx_shows_the_pipelines_words(tmp_path: Path) -> None:
    path = write(export_sklearn(pipeline(), image=IMAGE), tmp_path / "p.onnx").path
    shown = {tap["name"]: tap for tap in geed_onnx("taps", str(path))}
    for name in ("scaler", "pca", "mlp.hidden_1", "mlp.hidden_2", "probabilities"):
        assert shown[name]["default"], shown[name]
    assert [shown[n]["module"] for n in ("pca", "mlp.hidden_2", "probabilities")] == [
        "pca",
        "mlp.hidden_2",
        "mlp.predict_proba",
    ]


def test_no_path_of_this_machine_is_in_the_file(tmp_path: Path, factory: Callable[..., str]) -> None:
    path = tmp_path / "p.onnx"
    assert export(factory(PIPELINE), "-o", path).exit_code == 0
    data = path.read_bytes()
    for place in (os.getcwd(), str(tmp_path), sysconfig.get_paths()["purelib"], "site-packages"):
        assert place.encode() not in data


@pytest.mark.parametrize(
    ("globs", "names"),
    [
        (["mlp.*"], ["mlp.hidden_1", "mlp.hidden_2"]),
        (["scores"], ["probabilities"]),
        (["stages"], ["scaler", "pca", "mlp.hidden_1"]),
        (["latent", "pca"], ["pca", "mlp.hidden_2"]),
    ],
)
def test_globs_choose_taps_and_what_none_needs_is_left_out(globs: list[str], names: list[str]) -> None:
    model = export_sklearn(pipeline(), taps=globs).model
    assert [o.name for o in model.graph.output] == names
    softmax = any(node.op_type == "Softmax" for node in model.graph.node)
    assert softmax == ("probabilities" in names)
    assert {w.name for w in model.graph.initializer} <= {name for node in model.graph.node for name in node.input}


# ------------------------------------------------------------------------------------- kinds of estimators


UNION = FeatureUnion([("scaled", StandardScaler()), ("few", PCA(3)), ("raw", "passthrough"), ("none", "drop")])
SEARCH = GridSearchCV(Pipeline([("s", StandardScaler()), ("lr", LogisticRegression())]), {"lr__C": [0.1, 1]}, cv=2)
VOTE = VotingClassifier([("lr", LogisticRegression()), ("mlp", mlp(4))], voting="soft", flatten_transform=False)
MODELS: dict[str, tuple[Any, int | None, str]] = {
    "bare perceptron": (mlp(7, 5), 3, "hidden_1 hidden_2 probabilities"),
    "two classes": (mlp(5), 2, "hidden_1 probabilities"),
    "tanh": (mlp(7, 5, activation="tanh"), 3, "hidden_1 hidden_2 probabilities"),
    "logistic": (mlp(5, 5, 5, activation="logistic"), 3, "hidden_1 hidden_2 hidden_3 probabilities"),
    "identity": (mlp(5, activation="identity"), 3, "hidden_1 probabilities"),
    "no hidden layer": (mlp(), 3, "probabilities"),
    "perceptron, regression": (
        MLPRegressor(hidden_layer_sizes=(7,), max_iter=8, random_state=0),
        None,
        "hidden_1 prediction",
    ),
    "ridge": (make_pipeline(StandardScaler(), Ridge()), None, "standardscaler prediction"),
    "nested, passthrough": (
        Pipeline([("no", "passthrough"), ("in", Pipeline([("s", StandardScaler()), ("p", PCA(4))])), ("r", Ridge())]),
        None,
        "in.s in.p prediction",
    ),
    "union": (Pipeline([("u", UNION), ("lr", LogisticRegression())]), 3, "u.scaled u.few u.raw u probabilities"),
    "search": (SEARCH, 3, "s probabilities"),
    "forest": (RandomForestClassifier(5, random_state=0), 3, "probabilities"),
    "boosting": (GradientBoostingClassifier(n_estimators=4, random_state=0), 3, "probabilities"),
    "neighbours (a Scan in ONNX)": (make_pipeline(PCA(4), KNeighborsClassifier()), 3, "pca probabilities"),
    "vote": (VOTE, 3, "probabilities"),
    "ridge classifier": (RidgeClassifier(), 3, "decision"),
    "linear machine, two classes": (LinearSVC(), 2, "decision"),
    "support vectors": (SVC(), 3, "decision"),
    "support vectors, two classes": (SVC(), 2, "decision"),
    "selection": (make_pipeline(SelectKBest(k=9), LogisticRegression()), 3, "selectkbest probabilities"),
    "clusters as features": (
        make_pipeline(KMeans(4, random_state=0), LogisticRegression()),
        3,
        "kmeans probabilities",
    ),
    "transformer alone": (PCA(4), None, "pca"),
    "discriminant": (LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.9), 3, "probabilities"),
}


@pytest.mark.parametrize("case", MODELS)
def test_every_step_of_every_kind_agrees(tmp_path: Path, case: str) -> None:
    model, classes, names = MODELS[case]
    model = fitted(model, classes=classes)
    written = write(export_sklearn(model, image=IMAGE), tmp_path / "m.onnx", tolerance=1e-5)
    assert list(written.taps) == names.split()
    # the last output against the model's own method, not against the exporter's walk through its steps
    x = images(20)
    flat = x.reshape(20, -1)
    method = {"probabilities": "predict_proba", "decision": "decision_function", "prediction": "predict"}
    own = np.asarray(getattr(model, method.get(written.taps[-1], "transform"))(flat)).reshape(20, -1)
    got = ran(written.path, x)
    np.testing.assert_allclose(got[written.taps[-1]], own, rtol=1e-4, atol=1e-4)
    if isinstance(model, (MLPClassifier, MLPRegressor)):
        for i, layer in enumerate(own_layers(model, flat)[1:-1], start=1):
            np.testing.assert_allclose(got[f"hidden_{i}"], layer, rtol=1e-4, atol=1e-5)


def test_a_vector_input_is_declared_as_no_image(tmp_path: Path) -> None:
    path = write(export_sklearn(pipeline()), tmp_path / "v.onnx").path
    assert metadata(path)["geed.input"] == {"name": "features"}
    dims = onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim
    assert (dims[0].dim_param, dims[1].dim_value) == ("batch", FEATURES)


def test_a_step_called_image_does_not_take_the_inputs_name(tmp_path: Path) -> None:
    model = fitted(Pipeline([("image", StandardScaler()), ("lr", LogisticRegression())]))
    written = write(export_sklearn(model, image=IMAGE), tmp_path / "i.onnx")
    assert written.taps == ("image", "probabilities")
    assert metadata(written.path)["geed.input"]["name"] == "image_input"


@pytest.mark.parametrize("opset", [15, 22])
def test_opset_is_the_one_asked_for(tmp_path: Path, opset: int) -> None:
    path = write(export_sklearn(pipeline(), image=IMAGE, opset=opset), tmp_path / "o.onnx").path
    assert {o.domain: o.version for o in onnx.load(str(path)).opset_import} == {"": opset, "ai.onnx.ml": 3}


def test_roles_of_the_list() -> None:
    roles = {c.module: c.role for c in candidates(pipeline())}
    assert list(roles.values()) == ["stage", "stage", "stage", "latent", "scores"]
    assert [c.role for c in candidates(fitted(RandomForestClassifier(3)))] == ["scores"]


# ------------------------------------------------------------------------------------- the command


def test_command_writes_a_measurable_file_from_a_factory(tmp_path: Path, factory: Callable[..., str]) -> None:
    path = tmp_path / "p.onnx"
    result = export(factory(PIPELINE), "--size", "6x6", "--range", "0,1", "-o", path)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(path)
    assert "5 taps; agrees with the framework to" in result.stderr
    assert metadata(path)["geed.source"]["model"] == "net.py:build"
    # brighter than what the scaler was fitted on, so that cosines of the centred features have a mean to be divided by
    np.save(tmp_path / "x.npy", 0.5 + images(12) / 2)
    measured = geed_onnx("measure", str(path), "--data", str(tmp_path / "x.npy"), "--group", "C4", "--samples", "all")
    assert len(measured) == 4 * 3 + 1
    assert all(result["value"] is not None for result in measured)


@pytest.mark.parametrize(
    ("flags", "declared"),
    [
        (["--size", "6"], {"layout": "NCHW", "size": [6, 6], "channels": 1, "colour": "grey"}),
        (["--size", "9x4", "--channels", "1"], {"layout": "NCHW", "size": [9, 4], "channels": 1, "colour": "grey"}),
        (["--size", "3x4", "--colour", "bgr"], {"layout": "NCHW", "size": [3, 4], "channels": 3, "colour": "bgr"}),
        (
            ["--size", "3x4", "--channels", "3", "--layout", "NHWC", "--mean", "1,2,3", "--std", "2"],
            {"layout": "NHWC", "size": [3, 4], "channels": 3, "mean": [1, 2, 3], "std": [2]},
        ),
        (
            ["--size", "6x6", "--range", "0,255", "--mean", "127.5", "--std", "63.75"],
            {
                **{"layout": "NCHW", "size": [6, 6], "channels": 1, "colour": "grey"},
                **{"range": [0, 255], "mean": [127.5], "std": [63.75]},
            },
        ),
    ],
)
def test_what_options_say_of_the_image_is_recorded(
    tmp_path: Path, factory: Callable[..., str], flags: list[str], declared: dict[str, Any]
) -> None:
    path = tmp_path / "p.onnx"
    result = export(factory(PIPELINE), *flags, "-o", path)
    assert result.exit_code == 0, result.output
    assert metadata(path)["geed.input"] == {"name": "image"} | declared


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_inputs_to_verify_with_are_what_the_model_sees_of_an_image(layout: Literal["NCHW", "NHWC"]) -> None:
    image = Facts(size=(3, 4), colour="rgb", range=(0, 1), mean=(0.5, 0.0, -1.0), std=(0.5, 1.0, 10.0))
    x = export_sklearn(pipeline(), image=image, layout=layout).inputs(2)
    assert x.shape == ((2, 3, 3, 4) if layout == "NCHW" else (2, 3, 4, 3))
    seen = np.moveaxis(x, 1 if layout == "NCHW" else 3, 0)
    for channel, (low, high) in zip(seen, ((-1, 1), (0, 1), (0.1, 0.2)), strict=True):
        assert low <= channel.min() < low + (high - low) / 4
        assert high - (high - low) / 4 < channel.max() <= high


def test_command_reads_skops_and_records_the_file(tmp_path: Path) -> None:
    model = tmp_path / "digits.skops"
    skops.io.dump(pipeline(), model)
    result = export(model, "-o", tmp_path / "d.onnx", "--tap", "latent")
    assert result.exit_code == 0, result.output
    source = metadata(tmp_path / "d.onnx")["geed.source"]
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert (source["model"], source["weights"]) == ("digits.skops", {"file": "digits.skops", "sha256": digest})


def test_command_lists_without_writing(tmp_path: Path, factory: Callable[..., str]) -> None:
    result = export(factory(PIPELINE), "--list")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["stage", "vector", "36", "scaler"]
    assert rows[-1] == ["scores", "probability", "3", "probabilities"]
    assert list(tmp_path.glob("*.onnx")) == []
