"""Bad input: each one clear line on stderr, nothing on stdout, exit code 1 or 2; the text is part of the contract."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_nets as nets
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from geed_onnx.cli import main


def run(*args: Any) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="geed-onnx")


def refused(code: int, *args: Any) -> str:
    """Return the one line that a refused command leaves on stderr."""
    result = run(*args)
    lines = result.stderr.splitlines()
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert [line for line in lines if line.lower().startswith("error:")] == lines[-1:]
    assert not [line for line in lines[:-1] if not line.startswith("warning: ")]
    assert "Traceback" not in result.stderr
    assert "this is a bug" not in result.stderr
    assert len(lines[-1]) > len("error: ")
    return lines[-1]


def measured(*args: Any) -> list[dict[str, Any]]:
    """Return the Results of a command that ends well."""
    result = run("measure", *args, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small models, arrays and pictures, good and bad."""
    desk = tmp_path_factory.mktemp("desk")
    rng = np.random.default_rng(0)
    models = {
        "cnn": nets.cnn(size=9, classes=3),
        "two": nets.two_inputs(),
        "twice": nets.two_inputs(images=2),
        "nan": nets.nan_tap(),
        "constant": nets.constant_features(),
        "one": nets.cnn(size=9, classes=1, softmax=False),
        "untold": untold(),
        "rectangle": rectangle(),
        "flat": flat(),
        "silent": silent(),
        "overflow": overflow(),
    }
    for name, model in models.items():
        onnx.save(model, desk / f"{name}.onnx")
    whole = (desk / "cnn.onnx").read_bytes()
    (desk / "empty.onnx").write_bytes(b"")
    (desk / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (desk / "text.onnx").write_text("hello\n")
    (desk / "lfs.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    (desk / "zip.onnx").write_bytes(b"PK\x03\x04and so on")

    x = rng.random((8, 1, 9, 9), dtype=np.float32)
    holed = x.copy()
    holed[2, 0, 4, 4] = np.nan
    arrays = {
        "x9": x,
        "x8": rng.random((8, 1, 8, 8), dtype=np.float32),
        "rgb8": rng.random((8, 3, 8, 8), dtype=np.float32),
        "rgb9": rng.random((8, 3, 9, 9), dtype=np.float32),
        "rectangle": rng.random((8, 1, 8, 10), dtype=np.float32),
        "x6": rng.random((8, 4, 6, 6), dtype=np.float32),
        "rows": rng.random((8, 6), dtype=np.float32),
        "bytes": (x * 255).astype(np.uint8),
        "no_channel": x[:, 0],
        "last": x.transpose(0, 2, 3, 1),
        "empty": x[:0],
        "holed": holed,
        "complex": x.astype(np.complex64),
        "words": np.array(["a", "b"]),
        "scalar": np.float32(1),
        "cube": np.ones((3, 2, 2), np.float32),
    }
    for name, array in arrays.items():
        np.save(desk / f"{name}.npy", array)
    np.save(desk / "objects.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    (desk / "pickle.npy").write_bytes(b"\x80\x04K\x01.")
    (desk / "noise.npy").write_bytes(b"no array at all")
    (desk / "cut.npy").write_bytes((desk / "x9.npy").read_bytes()[:500])

    for folder, count in (("pictures", 4), ("mixed", 3)):
        (desk / folder).mkdir()
        for i in range(count):
            pixels = (rng.random((12, 12)) * 255).astype(np.uint8)
            Image.fromarray(pixels).save(desk / folder / f"{i}.png")
    (desk / "mixed" / "broken.png").write_bytes((desk / "pictures" / "0.png").read_bytes()[:60])
    (desk / "nothing").mkdir()
    return desk


def rectangle() -> onnx.ModelProto:
    """A CNN over 8×10 images."""
    net = nets.Net()
    net.add("Conv", ["x", net.weight("w", 4, 1, 3, 3)], "conv", pads=[1] * 4)
    net.add("Relu", ["conv"], "map")
    net.add("GlobalAveragePool", ["map"], "pooled")
    net.add("Flatten", ["pooled"], "latent")
    return net.done([("x", ["N", 1, 8, 10])], [("latent", ["N", 4])])


def flat() -> onnx.ModelProto:
    """A matrix over vectors of six numbers: no image anywhere."""
    net = nets.Net()
    net.add("MatMul", ["x", net.weight("w", 6, 3)], "y")
    return net.done([("x", ["N", 6])], [("y", ["N", 3])])


def untold() -> onnx.ModelProto:
    """A matrix over flattened images: nothing in it tells where their channels are."""
    net = nets.Net()
    net.add("Flatten", ["x"], "latent")
    net.add("MatMul", ["latent", net.weight("w", 4 * 6 * 6, 3)], "logits")
    return net.done([("x", ["N", 4, 6, 6])], [("logits", ["N", 3])])


def silent() -> onnx.ModelProto:
    """A CNN that forgot to declare its outputs."""
    model = nets.cnn(size=9, classes=3)
    del model.graph.output[:]
    return model


def overflow() -> onnx.ModelProto:
    """A CNN whose map `huge` is Inf."""
    net = nets.Net()
    net.add("Conv", ["x", net.weight("w", 4, 1, 3, 3)], "conv", pads=[1] * 4)
    net.add("Exp", ["conv"], "grown")
    net.add("Mul", ["grown", net.constant("factor", np.float32(3e38))], "large")
    net.add("Mul", ["large", "factor"], "huge")
    net.add("GlobalAveragePool", ["huge"], "pooled")
    net.add("Flatten", ["pooled"], "latent")
    return net.done([("x", ["N", 1, 8, 8])], [("latent", ["N", 4])])


def ask(desk: Path, model: str = "cnn", data: str = "x9.npy", group: str = "C4", samples: str = "4") -> list[Any]:
    """Return the arguments of a `measure`, to which a case adds its fault."""
    return ["measure", desk / f"{model}.onnx", "--data", desk / data, "--group", group, "--samples", samples]


# --- the model file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["taps", "measure", "expose", "doctor"])
@pytest.mark.parametrize(
    ("file", "texts"),
    [
        ("missing.onnx", ["no such file", "missing.onnx", "an ONNX file was expected"]),
        ("pictures", ["pictures is a directory", "an ONNX file was expected"]),
        ("truncated.onnx", ["truncated.onnx is no ONNX file, or a truncated one (", " bytes)"]),
        ("empty.onnx", ["empty.onnx is empty", "an ONNX file was expected"]),
        ("text.onnx", ["text.onnx is no ONNX file", "(6 bytes)"]),
        ("lfs.onnx", ["a Git LFS pointer", "git lfs pull"]),
        ("zip.onnx", ["a zip archive", "export it to ONNX first"]),
    ],
)
def test_a_file_that_is_no_model(desk: Path, tmp_path: Path, command: str, file: str, texts: list[str]) -> None:
    more = {
        "measure": ["--data", desk / "x9.npy", "--group", "C4"],
        "expose": ["-o", tmp_path / "out.onnx", "--tap", "latent"],
    }
    line = refused(1, command, desk / file, *more.get(command, []))
    assert all(text in line for text in texts), line
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_named_before_the_data_when_both_are_missing(desk: Path) -> None:
    line = refused(1, "measure", desk / "missing.onnx", "--data", desk / "none.npy", "--group", "C4")
    assert "missing.onnx" in line
    assert "none.npy" not in line


@pytest.mark.parametrize("command", ["taps", "measure", "expose", "doctor"])
def test_weights_outside_the_models_folder_are_refused(tmp_path: Path, desk: Path, command: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = nets.external(inside / "model.onnx", size=9, classes=3)
    shutil.move(inside / "model.onnx.data", tmp_path / "secret.data")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret.data"
    path.write_bytes(model.SerializeToString())
    more = {
        "measure": ["--data", desk / "x9.npy", "--group", "C4"],
        "expose": ["-o", tmp_path / "out.onnx", "--tap", "latent"],
    }
    line = refused(1, command, path, *more.get(command, []))
    assert "keeps weights in '../secret.data', outside its own folder" in line


def test_weights_that_were_left_behind(tmp_path: Path, desk: Path) -> None:
    path = nets.external(tmp_path / "model.onnx", size=9, classes=3)
    (tmp_path / "model.onnx.data").unlink()
    line = refused(1, "measure", path, "--data", desk / "x9.npy", "--group", "C4")
    assert "keeps weights in 'model.onnx.data', which is not beside it: copy that file there" in line


def test_a_model_without_outputs_is_measured_at_its_taps(desk: Path) -> None:
    results = measured(*ask(desk, "silent")[1:])
    assert {r["tap"]["name"] for r in results} >= {"block1", "block2"}


def test_an_input_that_is_no_image(desk: Path) -> None:
    line = refused(1, *ask(desk, "flat", "rows.npy"))
    assert "has no input of rank 4 for images; its inputs: x float32[N, 6]" in line
    assert "--input NAME" in line
    line = refused(1, *ask(desk, "flat", "rows.npy"), "--input", "x")
    assert "C4 moves the pixels of an image" in line
    assert "the model's input is (batch, 6)" in line
    line = refused(1, *ask(desk, "flat", "pictures"), "--input", "x")
    assert "expected a model input of 4 axes for images, got 2" in line
    result = run("doctor", desk / "flat.onnx")
    assert result.exit_code == 1
    assert "✗ input" in result.stdout
    assert result.stderr == "error: this model cannot be measured as it is; see the lines marked ✗\n"


# --- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "texts"),
    [
        (["--tap", "blok1"], ["unknown tap 'blok1': did you mean 'block1'", "geed-onnx taps MODEL"]),
        (["--tap", "z*"], ["unknown tap 'z*'", "known: block1"]),
        (["--tap", ""], ["unknown tap ''"]),
        (["--tap", "x"], ["tensor 'x' cannot be tapped: it is an input of the model"]),
        (["--tap", "latent:map"], ["tap 'latent' has shape [batch, 8]: a map has rank 4; take it as latent:vector"]),
        (["--tap", "latent:vektor"], ["unknown tap 'latent:vektor': did you mean 'latent'"]),
        (["--group", "Q4"], ["unknown group 'Q4'", "C<n>, D<n>"]),
        (["--group", "flipp"], ["unknown group 'flipp': did you mean 'flip'"]),
        (["--variant", "sofmax"], ["unknown variant 'sofmax': did you mean 'softmax'?"]),
        (["--variant", "map:pixels:cosin"], ["unknown distance 'cosin': did you mean 'cosine'"]),
        (["--variant", "map:pixls:cosine"], ["unknown action in a variant 'pixls': did you mean 'pixels'", "--act"]),
        (["--variant", "mapp:pixels:cosine"], ["unknown kind of tap 'mapp': did you mean 'map'"]),
        (["--variant", "vector:trivial:l2:spred"], ["unknown normaliser 'spred': did you mean 'spread"]),
        (["--variant", "map:pixels"], ["expected KIND:ACTION:DISTANCE[:NORMALISER]"]),
        (
            ["--tap", "latent", "--variant", "channelwise"],
            ["variant 'channelwise' is for a map", "latent: vector", "--tap NAME:map"],
        ),
        (["--provider", "cpuu"], ["unknown provider 'cpuu': did you mean 'cpu'?"]),
        (["--input", "y"], ["unknown model input 'y'", "x"]),
        (["--column", "pixels"], ["holds one array and has no columns; leave out --column pixels"]),
    ],
)
def test_an_unknown_name_says_what_was_meant(desk: Path, more: list[str], texts: list[str]) -> None:
    line = refused(2, *ask(desk), *more)
    assert all(text in line for text in texts), line


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["mesure"], "no such command 'mesure': did you mean 'measure'? (see geed-onnx --help)"),
        (["measure", "m", "--grup", "C4"], "no such option '--grup': did you mean '--group'?"),
        (["--verson"], "no such option '--verson': did you mean '--version'?"),
        (["measure", "m", "--data", "d"], "missing option '--group' (see geed-onnx measure --help)"),
        (["taps"], "missing argument 'MODEL' (see geed-onnx taps --help)"),
        (["taps", "a", "b"], "got unexpected extra argument (b)"),
        (["list", "grups"], "unknown word 'grups': did you mean 'groups'?"),
        (["measure", "m", "--data"], "option '--data' requires an argument"),
    ],
)
def test_a_command_line_that_cannot_be_meant(args: list[str], text: str) -> None:
    assert text in refused(2, *args)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--samples", "many"], "'--samples': expected a number of images or 'all', got 'many'"),
        (["--samples", "0"], "'--samples': expected at least 1, got 0"),
        (["--samples", "-3"], "'--samples': expected at least 1, got -3"),
        (["--spread-samples", "1"], "'--spread-samples': 1 is not in the range x>=2"),
        (["--reference-samples", "-1"], "'--reference-samples': -1 is not in the range x>=0"),
        (["--batch-size", "0"], "'--batch-size': 0 is not in the range x>=1"),
        (["--seed", "x"], "'--seed': 'x' is not a valid integer"),
        (["--level", "0"], "'--level': 0.0 is not in the range 0<x<1"),
        (["--level", "95"], "'--level': 95.0 is not in the range 0<x<1"),
        (["--layout", "NCWH"], "unknown word 'NCWH': did you mean 'NCHW'"),
        (["--mask", "disk"], "unknown word 'disk': did you mean 'disc'"),
        (["--fail-above", "softmax"], "--fail-above 'softmax': expected VARIANT=NUMBER"),
        (["--fail-above", "softmax="], "--fail-above 'softmax=': expected VARIANT=NUMBER"),
        (["--fail-above", "softmax=low"], "expected VARIANT=NUMBER, got 'low' as the number"),
        (["--fail-above", "softmax=nan"], "expected VARIANT=NUMBER, got 'nan' as the number"),
        (["--fail-above", "sofmax=1"], "unknown variant 'sofmax': did you mean 'softmax'?"),
        (["--fail-above", "map:pixels:l2=1"], "that variant is not measured"),
        (["--fail-above", "softmax=1", "--variant", "latent-l2"], "(latent-l2 are); add --variant softmax"),
        (["--fail-above", "softmax=1", "--fail-above", "softmax=2"], "softmax has a limit already; give one"),
    ],
)
def test_an_option_whose_value_cannot_be_meant(desk: Path, more: list[str], text: str) -> None:
    assert text in refused(2, *ask(desk), *more)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--size", "huge"], "--size 'huge' cannot be read"),
        (["--size", "1x2x3"], "write it like --size 224x224"),
        (["--range", "0"], "--range '0' cannot be read (expected two numbers)"),
        (["--mean", "a"], "--mean 'a' cannot be read"),
        (["--fit", "crob"], "unknown fit 'crob': did you mean 'crop'"),
        (["--colour", "rbg"], "unknown colour 'rbg': did you mean 'rgb'"),
        (["--resample", "bilinaer"], "unknown resample 'bilinaer': did you mean 'bilinear'"),
        (["--column", "pixels"], "is a folder of images and has no columns; leave out --column pixels"),
    ],
)
def test_a_preprocessing_flag_that_cannot_be_meant(desk: Path, more: list[str], text: str) -> None:
    assert text in refused(2, *ask(desk, data="pictures"), *more)


def test_flags_that_make_images_of_arrays_that_are_none(desk: Path) -> None:
    line = refused(1, *ask(desk), "--range", "0,1")
    assert "of shape (1, 9, 9) is no image; with preprocessing flags expected (H, W)" in line
    assert "give no preprocessing flags" in line


def test_a_limit_on_a_variant_that_no_tap_has_is_no_success(desk: Path) -> None:
    result = run(*ask(desk), "--tap", "latent", "--fail-above", "softmax=1", "--json")
    assert result.exit_code == 2
    assert len(result.stdout.splitlines()) == 3  # what was measured is still there
    assert result.stderr == (
        "error: --fail-above softmax=1: none of the taps is a probability, so nothing was held against it; name one"
        " with --tap NAME:probability\n"
    )


@pytest.mark.parametrize("size", ["foo", "8", "8x8x8", "x"])
def test_a_size_that_is_none(desk: Path, size: str) -> None:
    line = refused(2, "taps", desk / "cnn.onnx", "--size", size)
    assert f"--size {size!r}: expected HEIGHTxWIDTH, as in 224x224" in line


def test_a_size_that_the_model_does_not_take(desk: Path) -> None:
    assert "[1, 1, 8, 8] does not fit" in refused(2, "taps", desk / "cnn.onnx", "--size", "8x8")
    line = refused(1, *ask(desk, data="pictures"), "--size", "8x8")
    assert "expected 9×9: give --size 9x9" in line


# --- data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        ("x8.npy", ["input 'x' is (N, 1, 9, 9) float32, but the arrays are (N, 1, 8, 8) float32", "another size"]),
        ("rgb9.npy", ["the arrays are (N, 3, 9, 9)", "another number of channels"]),
        ("no_channel.npy", ["expected 4 axes, got 3"]),
        ("last.npy", ["they look like the other layout: transpose them to NCHW"]),
        ("bytes.npy", ["the arrays are (N, 1, 9, 9) uint8", "x.astype('float32')", "--range 0,1"]),
        ("empty.npy", ["the array is empty, shape (0, 1, 9, 9)"]),
        ("holed.npy", ["image '2' holds NaN or Inf; mend or remove it"]),
        ("complex.npy", ["expected an array of numbers, not of complex64"]),
        ("words.npy", ["expected an array of numbers, not of <U1"]),
        ("scalar.npy", ["at least 2 axes", "shape ()"]),
        ("missing.npy", ["no such file", "missing.npy"]),
        ("missing", ["no such file or folder", "FILE.npz or FILE.npy, a folder of images", "hf:NAME[:SPLIT]"]),
        ("text.onnx", ["do not know how to read", "expected one of"]),
        ("objects.npy", ["holds pickled Python objects", "never loaded"]),
        ("pickle.npy", ["holds a pickle, which is never loaded"]),
        ("noise.npy", ["not a .npy array, or a damaged one"]),
        ("cut.npy", ["truncated", "write the file again"]),
        ("nothing", ["no images in folder", "expected files ending in .png"]),
    ],
)
def test_data_that_do_not_fit(desk: Path, data: str, texts: list[str]) -> None:
    line = refused(1, *ask(desk, data=data, samples="all"))
    assert data in line
    assert all(text in line for text in texts), line


def test_a_pickle_is_never_loaded(desk: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "loaded"),)

    np.save(tmp_path / "bomb.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    refused(1, "measure", desk / "cnn.onnx", "--data", tmp_path / "bomb.npy", "--group", "C4")
    refused(2, *ask(desk, "two", "rgb8.npy"), "--constant", f"gain={tmp_path / 'bomb.npy'}")
    assert not (tmp_path / "loaded").exists()


def test_an_unreadable_image_is_named_and_left_out_only_on_request(desk: Path) -> None:
    line = refused(1, *ask(desk, data="mixed", samples="all"))
    assert "cannot read image 'broken.png'" in line
    assert "--skip-bad" in line
    result = run(*ask(desk, data="mixed", samples="all"), "--skip-bad", "--json")
    assert result.exit_code == 0
    assert result.stderr == "warning: skipped 1 unreadable image(s): broken.png\n"
    first = json.loads(result.stdout.splitlines()[0])
    assert first["data"]["samples"] == first["samples"] == 3
    assert "skipped 1 unreadable image(s): broken.png" in first["notes"]


def test_more_images_than_there_are(desk: Path) -> None:
    line = refused(1, *ask(desk, samples="9"))
    assert "9 images were asked for, but there are only 8; ask for at most 8, or for 'all'" in line
    line = refused(1, *ask(desk), "--spread-samples", "9")
    assert "9 spread points were asked for, but there are only 8 images" in line
    assert "--spread-samples" in line


# --- the group --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "degrees"), [("C8", 45), ("C4", 90), ("D4", 90)])
def test_a_turn_on_a_rectangular_grid(desk: Path, group: str, degrees: int) -> None:
    line = refused(1, *ask(desk, "rectangle", "rectangle.npy", group))
    assert f"a turn by {degrees} degrees does not map a 8×10 grid to itself" in line
    assert "--size 10x10" in line
    assert "C2, flip, flip-ud, D2" in line


@pytest.mark.parametrize("group", ["C2", "flip", "flip-ud", "D2"])
def test_the_groups_it_names_keep_the_rectangle(desk: Path, group: str) -> None:
    results = measured(*ask(desk, "rectangle", "rectangle.npy", group)[1:])
    assert results[0]["value"] is not None


def test_a_shift_that_does_not_divide(desk: Path) -> None:
    line = refused(1, *ask(desk, group="T4"))
    assert "a cyclic shift by 1/4 of 9 pixels is 2.25 pixels, no whole number: use a size that 4 divides" in line


def test_an_axis_of_another_length(desk: Path) -> None:
    line = refused(1, *ask(desk, "flat", "rows.npy", "S3@1"), "--input", "x")
    assert "permutes 3 entries of axis 1, but the model's input is (batch, 6)" in line


# --- what the model gives ---------------------------------------------------------------------------------------


def test_a_tap_that_yields_nan_or_inf(desk: Path) -> None:
    line = refused(1, *ask(desk, "nan", "x8.npy"), "--tap", "bad")
    assert "tap 'bad' holds NaN for image '" in line
    assert "(group element " in line
    assert "leave the tap out with --tap" in line
    line = refused(1, *ask(desk, "overflow", "x8.npy"), "--tap", "huge")
    assert "tap 'huge' holds Inf for image '" in line


def test_features_that_never_change_have_no_value_and_a_reason(desk: Path) -> None:
    results = {r["variant"]: r for r in measured(*ask(desk, "constant", "x8.npy")[1:]) if r["tap"]["name"] == "latent"}
    for variant in ("latent-l2", "latent-cosine-bounded"):
        assert results[variant]["value"] is results[variant]["low"] is results[variant]["high"] is None
    assert results["latent-l2"]["reason"].startswith("the spread M is 0")
    assert "all images have the same features here" in results["latent-l2"]["reason"]
    assert "all images have features of the same direction here" in results["latent-cosine-bounded"]["reason"]
    table = run(*ask(desk, "constant", "x8.npy"))
    assert table.exit_code == 0
    assert "(1) the spread M is 0" in table.stdout


def test_one_class_is_no_distribution(desk: Path) -> None:
    line = refused(1, *ask(desk, "one"), "--tap", "logits:probability")
    assert "tap 'logits' has one class only, whose softmax is always 1: measure it as logits:vector" in line


def test_out_of_memory_halves_the_batch_and_says_so(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geed_onnx.errors import OutOfMemory
    from geed_onnx.sessions.runtime import OnnxSession

    whole = measured(*ask(desk)[1:], "--tap", "latent")
    real, tried = OnnxSession.run, []

    def small(self: OnnxSession, x: Any) -> Any:
        tried.append(len(x))
        if len(x) > 3:
            raise OutOfMemory(f"a batch of {len(x)} does not fit into memory")
        return real(self, x)

    monkeypatch.setattr(OnnxSession, "run", small)
    result = run(*ask(desk), "--tap", "latent", "--json")
    assert result.exit_code == 0, result.output
    assert re.search(r"^warning: out of memory with \d+ rows a pass: went on with [123]$", result.stderr, re.MULTILINE)
    halved = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["value"] for r in halved] == pytest.approx([r["value"] for r in whole], rel=1e-5)
    assert any("out of memory" in note for note in halved[0]["notes"])
    assert max(tried) > 3
    assert tried[-1] <= 3

    def never(self: OnnxSession, x: Any) -> Any:
        raise OutOfMemory("no")

    monkeypatch.setattr(OnnxSession, "run", never)
    line = refused(1, *ask(desk), "--tap", "latent")
    assert "not even one row fits into memory with these taps: tap fewer tensors with --tap" in line


# --- providers --------------------------------------------------------------------------------------------------


def test_cuda_where_there_is_none(desk: Path) -> None:
    from geed_onnx.sessions.providers import cuda_driver

    if cuda_driver() is None:
        pytest.skip("this machine has a CUDA device")
    line = refused(1, *ask(desk), "--provider", "cuda")
    assert "provider 'cuda'" in line
    assert "use --provider cpu" in line or "install onnxruntime-gpu" in line


def test_a_provider_whose_libraries_do_not_load(desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import onnxruntime as ort

    if "TensorrtExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime build has no TensorRT provider to ask for")
    result = run(*ask(desk), "--provider", "tensorrt")
    if result.exit_code == 0:
        pytest.skip("TensorRT is installed here")
    assert result.stdout == ""
    assert result.stderr.startswith("error: provider 'tensorrt' was asked for, but ONNX Runtime fell back to cpu")
    assert len(result.stderr.splitlines()) == 1
    assert capfd.readouterr() == ("", "")  # nor does native code write around us


def test_a_provider_that_this_build_does_not_have(desk: Path) -> None:
    import onnxruntime as ort

    absent = sorted(set(ort.get_all_providers()) - set(ort.get_available_providers()))
    assert absent, "some provider is for another system than this one"
    word = absent[0].removesuffix("ExecutionProvider").lower()
    line = refused(1, *ask(desk), "--provider", word)
    assert f"provider {word!r} ({absent[0]}) is not in this ONNX Runtime build; install" in line


# --- actions and constants --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "act", "texts"),
    [
        (2, "nope=trivial", ["unknown tap 'nope'", "--act is for taps that are measured: add --tap too"]),
        (2, "latnt=trivial", ["unknown tap 'latnt': did you mean 'latent'"]),
        (2, "latent=trival", ["unknown action 'trival': did you mean 'trivial'"]),
        (2, "latent", ["--act 'latent': expected TAP=ACTION"]),
        (2, "=trivial", ["--act '=trivial': expected TAP=ACTION"]),
        (2, "latent=permute:1:a,b", ["expected permute:AXIS:i,j,k,… with whole numbers"]),
        (2, "latent=permute", ["expected permute:AXIS:i,j,k,…"]),
        (2, "latent=roll:1:x", ["expected roll:AXIS:STEPS with whole numbers"]),
        (2, "latent=trivial:x", ["takes nothing after its name"]),
        (1, "latent=permute:1:1,0", ["tap 'latent'", "expected a permutation of 0..7", "got 2 entries: 1,0"]),
        (1, "latent=permute:1:0,1,2,3,4,5,6,6", ["expected a permutation of 0..7", "got 8 entries"]),
        (1, "latent=permute:1:1,2,0,3,4,5,6,7", ["is no action of C4", "rⁿ = 1"]),
        (1, "latent=permute:9:1,0", ["axis 9 is none of this tensor's", "from 1 to 1"]),
        (1, "latent=pixels", ["tap 'latent'", "moves the grid of a map", "(batch, 8)"]),
        (1, "latent=roll:1:3", ["tap 'latent'", "is no action of C4"]),
    ],
)
def test_an_action_that_is_none(desk: Path, code: int, act: str, texts: list[str]) -> None:
    line = refused(code, *ask(desk), "--act", act)
    assert all(text in line for text in texts), line


def test_one_permutation_where_the_group_has_two_generators(desk: Path) -> None:
    line = refused(2, *ask(desk, group="D4"), "--act", "latent=permute:1:1,0,3,2,5,4,7,6")
    assert "D4 has 2 generator(s), so expected as many permutations separated by ';'" in line


def test_two_actions_for_one_tap(desk: Path) -> None:
    line = refused(2, *ask(desk), "--act", "latent=trivial", "--act", "latent=roll:1:2")
    assert "--act 'latent=roll:1:2': 'latent' is given twice, as 'trivial' too; give one" in line


@pytest.mark.parametrize(
    ("constants", "texts"),
    [
        ([], ["the model has inputs beside 'image'", "--constant gain=VALUE"]),
        (["gain"], ["--constant 'gain': expected NAME=VALUE"]),
        (["gain=x"], ["--constant 'gain=x': expected a number or a .npy file"]),
        (["gian=1"], ["--constant gian: the file has no further input of that name (others: 'gain')"]),
        (["gain=missing.npy"], ["--constant 'gain=missing.npy'", "No such file"]),
        (["gain=1", "gain=2"], ["'gain' is given twice"]),
        (["image=1", "gain=1"], ["--constant image: the file has no further input of that name"]),
    ],
)
def test_a_constant_that_does_not_fit(desk: Path, constants: list[str], texts: list[str]) -> None:
    more = [word for text in constants for word in ("--constant", text)]
    line = refused(2, *ask(desk, "two", "rgb8.npy"), *more)
    assert all(text in line for text in texts), line


def test_a_constant_of_another_rank(desk: Path) -> None:
    line = refused(2, *ask(desk, "two", "rgb8.npy"), "--constant", f"gain={desk / 'cube.npy'}")
    assert "--constant gain: expected ['N', 1], got an array of shape (3, 2, 2)" in line


def test_two_inputs_that_could_be_images(desk: Path) -> None:
    line = refused(2, *ask(desk, "twice", "rgb8.npy"))
    assert "several inputs that could be images (image, image2): say which with --input NAME" in line


def test_a_layout_that_the_graph_does_not_tell(desk: Path) -> None:
    line = refused(1, *ask(desk, "untold", "x6.npy"))
    assert "does not tell whether its input 'x' ['N', 4, 6, 6] is NCHW or NHWC" in line
    assert "--layout NCHW or --layout NHWC" in line


# --- where results go -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["measure", "expose"])
def test_an_output_that_cannot_be_written(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    start = ask(desk) if command == "measure" else ["expose", desk / "cnn.onnx", "--tap", "latent"]
    assert "there is no folder" in refused(2, *start, "-o", tmp_path / "none" / "out")
    assert "it is a folder; give a file name in it" in refused(2, *start, "-o", tmp_path)
    assert "it is a folder" in refused(2, *start, "-o", "")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # the superuser may write anywhere
    assert "permission denied" in refused(2, *start, "-o", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_not_overwritten_by_its_taps(desk: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(desk / "cnn.onnx", path)
    line = refused(2, "expose", path, "-o", path, "--tap", "latent")
    assert "this is the model itself; write to another file" in line
    assert path.read_bytes() == (desk / "cnn.onnx").read_bytes()


def test_a_disk_that_fills_up_takes_the_file_but_not_the_results(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("older results\n")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = run(*ask(desk), "--json", "-o", target)
    assert result.exit_code == 1
    assert result.stderr == f"error: cannot write results to {str(target)!r}: No space left on device\n"
    assert json.loads(result.stdout.splitlines()[0])["schema"] == "geed-result/1"
    assert target.read_text() == "older results\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


# --- files that mean harm ---------------------------------------------------------------------------------------

HOSTILE = [
    "[red]x[/red]",
    "[/red]",
    "a\nb",
    "a\rb",
    "\x1b[31mred",
    "<script>alert(1)</script>",
    "a:b",
    "a=b",
    "a:map",
    "\u202eevil",
]


def renamed(path: Path, name: str) -> Path:
    """Write a CNN whose latent tensor is called `name`."""
    model = nets.cnn(size=9, classes=3)
    for node in model.graph.node:
        node.input[:] = [name if i == "latent" else i for i in node.input]
        node.output[:] = [name if o == "latent" else o for o in node.output]
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_and_never_obeyed(desk: Path, tmp_path: Path, name: str) -> None:
    path = renamed(tmp_path / "hostile.onnx", name)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    start = ["measure", path, "--data", desk / "x9.npy", "--group", "C4", "--samples", "4", "--tap", name]
    outputs = [run("taps", path), run(*start), run("doctor", path)]
    for result in outputs:
        assert result.exit_code == 0, result.output
        assert shown in result.stdout
        assert all(c.isprintable() or c == "\n" for c in result.stdout)
    rows = [line for line in outputs[1].stdout.splitlines() if line.startswith(shown)]
    assert len(rows) == 3  # one for each latent variant: no name began a line of its own
    [first, *_] = measured(*start[1:], "--act", f"{name}=trivial")
    assert first["tap"]["name"] == name
    line = refused(2, *start[:-1], f"{name}:map")
    assert f"take it as {shown}:vector" in line
    crossed = run(*start, "--fail-above", "latent-l2=-1")
    assert crossed.exit_code == 3
    [line] = crossed.stderr.splitlines()
    assert line.startswith(f"crossed: latent-l2 of {shown} is ")
    assert line.isprintable()


def declaring(path: Path, **metadata: str) -> Path:
    onnx.save(nets.cnn(size=9, classes=3, metadata={f"geed.{k}": v for k, v in metadata.items()}), path)
    return path


@pytest.mark.parametrize(
    ("taps", "warning"),
    [
        ("not json", "the file's geed.taps is no JSON list: left aside; export the model again"),
        ('{"name": "latent"}', "the file's geed.taps is no JSON list"),
        ("[" * 100_000, "the file's geed.taps is no JSON list"),
        ('[{"name": 5}]', "geed.taps, entry 0: expected an object with the name of a tensor"),
        ("[7]", "geed.taps, entry 0: expected an object with the name of a tensor"),
        (
            '[{"name": "ghost", "kind": "map", "module": "block"}]',
            "geed.taps names 'ghost', which is no tensor of its graph: left aside",
        ),
        (
            '[{"name": "latent", "kind": "banana"}]',
            "'latent': expected the kind map, vector or probability, got 'banana'; left aside",
        ),
        ('[{"name": "latent", "kind": "map"}]', "'latent': a map has 4 axes, this tensor has 2; left aside"),
        ('[{"name": "latent", "layout": 3}]', "'latent': expected the layout NCHW or NHWC, got 3; left aside"),
        ('[{"name": "latent", "module": {}}]', "'latent': expected the module path as text, got {}; left aside"),
    ],
)
def test_declared_taps_that_cannot_be_believed(desk: Path, tmp_path: Path, taps: str, warning: str) -> None:
    path = declaring(tmp_path / "model.onnx", taps=taps)
    result = run("measure", path, "--data", desk / "x9.npy", "--group", "C4", "--samples", "4", "--json")
    assert result.exit_code == 0, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("warning: ")
    assert warning in line
    assert "latent" in {json.loads(line)["tap"]["name"] for line in result.stdout.splitlines()}
    listed = run("taps", path, "--json")
    assert listed.exit_code == 0
    assert warning in listed.stderr
    assert [json.loads(line)["kind"] for line in listed.stdout.splitlines() if '"latent"' in line] == ["vector"]
    assert warning in run("doctor", path).stdout


@pytest.mark.parametrize(
    ("code", "action", "text"),
    [
        (1, {"a": 1}, "the action that the file declares for 'latent' cannot be used: the declared action: 'a' is not"),
        (2, "\x1b[31mevil", "unknown action '\\x1b[31mevil'"),
        (1, "permute:1:0", "tap 'latent': permute:1:0: expected a permutation of 0..7"),
    ],
)
def test_a_declared_action_that_is_none(desk: Path, tmp_path: Path, code: int, action: object, text: str) -> None:
    path = declaring(tmp_path / "model.onnx", taps=json.dumps([{"name": "latent", "action": action}]))
    start = ["measure", path, "--data", desk / "x9.npy", "--group", "C4", "--samples", "4", "--tap", "latent"]
    assert text in refused(code, *start)
    assert len(measured(*start[1:], "--no-declared-action")) == 3


@pytest.mark.parametrize("data", ["x9.npy", "pictures"])
@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ("not json", "Expecting value"),
        ("[1]", "no JSON object"),
        ("[" * 100_000, "recursion"),
        ('{"layout": 5}', "expected a word for layout"),
        ('{"size": "huge"}', "huge"),
        ('{"range": [0, "x"]}', "could not convert"),
    ],
)
def test_a_declared_input_that_cannot_be_read(desk: Path, tmp_path: Path, data: str, declared: str, why: str) -> None:
    path = declaring(tmp_path / "model.onnx", input=declared)
    line = refused(1, "measure", path, "--data", desk / data, "--group", "C4", "--samples", "4")
    assert "the model's metadata geed.input cannot be understood (" in line
    assert why in line
    assert "export it again" in line
    doctor = run("doctor", path)
    assert doctor.exit_code == 1
    assert "✗ range      the model's metadata geed.input cannot be understood" in doctor.stdout


@pytest.mark.parametrize(
    ("config", "why"), [("{", "cannot be read as JSON"), ("[]", "is no JSON object"), ("[" * 100_000, "recursion")]
)
def test_a_preprocessor_config_that_cannot_be_read(desk: Path, tmp_path: Path, config: str, why: str) -> None:
    shutil.copy(desk / "cnn.onnx", tmp_path / "model.onnx")
    (tmp_path / "preprocessor_config.json").write_text(config)
    line = refused(1, "measure", tmp_path / "model.onnx", "--data", desk / "pictures", "--group", "C4")
    assert "preprocessor_config.json beside the model" in line
    assert why in line
    assert "mend or remove it" in line
    doctor = run("doctor", tmp_path / "model.onnx")
    assert doctor.exit_code == 1
    assert "✗ range      preprocessor_config.json beside the model" in doctor.stdout


def test_a_declared_input_that_is_not_there(desk: Path, tmp_path: Path) -> None:
    path = declaring(tmp_path / "model.onnx", input='{"name": "ghost"}')
    result = run("measure", path, "--data", desk / "x9.npy", "--group", "C4", "--samples", "4", "--json")
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: the file's geed.input names 'ghost', which is no input of its graph: the name is left aside\n"
    )


def test_what_nobody_foresaw_is_one_line_too(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import geed_onnx.taps

    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr(geed_onnx.taps, "list_taps", broken)
    result = run("taps", desk / "cnn.onnx")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: unexpected ZeroDivisionError: first (this is a bug here: GEED_ONNX_TRACEBACK=1 shows where; please"
        " report it)\n"
    )
    monkeypatch.setenv("GEED_ONNX_TRACEBACK", "1")
    assert isinstance(run("taps", desk / "cnn.onnx").exception, ZeroDivisionError)
