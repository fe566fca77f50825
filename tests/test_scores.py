"""Class scores as files have them: confident, rounded, quantised, undeclared; what the graph or the user says wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from click.testing import Result as Ran
from onnx import TensorProto, helper, numpy_helper

from geed_onnx import measure
from geed_onnx.cli import main
from geed_onnx.engine.tally import quiet_channels
from geed_onnx.errors import MeasureError, UnknownName, UsageError
from geed_onnx.sources import permuted
from geed_onnx.taps import choose_taps, graph_of, list_taps, resolve_taps

Array = np.ndarray
IMAGES = 32


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose halves differ, so that a network that looks at the left half is no invariant one."""
    folder = tmp_path_factory.mktemp("scores")
    x = np.random.default_rng(0).random((IMAGES, 2, 4, 4), dtype=np.float32)
    x[:, :, :, :2] *= np.random.default_rng(1).random((IMAGES, 2, 1, 1), dtype=np.float32)
    np.save(folder / "x.npy", x)
    return folder


def net(ending: list[onnx.NodeProto], scale: float = 40.0, **more: Array) -> onnx.ModelProto:
    """A linear classifier of 4 classes, `ending` between its `logits` and the output `scores`."""
    weights = scale * np.random.default_rng(2).standard_normal((32, 4)).astype(np.float32) / 32
    made = {"w": weights} | more
    nodes = [
        helper.make_node("AveragePool", ["x"], ["same"], kernel_shape=[1, 1]),  # which is of N×C×H×W by definition
        helper.make_node("Flatten", ["same"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes + ending,
        "scores",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 4, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in made.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def chain(*ops: str, **attributes: Any) -> list[onnx.NodeProto]:
    """Nodes one after another from `logits` to `scores`; `Op:a,b` has further inputs."""
    names = ["logits", *(f"t{i}" for i in range(1, len(ops))), "scores"]
    nodes = []
    for op, source, target in zip(ops, names, names[1:], strict=False):
        kind, _, inputs = op.partition(":")
        own = {"axis": -1} if kind == "Softmax" else {"to": TensorProto.FLOAT16} if kind == "Cast" else {}
        nodes.append(helper.make_node(kind, [source, *(inputs.split(",") if inputs else [])], [target], **own))
    return nodes


QUANTISED = {"s": np.float32(0.03), "z": np.uint8(0)}
#: The softmax in whole numbers, 0.03 apart: sums miss 1 by up to 0.06.
INT8 = chain("Softmax", "QuantizeLinear:s,z", "DequantizeLinear:s,z")
#: The softmax by hand, times 1.02: nothing shows one.
UNTOLD = [
    helper.make_node("Exp", ["logits"], ["e"]),
    helper.make_node("ReduceSum", ["e", "last"], ["total"], keepdims=1),
    helper.make_node("Div", ["e", "total"], ["p"]),
    helper.make_node("Mul", ["p", "factor"], ["scores"]),
]


def untold(factor: float) -> onnx.ModelProto:
    return net(UNTOLD, scale=8.0, last=np.array([-1]), factor=np.float32(factor))


def saved(folder: Path, model: onnx.ModelProto, name: str = "net.onnx") -> str:
    path = folder / name
    onnx.save(model, path)
    return str(path)


def run(*args: Any) -> Ran:
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="geed-onnx")


def ask(desk: Path, model: str, *more: Any) -> list[Any]:
    tap = () if "--tap" in more else ("--tap", "scores:probability")
    return ["measure", model, "--data", desk / "x.npy", "--group", "C4", "--samples", "all", *tap, *more]


def lines(ran: Ran) -> list[dict[str, Any]]:
    assert ran.exit_code == 0, ran.output
    return [json.loads(line) for line in ran.stdout.splitlines()]


def orbit(desk: Path, model: onnx.ModelProto) -> Array:
    """f(gx) as ONNX Runtime gives it, (4, images, classes), float64."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.load(desk / "x.npy")
    turned = (np.ascontiguousarray(np.rot90(x, k, (2, 3))) for k in range(4))
    return np.stack([session.run(["scores"], {"x": some})[0] for some in turned]).astype(float)


def divergence(p: Array) -> float:
    """Mean of KL(f(gx) ‖ f̂(x)) of distributions (4, images, classes)."""
    middle = np.broadcast_to(p.mean(axis=0), p.shape)
    terms = np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0) / np.where(middle > 0, middle, 1.0)), 0.0)
    return float(terms.sum(axis=-1).mean())


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def renormalised(p: Array) -> Array:
    return np.maximum(p, 0) / np.maximum(p, 0).sum(axis=-1, keepdims=True)


# ---- what the graph shows ------------------------------------------------------------------------------------------


def test_a_rounded_softmax_gets_no_second_one(desk: Path, tmp_path: Path) -> None:
    """Trap: probabilities in whole numbers miss 1, and a softmax of them looks dozens of times more invariant."""
    model = net(INT8, **QUANTISED)
    y = orbit(desk, model)
    missed = np.abs(y.sum(axis=-1) - 1).max()
    assert missed > 0.01
    [found] = lines(run(*ask(desk, saved(tmp_path, model), "--json")))
    assert found["value"] == pytest.approx(divergence(renormalised(y)), rel=1e-9)
    assert found["value"] > 5 * divergence(softmax(y))
    assert found["logits"] is False
    assert any(n.startswith(f"scores sums to 1 only within {missed:.2g}") for n in found["notes"])
    # and it is near what the same network says in full
    assert found["value"] == pytest.approx(divergence(orbit(desk, net(chain("Softmax")))), rel=0.1)


def test_a_softmax_in_float16_is_one(desk: Path, tmp_path: Path) -> None:
    cast = [*chain("Softmax", "Cast")[:1], helper.make_node("Cast", ["t1"], ["h"], to=TensorProto.FLOAT16)]
    back = helper.make_node("Cast", ["h"], ["scores"], to=TensorProto.FLOAT)
    model = net([*cast, back])
    [found] = lines(run(*ask(desk, saved(tmp_path, model), "--json")))
    assert (found["logits"], found["value"]) == (
        False,
        pytest.approx(divergence(renormalised(orbit(desk, model))), rel=1e-9),
    )
    assert not any("sums to 1 only" in n for n in found["notes"])


def test_of_two_softmaxes_the_one_behind_tells(desk: Path, tmp_path: Path) -> None:
    """Between them are probabilities, though another softmax is taken of them."""
    shift = [
        helper.make_node("Softmax", ["logits"], ["even"], axis=-1),
        helper.make_node("Softmax", ["even"], ["scores"], axis=-1),
    ]
    path = saved(tmp_path, net(shift))
    [even] = lines(run(*ask(desk, path, "--json", "--tap", "even:probability")))
    assert even["logits"] is False
    taps = {t.name: t for t in list_taps(graph_of(net(shift)))}
    assert [taps[n].logits for n in ("even", "scores")] == [False, False]


@pytest.mark.parametrize(
    ("ending", "more", "tap", "logits"),
    [
        (INT8, QUANTISED, "scores", False),
        (INT8, QUANTISED, "t1", False),
        (INT8, QUANTISED, "logits", True),
        (chain("QuantizeLinear:s,z", "QLinearSoftmax:s,z,s,z", "DequantizeLinear:s,z"), QUANTISED, "scores", False),
        (chain("QuantizeLinear:s,z", "DequantizeLinear:s,z", "Softmax"), QUANTISED, "logits", True),
        (chain("QuantizeLinear:s,z", "DequantizeLinear:s,z"), QUANTISED, "scores", True),
        (chain("LogSoftmax", "Identity"), {}, "scores", True),
        (chain("Softmax", "Identity"), {}, "scores", False),
        (chain("Sigmoid"), {}, "scores", None),
        (chain("Relu", "Abs"), {}, "scores", None),
    ],
)
def test_what_the_graph_tells_of_scores(
    ending: list[onnx.NodeProto], more: dict[str, Array], tap: str, logits: bool | None
) -> None:
    [found] = resolve_taps(graph_of(net(ending, **more)), [f"{tap}:probability"])
    assert found.logits is logits


def test_scores_that_no_output_shows_are_read_all_the_same() -> None:
    """The class alone is the output: what ArgMax takes is still behind a softmax, and what that takes before one."""
    model = net([*chain("Softmax", "Identity")])
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["class"], axis=1, keepdims=0))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("class", TensorProto.INT64, ["N"]))
    found = resolve_taps(graph_of(model), ["scores:probability", "logits:probability", "f:probability"])
    assert [t.logits for t in found] == [False, True, None]


def test_a_softmax_over_another_axis_is_no_scores() -> None:
    """Attention over the rows of a table (N, V, K) makes no class scores along K."""
    nodes = [
        helper.make_node("Reshape", ["logits", "shape"], ["table"]),
        helper.make_node("Softmax", ["table"], ["rows"], axis=1),
        helper.make_node("Flatten", ["rows"], ["scores"]),
    ]
    model = net(nodes, shape=np.array([-1, 2, 2]))
    found = resolve_taps(graph_of(model), ["rows:probability", "table:probability"])
    assert [t.logits for t in found] == [None, None]


def test_a_quantised_classifier_shows_its_scores() -> None:
    """QOperator format: tensors without a shape; dynamic: a scale that comes with every image."""
    whole = {"wq": np.ones((32, 4), np.int8), "ws": np.float32(0.1), "wz": np.int8(0), **QUANTISED}
    operator = [
        helper.make_node("QuantizeLinear", ["f", "s", "z"], ["fq"]),
        helper.make_node("QGemm", ["fq", "s", "z", "wq", "ws", "wz", "", "s", "z"], ["lq"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["lq", "s", "z"], ["scores"]),
    ]
    dynamic = [
        helper.make_node("DynamicQuantizeLinear", ["f"], ["fq", "fs", "fz"]),
        helper.make_node("MatMulInteger", ["fq", "wq", "fz", "wz"], ["lq"]),
        helper.make_node("Cast", ["lq"], ["lc"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["fs", "ws"], ["scale"]),
        helper.make_node("Mul", ["lc", "scale"], ["scores"]),
    ]
    for ending in (operator, dynamic):
        roles = {t.name: t.role for t in choose_taps(graph_of(net(ending, **whole)))}
        assert roles["scores"] == "scores"
        assert [n for n, role in roles.items() if role == "latent"] == ["f"]


# ---- what only the user can tell -----------------------------------------------------------------------------------


def test_doubtful_scores_are_an_error_that_says_what_to_declare(desk: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, untold(1.02))
    refused = run(*ask(desk, path))
    assert refused.exit_code == 1
    [line] = refused.stderr.splitlines()
    assert "tap 'scores' lies in [0, 1] and sums to 1 only within 0.02" in line
    assert "declare which: --scores scores=probabilities or --scores scores=logits" in line
    y = orbit(desk, untold(1.02))
    keys = set()
    for word, expected in (("probabilities", divergence(renormalised(y))), ("logits", divergence(softmax(y)))):
        [found] = lines(run(*ask(desk, path, "--json", "--scores", f"scores={word}")))
        assert found["value"] == pytest.approx(expected, rel=1e-9)
        assert found["logits"] is (word == "logits")
        assert f"scores: taken as {word}, as --scores says" in found["notes"]
        keys.add(found["key"])
    assert len(keys) == 2


def test_without_evidence_looks_decide_and_are_said(desk: Path, tmp_path: Path) -> None:
    [one] = lines(run(*ask(desk, saved(tmp_path, untold(1.0)), "--json")))
    assert one["logits"] is False
    assert any(n.startswith("scores sums to 1: taken as probabilities, which the graph does not") for n in one["notes"])
    for factor in (0.85, 1.5, -1.0):
        [other] = lines(run(*ask(desk, saved(tmp_path, untold(factor)), "--json")))
        assert other["logits"] is True
        assert "scores does not sum to 1: taken as logits, softmax in float64" in other["notes"]


def test_the_word_of_the_user_wins_over_the_graph(desk: Path, tmp_path: Path) -> None:
    model = net(INT8, **QUANTISED)
    [found] = lines(run(*ask(desk, saved(tmp_path, model), "--json", "--scores", "scores=logits")))
    assert found["value"] == pytest.approx(divergence(softmax(orbit(desk, model))), rel=1e-9)


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        ("score=logits", 2, "unknown tap 'score': did you mean 'scores'"),
        ("nope=logits", 2, "--scores is for taps that are measured: add --tap too"),
        ("scores=logit", 2, "unknown word for scores 'logit': did you mean 'logits'"),
        ("scores", 2, "--scores 'scores': expected TAP=logits|probabilities"),
        (
            "logits=logits",
            2,
            "the tap is measured as a vector; to measure it as scores, name it with --tap logits:prob",
        ),
    ],
)
def test_words_that_cannot_be_meant(desk: Path, tmp_path: Path, given: str, code: int, says: str) -> None:
    taps = ("--tap", "scores:probability", "--tap", "logits:vector")
    refused = run(*ask(desk, saved(tmp_path, net(chain("Softmax"))), *taps, "--scores", given))
    assert refused.exit_code == code
    assert says in refused.stderr


def test_from_python_and_on_a_callable() -> None:
    rng = np.random.default_rng(3)
    # so small that no score is above 1, whichever images are read first
    images, w = rng.random((6, 1, 4, 4)), 0.1 * rng.standard_normal((16, 3))

    def model(x: Array) -> dict[str, Array]:
        return {"out": 1.03 * softmax(x.reshape(len(x), -1) @ w)}

    options: dict[str, Any] = {"taps": ["out:probability"], "samples": "all"}
    with pytest.raises(MeasureError, match=r"sums to 1 only within 0\.03"):
        measure(model, images, "C4", **options)
    [found] = measure(model, images, "C4", **options, scores={"out": "probabilities"})
    assert found.logits is False
    with pytest.raises(UnknownName, match="unknown word for scores 'softmax'"):
        measure(model, images, "C4", **options, scores={"out": "softmax"})
    with pytest.raises(UsageError, match="given both as logits and as probabilities"):
        measure(model, images, "C4", **options, scores={"out": "logits", "out:probability": "probabilities"})


def test_nothing_above_zero_is_an_error_in_words(desk: Path, tmp_path: Path) -> None:
    """Clipped at 0 nothing is left of some rows: no 0/0."""
    ending = [*chain("Softmax", "Identity")[:1], helper.make_node("Sub", ["t1", "half"], ["scores"])]
    path = saved(tmp_path, net(ending, half=np.float32(0.999)))
    refused = run(*ask(desk, path, "--scores", "scores=probabilities"))
    assert refused.exit_code == 1
    assert "tap 'scores' holds nothing above 0 for image" in refused.stderr
    assert "if it holds logits, say so with --scores scores=logits" in refused.stderr
    assert "Warning" not in refused.stderr


def test_what_the_first_images_told_holds_for_all(tmp_path: Path) -> None:
    """Probabilities by their looks; an image that contradicts them is an error, not another reading."""

    def model(x: Array) -> dict[str, Array]:
        total = np.where(x[:, 0, 0, 0] > 0.5, 2.0, 1.0)
        return {"out": total[:, None] * np.array([[0.25, 0.75]])}

    images = np.tile(0.05 * np.arange(8).reshape(8, 1, 1, 1), (1, 1, 4, 4))  # no copies, which count once
    images[permuted(range(8), 0)[-1]] = 1.0  # is read last
    options: dict[str, Any] = {"taps": ["out:probability"], "samples": "all", "reference_samples": 2}
    with pytest.raises(MeasureError, match=r"sums to 1 for the first images, but not for all .*--scores out=prob"):
        measure(model, images, "C4", **options)
    assert measure(model, images, "C4", **options, scores={"out": "probabilities"})[0].value == pytest.approx(0.0)


def test_a_suite_says_it_too(desk: Path, tmp_path: Path) -> None:
    saved(tmp_path, untold(1.02))
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f'groups = ["C4"]\nsamples = "all"\ndata = {json.dumps(str(desk / "x.npy"))}\n'
        '[[models]]\npath = "net.onnx"\ntaps = ["scores:probability"]\nscores = { scores = "probabilities" }\n'
    )
    done = run("run", suite, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    [line] = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    found = json.loads(line)
    [alone] = lines(run(*ask(desk, tmp_path / "net.onnx", "--json", "--scores", "scores=probabilities")))
    assert (found["logits"], found["value"], found["key"]) == (False, alone["value"], alone["key"])


# ---- confidence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e3, 1e4, 1e6])
def test_confident_logits_have_a_finite_divergence(desk: Path, tmp_path: Path, scale: float) -> None:
    """KL in the logarithms of extended precision, and at most log |G|; the null is finite, and nothing warns."""
    model = net(chain("Identity"), scale)
    ran = run(*ask(desk, saved(tmp_path, model), "--json"))
    [found] = lines(ran)
    assert not ran.stderr
    z = orbit(desk, model).astype(np.longdouble)
    lp = z - z.max(axis=-1, keepdims=True)
    lp -= np.log(np.exp(lp).sum(axis=-1, keepdims=True))
    top = lp.max(axis=0)
    lq = np.log(np.exp(lp - top).mean(axis=0)) + top
    assert found["value"] == pytest.approx(float((np.exp(lp) * (lp - lq)).sum(axis=-1).mean()), rel=1e-9)
    assert 0 <= found["value"] <= np.log(4)
    assert found["reason"] is None or found["value"] is not None
    assert found["null"] is not None
    assert 0 <= found["null"] <= np.log(4)


def test_every_distance_of_scores_takes_them_as_probabilities(desk: Path, tmp_path: Path) -> None:
    """ℓ2, its spread M and the rest are of the probabilities, not of their logarithms."""
    p = orbit(desk, net(chain("Softmax")))
    middle = np.broadcast_to(p.mean(axis=0), p.shape)
    gaps = np.linalg.norm(p - middle, axis=-1)
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(p[0]) for b in p[0][:i]]
    expected = {
        "l2": gaps.mean(),
        "l2:spread-l2": gaps.mean() / np.mean(pairs),
        "total-variation": np.abs(p - middle).sum(axis=-1).mean() / 2,
        "disagreement": (p.argmax(-1) != middle.argmax(-1)).mean(),
        "cosine": -((p * middle).sum(-1) / np.linalg.norm(p, axis=-1) / np.linalg.norm(middle, axis=-1)).mean(),
    }
    path = saved(tmp_path, net(chain("Softmax")))
    asked = [f"--variant=probability:trivial:{name}" for name in expected]
    for found, value in zip(lines(run(*ask(desk, path, "--json", *asked))), expected.values(), strict=True):
        assert found["value"] == pytest.approx(float(value), rel=1e-6), found["variant"]


# ---- cautions ------------------------------------------------------------------------------------------------------


def notes_of(x: Array, model: Any, tap: str, **options: Any) -> list[str]:
    [found] = measure(model, x, "C2", taps=[tap], samples="all", **options)
    return [n for n in found.notes if n.startswith("caution: ")]


def test_few_images_of_scores_are_cautioned() -> None:
    def model(x: Array) -> dict[str, Array]:
        return {"out": x.reshape(len(x), -1)}

    x = np.random.default_rng(4).random((30, 1, 4, 4))
    few = "caution: out: intervals of scores on fewer than 30 images, here 29, miss the truth"
    assert [n[: len(few)] for n in notes_of(x[:29], model, "out:probability")] == [few]
    assert notes_of(x, model, "out:probability") == []
    assert notes_of(x[:29], model, "out:vector", variants=["vector:trivial:cosine"]) == []


def numbers(n: int) -> Array:
    """Factors (n, 1, 1, 1) that make images differ, as copies count once, and leave every cosine as it is."""
    return np.arange(1.0, n + 1).reshape(n, 1, 1, 1)


@pytest.mark.parametrize(("n", "told"), [(5, False), (6, True), (20, True)])
def test_the_image_that_carries_the_value_is_named(n: int, told: bool) -> None:
    """m is (1 − cos)/2 per element of C2; all images but one deviate by δ, that one by far more."""

    def model(x: Array) -> dict[str, Array]:
        return {"out": x.reshape(len(x), -1)}

    x = np.ones((n, 1, 2, 2))
    x[:, 0, 0, 0] = 1.1
    x[3, 0, 0, 0] = 9.0
    x *= numbers(n)

    def excess(a: float) -> float:
        y, turned = np.array([a, 1, 1, 1]), np.array([1, 1, 1, a])
        mean = (y + turned) / 2
        return 1 - float(y @ mean / np.linalg.norm(y) / np.linalg.norm(mean))

    share = excess(9.0) / (excess(9.0) + (n - 1) * excess(1.1))
    found = notes_of(x, model, "out:vector", variants=["vector:trivial:cosine"])
    assert len(found) == told
    if told:
        assert f"image '3' carries {100 * share:.0f} % of the value of vector:trivial:cosine" in found[0]


def test_even_shares_are_no_caution() -> None:
    def model(x: Array) -> dict[str, Array]:
        return {"out": x.reshape(len(x), -1)}

    x = np.ones((6, 1, 2, 2))  # each carries a sixth, which is close to a fifth
    x[:, 0, 0, 0] = [2.0, 2.1, 2.2, 2.0, 2.1, 2.2]
    assert notes_of(x * numbers(6), model, "out:vector", variants=["vector:trivial:cosine"]) == []
    # rounding alone is nobody's share
    assert notes_of(np.ones((6, 1, 2, 2)) * numbers(6), model, "out:vector", variants=["vector:trivial:cosine"]) == []


def test_channels_next_to_zero_are_told_from_zero() -> None:
    y = np.ones((1, 5, 4, 4), np.float32)
    y[:, 1], y[:, 2], y[:, 3] = 0.0, 1e-6, 1e-25  # whose squares vanish in float32
    assert [tuple(q) for q in quiet_channels(y)] == [(1, 2)]
    assert [tuple(q) for q in quiet_channels(np.zeros((2, 3, 2, 2)))] == [(3, 0), (3, 0)]
    assert [tuple(q) for q in quiet_channels(np.full((1, 2, 9, 9), 6e4, np.float16))] == [(0, 0)]


def test_dust_in_a_channel_is_told_and_weighs_nothing(tmp_path: Path) -> None:
    """Two networks that differ by one part in a million in one channel of four: one story, or a word about it."""
    noise = np.random.default_rng(5)

    def clean(x: Array) -> dict[str, Array]:
        return {"out": np.concatenate([x, 2 * x, 3 * x, 0 * x], axis=1)}

    def dusty(x: Array) -> dict[str, Array]:
        y = clean(x)["out"].copy()
        y[:, 3] = 1e-6 * x[:, 0] * np.arange(16).reshape(4, 4)  # does not turn with the image
        return {"out": y}

    x = noise.random((8, 1, 4, 4))
    options: dict[str, Any] = {"taps": ["out"], "samples": "all", "variants": ["channelwise", "channelwise-weighted"]}
    (a, a_weighted), (b, b_weighted) = (measure(m, x, "C4", **options) for m in (clean, dusty))
    assert a.value == -1.0
    assert b.value is not None
    assert b.value > -0.95
    assert a_weighted.value == -1.0
    assert b_weighted.value == pytest.approx(-1.0, abs=1e-6)
    assert (a.zero_channels, b.zero_channels) == (0.25, 0.0)
    [caution] = [n for n in b.notes if n.startswith("caution: out: ")]
    assert "1 of 4 channels carry less than 1e-05 of the mean channel's norm in most images" in caution
    assert not any("1 of 4" in n for r in (a, a_weighted, b_weighted) for n in r.notes)


def test_the_table_says_how_many_channels_are_zero(desk: Path, tmp_path: Path) -> None:
    """Above 5 % of them; the line fits a narrow terminal's habit of not being cut."""
    nodes = [
        helper.make_node("Mul", ["x", "mask"], ["half"]),
        helper.make_node("Flatten", ["half"], ["f2"]),
        helper.make_node("MatMul", ["f2", "w"], ["scores"]),
    ]
    model = net(nodes, mask=np.array([[[1.0]], [[0.0]]], np.float32))
    told = run(*ask(desk, saved(tmp_path, model), "--tap", "half:map"))
    assert told.exit_code == 0, told.output
    line = "channels that are zero everywhere: half 50 % (equal in channelwise, left out of channelwise-weighted)"
    assert line in told.stdout.splitlines()
    weighted = run(
        *ask(desk, saved(tmp_path, model), "--tap", "half:map", "--variant", "channelwise-weighted", "--json")
    )
    [found] = lines(weighted)
    assert (found["value"], found["optimum"], found["zero_channels"]) == (pytest.approx(-1.0, abs=1e-12), -1.0, 0.5)
