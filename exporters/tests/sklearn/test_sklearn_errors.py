"""What goes wrong is said in words: what was expected, what came, what to do."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
import skops.io
from conftest import PIPELINE, export, fitted, metadata
from onnx import numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.semi_supervised import LabelSpreading

from geed_exporters import Differs, ExportError, Facts, MissingFramework, NotExportable, write
from geed_exporters.sklearn import export_sklearn, load
from geed_onnx.errors import GeedError, UnknownName, UsageError


def simple() -> Any:
    return fitted(Pipeline([("scaler", StandardScaler()), ("lr", LogisticRegression())]))


def brightest_first(x: Any) -> Any:
    """Data-dependent: which way it goes depends on the values."""
    return x if x.sum() > 0 else -x


def table() -> pandas.DataFrame:
    return pandas.DataFrame({"age": [1.0, 2, 3, 4], "size": [4.0, 3, 2, 1]})


def several_inputs() -> Any:
    columns = ColumnTransformer([("a", StandardScaler(), ["age"]), ("b", StandardScaler(), ["size"])])
    return make_pipeline(columns, LogisticRegression()).fit(table(), [0, 1, 0, 1])


def several_outputs() -> Any:
    draw = np.random.default_rng(0)
    return RandomForestClassifier(3).fit(draw.random((20, 4)), draw.integers(0, 2, (20, 2)))


MODELS: dict[str, tuple[Callable[[], Any], type[GeedError], str]] = {
    "several inputs": (several_inputs, NotExportable, r"several inputs, and only one can be moved"),
    "several outputs": (several_outputs, NotExportable, r"RandomForestClassifier gives 2 arrays.*one model each"),
    "data-dependent": (
        lambda: fitted(Pipeline([("own", FunctionTransformer(brightest_first)), ("lr", LogisticRegression())])),
        NotExportable,
        r"step 'own' \(FunctionTransformer\) has no ONNX form",
    ),
    "no converter": (
        lambda: fitted(LabelSpreading()),
        NotExportable,
        r"LabelSpreading has no ONNX form: skl2onnx has no converter for LabelSpreading",
    ),
    "classifier as transformer": (
        lambda: fitted(Pipeline([("lda", LinearDiscriminantAnalysis()), ("lr", LogisticRegression())])),
        NotExportable,
        r"step 'lda' \(LinearDiscriminantAnalysis\) has an ONNX form as a classifier only",
    ),
    "outliers": (lambda: fitted(IsolationForest(n_estimators=2)), NotExportable, r"IsolationForest is no classifier"),
    "texts": (lambda: TfidfVectorizer().fit(["a word", "two words"]), NotExportable, r"no n_features_in_.*texts"),
    "not fitted": (lambda: MLPClassifier(), ExportError, r"MLPClassifier is not fitted: call fit first"),
    "step not fitted": (
        lambda: Pipeline([("scaler", StandardScaler()), ("lr", LogisticRegression())]),
        ExportError,
        r"step 'scaler' \(StandardScaler\) is not fitted",
    ),
    "a class": (lambda: MLPClassifier, ExportError, r"expected a fitted scikit-learn estimator, got the class MLPCl"),
    "no estimator": (lambda: {"a": 1}, ExportError, r"expected a fitted scikit-learn estimator, got a dict"),
    "empty": (lambda: Pipeline([("no", "passthrough")]), ExportError, r"no step that does anything"),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_that_cannot_be_exported(case: str) -> None:
    build, kind, words = MODELS[case]
    with pytest.raises(kind, match=words):
        export_sklearn(build())


def test_image_of_another_number_of_pixels() -> None:
    with pytest.raises(ExportError, match=r"takes 36 features, but --size 7x7 has 49; 36 would be 6x6"):
        export_sklearn(simple(), image=Facts(size=(7, 7)))
    with pytest.raises(ExportError, match=r"takes 36 features, but --size 6x6 with 3 channels has 108$"):
        export_sklearn(simple(), image=Facts(size=(6, 6), channels=3))


def test_unknown_tap() -> None:
    with pytest.raises(UnknownName, match=r"unknown module 'scalar': did you mean 'scaler'\?"):
        export_sklearn(simple(), taps=["scalar"])


def test_opset_out_of_range() -> None:
    with pytest.raises(UsageError, match=r"--opset 9: skl2onnx is tested from 15 to 22"):
        export_sklearn(simple(), opset=9)


# ------------------------------------------------------------------------------------- verification


def test_a_sabotaged_graph_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    export = export_sklearn(simple())
    scaler = next(node for node in export.model.graph.node if node.name.startswith("scaler/"))
    attribute = next(a for a in scaler.attribute if a.name == "offset")
    attribute.floats[0] += 0.5
    with pytest.raises(Differs, match=r"worst is 'scaler'.*no file was written"):
        write(export, tmp_path / "s.onnx")
    assert list(tmp_path.iterdir()) == []


def test_swapped_hidden_weights_are_noticed(tmp_path: Path) -> None:
    export = export_sklearn(fitted(MLPClassifier((6, 6), max_iter=5, random_state=0)))
    weight = next(w for w in export.model.graph.initializer if list(w.dims) == [6, 6])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), weight.name))
    with pytest.raises(Differs, match=r"worst is '(hidden_2|probabilities)'"):
        write(export, tmp_path / "s.onnx")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------- loading


def failed(*arguments: object, code: int = 1) -> str:
    """Run the command, expect one line of error, and return it."""
    result = export(*arguments)
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("mlp", 2, "expected FILE.py:FACTORY, FILE.skops, or, with --trust, FILE.joblib or FILE.pkl"),
        ("keras:MobileNet", 2, "expected FILE.py:FACTORY, FILE.skops"),
        ("net.py", 2, "expected FILE.py:FACTORY, FILE.skops"),
        ("absent.py:build", 1, "absent.py: no such file; expected FILE.py:FACTORY"),
        ("absent.skops", 1, "absent.skops: no such file"),
        ("absent.joblib", 2, "absent.joblib is a pickle"),
    ],
)
def test_names_that_lead_nowhere(tmp_path: Path, name: str, code: int, words: str) -> None:
    assert words in failed(name, "-o", tmp_path / "x.onnx", code=code)


def test_factories_that_fail(tmp_path: Path, factory: Callable[..., str]) -> None:
    out = tmp_path / "x.onnx"
    name = factory("raise ValueError('no data')")
    assert "net.py:build() fails: ValueError: no data" in failed(name, "-o", out)
    assert "did you mean 'build'" in failed(name.replace(":build", ":biuld"), "-o", out, code=2)
    name = factory("return 1", head="import not_there")
    assert "fails when it is run: ModuleNotFoundError" in failed(name, "-o", out)
    assert "expected a fitted scikit-learn estimator, got a int" in failed(factory("return 1"), "-o", out)
    assert not out.exists()


@pytest.mark.parametrize("suffix", [".joblib", ".pkl"])
def test_pickles_are_refused_and_read_only_with_trust(tmp_path: Path, suffix: str) -> None:
    path, out = tmp_path / f"m{suffix}", tmp_path / "x.onnx"
    if suffix == ".joblib":
        joblib.dump(simple(), path)
    else:
        path.write_bytes(pickle.dumps(simple()))
    said = failed(path, "-o", out, code=2)
    assert f"m{suffix} is a pickle, and reading one runs the code that lies in it" in said
    assert "skops.io.dump(model, 'm.skops')" in said
    assert not out.exists()
    assert export(path, "-o", out, "--trust").exit_code == 0
    assert metadata(out)["geed.source"]["weights"]["file"] == f"m{suffix}"


def test_refusing_a_pickle_runs_none_of_it(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    for name in ("m.pkl", "m.skops"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    failed(tmp_path / "m.pkl", "-o", tmp_path / "x.onnx", code=2)
    said = failed(tmp_path / "m.skops", "-o", tmp_path / "x.onnx", "--trust")
    assert "m.skops is no skops file (a pickle under another name?)" in said
    assert not (tmp_path / "ran").exists()


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    skops.io.dump({"coef_": np.zeros(3)}, tmp_path / "d.skops")
    assert "holds a dict; expected a fitted scikit-learn estimator" in failed(tmp_path / "d.skops", "-o", out)
    whole = skops.io.dumps(simple())
    (tmp_path / "half.skops").write_bytes(whole[: len(whole) // 2])
    assert "half.skops is no skops file" in failed(tmp_path / "half.skops", "-o", out)
    (tmp_path / "text.pkl").write_text("no pickle at all")
    assert "text.pkl cannot be read: " in failed(tmp_path / "text.pkl", "-o", out, "--trust")
    own = fitted(Pipeline([("own", FunctionTransformer(brightest_first)), ("lr", LogisticRegression())]))
    skops.io.dump(own, tmp_path / "own.skops")
    said = failed(tmp_path / "own.skops", "-o", out)
    assert "types that are not known to be safe" in said
    assert "brightest_first" in said
    assert not out.exists()


@pytest.mark.parametrize("module", ["sklearn", "skl2onnx"])
def test_missing_framework_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    model = simple()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingFramework, match=rf"^{module} is not installed.*: pip install 'geed-onnx\[sklearn\]'$"):
        export_sklearn(model)


def test_missing_skops_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "m.skops").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.delitem(sys.modules, "skops.io", raising=False)
    with pytest.raises(MissingFramework, match=r"with: pip install 'geed-onnx\[sklearn\]'$"):
        load(str(tmp_path / "m.skops"))


# ------------------------------------------------------------------------------------- the options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "0x6"], "--size: expected height and width in pixels"),
        (["--channels", "0"], "--channels: expected a whole number from 1, got '0'"),
        (["--channels", "3"], "describe an image: give its --size HxW too"),
        (["--range", "0,1"], "describe an image: give its --size HxW too"),
        (["--mean", "0.5"], "describe an image: give its --size HxW too"),
        (["--size", "6x6", "--range", "1,1"], "--range: expected two different numbers, what black and white become"),
        (["--size", "6x6", "--range", "1"], "--range: expected two different numbers, what black and white become"),
        (["--size", "6x6", "--std", "0"], "--std: expected a number, or one a channel"),
        (["--size", "6x6", "--mean", "0,0"], "--mean: expected 1 number, got 2"),
        (["--size", "6x6", "--channels", "3", "--colour", "grey"], "--colour: expected 1 channel for grey, got 3"),
    ],
)
def test_options_that_cannot_be_meant(tmp_path: Path, options: list[str], words: str) -> None:
    assert words in failed("net.py:build", *options, "-o", tmp_path / "x.onnx", code=2)


def test_output_is_asked_for_before_anything_is_loaded(factory: Callable[..., str]) -> None:
    result = export(factory("raise ValueError('was run')"))
    assert result.exit_code == 2
    assert "issing option '-o'" in result.stderr
    assert "was run" not in result.stderr


def test_wrong_size_and_wrong_suffix_on_the_command_line(tmp_path: Path, factory: Callable[..., str]) -> None:
    name = factory(PIPELINE)
    assert "takes 36 features, but --size 5x5 has 25" in failed(name, "--size", "5x5", "-o", tmp_path / "x.onnx")
    assert "expected a file name that ends in .onnx" in failed(name, "-o", tmp_path / "x.pb")
    assert "did you mean" in failed(name, "--tap", "mlp.hiden_1", "-o", tmp_path / "x.onnx", code=2)
