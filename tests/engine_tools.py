"""What the tests of the engine share: images, a small network in NumPy, `measure` with its records checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from geed_onnx import CallableSession, Result, measure
from geed_onnx.engine import measure_request
from geed_onnx.requests import request_of
from geed_onnx.results import from_json

Array = np.ndarray[Any, Any]
Function = Callable[[Array], dict[str, Array]]


def noise(count: int, size: int = 8, channels: int = 1, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((count, channels, size, size)).astype(np.float32)


def measured(*args: Any, **options: Any) -> list[Result]:
    """`measure`, and every Result as a strict JSON line that reads back as it was."""
    results = measure(*args, **options)
    for result in results:
        line = result.to_json()
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} in a line"))
        assert from_json(line) == result
        assert from_json(line).to_json() == line
    return results


def saved(model: onnx.ModelProto, folder: Path) -> str:
    path = folder / "net.onnx"
    onnx.save(model, str(path))
    return str(path)


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def small_net(x: Array) -> dict[str, Array]:
    """Three taps `map`, `latent`, `scores` of (B, 1, H, W), row by row: no row's output depends on the batch."""
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=(3, 1, 1, 1)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)
    maps, latents, scores = [], [], []
    for row in x:
        slope = np.maximum(row - np.roll(row, 1, axis=1) * 0.5 + a[:, 0] * 0.3 * row**2, 0)
        latent = b @ slope.reshape(3, -1).max(axis=1) + b @ slope[:, :2].reshape(3, -1).mean(axis=1)
        maps.append(slope)
        latents.append(latent)
        scores.append(softmax(3 * latent[None])[0])
    return {"map": np.stack(maps), "latent": np.stack(latents), "scores": np.stack(scores)}


SMALL_TAPS = ["map:map", "latent:vector", "scores:probability"]


def numbers(result: Result, *without: str) -> dict[str, Any]:
    """Everything that is a number of the measurement."""
    names = ("value", "low", "high", "optimum", "spread", "floor", "null", "calibrated", "calibrated_low")
    names += ("calibrated_high", "per_element", "sensitivity", "zero_channels", "law_defect", "reason", "parts")
    return {n: getattr(result, n) for n in names if n not in without}


def tables(model: Any, data: Any, group: str, **settings: Any) -> list[dict[str, list[float]]]:
    """The deviations {image: per element} of every cell."""
    taps = SMALL_TAPS if isinstance(model, CallableSession) else None
    request = request_of(model, data, group, taps=taps, provider="cpu", skip_bad=True, **settings)
    found = [m.deviations for m in measure_request(request)]
    return [dict(zip(d.ids, d.values.tolist(), strict=True)) for d in found]
