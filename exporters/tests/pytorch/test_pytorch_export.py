"""PyTorch into ONNX: what is tapped, under which name, with which values, and what the file says of itself."""

from __future__ import annotations

import json
import site
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import independent
import numpy as np
import onnx
import onnxruntime
import pytest
import small_networks as nets
import torch
from click.testing import CliRunner
from torch import nn

from geed_exporters import Facts, select, write
from geed_exporters.cli import main
from geed_exporters.pytorch import Loaded, candidates, export_pytorch, from_factory, load
from geed_exporters.pytorch.tapping import block_paths
from geed_onnx.errors import UsageError

SIZE = (15, 15)
PATHS = [f"blocks.{i}{m}" for i in range(3) for m in (".conv", ".bn", ".act", "")]


def loaded(model: nn.Module, **facts: Any) -> Loaded:
    return from_factory((model, {"size": SIZE} | facts), "net.py:build")


def run(path: Path, x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))


def metadata(path: Path) -> dict[str, Any]:
    props = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    return {k: v if k == "geed.schema" else json.loads(v) for k, v in props.items()}


@torch.no_grad()
def by_hand(model: nets.Small, x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The forward pass of `Small`, written out: every module's output by its path, without any hook."""
    y, found = torch.from_numpy(np.ascontiguousarray(x)), {}
    for i, block in enumerate(model.blocks):
        found[f"blocks.{i}.conv"] = y = block.conv(y)
        found[f"blocks.{i}.bn"] = y = block.bn(y)
        found[f"blocks.{i}.act"] = found[f"blocks.{i}"] = y = y.clamp(min=0)
    found["blocks"] = y
    found["pool"] = y = model.pool(y)
    found["fc.input"] = y = y.mean((2, 3))
    found["fc"] = model.fc(y)
    return {name: t.numpy() for name, t in found.items()}


@pytest.fixture(scope="module")
def model() -> nets.Small:
    return nets.small().eval()


@pytest.fixture(scope="module")
def everything(model: nets.Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every module of `Small` as a tap."""
    path = tmp_path_factory.mktemp("all") / "small.onnx"
    written = write(export_pytorch(loaded(model), taps=["*"]), path, tolerance=1e-5)
    assert written.agreement is not None
    assert written.agreement.batches == (1, 3)
    return path


# ----------------------------------------------------------------------------------------------------------- the values


@pytest.mark.parametrize("group", ["C4", "flip"])
def test_the_file_measures_as_the_framework_computes(everything: Path, model: nets.Small, group: str) -> None:
    compared = independent.check(everything, lambda x: by_hand(model, x), nets.images(6), group=group)
    assert compared >= len(PATHS) + 5


@pytest.mark.parametrize("batch", [1, 3])
def test_each_tap_is_its_modules_output(everything: Path, model: nets.Small, batch: int) -> None:
    x = nets.images(batch)
    ours, theirs = run(everything, x), by_hand(model, x)
    assert sorted(ours) == sorted(theirs)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=1e-5, err_msg=name)


def test_an_in_place_relu_leaves_the_batch_norm_tap_alone(everything: Path) -> None:
    found = run(everything, nets.images(3))
    assert (found["blocks.0.bn"] < 0).any()
    assert not (found["blocks.0.act"] < 0).any()


def test_a_tapped_convolution_is_not_folded_into_its_batch_norm(everything: Path, tmp_path: Path) -> None:
    untapped = tmp_path / "untapped.onnx"
    write(export_pytorch(loaded(nets.small()), taps=["fc"]), untapped)
    # without a tap torch folds, so that this test could fail
    assert "BatchNormalization" not in {n.op_type for n in onnx.load(str(untapped)).graph.node}
    found = run(everything, nets.images(3))
    assert np.abs(found["blocks.0.conv"] - found["blocks.0.bn"]).max() > 0.1


def test_the_model_is_exported_as_it_predicts() -> None:
    net = nets.small().train()
    assert not loaded(net).model.training


def test_the_same_weights_whenever_a_factory_draws_them(networks: Path) -> None:
    before = torch.random.get_rng_state()
    first, second = (load(f"{networks}:small", facts=Facts(size=SIZE)).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert torch.equal(before, torch.random.get_rng_state())


# ------------------------------------------------------------------------------------------------------------ the names


def test_calls_parts_and_layers_with_a_fast_path_have_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = loaded(nets.Shared(), size=(4, 4))  # an LSTM is written out step by step: 16 of them
    path = tmp_path / "shared.onnx"
    names = write(export_pytorch(net, taps=["*"]), path, tolerance=1e-5).taps
    assert [n for n in names if n.startswith("act")] == ["act", "act#1", "act#2"]
    assert {"both.low", "both.pair.0", "both.pair.1"} == {n for n in names if n.startswith("both")}
    # the states of an LSTM have the batch as second axis, the weights of the attention are a sum over heads
    assert {n for n in names if n.startswith("lstm")} == {"lstm.0"}
    assert {n for n in names if n.startswith("attention")} == {"attention.0", "attention.1"}
    # torch computes this layer in one kernel where it can, and then calls none of its modules
    assert {"layer.linear1", "layer.norm2", "layer"} <= set(names)
    x = torch.from_numpy(nets.images(3, size=4))
    with torch.no_grad():
        y = net.model.conv(x).clamp(min=0) - 1
        expected = y.clamp(min=0)
    np.testing.assert_allclose(run(path, x.numpy())["act#1"], expected.numpy(), atol=1e-5)


def test_the_networks_own_output_comes_first(everything: Path, tmp_path: Path) -> None:
    assert onnx.load(str(everything)).graph.output[0].name == "fc"
    path = tmp_path / "one.onnx"
    write(export_pytorch(loaded(nets.small()), taps=["blocks.0"]), path)
    assert [o.name for o in onnx.load(str(path)).graph.output] == ["output", "blocks.0"]
    assert [t["name"] for t in metadata(path)["geed.taps"]] == ["blocks.0"]


def test_a_module_called_output_is_not_mistaken_for_the_networks(tmp_path: Path) -> None:
    path = tmp_path / "features.onnx"
    net = loaded(nets.Features())
    write(export_pytorch(net, taps=["*"]), path)
    outputs = [o.name for o in onnx.load(str(path)).graph.output]
    assert outputs == ["model_output.0", "model_output.1", "conv", "output"]
    assert {c.role for c in candidates(net)} == {None}


def test_the_input_gives_way_to_a_module_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "named.onnx"
    net = nn.Sequential()
    net.add_module("image", nn.Conv2d(3, 4, 3))
    write(export_pytorch(loaded(net), taps=["image"]), path)
    assert metadata(path)["geed.input"]["name"] == onnx.load(str(path)).graph.input[0].name == "image_input"


def test_weights_and_scopes_carry_the_models_own_paths(everything: Path) -> None:
    graph = onnx.load(str(everything)).graph
    assert {"fc.weight", "fc.bias", "blocks.1.conv.weight"} <= {w.name for w in graph.initializer}
    scopes = " ".join(p.value for node in graph.node for p in node.metadata_props)
    assert "'blocks.0.conv'" in scopes
    assert "model" not in scopes


# ---------------------------------------------------------------------------------------------- blocks, latent, scores


def roles(net: nn.Module, **facts: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for c in select(candidates(loaded(net, **facts))):
        found.setdefault(str(c.role), []).append(c.module)
    return found


def test_the_default_taps_are_blocks_latent_and_scores() -> None:
    stages = ["blocks.0", "blocks.1", "blocks.2"]
    assert roles(nets.small()) == {"stage": stages, "latent": ["fc.input"], "scores": ["fc"]}


def test_latent_is_the_module_that_gives_what_the_classifier_takes() -> None:
    found = roles(nets.Softmaxed())
    assert (found["latent"], found["scores"]) == (["latent"], ["scores"])


def test_a_point_convolution_can_be_the_classifier() -> None:
    found = roles(nets.PointClassifier())
    assert (found["latent"], found["scores"]) == (["pool"], ["output"])


def test_a_factory_says_better() -> None:
    found = roles(nets.small(), blocks=["blocks.?.act"], latent="pool", scores="")
    assert found == {"stage": ["blocks.0.act", "blocks.1.act", "blocks.2.act"], "latent": ["pool"]}


def test_a_network_without_classes_gives_its_latent() -> None:
    assert roles(nets.small(), scores="")["latent"] == ["fc"]


def test_blocks_are_the_entries_of_lists_then_children_then_leaves() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    assert block_paths(plain) == {"0", "1", "2"}
    children = nn.Module()
    for i in range(3):
        children.add_module(f"block{i}", nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()))
    children.add_module("fc", nn.Linear(3, 2))
    assert block_paths(children) == {"block0", "block1", "block2"}
    assert block_paths(nets.Small()) == {"blocks.0", "blocks.1", "blocks.2"}


# ------------------------------------------------------------------------------------------------------------ the axes


def test_each_tap_has_its_own_layout(tmp_path: Path) -> None:
    net = loaded(nets.ChannelsLast())
    assert {c.module: c.shape for c in candidates(net) if c.module in ("norm", "act", "mlp", "last")} == {
        "norm": (6, 15, 15),
        "act": (6, 15, 15),
        "mlp": (8, 15, 15),
        "last": (4, 15, 15),
    }
    path = tmp_path / "last.onnx"
    write(export_pytorch(net, taps=["*"]), path)
    declared = {t["name"]: t["layout"] for t in metadata(path)["geed.taps"]}
    last = dict.fromkeys(("norm", "act", "mlp", "drop"), "NHWC")
    assert declared == {"conv": "NCHW", **last, "last": "NCHW", "fc.input": None, "fc": None}
    reference = export_pytorch(net, taps=["*"]).reference
    assert independent.check(path, reference, nets.images(5)) >= 10


def test_what_the_modules_tell_is_what_the_graph_tells(everything: Path, tmp_path: Path) -> None:
    model = onnx.load(str(everything))
    del model.metadata_props[:]
    bare = tmp_path / "bare.onnx"
    onnx.save(model, str(bare))
    inferred = {t["name"]: t["layout"] for t in listed(bare)}
    declared = {t["name"]: t["layout"] for t in metadata(everything)["geed.taps"] if t["kind"] == "map"}
    assert declared
    assert {name: inferred[name] for name in declared} == declared


# ----------------------------------------------------------------------------------------- what the file says of itself


def listed(path: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "geed_onnx", "taps", str(path), "--json"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in shown.splitlines()]


def test_geed_onnx_lists_the_module_paths(everything: Path) -> None:
    found = {t["name"]: t for t in listed(everything)}
    for name in [*PATHS, "pool", "fc", "fc.input"]:
        assert found[name]["module"] == name
    assert found["fc"]["kind"] == "probability"
    assert found["fc.input"]["role"] == "latent"


def test_the_metadata_is_what_was_said(networks: Path, tmp_path: Path) -> None:
    path = tmp_path / "described.onnx"
    write(export_pytorch(load(f"{networks}:described")), path)
    found = metadata(path)
    assert found["geed.schema"] == "1"
    assert found["geed.input"] == {
        "name": "picture",
        "layout": "NCHW",
        "size": [15, 15],
        "channels": 3,
        "colour": "bgr",
        "range": [0, 255],
        "mean": [103.9, 116.8, 123.7],
        "std": [1, 1, 1],
        "fit": "crop",
        "resize": 17,
        "resample": "bicubic",
    }
    kinds = [(t["name"], t["kind"], t["role"], t.get("action")) for t in found["geed.taps"]]
    assert kinds == [
        ("blocks.0", "map", "stage", None),
        ("blocks.1", "map", "stage", None),
        ("blocks.2", "map", "stage", None),
        ("pool", "map", "latent", {"group": "C4", "fields": [{"type": "trivial", "count": 8}]}),
        ("fc", "probability", "scores", None),
    ]
    assert found["geed.source"] == {
        "framework": "torch",
        "version": torch.__version__.split("+")[0],
        "model": "small_networks.py:described",
        "weights": {"seed": 0},
        "notes": ["made for a test"],
    }


def test_flags_stand_over_what_the_factory_says(networks: Path) -> None:
    said = load(f"{networks}:described").input
    facts = Facts(size=(19, 17), colour="rgb", std=(2.0,), latent="fc.input")
    net = load(f"{networks}:described", facts=facts)
    assert net.input == replace(said, shape=(3, 19, 17), colour="rgb", std=(2.0,), resize=None)
    assert net.latent == "fc.input"


def test_the_first_convolution_tells_the_channels_and_what_is_said_goes_before() -> None:
    assert loaded(nets.small()).input.shape == (3, *SIZE)
    assert loaded(nets.small(), channels=7).input.shape == (7, *SIZE)
    assert loaded(nn.Flatten(), colour="grey").input.shape == (1, *SIZE)
    with pytest.raises(UsageError, match=r"^net\.py:build: the number of channels of its images is not known"):
        loaded(nn.Flatten())
    with pytest.raises(UsageError, match=r"^net\.py:build: colour: expected 1 channel for grey, got 3$"):
        loaded(nets.small(), colour="grey")


def test_no_path_of_this_machine_is_in_the_file(everything: Path) -> None:
    data = everything.read_bytes()
    for folder in (str(Path.cwd()), str(Path(__file__).parent), *site.getsitepackages(), str(everything.parent)):
        assert folder.encode() not in data


# ---------------------------------------------------------------------------------------------------------- the command


def export(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["pytorch", *arguments])


def test_the_command_writes_says_and_prints_the_path(networks: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    flags = ["--mean", "0.5", "--std", "0.25,0.25,0.5", "--range", "0,1", "--colour", "rgb", "--opset", "21"]
    done = export(
        f"{networks}:small", "--size", "15x17", *flags, "--tap", "fc", "--tap", "blocks.*.bn", "-o", str(path)
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{path}\n"
    assert "4 taps; agrees with the framework to" in done.stderr
    said = metadata(path)["geed.input"]
    assert (said["size"], said["mean"], said["std"], said["range"]) == ([15, 17], [0.5], [0.25, 0.25, 0.5], [0.0, 1.0])
    assert onnx.load(str(path)).opset_import[0].version == 21


def test_the_command_lists_without_writing(networks: Path) -> None:
    done = export(f"{networks}:small", "--size", "15", "--list")
    assert done.exit_code == 0, done.output
    assert ["latent", "vector", "8", "fc.input"] in [line.split() for line in done.stdout.splitlines()]
    assert ["stage", "map", "6x15x15", "blocks.0"] in [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("form", ["safetensors", "state dict", "lightning", "teacher of two"])
def test_weights_come_from_a_checkpoint(networks: Path, tmp_path: Path, form: str) -> None:
    torch.manual_seed(5)
    state = nets.with_statistics(nets.Small(), seed=5).state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    elif form == "state dict":
        # as old checkpoints are: without the counters of batches
        torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    elif form == "lightning":
        torch.save({"epoch": 3, "state_dict": {f"model.{k}": v for k, v in state.items()}}, path)
    else:
        student = {f"module.backbone.{k}": v * 0 for k, v in state.items()}
        torch.save({"student": student, "teacher": {f"backbone.{k}": v for k, v in state.items()}}, path)
    found = load(f"{networks}:small", checkpoint=path, facts=Facts(size=SIZE))
    assert found.weights["file"] == path.name
    assert len(found.weights["sha256"]) == 64
    expected = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert all(torch.equal(found.model.state_dict()[k], v) for k, v in expected.items())
    if form == "teacher of two":
        assert found.notes[0] == "weights taken from 'teacher' of the checkpoint (not taken: 'student')"


def test_torchvision_is_stubbed_only_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from geed_exporters.pytorch import stubs

    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(stubs.importlib, "import_module", _no_torchvision)
    with stubs._torchvision():
        import torchvision.ops.misc

        with pytest.raises(RuntimeError, match="cannot be imported here"):
            torchvision.ops.misc.FrozenBatchNorm2d(3)
    assert not [n for n in sys.modules if n.split(".")[0] == "torchvision"]
    real = ModuleType("torchvision")
    monkeypatch.setattr(stubs.importlib, "import_module", lambda name: real)
    monkeypatch.setitem(sys.modules, "torchvision", real)
    with stubs._torchvision():
        assert sys.modules["torchvision"] is real
    assert sys.modules["torchvision"] is real


def _no_torchvision(name: str) -> Any:
    raise RuntimeError("operator torchvision::nms does not exist")
