"""Reading, listing, classifying, choosing and resolving taps, on small nets made for the purpose."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_nets as nets
import pytest
from onnx import TensorProto, helper, parser

from geed_onnx.errors import ModelError, UnknownName, UsageError
from geed_onnx.taps import choose_taps, file_sha256, graph_of, image_input, list_taps, read_graph, resolve_taps
from geed_onnx.taps.folding import evaluate


def chosen(model: onnx.ModelProto, **options: object) -> list[tuple[str, str | None, str]]:
    return [(t.name, t.role, t.kind) for t in choose_taps(graph_of(model, **options))]


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def parsed(text: str, producer: str = "") -> onnx.ModelProto:
    model = parser.parse_model(text)
    model.producer_name = producer
    return model


# ---- reading -------------------------------------------------------------------------------------------------------


def test_reading_tells_what_the_file_says(tmp_path: Path) -> None:
    graph = read_graph(save(nets.cnn(dtype="float16", metadata={"k": "v"}), tmp_path / "m.onnx"))
    assert (graph.producer, graph.ir, graph.opset, graph.metadata["k"]) == ("onnx_nets", 8, 17, "v")
    port = image_input(graph)
    assert (port.name, port.dtype, port.shape, port.layout) == ("x", "float16", ("N", 1, 29, 29), "NCHW")
    assert [(p.name, p.shape) for p in graph.outputs] == [("scores", ("N", 9))]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("dir", "is a directory"),
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"hello, I am no model", "no ONNX file"),
        (bytes(range(256)) * 8, "no ONNX file"),
        ("truncated", "truncated"),
        ("newer", "IR version 99"),
        ("opset", "opset 999"),
    ],
)
def test_every_bad_file_is_one_clear_line(tmp_path: Path, content: object, says: str) -> None:
    path = tmp_path / "m.onnx"
    model = nets.cnn()
    if content == "dir":
        path.mkdir()
    elif content == "truncated":
        path.write_bytes(model.SerializeToString()[:700])
    elif content == "newer":
        model.ir_version = 99
        save(model, path)
    elif content == "opset":
        model.opset_import[0].version = 999
        save(model, path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        read_graph(path)
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_external_weights_are_found_hashed_and_not_loaded(tmp_path: Path) -> None:
    path = nets.external(tmp_path / "big.onnx")
    graph = read_graph(path)
    data = tmp_path / "big.onnx.data"
    assert graph.external == (data,)
    assert not any(t.raw_data for t in graph.model.graph.initializer)
    assert file_sha256(graph) == hashlib.sha256(path.read_bytes() + data.read_bytes()).hexdigest()
    assert [t.name for t in choose_taps(graph)] == ["block1", "block2", "latent", "scores"]
    before = file_sha256(graph)
    data.write_bytes(data.read_bytes()[:-1] + b"\x7f")
    assert file_sha256(graph) != before
    data.unlink()
    with pytest.raises(ModelError, match=r"big\.onnx\.data.*not beside it"):
        read_graph(path)


def test_external_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    model = onnx.load(nets.external(tmp_path / "m.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "../elsewhere.data"
    with pytest.raises(ModelError, match="outside its own folder"):
        graph_of(model, path=tmp_path / "m.onnx")


def test_initialisers_listed_as_inputs_are_no_inputs() -> None:
    model = nets.cnn(ir=3, opset=7, dtype="float16", batch=1)
    assert len(model.graph.input) > 1
    graph = graph_of(model)
    assert [p.name for p in graph.inputs] == ["x"]
    assert image_input(graph).name == "x"


def test_image_input_is_the_only_candidate_or_the_named_one() -> None:
    graph = graph_of(nets.two_inputs())
    assert image_input(graph).name == "image"
    assert image_input(graph, "gain").shape == ("N", 1)
    with pytest.raises(UnknownName, match="did you mean 'image'"):
        image_input(graph, "imagee")
    with pytest.raises(UsageError, match=r"image, image2.*--input NAME"):
        image_input(graph_of(nets.two_inputs(images=2)))
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N,4] v) => (float[N,4] y) { y = Relu(v) }'
    with pytest.raises(ModelError, match=r"no input of rank 4.*v float32\[N, 4\]"):
        image_input(graph_of(parsed(text)))


def test_taps_depend_on_the_named_input() -> None:
    graph = graph_of(nets.two_inputs(images=2))
    assert "map" not in {t.name for t in list_taps(graph, input="image2")}
    assert {"map", "both"} <= {t.name for t in list_taps(graph, input="image")}


def test_stale_shapes_in_the_file_are_not_believed() -> None:
    model = nets.cnn()
    model.graph.value_info.append(helper.make_tensor_value_info("block1", TensorProto.FLOAT, ["N", 7, 3]))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 77
    taps = {t.name: t.shape for t in choose_taps(graph_of(model))}
    assert taps == {"block1": (4, 29, 29), "block2": (8, 15, 15), "latent": (8,), "scores": (9,)}


def test_written_shapes_fill_what_inference_cannot_know() -> None:
    model = nets.cnn()
    model.graph.node[1].domain = "my.domain"
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    model.graph.value_info.append(helper.make_tensor_value_info("block1", TensorProto.FLOAT, ["N", 4, 29, 29]))
    assert [t.name for t in choose_taps(graph_of(model))] == ["block1", "block2", "latent", "scores"]


def test_sizes_bind_open_axes_and_are_checked() -> None:
    model = nets.cnn()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "?"
    open_maps = {t.name: t.shape for t in list_taps(graph_of(model)) if t.kind == "map"}
    assert open_maps["block2"] == (8, None, None)
    bound = {t.name: t.shape for t in list_taps(graph_of(model, sizes={"x": (1, 1, 31, 17)}))}
    assert bound["block2"] == (8, 16, 9)
    with pytest.raises(UsageError, match="does not fit"):
        graph_of(model, sizes={"x": (1, 3, 31, 17)})
    with pytest.raises(UnknownName, match="did you mean"):
        graph_of(model, sizes={"xx": (1, 1, 31, 17)})


# ---- layout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_layout_follows_transposes_both_ways(layout: str) -> None:
    graph = graph_of(nets.cnn(layout=layout))
    taps = {t.name: t for t in list_taps(graph)}
    assert image_input(graph).layout == layout
    assert taps["block1"].layout == taps["block2"].layout == layout
    assert taps["conv2"].layout == "NCHW"
    assert taps["block2"].shape == (8, 15, 15)


HEAD = '<ir_version: 8, opset_import: ["": 17]>'


def layout_of(
    body: str, shape: str, output: str, producer: str = "", metadata: dict[str, str] | None = None
) -> str | None:
    model = parsed(f"{HEAD} g (float[{shape}] x) => ({output}) {{ {body} }}", producer)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    return image_input(graph_of(model)).layout


def test_a_reshape_that_moves_a_channel_of_one_is_a_transpose() -> None:
    body = "s = Constant<value_ints = [-1, 1, 49, 10]>() r = Reshape(x, s) y = GlobalAveragePool(r)"
    assert layout_of(body, "N,49,10,1", "float[N,1,1,1] y") == "NHWC"


def test_a_channel_shuffle_keeps_the_layout() -> None:
    body = """
      s = Constant<value_ints = [-1, 2, 3, 5, 5]>() r = Reshape(x, s) t = Transpose<perm = [0, 2, 1, 3, 4]>(r)
      u = Constant<value_ints = [-1, 6, 5, 5]>() v = Reshape(t, u) y = GlobalAveragePool(v)"""
    assert layout_of(body, "N,6,5,5", "float[N,6,1,1] y") == "NCHW"


def test_a_pixel_shuffle_keeps_the_layout() -> None:
    body = """
      p = AveragePool<kernel_shape = [1, 1]>(x) s = Constant<value_ints = [-1, 1, 3, 3, 8, 8]>() r = Reshape(p, s)
      t = Transpose<perm = [0, 1, 4, 2, 5, 3]>(r) u = Constant<value_ints = [-1, 1, 24, 24]>() y = Reshape(t, u)"""
    graph = graph_of(parsed(f"{HEAD} g (float[N,9,8,8] x) => (float[N,1,24,24] y) {{ {body} }}"))
    assert graph.outputs[0].layout == "NCHW"


@pytest.mark.parametrize(
    ("body", "output", "layout"),
    [
        ("w = Constant<value = float[3, 2] {1,2,3,4,5,6}>() y = MatMul(x, w)", "float[N,7,9,2] y", "NHWC"),
        ("b = Constant<value_floats = [1.0, 2.0, 3.0]>() y = Add(x, b)", "float[N,7,9,3] y", "NHWC"),
        ("b = Constant<value = float[7, 1, 1] {1,2,3,4,5,6,7}>() y = Sub(x, b)", "float[N,7,9,3] y", "NCHW"),
        ("y = ReduceMean<axes = [1, 2], keepdims = 0>(x)", "float[N,3] y", "NHWC"),
        ("y = ReduceMean<axes = [2, 3], keepdims = 0>(x)", "float[N,7] y", "NCHW"),
        ("y = Relu(x)", "float[N,7,9,3] y", None),
        ("y = Flatten(x)", "float[N,189] y", None),
    ],
)
def test_what_treats_an_axis_as_the_channel_tells_and_sizes_do_not(body: str, output: str, layout: str | None) -> None:
    assert layout_of(body, "N,7,9,3", output) == layout


def test_the_framework_tells_only_where_no_node_does() -> None:
    assert layout_of("y = Flatten(x)", "N,7,9,3", "float[N,189] y", "tf2onnx") == "NHWC"
    assert layout_of("y = Flatten(x)", "N,7,9,3", "float[N,189] y", "pytorch") == "NCHW"
    assert layout_of("y = GlobalAveragePool(x)", "N,7,9,3", "float[N,7,1,1] y", "tf2onnx") == "NCHW"


def test_metadata_wins_and_a_contradiction_is_undetermined() -> None:
    pool = "y = GlobalAveragePool(x)"
    declared = {"geed.input": json.dumps({"layout": "NHWC"})}
    assert layout_of(pool, "N,7,9,3", "float[N,7,1,1] y", metadata=declared) == "NHWC"
    both = (
        "a = Transpose<perm = [0, 3, 1, 2]>(x) b = AveragePool<kernel_shape = [1, 1]>(a) "
        "z = Relu(x) y = AveragePool<kernel_shape = [1, 1]>(z)"
    )
    assert layout_of(both, "N,5,5,5", "float[N,5,5,5] y, float[N,5,5,5] b") is None


# ---- kinds ---------------------------------------------------------------------------------------------------------


def test_kinds_shapes_and_roles_of_a_classifier() -> None:
    taps = {t.name: t for t in list_taps(graph_of(nets.cnn()))}
    assert [taps[n].kind for n in ("block1", "pooled", "latent", "logits", "scores")] == [
        "map", "vector", "vector", "probability", "probability",
    ]  # fmt: skip
    assert (taps["pooled"].shape, taps["pooled"].rank, taps["latent"].shape) == ((8,), 4, (8,))
    assert (taps["logits"].logits, taps["scores"].logits) == (True, False)
    assert [taps[n].role for n in ("block1", "latent", "scores", "logits", "conv1")] == [
        "stage", "latent", "scores", None, None,
    ]  # fmt: skip
    assert "w1" not in taps
    assert "x" not in taps


def test_logits_are_the_scores_where_there_is_no_softmax() -> None:
    tap = choose_taps(graph_of(nets.cnn(softmax=False)))[-1]
    assert (tap.name, tap.kind, tap.role, tap.logits) == ("logits", "probability", "scores", True)


@pytest.mark.parametrize(
    ("op", "kind", "logits", "flags"),
    [
        ("LogSoftmax<axis = 1>", "probability", True, ()),
        ("Sigmoid", "probability", None, ("sigmoid",)),
        ("Tanh", "vector", None, ()),
    ],
)
def test_what_ends_the_classifier(op: str, kind: str, logits: bool | None, flags: tuple[str, ...]) -> None:
    w = ",".join("1" for _ in range(12))
    body = f"f = Flatten(x) w = Constant<value = float[4, 3] {{{w}}}>() l = MatMul(f, w) y = {op}(l)"
    tap = list_taps(graph_of(parsed(f"{HEAD} g (float[N,1,2,2] x) => (float[N,3] y) {{ {body} }}")))[-1]
    assert (tap.name, tap.kind, tap.logits, tap.flags) == ("y", kind, logits, flags)


def test_one_class_is_a_vector_and_attention_no_class_score() -> None:
    w = ",".join("1" for _ in range(4))
    body = f"""
      s = Constant<value_ints = [-1, 2, 2]>() q = Reshape(x, s) t = Transpose<perm = [0, 2, 1]>(q) a = MatMul(q, t)
      p = Softmax<axis = -1>(a) v = MatMul(p, q) f = Flatten(v)
      w = Constant<value = float[4, 1] {{{w}}}>() l = MatMul(f, w) y = Sigmoid(l)"""
    taps = {
        t.name: t for t in list_taps(graph_of(parsed(f"{HEAD} g (float[N,1,2,2] x) => (float[N,1] y) {{ {body} }}")))
    }
    assert taps["p"].kind == "vector"
    assert taps["y"].kind == "vector"
    assert taps["f"].role == "latent"


def test_a_tensor_whose_first_axis_is_not_the_batch_is_flagged_and_not_chosen() -> None:
    body = "p = AveragePool<kernel_shape = [1, 1]>(x) t = Transpose<perm = [1, 0, 2, 3]>(p) y = Relu(t)"
    graph = graph_of(parsed(f"{HEAD} g (float[N,3,4,4] x) => (float[3,N,4,4] y) {{ {body} }}"))
    flags = {t.name: t.flags for t in list_taps(graph)}
    assert flags == {"p": (), "t": ("batch-not-first",), "y": ("batch-not-first",)}
    assert [t.name for t in choose_taps(graph)] == ["p"]


def test_outputs_of_if_are_taps_and_bodies_are_left_alone() -> None:
    names = [t.name for t in list_taps(graph_of(nets.with_if()))]
    assert "chosen" in names
    assert "y" in names
    assert not [n for n in names if n.startswith("inside")]


def test_folded_batch_norm_is_flagged_with_its_evidence() -> None:
    folded = {t.name: t.flags for t in list_taps(graph_of(nets.residual(folded=True)))}
    assert folded["stem_bn"] == ("folded-batch-norm: the node lies in a batch norm's scope",)
    written = [t for t in list_taps(graph_of(nets.residual(folded=False))) if t.flags]
    assert written == []


# ---- the default choice --------------------------------------------------------------------------------------------


def test_stage_ends_are_blocks_behind_their_activation() -> None:
    expected = [("stem", "stage", "map"), ("layer1_out", "stage", "map"), ("layer2_out", "stage", "map"),
                ("latent", "latent", "vector"), ("logits", "scores", "probability")]  # fmt: skip
    assert chosen(nets.residual()) == expected
    assert chosen(nets.residual(folded=True)) == expected
    assert [n for n, *_ in chosen(nets.cnn(layout="NHWC"))] == ["block1", "block2", "latent", "scores"]


def test_at_most_twelve_maps_and_always_the_last() -> None:
    model = nets.cnn(size=65, channels=(2,) * 20)
    graph = graph_of(model)
    maps = [t for t in choose_taps(graph) if t.kind == "map"]
    every = [t for t in list_taps(graph) if t.kind == "map" and t.op == "Relu"]
    assert len(maps) == 7  # the strides end at 1x1, which is a vector
    deep = nets.Net(0)
    x = "x"
    for i in range(20):
        x = deep.add("Relu", [deep.add("Conv", [x, deep.weight(f"w{i}", 1, 1, 3, 3)], f"c{i}", pads=[1] * 4)], f"r{i}")
    many = choose_taps(graph_of(deep.done([("x", ["N", 1, 8, 8])], [(x, ["N", 1, 8, 8])])))
    assert len(many) == 12
    assert many[-1].name == "r19"
    assert every[0].name == "block1"


def test_declared_taps_are_the_default_and_win() -> None:
    action = {"field": 8, "channels": [1, 0]}
    taps = [
        {"name": "conv1", "kind": "map", "layout": "NCHW", "module": "stem.conv", "action": action},
        {"name": "latent", "kind": "probability", "layout": None, "module": None},
        {"name": "pooled", "kind": "map"},
        {"name": "logits", "kind": "map"},
        {"name": "gone", "kind": "map"},
    ]
    graph = graph_of(nets.cnn(metadata={"geed.taps": json.dumps(taps)}))
    found = choose_taps(graph)
    assert [(t.name, t.kind, t.module) for t in found] == [
        ("conv1", "map", "stem.conv"),
        ("pooled", "map", None),
        ("latent", "probability", None),
        ("logits", "probability", None),  # rank 2: no map, whatever the file says
    ]
    assert found[0].action == action
    assert resolve_taps(graph, ["stem.conv"])[0].name == "conv1"


def test_unreadable_metadata_is_no_obstacle() -> None:
    graph = graph_of(nets.cnn(metadata={"geed.taps": "{not json", "geed.input": "[]"}))
    assert [t.name for t in choose_taps(graph)] == ["block1", "block2", "latent", "scores"]


def test_nets_without_weights_maps_or_known_ops_still_give_something() -> None:
    assert chosen(nets.identity_map()) == [("y", "stage", "map")]
    assert chosen(nets.linear_head()) == [("flat", "latent", "vector"), ("logits", "scores", "probability")]
    model = nets.cnn()
    model.graph.node[1].domain = "my.domain"
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    assert "block1" not in {t.name for t in choose_taps(graph_of(model))}  # its shape is not known any more


def test_unet_gives_every_resolution() -> None:
    net = nets.Net(0)

    def conv(x: str, name: str, before: int) -> str:
        return net.add(
            "Relu", [net.add("Conv", [x, net.weight(f"{name}.w", 2, before, 3, 3)], f"{name}c", pads=[1] * 4)], name
        )

    top = conv("x", "enc", 1)
    low = conv(net.add("MaxPool", [top], "pool", kernel_shape=[2, 2], strides=[2, 2]), "bottom", 2)
    up = net.add("ConvTranspose", [low, net.weight("u", 2, 2, 2, 2)], "up", strides=[2, 2])
    net.add("Conv", [conv(net.add("Concat", [up, top], "cat", axis=1), "dec", 4), net.weight("o", 1, 2, 1, 1)], "y")
    taps = choose_taps(graph_of(net.done([("x", ["N", 1, 16, 16])], [("y", ["N", 1, 16, 16])])))
    assert {t.shape[1:] for t in taps} == {(16, 16), (8, 8)}
    assert taps[-1].name == "y"


@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (9, 4), (13, 7), (18, 8), (21, 10), (25, 13)])
def test_opsets_and_ir_versions(opset: int, ir: int) -> None:
    graph = graph_of(nets.cnn(opset=opset, ir=ir))
    assert [t.name for t in choose_taps(graph)] == ["block1", "block2", "latent", "scores"]


def test_local_functions_are_looked_into_and_left_whole() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "local": 1]>
      g (float[N,2,4,4] x) => (float[N,2,1,1] y) { m = local.block(x) r = Relu(m) y = GlobalMaxPool(r) }
      <domain: "local", opset_import: ["": 17]> block (a) => (b)
      { inner = Transpose<perm = [0, 1, 2, 3]>(a) b = AveragePool<kernel_shape = [1, 1]>(inner) }"""
    graph = graph_of(parsed(text))
    assert [t.name for t in list_taps(graph)] == ["m", "r", "y"]
    assert image_input(graph).layout == "NCHW"


def test_nodes_out_of_order_and_without_names_are_read() -> None:
    model = nets.cnn()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert [t.name for t in choose_taps(graph_of(model))] == ["block1", "block2", "latent", "scores"]


def test_weights_as_constant_nodes_are_constants() -> None:
    model = nets.cnn()
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes += list(model.graph.node)
    del model.graph.initializer[:]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert [t.name for t in choose_taps(graph_of(model))] == ["block1", "block2", "latent", "scores"]


def test_five_hundred_nodes_take_less_than_a_second() -> None:
    net, x = nets.Net(0), "x"
    for i in range(250):
        x = net.add("Relu", [net.add("Conv", [x, net.weight(f"w{i}", 1, 1, 3, 3)], f"c{i}", pads=[1] * 4)], f"r{i}")
    graph = graph_of(net.done([("x", ["N", 1, 8, 8])], [(x, ["N", 1, 8, 8])]))
    start = time.process_time()
    assert len(list_taps(graph)) == 500
    assert len(choose_taps(graph)) == 12
    assert time.process_time() - start < 1


# ---- names ---------------------------------------------------------------------------------------------------------


def test_names_modules_globs_and_kinds_resolve() -> None:
    graph = graph_of(nets.residual())

    def names(*specs: str) -> list[str]:
        return [t.name for t in resolve_taps(graph, specs)]

    assert names("stem_conv", "logits") == ["stem_conv", "logits"]
    assert names("layer1", "layer1.bn", "fc") == ["layer1_out", "layer1_bn", "logits"]
    assert names("layer?_out") == ["layer1_out", "layer2_out"]
    assert names("*.conv") == ["layer1_conv", "layer2_conv"]
    assert names("layer*", "layer1_out").count("layer1_out") == 1
    flat = resolve_taps(graph, ["layer1:vector"])[0]
    assert (flat.kind, flat.shape) == ("vector", (4, 16, 16))
    assert resolve_taps(graph, ["pooled:map"])[0].shape == (4, 1, 1)


def test_only_a_kind_counts_after_the_last_colon() -> None:
    model = nets.cnn()
    for node in model.graph.node:
        node.input[:] = ["net/relu:0" if n == "block1" else n for n in node.input]
        node.output[:] = ["net/relu:0" if n == "block1" else n for n in node.output]
    graph = graph_of(model)
    assert resolve_taps(graph, ["net/relu:0"])[0].kind == "map"
    assert resolve_taps(graph, ["net/relu:0:vector"])[0].kind == "vector"
    with pytest.raises(UnknownName, match=re.escape("did you mean 'net/relu:0'")):
        resolve_taps(graph, ["net/relu:1"])


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("blok1", UnknownName, "did you mean 'block1'"),
        ("nothing*", UnknownName, "unknown tap"),
        ("latent:map", UsageError, "a map has rank 4"),
        ("block1:probability", UsageError, "class scores have rank 2 or 3"),
        ("x", UsageError, "is an input of the model"),
        ("w1", UsageError, "is a constant"),
    ],
)
def test_what_cannot_be_tapped_says_why(spec: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as raised:
        resolve_taps(graph_of(nets.cnn()), [spec])
    assert says in str(raised.value)


def test_one_tensor_with_two_kinds_is_refused() -> None:
    with pytest.raises(UsageError, match="as map and as vector"):
        resolve_taps(graph_of(nets.cnn()), ["block1:map", "block1:vector"])


def test_unknown_rank_needs_a_kind() -> None:
    model = nets.cnn()
    model.graph.node[1].domain = "my.domain"  # block1 now comes from an op nobody knows
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    graph = graph_of(model)
    tap = resolve_taps(graph, ["block1:map"])[0]
    assert (tap.kind, tap.shape, tap.rank) == ("map", (), 0)
    with pytest.raises(UsageError, match="say what it is"):
        resolve_taps(graph, ["block1"])


@pytest.mark.parametrize(
    ("name", "producer", "path"),
    [
        ("/layers/layers.0/conv1/Conv_output_0", "pytorch", "layers.0.conv1"),
        ("/layer1/Relu_output_0", "pytorch", "layer1"),
        ("StatefulPartitionedCall/model/conv2d/Relu:0", "tf2onnx", "model/conv2d"),
    ],
)
def test_module_paths_in_tensor_names(name: str, producer: str, path: str) -> None:
    model = nets.cnn()
    model.producer_name = producer
    for node in model.graph.node:
        node.input[:] = [name if n == "block1" else n for n in node.input]
        node.output[:] = [name if n == "block1" else n for n in node.output]
    graph = graph_of(model)
    tap = resolve_taps(graph, [path])[0]
    assert (tap.name, tap.module) == (name, path)


def test_types_that_are_no_activations_are_not_listed() -> None:
    body = "s = Shape(x) c = Cast<to = 1>(s) i = Cast<to = 3>(x) f = Cast<to = 1>(i) y = Relu(f)"
    graph = graph_of(parsed(f"{HEAD} g (float[N,1,2,2] x) => (float[N,1,2,2] y, float[4] c) {{ {body} }}"))
    assert [t.name for t in list_taps(graph)] == ["f", "y"]
    assert graph.index.values["i"].dtype == TensorProto.INT8


def test_package_imports_neither_runtime_nor_siblings() -> None:
    code = "import sys, geed_onnx.taps; print(sorted(m for m in sys.modules if m.startswith(('onnxr', 'geed_o'))))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {m.split(".")[1] for m in re.findall(r"'(geed_onnx\.\w+)", shown)}
    assert loaded <= {"errors", "registry", "taps"}
    assert "onnxruntime" not in shown


def test_one_tensor_may_be_several_inputs_of_shape_arithmetic() -> None:
    one, five = np.array(1, np.int64), np.array(5, np.int64)
    found = evaluate(helper.make_node("Range", ["one", "n", "one"], ["y"]), [one, five, one], None, 17)
    assert found is not None
    assert found.tolist() == [1, 2, 3, 4]


def test_shape_arithmetic_that_would_be_large_is_not_computed() -> None:
    axes = [np.ones(shape, np.int64) for shape in ((512, 1, 1), (512, 1), (512,))]
    node = helper.make_node("Where", ["c", "a", "b"], ["y"])
    assert evaluate(node, [axes[0].astype(bool), *axes[1:]], None, 17) is None
