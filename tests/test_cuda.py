"""Everything specific to CUDA: it runs where there is a device, and says why it was skipped where there is none.

All tests and figures for a GPU are here and in `benchmarks/`: `pytest tests/test_cuda.py -m gpu -rs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_nets as nets
import pytest

from geed_onnx import measure
from geed_onnx.errors import ProviderError
from geed_onnx.sessions import RuntimeOptions, open_session, resolve_provider
from geed_onnx.sessions.providers import CUDA, cuda_driver
from geed_onnx.taps import choose_taps, image_input, read_graph


def why_not() -> str | None:
    """Return why CUDA cannot be tested here, or None."""
    if cuda_driver() is not None:
        return f"needs a CUDA device: {cuda_driver()}"
    try:
        resolve_provider("cuda")
    except ProviderError as error:
        return f"needs ONNX Runtime's CUDA provider: {error}"
    return None


needs_cuda = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(nets.cnn(size=29, channels=(8, 16)), path)
    return path


def session_of(model: Path, **options: Any) -> Any:
    graph = read_graph(model)
    return open_session(graph, choose_taps(graph), image_input(graph), RuntimeOptions(**options))


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 1, 29, 29), dtype=np.float32)


@pytest.mark.gpu
@needs_cuda
def test_cuda_is_obtained_and_recorded(model: Path) -> None:
    results = measure(model, images(8), "C8", samples="all", provider="cuda")
    assert {r.runtime["provider"] for r in results} == {CUDA}
    assert not results[0].runtime["tf32"]


@pytest.mark.gpu
@needs_cuda
def test_auto_takes_cuda_where_a_driver_is_present(model: Path) -> None:
    assert session_of(model, provider="auto").facts.provider == CUDA


@pytest.mark.gpu
@needs_cuda
def test_cuda_and_cpu_tell_the_same(model: Path) -> None:
    here = measure(model, images(12), "C8", samples="all", provider="cuda")
    there = measure(model, images(12), "C8", samples="all", provider="cpu")
    for a, b in zip(here, there, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-3, abs=1e-4), (a.tap["name"], a.variant)


@pytest.mark.gpu
@needs_cuda
def test_tf32_only_where_asked(model: Path) -> None:
    assert session_of(model, provider="cuda", tf32=True).facts.tf32
    exact, cpu = session_of(model, provider="cuda"), session_of(model, provider="cpu")
    x = images(16)
    a, b = exact.run(x), cpu.run(x)
    for name in a:
        assert np.abs(a[name] - b[name]).max() <= 1e-4 * max(np.abs(b[name]).max(), 1e-6), name


@pytest.mark.gpu
@needs_cuda
def test_reused_buffers_hold_the_last_batch_only(model: Path) -> None:
    session = session_of(model, provider="cuda")
    first, second = images(8, 1), images(8, 2)
    a = {k: v.copy() for k, v in session.run(first).items()}
    kept = session.run(first)
    session.run(second)
    for name in a:
        np.testing.assert_array_equal(kept[name], a[name])
        assert not np.array_equal(session.run(second)[name], a[name])


@pytest.mark.skipif(cuda_driver() is None, reason="there is a CUDA device here")
def test_without_a_driver_cuda_is_refused_and_auto_is_the_cpu(model: Path) -> None:
    with pytest.raises(ProviderError, match="cuda"):
        session_of(model, provider="cuda")
    assert session_of(model, provider="auto").facts.provider == "CPUExecutionProvider"
