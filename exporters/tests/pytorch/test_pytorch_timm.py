"""Every family of timm that was tried, every module tapped: the file computes what torch computes, to 1e-5."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest
import small_networks as nets
import torch
from torch import nn

from geed_exporters import Facts, InputSpec, Written, select, write
from geed_exporters.pytorch import Loaded, candidates, export_pytorch, load
from geed_exporters.pytorch.stubs import import_timm
from geed_onnx.taps import list_taps, read_graph

#: family: (model, size of the images, modules that it has)
FAMILIES = {
    "resnet": ("resnet18", 64),
    "levit": ("levit_128s", 64),
    "levit_conv": ("levit_conv_128s", 64),
    "vit": ("vit_tiny_patch16_224", 32),
    "swin": ("swin_tiny_patch4_window7_224", 64),
    "densenet": ("densenet121", 64),
    "mobilenetv3": ("mobilenetv3_small_050", 64),
    "efficientnet": ("efficientnet_b0", 64),
    "convnext": ("convnext_atto", 64),
}


class Family(NamedTuple):
    loaded: Loaded
    path: Path
    written: Written
    called: list[str]
    """Modules that give a float tensor with the batch first, counted by hooks of the test's own."""


def called_modules(model: nn.Module, size: int) -> list[str]:
    found: list[str] = []

    def hook(path: str) -> Any:
        def add(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim > 1 and len(output) == 5 and path not in found:
                found.append(path)

        return add

    handles = [m.register_forward_hook(hook(p)) for p, m in model.named_modules() if p]
    with torch.no_grad():
        model(torch.zeros(5, 3, size, size))  # 5: no other axis has that length, so it is the batch
    for handle in handles:
        handle.remove()
    return found


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    name, size = FAMILIES[request.param]
    loaded = load(f"timm:{name}", facts=Facts(size=(size, size)))
    nets.with_statistics(loaded.model)
    path = tmp_path_factory.mktemp(request.param) / f"{name}.onnx"
    written = write(export_pytorch(loaded, taps=["*"]), path, tolerance=1e-5)
    yield Family(loaded, path, written, called_modules(loaded.model, size))
    path.unlink()


def test_every_module_agrees(family: Family, record_property: Any) -> None:
    agreement = family.written.agreement
    assert agreement is not None
    assert agreement.batches == (1, 3)
    assert 0 < agreement.difference <= 1e-5
    record_property("taps", len(family.written.taps))
    record_property("worst", agreement.difference)
    print(f"| {family.path.stem} | {len(family.written.taps)} | {agreement.difference:.1e} | {agreement.tap} |")
    missing = set(family.called) - set(family.written.taps)
    assert len(family.called) > 40
    assert not missing


def test_geed_onnx_lists_every_module(family: Family) -> None:
    graph = read_graph(family.path)
    listed = {t.name: t.module for t in list_taps(graph)}
    assert {name: listed.get(name) for name in family.written.taps} == {name: name for name in family.written.taps}


def test_layouts_are_those_that_the_graph_tells(family: Family, tmp_path: Path) -> None:
    model = onnx.load(str(family.path))
    declared = {t["name"]: t["layout"] for t in json.loads(_metadata(model)["geed.taps"]) if t["kind"] == "map"}
    del model.metadata_props[:]
    bare = tmp_path / "bare.onnx"
    onnx.save(model, str(bare))
    graph = read_graph(bare)
    told = {t.name: t.layout for t in list_taps(graph)}
    both = {n: layout for n, layout in declared.items() if layout is not None and told.get(n) is not None}
    assert both
    assert {n: told[n] for n in both} == both


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {p.key: p.value for p in model.metadata_props}


# ------------------------------------------------------------------------------------------------ what timm itself says


@pytest.mark.parametrize(
    ("name", "stages", "latent", "scores", "width"),
    [
        ("resnet50", [f"layer{i + 1}.{n}" for i, n in enumerate((2, 3, 5, 2))], "global_pool", "fc", 2048),
        ("vit_tiny_patch16_224", [f"blocks.{i}" for i in range(12)], "fc_norm", "head", 192),
        ("levit_128s", None, "head.input", "output", 384),
        ("mobilenetv3_small_050", None, "flatten", "classifier", 1024),
    ],
)
def test_default_taps(name: str, stages: list[str] | None, latent: str, scores: str, width: int) -> None:
    size = 224 if name.startswith("vit") else 64
    chosen = select(candidates(load(f"timm:{name}", facts=Facts(size=(size, size)))))
    by_role = {role: [c for c in chosen if c.role == role] for role in ("stage", "latent", "scores")}
    assert [c.module for c in by_role["latent"]] == [latent]
    assert by_role["latent"][0].shape[0] == width
    assert [c.module for c in by_role["scores"]] == [scores]
    found = [c.module for c in by_role["stage"]]
    assert 3 <= len(found) <= 12
    assert stages is None or found == stages
    if name == "levit_128s":  # a transformer behind a stem of convolutions
        assert all(len(c.shape) == 2 for c in by_role["stage"])


def test_without_classes_the_output_is_the_latent() -> None:
    from geed_exporters.pytorch.timm_models import load_timm

    chosen = select(candidates(load_timm("resnet10t", size=(64, 64), num_classes=0)))
    assert [(c.role, c.module) for c in chosen if c.role != "stage"] == [("latent", "global_pool")]


def test_the_preprocessing_is_timms() -> None:
    tagged = load("timm:resnet18.a1_in1k")
    assert tagged.input == InputSpec(
        name="image",
        shape=(3, 224, 224),
        layout="NCHW",
        colour="rgb",
        range=(0.0, 1.0),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        fit="crop",
        resize=235,  # floor(224 / 0.95)
        resample="bicubic",
    )
    assert (tagged.weights, tagged.notes) == ("random", ("random weights of seed 0",))
    grey = load("timm:resnet18", facts=Facts(size=(64, 64), channels=1))
    assert (grey.input.shape, grey.input.colour, grey.input.resize) == ((1, 64, 64), "grey", 67)
    assert grey.input.mean == pytest.approx((0.449,))
    other = load("timm:resnet18.a1_in1k", facts=Facts(colour="bgr", mean=(0.5,), latent="layer4"))
    assert other.input == replace(tagged.input, colour="bgr", mean=(0.5,))
    assert other.latent == "layer4"


def test_random_weights_are_the_same_every_time() -> None:
    first, second = (load("timm:resnet10t").model.state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_checkpoints_under_their_authors_names_are_translated(tmp_path: Path) -> None:
    source = load("timm:convnext_atto").model
    nn.init.normal_(source.stem[0].weight, generator=torch.Generator().manual_seed(3))
    theirs = {}
    for name, value in source.state_dict().items():
        # the names of the original repository
        name = name.replace("stem.0", "downsample_layers.0.0").replace("stem.1", "downsample_layers.0.1")
        for i in range(1, 4):
            name = name.replace(f"stages.{i}.downsample.", f"downsample_layers.{i}.")
        name = name.replace("blocks.", "").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        name = name.replace("head.fc", "head").replace("head.norm", "norm")
        theirs[name] = value
    path = tmp_path / "convnext.pth"
    torch.save({"model": theirs}, path)
    found = load("timm:convnext_atto", checkpoint=path).model.state_dict()
    assert all(torch.equal(found[k], v) for k, v in source.state_dict().items())


def test_timm_is_one_module_whoever_asks() -> None:
    assert import_timm() is import_timm()
