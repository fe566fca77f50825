"""Which G-EED: kind of tap + output action + distance + normaliser; one formula serves them all.

::

    E = mean over x, g of m(f(gx), ρ_Y(g) f̂(x)),   f̂(x) = mean of f(kx) over k in ker ρ_Y          eqs. (2), (4)

The five of the paper have names; any other combination is written `KIND:ACTION:DISTANCE[:NORMALISER]`, as in
`map:pixels:relative-l2` or `vector:trivial:l2:spread-l2` (which is `latent-l2`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from geed_onnx.actions import Action, within
from geed_onnx.distances import Distance, arithmetic_mean, distances, log_softmax
from geed_onnx.errors import GeedError, UnknownName, UsageError
from geed_onnx.estimators import Normaliser, normalisers
from geed_onnx.registry import Registry
from geed_onnx.variants.aligned import Readings, aligned_readings, channel_slices, line_up, lined_up

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
        """The distance of a tap's values as they are held: of logarithms where the kind is `probability`."""
        m = distances[self.distance]
        return m.in_logs() if self.kind == "probability" else m

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
_add(
    "channelwise-weighted",
    "map",
    "pixels",
    "channelwise-weighted-cosine",
    "none",
    "eq. (5) with channels weighted by their norm, so that dead ones count for nothing",
)


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


def largest_value(variant: Variant, order: int, kernel: int, classes: int) -> float:
    """Return the most that a deviation can be for one image, before any normaliser; `inf` where nothing bounds it.

    The mean of KL(p_g ‖ p̄) over an orbit, p̄ its mean, is the orbit's Jensen-Shannon divergence, at most
    log min(|G|, classes); around an f̂ of fewer elements (`kernel` of the group's `order`) it has no bound.
    """
    if variant.distance == "kl":
        return float(np.log(min(order, classes))) if kernel == order else float("inf")
    return variant.m.largest


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
    if not isinstance(order, int) or not shape:
        return nothing
    largest = largest_value(variant, order, order if kernel is None else len(kernel), shape[-1])
    if variant.scale.spread is not None and not result.spread:
        return nothing
    ends = [float(variant.scale.apply(m, result.spread or 1.0)) for m in (variant.m.optimum, largest)]
    if on == "calibrated":
        if result.floor is None or result.null is None or result.null == result.floor:
            return nothing
        ends = [(end - result.floor) / (result.null - result.floor) for end in ends]
    return min(ends), max(ends)


def kernel_mean(
    elements: Sequence[Array], kernel: Sequence[int], mean: Callable[[Sequence[Array]], Array] = arithmetic_mean
) -> Array:
    """Return f̂(x), eq. (2): the mean of f(kx) over k in the kernel, accumulated in float64.

    `elements[g]` is f(gx) for a batch, `(B, *shape)`; the result has that shape.  For the kernel {e} it is f(x) itself.
    `mean` is the distance's own: the logarithm of the mean where the elements are logarithms.
    """
    return elements[kernel[0]] if len(kernel) == 1 else mean([elements[k] for k in kernel])


def deviations(elements: Sequence[Array], action: Action, distance: Distance) -> Floats:
    """Return m(f(gx), ρ(g) f̂(x)) for every image and element, `(B, |G|)` float64.

    `elements[g]` is f(gx), `(B, *shape)`, for every g of the group.
    """
    return readings(elements, action, distance).deviations


def readings(
    elements: Sequence[Array],
    action: Action,
    distance: Distance,
    *,
    floor: bool = False,
    others: Sequence[Array] | None = None,
    turned: Sequence[Array] | None = None,
) -> Readings:
    """Return deviations, and what stands beside them where it is asked for, from one reading of the orbits.

    Parameters
    ----------
    elements
        f(gx), `(B, *shape)`, for every g.  Within a disc, what lies outside it does not matter.
    others
        For every g the f(x') that g's element is held against in the null, `(B, *shape)`, where f̂ is f(x) alone.
    turned
        What stands for `elements` in the null (the same images in another orientation); None: they themselves.
    """
    alignment = lined_up(action, distance, elements[0].dtype)
    if alignment is not None and others is None:
        return aligned_readings(elements, alignment, distance, line_up(alignment, elements[0]), floor=floor)
    elements = [within(action, y) for y in elements]
    centre = kernel_mean(elements, action.kernel, distance.mean)
    out = np.full((len(centre), action.group.order), distance.optimum)
    # where f̂(x) is f(x) itself, the identity is at equality
    wanted = [g for g in action.group.elements if g != 0 or len(action.kernel) > 1]
    if wanted:
        out[:, wanted] = compared(elements, centre, action, distance, wanted)
    null = None
    if others is not None:
        null = np.full(out.shape, distance.optimum)
        seen = elements if turned is None else [within(action, y) for y in turned]
        for g in action.group.elements[1:]:
            null[:, [g]] = compared({g: seen[g]}, within(action, others[g]), action, distance, [g])
    return Readings(out, _floor(centre, action, distance) if floor else None, null)


def compared(
    elements: Sequence[Array] | Mapping[int, Array],
    centre: Array,
    action: Action,
    distance: Distance,
    wanted: Sequence[int],
) -> Floats:
    """Return m(elements[g], ρ(g) centre) for the wanted g, `(B, len(wanted))`; each is `(B, *shape)`."""
    return compared_by([distance], elements, centre, action, wanted)[0]


def compared_by(
    several: Sequence[Distance],
    elements: Sequence[Array] | Mapping[int, Array] | Array,
    centre: Array,
    action: Action,
    wanted: Sequence[int],
) -> list[Floats]:
    """Return the same for each of several distances.

    Large maps are compared a slice of channels at a time where action and distance allow it, in the cache.
    """
    if centre.size * len(wanted) > SLICE_VALUES:
        return [_compared_apart(elements, centre, action, distance, wanted) for distance in several]
    # a call costs more than what is computed in it: all elements at once
    moved = dict(action.orbit(centre, wanted))
    both = [np.concatenate([of[g] for g in wanted]) for of in (elements, moved)]
    return [distance(*both).reshape(len(wanted), len(centre)).T for distance in several]


def _compared_apart(
    elements: Sequence[Array] | Mapping[int, Array] | Array,
    centre: Array,
    action: Action,
    distance: Distance,
    wanted: Sequence[int],
) -> Floats:
    form = distance.per_channel
    if form is None or not action.by_channel:
        out = np.empty((len(centre), len(wanted)))
        for g, expected in action.orbit(centre, wanted):
            out[:, wanted.index(g)] = distance(elements[g], expected)
        return out
    sums: list[Floats] = []
    for part in channel_slices(centre, SLICE_VALUES):
        some: dict[int, Floats] = {}
        for g, expected in action.orbit(centre[:, part], wanted):
            some[g] = form.sums(elements[g][:, part], expected)
        sums.append(np.stack([some[g] for g in wanted], axis=1))
    return form.combine(np.concatenate(sums, axis=-1)).T


def _floor(centre: Array, action: Action, distance: Distance) -> Floats:
    """Return m(ρ(g⁻¹)ρ(g) f̂(x), f̂(x)), `(B, |G|)`; of the elements of one turn, one stands for all."""
    out = np.full((len(centre), action.group.order), distance.optimum)
    for turn in {t for t in action.resampled_by if t}:
        members = [g for g, t in enumerate(action.resampled_by) if t == turn]
        g = members[0]
        out[:, members] = distance(action(action.group.inverse(g), action(g, centre)), centre)[:, None]
    return out


# ---- scores: probabilities or logits -------------------------------------------------------------------------------

#: What a user says that scores are.
Scores = Literal["logits", "probabilities"]
SCORES: tuple[Scores, ...] = get_args(Scores)
#: How far from 1 the sum of what are probabilities by their looks may be.
SUM_TOLERANCE = 1e-3
#: How far the sum of what may be probabilities, rounded.
DOUBTFUL = 0.1


def looks_like_probabilities(y: Array) -> bool:
    """Say whether every distribution of `(B, …, classes)` is non-negative and sums to 1 within `SUM_TOLERANCE`."""
    return bool((y >= 0).all()) and missed(y) <= SUM_TOLERANCE


def looks_doubtful(y: Array) -> bool:
    """Say whether `(B, …, classes)` may be probabilities that were rounded, or not: all in [0, 1], sums near 1."""
    return bool(((y >= 0) & (y <= 1)).all()) and SUM_TOLERANCE < missed(y) <= DOUBTFUL


def missed(y: Array) -> float:
    """Return how far the sums over the classes of `(B, …, classes)` are from 1, at most."""
    return float(np.abs(y.sum(axis=-1, dtype=np.float64) - 1).max(initial=0.0))


def log_probabilities(y: Array, *, logits: bool) -> Floats:
    """Return the logarithms of distributions `(B, …, classes)` in float64, −inf for 0.

    Logits get a softmax; probabilities, each with a value above 0, are clipped at 0 and made to sum to 1.
    """
    if logits:
        return log_softmax(y)
    p = np.maximum(y, 0.0, dtype=np.float64)
    p /= p.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        logs: Floats = np.log(p, out=p)
    return logs
