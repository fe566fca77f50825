"""What one share of a measurement leaves behind: plain data keyed by image, that pickle carries; merge is a union."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from geed_onnx.errors import MeasureError
from geed_onnx.estimators import Broken, Deviations
from geed_onnx.estimators import merge as merge_deviations
from geed_onnx.sessions import SessionFacts
from geed_onnx.sources import Fingerprint

Array = npt.NDArray[Any]
K = TypeVar("K")
V = TypeVar("V")


class Quiet(NamedTuple):
    """How many channels of one f(x) say nothing."""

    zero: int
    """everywhere exactly"""
    faint: int
    """next to it, beside the others"""


@dataclass(frozen=True, eq=False)
class CellPart:
    """What a share leaves of one (tap, variant).

    Attributes
    ----------
    sample : Deviations
        m(f(gx), ρ(g) f̂(x)) of the share's images, `(n, |G|)`.
    floor : Deviations or None
    null : Broken or None
        Of the reference images; None in the shares that hold none of them.
    contrast : float or None
        How far f of one image of the first block is from f of the next, above the optimum.
    """

    sample: Deviations
    floor: Deviations | None = None
    null: Broken | None = None
    contrast: float | None = None


@dataclass(frozen=True, eq=False)
class TapPart:
    """What a share leaves of one tap.

    Attributes
    ----------
    shape : tuple[int, ...]
        Of f(x), without the batch.
    logits : bool or None
        Whether it is taken as logits, for a probability tap; told from the first images of the whole sample.
    cells : tuple[CellPart, ...]
        In the order of the plan's variants of the tap's kind.
    spread : {image id: (…)}
        f(x) of the spread points, where a variant needs M.
    zero_channels : {image id: Quiet}
        How many channels of f(x) are zero everywhere, or nearly, where a variant goes by channels.
    sizes : {image id: ‖f(x)‖}
        Where a distance depends on the scale of the features.
    missed : float
        How far probabilities were from summing to 1, at most, before they were made to.
    """

    shape: tuple[int, ...]
    logits: bool | None
    cells: tuple[CellPart, ...]
    spread: Mapping[str, Array]
    zero_channels: Mapping[str, Quiet]
    sizes: Mapping[str, float] = field(default_factory=dict)
    missed: float = 0.0


@dataclass(frozen=True)
class Conditions:
    """Under what one share was measured.

    Attributes
    ----------
    facts : SessionFacts
        What its session ran on.
    rows : int
        Most rows of one forward pass.
    empty : bool
        Whether there was no image for it.
    warnings, notes : tuple[str, ...]
        About what the model was given, and about its passes.
    """

    facts: SessionFacts
    rows: int
    empty: bool = False
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Partial:
    """What some shares of one measurement leave behind: no model, no images, nothing that is bound to a process.

    A commutative monoid under `merge`, and more: it is a union, so that what came twice changes nothing.

    Attributes
    ----------
    of : str
        Hash of what is measured: the same for all shares of one measurement.
    parts : int
        Into how many shares it was cut.
    cut : (int, int)
        Orbits, and rows, of one micro-batch: shares are runs of whole ones.
    shares : {part: Conditions}
        Those that are in here.
    taps : {tap: TapPart}
    images, points : Fingerprint
        Of the sample's images, and of the spread points outside it.
    skipped : {image id: place}
        The unreadable images left out, each with its place in the order of reading.
    """

    of: str
    parts: int
    cut: tuple[int, int]
    shares: Mapping[int, Conditions]
    taps: Mapping[str, TapPart]
    images: Fingerprint
    points: Fingerprint
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[int, ...]:
        """The shares that are not in here."""
        return tuple(part for part in range(self.parts) if part not in self.shares)


def merge(a: Partial, b: Partial) -> Partial:
    """Return the union of two partial measurements, image by image.

    `merge(a, b)` and `merge(b, a)` hold the same, as do `merge(merge(a, b), c)` and `merge(a, merge(b, c))`, and
    `merge(a, a)` holds what `a` does.

    Raises
    ------
    MeasureError
        If the two are not of one measurement, or hold different values for one image.
    DataError
        If two different images have one id.
    """
    if a.parts != b.parts:
        raise MeasureError(
            f"a share of a measurement in {a.parts} parts and one of {b.parts} parts do not merge: cut it once, and"
            " give every measure_part the same number"
        )
    if a.of != b.of or list(a.taps) != list(b.taps):
        raise MeasureError(
            "shares of two measurements do not merge: their model, sample, group, taps, variants or settings differ"
        )
    if a.cut != b.cut:
        raise MeasureError(
            f"the shares were cut from micro-batches of {a.cut[1]} and of {b.cut[1]} rows, so that images would be"
            " missing: the machines differ in memory or provider; give one --batch-size and one --provider"
        )
    images, points = a.images.merge(b.images), a.points.merge(b.points)  # first: other images explain other numbers
    return Partial(
        of=a.of,
        parts=a.parts,
        cut=a.cut,
        shares=dict(sorted(_union(a.shares, b.shares, lambda x, y: x == y, "part").items())),
        taps={name: _merge_taps(name, tap, b.taps[name]) for name, tap in a.taps.items()},
        images=images,
        points=points,
        skipped=_union(a.skipped, b.skipped, lambda x, y: x == y, "skipped image"),
    )


def _merge_taps(name: str, a: TapPart, b: TapPart) -> TapPart:
    if a.shape != b.shape:
        raise MeasureError(
            f"tap {name!r} came as {b.shape} after {a.shape}: a tap's shape must not depend on the image"
        )
    if a.logits != b.logits or len(a.cells) != len(b.cells):
        raise MeasureError(f"tap {name!r}: shares of two measurements, of different variants or kinds, do not merge")
    return TapPart(
        shape=a.shape,
        logits=a.logits,
        cells=tuple(_merge_cells(name, x, y) for x, y in zip(a.cells, b.cells, strict=True)),
        spread=_union(a.spread, b.spread, np.array_equal, f"tap {name!r}: spread point"),
        zero_channels=_union(a.zero_channels, b.zero_channels, lambda x, y: x == y, f"tap {name!r}: image"),
        sizes=_union(a.sizes, b.sizes, lambda x, y: x == y, f"tap {name!r}: image"),
        missed=max(a.missed, b.missed),
    )


def _merge_cells(name: str, a: CellPart, b: CellPart) -> CellPart:
    return CellPart(
        sample=merge_deviations(a.sample, b.sample),
        floor=_merged(a.floor, b.floor, merge_deviations),
        null=_merged(a.null, b.null, Broken.merge),
        contrast=_either(a.contrast, b.contrast, f"tap {name!r}: the contrast of the reference images"),
    )


def _merged(a: V | None, b: V | None, union: Callable[[V, V], V]) -> V | None:
    if a is None or b is None:
        return b if a is None else a
    return union(a, b)


def _either(a: V | None, b: V | None, what: str) -> V | None:
    """Return the one that is there; two must be the same."""
    if a is not None and b is not None and a != b and not a != a:  # NaN is the same as NaN
        raise MeasureError(f"{what} came twice and differ: {a!r} and {b!r}; are both shares of one measurement?")
    return b if a is None else a


def _union(a: Mapping[K, V], b: Mapping[K, V], same: Callable[[V, V], bool], what: str) -> dict[K, V]:
    for key in a.keys() & b.keys():
        if not same(a[key], b[key]):
            raise MeasureError(f"{what} {key!r} came twice with different values; are both shares of one measurement?")
    return {**a, **b}
