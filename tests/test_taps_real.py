"""The files of other people: layout, default choice, and that exposing it changes no output."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
import pytest

from geed_onnx.taps import choose_taps, exposed, image_input, image_inputs, list_taps, lost_centre, read_graph
from geed_onnx.taps.graph import Graph

FOLDER = Path(__file__).resolve().parents[1] / ".." / "shared" / "models-real"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/models-real is not there: no real files to read")


class Real(NamedTuple):
    name: str
    layout: str | None
    maps: int
    latent: str | None
    scores: str | None
    size: tuple[int, int] = (0, 0)  # for files with open height and width


FILES = [
    Real("cifar10_cnn_winml_pytorch1.7", "NCHW", 4, "45", "modelOutput"),
    Real("cifar_resnet20_dynamo", "NCHW", 10, "mean", "logits"),
    Real("cifar_resnet20_torchscript", "NCHW", 10, "/ReduceMean_output_0", "logits"),
    Real("deeplabv3_mnv2_voc_nhwc", "NHWC", 12, None, None),
    Real("imagenet_squeezenet1.x_fp16", "NCHW", 12, None, "softmaxout_1"),
    Real("light_resnet50", "NCHW", 5, "r173", "gpu_0/softmax_1"),
    Real("mesonet_deepfake_nhwc_tf2onnx", "NHWC", 4, "model/leaky_re_lu/LeakyRelu:0", "dense_1"),
    Real("mlperftiny_kws_dscnn_tf2onnx", "NHWC", 9, "functional_1/flatten/Reshape", "Identity"),
    Real("mlperftiny_resnet8_cifar10_tf2onnx", "NHWC", 4, "model/flatten/Reshape:0", "dense"),
    Real("mlperftiny_resnet8_int8qdq_tf2onnx", "NHWC", 4, "model/flatten/Reshape_dequant", "Identity_int8_prequant"),
    Real("mnist8_cntk", "NCHW", 2, "Pooling160_Output_0_reshape0", "Plus214_Output_0"),
    Real("mnist_convbn_pytorch2", "NCHW", 3, "/Relu_3_output_0", "33"),
    Real("mnist_djl_java_opset15", "NCHW", 3, "T102", "T112"),
    Real("mnist_selfattention_tf2onnx", "NHWC", 0, "model/flatten_1/Reshape:0", "dense_1"),
    Real("ppocr_v2_angle_cls_paddle2onnx", "NCHW", 12, "reshape2_0.tmp_0", "softmax_0.tmp_0", (48, 192)),
    Real("rednn16_RRT", "NCHW", 1, "hidr", "number"),
    Real("road_seg_adas0001_nhwc", "NHWC", 10, None, None),
    Real("sci_lowlight_180x320", "NCHW", 3, None, None),
    Real("scrfd_500m_bnkps", "NCHW", 7, None, None, (64, 64)),
    Real("silero_vad_16k_op15", None, 0, None, None),
    Real("superres_espcn_x3", "NCHW", 4, None, None),
    Real("ultraface_rfb320", "NCHW", 8, None, None),
    Real("unet_sediment_grain_1ch", "NCHW", 6, None, None),
    Real("yolox_nano", "NCHW", 7, None, None),
]
IDS = [f.name for f in FILES]


def opened(real: Real) -> Graph:
    path = FOLDER / f"{real.name}.onnx"
    if not real.size[0]:
        return read_graph(path)
    return read_graph(path, sizes={image_input(read_graph(path)).name: (1, 3, *real.size)})


def test_every_file_is_listed_here() -> None:
    assert {p.stem for p in FOLDER.glob("*.onnx")} == set(IDS)


@pytest.mark.parametrize("real", FILES, ids=IDS)
def test_layout_and_default_choice(real: Real) -> None:
    graph = opened(real)
    ports = image_inputs(graph)
    assert [p.layout for p in ports] == ([real.layout] if real.layout else [])
    taps = choose_taps(graph)
    by_role = {role: [t for t in taps if t.role == role] for role in ("stage", "latent", "scores")}
    assert len(by_role["stage"]) == real.maps
    assert all(t.kind == "map" and t.layout for t in by_role["stage"])
    if real.layout:
        assert [t.name for t in by_role["latent"]] == ([real.latent] if real.latent else [])
    assert [t.name for t in by_role["scores"]] == ([real.scores] if real.scores else [])
    one_class = real.name.startswith("mesonet")
    assert all(t.kind == ("vector" if one_class else "probability") for t in by_role["scores"])
    assert len(list_taps(graph)) >= len(taps)
    lost_centre(graph)


def feed(graph: Graph, real: Real) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    given = {}
    for port in graph.inputs:
        shape = [n if isinstance(n, int) else 1 for n in port.shape]
        if real.size[0]:
            shape = [1, 3, *real.size]
        if real.name.startswith("silero"):
            shape = {"input": [1, 512], "state": [2, 1, 128], "sr": []}[port.name]
        if port.dtype == "int64":
            given[port.name] = np.full(shape, 16000, np.int64)
        elif port.dtype == "int8":
            given[port.name] = rng.integers(-128, 127, shape, dtype=np.int8)
        else:
            given[port.name] = rng.uniform(0, 1, shape).astype(port.dtype)
    return given


def run(model: bytes, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # the optimiser fuses what is not observed: only without it are the numbers the same to the last bit
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


@pytest.mark.parametrize("real", FILES, ids=IDS)
def test_exposing_the_default_choice_runs_and_changes_nothing(real: Real) -> None:
    graph = opened(real)
    given = feed(graph, real)
    whole = run(graph.path.read_bytes(), given)
    taps = choose_taps(graph)
    names = [t.name for t in taps]
    got = run(exposed(graph, [*names, *(n for n in whole if n not in names)]).SerializeToString(), given)
    for name, value in whole.items():
        # the CPU computes float16 in float32 from cast to cast, and rounds where a tensor is looked at
        tolerance = 1e-3 if value.dtype == np.float16 else 0.0
        np.testing.assert_allclose(got[name], value, rtol=0, atol=tolerance)
    for tap in taps:
        value = got[tap.name]
        assert value.ndim == tap.rank
        shape = value.shape[1:]
        if tap.layout == "NHWC":
            shape = (shape[2], *shape[:2])
        if real.layout:
            assert shape[: len(tap.shape)] == tap.shape


def test_the_two_exports_of_one_network_read_alike() -> None:
    shapes = []
    for name in ("cifar_resnet20_dynamo", "cifar_resnet20_torchscript"):
        taps = choose_taps(read_graph(FOLDER / f"{name}.onnx"))
        shapes.append([(t.kind, t.shape, t.role, t.op) for t in taps])
    assert shapes[0] == shapes[1]
