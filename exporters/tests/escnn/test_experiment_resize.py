"""Robustness, odd and even sizes: the networks of section 4.1 with the same weights at other input sizes."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from declared_actions import entries, smooth_images
from escnn.nn.modules.masking_module import build_mask
from torch import nn

from experiments.augmentation.train import Family, exported, steerable
from experiments.images import Images, padded, write_images
from experiments.robustness import resize
from experiments.robustness.resize import SIZES, Step, gaussian, keeps_centre, left, resized, steps
from geed_exporters import write
from geed_onnx import measure
from models.digits_cnn import DigitsCNN

FAMILIES: tuple[Family, ...] = get_args(Family)
EVERY = tuple(range(20, 60))


def untrained(family: Family) -> nn.Module:
    """A network with random weights that tells images apart: each batch norm has the statistics of what it meets."""
    torch.manual_seed(0)
    net = DigitsCNN() if family == "cnn" else steerable()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean over all batches, here one
    with torch.no_grad():
        net.train()(torch.from_numpy(pictures(29, 16)))
    return net.eval()


@pytest.fixture(scope="module", params=FAMILIES)
def ended(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Path, nn.Module]:
    """A work folder with a training that has ended, as experiments/trials.py leaves it."""
    family: Family = request.param
    work = tmp_path_factory.mktemp(family)
    folder = work / "models/augmentation" / f"{family}-3"
    net = untrained(family)
    recipe = {"seed": 3, "steps": 7}
    write(exported(family, net, recipe), folder / "final.onnx")
    torch.save({"step": 7, "recipe": recipe, "parts": {"net": net.state_dict()}}, folder / "state.pt")
    (folder / "done.json").write_text("{}")
    return family, work, net


def ran(path: Path, x: Any) -> dict[str, Any]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))


def pictures(size: int, count: int = 4) -> Any:
    """Images `(count, 1, size, size)` in 0..1, of no symmetry."""
    x = smooth_images(count, 1, size)
    low, high = x.min((1, 2, 3), keepdims=True), x.max((1, 2, 3), keepdims=True)
    return ((x - low) / (high - low)).astype(np.float32)


# ------------------------------------------------------------------------------------------------ the same network


@pytest.mark.slow
def test_at_the_size_it_was_trained_at_it_is_the_trainings_own_file(ended: tuple[Family, Path, nn.Module]) -> None:
    family, work, _ = ended
    (path,) = resize.resize(family, 3, work, (29,))
    assert path == work / "models/robustness" / f"{family}-29" / "3.onnx"
    final = work / "models/augmentation" / f"{family}-3" / "final.onnx"
    own, again = ran(final, pictures(29)), ran(path, pictures(29))
    assert set(own) == set(again) == {*(f"block{i}" for i in range(1, 7)), "latent", "scores"}
    for tap in own:
        assert np.abs(own[tap]).max() > 0.01
        assert np.abs(again[tap] - own[tap]).max() <= 1e-6 * np.abs(own[tap]).max(), tap
    assert entries(path) == entries(final)


def slow(net: nn.Module, x: torch.Tensor) -> Any:
    """Class probabilities of images of any size, the C8-CNN's mask and last pooling written out."""
    if isinstance(net, DigitsCNN):
        return net(x).numpy()
    image: Any = build_mask(x.shape[-1], margin=1) * x
    y: Any = net.image_type(image)  # type: ignore[operator]
    for i in range(1, 7):
        block: Any = net.get_submodule(f"block{i}")
        y = block.relu(block.norm(block.conv(y)))
        y = net.get_submodule(f"pool{i // 2}")(y) if i in (2, 4) else y
    maps = y.tensor.numpy().astype(np.float64)
    middle = (maps.shape[-1] - 1) / 2
    near = np.exp([-((j - middle) ** 2) / (2 * 0.66**2) for j in range(maps.shape[-1])])
    near /= near.sum()
    fields = np.einsum("bchw,h,w->bc", maps, near, near).reshape(len(maps), -1, 8).max(2)
    found: Any = net.latent[1:](torch.from_numpy(fields.astype(np.float32)))  # type: ignore[index]
    return net.scores(net.classifier(found)).numpy()  # type: ignore[operator]


@pytest.mark.slow
def test_every_size_is_the_same_weights_and_says_its_size(ended: tuple[Family, Path, nn.Module]) -> None:
    family, work, net = ended
    for size in (27, 33):
        (path,) = resize.resize(family, 3, work, (size,)) or [work / f"models/robustness/{family}-{size}/3.onnx"]
        metadata = {p.key: json.loads(p.value) for p in onnx.load(str(path)).metadata_props if p.value[0] == "{"}
        assert metadata["geed.input"]["size"] == [size, size]
        assert metadata["geed.source"]["weights"] == {"seed": 3, "steps": 7, "size": size}
        x = pictures(size)
        with torch.no_grad():
            wanted = slow(net, torch.from_numpy(x))
        assert np.ptp(wanted, axis=0).max() > 1e-4  # the images do not all look alike to it
        assert np.abs(ran(path, x)["scores"] - wanted).max() < 1e-6


@pytest.mark.slow
def test_files_are_written_once_and_again_after_another_training(ended: tuple[Family, Path, nn.Module]) -> None:
    family, work, _ = ended
    path = work / f"models/robustness/{family}-27/3.onnx"
    state = work / "models/augmentation" / f"{family}-3" / "state.pt"
    path.unlink(missing_ok=True)
    assert resize.resize(family, 3, work, (27,)) == [path]
    assert resize.resize(family, 3, work, (27,)) == []
    earlier, later = state.stat().st_mtime, path.stat().st_mtime + 10
    os.utime(state, (later, later))
    assert resize.resize(family, 3, work, (27,)) == [path]
    os.utime(state, (earlier, earlier))


def test_a_training_that_has_not_ended_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cnn-0 holds no training that has ended; run python -m experiments"):
        resize.resize("cnn", 0, tmp_path, (29,))


@pytest.mark.slow
def test_digits_meet_every_size_unscaled(ended: tuple[Family, Path, nn.Module], tmp_path: Path) -> None:
    """The digits as they come, through the file's own preprocessing, and the same arrays padded or cut by hand."""
    family, work, _ = ended
    draw = np.random.default_rng(0)
    digits = Images(draw.integers(0, 256, (6, 28, 28)).astype(np.uint8), np.zeros(6, np.int64), np.arange(6))
    write_images(digits, tmp_path / "digits.parquet", "digit")
    for size in (27, 33):
        resize.resize(family, 3, work, (size,))
        path = work / "models/robustness" / f"{family}-{size}" / "3.onnx"
        by_hand = padded(digits, size) if size >= 28 else Images(digits.pixels[:, :27, :27], digits.labels, digits.rows)
        np.save(tmp_path / "by_hand.npy", by_hand.batch())
        found, wanted = (
            measure(path, tmp_path / data, "C4", taps=["scores"], samples="all", spread_samples=4, reference_samples=0)
            for data in ("digits.parquet", "by_hand.npy")
        )
        assert len(found) == len(wanted) >= 1
        for ours, theirs in zip(found, wanted, strict=True):
            assert ours.value is not None
            assert ours.value == pytest.approx(theirs.value, rel=1e-5)


# ------------------------------------------------------------------------------------ which sizes keep the centre


@pytest.mark.parametrize("family", FAMILIES)
def test_strides_keep_the_centre_where_the_size_is_1_more_than_a_multiple_of_4(family: Family) -> None:
    way = steps(untrained(family))
    assert len(way) == 8
    assert [s.stride for s in way].count(2) == 2
    assert [n for n in EVERY if keeps_centre(n, way)] == [n for n in EVERY if n % 4 == 1]
    assert [n for n in SIZES if keeps_centre(n, way)] == [29, 33]


def test_a_step_is_what_torch_does() -> None:
    """Its size; and a symmetric kernel reads the frame symmetrically where, and only where, nothing is left over."""
    seen = set()
    for kernel, stride, padding, size in itertools.product((1, 3, 4, 5), (1, 2, 3), (0, 1, 2), (9, 10, 11)):
        step = Step(kernel, stride, padding)
        conv = nn.Conv2d(1, 1, kernel, stride, padding, bias=False)
        conv.weight.data[0, 0] = gaussian(kernel, 1.0)
        x = torch.zeros(1, 1, size, size, requires_grad=True)
        out = conv(x)
        assert out.shape[-1] == step.after(size)
        (read,) = torch.autograd.grad(out.sum(), x)
        symmetric = bool(torch.allclose(read, torch.rot90(read, 2, (2, 3)), atol=1e-6))
        assert symmetric == (step.spare(size) == 0), (step, size)
        seen.add(symmetric)
    assert seen == {True, False}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_steps_are_the_networks_own(family: Family) -> None:
    net = untrained(family)
    for size in SIZES:
        resized(net, size)
        seen: list[int] = []
        hook = net.get_submodule("block6").register_forward_hook(
            lambda module, args, out, seen=seen: seen.append(getattr(out, "tensor", out).shape[-1])
        )
        with torch.no_grad():
            assert net(torch.zeros(1, 1, size, size)).shape == (1, 9)
        hook.remove()
        assert seen == [left(size, steps(net))]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_of_symmetric_filters_is_exact_at_those_sizes_and_at_no_other(family: Family) -> None:
    """The C8-CNN by construction; the CNN with each filter replaced by its mean over the quarter turns."""
    net = untrained(family)
    if family == "cnn":
        for i in range(1, 7):
            conv: Any = net.get_submodule(f"block{i}").conv
            conv.weight.data = sum(torch.rot90(conv.weight.data, k, (2, 3)) for k in range(4)) / 4  # type: ignore[assignment]
    way = steps(net)
    off = {}
    for size in SIZES:
        resized(net, size)
        x = torch.from_numpy(pictures(size))
        with torch.no_grad():
            upright, right = (net.logits(t) for t in (x, torch.rot90(x, 1, (2, 3))))
            between = upright - upright.mean(0)
        # against how far images lie apart: a network that answers all of them alike would be exact too
        off[size] = float((right - upright).abs().max() / between.abs().max())
    exact = [n for n in SIZES if keeps_centre(n, way)]
    assert exact == [29, 33]
    assert max(off[n] for n in exact) < 1e-4, off
    assert min(off[n] for n in SIZES if n not in exact) > 1e-2, off


def test_the_last_pooling_is_its_own_at_29_and_symmetric_at_every_size() -> None:
    net = untrained("c8-cnn")
    own: Any = net.get_submodule("pool3").filter.clone()
    resized(net, 29)
    assert torch.allclose(net.get_submodule("pool3").filter, own, atol=1e-7)
    for width in (4, 5, 6):
        blur = gaussian(width, 0.66)
        assert blur.sum() == pytest.approx(1, abs=1e-6)
        assert torch.equal(blur, torch.rot90(blur))


def test_replacing_leaves_the_weights_alone() -> None:
    net = untrained("c8-cnn")
    before = {k: v.clone() for k, v in net.state_dict().items() if "mask" not in k and "pool3" not in k}
    resized(net, 33)
    after = net.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert after["block1.mask.mask"].shape == (1, 1, 33, 33)


def test_the_digits_that_are_written_are_those_of_section_41(tmp_path: Path) -> None:
    shared = Path(__file__).parents[3] / ".." / "shared"
    if not (shared / "data").is_dir():
        pytest.skip("the data sets are not here")
    import pyarrow.parquet as pq

    from experiments.augmentation import train

    train.prepare(shared, tmp_path)
    ours = pq.read_table(resize.prepare(shared, tmp_path))
    assert ours["id"].equals(pq.read_table(tmp_path / "data/rotated-mnist.parquet")["id"])
    assert len(ours) == 2000
