"""Which images are measured: samples drawn by a seed, copies of an image counted once, and the order of references.

Every process that opens the same data draws the same images, whatever it is going to do with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from geed_onnx.errors import DataError, UsageError
from geed_onnx.sources.source import Source, digest_of

#: Images, and points for the spread M, where nobody says how many: so many, or all there are.
DEFAULT_SAMPLES = 50
DEFAULT_SPREAD = 200


class Drawing(NamedTuple):
    """Indices of a sample and of the spread points, and what is to be said of them."""

    sample: tuple[int, ...]
    spread: tuple[int, ...]
    notes: tuple[str, ...]


class _Walk(NamedTuple):
    """How far one order of images was followed until enough different ones were found."""

    found: tuple[int, ...]
    passed: int
    untold: int
    """images of which the source does not tell what they are equal to"""

    @property
    def copies(self) -> int:
        return self.passed - len(self.found)


def draw(source: Source, samples: int | Literal["all"], seed: int) -> tuple[int, ...]:
    """Return the first `samples` indices of one seeded permutation, copies among them, so that more contain fewer.

    `"all"` gives 0, 1, … in order. A source that does not tell its size is read through once to count it.

    Raises
    ------
    DataError
        If the source is empty, or has fewer than `samples` images.
    UsageError
        If `samples` is neither a positive number nor `"all"`.
    """
    _check(samples)
    size = _size(source)
    if samples == "all":
        return tuple(range(size))
    _enough(source, samples, size)
    return _permutation(size, seed)[:samples]


def draw_distinct(
    source: Source,
    samples: int | Literal["all"] | None,
    spread_samples: int | None,
    seed: int,
    *,
    spread: bool = True,
) -> Drawing:
    """Return the sample and the spread points: different images, in the order of one seeded permutation.

    An image whose content came before is passed over, and the permutation followed on, until there are enough; the
    larger draw still contains the smaller, and the spread points have the copy that the sample has. No more images are
    looked at than that takes (`Source.digest`).

    Parameters
    ----------
    samples
        How many images; `"all"` different ones, in their own order; None: 50, or as many as there are.
    spread_samples
        How many spread points; None: 200, or as many as there are.
    spread
        Whether spread points are wanted; if not, there are none.

    Raises
    ------
    DataError
        If the source is empty, or has fewer images than were asked for. Fewer *different* ones are no error: a note
        says so.
    UsageError
        If `samples` is neither a positive number, `"all"` nor None.
    """
    _check(samples)
    size = _size(source)
    if samples is not None and samples != "all":
        _enough(source, samples, size)
    if spread_samples is not None and spread_samples > size:
        raise DataError(
            f"{source.uri}: {spread_samples} spread points were asked for, but there are only {_images(size)}; ask for"
            f" at most {size} (--spread-samples)"
        )
    order = _permutation(size, seed)
    standing = _standing(source)
    wanted = size if samples == "all" else samples or DEFAULT_SAMPLES
    sample = _walked(range(size) if samples == "all" else order, wanted, standing)
    points = _walked(order, spread_samples or DEFAULT_SPREAD, standing) if spread else _Walk((), 0, 0)
    notes = _said(samples, spread_samples if spread else None, sample, points)
    return Drawing(sample.found, points.found, tuple(notes))


def permuted(indices: Iterable[int], seed: int) -> tuple[int, ...]:
    """Return the indices of a sample in an order of the seed's, whatever the order in which they are given.

    Floor and null take their images, and the partners of broken orbits, in this order: a folder sorted class after
    class would partner images of one class.
    """
    return tuple(int(i) for i in np.random.default_rng(seed).permutation(sorted(indices)))


def _check(samples: object) -> None:
    number = isinstance(samples, (int, np.integer)) and not isinstance(samples, bool) and samples >= 1
    if samples is not None and samples != "all" and not number:
        raise UsageError(f"samples must be a positive number or 'all', not {samples!r}")


def _size(source: Source) -> int:
    size = sum(1 for _ in source.items(None)) if source.size is None else source.size
    if size == 0:
        raise DataError(f"{source.uri}: there are no images to draw from")
    return size


def _enough(source: Source, samples: int, size: int) -> None:
    if samples > size:
        raise DataError(
            f"{source.uri}: {_images(samples)} were asked for, but there are only {size}; "
            f"ask for at most {size}, or for 'all'"
        )


def _permutation(size: int, seed: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.random.default_rng(seed).permutation(size))


def _standing(source: Source) -> Callable[[int], int | None]:
    """Return what tells which image stands for one: the first that was asked for with its content, None if untold."""
    firsts: dict[bytes, int] = {}
    readable = cache(lambda index: any(True for _ in source.items((index,))))

    @cache
    def standing(index: int) -> int | None:
        content = digest_of(source, index)
        if content is None:
            return None
        first = firsts.setdefault(content, index)
        # files damaged alike are left out for that, and not for being copies
        return first if first == index or readable(first) else index

    return standing


def _walked(order: Sequence[int], wanted: int, standing: Callable[[int], int | None]) -> _Walk:
    """Follow `order` to the first `wanted` different images."""
    found: dict[int, None] = {}
    passed = untold = 0
    for index in order:
        if len(found) == wanted:
            break
        first = standing(index)
        passed, untold = passed + 1, untold + (first is None)
        found[index if first is None else first] = None
    return _Walk(tuple(found), passed, untold)


def _said(
    samples: int | Literal["all"] | None, spread_samples: int | None, sample: _Walk, points: _Walk
) -> Iterable[str]:
    more = points.copies > sample.copies
    for walk, where in ((sample, ""), (points, "spread points: ")):
        if walk.copies and (more or not where):
            yield f"{where}{walk.copies} of {_images(walk.passed)} are copies of others and were left out: counted once"
    untold = max(sample, points, key=lambda walk: walk.untold)
    if untold.untold:
        some = "" if untold.untold == untold.passed else f"{untold.untold} of "
        yield f"copies among {some}{_images(untold.passed)} were not looked for: that would read them twice"
    for walk, asked, default, noun in (
        (sample, samples, DEFAULT_SAMPLES, "image"),
        # that 200 is a limit is how the default is described; what it came to is `spread_samples` of a Result
        (points, spread_samples, 0, "spread point"),
    ):
        count, wanted = len(walk.found), asked or default
        if wanted != "all" and count < wanted:
            kind = "distinct ones " if walk.copies else ""
            how = f"{default} by default" if asked is None else f"{asked} were asked for"
            yield f"{count} {noun}{'s' * (count != 1)}: all {kind}there are ({how})"


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"
