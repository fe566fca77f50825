"""Every way in which a Keras export can go wrong, in words."""

from __future__ import annotations

import importlib
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras_networks as networks
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result

from geed_exporters import Differs, ExportError, Facts, MissingFramework, NotExportable, write
from geed_exporters.cli import main
from geed_exporters.keras import described, export_keras, frameworks, load
from geed_onnx.errors import UnknownName, UsageError

SMALL = Facts(size=(12, 12), channels=3)


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["keras", *map(str, args)])


def line(result: Result) -> str:
    """The one line of an error."""
    errors = [row for row in result.stderr.splitlines() if row.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    return errors[0]


# ------------------------------------------------------------------------------------------------------- the model


def test_several_inputs() -> None:
    with pytest.raises(NotExportable, match=r"2 inputs \('left', 'right'\).*model of one input"):
        described(networks.two_inputs())
    with pytest.raises(NotExportable, match=r"call takes 2 inputs \(image, other\)"):
        described(networks.TwoArguments(), facts=SMALL)


def test_control_flow_by_values() -> None:
    with pytest.raises(NotExportable, match=r"decides in Python by the values.*keras\.ops\.cond"):
        export_keras(described(networks.Decides(), facts=SMALL))


def test_an_operation_without_onnx_form() -> None:
    with pytest.raises(NotExportable, match=r"no ONNX form for the TensorFlow operation Betainc \(at .*beta"):
        export_keras(networks.no_onnx_form())


def test_an_unknown_tap() -> None:
    with pytest.raises(UnknownName, match=r"unknown module 'realu': did you mean 'relu'"):
        export_keras(networks.functional(), taps=["realu"])


def test_what_is_no_model() -> None:
    with pytest.raises(ExportError, match=r"expected a Keras 3 model or layer, got builtins\.dict"):
        described({})


def test_an_unknown_size() -> None:
    with pytest.raises(UsageError, match=r"^subclassed: the size of its images is not known; give --size HxW, or let"):
        described(networks.Subclassed())
    with pytest.raises(UsageError, match=r"input is \(12, 12, 3\) .*not \(8, 8, \?\)"):
        described(networks.functional(), facts=Facts(size=(8, 8)))
    with pytest.raises(UsageError, match=r"input is \(12, 12, 3\) .*not \(\?, \?, 1\)"):
        described(networks.functional(), facts=Facts(channels=1))


def test_open_channels_and_axes(keras: Any) -> None:
    def identity(*shape: int | None) -> Any:
        image = keras.layers.Input(shape)
        return keras.Model(image, keras.layers.ReLU()(image), name="net")

    with pytest.raises(UsageError, match=r"^net: the number of channels of its images is not known; give --channels N"):
        described(identity(4, 6, None))
    assert described(identity(4, 6, None), facts=Facts(colour="bgr")).input.shape == (4, 6, 3)
    assert described(identity(None, 6, 2), facts=Facts(size=(4, 6))).input.shape == (4, 6, 2)
    with pytest.raises(UsageError, match=r"^net: its input \(\?, 8\) has open axes and is no image"):
        described(identity(None, 8))


def test_facts_that_do_not_fit_the_input(keras: Any) -> None:
    with pytest.raises(UsageError, match=r"^functional: colour: expected 1 channel for grey, got 3$"):
        described(networks.functional(), facts=Facts(colour="grey"))
    with pytest.raises(UsageError, match=r"^functional: mean: expected 1 number or 3, one a channel, got 2$"):
        described(networks.functional(), facts=Facts(mean=(1.0, 2.0)))
    vector = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(3)], name="net")
    with pytest.raises(UsageError, match=r"^net: its input \(8\) is no image, of which range could be said$"):
        described(vector, facts=Facts(range=(0.0, 1.0)))
    assert described(vector, facts=Facts(input="features")).input.name == "features"


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (
            Facts(latent="meen"),
            r"unknown module 'meen': did you mean 'mean'\?; given as the latent vector of functional",
        ),
        (Facts(scores="hed"), r"unknown module 'hed': did you mean 'head'.*given as the scores of functional"),
        (Facts(blocks=("block_*",)), r"unknown module 'block_\*'.*given as a block of functional"),
        (Facts(actions={"meen": "trivial"}), r"unknown module 'meen'.*given an action by functional"),
    ],
)
def test_layers_that_a_factory_names_and_are_not_there(facts: Facts, says: str) -> None:
    with pytest.raises(UnknownName, match=says):
        export_keras(described(networks.functional(), facts=facts))


def test_a_forward_pass_that_fails() -> None:
    with pytest.raises(ExportError, match=r"forward pass fails on an input of shape \(1, 2, 2, 3\)"):
        described(networks.unbuilt_sequential(), facts=Facts(size=(2, 2), channels=3))


def test_channels_first_keras(keras: Any) -> None:
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ExportError, match=r"channels_first.*--layout NCHW"):
            described(networks.functional())
    finally:
        keras.config.set_image_data_format("channels_last")


# -------------------------------------------------------------------------------------------------------- the name


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match=r"unknown keras application 'MobilNetV2': did you mean 'MobileNetV2'"):
        load("keras:MobilNetV2")
    with pytest.raises(UnknownName, match=r"kind of model 'timm'"):
        load("timm:resnet50")
    with pytest.raises(UsageError, match=r"expected keras:NAME, or FILE\.py:FACTORY"):
        load("MobileNetV2")


def test_factories(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no such file"):
        load(f"{tmp_path}/none.py:build")
    file = tmp_path / "net.py"
    file.write_text("def build():\n    raise RuntimeError('no weights here')\n\ndef two():\n    return 1, 2\n")
    with pytest.raises(ExportError, match=r"net\.py:build\(\) fails: RuntimeError: no weights here"):
        load(f"{file}:build")
    with pytest.raises(UnknownName, match=r"unknown function 'biuld': did you mean 'build'"):
        load(f"{file}:biuld")
    with pytest.raises(ExportError, match=r"returned \(model, int\)"):
        load(f"{file}:two")
    with pytest.raises(UsageError, match=r"--pretrained is for keras:NAME"):
        load(f"{file}:build", pretrained=True)


def test_a_fact_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("import keras_networks\ndef build():\n    return keras_networks.functional(), {'men': 1}\n")
    with pytest.raises(UnknownName, match=r"^unknown fact 'men': did you mean 'mean'\?; given by net\.py:build$"):
        load(f"{file}:build")
    file.write_text("import keras_networks\ndef build():\n    return keras_networks.functional(), {'mean': 'half'}\n")
    with pytest.raises(UsageError, match=r"^net\.py:build: mean: expected a number, or one a channel, .*, got 'half'$"):
        load(f"{file}:build")


def test_a_size_the_application_cannot_take() -> None:
    with pytest.raises(ExportError, match=r"keras:InceptionV3 cannot be built: Input size must be at least 75x75"):
        load("keras:InceptionV3", facts=Facts(size=(32, 32)))


def test_pretrained_without_network(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: Any, **kwargs: Any) -> Any:
        raise Exception("URL fetch failure: name resolution")  # what Keras raises

    module = sys.modules[keras.applications.MobileNetV2.__module__]
    monkeypatch.setattr(module.file_utils, "get_file", no_network)
    with pytest.raises(ExportError, match=r"pretrained weights cannot be had .*--checkpoint FILE\.weights\.h5"):
        load("keras:MobileNetV2", pretrained=True)
    with pytest.raises(UsageError, match="exclude each other"):
        load("keras:MobileNetV2", pretrained=True, checkpoint=Path("x.weights.h5"))


@pytest.mark.parametrize("module", ["tensorflow", "keras", "tf2onnx.convert"])
def test_a_missing_framework(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def blocked(name: str, package: str | None = None) -> Any:
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", blocked)
    with pytest.raises(MissingFramework, match=r"install it with: pip install 'geed-onnx\[keras\]'$"):
        export_keras(networks.functional())


# ----------------------------------------------------------------------------------------------------- the weights


@pytest.fixture
def net(tmp_path: Path) -> str:
    file = tmp_path / "net.py"
    file.write_text("import keras_networks\nbuild = keras_networks.functional\nother = keras_networks.sequential\n")
    return str(file)


def test_weights_are_loaded(net: str, tmp_path: Path) -> None:
    model = networks.lived(networks.functional(), seed=5)
    x = np.ones((1, 12, 12, 3), np.float32)
    for name in ("w.weights.h5", "w.keras"):
        path = tmp_path / name
        model.save_weights(path) if name.endswith("h5") else model.save(path)
        loaded = load(f"{net}:build", checkpoint=path)
        assert np.array_equal(np.asarray(loaded.model(x)), np.asarray(model(x)))
        assert loaded.weights["file"] == name
        assert len(loaded.weights["sha256"]) == 64
    assert load(f"{net}:build").weights == "random"


def test_a_saved_model(tmp_path: Path) -> None:
    model = networks.lived(networks.functional(), seed=5)
    for name in ("m.keras", "m.h5"):
        with frameworks.quiet():
            model.save(tmp_path / name)
        loaded = load(str(tmp_path / name))
        assert (loaded.name, loaded.weights["file"]) == (name, name)
        write(export_keras(loaded, taps=["*"]), tmp_path / "m.onnx", tolerance=1e-5)


def test_a_saved_model_with_code_is_refused(tmp_path: Path, keras: Any) -> None:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Lambda(lambda x: x + 1)])
    path = tmp_path / "m.keras"
    model.save(path)
    with pytest.raises(ExportError, match=r"m\.keras cannot be loaded .*safe mode.*FILE\.py:factory"):
        load(str(path))


def test_weights_of_another_network(net: str, tmp_path: Path) -> None:
    path = tmp_path / "w.weights.h5"
    networks.functional().save_weights(path)
    with pytest.raises(ExportError, match=r"w\.weights\.h5: the weights do not fit the model: .*(lacks|holds)"):
        load(f"{net}:other", checkpoint=path)


def test_weights_of_another_width(net: str, tmp_path: Path, keras: Any) -> None:
    wide = keras.Sequential([keras.layers.Input((12, 12, 3)), keras.layers.Conv2D(7, 3, name="conv")])
    path = tmp_path / "w.weights.h5"
    wide.save_weights(path)
    slim = keras.Sequential([keras.layers.Input((12, 12, 3)), keras.layers.Conv2D(6, 3, name="conv")])
    from geed_exporters.keras.weights import load_weights

    with pytest.raises(ExportError, match=r"another shape \(expected \(3, 3, 3, 6\), got \(3, 3, 3, 7\)\)"):
        load_weights(slim, path)


def test_files_that_hold_no_weights(net: str, tmp_path: Path) -> None:
    text = tmp_path / "w.weights.h5"
    text.write_text("not weights at all")
    with pytest.raises(ExportError, match=r"holds no Keras weights: expected HDF5"):
        load(f"{net}:build", checkpoint=text)
    with pytest.raises(ExportError, match="no such file"):
        load(f"{net}:build", checkpoint=tmp_path / "none.weights.h5")
    code = tmp_path / "w.h5"
    code.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ExportError, match=r"is a pickle, which can run code and is never read"):
        load(f"{net}:build", checkpoint=code)
    cut = tmp_path / "cut.weights.h5"
    networks.functional().save_weights(cut)
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.raises(ExportError, match=r"cut\.weights\.h5 cannot be read"):
        load(f"{net}:build", checkpoint=cut)


# ----------------------------------------------------------------------------------------------------- the command


def test_the_command(net: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    result = run(f"{net}:build", "-o", path, "--layout", "NCHW", "--mean", "0.5", "--colour", "bgr")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{path}\n"
    assert "random weights" in result.stderr
    assert "agrees with the framework" in result.stderr
    assert str(tmp_path).encode() not in path.read_bytes()
    assert b"net.py:build" in path.read_bytes()


def test_random_weights_are_the_same_every_time(net: str, tmp_path: Path) -> None:
    values = []
    for name in ("a.onnx", "b.onnx"):
        assert run(f"{net}:build", "-o", tmp_path / name).exit_code == 0
        session = onnxruntime.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"])
        values.append(session.run(["head"], {"image": np.ones((1, 12, 12, 3), np.float32)})[0])
    assert np.array_equal(*values)


def test_listing(net: str) -> None:
    result = run(f"{net}:build", "--list")
    assert result.exit_code == 0, result.stderr
    rows = {row.split()[-1]: row.split()[:3] for row in result.stdout.splitlines()}
    assert rows["relu"] == ["stage", "map", "8x12x12"]
    assert rows["mean"] == ["latent", "vector", "8"]
    assert rows["head"] == ["scores", "probability", "5"]


def test_no_output(net: str) -> None:
    result = run(f"{net}:build")
    assert result.exit_code == 2
    assert "'-o' / '--output'" in result.stderr


def test_errors_are_one_line(net: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    result = run(f"{net}:build", "-o", path, "--tap", "realu")
    assert result.exit_code == 2
    assert "did you mean 'relu'" in line(result)
    result = run("keras:MobilNetV2", "-o", path)
    assert result.exit_code == 2
    assert "did you mean 'MobileNetV2'" in line(result)
    result = run(f"{net}:build", "-o", path, "--checkpoint", net)
    assert result.exit_code == 1
    assert "holds no Keras weights" in line(result)
    result = run(f"{net}:build", "-o", path, "--size", "huge")
    assert result.exit_code == 2
    assert line(result).startswith("error: --size: expected height and width in pixels, 224x224 or (224, 224), or one")
    result = run(f"{net}:build", "-o", path, "--colour", "grey")
    assert result.exit_code == 2
    assert line(result) == "error: net.py:build: colour: expected 1 channel for grey, got 3"
    assert not path.exists()


def test_a_file_that_differs_is_not_left(tmp_path: Path) -> None:
    export = export_keras(networks.lived(networks.functional()), taps=["*"])

    def sabotaged(x: Any) -> Any:
        seen = dict(export.reference(x))
        return seen | {"norm": seen["norm"] * 1.01}

    path = tmp_path / "m.onnx"
    with pytest.raises(Differs, match="worst is 'norm'"):
        write(replace(export, reference=sabotaged), path)
    assert list(tmp_path.iterdir()) == []
