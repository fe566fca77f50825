from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import escnn
import numpy as np
import onnx
import onnxruntime
import pytest
import steerable_networks as networks
import torch
from declared_actions import Array, channels, cosine, entries, exact, moved, order, pixels, smooth_images
from escnn import nn as enn
from independent import check

from geed_exporters import Differs, Export, write
from geed_exporters.escnn import candidates, described, export_escnn, load
from geed_exporters.escnn.conversion import prepared
from geed_onnx.engine import measure

BLOCKS = [f"block{i}" for i in range(1, 7)]
FACTORIES = ["cyclic", "dihedral", "slanted", "flip", "irreducible", "continuous", "residual"]


def ours(net: Any, x: Array) -> dict[str, Array]:
    """Return what each module of an escnn network gives, by a few lines that are not the exporter's."""
    found: dict[str, Array] = {}

    def catcher(path: str) -> Callable[..., None]:
        def catch(module: Any, args: Any, out: Any) -> None:
            tensor = out.tensor if isinstance(out, enn.GeometricTensor) else out
            found.setdefault(path, tensor.numpy().copy())

        return catch

    handles = [m.register_forward_hook(catcher(path)) for path, m in net.named_modules() if path]
    with torch.no_grad():
        image = torch.from_numpy(np.ascontiguousarray(x))
        out = net(net.in_type(image) if isinstance(net, enn.EquivariantModule) else image)
    found["output"] = (out.tensor if isinstance(out, enn.GeometricTensor) else out).numpy()
    for handle in handles:
        handle.remove()
    return found


def theirs(path: Path, x: Array) -> dict[str, Array]:
    """Return every output of the file."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    image = session.get_inputs()[0].name
    return dict(zip(names, session.run(names, {image: np.ascontiguousarray(x, dtype=np.float32)}), strict=True))


def relative(a: Array, b: Array) -> float:
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))


class Made:
    """One network, exported once with every module tapped, for the tests that look at it."""

    def __init__(self, folder: Path, name: str) -> None:
        torch.manual_seed(0)  # else each run draws networks of its own
        self.loaded = described(getattr(networks, name)(), f"steerable_networks.py:{name}")
        self.export: Export = export_escnn(self.loaded, taps=["*"])
        self.path = folder / f"{name}.onnx"
        self.written = write(self.export, self.path, tolerance=1e-5)
        self.entries = entries(self.path)
        self.images = smooth_images(4, self.loaded.input.shape[0], networks.SIZE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    folder, known = tmp_path_factory.mktemp("escnn"), dict[str, Made]()

    def get(name: str) -> Made:
        if name not in known:
            known[name] = Made(folder, name)
        return known[name]

    return get


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    loaded = load("escnn:c8-cnn-small")
    networks.statistics(loaded.model)
    path = tmp_path_factory.mktemp("small") / "c8-cnn-small.onnx"
    write(export_escnn(loaded), path, tolerance=1e-5)
    return path, loaded


# ---------------------------------------------------------------------------------------------- the numbers are escnn's


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_torch_form_computes_what_escnn_computes_in_every_module(
    made: Callable[[str], Made], name: str, batch: int
) -> None:
    """The torch form differs by rounding at most: a batch norm's affine map may be written in another order."""
    m = made(name)
    x = m.images[:batch]
    ready = prepared(m.loaded)
    with torch.no_grad():
        traced = ready.plain.model(torch.from_numpy(x)).numpy()
    wanted = ours(m.loaded.model, x)
    assert relative(traced, wanted["output"]) <= 1e-6
    ran = theirs(m.path, x)
    assert len(ran) >= 4
    for tap in m.written.taps:
        if "#" not in tap:
            assert ran[tap].shape == wanted[tap].shape, tap
            assert relative(ran[tap], wanted[tap]) <= 1e-5, tap


def test_the_network_that_was_given_is_left_as_it_was(made: Callable[[str], Made]) -> None:
    net = networks.cyclic()[0]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    kinds = [type(m) for m in net.modules()]
    export_escnn(described((net, networks.FACTS), "net"), taps=["block1"])
    assert [type(m) for m in net.modules()] == kinds
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_batch_norm_tap_keeps_its_negative_values_though_an_in_place_relu_follows(
    made: Callable[[str], Made],
) -> None:
    m = made("residual")
    ran = theirs(m.path, m.images)
    assert (ran["body.conv1"] < 0).any()
    assert (ran["body.relu#1"] >= 0).all()
    assert not np.array_equal(ran["body.relu"], ran["body.relu#1"])


def test_a_convolution_is_not_folded_into_the_norm_after_it(made: Callable[[str], Made]) -> None:
    m = made("cyclic")
    ran, wanted = theirs(m.path, m.images), ours(m.loaded.model, m.images)
    assert relative(ran["block1.conv"], wanted["block1.conv"]) < 1e-5
    assert relative(ran["block1.conv"], ran["block1.norm"]) > 0.1


# ------------------------------------------------------------------------------------------------- the declared actions


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("cyclic", "C8"),
        ("dihedral", "D4"),
        ("slanted", "D4"),
        ("flip", "flip"),
        ("irreducible", "C8"),
        ("residual", "C4"),
    ],
)
def test_declared_channels_and_moved_pixels_are_what_the_network_does(
    made: Callable[[str], Made], name: str, group: str
) -> None:
    m = made(name)
    maps = {n: e for n, e in m.entries.items() if e["kind"] == "map"}
    assert len(maps) >= 4
    upright = theirs(m.path, m.images)
    assert min(np.any(upright[tap] != 0, axis=(0, 2, 3)).mean() for tap in maps) > 0.5  # zeros would fit any action
    for g in exact(group):
        ran = theirs(m.path, pixels(group, g, m.images))
        for tap, entry in maps.items():
            assert entry["action"]["group"] == group
            assert cosine(ran[tap], moved(entry["action"], g, upright[tap])) > 1 - 1e-5, (tap, g)


@pytest.mark.parametrize(
    ("name", "group"), [("cyclic", "C8"), ("dihedral", "D4"), ("flip", "flip"), ("irreducible", "C8")]
)
def test_without_the_declared_channels_it_does_not_fit(made: Callable[[str], Made], name: str, group: str) -> None:
    m = made(name)
    tap = "3" if name == "flip" else "block2"
    noise = np.random.default_rng(0).standard_normal(m.images.shape)  # smooth images look much the same when turned
    upright = theirs(m.path, noise)[tap]
    naive = [cosine(theirs(m.path, pixels(group, g, noise))[tap], pixels(group, g, upright)) for g in exact(group)[1:]]
    assert max(naive) < 0.9


@pytest.mark.parametrize("name", ["cyclic", "dihedral", "slanted", "flip", "irreducible"])
def test_the_declared_matrices_are_escnns_for_every_element(made: Callable[[str], Made], name: str) -> None:
    """Element by element, those that resample included; an element is told by what it does to the plane."""
    m = made(name)
    checked = 0
    for tap, field_type in prepared(m.loaded).types.items():
        if tap not in m.entries:
            continue
        action, space = m.entries[tap]["action"], field_type.gspace
        for element in space.fibergroup.elements:
            plane = space.basespace_action(element)
            g = next(k for k in range(order(action["group"])) if np.allclose(_plane(action["group"], k), plane))
            theirs_ = field_type.representation(element)
            assert np.allclose(channels(action, g), theirs_, atol=1e-6), (tap, element)
            checked += 1
    assert checked >= 8


def _plane(group: str, g: int) -> Array:
    n = 1 if group == "flip" else int(group[1:])
    angle = 2 * np.pi * (g % n) / n
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ np.diag([-1, 1]) if g >= n else turn


def test_fields_are_declared_in_their_order_and_equal_neighbours_together(made: Callable[[str], Made]) -> None:
    assert made("cyclic").entries["block1"]["action"] == {
        "group": "C8",
        "fields": [
            {"type": "regular", "count": 1},
            {"type": "trivial", "count": 1},
            {"type": "regular", "count": 2},
            {"type": "quotient", "subgroup": [0, 4], "count": 1},
            {"type": "quotient", "subgroup": [0, 2, 4, 6], "count": 1},
        ],
    }
    assert made("cyclic").entries["invariant"]["action"]["fields"] == [{"type": "trivial", "count": 6}]


def test_a_reflection_across_another_line_is_declared_by_permutations(made: Callable[[str], Made]) -> None:
    straight = made("dihedral").entries["block1"]["action"]["fields"]
    slanted = made("slanted").entries["block1"]["action"]["fields"]
    assert [f["type"] for f in straight] == ["regular", "trivial", "quotient", "quotient"]
    assert slanted[0]["type"] == "permutation"
    assert len(slanted[0]["generators"]) == 2


def test_irreducible_fields_are_declared_by_matrices(made: Callable[[str], Made]) -> None:
    fields = made("irreducible").entries["block1"]["action"]["fields"]
    assert [(f["type"], f["count"]) for f in fields] == [("trivial", 2), ("matrix", 3), ("matrix", 1), ("matrix", 2)]
    half = np.sqrt(0.5)
    assert np.allclose(fields[1]["generators"], [[[half, -half], [half, half]]])


@pytest.mark.parametrize("name", ["continuous", "nameless"])
def test_a_group_without_a_name_is_said_and_nothing_is_declared(made: Callable[[str], Made], name: str) -> None:
    m = made(name)
    assert all("action" not in e for e in m.entries.values())
    said = " ".join(m.export.source.notes)
    assert "no action is declared for block1" in said
    assert "geed-onnx has no name for the group of" in said


def test_plain_tensors_declare_nothing(made: Callable[[str], Made]) -> None:
    e = made("cyclic").entries
    assert "action" not in e["mean"]
    assert "action" not in e["head"]


# ------------------------------------------------------------------------------------------------ measured by geed-onnx


@pytest.mark.parametrize(("name", "group"), [("cyclic", "C4"), ("dihedral", "flip"), ("flip", "flip")])
def test_round_trip_measured_naively_equals_escnns_own_activations(
    made: Callable[[str], Made], tmp_path: Path, name: str, group: str
) -> None:
    m = made(name)
    bare = replace(m.export, taps=tuple(replace(t, action=None) for t in m.export.taps if "#" not in t.name))
    path = tmp_path / "bare.onnx"
    write(bare, path, check=False)
    assert check(path, lambda x: ours(m.loaded.model, x), m.images, group=group) >= 4


@pytest.mark.parametrize(
    ("name", "group"), [("cyclic", "C4"), ("dihedral", "D4"), ("irreducible", "C4"), ("flip", "flip")]
)
def test_geed_onnx_reads_the_declared_action_as_exactly_equivariant(
    made: Callable[[str], Made], name: str, group: str
) -> None:
    m = made(name)
    results = [
        r
        for r in measure(m.path, m.images, group, samples="all", spread_samples=4, reference_samples=0)
        if r.variant == "channelwise"
    ]
    assert len(results) >= 4
    assert [r.tap["name"] for r in results if r.value is None or abs(r.value + 1) > 1e-5] == []


# -------------------------------------------------------------------------------------------------- the paper's network


def test_the_small_c8_cnn_is_exact_at_quarter_turns_and_close_between(small: tuple[Path, Any]) -> None:
    path, _ = small
    x = smooth_images(4, 1, 29)
    upright = theirs(path, x)
    e = entries(path)
    for g in (2, 4, 6):
        ran = theirs(path, pixels("C8", g, x))
        for tap in BLOCKS:
            assert cosine(ran[tap], moved(e[tap]["action"], g, upright[tap])) > 1 - 1e-5, (tap, g)
            assert cosine(ran[tap], pixels("C8", g, upright[tap])) < 0.9, (tap, g)
        assert relative(ran["latent"], upright["latent"]) < 1e-4


def test_the_papers_c8_cnn_has_its_widths_and_odd_sizes() -> None:
    loaded = load("escnn:c8-cnn")
    shapes = {c.module: c.shape for c in candidates(loaded)}
    assert [shapes[b] for b in BLOCKS] == [
        (192, 25, 25), (384, 25, 25), (384, 13, 13), (768, 13, 13), (768, 7, 7), (512, 5, 5),
    ]  # fmt: skip
    assert [shapes[p] for p in ("pool1", "pool2", "pool3", "invariant")] == [
        (384, 13, 13), (768, 7, 7), (512, 1, 1), (64, 1, 1),
    ]  # fmt: skip
    kernels = [getattr(loaded.model, b).conv.kernel_size for b in BLOCKS]
    assert kernels == [7, 5, 5, 5, 5, 5]


def test_the_papers_c8_cnn_is_measured_by_the_command_line(tmp_path: Path) -> None:
    """Section 4.1, random weights: −1.000 at quarter turns in every block, above .9 between, and far off naively."""
    path, data = tmp_path / "c8-cnn.onnx", Path(__file__).parents[3] / "models" / "shipped" / "digits-test.parquet"
    written = write(export_escnn(load("escnn:c8-cnn")), path)
    assert set(written.taps) >= {*BLOCKS, "latent", "scores"}

    def measured(*more: str) -> list[dict[str, Any]]:
        ask = ["measure", path, "--data", data, "--group", "C8", "--mask", "disc", "--samples", "4", "--json", *more]
        done = subprocess.run([sys.executable, "-m", "geed_onnx", *map(str, ask)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    rows = measured()
    assert all(r["value"] is not None or r["reason"] for r in rows)
    maps = {r["tap"]["name"]: r["per_element"] for r in rows if r["variant"] == "channelwise"}
    naive = {r["tap"]["name"]: r["per_element"] for r in measured("--no-declared-action", "--variant", "channelwise")}
    assert set(maps) == set(naive) == set(BLOCKS)
    for block in BLOCKS:
        assert max(maps[block][g] for g in (2, 4, 6)) < -0.9999, block
        assert max(maps[block][g] for g in (1, 3, 5, 7)) < -0.9, block
        assert max(naive[block][1:]) > -0.85, block
    path.unlink()  # 150 MB


def test_metadata_says_what_the_file_is(small: tuple[Path, Any]) -> None:
    path, _ = small
    model = onnx.load(str(path))
    metadata = {p.key: p.value for p in model.metadata_props}
    assert metadata["geed.schema"] == "1"
    assert json.loads(metadata["geed.input"]) == {
        "name": "image", "layout": "NCHW", "size": [29, 29], "channels": 1, "colour": "grey", "range": [0.0, 1.0],
        "mean": [0.0], "std": [1.0],
    }  # fmt: skip
    source = json.loads(metadata["geed.source"])
    assert source["framework"] == "escnn"
    assert source["version"] == f"{escnn.__version__}, torch {torch.__version__.split('+')[0]}"
    assert source["model"] == "escnn:c8-cnn-small"
    assert source["weights"] == "random"
    taps = json.loads(metadata["geed.taps"])
    assert [t["name"] for t in taps] == [*BLOCKS, "latent", "scores"]
    assert [t["kind"] for t in taps] == ["map"] * 6 + ["vector", "probability"]
    assert [t["role"] for t in taps] == ["stage"] * 6 + ["latent", "scores"]
    assert all(t["layout"] == "NCHW" for t in taps[:6])
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_a_small_file_stays_below_a_megabyte(small: tuple[Path, Any]) -> None:
    assert small[0].stat().st_size < 1_000_000


def test_geed_onnx_taps_shows_the_module_paths(small: tuple[Path, Any]) -> None:
    path, loaded = small
    ran = subprocess.run(
        [sys.executable, "-m", "geed_onnx", "taps", str(path), "--json"], capture_output=True, text=True, check=True
    )
    shown = {entry["module"] for entry in map(json.loads, ran.stdout.splitlines()) if entry.get("module")}
    paths = {name for name, _ in loaded.model.named_modules()}
    assert {*BLOCKS, "latent", "scores"} <= shown
    assert shown <= paths


def test_no_path_of_this_machine_is_in_the_file(small: tuple[Path, Any], made: Callable[[str], Made]) -> None:
    for path in (small[0], made("irreducible").path):
        content = path.read_bytes()
        for trace in (str(Path.cwd()), "site-packages", str(Path(__file__).parent), str(Path.home()), 'File "'):
            assert trace.encode() not in content, (path, trace)


# --------------------------------------------------------------------------------------------------------- verification


def test_a_sabotaged_graph_is_refused_and_leaves_no_file(made: Callable[[str], Made], tmp_path: Path) -> None:
    export = made("cyclic").export
    model = onnx.ModelProto()
    model.CopyFrom(export.model)
    weight = next(w for w in model.graph.initializer if w.name == "block2.conv.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    path = tmp_path / "sabotaged.onnx"
    # no tap further on: there the head's bias may cancel most of the value, and more than 1 % of what is left differs
    taps = tuple(tap for tap in export.taps if tap.name == "block2.conv")
    with pytest.raises(Differs, match=r"differs from the framework: worst is 'block2.conv', by 1.0e-02 relative"):
        write(replace(export, model=model, taps=taps), path)
    assert list(tmp_path.iterdir()) == []


def test_the_reference_is_escnns_forward_pass_and_not_the_torch_form(
    made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where escnn's own `export()` were wrong, verification would see it."""
    m = made("cyclic")
    export = m.export
    kind = type(m.loaded.model.block2.conv)
    honest = kind.export

    def wrong(self: Any) -> Any:
        conv = honest(self)
        conv.weight.data = conv.weight.data.flip(2)
        return conv

    monkeypatch.setattr(kind, "export", wrong)
    bad = export_escnn(m.loaded, taps=["block2"])
    with pytest.raises(Differs):
        write(bad, m.path.parent / "bad.onnx")
    assert not (m.path.parent / "bad.onnx").exists()
    assert relative(bad.reference(m.images)["block2"], export.reference(m.images)["block2"]) == 0
