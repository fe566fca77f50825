"""G-EED from a framework's own activations, in a page of NumPy that imports nothing of the project but `measure`.

`check` measures an exported file with geed-onnx and holds every value against the one computed here from what the
framework itself says, for groups that act exactly on a square grid (C4, flip).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MOVES: dict[str, list[Callable[[Array], Array]]] = {
    "C4": [lambda a, k=k: np.rot90(a, k, axes=(-2, -1)) for k in range(4)],
    "flip": [lambda a: a, lambda a: a[..., ::-1]],
}


def cosine(a: Array, b: Array) -> Array:
    """Cosine over the last axis; two zero vectors are equal, one alone is orthogonal."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    both = (np.linalg.norm(a, axis=-1) == 0) & (np.linalg.norm(b, axis=-1) == 0)
    return np.where(both, 1.0, (a * b).sum(-1) / np.where(norms == 0, 1.0, norms))


def values(orbit: Array, moves: list[Callable[[Array], Array]], kind: str) -> dict[str, float]:
    """Return {variant: value} from `(N, |G|, …)`: maps in (C, H, W), vectors, or scores (logits or probabilities)."""
    y = orbit.astype(np.float64)
    n, order = y.shape[:2]
    if kind == "map":
        if y.shape[-2:] == (1, 1):  # a turn does nothing here: the kernel is the whole group
            centre = [y.mean(1)] * order
        else:
            centre = [move(y[:, 0]) for move in moves]
        flat = [
            cosine(y[:, g].reshape(n, y.shape[2], -1), centre[g].reshape(n, y.shape[2], -1)).mean()
            for g in range(order)
        ]
        return {"channelwise": -float(np.mean(flat))}
    y = y.reshape(n, order, -1)
    if kind == "probability":
        if not (np.abs(y.sum(-1) - 1) < 1e-3).all() or (y < 0).any():
            y = np.exp(y - y.max(-1, keepdims=True))
            y /= y.sum(-1, keepdims=True)
        mean = y.mean(1, keepdims=True)
        terms = np.where(y > 0, y * (np.log(np.where(y > 0, y, 1)) - np.log(np.where(mean > 0, mean, 1))), 0)
        return {"softmax": float(terms.sum(-1).mean())}
    mean = y.mean(1, keepdims=True)
    i, j = np.triu_indices(n, 1)
    points = y[:, 0]
    distance = np.linalg.norm(points[i] - points[j], axis=-1).mean()
    alike = cosine(points[i], points[j]).mean()
    c = cosine(y, np.broadcast_to(mean, y.shape)).mean()
    return {
        "latent-l2": float(np.linalg.norm(y - mean, axis=-1).mean() / distance),
        "latent-cosine": float(-c / alike),
        "latent-cosine-bounded": float((1 - c) / (1 - alike)),
    }


def check(
    path: Path,
    activations: Callable[[Array], Mapping[str, Array]],
    images: Array,
    *,
    group: str = "C4",
    tolerance: float = 1e-4,
    taps: list[str] | None = None,
) -> int:
    """Hold `geed-onnx measure` of the file against the framework; return how many values were compared.

    `images` `(N, …)` are in the file's layout; `activations` gives the framework's own `{tap: array}` for them, in the
    file's layout. Values are compared relative to the larger of 1 and the value.
    """
    import json

    import onnx

    from geed_onnx.engine import measure

    declared = {p.key: p.value for p in onnx.load(str(path), load_external_data=False).metadata_props}
    entries = {e["name"]: e for e in json.loads(declared["geed.taps"])}
    nhwc = json.loads(declared["geed.input"]).get("layout") == "NHWC"
    moves = MOVES[group]

    def moved(x: Array, g: int) -> Array:
        return np.moveaxis(moves[g](np.moveaxis(x, -1, 1)), 1, -1) if nhwc else moves[g](x)

    orbits = [activations(np.ascontiguousarray(moved(images, g))) for g in range(len(moves))]
    results = measure(path, images, group, taps=taps, samples="all", spread_samples=len(images), reference_samples=0)
    wrong, compared = [], 0
    for result in results:
        name, kind = result.tap["name"], result.tap["kind"]
        orbit = np.stack([np.asarray(acts[name]) for acts in orbits], axis=1)
        if kind == "map" and entries[name]["layout"] == "NHWC":
            orbit = np.moveaxis(orbit, -1, 2)
        expected = values(orbit, moves, kind)[result.variant]
        compared += 1
        if result.value is None and result.variant == "latent-cosine" and "not told from 0" in str(result.reason):
            continue  # so few images do not tell the mean similarity that it is divided by
        if result.value is None or not abs(result.value - expected) <= tolerance * max(1.0, abs(expected)):
            wrong.append(f"{name} {result.variant}: geed-onnx {result.value}, framework {expected} ({result.reason})")
    assert not wrong, "\n".join(wrong)
    assert compared, "nothing was measured"
    return compared
