"""What is to be measured: a model that runs, images that are drawn, a group that acts, taps and variants that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy.typing as npt

from geed_onnx.actions import Action, Declared, Mask, input_action, masked, motion_classes, within_disc
from geed_onnx.engine.feeding import Feed
from geed_onnx.engine.opening import Opened, open_model
from geed_onnx.engine.targets import Target, chosen_acts, chosen_variants, declared_scores
from geed_onnx.errors import DataError
from geed_onnx.groups import Group, parse_group
from geed_onnx.requests import Request, Settings
from geed_onnx.sessions import Session
from geed_onnx.sources import Drawing, Source, clusters_of, draw_distinct, permuted
from geed_onnx.variants import Variant

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
#: Reference images of one block; their orbits are what is in memory at once.
BLOCK = 16


@dataclass(frozen=True)
class Plan:
    """Everything decided before the first forward pass that counts."""

    request: Request
    opened: Opened
    indices: tuple[int, ...]
    spread_indices: tuple[int, ...]
    group: Group
    acting: Action
    targets: tuple[Target, ...]
    variants: tuple[Variant, ...]
    acts: Mapping[str, str | Declared]
    references: tuple[tuple[int, ...], ...] = ()
    """the first of the indices, in blocks inside which broken orbits are made"""
    notes: tuple[str, ...] = ()
    """what of the file's own declarations was left aside, and what is to be said of the draw"""
    units: Mapping[str, str] | None = None
    """{image id: cluster} of the sample and the spread points; None: the image is the unit"""

    @property
    def settings(self) -> Settings:
        """The numbers of the request."""
        return self.request.settings

    @property
    def session(self) -> Session:
        """What runs the model."""
        return self.opened.session

    @property
    def source(self) -> Source:
        """Where the images come from."""
        return self.opened.source

    @property
    def feed(self) -> Feed:
        """How an image becomes the model's input."""
        return self.opened.feed

    @property
    def masked(self) -> bool:
        """Whether everything happens inside the inscribed disc."""
        return wants_disc(self.settings.mask, self.acting)

    @cached_property
    def motions(self) -> tuple[int, ...]:
        """For every element the first one that moves the input exactly as it does."""
        return motion_classes(self.acting)

    def prepare(self, raw: Array) -> Array:
        """Return the array that the group acts on, of a raw one: preprocessed and, if so asked, within the disc."""
        x = self.feed.prepare(raw)
        return masked(x, self.masked and x.ndim == 3)

    def images(self, indices: Sequence[int]) -> Iterator[tuple[int, str, Array, Array]]:
        """Yield (index, id, raw array, array the group acts on), one at a time."""
        shape = self.acting.shape
        for index, (name, raw) in self._items(indices):
            x = self.prepare(raw)
            if x.shape != shape:
                raise DataError(
                    f"{self.source.uri}: image {name!r} has shape {raw.shape}, but the first one came to {shape}; all"
                    " images must have one shape"
                )
            yield index, name, raw, x

    def _items(self, indices: Sequence[int]) -> Iterator[tuple[int, tuple[str, Array]]]:
        if not self.request.data.skip_bad:
            yield from zip(indices, self.source.items(indices), strict=True)
        else:
            # an image that is left out shifts those after it, so each is asked for by itself
            for index in indices:
                yield from ((index, item) for item in self.source.items([index]))


def plan_of(request: Request, opened: Opened | None = None) -> Plan:
    """Settle all that can be settled before the forward passes; whatever is wrong with the request shows here.

    `opened` is the model of the request on its data, where it is open already.
    """
    opened = opened or open_model(request)
    asked, settings = request.model, request.settings
    group = parse_group(request.group) if isinstance(request.group, str) else request.group
    acting = input_action(group, opened.shape, settings.interpolation)
    picked = chosen_variants(settings.variants, opened.targets)
    opened.session  # noqa: B018  before the draw, which reads the images
    kinds = {t.kind for t in opened.targets}
    # no pass is spent on the points of M where no tap is measured against it
    spread = any(v.scale.spread and v.kind in kinds for v in picked)
    drawing = draw_distinct(opened.source, settings.samples, settings.spread_samples, settings.seed, spread=spread)
    units = units_of(opened.source, drawing, request.data.cluster)
    cluster = None if units is None else dict(zip(drawing.sample, units.values(), strict=False))
    blocks = reference_blocks(drawing.sample, settings.reference_samples, settings.seed, cluster)
    first = dict.fromkeys(index for block in blocks for index in block)
    return Plan(
        request=request,
        opened=opened,
        indices=(*first, *(i for i in drawing.sample if i not in first)),
        spread_indices=drawing.spread,
        group=group,
        acting=within_disc(acting, wants_disc(settings.mask, acting)),
        targets=declared_scores(asked.scores, opened.targets),
        variants=picked,
        acts=chosen_acts(asked.acts, opened.targets, declared=asked.declared_action),
        references=blocks,
        notes=(*opened.notes, *drawing.notes),
        units=units,
    )


def units_of(source: Source, drawing: Drawing, column: str | None) -> dict[str, str] | None:
    """Return {image id: cluster} of the images drawn; None without a column.

    Raises
    ------
    UsageError
        If there is no such column.
    DataError
        If it has no value for an image, or all of the sample are one cluster.
    """
    units = clusters_of(source, dict.fromkeys((*drawing.sample, *drawing.spread)), column)
    if units is not None and len(some := set(list(units.values())[: len(drawing.sample)])) < 2:
        count = len(drawing.sample)
        raise DataError(
            f"{source.uri}: the sample of {count} image{'s' * (count != 1)} is one cluster, {column} {some.pop()!r}; an"
            " interval over clusters takes at least 2: measure more images, or leave out --cluster"
        )
    return units


def reference_blocks(
    indices: Sequence[int], count: int | None, seed: int, cluster: Mapping[int, str] | None = None
) -> tuple[tuple[int, ...], ...]:
    """Return the reference images in blocks of 16 or a few more, no two of one cluster in a block.

    They are the first `count` (None: all) of a permutation by the seed of the sorted sample, so that neither the order
    of a folder nor that of the sample says who partners whom.
    """
    order = permuted(indices, seed)[:count]
    groups: dict[object, list[int]] = {}
    for index in order:
        groups.setdefault(index if cluster is None else cluster[index], []).append(index)
    sizes = [len(g) for g in groups.values()]
    # of a cluster that would need more blocks than the others fill, only some are taken
    most = max((q for q in set(sizes) if sum(min(s, q) for s in sizes) >= q * min(8, len(sizes) // 2 + 1)), default=1)
    dealt = [index for g in groups.values() for index in g[:most]]
    blocks = max(1, len(dealt) // BLOCK, most)
    return tuple(tuple(dealt[b::blocks]) for b in range(blocks) if dealt[b::blocks])


def wants_disc(mask: Mask, acting: Action) -> bool:
    """Say whether everything is to happen inside the inscribed disc, for this action on the input."""
    return mask == "disc" or (mask == "auto" and any(acting.resampled_by))
