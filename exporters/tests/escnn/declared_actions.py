"""What a declared action means, read from its description in a page of NumPy, apart from exporter and engine alike.

Element k of C_n turns a picture counter-clockwise by 360k/n degrees; element n+k of D_n is that turn after a left-right
flip; element 1 of `flip` is the left-right flip.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Array = np.ndarray[Any, Any]


def entries(path: Path) -> dict[str, dict[str, Any]]:
    """Return {tap: its entry in geed.taps}."""
    metadata = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    return {entry["name"]: entry for entry in json.loads(metadata["geed.taps"])}


def order(group: str) -> int:
    """Number of elements."""
    return 2 if group.startswith("flip") else int(group[1:]) * (2 if group[0] == "D" else 1)


def product(group: str, g: int, h: int) -> int:
    """Element gh, h first."""
    if group.startswith("flip"):
        return (g + h) % 2
    n = int(group[1:])
    (fg, kg), (fh, kh) = divmod(g, n), divmod(h, n)
    return (kg + (-kh if fg else kh)) % n + n * ((fg + fh) % 2)


def generators(group: str) -> list[int]:
    """In the order in which permutations and matrices are given: rotation, then reflection."""
    if group.startswith("flip"):
        return [1]
    return [1] if group[0] == "C" else [1, int(group[1:])]


def block(group: str, entry: dict[str, Any], g: int) -> Array:
    """Return what element g does to the channels of one field."""
    n = order(group)
    if entry["type"] == "trivial":
        return np.eye(1)
    if entry["type"] in ("regular", "quotient"):
        subgroup = entry.get("subgroup", [0])
        cosets = sorted({tuple(sorted(product(group, h, s) for s in subgroup)) for h in range(n)})
        matrix = np.zeros((len(cosets), len(cosets)))
        for j, coset in enumerate(cosets):
            goes = tuple(sorted(product(group, g, h) for h in coset))
            matrix[cosets.index(goes), j] = 1
        return matrix
    steps = {}
    for s, given in zip(generators(group), entry["generators"], strict=True):
        m = np.array(given, dtype=float)
        steps[s] = np.eye(len(m))[given] if entry["type"] == "permutation" else m
    at, matrix = 0, np.eye(len(next(iter(steps.values()))))
    for s in word(group, g):
        at, matrix = product(group, at, s), matrix @ steps[s]
    assert at == g
    return matrix


def word(group: str, g: int) -> list[int]:
    """Return the generators whose product is g."""
    if group.startswith("flip") or group[0] == "C":
        return [1] * g
    flip, turns = divmod(g, int(group[1:]))
    return [1] * turns + [int(group[1:])] * flip


def channels(action: dict[str, Any], g: int) -> Array:
    """Return the matrix by which element g moves the channels of a tap."""
    blocks = [block(action["group"], f, g) for f in action["fields"] for _ in range(f["count"])]
    whole = np.zeros((sum(map(len, blocks)),) * 2)
    at = 0
    for b in blocks:
        whole[at : at + len(b), at : at + len(b)] = b
        at += len(b)
    return whole


def exact(group: str) -> list[int]:
    """Return the elements that permute the pixels of a square."""
    if group.startswith("flip"):
        return [0, 1]
    n = int(group[1:])
    return [g for g in range(order(group)) if (g % n) * 4 % n == 0]


def pixels(group: str, g: int, x: Array) -> Array:
    """Move the last two axes as element g moves a picture; g is one of `exact`."""
    if group == "flip-ud":
        return x[..., ::-1, :] if g else x
    if group == "flip":
        return x[..., ::-1] if g else x
    n = int(group[1:])
    flipped = x[..., ::-1] if g >= n else x
    return np.rot90(flipped, (g % n) * 4 // n, axes=(-2, -1))


def moved(action: dict[str, Any], g: int, x: Array) -> Array:
    """Return ρ(g) x of a map `(B, C, H, W)`."""
    return np.einsum("cd,bdhw->bchw", channels(action, g), pixels(action["group"], g, x))


def cosine(a: Array, b: Array) -> float:
    """Return the mean cosine over images and channels; channels that are zero on both sides count as equal."""
    u, v = (np.asarray(x, dtype=np.float64).reshape(*x.shape[:2], -1) for x in (a, b))
    long = np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1)
    both = (np.linalg.norm(u, axis=-1) < 1e-12) & (np.linalg.norm(v, axis=-1) < 1e-12)
    return float(np.where(both, 1.0, (u * v).sum(-1) / np.where(long == 0, 1.0, long)).mean())


def smooth_images(count: int, channels_: int, size: int, seed: int = 0) -> Array:
    """Return smoothly random images `(count, C, size, size)` without a symmetry of their own, in about 0..1."""
    draw = np.random.default_rng(seed)
    at = np.linspace(-1, 1, size)
    x = np.zeros((count, channels_, size, size))
    for _ in range(6):
        a, b, phase = draw.normal(0, 3, (3, count, channels_, 1, 1))
        x += draw.normal(size=(count, channels_, 1, 1)) * np.cos(a * at[:, None] + b * at + phase * math.pi)
    return (0.5 + x / 8).astype(np.float32)
