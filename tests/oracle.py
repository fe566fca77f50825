"""A slow, plain implementation of the mathematics of G-EED, to hold the library against. It imports nothing of it.

One image at a time through ONNX Runtime, one Python loop per sum, rotations as dense matrices of bilinear weights.
Equation numbers are those of Kvinge et al. (2022). Images and maps are `(C, H, W)` float64 here, whatever the file has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

Array = np.ndarray[Any, Any]
Element = tuple[Any, ...]  # ("turn", k, n, flipped) or ("upside", flipped) or ("roll", a, b, k, l)


# ── the group, its action on pixels ──────────────────────────────────────────────────────────────────────────────────
def elements(group: str) -> list[Element]:
    """The elements of C<n>, D<n>, flip, flip-ud, T<k>, identity first."""
    if group == "flip":
        return [("turn", 0, 1, False), ("turn", 0, 1, True)]
    if group == "flip-ud":
        return [("upside", False), ("upside", True)]
    n = int(group[1:])
    if group[0] == "C":
        return [("turn", k, n, False) for k in range(n)]
    if group[0] == "D":
        return [("turn", k, n, False) for k in range(n)] + [("turn", k, n, True) for k in range(n)]
    return [("roll", a, b, n, n) for a in range(n) for b in range(n)]


def inverse(g: Element) -> Element:
    if g[0] == "turn":
        return g if g[3] else ("turn", -g[1] % g[2], g[2], False)  # a reflection undoes itself
    if g[0] == "roll":
        return ("roll", -g[1] % g[3], -g[2] % g[4], g[3], g[4])
    return g


def exact(g: Element) -> bool:
    """Whether g only permutes the pixels of a grid: all but turns by no multiple of 90 degrees."""
    return g[0] != "turn" or 4 * g[1] % g[2] == 0


@cache
def bilinear(size: int, k: int, n: int) -> Array:
    """Weights (size², size²) of a counter-clockwise turn by 360k/n degrees about the centre; outside is 0."""
    angle, centre = 2 * math.pi * k / n, size / 2
    weights = np.zeros((size * size, size * size))
    for row in range(size):
        for column in range(size):
            # where the value at this pixel's centre comes from; `up` counts against the rows
            right, up = column + 0.5 - centre, centre - (row + 0.5)
            right, up = right * math.cos(angle) + up * math.sin(angle), up * math.cos(angle) - right * math.sin(angle)
            y, x = centre - up - 0.5, right + centre - 0.5
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    if 0 <= i < size and 0 <= j < size:
                        weights[row * size + column, i * size + j] += (1 - abs(y - i)) * (1 - abs(x - j))
    return weights


def disc(image: Array) -> Array:
    """The image (C, H, W) with everything outside the inscribed disc set to 0."""
    out = image.copy()
    height, width = image.shape[-2:]
    for i in range(height):
        for j in range(width):
            if math.hypot(i + 0.5 - height / 2, j + 0.5 - width / 2) > min(height, width) / 2:
                out[..., i, j] = 0
    return out


def move(g: Element, image: Array, mask: bool = False) -> Array:
    """g·x for x (C, H, W): one resampling of x."""
    x = disc(image) if mask else image
    if g[0] == "upside":
        x = x[:, ::-1, :] if g[1] else x
    elif g[0] == "roll":
        height, width = x.shape[1:]
        x = np.roll(x, (g[1] * height // g[3], g[2] * width // g[4]), (1, 2))
    else:
        _, k, n, flipped = g
        x = x[:, :, ::-1] if flipped else x
        if 4 * k % n == 0:
            x = np.rot90(x, 4 * k // n, (1, 2))
        else:
            channels, size, other = x.shape
            assert size == other
            x = (x.reshape(channels, -1) @ bilinear(size, k, n).T).reshape(x.shape)
    return disc(x) if mask else np.ascontiguousarray(x)


# ── the output action, its kernel ────────────────────────────────────────────────────────────────────────────────────
OutputAction = Callable[[Element, Array], Array]


def output_action(text: str, mask: bool = False) -> OutputAction:
    """`trivial`, `pixels`, `permute:AXIS:…[;…]`, `roll:AXIS:STEPS`; several joined by `+` act one after the other.

    AXIS counts the batch as 0, as `--act` does.
    """

    def one(part: str) -> OutputAction:
        if part == "trivial":
            return lambda g, y: y
        if part == "pixels":
            return lambda g, y: move(g, y, mask)
        word, number, rest = part.split(":")
        axis = int(number) - 1  # y has no batch here

        def rotation_once(y: Array) -> Array:
            if word == "roll":
                return np.roll(y, int(rest), axis)
            return np.take(y, [int(c) for c in rest.split(";")[0].split(",")], axis)

        def reflection(y: Array) -> Array:
            return np.take(y, [int(c) for c in rest.split(";")[-1].split(",")], axis)

        def act(g: Element, y: Array) -> Array:
            if g[0] == "upside" or g[2] == 1:  # the one generator of a group of order 2
                return rotation_once(y) if g[-1] else y
            y = reflection(y) if g[3] else y
            for _ in range(g[1]):
                y = rotation_once(y)
            return y

        return act

    parts = [one(p) for p in text.split("+")]

    def composed(g: Element, y: Array) -> Array:
        for part in parts:
            y = part(g, y)
        return y

    return composed


def declared(declaration: dict[str, Any], mask: bool = False) -> OutputAction:
    """The action that `geed.taps` declares by fields, for C<n> and D<n>: one matrix an element, built from products.

    An element of D<n> is (a, f): f left-right flips, then a turns; it is number a + n·f.
    """
    n, reflects = int(declaration["group"][1:]), declaration["group"][0] == "D"
    members = [(a, f) for f in range(1 + reflects) for a in range(n)]

    def times(p: tuple[int, int], q: tuple[int, int]) -> tuple[int, int]:
        return (p[0] + (-q[0] if p[1] else q[0])) % n, (p[1] + q[1]) % 2

    def block(entry: dict[str, Any], g: tuple[int, int]) -> Array:
        word = entry["type"]
        if word == "trivial":
            return np.eye(1)
        if word in ("regular", "quotient"):
            H = [members[i] for i in entry.get("subgroup", [0])]
            cosets: list[frozenset[tuple[int, int]]] = []
            for m in members:
                coset = frozenset(times(m, h) for h in H)
                if coset not in cosets:
                    cosets.append(coset)
            out = np.zeros((len(cosets), len(cosets)))
            for i, coset in enumerate(cosets):
                out[cosets.index(frozenset(times(g, m) for m in coset)), i] = 1
            return out
        gens = [np.asarray(m, dtype=float) for m in entry["generators"]]
        if word == "permutation":
            gens = [np.eye(len(m))[m.astype(int)] for m in gens]
        out = np.linalg.matrix_power(gens[0], g[0])
        return out @ gens[1] if g[1] else out

    def act(g: Element, y: Array) -> Array:
        _, k, of, flipped = g
        assert (k * n) % of == 0
        element = (k * n // of, int(flipped))
        blocks = [block(e, element) for e in declaration["fields"] for _ in range(e.get("count", 1))]
        width = sum(len(b) for b in blocks)
        whole, start = np.zeros((width, width)), 0
        for b in blocks:
            whole[start : start + len(b), start : start + len(b)] = b
            start += len(b)
        place = np.eye(width)[
            :, list(declaration.get("order", range(width)))
        ]  # entry i of the fields → channel order[i]
        mixed = np.tensordot(place @ whole @ place.T, y, axes=1)
        return move(g, mixed, mask) if declaration.get("pixels", y.ndim == 3) else mixed

    return act


def kernel(act: OutputAction, group: Sequence[Element], shape: tuple[int, ...]) -> list[int]:
    """The elements that leave every array of that shape alone; almost surely those that leave a random one alone."""
    probe = act(group[0], np.random.default_rng(7).normal(size=shape))
    return [i for i, g in enumerate(group) if np.allclose(act(g, probe), probe, atol=1e-12)]


# ── distances: bigger is less equivariant ────────────────────────────────────────────────────────────────────────────
def l2(a: Array, b: Array) -> float:
    return math.sqrt(sum((float(p) - float(q)) ** 2 for p, q in zip(a.ravel(), b.ravel(), strict=True)))


def cosine(a: Array, b: Array) -> float:
    a, b = a.ravel(), b.ravel()
    zeros = (not a.any()) + (not b.any())
    if zeros:
        return 1.0 if zeros == 2 else 0.0
    return float(np.dot(a, b) / math.sqrt(float(np.dot(a, a)) * float(np.dot(b, b))))


def channelwise(a: Array, b: Array) -> float:
    """Equation (5)."""
    return -sum(cosine(p, q) for p, q in zip(a, b, strict=True)) / len(a)


def channelwise_correlation(a: Array, b: Array) -> float:
    return -sum(cosine(p - p.mean(), q - q.mean()) for p, q in zip(a, b, strict=True)) / len(a)


def kl(p: Array, q: Array) -> float:
    return sum(float(s * math.log(s / t)) for s, t in zip(p, q, strict=True) if s > 0)


def jensen_shannon(p: Array, q: Array) -> float:
    return kl(p, (p + q) / 2) / 2 + kl(q, (p + q) / 2) / 2


DISTANCES: dict[str, tuple[Callable[[Array, Array], float], float]] = {
    "l2": (l2, 0.0),
    "negative-cosine": (lambda a, b: -cosine(a, b), -1.0),
    "channelwise": (channelwise, -1.0),
    "channelwise-correlation": (channelwise_correlation, -1.0),
    "kl": (kl, 0.0),
    "jensen-shannon": (jensen_shannon, 0.0),
    "total-variation": (lambda p, q: float(np.abs(p - q).sum()) / 2, 0.0),
    "disagreement": (lambda p, q: float(np.argmax(p) != np.argmax(q)), 0.0),
    "relative-l2": (lambda a, b: l2(a, b) / l2(b, np.zeros_like(b)), 0.0),
}
# name: (kind, output action, distance, what divides)
VARIANTS = {
    "channelwise": ("map", "pixels", "channelwise", None),
    "latent-l2": ("vector", "trivial", "l2", "l2"),
    "latent-cosine": ("vector", "trivial", "negative-cosine", "cosine"),
    "latent-cosine-bounded": ("vector", "trivial", "negative-cosine", "cosine-bounded"),
    "softmax": ("probability", "trivial", "kl", None),
}


# ── the network ──────────────────────────────────────────────────────────────────────────────────────────────────────
class Network:
    """An ONNX file run on single images (C, H, W); the tensors in `taps` become outputs. Every answer is kept."""

    def __init__(self, model: onnx.ModelProto | str | Path, taps: Sequence[str], layout: str = "NCHW") -> None:
        proto = onnx.ModelProto()
        proto.CopyFrom(model if isinstance(model, onnx.ModelProto) else onnx.load(str(model)))
        known = {o.name for o in proto.graph.output}
        for tap in taps:
            if tap not in known:
                proto.graph.output.append(onnx.ValueInfoProto(name=tap))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0]
        self.taps, self.layout = list(taps), layout
        self.kept: dict[bytes, dict[str, Array]] = {}

    def __call__(self, image: Array) -> dict[str, Array]:
        """{tap: (C, H, W) or (D,)} in float64."""
        key = image.tobytes()
        if key not in self.kept:
            x = image.transpose(1, 2, 0) if self.layout == "NHWC" else image
            x = x[None].astype(np.float16 if "float16" in self.input.type else np.float32)
            answers = self.session.run(self.taps, {self.input.name: x})
            kept = {}
            for name, y in zip(self.taps, answers, strict=True):
                y = y[0].astype(np.float64)
                kept[name] = y.transpose(2, 0, 1) if y.ndim == 3 and self.layout == "NHWC" else y
            self.kept[key] = kept
        return self.kept[key]


@dataclass(frozen=True)
class Reading:
    """What the oracle reads for one tap and variant; None where it was not asked for or there is none."""

    value: float
    per_element: list[float]
    optimum: float
    spread: float | None
    floor: float
    null: float
    calibrated: float
    kernel: list[int]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum())


def geed(
    network: Callable[[Array], dict[str, Array]],
    images: Sequence[Array],
    group: str,
    tap: str,
    variant: str,
    *,
    spread: Sequence[Array] = (),
    action: str | OutputAction | None = None,
    logits: bool = False,
    floor_passes: bool = False,
    reference: int = 16,
    mask: bool = False,
    only: Sequence[int] | None = None,
) -> Reading:
    """One number and what stands beside it, for `images` (each (C, H, W)) in the sample's order.

    `variant` is a name or KIND:ACTION:DISTANCE; `logits` says that the tap passes through a softmax first;
    `floor_passes` asks for the floor of an action that moves no pixels, from f(g⁻¹(g x)); `only` leaves the other
    elements out of every mean over the group but f̂.
    """
    kind, own_action, distance, normaliser = (
        VARIANTS[variant] if variant in VARIANTS else (*variant.split(":"), None)  # type: ignore[misc]
    )
    action = action or own_action
    act = output_action(action, mask) if isinstance(action, str) else action
    m, m_equal = DISTANCES[distance]
    G = elements(group)

    def f(x: Array) -> Array:
        y = network(x)[tap]
        if kind == "probability":
            y = softmax(y.ravel()) if logits else y.ravel()
        elif kind == "vector":
            y = y.ravel()
        return disc(y) if mask and kind == "map" else y

    shape = f(move(G[0], images[0], mask)).shape
    ker = kernel(act, G, shape)

    def mean_over_kernel(orbit: Sequence[Array]) -> Array:
        """f̂, eq. (2)."""
        total = np.zeros(shape)
        for k in ker:
            total = total + orbit[k]
        return total / len(ker)

    def statistic(orbits: Sequence[Sequence[Array]]) -> list[list[float]]:
        """m(f(gx), g·f̂(x)) of eq. (4), per image and element."""
        table = []
        for orbit in orbits:
            centre = mean_over_kernel(orbit)
            table.append([m(orbit[i], act(g, centre)) for i, g in enumerate(G)])
        return table

    M = None
    if normaliser is not None:
        points = [f(move(G[0], x, mask)) for x in spread]
        total, pairs = 0.0, 0
        for i in range(len(points)):
            for j in range(i + 1, len(points)):
                total += l2(points[i], points[j]) if normaliser == "l2" else cosine(points[i], points[j])
                pairs += 1
        M = total / pairs

    def normalised(mean: float) -> float:
        if M is None:
            return mean
        return (1 + mean) / (1 - M) if normaliser == "cosine-bounded" else mean / M

    def mean(table: Sequence[Sequence[float]]) -> float:
        kept = [[row[g] for g in (range(len(row)) if only is None else only)] for row in table]
        return normalised(sum(sum(row) for row in kept) / sum(len(row) for row in kept))

    orbits = [[f(move(g, x, mask)) for g in G] for x in images]
    deviations = statistic(orbits)
    value, optimum = mean(deviations), normalised(m_equal)

    near = range(min(reference, len(images)))
    if floor_passes and action != "pixels":  # ρ(g) loses nothing, but g⁻¹(g x) is not x: the same statistic on it
        back = [[act(g, f(move(inverse(g), move(g, images[i], mask), mask))) for g in G] for i in near]
        floor = mean(statistic(back))
    else:
        lost = []
        for i in near:
            centre = mean_over_kernel(orbits[i])
            lost.append([m(act(inverse(g), act(g, centre)), centre) for g in G])
        floor = mean(lost)
    null = mean(statistic([[orbits[(i + g) % len(near)][g] for g in range(len(G))] for i in near]))

    return Reading(
        value=value,
        per_element=[normalised(sum(row[g] for row in deviations) / len(deviations)) for g in range(len(G))],
        optimum=optimum,
        spread=M,
        floor=floor,
        null=null,
        calibrated=(value - floor) / (null - floor) if null != floor else math.nan,
        kernel=ker,
    )
