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
    if group == "flipxflip":  # not faithful: its elements are pairs, and both flips move the same
        return [("turn", 0, 1, a != b) for a in (False, True) for b in (False, True)]
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


def product(group: Sequence[Element], g: int, h: int) -> int:
    """The place of gh, h moving first."""
    a, b = group[g], group[h]
    if a[0] == "upside":
        found: Element = ("upside", a[1] != b[1])
    elif a[0] == "roll":
        found = ("roll", (a[1] + b[1]) % a[3], (a[2] + b[2]) % a[4], a[3], a[4])
    else:
        found = ("turn", (a[1] + (-b[1] if a[3] else b[1])) % a[2], a[2], a[3] != b[3])
    return list(group).index(found)


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
    floor_per_element: list[float]
    null_per_element: list[float]
    without: dict[str, tuple[float, float]]
    """by unit: the value and the calibrated value without it; NaN where nothing is left"""


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum())


def blocks_of(
    indices: Sequence[int], seed: int, count: int | None, units: dict[int, str] | None = None
) -> list[list[int]]:
    """The reference images in blocks of 16 or a few more, dealt out from a seeded permutation of the sorted sample.

    Those of one unit are dealt out one after the other, into as many blocks as the largest unit has images.
    """
    permuted = [sorted(indices)[i] for i in np.random.default_rng(seed).permutation(len(indices))][:count]
    number = max(1, len(permuted) // 16)
    if units is not None:
        order = list(dict.fromkeys(units[i] for i in permuted))
        permuted.sort(key=lambda i: order.index(units[i]))
        number = max(number, *(sum(units[i] == u for i in permuted) for u in order))
    return [permuted[b::number] for b in range(number)]


def steps_of(group: Sequence[Element], anchored: bool, n: int) -> list[int]:
    """How far on in its block of n an element's image stands: one on where f̂ is f(x), else each motion has its own."""
    motions = list(dict.fromkeys(group))
    ranks = [motions.index(g) for g in group]
    if anchored:
        ranks = [min(r, 1) for r in ranks]
    return [0 if r == 0 or n < 2 else 1 + (r - 1) % (n - 1) for r in ranks]


def geed(
    network: Callable[[Array], dict[str, Array]],
    images: Sequence[Array],
    group: str,
    tap: str,
    variant: str,
    *,
    spread: Sequence[int] = (),
    action: str | OutputAction | None = None,
    logits: bool = False,
    floor_passes: bool = False,
    reference: int | None = None,
    seed: int = 0,
    mask: bool = False,
    only: Sequence[int] | None = None,
    sample: Sequence[int] | None = None,
    units: dict[int, str] | None = None,
    jackknife: bool = False,
    pixels: bool | None = None,
) -> Reading:
    """One number and what stands beside it, for `images` (each (C, H, W)) at the places `sample` (all by default).

    `variant` is a name or KIND:ACTION:DISTANCE; `logits` says that the tap passes through a softmax first;
    `floor_passes` asks for the floor of an action that moves no pixels, from f(g⁻¹(g x)); `only` leaves the other
    elements out of every mean over the group but f̂; `spread` holds the places of M's points; `units` says which images
    are left out together; `jackknife` asks for all numbers without each unit; `pixels` says whether an action that is
    no text moves pixels.
    """
    kind, own_action, distance, normaliser = (
        VARIANTS[variant] if variant in VARIANTS else (*variant.split(":"), None)  # type: ignore[misc]
    )
    action = action or own_action
    stated = action not in ("trivial", "pixels")
    pixels = "pixels" in action if isinstance(action, str) else bool(pixels)
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

    stated = stated and len(ker) < len(G)
    anchored = len(ker) == 1
    sample = list(range(len(images)) if sample is None else sample)
    columns = list(range(len(G)) if only is None else only)

    orbits = {i: [f(move(g, images[i], mask)) for g in G] for i in sample}
    single = {i: orbits[i][0] if i in orbits else f(move(G[0], images[i], mask)) for i in spread}

    def statistic(orbit: Sequence[Array | None]) -> list[float | None] | None:
        """m(f(gx), g·f̂(x)) of eq. (4) by element, f̂ of eq. (2) over what is there; None for what is not."""
        there = [orbit[k] for k in ker if orbit[k] is not None]
        if not there:
            return None
        centre = sum(there[1:], there[0]) / len(there)
        return [None if y is None else m(y, act(g, centre)) for y, g in zip(orbit, G, strict=True)]

    blocks = [b for b in blocks_of(sample, seed, reference, units) if len(b) > 1]
    near = [i for b in blocks for i in b]
    quadratic = distance in ("negative-cosine", "channelwise", "channelwise-correlation", "kl", "jensen-shannon")

    @cache
    def own_row(i: int) -> list[float | None]:
        return statistic(orbits[i]) or []

    @cache
    def floor_row(i: int) -> list[float]:
        if floor_passes and not pixels:
            back = [act(g, f(move(inverse(g), move(g, images[i], mask), mask))) for g in G]
            row = statistic(back)
            return [m_equal + (float(d) - m_equal) * (0.25 if quadratic else 0.5) for d in row or ()]
        centre = sum((orbits[i][k] for k in ker[1:]), orbits[i][ker[0]]) / len(ker)
        return [m(act(inverse(g), act(g, centre)), centre) for g in G]

    def null_rows(left_out: frozenset[int]) -> list[list[float | None]]:
        """Every broken orbit that is left, its elements of the images left out being None."""
        rows = []
        for block in blocks:
            steps = steps_of(G, anchored, len(block))
            for p, i in enumerate(block):
                # of two images nothing can be formed again without one: what is left would be held against itself
                if i in left_out and len(set(steps)) == 2:
                    continue
                orbit: list[Array | None] = []
                for g, s in enumerate(steps):
                    q = (p + s) % len(block)
                    h = q % len(G) if stated and s else 0
                    orbit.append(None if block[q] in left_out else orbits[block[q]][product(G, g, h)])
                if (row := statistic(orbit)) is not None:
                    rows.append(row)
        return rows

    def by_column(rows: Sequence[Sequence[float | None]]) -> list[float]:
        means = []
        for g in columns:
            column = [row[g] for row in rows if row[g] is not None]
            means.append(sum(column) / len(column) if column else math.nan)
        return means

    def all_of(left_out: frozenset[int]) -> tuple[float, float, float | None, list[list[float]]]:
        """Value, calibrated value, M and the three tables by column, without some images."""
        M = None
        if normaliser is not None:
            points = [single[i] for i in spread if i not in left_out]
            total, pairs = 0.0, 0
            for a, p in enumerate(points):
                for q in points[a + 1 :]:
                    total += l2(p, q) if normaliser == "l2" else cosine(p, q)
                    pairs += 1
            M = total / pairs if pairs else math.nan

        def normalised(mean: float) -> float:
            if M is None:
                return mean
            return (1 + mean) / (1 - M) if normaliser == "cosine-bounded" else mean / M

        tables = [
            by_column([own_row(i) for i in sample if i not in left_out]),
            by_column([floor_row(i) for i in near if i not in left_out]),
            by_column(null_rows(left_out)),
        ]
        value, floor, null = (normalised(sum(t) / len(t)) for t in tables)
        scaled = [[normalised(v) for v in t] for t in tables]
        return value, (value - floor) / (null - floor) if null != floor else math.nan, M, scaled

    value, calibrated, M, tables = all_of(frozenset())
    without = {}
    if jackknife:
        groups: dict[str, set[int]] = {}
        for i in {*sample, *(spread if normaliser else ())}:
            groups.setdefault((units or {}).get(i, str(i)), set()).add(i)
        without = {name: all_of(frozenset(members))[:2] for name, members in groups.items()}
    optimum = m_equal
    if M is not None:
        optimum = (1 + m_equal) / (1 - M) if normaliser == "cosine-bounded" else m_equal / M

    return Reading(
        value=value,
        per_element=tables[0],
        optimum=optimum,
        spread=M,
        floor=sum(tables[1]) / len(tables[1]),
        null=sum(tables[2]) / len(tables[2]),
        calibrated=calibrated,
        kernel=ker,
        floor_per_element=tables[1],
        null_per_element=tables[2],
        without=without,
    )
