"""What goes wrong on the way from PyTorch, in words: what was expected, what came, what to do; and no file is left."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_networks as nets
import torch
from click.testing import CliRunner

from geed_exporters import Differs, ExportError, Facts, MissingFramework, NotExportable, write
from geed_exporters.cli import main
from geed_exporters.pytorch import export_pytorch, from_factory, load, load_state
from geed_onnx.errors import UnknownName, UsageError

OWN_OPERATOR = """
import torch
from torch import nn

@torch.library.custom_op("geed_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2

@twice.register_fake
def _(x):
    return torch.empty_like(x)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return twice(self.conv(x))
"""


def export(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["pytorch", *arguments])


def refused(tmp_path: Path, *arguments: str, exit_code: int = 1) -> str:
    """Run the command, see that it fails in one line and leaves nothing behind, and return the line."""
    folder = tmp_path / "out"
    done = export(*arguments, "-o", str(folder / "net.onnx"))
    assert done.exit_code == exit_code, done.output
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("weights:", "note:"))]
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    assert not folder.exists() or not list(folder.iterdir())
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


# ------------------------------------------------------------------------------------------ models without an ONNX form


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("Several", "the forward pass takes several inputs (x, mask); expected one, a batch of images"),
        ("Branching", "decides by the values of a tensor (small_networks.py, line {line}: if y.sum() > 0:)"),
        ("Counting", "decides by the values of a tensor (small_networks.py, line {line}: n = int(x.abs().sum()"),
        ("SingularValues", "the operator aten._linalg_svd has no ONNX form; write that part of the model with other"),
        ("OwnFunction", "the forward pass leaves torch (small_networks.py, line {line}: return torch.from_numpy("),
        ("FixedBatch", "the batch is fixed inside the model"),
        ("Chance", "the same image gets other values at each pass, or beside other images"),
        ("ClassesOnly", "the forward pass gives no float tensor; expected class scores or features"),
        ("no_model", "small_networks.py:no_model gives list; expected a torch.nn.Module, or (torch.nn.Module, dict)"),
        ("fails", "small_networks.py:fails() fails: ValueError: no data here"),
    ],
)
def test_the_cause_is_named(networks: Path, tmp_path: Path, factory: str, said: str) -> None:
    code = said.partition("{line}: ")[2].rstrip(")")
    lines = networks.read_text(encoding="utf-8").splitlines()
    line = next((i for i, text in enumerate(lines, 1) if code and code in text), 0)
    message = refused(tmp_path, f"{networks}:{factory}", "--size", "15x15")
    assert said.format(line=line) in message
    assert f"small_networks.py:{factory}" in message
    assert str(networks.parent) not in message


def test_an_operator_of_ones_own_has_no_onnx_form(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN_OPERATOR, encoding="utf-8")
    message = refused(tmp_path, f"{file}:Net", "--size", "9x9")
    assert message.startswith(
        "own.py:Net: the operator geed_tests.twice has no ONNX form; write that part of the model"
    )


def test_images_that_do_not_fit_the_model(networks: Path, tmp_path: Path) -> None:
    message = refused(tmp_path, f"{networks}:small", "--size", "15", "--channels", "4")
    assert "the forward pass fails on images of shape (2, 4, 15, 15) (RuntimeError" in message
    assert message.endswith("--size and --channels give others")


def test_a_file_that_differs_is_not_left_behind(tmp_path: Path) -> None:
    export = export_pytorch(from_factory((nets.small(), {"size": (15, 15)}), "net.py:build"))
    weight = next(w for w in export.model.graph.initializer if w.name == "fc.bias")
    weight.raw_data = np.full(5, 0.5, np.float32).tobytes()
    path = tmp_path / "net.onnx"
    path.write_bytes(b"before")
    with pytest.raises(Differs, match=r"worst is 'fc', by .* relative \(batch 1, at most 0\.0001 allowed\)"):
        write(export, path)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


# --------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet50", "model 'resnet50': expected timm:NAME, paper:NAME, or FILE.py:FACTORY"),
        ("tim:resnet50", "unknown kind of model 'tim': did you mean 'timm'?"),
        ("timm:resnet5O", "unknown model of timm 'resnet5O': did you mean 'resnet50'"),
        ("timm:resnet50.a1_in2k", "unknown pretrained tag of timm:resnet50 'a1_in2k': did you mean 'a1_in1k'"),
    ],
)
def test_unknown_models(tmp_path: Path, model: str, said: str) -> None:
    assert said in refused(tmp_path, model, exit_code=2)


def test_unknown_factories_and_files(networks: Path, tmp_path: Path) -> None:
    message = refused(tmp_path, f"{networks}:describd", "--size", "15", exit_code=2)
    assert message.startswith("unknown function 'describd': did you mean 'described'?")
    message = refused(tmp_path, f"{tmp_path}/none.py:build", "--size", "15")
    assert message == f"{tmp_path}/none.py: no such file; expected FILE.py:FACTORY"


def test_an_unknown_tap(networks: Path, tmp_path: Path) -> None:
    message = refused(tmp_path, f"{networks}:small", "--size", "15", "--tap", "block.0.conv", exit_code=2)
    assert message.startswith("unknown module 'block.0.conv': did you mean 'blocks.0.conv'")


def test_unknown_facts_of_a_factory(networks: Path, tmp_path: Path) -> None:
    message = refused(tmp_path, f"{networks}:wrong_fact", exit_code=2)
    assert message == "unknown fact 'sise': did you mean 'size' or 'resize'?; given by small_networks.py:wrong_fact"
    for facts in ({"latent": "pol"}, {"scores": "fcc"}, {"blocks": ["blok?"]}):
        with pytest.raises(UnknownName, match=r"unknown module .* given as "):
            export_pytorch(from_factory((nets.small(), {"size": 15, **facts}), "net.py:build"))
    with pytest.raises(UsageError, match=r"^net\.py:build: range: expected two different numbers, .*, got 255$"):
        from_factory((nets.small(), {"size": 15, "range": 255}), "net.py:build")


# ------------------------------------------------------------------------------------------------------------ the flags


def test_flags_that_cannot_be_meant(networks: Path, tmp_path: Path) -> None:
    small = f"{networks}:small"
    for arguments, said in (
        ([], "small_networks.py:small: the size of its images is not known; give --size HxW"),
        (["--size", "15x"], "--size: expected height and width in pixels, 224x224 or (224, 224), or one number"),
        (["--size", "0x5"], "--size: expected height and width in pixels, 224x224 or (224, 224), or one number"),
        (["--size", "15", "--channels", "0"], "--channels: expected a whole number from 1, got '0'"),
        (
            ["--size", "15", "--mean", "0,0"],
            "small_networks.py:small: mean: expected 1 number or 3, one a channel, got",
        ),
        (["--size", "15", "--std", "0"], "--std: expected a number, or one a channel, 0.5,0.5,0.5 or (0.5, 0.5, 0.5)"),
        (["--size", "15", "--std", "x"], "--std: expected a number, or one a channel, 0.5,0.5,0.5 or (0.5, 0.5, 0.5)"),
        (["--size", "15", "--range", "255"], "--range: expected two different numbers, what black and white become"),
        (["--size", "15", "--colour", "red"], "--colour: expected grey, rgb or bgr, got 'red'"),
        (["--size", "15", "--colour", "grey"], "small_networks.py:small: colour: expected 1 channel for grey, got 3"),
        (["--size", "15", "--pretrained"], "--pretrained: a factory gives its own weights"),
    ):
        assert refused(tmp_path, small, *arguments, exit_code=2).startswith(said)
    message = refused(tmp_path, "timm:resnet18", "--pretrained", "--checkpoint", "x.pt", exit_code=2)
    assert message == "--pretrained and --checkpoint both give weights; give one of them"


def test_flags_that_do_not_fit_a_named_model(tmp_path: Path) -> None:
    message = refused(tmp_path, "timm:resnet10t", "--size", "32", "--colour", "grey", exit_code=2)
    assert message == "timm:resnet10t: colour: expected 1 channel for grey, got 3"
    for flag, value in (("--size", "32"), ("--channels", "1")):
        message = refused(tmp_path, "paper:alexnet", flag, value, exit_code=2)
        assert message == f"{flag}: the models of paper: have the input of the paper; leave it out"


def test_no_output_is_asked_for(networks: Path) -> None:
    done = export(f"{networks}:small", "--size", "15")
    assert done.exit_code == 2
    assert "missing option '-o'" in done.output.lower()


def test_random_weights_are_said(tmp_path: Path) -> None:
    done = export("timm:resnet10t", "--size", "32", "--list")
    assert done.exit_code == 0, done.output
    assert "weights: random; --pretrained fetches trained ones, --checkpoint FILE reads them" in done.stderr


# ------------------------------------------------------------------------------------------------ what is not installed


@pytest.mark.parametrize(
    ("missing", "model"), [("torch", "net.py:build"), ("torch", "timm:resnet18"), ("timm", "timm:resnet18")]
)
def test_the_pip_line_of_what_is_missing(monkeypatch: pytest.MonkeyPatch, missing: str, model: str) -> None:
    plain: Callable[..., Any] = importlib.import_module

    def blocked(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return plain(name, *rest)

    monkeypatch.setattr(importlib, "import_module", blocked)
    for name in [n for n in sys.modules if n.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingFramework) as caught:
        load(model, facts=Facts(size=(15, 15)))
    assert str(caught.value) == (
        f"{missing} is not installed in this environment; install it with: pip install 'geed-onnx[pytorch]'"
    )


def test_the_pip_line_of_safetensors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.touch()
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.delitem(sys.modules, "safetensors.torch", raising=False)
    with pytest.raises(MissingFramework, match=r"install it with: pip install 'geed-onnx\[pytorch\]'$"):
        load_state(nets.small(), path)
    with pytest.raises(MissingFramework, match=r"install it with: pip install another$"):
        load_state(nets.small(), path, install="pip install another")


def test_the_command_needs_no_torch_to_say_its_help(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def blocked(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] in ("torch", "timm"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return plain(name, *rest, **more)

    for name in [n for n in sys.modules if n.startswith("geed_exporters.pytorch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", blocked)
    done = export("--help")
    assert done.exit_code == 0, done.output
    assert "--checkpoint" in done.stdout


def test_pretrained_weights_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    message = refused(tmp_path, "timm:resnet18.a1_in1k", "--pretrained")
    assert message.startswith("timm:resnet18.a1_in1k: pretrained weights cannot be had (")
    assert message.endswith("fetch them where there is a network and give the file: --checkpoint FILE.safetensors")


def test_a_model_without_pretrained_weights(tmp_path: Path) -> None:
    message = refused(tmp_path, "timm:levit_384_s8", "--pretrained")
    assert message.startswith("timm:levit_384_s8: pretrained weights cannot be had (")


# ---------------------------------------------------------------------------------------------------------- checkpoints


class Harmful:
    """A pickle that would write a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def checkpoint_refused(tmp_path: Path, networks: Path, path: Path) -> str:
    return refused(tmp_path, f"{networks}:small", "--size", "15", "--checkpoint", str(path))


def test_a_pickle_with_code_is_refused_unread(networks: Path, tmp_path: Path) -> None:
    path, touched = tmp_path / "w.pt", tmp_path / "touched"
    torch.save({"state_dict": nets.small().state_dict(), "more": Harmful(touched)}, path)
    assert "holds Python objects beside weights, and reading those could run code: refused" in checkpoint_refused(
        tmp_path, networks, path
    )
    path.write_bytes(pickle.dumps(Harmful(touched)))
    message = checkpoint_refused(tmp_path, networks, path)
    assert message.startswith(f"{path}: ")
    assert "refused" in message or "no weights that torch can read" in message
    assert not touched.exists()


def test_files_that_hold_no_weights(networks: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    assert f"{path}: no such file" in checkpoint_refused(tmp_path, networks, path)
    path.write_text("hello\n")
    assert "no weights that torch can read" in checkpoint_refused(tmp_path, networks, path)
    path.write_bytes(b"")
    assert "no weights that torch can read" in checkpoint_refused(tmp_path, networks, path)
    torch.save([1, 2], path)
    assert "expected a table of weights, got list" in checkpoint_refused(tmp_path, networks, path)
    torch.save({"epoch": 3}, path)
    assert "holds no weights (its keys: 'epoch')" in checkpoint_refused(tmp_path, networks, path)
    other = tmp_path / "w.safetensors"
    other.write_text("hello\n")
    assert "no safetensors file" in checkpoint_refused(tmp_path, networks, other)


def test_weights_of_another_model(networks: Path, tmp_path: Path) -> None:
    state = dict(nets.small().state_dict())
    path = tmp_path / "w.pt"

    torch.save({k.replace("fc.", "head."): v for k, v in state.items()}, path)
    message = checkpoint_refused(tmp_path, networks, path)
    assert "2 of the model's 23 weights are not in the file: fc.weight, fc.bias" in message
    assert "For 'fc.weight' the file has none: did you mean 'head.weight'" in message

    torch.save(state | {"projector.weight": torch.zeros(2)}, path)
    assert "the file holds 1 weights that the model has not: projector.weight" in checkpoint_refused(
        tmp_path, networks, path
    )
    model = nets.small()
    assert load_state(model, path, drop=("projector.",)) == (
        "1 weights of the checkpoint are not used: projector.weight",
    )

    torch.save(state | {"fc.weight": torch.zeros(7, 8)}, path)
    message = checkpoint_refused(tmp_path, networks, path)
    assert "1 weights have another shape: fc.weight expected (5, 8), got (7, 8)" in message


def test_a_weight_that_is_there_with_the_prefix_and_without(networks: Path, tmp_path: Path) -> None:
    state = dict(nets.small().state_dict())
    path = tmp_path / "w.pt"
    doubled = {f"model.{k}": v for k, v in state.items()} | {"fc.bias": torch.ones(5)}
    for table in (doubled, dict(reversed(doubled.items()))):  # neither wins by its place
        torch.save(table, path)
        assert checkpoint_refused(tmp_path, networks, path) == (
            f"{path}: 1 weights are in the file twice, with the prefix 'model.' and without: 'fc.bias' and"
            " 'model.fc.bias'. Save the network's own weights alone"
        )
    # what the network has no place for is not lost
    torch.save({f"model.{k}": v for k, v in state.items()} | {"head.bias": state["fc.bias"]}, path)
    model = nets.small()
    assert "1 weights of the checkpoint are not used: head.bias" in load_state(model, path, drop=("head.",))


@pytest.mark.parametrize("protocol", [3, 4])
def test_what_torch_warns_of_a_pickle_is_not_said(networks: Path, tmp_path: Path, protocol: int) -> None:
    path, small = tmp_path / "w.pt", f"{networks}:small"
    torch.save(nets.small().state_dict(), path, pickle_protocol=protocol)
    with pytest.warns(UserWarning, match="pickle protocol"), contextlib.suppress(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    command = [sys.executable, "-c", "from geed_exporters.cli import main; main()", "pytorch", small, "--size", "15"]
    done = subprocess.run([*command, "--checkpoint", str(path), "--list"], capture_output=True, text=True)
    assert "pickle protocol" not in done.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if protocol == 3:
            assert done.returncode == 0, done.stderr
            assert load(small, checkpoint=path, facts=Facts(size=(15, 15))).weights["file"] == "w.pt"
        else:  # torch reads no newer one without running code
            assert done.returncode == 1
            assert done.stderr.startswith(f"error: {path}: ")
            assert done.stderr.count("\n") == 1
            with pytest.raises(ExportError, match="refused"):
                load_state(nets.small(), path)


def test_a_failed_checkpoint_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = nets.small()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    path = tmp_path / "w.pt"
    torch.save({k: v + 1 for k, v in before.items() if k != "fc.bias"}, path)
    with pytest.raises(ExportError):
        load_state(model, path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_no_tap_to_be_had() -> None:
    net = from_factory((torch.nn.Flatten(), {"size": (4, 4), "channels": 3}), "net.py:build")
    export = export_pytorch(replace(net, scores=""))
    assert [t.name for t in export.taps] == ["output"]
    with pytest.raises(NotExportable, match="several inputs"):
        export_pytorch(from_factory((nets.Several(), {"size": 15}), "net.py:build"))


@pytest.mark.parametrize(
    ("rename", "names"),
    [
        ("without_module", ("features.module.0.weight", "features.0.weight")),
        ("undotted_dense_layers", ("denselayer1.norm.1.weight", "denselayer1.norm1.weight")),
        ("named_children", ("0.weight", "conv1.weight")),
    ],
)
def test_published_weights_that_come_to_one_name_are_refused(rename: str, names: tuple[str, str]) -> None:
    from geed_exporters.pytorch import published_weights

    with pytest.raises(ExportError, match=rf"holds '{names[0]}' and '{names[1]}', which are both '{names[1]}' here"):
        getattr(published_weights, rename)(dict.fromkeys(names, 0), None)
    assert getattr(published_weights, rename)({names[0]: 7}, None) == {names[1]: 7}
