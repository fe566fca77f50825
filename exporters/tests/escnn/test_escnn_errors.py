from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import steerable_networks as networks
import torch
from click.testing import CliRunner, Result
from declared_actions import entries, smooth_images
from safetensors.torch import save_file

from geed_exporters import Facts, write
from geed_exporters.cli import main
from geed_exporters.escnn import described, export_escnn, load, load_steerable

FACTORIES = Path(networks.__file__)


def ran(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["escnn", *map(str, arguments)])


def refused(code: int, *arguments: str | Path) -> str:
    """Run the command, which must fail in one line of words, and return the line."""
    result = ran(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


def named(factory: str) -> str:
    return f"{FACTORIES}:{factory}"


# ---------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_a_file_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    result = ran(named("residual"), "-o", path, "--tap", "body*")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{path}\n"
    assert "agrees with the framework to" in result.stderr
    assert entries(path)["body"]["action"] == {"group": "C4", "fields": [{"type": "regular", "count": 2}]}


def test_the_list_shows_modules_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = ran(named("cyclic"), "--list")
    assert result.exit_code == 0, result.output
    modules = [line.split()[-1] for line in result.stdout.splitlines()]
    assert modules[:2] == ["block1.mask", "block1.conv"]
    assert {"block1.norm", "block1.act", "block1", "blur", "block2", "invariant", "mean", "head"} <= set(modules)
    assert list(tmp_path.iterdir()) == []


def test_random_weights_are_said(tmp_path: Path) -> None:
    result = ran("escnn:c8-cnn-small", "-o", tmp_path / "net.onnx", "--tap", "block1", "--no-verify")
    assert result.exit_code == 0, result.output
    assert "weights: random" in result.stderr


def test_a_group_without_a_name_is_said(tmp_path: Path) -> None:
    result = ran(named("continuous"), "-o", tmp_path / "net.onnx", "--tap", "block2")
    assert result.exit_code == 0, result.output
    assert "note: no action is declared for block2" in result.stderr


def test_flags_are_recorded(tmp_path: Path) -> None:
    loaded = load(named("no_size"), facts=Facts(size=(13, 13), range=(0.0, 255.0)))
    assert (loaded.input.shape, loaded.input.range) == ((1, 13, 13), (0.0, 255.0))
    assert loaded.name == "steerable_networks.py:no_size"
    path = tmp_path / "net.onnx"
    result = ran("escnn:c8-cnn-small", "-o", path, "--mean", "0.5", "--std", "0.25", "--no-verify", "--tap", "block1")
    assert result.exit_code == 0, result.output
    recorded = json.loads({p.key: p.value for p in onnx.load(str(path)).metadata_props}["geed.input"])
    assert (recorded["mean"], recorded["std"], recorded["range"]) == ([0.5], [0.25], [0, 1])


# ----------------------------------------------------------------------------------------------------------- bad models


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("two_inputs", ["takes several inputs (image, mask)", "expected one"]),
        ("deciding", ["decides by the values of a tensor", "torch.where"]),
        ("no_onnx_form", ["has no ONNX form", "bessel_j0"]),
        ("wrong_size", ["fails in block1.mask (MaskModule)", "(2, 1, 15, 15)"]),
        ("not_steerable", ["holds no module of escnn", "geed-export pytorch"]),
        ("failing", ["failing() fails: RuntimeError: the disk with the weights is not there"]),
    ],
)
def test_a_model_that_cannot_be_exported_says_why(tmp_path: Path, factory: str, words: list[str]) -> None:
    line = refused(1, named(factory), "-o", tmp_path / "net.onnx")
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tap_says_what_is_near(tmp_path: Path) -> None:
    line = refused(2, named("residual"), "-o", tmp_path / "net.onnx", "--tap", "body.conv3")
    assert "unknown module 'body.conv3': did you mean 'body.conv" in line


def test_an_input_of_unknown_size_is_asked_for(tmp_path: Path) -> None:
    assert "give --size HxW" in refused(2, named("no_size"), "-o", tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("escnn:c8-cnn-smal", 2, "unknown network 'c8-cnn-smal': did you mean 'c8-cnn-small'"),
        ("timm:resnet50", 2, "unknown kind of model 'timm'"),
        ("c8-cnn", 2, "expected escnn:NAME, or FILE.py:FACTORY"),
        ("missing.py:build", 1, "missing.py: no such file"),
        (f"{FACTORIES}:cyclc", 2, "did you mean 'cyclic'"),
    ],
)
def test_a_bad_name_says_what_is_expected(tmp_path: Path, model: str, code: int, words: str) -> None:
    assert words in refused(code, model, "-o", tmp_path / "net.onnx")


def test_no_output_is_a_usage_error() -> None:
    result = ran("escnn:c8-cnn-small")
    assert result.exit_code == 2
    assert "'-o'" in result.stderr


def test_size_and_channels_of_a_named_network_are_its_own(tmp_path: Path) -> None:
    for flag, value in (("--size", "33"), ("--channels", "3")):
        line = refused(2, "escnn:c8-cnn-small", "-o", tmp_path / "net.onnx", flag, value)
        assert line == f"error: {flag}: the networks of escnn: have one input; leave it out"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--size", "13by13"], "--size: expected height and width in pixels, 224x224 or (224, 224), or one number"),
        (["--size", "13", "--colour", "rgb"], "no_size: colour: expected 3 channels for rgb, got 1"),
        (["--size", "13", "--std", "0"], "--std: expected a number, or one a channel, 0.5,0.5,0.5"),
    ],
)
def test_flags_that_cannot_be_meant(tmp_path: Path, flags: list[str], words: str) -> None:
    assert words in refused(2, named("no_size"), *flags, "-o", tmp_path / "net.onnx")


# ------------------------------------------------------------------------------------------------------ what is missing


@pytest.mark.parametrize("missing", ["escnn", "torch"])
def test_a_framework_that_is_not_installed_names_both_pip_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)

    class Blocked:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name.split(".")[0] == missing:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])
    line = refused(1, "escnn:c8-cnn-small", "-o", tmp_path / "net.onnx")
    assert line == (
        f"error: {missing} is not installed in this environment; install it with:"
        " pip install 'geed-onnx[escnn]' && pip install --no-deps escnn==1.0.11"
    )


def test_what_stands_in_for_a_missing_package_says_so_when_it_is_called() -> None:
    from lie_learn.representations.SO3.wigner_d import wigner_D_matrix

    if not getattr(sys.modules["lie_learn"], "__file__", None):
        with pytest.raises(NotImplementedError, match=r"escnn needs it for rotations of space \(SO\(3\)\)"):
            wigner_D_matrix(1, 0, 0, 0)


# ---------------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def trained() -> Any:
    """The small network with weights that are not those of its seed."""
    net = load("escnn:c8-cnn-small").model.train()
    with torch.no_grad():
        for i, p in enumerate(q for q in net.parameters() if q.requires_grad):
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) * 0.1)
    return networks.statistics(net)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_checkpoint_of_either_mode_gives_the_networks_own_values(
    tmp_path: Path, trained: Any, mode: str, suffix: str
) -> None:
    """escnn's state_dict holds the expanded filters in eval mode only; old ones must not stay beside new weights."""
    x = torch.from_numpy(smooth_images(2, 1, 29))
    with torch.no_grad():
        wanted = trained(x).numpy()
    trained.train(mode == "train")
    state = {k: v.detach().contiguous() for k, v in trained.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = load("escnn:c8-cnn-small", checkpoint=path)
    with torch.no_grad():
        found = loaded.model(x).numpy()
        fresh = load("escnn:c8-cnn-small").model(x).numpy()
    assert np.abs(found - wanted).max() < 1e-6
    assert np.abs(found - fresh).max() > 1e-3
    assert loaded.weights["file"] == path.name
    assert len(loaded.weights["sha256"]) == 64


def test_weights_of_other_names_are_refused(tmp_path: Path, trained: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save({k.replace("block3", "blok3"): v for k, v in trained.state_dict().items()}, path)
    line = refused(1, "escnn:c8-cnn-small", "-o", tmp_path / "net.onnx", "--checkpoint", path)
    assert "8 of the model's 68 weights are not in the file: block3.mask.mask, block3.conv.weights" in line
    assert "did you mean 'blok3.mask.mask'" in line


def test_weights_of_another_shape_are_refused(tmp_path: Path, trained: Any) -> None:
    state = dict(trained.state_dict())
    state["classifier.weight"] = state["classifier.weight"][:, :5]
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    line = refused(1, "escnn:c8-cnn-small", "-o", tmp_path / "net.onnx", "--checkpoint", path)
    assert "classifier.weight expected (9, 32), got (9, 5)" in line


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_text("no weights")
    assert "no safetensors file" in refused(1, "escnn:c8-cnn-small", "-o", tmp_path / "net.onnx", "--checkpoint", path)


def test_the_pip_line_of_safetensors_is_that_of_escnn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    path.touch()
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.delitem(sys.modules, "safetensors.torch", raising=False)
    line = refused(1, "escnn:c8-cnn-small", "-o", tmp_path / "net.onnx", "--checkpoint", path)
    assert line.endswith("with: pip install 'geed-onnx[escnn]' && pip install --no-deps escnn==1.0.11")


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "weights.pt"
    with path.open("wb") as file:
        pickle.dump({"weights": Runs()}, file, protocol=2)
    line = refused(1, "escnn:c8-cnn-small", "-o", tmp_path / "net.onnx", "--checkpoint", path)
    assert "refused" in line or "no weights that torch can read" in line
    assert not (tmp_path / "ran").exists()


def test_a_network_trained_on_keeps_an_earlier_export_as_it_was(tmp_path: Path) -> None:
    """The reference is a copy: changing the network afterwards changes neither file nor reference."""
    net, facts = networks.residual()
    export = export_escnn(described((net, facts), "net"), taps=["body"])
    x = smooth_images(1, 1, networks.SIZE)
    before = export.reference(x)["body"]
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)
    assert np.array_equal(export.reference(x)["body"], before)
    write(export, tmp_path / "net.onnx")


def test_loading_leaves_eval_mode(tmp_path: Path, trained: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save(trained.state_dict(), path)
    net = load("escnn:c8-cnn-small").model
    notes = load_steerable(net, path)
    assert not any(m.training for m in net.modules())
    assert any("escnn computes them from the others" in note for note in notes)
