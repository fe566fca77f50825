"""Models with taps as outputs: they run, change nothing, pass the checker, and keep what the file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_nets as nets
import onnxruntime as ort
import pytest

from geed_onnx.errors import UnknownName, UsageError
from geed_onnx.taps import choose_taps, exposed, graph_of, lost_centre, read_graph, save_exposed


def run(
    model: onnx.ModelProto | str, names: list[str] | None = None, plain: bool = False, **feed: Any
) -> dict[str, np.ndarray]:
    """The outputs; `plain`: of the graph as it is written, no node fused with another."""
    options = ort.SessionOptions()
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = model if isinstance(model, str) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    found = names or [o.name for o in session.get_outputs()]
    return dict(zip(found, session.run(found, feed), strict=True))


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "model",
    [
        nets.cnn(),
        nets.cnn(layout="NHWC"),
        nets.residual(),
        nets.with_if(),
        nets.cnn(opset=7, ir=3),
        nets.cnn(opset=25, ir=13),
    ],
    ids=["cnn", "nhwc", "residual", "if", "oldest", "newest"],
)
def test_exposing_changes_no_output(model: onnx.ModelProto) -> None:
    graph = graph_of(model)
    names = [t.name for t in choose_taps(graph)]
    x = images(3, *(n for n in graph.inputs[0].shape[1:] if isinstance(n, int)))
    cut = exposed(graph, names)
    assert [o.name for o in cut.graph.output] == names
    got = run(cut, x=x)
    whole = run(model, x=x)
    for name, value in run(model, plain=True, x=x).items():
        np.testing.assert_array_equal(run(cut, plain=True, x=x)[name], value)
        # what is drawn off may keep two nodes from being fused, which rounds otherwise on some processors
        np.testing.assert_allclose(got[name], whole[name], rtol=1e-6)
    for tap in choose_taps(graph):
        shape = got[tap.name].shape[1:]
        shape = (shape[2], *shape[:2]) if tap.layout == "NHWC" and tap.kind == "map" else shape
        assert shape == tap.shape


def test_exposed_is_cut_down_to_what_is_needed() -> None:
    model = nets.cnn(metadata={"k": "v"})
    cut = exposed(graph_of(model), ["block1"])
    assert [n.op_type for n in cut.graph.node] == ["Conv", "Relu"]
    assert {t.name for t in cut.graph.initializer} == {"w1", "b1"}
    assert (cut.metadata_props[0].key, cut.opset_import[0].version) == ("k", 17)
    assert len(model.graph.node) > 2  # the source is not touched
    assert [v.name for v in exposed(graph_of(nets.two_inputs()), ["map"]).graph.input] == ["image"]


def test_local_functions_are_kept() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "local": 1]>
      g (float[N,2,4,4] x) => (float[N,2,4,4] y) { m = local.twice(x) y = Relu(m) }
      <domain: "local", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) }"""
    cut = exposed(graph_of(onnx.parser.parse_model(text)), ["m"])
    assert len(cut.functions) == 1
    x = images(1, 2, 4, 4)
    np.testing.assert_array_equal(run(cut, x=x)["m"], 2 * x)


def test_names_are_checked() -> None:
    graph = graph_of(nets.with_if())
    with pytest.raises(UsageError, match="no tap is given"):
        exposed(graph, [])
    with pytest.raises(UnknownName, match="did you mean 'chosen'"):
        exposed(graph, ["chose"])
    with pytest.raises(UnknownName, match="bodies cannot be exposed"):
        exposed(graph, ["inside_Relu"])
    with pytest.raises(UsageError, match="given twice"):
        exposed(graph, ["map", "map"])


def test_a_fixed_batch_is_opened() -> None:
    graph = graph_of(nets.cnn(batch=1))
    opened = exposed(graph, ["block2", "scores"], batch="dynamic")
    x = images(3, 1, 29, 29)
    together = run(opened, x=x)
    kept = exposed(graph, ["block2", "scores"])
    for i in range(3):
        single = run(kept, x=x[i : i + 1])
        for name in single:
            np.testing.assert_allclose(together[name][i : i + 1], single[name], atol=1e-6)
    with pytest.raises(Exception, match=r"Got: 3 Expected: 1"):
        run(kept, x=x)


def test_a_baked_batch_mixes_images_silently_which_is_why_it_must_be_verified() -> None:
    graph = graph_of(nets.baked_batch())
    x = images(3, 1, 6, 6)
    opened = run(exposed(graph, ["mixed"], batch="dynamic"), x=x)["mixed"]
    single = np.concatenate([run(exposed(graph, ["mixed"]), x=x[i : i + 1])["mixed"] for i in range(3)])
    assert opened.shape == single.shape
    assert np.abs(opened - single).max() > 0.1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_saved_file_passes_the_checker_and_runs(tmp_path: Path, dtype: str) -> None:
    declared = [{"name": "block1", "kind": "map", "action": {"field": 2}}]
    model = nets.cnn(dtype=dtype, metadata={"geed.taps": json.dumps(declared), "other": "kept"})
    graph = graph_of(model)
    out = tmp_path / "sub" / "out.onnx"
    save_exposed(graph, ["block1", "block2", "latent"], out)
    onnx.checker.check_model(str(out), full_check=True)
    again = read_graph(out)
    assert [p.name for p in again.outputs] == ["scores", "block1", "block2", "latent"]
    assert {p.dtype for p in again.outputs} == {dtype}
    assert again.outputs[2].shape == ("N", 8, 15, 15)
    assert again.metadata["other"] == "kept"
    taps = json.loads(again.metadata["geed.taps"])
    assert [t["name"] for t in taps] == ["block1", "block2", "latent"]
    assert taps[0]["action"] == {"field": 2}
    assert [(t.name, t.role) for t in choose_taps(again)] == [
        ("block1", "stage"), ("block2", "stage"), ("latent", "latent"),
    ]  # fmt: skip
    x = images(2, 1, 29, 29).astype(dtype)
    # the CPU computes float16 in float32 from cast to cast, and rounds where a tensor is looked at
    tolerance = 1e-3 if dtype == "float16" else 0.0
    np.testing.assert_allclose(run(str(out), x=x)["scores"], run(model, x=x)["scores"], rtol=0, atol=tolerance)


def test_external_data_goes_along(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    graph = read_graph(nets.external(tmp_path / "a" / "m.onnx"))
    x = images(2, 1, 29, 29)
    expected = run(str(graph.path), x=x)["scores"]
    save_exposed(graph, ["latent"], tmp_path / "b" / "copy.onnx")
    assert (tmp_path / "b" / "copy.onnx.data").is_file()
    save_exposed(graph, ["latent"], tmp_path / "a" / "beside.onnx")
    assert not (tmp_path / "a" / "beside.onnx.data").exists()
    for path in (tmp_path / "b" / "copy.onnx", tmp_path / "a" / "beside.onnx"):
        got = run(str(path), x=x)
        np.testing.assert_array_equal(got["scores"], expected)
        assert got["latent"].shape == (2, 8)
    with pytest.raises(UsageError, match="choose another output"):
        save_exposed(graph, ["latent"], tmp_path / "a" / "m.onnx.data")
    cut = exposed(graph, ["latent"])
    options = ort.SessionOptions()
    key = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(key, str(graph.path.parent))
    session = ort.InferenceSession(cut.SerializeToString(), options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], got["latent"])


# ---- the centre of the sampling grid -------------------------------------------------------------------------------


def one(op: str, size: int, **attributes: Any) -> onnx.ModelProto:
    net = nets.Net(0)
    kernel = attributes.get("kernel_shape", [1, 1])
    weights = [net.weight("w", 1, 1, *kernel)] if op in ("Conv", "ConvTranspose") else []
    net.add(op, ["x", *weights], "y", **attributes)
    return net.done([("x", ["N", 1, size, size])], [("y", ["N", 1, None, None])], opset=18)


@pytest.mark.parametrize(
    ("op", "size", "attributes"),
    [
        ("Conv", 28, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
        ("Conv", 29, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
        ("Conv", 32, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("Conv", 33, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("Conv", 32, {"kernel_shape": [2, 2], "strides": [1, 1], "auto_pad": "SAME_LOWER"}),
        ("Conv", 30, {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 2, 2]}),
        ("Conv", 31, {"kernel_shape": [3, 3], "strides": [2, 2], "dilations": [2, 2]}),
        ("MaxPool", 28, {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("MaxPool", 29, {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("MaxPool", 28, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("MaxPool", 29, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("AveragePool", 30, {"kernel_shape": [3, 3], "strides": [3, 3]}),
        ("ConvTranspose", 7, {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("ConvTranspose", 7, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]}),
    ],
)
def test_an_obstacle_is_named_exactly_where_quarter_turns_do_not_commute(op: str, size: int, attributes: dict) -> None:
    """The oracle: with a kernel that is symmetric itself, the op commutes with np.rot90 or it does not."""
    model = one(op, size, **attributes)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones(tuple(tensor.dims), np.float32), tensor.name))
    x = images(1, 1, size, size)
    straight, turned = run(model, x=x)["y"], run(model, x=np.rot90(x, axes=(2, 3)).copy())["y"]
    exact = np.allclose(np.rot90(straight, axes=(2, 3)), turned, atol=1e-5)
    found = lost_centre(graph_of(model))
    assert (not found) == exact, found
    if found and found[0].exact_sizes:
        nearest = min(found[0].exact_sizes, key=lambda n: abs(n - size))
        assert lost_centre(graph_of(one(op, nearest, **attributes))) == ()
        assert found[0].size == (size, size)


def test_slices_and_pads_off_centre_are_named() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N,1,8,8] x) => (float[N,1,a,b] y) {
      p = AveragePool<kernel_shape = [1, 1]>(x)
      starts = Constant<value_ints = [0, 0]>() ends = Constant<value_ints = [100, 100]>()
      axes = Constant<value_ints = [2, 3]>() steps = Constant<value_ints = [2, 2]>()
      s = Slice(p, starts, ends, axes, steps)
      pads = Constant<value_ints = [0, 0, 0, 0, 0, 0, 1, 1]>() y = Pad(s, pads) }"""
    found = lost_centre(graph_of(onnx.parser.parse_model(text)))
    assert [o.op for o in found] == ["Slice", "Slice", "Pad"]
    assert found[0].exact_sizes == (1, 3, 5, 7, 9, 11, 13, 15)


def test_an_open_size_says_what_to_add() -> None:
    model = one("MaxPool", 8, kernel_shape=[2, 2], strides=[2, 2])
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "open"
    assert "with sizes" in lost_centre(graph_of(model))[0].why
    assert lost_centre(graph_of(model, sizes={"x": (1, 1, 8, 8)})) == ()
