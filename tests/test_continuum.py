"""Networks that are equivariant in the continuum read 0 within ±0.05: the systematic error of the calibrated scale.

C8 and default settings, on digits and on photographs of 29 to 224 pixels. Where nothing is sampled these networks do
not deviate at all, so what they read is how much of the grid's part the floor leaves in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from continuum_nets import NETWORKS, InNumPy, graph, on_odd_sizes
from engine_tools import saved
from onnxruntime import InferenceSession
from PIL import Image

from geed_onnx import Result, measure
from geed_onnx.sources import open_source

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "models" / "shipped" / "digits-test.parquet"
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "imagenet-samples" / "crop224"
SYSTEMATIC = 0.05
"""how far from 0 the scale may read a network that is as equivariant as a network can be: DESIGN, the floor"""

Array = npt.NDArray[Any]


def digits(size: int, count: int) -> Array:
    """Return shipped digits `(count, 1, size, size)` in 0..1, magnified where they are smaller."""
    source = open_source(str(DIGITS))
    return batch([Image.fromarray(np.asarray(raw).squeeze()) for _, raw in source.items(range(count))], size)


def photographs(size: int, count: int) -> Array:
    """Return photographs `(count, 3, size, size)` in 0..1, from all over the classes."""
    files = sorted(PHOTOGRAPHS.iterdir()) if PHOTOGRAPHS.is_dir() else []
    if len(files) < count:
        pytest.skip(f"there are no photographs in {PHOTOGRAPHS}")
    chosen = files[:: len(files) // count][:count]
    return batch([Image.open(f).convert("RGB") for f in chosen], size)


def batch(images: list[Image.Image], size: int) -> Array:
    pixels = [np.asarray(i.resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255 for i in images]
    return np.stack([p[None] if p.ndim == 2 else p.transpose(2, 0, 1) for p in pixels])


def names(size: int) -> list[str]:
    return [n for n in NETWORKS if size % 2 or not on_odd_sizes(n)]


def calibrated(images: Array, group: str = "C8", **options: Any) -> dict[str, Result]:
    """Measure every network at once, each as a map of its own."""
    size = images.shape[-1]

    def all_of_them(x: Array) -> dict[str, Array]:
        return {n: NETWORKS[n](InNumPy(), x) for n in names(size)}

    # `all`: these images, and not a sample of them
    return {str(r.tap["name"]): r for r in measure(all_of_them, images, group, samples="all", **options)}


def holds(found: dict[str, Result]) -> None:
    """Hold every network to the systematic error, all of them in one message."""
    unread = {n: r.calibrated_reason or r.reason for n, r in found.items() if r.calibrated is None}
    assert not unread
    beyond = {n: r.calibrated for n, r in found.items() if abs(r.calibrated or 0) > SYSTEMATIC}
    assert not beyond, f"beyond ±{SYSTEMATIC}: {beyond}"


@pytest.mark.parametrize(
    "size", [29, pytest.param(64, marks=pytest.mark.slow), pytest.param(113, marks=pytest.mark.slow)]
)
def test_on_digits(size: int) -> None:
    holds(calibrated(digits(size, 32)))


@pytest.mark.parametrize(
    "size", [29, 32, pytest.param(65, marks=pytest.mark.slow), pytest.param(96, marks=pytest.mark.slow)]
)
def test_on_photographs(size: int) -> None:
    holds(calibrated(photographs(size, 32)))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "count"), [(128, 16), (224, 12)])
def test_on_large_photographs(size: int, count: int) -> None:
    holds(calibrated(photographs(size, count)))


@pytest.mark.slow
@pytest.mark.parametrize("size", [29, 128])
def test_on_photographs_about_their_mean(size: int) -> None:
    """Normalised images: features of either sign, and an edge at the disc that is none in the data."""
    images = photographs(size, 16)
    holds(calibrated((images - images.mean()) / images.std()))


def test_quarter_turns_are_exact() -> None:
    """What commutes with quarter turns on the grid itself has its optimum, without a floor to take out."""
    for r in calibrated(digits(29, 8), "D4").values():
        assert r.value == pytest.approx(-1, abs=1e-6)
        assert r.floor == -1


def test_without_the_disc_corners_are_lost() -> None:
    """The paper's own reading, whole frames: there and back loses corners that the value never lost."""
    found = calibrated(photographs(29, 32), mask="none")["identity"]
    assert found.value == -1
    assert found.calibrated is not None
    assert found.calibrated < -0.2


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_the_same_in_numpy_and_as_a_graph(name: str, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(3, 2, 15, 15)).astype(np.float32)
    path = saved(graph(name, 15, channels=2), tmp_path)
    [ran] = InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(NETWORKS[name](InNumPy(), x), ran, atol=2e-6)


def test_a_file_reads_what_the_callable_does(tmp_path: Path) -> None:
    images = digits(29, 12)
    expected = calibrated(images)["two layers"]
    path = saved(graph("two layers", 29), tmp_path)
    [result] = measure(path, images, "C8", taps=["map:map"], samples="all")
    assert result.calibrated == pytest.approx(expected.calibrated, abs=1e-4)
