"""Every architecture of the paper: built, filled from checkpoints as they are found, exported, measured."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import paper_networks as nets
import pytest
import torch

from geed_exporters import ExportError, write
from geed_exporters.pytorch import Loaded, export_pytorch, load, paper
from geed_exporters.pytorch.alexnet import alexnet
from geed_exporters.pytorch.paper import ARCHITECTURES, load_paper
from geed_onnx.errors import UnknownName

WIDTHS = {
    "resnet50": 2048,
    "alexnet": 4096,
    "densenet121": 1024,
    "levit192": 384,
    "bit-resnetv2-101": 2048,
    "dino-resnet50": 2048,
    "simclr-resnet50": 2048,
    "dino-vits16": 384,
}
BLOCKS = {
    "resnet50": 16,
    "alexnet": 5,
    "densenet121": 7,
    "levit192": 12,
    "bit-resnetv2-101": 33,
    "dino-resnet50": 16,
    "simclr-resnet50": 16,
    "dino-vits16": 12,
}
HEADLESS = ("dino-resnet50", "simclr-resnet50", "dino-vits16")


def save_state(model: Any, path: Path) -> None:
    torch.save(model.state_dict(), path)


def save_as(prefix: str, *, key: str | None = None, beside: str | None = None) -> Callable[[Any, Path], None]:
    """Return a writer of a state dict with a prefix, under a key, with a projection head beside it."""

    def save(model: Any, path: Path) -> None:
        state = nets.prefixed(prefix, model.state_dict()) | (nets.head(beside) if beside else {})
        torch.save({"epoch": 3, key: state} if key else state, path)

    return save


def save_alexnet_for_several_gpus(model: Any, path: Path) -> None:
    state = {k.replace("features.", "features.module."): v for k, v in model.state_dict().items()}
    torch.save({"epoch": 90, "arch": "alexnet", "state_dict": state}, path)


def save_numbered(model: Any, path: Path) -> None:
    """The names of `Sequential(*list(resnet.children())[:-1])` inside a `backbone`."""
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    state = {}
    for key, value in model.state_dict().items():
        first, _, rest = key.partition(".")
        state[f"backbone.{numbers[first]}.{rest}"] = value
    torch.save({"state_dict": state | nets.head("projection_head.layers.")}, path)


def save_with_classifier(model: Any, path: Path) -> None:
    """A torchvision ResNet50 as a whole: a classifier that the network here has not."""
    classifier = {"fc.weight": torch.ones(1000, 2048), "fc.bias": torch.ones(1000)}
    torch.save(model.state_dict() | classifier, path)


#: network, writer, ending, what is said of it
FORMATS: list[tuple[str, Callable[[Any, Path], None], str, str]] = [
    ("resnet50", save_state, "pth", ""),
    ("resnet50", save_as("module.", key="state_dict"), "pth.tar", "'state_dict'"),
    ("alexnet", save_alexnet_for_several_gpus, "pth.tar", "'state_dict'"),
    ("densenet121", nets.save_torchvision_densenet, "pth", ""),
    ("levit192", nets.save_levit_of_linear_layers, "pth", "attention_bias_idxs"),
    ("levit192", nets.save_safetensors, "safetensors", ""),
    ("bit-resnetv2-101", nets.save_bit_arrays, "npz", ""),
    ("dino-resnet50", nets.save_dino, "pth", "'teacher'"),
    ("dino-resnet50", save_with_classifier, "pth", "fc.weight"),
    ("dino-vits16", nets.save_dino, "pth", "'student'"),
    ("dino-vits16", save_state, "pth", ""),
    ("simclr-resnet50", save_as("encoder.", key="state_dict", beside="projection.model."), "ckpt", "projection.model"),
    ("simclr-resnet50", save_as("encoder.", beside="projector."), "tar", "projector.0"),
    ("simclr-resnet50", save_as("convnet.", key="state_dict", beside="projection."), "pth.tar", "'convnet.'"),
    ("simclr-resnet50", save_as("backbone.", key="state_dict", beside="backbone.fc."), "pth.tar", "fc.0"),
    ("simclr-resnet50", save_as("module.encoder.", beside="module.projector."), "pth", "'module.encoder.'"),
    ("simclr-resnet50", nets.save_lightning, "ckpt", "'model.'"),
    ("simclr-resnet50", nets.save_vissl, "torch", "'trunk'"),
    ("simclr-resnet50", save_numbered, "ckpt", "projection_head"),
]
#: what the exported files below are filled from
WRITTEN_AS = {
    "resnet50": (save_state, "pth"),
    "alexnet": (save_state, "pth"),
    "densenet121": (nets.save_torchvision_densenet, "pth"),
    "levit192": (nets.save_levit_of_linear_layers, "pth"),
    "bit-resnetv2-101": (nets.save_bit_arrays, "npz"),
    "dino-resnet50": (nets.save_dino, "pth"),
    "simclr-resnet50": (nets.save_lightning, "ckpt"),
    "dino-vits16": (save_state, "pth"),
}


def equal(ours: Any, theirs: Any) -> bool:
    """Whether two networks have the same weights (counters of batches aside)."""
    a, b = ours.state_dict(), theirs.state_dict()
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a if not k.endswith("num_batches_tracked"))


# -------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(
    ("name", "save", "ending", "said"), FORMATS, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(FORMATS)]
)
def test_checkpoint_as_found_in_the_wild(
    name: str, save: Callable[[Any, Path], None], ending: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights.{ending}"
    source = nets.drawn(name)
    save(source, path)
    loaded = load(f"paper:{name}", checkpoint=path)
    assert equal(loaded.model, source)
    assert loaded.weights == {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert said in " ".join(loaded.notes)
    path.unlink()


def test_levit_of_convolutions_computes_what_levit_192_computes() -> None:
    from geed_exporters.pytorch.timm_models import load_timm

    ours, theirs = nets.drawn("levit192"), load_timm("levit_192").model
    shapes = {k: v.shape for k, v in theirs.state_dict().items()}
    theirs.load_state_dict({k: v.reshape(shapes[k]) for k, v in ours.state_dict().items()})
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = ours(x), theirs(x)
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save_state(nets.drawn("dino-vits16"), tmp_path / "vit.pth")
    with pytest.raises(ExportError, match=r"vit\.pth: 265 of the model's 318 weights are not in the file: conv1"):
        load_paper("simclr-resnet50", checkpoint=tmp_path / "vit.pth")


def test_bit_arrays_with_another_classifier_are_refused(tmp_path: Path) -> None:
    """timm itself would leave the random classifier in its place, without a word."""
    nets.save_bit_arrays(nets.drawn("bit-resnetv2-101"), tmp_path / "bit.npz", classes=10)
    with pytest.raises(ExportError, match=r"bit\.npz: expected a classifier of 1000 classes .*, got 10"):
        load_paper("bit-resnetv2-101", checkpoint=tmp_path / "bit.npz")


def test_arrays_that_are_no_bit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    with pytest.raises(ExportError, match=r"x\.npz: expected a classifier of 1000 classes .*, got none"):
        load_paper("bit-resnetv2-101", checkpoint=tmp_path / "x.npz")
    (tmp_path / "y.npz").write_bytes(b"no archive")
    with pytest.raises(ExportError, match=r"y\.npz: no \.npz of BiT for this network"):
        load_paper("bit-resnetv2-101", checkpoint=tmp_path / "y.npz")


# ------------------------------------------------------------------------------------------------------- other classes

#: the weights of the last layers, by network
CLASSIFIERS = {
    "resnet50": {"fc.weight", "fc.bias"},
    "alexnet": {"classifier.6.weight", "classifier.6.bias"},
    "densenet121": {"classifier.weight", "classifier.bias"},
    "levit192": {f"head{h}.linear.{w}" for h in ("", "_dist") for w in ("weight", "bias")},
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_checkpoint_of_nine_classes(name: str, tmp_path: Path) -> None:
    """The form in which the architecture is usually trained, its classifier replaced."""
    usual, source = load_paper(name).model.state_dict(), load_paper(name, classes=9).model
    changed = {k for k, v in source.state_dict().items() if v.shape != usual[k].shape}
    assert changed == CLASSIFIERS[name]
    assert all(len(source.state_dict()[k]) == 9 for k in changed)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.01)  # other than the random weights that it would have without the file
    save, ending = WRITTEN_AS[name]
    save(source, tmp_path / f"step200.{ending}")
    loaded = load(f"paper:{name}", checkpoint=tmp_path / f"step200.{ending}", classes=9)
    assert equal(loaded.model, source)
    with pytest.raises(ExportError, match=r"weights have another shape: .*expected \(1000,.*got \(9,"):
        load(f"paper:{name}", checkpoint=tmp_path / f"step200.{ending}")


def test_other_classes_of_a_model_of_timm() -> None:
    loaded = load("timm:resnet18", classes=9)
    assert tuple(loaded.model.fc.weight.shape) == (9, 512)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["paper:resnet50", "--pretrained"], "the pretrained classifier has classes of its own"),
        (["paper:dino-resnet50"], "paper:dino-resnet50 has no classifier"),
        (["paper:dino-vits16"], "paper:dino-vits16 has no classifier"),
        (["net.py:build"], "a factory makes its own classifier"),
    ],
)
def test_classes_where_they_cannot_be_meant(words: list[str], said: str) -> None:
    from click.testing import CliRunner

    from geed_exporters.cli import main as door

    result = CliRunner().invoke(door, ["pytorch", *words, "--classes", "9", "-o", "x.onnx"])
    assert result.exit_code == 2
    assert f"--classes: {said}" in result.output


# ----------------------------------------------------------------------------------------------------- usual sources


def test_pretrained_from_its_usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the right hash is fetched once; here from a folder in place of the authors' server."""
    source = nets.drawn("dino-resnet50")
    save_state(source, tmp_path / "there.pth")
    digest = hashlib.sha256((tmp_path / "there.pth").read_bytes()).hexdigest()
    place = paper.Download((tmp_path / "there.pth").as_uri(), "here.pth", digest[:8])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setitem(ARCHITECTURES, "dino-resnet50", replace(ARCHITECTURES["dino-resnet50"], weights=place))
    loaded = load("paper:dino-resnet50", pretrained=True)
    assert equal(loaded.model, source)
    assert loaded.weights == "pretrained"
    assert f"weights of {place.url}" in loaded.notes
    (tmp_path / "there.pth").unlink()
    assert equal(load("paper:dino-resnet50", pretrained=True).model, source)  # from torch's downloads

    wrong = replace(place, file="other.pth", sha256="00000000")
    (tmp_path / "hub" / "checkpoints" / "here.pth").rename(tmp_path / "there.pth")
    monkeypatch.setitem(ARCHITECTURES, "dino-resnet50", replace(ARCHITECTURES["dino-resnet50"], weights=wrong))
    with pytest.raises(ExportError, match=r"pretrained weights cannot be had.*hash.*--checkpoint other\.pth"):
        load("paper:dino-resnet50", pretrained=True)


@pytest.mark.parametrize("name", [n for n, a in ARCHITECTURES.items() if a.weights])
def test_no_network_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    def fails(*args: Any, **kwargs: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fails)
    weights = ARCHITECTURES[name].weights
    assert weights is not None
    with pytest.raises(ExportError) as raised:
        load(f"paper:{name}", pretrained=True)
    for part in (f"paper:{name}", weights.url, "no route to host", f"--checkpoint {weights.file}"):
        assert part in str(raised.value)


def test_unknown_architecture() -> None:
    with pytest.raises(UnknownName, match="unknown architecture of the paper 'resnet5': did you mean 'resnet50'"):
        load("paper:resnet5")


def test_alexnet_has_the_names_and_shapes_of_torchvision() -> None:
    shapes = {
        "features.0": (64, 3, 11, 11),
        "features.3": (192, 64, 5, 5),
        "features.6": (384, 192, 3, 3),
        "features.8": (256, 384, 3, 3),
        "features.10": (256, 256, 3, 3),
        "classifier.1": (4096, 9216),
        "classifier.4": (4096, 4096),
        "classifier.6": (1000, 4096),
    }
    state = alexnet().state_dict()
    expected = {f"{k}.weight": s for k, s in shapes.items()} | {f"{k}.bias": s[:1] for k, s in shapes.items()}
    assert {k: tuple(v.shape) for k, v in state.items()} == expected
    assert sum(v.numel() for v in state.values()) == 61_100_840  # what torchvision says of its own


def test_random_weights_of_bit_leave_room_for_rounding() -> None:
    """Of full size, 33 blocks between group norms let float32 alone pass 1e-4; a file could not be verified."""
    import copy

    model = load_paper("bit-resnetv2-101").model
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        single = model.forward_features(x)
        double = copy.deepcopy(model).double().forward_features(x.double())
    assert (single - double).abs().max() <= 2e-5 * double.abs().max()


# ----------------------------------------------------------------------------------------------------------- exports


class Exported(NamedTuple):
    name: str
    source: Any
    """The network whose weights the checkpoint holds."""
    loaded: Loaded
    path: Path
    difference: float


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """One export an architecture, its weights from a checkpoint; the file is gone afterwards."""
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    save, ending = WRITTEN_AS[name]
    checkpoint, source = folder / f"weights.{ending}", nets.drawn(name)
    save(source, checkpoint)
    loaded = load(f"paper:{name}", checkpoint=checkpoint)
    checkpoint.unlink()
    if name == "bit-resnetv2-101":  # convolutional: a smaller image saves time
        loaded = replace(loaded, input=replace(loaded.input, shape=(3, 160, 160)))
    scores = () if name in HEADLESS else ("scores",)
    path = folder / f"{name}.onnx"
    written = write(export_pytorch(loaded, taps=(*loaded.blocks, "latent", *scores)), path)
    assert written.agreement is not None
    print(f"\n{name}: {len(written.taps)} taps, worst {written.agreement}")
    yield Exported(name, source, loaded, path, written.agreement.difference)
    path.unlink()


def test_export_has_blocks_latent_and_scores(exported: Exported) -> None:
    name, _, loaded, path, difference = exported
    assert difference <= 1e-4
    model = onnx.load(str(path), load_external_data=False)
    declared = {p.key: p.value for p in model.metadata_props}
    taps = json.loads(declared["geed.taps"])
    roles = {t["module"]: t.get("role") for t in taps}
    shapes = {o.name: [d.dim_value for d in o.type.tensor_type.shape.dim[1:]] for o in model.graph.output}
    assert len(loaded.blocks) == BLOCKS[name]
    assert set(loaded.blocks) <= set(roles)
    latent = next(t for t in taps if t.get("role") == "latent")
    assert latent["name"] == loaded.latent
    assert latent["kind"] == "vector"
    assert int(np.prod(shapes[latent["name"]])) == WIDTHS[name]
    scores = [t for t in taps if t.get("role") == "scores"]
    assert [t["kind"] for t in scores] == ([] if name in HEADLESS else ["probability"])
    assert all(shapes[t["name"]] == [1000] for t in scores)
    blocks = [t for t in taps if t["module"] in loaded.blocks]
    maps = "vector" if name == "dino-vits16" else "map"  # a transformer's tokens are no map
    assert {t["kind"] for t in blocks} == {maps}
    # None: not certain from the modules alone; geed-onnx reads it from the graph
    assert {t["layout"] for t in blocks} <= ({"NCHW", None} if maps == "map" else {None})
    assert json.loads(declared["geed.source"])["model"] == f"paper:{name}"
    assert str(path.parent).encode() not in path.read_bytes()


def test_input_is_what_the_authors_do_to_an_image(exported: Exported) -> None:
    entry = exported.loaded.input.as_json()
    assert entry["layout"] == "NCHW"
    assert entry["fit"] == "crop"
    assert entry["range"] == [0.0, 1.0]
    if exported.name == "bit-resnetv2-101":
        assert entry["resize"] == 448
        assert entry["mean"] == entry["std"] == [0.5, 0.5, 0.5]
    else:
        assert entry["size"] == [224, 224]
        assert entry["resize"] == (248 if exported.name == "levit192" else 256)
        assert entry["mean"] == [0.485, 0.456, 0.406]
    bicubic = ("levit192", "dino-resnet50", "dino-vits16")
    assert entry["resample"] == ("bicubic" if exported.name in bicubic else "bilinear")


def test_file_computes_what_the_source_network_computes(exported: Exported) -> None:
    """The weights of the checkpoint are those of the file: outputs of another network object, batch of 2."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(7).standard_normal((2, *exported.loaded.input.shape)).astype(np.float32)
    ours = session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: x})[0]
    with torch.no_grad():
        theirs = exported.source(torch.from_numpy(x)).numpy()
    assert theirs.std() > 1e-3 * np.abs(theirs).max()  # the inputs tell in the output
    assert ours.reshape(theirs.shape) == pytest.approx(theirs, abs=1e-4 * float(np.abs(theirs).max()))


def test_measured_by_the_command(exported: Exported, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", smooth_images(6, exported.loaded.input.shape))
    words = f"measure {exported.path} --data {tmp_path / 'x.npy'} --group flip --samples 4 --spread-samples 6"
    words += " --reference-samples 2 --json"
    done = subprocess.run([sys.executable, "-m", "geed_onnx", *words.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    measured = {row["tap"]["name"] for row in rows}
    assert measured >= set(exported.loaded.blocks)
    for row in rows:
        assert row["value"] is not None or row["reason"], row
    variants = {row["variant"] for row in rows if row["value"] is not None}
    assert "latent-l2" in variants
    assert ("channelwise" in variants) == (exported.name != "dino-vits16")
    assert ("softmax" in variants) == (exported.name not in HEADLESS)


def smooth_images(count: int, shape: tuple[int, ...], seed: int = 3) -> np.ndarray:
    """Return `(count, C, H, W)` float32 of smooth random colours: eight waves a side, unit variance."""
    draw = np.random.default_rng(seed)
    c, h, w = shape
    coarse = draw.standard_normal((count, c, 8, 8)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=(h, w), mode="bicubic")
    return smooth.numpy()
