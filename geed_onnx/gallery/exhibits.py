"""What a gallery holds: images that deviate most with their orbits, and feature maps beside one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Planes = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One image of a sample with its orbit, and what a network makes of it.

    Names and ids come from files and are text as it was found there.
    """

    model: str
    """label of the model"""
    data: str
    """address of the data"""
    group: str
    tap: str
    kind: str
    """of the tap: `map`, `vector` or `probability`"""
    variant: str
    image: str
    """id of the image"""
    rank: int
    """1 for the image that deviates most of its sample"""
    samples: int
    """images in the sample"""
    deviation: float
    """mean over the group of m(f(gx), ρ(g) f̂(x)), before any normaliser"""
    average: float
    """the same in the mean over the sample"""
    optimum: float
    """the value of m at equality"""
    elements: tuple[str, ...]
    """what each of the |G| elements does, in words"""
    per_element: Floats
    """(|G|,) m(f(gx), ρ(g) f̂(x))"""
    shown: tuple[int, ...]
    """the elements of `orbit`: all of them, or of a large group the identity, the worst one and some between"""
    orbit: Bytes | None = None
    """(shown, H, W) or (shown, H, W, 3): what the group makes of the image; None where the input is no image"""
    scores: Floats | None = None
    """(|G|, classes) class probabilities of f(gx), where the tap holds them"""
    expected: tuple[int, ...] | None = None
    """the class of ρ(g) f(x) for each element: which an equivariant classifier would choose"""
    classes: tuple[str, ...] | None = None
    """names of the classes, where the file or a `config.json` beside it tells"""
    notes: tuple[str, ...] = ()
    """how the pictures were made, where it is not obvious"""

    @property
    def predicted(self) -> tuple[int, ...] | None:
        """The class of highest score for each element; None where there are no scores."""
        return None if self.scores is None else tuple(int(c) for c in self.scores.argmax(axis=1))


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """The k channels of one map in which g·f̂(x) and f(gx) agree least, for one image and element; worst first."""

    model: str
    data: str
    group: str
    tap: str
    variant: str
    image: str
    element: int
    element_name: str
    deviation: float
    """m(f(gx), ρ(g) f̂(x)) for this image and element, over all channels"""
    optimum: float
    action: str
    """ρ, as `--act` spells it: it moves pixels, and permutes channels where the tap has such an action"""
    averaged: int
    """over how many elements f̂(x) is a mean: 1 where it is f(x) itself, eq. (2)"""
    total: int
    """channels of the tap"""
    channels: tuple[int, ...]
    """which channels these are"""
    before: Planes
    """(k, H, W) f̂(x)"""
    moved: Planes
    """(k, H, W) ρ(g) f̂(x)"""
    after: Planes
    """(k, H, W) f(gx)"""
    difference: Planes
    """(k, H, W) f(gx) − ρ(g) f̂(x)"""
    low: tuple[float, ...]
    """least value of each channel over `before`, `moved` and `after`, which share one scale"""
    high: tuple[float, ...]
    """largest value likewise"""
    images: Bytes | None
    """(2, H, W) or (2, H, W, 3): x and gx; None where the input is no image"""
    cosines: tuple[float, ...]
    """cosine of `moved` and `after` for each channel: 1 for two that are zero, 0 for one that is"""


@dataclass(frozen=True)
class Gallery:
    """What there is to look at, and in words what there is not, and why."""

    exhibits: tuple[Exhibit, ...] = ()
    """those of one model, data set and group together, the worst image first"""
    maps: tuple[FeatureMaps, ...] = ()
    reasons: tuple[str, ...] = ()
