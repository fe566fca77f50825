"""What all exporters share, tried without any framework: choosing taps, verifying, writing, loading by name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from geed_exporters import (
    Candidate,
    Differs,
    Export,
    ExportError,
    InputSpec,
    MissingFramework,
    Source,
    TapEntry,
    select,
    write,
    writing,
)
from geed_exporters.candidates import default_roles
from geed_exporters.cli import main
from geed_exporters.factories import called, framework, load_factory, parse_name
from geed_exporters.verification import relative_difference
from geed_onnx import measure
from geed_onnx.errors import UnknownName, UsageError

Array = np.ndarray[Any, Any]
WEIGHT = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)


def graph(batch: str | int = "N") -> onnx.ModelProto:
    """conv → relu → mean, with what exporters leave behind: stack traces, doc strings, notes of the machine."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["conv"], name="c", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["act"]),
        helper.make_node("ReduceMean", ["act"], ["pooled"], axes=[2, 3], keepdims=0),
    ]
    shapes: dict[str, list[Any]] = {"conv": [batch, 4, 6, 6], "act": [batch, 4, 6, 6], "pooled": [batch, 4]}
    made = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 2, 6, 6])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    node = model.graph.node[0]
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/someone/net.py, line 3")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'conv', 'conv2d']")
    node.doc_string = model.graph.doc_string = model.doc_string = "/home/someone"
    model.metadata_props.add(key="machine", value="/home/someone")
    return model


def reference(x: Array) -> Mapping[str, Array]:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    conv = np.einsum("bchwij,ocij->bohw", windows, WEIGHT)
    act = np.maximum(conv, 0)
    return {"conv": conv, "act": act, "pooled": act.mean((2, 3))}


TAPS = (
    TapEntry("conv", "map", "NCHW", "net.conv"),
    TapEntry("act", "map", "NCHW", "net.act", role="stage"),
    TapEntry("pooled", "vector", None, "net.pool", role="latent", action="trivial"),
)
EXPORT = Export(
    graph(),
    InputSpec("image", (2, 6, 6), "NCHW", range=(0, 1), mean=(0.5, 0.5), std=(0.2, 0.2), fit="crop", resize=8),
    TAPS,
    Source("numpy", "2", "net.py:build", {"file": "w.npz", "sha256": "0" * 64}),
    reference,
)


# ---- writing -------------------------------------------------------------------------------------------------------


def test_a_file_that_agrees_is_written_with_its_metadata_and_nothing_of_the_machine(tmp_path: Path) -> None:
    written = write(EXPORT, tmp_path / "sub" / "net.onnx")
    assert written.taps == ("conv", "act", "pooled")
    assert written.agreement is not None
    assert written.agreement.difference < 1e-5
    assert written.agreement.batches == (1, 3)
    assert [p.name for p in written.path.parent.iterdir()] == ["net.onnx"]
    model = onnx.load(str(written.path))
    metadata = {p.key: p.value for p in model.metadata_props}
    assert set(metadata) == {"geed.schema", "geed.input", "geed.taps", "geed.source"}
    assert metadata["geed.schema"] == "1"
    assert json.loads(metadata["geed.input"]) == {
        "name": "image", "layout": "NCHW", "size": [6, 6], "channels": 2, "range": [0, 1], "mean": [0.5, 0.5],
        "std": [0.2, 0.2], "fit": "crop", "resize": 8,
    }  # fmt: skip
    taps = json.loads(metadata["geed.taps"])
    assert taps[0] == {"name": "conv", "kind": "map", "layout": "NCHW", "module": "net.conv"}
    assert (taps[2]["role"], taps[2]["action"]) == ("latent", "trivial")
    assert json.loads(metadata["geed.source"])["weights"]["file"] == "w.npz"
    assert b"/home/someone" not in written.path.read_bytes()
    assert [p.key for p in model.graph.node[0].metadata_props] == ["pkg.torch.onnx.name_scopes"]


def test_what_is_written_is_measured_by_its_declared_taps(tmp_path: Path) -> None:
    written = write(EXPORT, tmp_path / "net.onnx")
    images = np.random.default_rng(1).random((4, 2, 6, 6)).astype(np.float32)
    results = measure(written.path, images, "C4", samples="all")
    assert [r.tap["name"] for r in results] == ["conv", "act", "pooled", "pooled", "pooled"]
    assert results[0].tap["module"] == "net.conv"


def spoilt(tap: str, by: float) -> Export:
    def wrong(x: Array) -> Mapping[str, Array]:
        found = dict(reference(x))
        found[tap] = found[tap] + by * np.abs(found[tap]).max()
        return found

    return replace(EXPORT, reference=wrong)


def test_a_file_that_differs_is_not_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(Differs, match=r"worst is 'act', by 1.0e-03 relative \(batch 1, at most 0.0001 allowed\)"):
        write(spoilt("act", 1e-3), path)
    assert list(tmp_path.iterdir()) == []
    write(EXPORT, path)
    before = path.read_bytes()
    with pytest.raises(Differs):
        write(spoilt("conv", 1.0), path)
    assert path.read_bytes() == before  # what was there stays
    assert write(spoilt("act", 1e-3), path, tolerance=1e-2).agreement is not None
    assert write(spoilt("act", 1.0), path, check=False).agreement is None


def test_nan_on_one_side_another_shape_and_a_missing_tap_are_differences(tmp_path: Path) -> None:
    def holes(x: Array) -> Mapping[str, Array]:
        found = {k: v.copy() for k, v in reference(x).items()}
        found["act"].flat[0] = np.nan
        return found

    cases = [
        (holes, "worst is 'act', by nan relative"),
        (lambda x: {**reference(x), "conv": reference(x)["conv"].mean(1)}, r"'conv' has shape \(1, 4, 6, 6\) in ONNX"),
        (lambda x: {"conv": reference(x)["conv"]}, "the framework's forward pass gave no 'act'"),
    ]
    for wrong, says in cases:
        with pytest.raises(Differs, match=says):
            write(replace(EXPORT, reference=wrong), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_is_fixed_inside_is_found_by_the_batch_of_three(tmp_path: Path) -> None:
    with pytest.raises(Differs, match="does not run in ONNX Runtime with a batch of 3"):
        write(replace(EXPORT, model=graph(batch=1)), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_one_file_lie_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LARGEST_SINGLE_FILE", 100)
    model = graph()
    large = np.zeros((4, 2, 3, 3), dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(np.tile(large, (10, 1, 1, 1)), "unused"))
    path = tmp_path / "net.onnx"
    write(replace(EXPORT, model=model), path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert len(measure(path, np.ones((3, 2, 6, 6), np.float32), "C4", taps=["act"], samples="all")) == 1


@pytest.mark.parametrize(
    ("export", "name", "says"),
    [
        (EXPORT, "net.pb", "expected a file name that ends in .onnx"),
        (replace(EXPORT, taps=(*TAPS, TapEntry("gone", "map", "NCHW", "gone"))), "a.onnx", "has no output 'gone'"),
        (replace(EXPORT, taps=(*TAPS, TAPS[0])), "a.onnx", "two taps share one name: conv"),
    ],
)
def test_what_cannot_be_written_is_said(export: Export, name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=says):
        write(export, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("action", "says"),
    [
        ({"group": "C4"}, "'act' cannot be used: the declared action: expected \"fields\""),
        ({"group": "C4", "fields": [{"type": "regular", "count": 2}]}, "are 8 channels, but the tap has 4"),
        ({"group": "C4", "fields": [{"type": "permutation", "generators": [[1, 2, 0]]}]}, "is no action of C4"),
    ],
)
def test_an_action_that_a_measurement_would_refuse_is_not_written(
    action: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=re.escape(says)):
        write(replace(EXPORT, taps=(TAPS[0], replace(TAPS[1], action=action))), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
    fits = {"group": "C4", "fields": [{"type": "regular"}]}
    assert write(replace(EXPORT, taps=(TAPS[0], replace(TAPS[1], action=fits))), tmp_path / "net.onnx").taps


def test_an_invalid_graph_and_a_folder_that_is_a_file_are_said(tmp_path: Path) -> None:
    broken = graph()
    broken.graph.node[1].input[0] = "nowhere"
    with pytest.raises(ExportError, match="the exported graph is no valid ONNX"):
        write(replace(EXPORT, model=broken), tmp_path / "net.onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        write(EXPORT, tmp_path / "file" / "net.onnx")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that cannot be written to")
def test_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ExportError, match="cannot be written"):
        write(EXPORT, tmp_path / "locked" / "net.onnx")


def test_relative_difference() -> None:
    a = np.array([1.0, -4.0, 0.0], np.float32)
    assert relative_difference(a, a) == 0
    assert relative_difference(a + np.float32(0.04), a) == pytest.approx(0.01, rel=1e-3)
    assert relative_difference(np.array([np.nan, 1]), np.array([np.nan, 1])) == 0
    assert np.isnan(relative_difference(np.array([np.nan, 1]), np.array([2.0, 1])))
    assert relative_difference(np.array([np.inf]), np.array([np.inf])) == 0
    assert relative_difference(np.zeros(3), np.zeros(3)) == 0


# ---- choosing ------------------------------------------------------------------------------------------------------


def resnet() -> list[Candidate]:
    found = [Candidate("conv1", (64, 16, 16)), Candidate("bn1", (64, 16, 16))]
    for stage, (count, width, size) in enumerate([(3, 64, 16), (4, 128, 8), (6, 256, 4), (3, 512, 2)], 1):
        for i in range(count):
            found.append(Candidate(f"layer{stage}.{i}.conv1", (width, size, size)))
            found.append(Candidate(f"layer{stage}.{i}", (width, size, size), block=True))
    return [*found, Candidate("pool", (512,), role="latent"), Candidate("fc", (10,), role="scores")]


def test_the_default_is_the_ends_of_stages_the_latent_and_the_scores() -> None:
    chosen = select(resnet())
    assert [c.module for c in chosen] == ["layer1.2", "layer2.3", "layer3.5", "layer4.2", "pool", "fc"]
    assert [c.role for c in chosen] == ["stage"] * 4 + ["latent", "scores"]
    assert [c.natural_kind for c in chosen] == ["map"] * 4 + ["vector", "probability"]


def test_few_blocks_are_all_taken_and_very_many_thinned_out_evenly() -> None:
    few = [Candidate(f"b{i}", (8, 4, 4), block=True) for i in range(5)]
    assert [c.module for c in select(few)] == [f"b{i}" for i in range(5)]
    many = [Candidate(f"b{i}", (8, 4, 4), block=True) for i in range(40)]
    chosen = [c.module for c in select(many)]
    assert len(chosen) == 12
    assert chosen[-1] == "b39"
    gaps = np.diff([int(m[1:]) for m in chosen])
    assert gaps.max() <= 5
    tokens = [Candidate(f"block{i}", (17, 32), block=True) for i in range(12)]
    assert len(select(tokens)) == 12
    assert {c.natural_kind for c in select(tokens)} == {"vector"}


def test_globs_name_modules_in_the_order_of_the_forward_pass() -> None:
    assert [c.module for c in select(resnet(), ["layer2.?", "conv1"])] == ["conv1", *(f"layer2.{i}" for i in range(4))]
    assert len(select(resnet(), ["*"])) == len(resnet())
    assert [c.module for c in select(resnet(), ["stages", "fc"])][-1] == "fc"
    own = [Candidate("latent", (4,)), Candidate("scores", (3,), role="scores")]
    assert [c.module for c in select(own, ["latent"])] == ["latent"]  # a module of that name goes first


def test_a_glob_that_meets_nothing_says_what_is_near() -> None:
    with pytest.raises(UnknownName, match=r"unknown module 'layer4\.3': did you mean 'layer4\.2'"):
        select(resnet(), ["layer4.3"])
    with pytest.raises(UsageError, match="--tap latent: this network has none"):
        select([Candidate("a", (3, 4, 4))], ["latent"])
    with pytest.raises(ExportError, match="nothing can be tapped"):
        select([])


def test_roles_of_what_has_no_blocks() -> None:
    plain = [Candidate("a", (3, 8, 8)), Candidate("b", (5,)), Candidate("c", (2,), role="scores")]
    assert default_roles(plain) == {"c": "scores", "a": "stage"}


# ---- models by name ------------------------------------------------------------------------------------------------


def test_names_are_taken_apart() -> None:
    named = parse_name("timm:resnet50.a1_in1k", ["timm"])
    assert (named.scheme, named.name, str(named)) == ("timm", "resnet50.a1_in1k", "timm:resnet50.a1_in1k")
    named = parse_name("some/where/net.py:build", ["timm"])
    assert (named.path, named.name, str(named)) == (Path("some/where/net.py"), "build", "net.py:build")
    for text in ("resnet50", "net.py", "timm:", ""):
        with pytest.raises(UsageError, match=r"expected timm:NAME, or FILE.py:FACTORY"):
            parse_name(text, ["timm"])
    with pytest.raises(UnknownName, match="unknown kind of model 'tim': did you mean 'timm'"):
        parse_name("tim:resnet50", ["timm"])


def test_factories_are_loaded_from_files_that_may_import_their_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("WIDTH = 7\n")
    (tmp_path / "net.py").write_text("from neighbour import WIDTH\n\ndef build():\n    return WIDTH\n")
    assert called(load_factory(tmp_path / "net.py", "build"), "build") == 7
    with pytest.raises(UnknownName, match="unknown function 'bild': did you mean 'build'"):
        load_factory(tmp_path / "net.py", "bild")
    with pytest.raises(ExportError, match=r"no such file; expected FILE\.py:FACTORY"):
        load_factory(tmp_path / "gone.py", "build")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    with pytest.raises(ExportError, match=r"bad.py fails when it is run: ZeroDivisionError: division by zero"):
        load_factory(tmp_path / "bad.py", "build")
    (tmp_path / "late.py").write_text("def build():\n    raise ValueError('no weights')\n")
    with pytest.raises(ExportError, match=r"late.build\(\) fails: ValueError: no weights"):
        called(load_factory(tmp_path / "late.py", "build"), "late.build")


def test_a_framework_that_is_missing_is_the_pip_line() -> None:
    with pytest.raises(MissingFramework, match=r"no_such_framework is not installed .*: pip install 'geed-onnx\[x\]'"):
        framework("no_such_framework", "pip install 'geed-onnx[x]'")
    assert framework("json", "") is json


# ---- the command line ----------------------------------------------------------------------------------------------


def test_help_needs_no_framework_and_shows_every_exporter() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0, result.output
    for name in main.commands:
        assert name in result.output
        own = CliRunner().invoke(main, [name, "-h"])
        assert own.exit_code == 0, own.output
        assert f"\n  geed-export {name} " in own.output  # an example
        shared = ["-o, --output", "--tap", "--list", "--verify", "--tolerance"]
        image = ["--size HxW", "--channels N", "--colour grey|rgb|bgr", "--range LO,HI", "--mean X", "--std X"]
        listed = own.output[own.output.index("Options:") :]
        places = [listed.index(f"\n  {option}") for option in (*shared, "--opset", *image)]
        assert places == sorted(places)  # shared, the framework's own, the image's


def test_an_unknown_framework_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["mxnet", "x"]).exit_code == 2
