"""Flax models into files that compute what Flax computes, with taps under Flax's own names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import flax_networks as fn
import independent
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import geed_onnx_taps, metadata
from flax import linen, nnx

from geed_exporters import Facts, write
from geed_exporters.candidates import default_roles
from geed_exporters.jax import Loaded, candidates, export_jax, load, prepared

Array = np.ndarray[Any, Any]
NNX_PATHS = [
    "blocks.0.conv",
    "blocks.0.norm",
    "blocks.0",
    "blocks.1.conv",
    "blocks.1.norm",
    "blocks.1",
    "again.conv",
    "again.norm",
    "again",
    "again.conv#1",
    "again.norm#1",
    "again#1",
    "drop",
    "fc",
]
LINEN_PATHS = [
    "block_0/Conv_0",
    "block_0/BatchNorm_0",
    "block_0",
    "block_1/Conv_0",
    "block_1/BatchNorm_0",
    "block_1",
    "twice",
    "twice#1",
    "drop",
    "hidden",
    "head/input",
    "head",
    "output",
]


def images(count: int, seed: int = 0, size: int = fn.SIZE, channels: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal((count, size, size, channels)).astype(np.float32)


def hand(flavour: str) -> tuple[Loaded, Callable[[Array], Mapping[str, Array]], list[str]]:
    """Return a loaded network, its activations computed by hand, and its module paths."""
    if flavour == "nnx":
        made = fn.net()
        return prepared(made, name="n.py:net"), lambda x: fn.by_hand(made[0], x), NNX_PATHS
    linen_made = fn.linen_net()
    return prepared(linen_made, name="n.py:net"), lambda x: fn.linen_by_hand(linen_made[1], x), LINEN_PATHS


def run(path: Path, x: Array) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": x}), strict=True))


@pytest.mark.parametrize("flavour", ["nnx", "linen"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_every_module_tapped_against_activations_by_hand(flavour: str, layout: Any, tmp_path: Path) -> None:
    loaded, by_hand, paths = hand(flavour)
    written = write(export_jax(loaded, taps=("*",), layout=layout), tmp_path / "n.onnx", tolerance=1e-5)
    assert list(written.taps) == paths
    for batch in (1, 3):
        x = images(batch, seed=batch)
        ours = run(written.path, x if layout == "NHWC" else x.transpose(0, 3, 1, 2))
        theirs = by_hand(x)
        assert set(ours) == set(theirs)
        for name, array in theirs.items():
            expected = array.transpose(0, 3, 1, 2) if layout == "NCHW" and array.ndim == 4 else array
            assert ours[name].shape == expected.shape, name
            assert np.abs(ours[name] - expected).max() <= 1e-5 * np.abs(expected).max(), name


@pytest.mark.parametrize("flavour", ["nnx", "linen"])
def test_round_trip_through_geed_onnx(flavour: str, tmp_path: Path) -> None:
    loaded, by_hand, _ = hand(flavour)
    nhwc = write(export_jax(loaded), tmp_path / "nhwc.onnx").path
    assert independent.check(nhwc, by_hand, images(6), group="C4") >= 7
    assert independent.check(nhwc, by_hand, images(6), group="flip") >= 7
    nchw = write(export_jax(loaded, layout="NCHW"), tmp_path / "nchw.onnx").path

    def transposed(x: Array) -> dict[str, Array]:
        found = by_hand(x.transpose(0, 2, 3, 1))
        return {n: a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for n, a in found.items()}

    assert independent.check(nchw, transposed, images(6).transpose(0, 3, 1, 2).copy(), group="C4") >= 7


def test_both_layouts_measure_the_same(tmp_path: Path) -> None:
    from geed_onnx.engine import measure

    loaded, _, _ = hand("nnx")
    x = images(6)
    values = []
    for layout, data in (("NHWC", x), ("NCHW", x.transpose(0, 3, 1, 2).copy())):
        path = write(export_jax(loaded, layout=layout), tmp_path / f"{layout}.onnx").path  # type: ignore[arg-type]
        results = measure(path, data, "C4", samples="all", spread_samples=6, reference_samples=0)
        values.append({(r.tap["name"], r.variant): r.value for r in results})
    assert values[0].keys() == values[1].keys()
    assert len(values[0]) >= 7
    for key, value in values[0].items():
        assert values[1][key] == pytest.approx(value, abs=1e-5), key


@pytest.mark.parametrize("flavour", ["nnx", "linen"])
def test_metadata_and_taps_command(flavour: str, tmp_path: Path) -> None:
    loaded, _, paths = hand(flavour)
    path = write(export_jax(loaded, taps=("*",)), tmp_path / "n.onnx").path
    said = metadata(path)
    assert said["geed.schema"] == "1"
    assert said["geed.input"] == {
        "name": "image",
        "layout": "NHWC",
        "size": [fn.SIZE, fn.SIZE],
        "channels": 3,
        "colour": "rgb",
        "range": [0.0, 1.0],
        "mean": [0.5],
        "std": [0.25],
    }
    assert [t["module"] for t in said["geed.taps"]] == paths
    kinds = {t["name"]: (t["kind"], t["layout"], t.get("role")) for t in said["geed.taps"]}
    if flavour == "nnx":
        assert kinds["blocks.0"] == ("map", "NHWC", "stage")
        assert kinds["drop"] == ("vector", None, "latent")
        assert kinds["fc"] == ("probability", None, "scores")
    else:
        assert kinds["block_1"] == ("map", "NHWC", "stage")
        assert kinds["head/input"] == ("vector", None, "latent")
        assert kinds["output"] == ("probability", None, "scores")
    source = said["geed.source"]
    assert (source["framework"], source["model"], source["weights"]) == ("flax", "n.py:net", "as the factory made them")
    assert source["notes"][0].startswith(f"flax.{flavour}, jax {jax.__version__}, jax2onnx ")
    shown = geed_onnx_taps(path)
    assert set(paths) <= set(shown)
    assert all(shown[p]["module"] == p for p in paths)


def test_no_path_of_this_machine_in_the_file(tmp_path: Path, networks: Path) -> None:
    path = write(export_jax(load(f"{networks}:net"), taps=("*",)), tmp_path / "n.onnx").path
    data = path.read_bytes()
    for trace in (str(Path.cwd()), "site-packages", str(networks.parent), str(tmp_path), "flax_networks.pyc"):
        assert trace.encode() not in data, trace
    assert b"flax_networks.py:net" in data


def test_defaults_are_stages_latent_and_scores() -> None:
    loaded, _, _ = hand("nnx")
    found = candidates(loaded)
    assert [c.module for c in found] == NNX_PATHS
    assert next(c for c in found if c.module == "blocks.1").shape == (8, 6, 6)
    roles = default_roles(found)
    assert roles == {
        "blocks.0": "stage",
        "blocks.1": "stage",
        "again": "stage",
        "again#1": "stage",
        "drop": "latent",
        "fc": "scores",
    }
    assert [t.name for t in export_jax(loaded).taps] == [name for name in NNX_PATHS if name in roles]
    # a glob takes the default's place; the model's own output stays the graph's first, under a name of its own
    export = export_jax(loaded, taps=("blocks.?",))
    assert [t.name for t in export.taps] == ["blocks.0", "blocks.1"]
    assert [o.name for o in export.model.graph.output] == ["output", "blocks.0", "blocks.1"]


def test_a_factory_names_blocks_latent_and_scores() -> None:
    model, facts = fn.net()
    loaded = prepared((model, {**facts, "blocks": "blocks.*.norm", "latent": "fc", "scores": "drop"}), name="n")
    assert default_roles(candidates(loaded)) == {
        "blocks.0.norm": "stage",
        "blocks.1.norm": "stage",
        "fc": "latent",
        "drop": "scores",
    }


def test_a_network_without_classes_gives_its_latent() -> None:
    model, facts = fn.net()
    loaded = prepared((model, {**facts, "scores": ""}), name="n")
    roles = default_roles(candidates(loaded))
    assert {name: role for name, role in roles.items() if role != "stage"} == {"fc": "latent"}


def test_what_a_factory_says_is_written_and_flags_stand_over_it(tmp_path: Path) -> None:
    model, facts = fn.net()
    said = {
        **{"fit": "crop", "resize": 18, "resample": "bicubic", "input": "picture", "notes": "made for a test"},
        **{"weights": {"seed": 0}, "actions": {"fc": {"group": "C4", "fields": [{"type": "trivial", "count": 5}]}}},
    }
    loaded = prepared((model, facts | said), name="n", facts=Facts(colour="bgr", mean=(0.25,)))
    path = write(export_jax(loaded, taps=["fc"]), tmp_path / "n.onnx").path
    found = metadata(path)
    wanted = {"name": "picture", "colour": "bgr", "mean": [0.25], "fit": "crop", "resize": 18, "resample": "bicubic"}
    assert found["geed.input"] | wanted == found["geed.input"]
    assert found["geed.source"]["weights"] == {"seed": 0}
    assert found["geed.source"]["notes"][0] == "made for a test"
    assert [tap["action"] for tap in found["geed.taps"]] == [
        {"group": "C4", "fields": [{"type": "trivial", "count": 5}]}
    ]


def test_batch_norm_runs_on_its_statistics_whatever_the_factory_left() -> None:
    model, facts = fn.net()
    model.train()
    x = images(3)
    loaded = prepared((model, facts), name="n")
    one_by_one = np.concatenate([export_jax(loaded).reference(x[i : i + 1])["fc"] for i in range(3)])
    assert np.abs(export_jax(loaded).reference(x)["fc"] - one_by_one).max() < 1e-5


@pytest.mark.parametrize("opset", [17, 21, 25])
def test_opsets(opset: int, tmp_path: Path) -> None:
    loaded, _, _ = hand("nnx")
    path = write(export_jax(loaded, opset=opset), tmp_path / "n.onnx").path
    assert onnx.load(str(path)).opset_import[0].version == opset


class Pooled(nnx.Module):
    """Every pooling of Flax's, by position and by keyword, with a padding of the user's own; one module each."""

    def __init__(self) -> None:
        sides = ((1, 1), (1, 1))
        uneven = ((0, 1), (2, 0))
        self.pools = nnx.List(
            [
                Call(lambda x: nnx.max_pool(x, (3, 3), (2, 2), sides)),
                Call(lambda x: nnx.avg_pool(x, window_shape=(3, 3), strides=(1, 1), padding=uneven)),
                Call(lambda x: linen.max_pool(x, (2, 2), padding=uneven)),
                Call(lambda x: linen.avg_pool(x, (3, 3), padding=sides, count_include_pad=False)),
                Call(lambda x: linen.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False)),
                Call(lambda x: nnx.min_pool(x, (2, 2), padding="SAME")),
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return sum(pool(x).mean((1, 2)) for pool in self.pools)  # type: ignore[return-value]


class Call(nnx.Module):
    """A function as a module, so that it can be tapped."""

    def __init__(self, function: Callable[[jax.Array], jax.Array]) -> None:
        self.function = function

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function(x)


def test_pooling_by_position_and_with_any_padding(tmp_path: Path) -> None:
    # jax2onnx alone refuses the first and computes the padded ones without their padding
    before = linen.max_pool, nnx.avg_pool, linen.pooling.pool
    loaded = prepared((Pooled(), {"size": 9, "channels": 3}), name="pools")
    written = write(export_jax(loaded, taps=("pools.*",)), tmp_path / "p.onnx", tolerance=1e-6)
    assert len(written.taps) == 6
    assert (linen.max_pool, nnx.avg_pool, linen.pooling.pool) == before
    x = images(2, size=9)
    ours = run(written.path, x)
    for i, pool in enumerate(Pooled().pools):
        assert np.allclose(ours[f"pools.{i}"], pool(jnp.asarray(x)), atol=1e-6), i


class Attention(linen.Module):
    """Patches as tokens, one transformer layer, a module with a dict for output, the mean of tokens."""

    @linen.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        x = linen.Conv(16, (4, 4), strides=(4, 4))(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = x + self.param("position", linen.initializers.normal(0.02), (1, 9, 16))
        y = linen.LayerNorm()(x)
        y = linen.MultiHeadDotProductAttention(2)(y, deterministic=deterministic)
        x = Both()(x, y)["sum"]
        return linen.Dense(3)(x.mean(1))


class Both(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        return {"sum": x + y, "gelu": linen.gelu(y)}


def test_tokens_attention_and_a_module_with_several_outputs(tmp_path: Path) -> None:
    module = Attention()
    variables = module.init(jax.random.key(1), jnp.zeros((1, 12, 12, 3)), deterministic=True)
    loaded = prepared((module, variables, {"size": (12, 12), "colour": "rgb"}), name="vit")
    found = {c.module: c for c in candidates(loaded)}
    assert found["LayerNorm_0"].shape == (9, 16)
    assert {"Both_0/sum", "Both_0/gelu"} <= set(found)
    assert "MultiHeadDotProductAttention_0/query" in found
    assert default_roles(tuple(found.values()))["Dense_0"] == "scores"
    written = write(export_jax(loaded, taps=("*",)), tmp_path / "v.onnx", tolerance=1e-5)
    assert "Dense_0/input" in written.taps


class Remat(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.remat(linen.Conv)(4, (3, 3), name="inside")(x)
        x = linen.Conv(4, (3, 3), name="outside")(x)
        return linen.Dense(2)(x.mean((1, 2)))


def test_a_module_inside_a_transform_is_told_and_not_tapped(tmp_path: Path) -> None:
    module = Remat()
    variables = module.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)))
    loaded = prepared((module, variables, {"size": 8, "channels": 1}), name="remat")
    assert "inside" not in {c.module for c in candidates(loaded)}
    path = write(export_jax(loaded), tmp_path / "r.onnx").path
    notes = metadata(path)["geed.source"]["notes"]
    assert "inside a Flax transform, so not to be tapped: inside" in notes


def test_a_module_called_as_the_input_keeps_its_name(tmp_path: Path) -> None:
    class Same(nnx.Module):
        def __init__(self) -> None:
            self.image = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.image(x)

    loaded = prepared((Same(), {"size": 4, "channels": 3}), name="same")
    path = write(export_jax(loaded), tmp_path / "s.onnx").path
    graph = onnx.load(str(path)).graph
    assert [i.name for i in graph.input] == ["image#input"]
    assert [o.name for o in graph.output] == ["image"]
    assert metadata(path)["geed.input"]["name"] == "image#input"


class Shared(nnx.Module):
    """One module under two names, a subclass that calls its parent, and a softmax outside any module."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(12, 12, rngs=rngs)
        self.second = self.first
        self.child = Child(12, 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        return nnx.softmax(self.child(self.second(self.first(x))))


class Child(nnx.Linear):
    def __call__(self, inputs: jax.Array) -> jax.Array:  # type: ignore[override]
        return 2 * super().__call__(inputs)


def test_shared_modules_and_parents_are_named_once(tmp_path: Path) -> None:
    model = Shared(rngs=nnx.Rngs(0))
    loaded = prepared((model, {"size": 2, "channels": 3}), name="shared")
    assert [c.module for c in candidates(loaded)] == ["first", "first#1", "child", "output"]
    assert default_roles(candidates(loaded)) == {"first#1": "latent", "output": "scores"}
    written = write(export_jax(loaded, taps=("*",)), tmp_path / "s.onnx", tolerance=1e-5)
    x = images(2, size=2)
    flat = jnp.asarray(x.reshape(2, -1))
    child = 2 * (model.first(model.first(flat)) @ model.child.kernel[...] + model.child.bias[...])
    assert np.allclose(run(written.path, x)["child"], child, atol=1e-5)


def test_classes_are_as_before_after_an_export() -> None:
    before = nnx.Conv.__call__, nnx.BatchNorm.__call__, fn.Block.__call__, Child.__call__
    export_jax(hand("nnx")[0], taps=("fc",))
    with pytest.raises(Exception, match="unknown module"):
        export_jax(hand("nnx")[0], taps=("nothing",))
    assert (nnx.Conv.__call__, nnx.BatchNorm.__call__, fn.Block.__call__, Child.__call__) == before


def test_scale_of_inputs_is_the_caller_s(tmp_path: Path) -> None:
    loaded, _, _ = hand("nnx")
    seen: list[int] = []

    def probe(batch: int) -> Array:
        seen.append(batch)
        return images(batch) * 100

    write(replace(export_jax(loaded), probe=probe), tmp_path / "n.onnx")
    assert seen == [1, 3]
