"""Which G-EED: kind of tap + output action + distance + normaliser; one formula serves them all.

::

    E = mean over x, g of m(f(gx), ρ_Y(g) f̂(x)),   f̂(x) = mean of f(kx) over k in ker ρ_Y          eqs. (2), (4)

The five of the paper have names; any other combination is written `KIND:ACTION:DISTANCE[:NORMALISER]`, as in
`map:pixels:relative-l2` or `vector:trivial:l2:spread-l2` (which is `latent-l2`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import special

from geed_onnx.actions import Action
from geed_onnx.distances import Distance, distances
from geed_onnx.errors import GeedError, UnknownName, UsageError
from geed_onnx.estimators import Normaliser, normalisers
from geed_onnx.registry import Registry

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
KINDS = ("map", "vector", "probability")
#: Values of one slice of channels of a large map: with its moved copy and both in float64 it fits the cache.
SLICE_VALUES = 1 << 17


@dataclass(frozen=True)
class Variant:
    """A named member of the family; it applies to every tap of its kind.

    Attributes
    ----------
    name : str
        As `--variant` takes it.
    kind : str
        `map`, `vector` or `probability`.
    action : str
        The output action, unless the tap is given one of its own: `pixels` or `trivial`.
    distance, normaliser : str
        Names in their registries.
    about : str
        One line with the equation.
    """

    name: str
    kind: str
    action: str
    distance: str
    normaliser: str
    about: str = ""

    @property
    def m(self) -> Distance:
        """The distance itself."""
        return distances[self.distance]

    @property
    def scale(self) -> Normaliser:
        """The normaliser itself."""
        return normalisers[self.normaliser]

    @property
    def optimum_moves(self) -> bool:
        """Whether the value of an exactly equivariant model depends on its own M, as −1/M does.

        Raw values of two networks then have no common scale, neither to be subtracted nor to be worse on.
        """
        best = self.m.optimum
        return bool(self.scale.apply(best, 0.25) != self.scale.apply(best, 0.5))


variants: Registry[Variant] = Registry("variants", "variant")


def _add(name: str, kind: str, action: str, distance: str, normaliser: str, about: str) -> None:
    variants.register(name, Variant(name, kind, action, distance, normaliser, about))


_add("channelwise", "map", "pixels", "channelwise-cosine", "none", "−(1/C) Σ cos([f(gx)]_i, [ρ(g) f̂(x)]_i), eq. (5)")
_add("latent-l2", "vector", "trivial", "l2", "spread-l2", "‖f(gx) − f̂(x)‖ / M, eq. (6)")
_add("latent-cosine", "vector", "trivial", "cosine", "spread-cosine", "−cos(f(gx), f̂(x)) / M, eq. (6)")
_add(
    "latent-cosine-bounded",
    "vector",
    "trivial",
    "cosine",
    "spread-cosine-bounded",
    "(1 − cos(f(gx), f̂(x))) / (1 − M): eq. (6) on a scale that does not flip",
)
_add("softmax", "probability", "trivial", "kl", "none", "KL(f(gx) ‖ f̂(x)) = the orbit's Jensen-Shannon divergence")


#: The variants that are measured where none are named.
PAPER = ("channelwise", "latent-l2", "latent-cosine", "latent-cosine-bounded", "softmax")


def parse_variant(text: str) -> Variant:
    """Return the variant of that name, or the general form `KIND:ACTION:DISTANCE[:NORMALISER]`.

    Raises
    ------
    UnknownName
        If a part is not known.
    UsageError
        If the parts do not go together.
    """
    if ":" not in text:
        return variants[text]
    kind, *rest = text.split(":")
    if len(rest) not in (2, 3):
        raise UsageError(f"variant {text!r}: expected KIND:ACTION:DISTANCE[:NORMALISER], as in map:pixels:relative-l2")
    action, distance, normaliser = rest[0], rest[1], rest[2] if len(rest) == 3 else "none"
    if kind not in KINDS:
        raise UnknownName("kind of tap", kind, KINDS)
    if action not in ("trivial", "pixels"):
        raise UnknownName("action in a variant", action, ("trivial", "pixels"), "give others to the tap with --act")
    made = Variant(text, kind, action, distance, normaliser)
    if kind not in made.m.kinds:
        raise UsageError(
            f"variant {text!r}: the distance {distance} is for {', '.join(made.m.kinds)}, not for a {kind}"
        )
    if action == "pixels" and kind != "map":
        raise UsageError(f"variant {text!r}: the action 'pixels' moves the grid of a map, and a {kind} has none")
    if made.scale.spread == "cosine" and distance != "cosine":
        raise UsageError(f"variant {text!r}: the normaliser {normaliser} goes with the distance cosine, not {distance}")
    return made


class Recorded(Protocol):
    """What of a Result tells how large one image's value can be."""

    @property
    def variant(self) -> str:
        """As `--variant` takes it."""
        ...

    @property
    def group(self) -> Mapping[str, Any]:
        """Name, order."""
        ...

    @property
    def tap(self) -> Mapping[str, Any]:
        """Kind, shape, kernel."""
        ...

    @property
    def spread(self) -> float | None:
        """M of eq. (6)."""
        ...

    @property
    def floor(self) -> float | None:
        """What resampling alone costs."""
        ...

    @property
    def null(self) -> float | None:
        """The same statistic on broken orbits."""
        ...


def largest_value(variant: Variant, order: int, classes: int | None) -> float:
    """Return the largest deviation that one image can have in the mean over the group; infinite where there is none.

    KL to the mean of the whole orbit is the orbit's Jensen-Shannon divergence, at most log min(|G|, classes); where f̂
    is a mean over less than the group (an output action that moves the classes) it is unbounded, and `classes` is to be
    None.  Every other distance has a largest value of its own, or none.
    """
    if variant.distance != "kl" or classes is None:
        return variant.m.largest
    return math.log(min(order, classes))


def range_of(result: Recorded, on: str) -> tuple[float, float]:
    """Return the (least, largest) number that one image can have in a cell, on the scale of its value or calibrated.

    Infinite where it is not known.  M, floor and null are taken as they were measured.
    """
    nothing = -math.inf, math.inf
    try:
        variant = parse_variant(result.variant)
    except GeedError:  # a variant that is not installed here
        return nothing
    order, kernel, shape = result.group.get("order"), result.tap.get("kernel"), result.tap.get("shape")
    whole = isinstance(order, int) and (kernel is None or len(kernel) == order)
    largest = largest_value(variant, order or 1, shape[-1] if whole and shape else None)
    if variant.scale.spread is not None and not result.spread:
        return nothing
    ends = [float(variant.scale.apply(m, result.spread or 1.0)) for m in (variant.m.optimum, largest)]
    if on == "calibrated":
        if result.floor is None or result.null is None or result.null == result.floor:
            return nothing
        ends = [(end - result.floor) / (result.null - result.floor) for end in ends]
    return min(ends), max(ends)


def kernel_mean(elements: Sequence[Array], kernel: Sequence[int]) -> Array:
    """Return f̂(x), eq. (2): the mean of f(kx) over k in the kernel, accumulated in float64.

    `elements[g]` is f(gx) for a batch, `(B, *shape)`; the result has that shape.  For the kernel {e} it is f(x) itself.
    """
    if len(kernel) == 1:
        return elements[kernel[0]]
    total = elements[kernel[0]].astype(np.float64)
    for k in kernel[1:]:
        total += elements[k]
    total /= len(kernel)
    return total


def deviations(elements: Sequence[Array], action: Action, distance: Distance) -> Floats:
    """Return m(f(gx), ρ(g) f̂(x)) for every image and element, `(B, |G|)` float64.

    `elements[g]` is f(gx), `(B, *shape)`, for every g of the group.
    """
    centre = kernel_mean(elements, action.kernel)
    out = np.full((len(centre), action.group.order), distance.optimum)
    # where f̂(x) is f(x) itself, the identity is at equality
    wanted = [g for g in action.group.elements if g != 0 or len(action.kernel) > 1]
    if wanted:
        out[:, wanted] = compared(elements, centre, action, distance, wanted)
    return out


def compared(
    elements: Sequence[Array] | Mapping[int, Array],
    centre: Array,
    action: Action,
    distance: Distance,
    wanted: Sequence[int],
) -> Floats:
    """Return m(elements[g], ρ(g) centre) for the wanted g, `(B, len(wanted))`; each is `(B, *shape)`.

    Large maps are compared a slice of channels at a time where action and distance allow it, in the cache.
    """
    column = {g: i for i, g in enumerate(wanted)}
    form = distance.per_channel
    if form is None or not action.by_channel:
        out = np.empty((len(centre), len(wanted)))
        for g, expected in action.orbit(centre, wanted):
            out[:, column[g]] = distance(elements[g], expected)
        return out
    sums: list[Floats] = []
    for part in _channel_slices(centre):
        some: dict[int, Floats] = {}
        for g, expected in action.orbit(centre[:, part], wanted):
            some[g] = form.sums(elements[g][:, part], expected)
        sums.append(np.stack([some[g] for g in wanted], axis=1))
    means: Floats = form.value(np.concatenate(sums, axis=-1)).mean(axis=-1).T
    return means


def _channel_slices(x: Array) -> Iterator[slice]:
    """Yield slices of the channels of `(B, C, H, W)` small enough that an orbit of one stays in the cache."""
    step = max(1, SLICE_VALUES // max(x[:, :1].size, 1))
    for start in range(0, x.shape[1], step):
        yield slice(start, min(start + step, x.shape[1]))


def floor_deviations(elements: Sequence[Array], action: Action, distance: Distance) -> Floats:
    """Return m(ρ(g⁻¹)ρ(g) f̂(x), f̂(x)), `(B, |G|)`: what resampling alone costs; the optimum for exact elements."""
    centre = kernel_mean(elements, action.kernel)
    out = np.full((len(centre), len(elements)), distance.optimum)
    # elements of one turn lose the same, so one of them stands for all
    for turn in {t for t in action.resampled_by if t}:
        g = action.resampled_by.index(turn)
        lost = _lost(g, centre, action, distance)
        for h, other in enumerate(action.resampled_by):
            if other == turn:
                out[:, h] = lost
    return out


def _lost(g: int, centre: Array, action: Action, distance: Distance) -> Floats:
    """Return m(ρ(g⁻¹)ρ(g) y, y) for y `(B, *shape)`, shape (B,)."""
    back = action.group.inverse(g)
    if distance.per_channel is None or not action.by_channel:
        return distance(action(back, action(g, centre)), centre)
    parts = [
        distance.per_channel.sums(action(back, action(g, centre[:, part])), centre[:, part])
        for part in _channel_slices(centre)
    ]
    means: Floats = distance.per_channel.value(np.concatenate(parts, axis=-1)).mean(axis=-1)
    return means


def broken_orbit(orbits: Sequence[Sequence[Array]], i: int) -> list[Array]:
    """Return orbit i with element g taken from image (i + g) mod N: nothing relates its elements but the network.

    `orbits[j][g]` is f(g x_j) as `(1, *shape)`, for the N reference images in the sample's order.
    """
    n = len(orbits)
    return [orbits[(i + g) % n][g] for g in range(len(orbits[0]))]


def broken_deviation(g: int, element: Array, centre: Array, action: Action, distance: Distance) -> Floats:
    """Return m(f(g x_j), ρ(g) f(x_i)) for pairs of images, `(B,)`: one element of broken orbits whose f̂ is f.

    `element` is f(g x_j) and `centre` f(x_i) with j = (i + g) mod N, each `(B, *shape)`.
    """
    one: Floats = compared({g: element}, centre, action, distance, [g])[:, 0]
    return one


def looks_like_probabilities(y: Array, tolerance: float = 1e-3) -> bool:
    """Say whether every distribution of `(B, …, classes)` is non-negative and sums to 1 within `tolerance`."""
    totals = y.sum(axis=-1, dtype=np.float64)
    return bool((y >= 0).all() and (np.abs(totals - 1) <= tolerance).all())


def as_probabilities(y: Array, *, logits: bool) -> Floats:
    """Return distributions `(B, …, classes)` in float64: the softmax of logits, or probabilities made to sum to 1."""
    y64 = y.astype(np.float64)
    if logits:
        soft: Floats = special.softmax(y64, axis=-1)
        return soft
    scaled: Floats = y64 / y64.sum(axis=-1, keepdims=True)
    return scaled
