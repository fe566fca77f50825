"""On what: the images, group, mask and interpolation of both sides; what is not the same data is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from geed_onnx.comparisons.participants import Model, Participant
from geed_onnx.errors import DataError
from geed_onnx.results import Result

Images = tuple[str, int, int]
"""fingerprint, number of images, seed: equal for the same images in the same order"""


@dataclass(frozen=True)
class Setting:
    """What a model was measured with, other than itself."""

    images: Images
    group: str
    order: int | None
    mask: str | None
    interpolation: str

    @property
    def words(self) -> str:
        """The group, the mask and the interpolation as they are said."""
        more = [f"mask {self.mask}"] if self.mask else []
        more += [self.interpolation] if self.interpolation != "bilinear" else []
        return self.group + (f" ({', '.join(more)})" if more else "")


Cells = Mapping[tuple[str, str], Result]
"""{(tap, variant): what was measured}"""


@dataclass(frozen=True, eq=False)
class Side:
    """One participant in one setting: the cells of each of its models, and what failed there.

    Attributes
    ----------
    cells : tuple[(tap, variant) -> Result, ...]
        One mapping a model, without failed cells.
    failed : tuple[Result, ...]
        Cells that could not be measured; their tap, kind and variant may be `*` or a glob.
    """

    participant: Participant
    cells: tuple[Cells, ...]
    failed: tuple[Result, ...] = ()

    @property
    def first(self) -> Cells:
        """The cells of its first model."""
        return self.cells[0]

    @property
    def taps(self) -> tuple[Mapping[str, Any], ...]:
        """The taps in order, each once."""
        return tuple({str(r.tap["name"]): r.tap for r in self.first.values()}.values())

    def failure(self, tap: str, variant: str) -> Result | None:
        """Return the failed cell that stands for this one, if there is one."""
        return next((f for f in self.failed if stands_for(f, tap, variant)), None)


def stands_for(failed: Result, tap: str, variant: str) -> bool:
    """Say whether a failed cell, whose tap may be `*`, a glob or `NAME:KIND`, is the one of this tap and variant."""
    return is_meant(tap, str(failed.tap["name"])) and failed.variant in ("*", variant)


def is_meant(name: str, spec: str) -> bool:
    """Say whether a tap's name is the one that `NAME` or `NAME:KIND` gives, or that a glob in its place matches."""
    bare, _, kind = spec.rpartition(":")
    specs = (spec, bare) if kind in ("map", "vector", "probability") else (spec,)
    return any(name == s or fnmatchcase(name, s) for s in specs)


def matched_settings(a: Participant, b: Participant) -> tuple[list[tuple[Side, Side]], list[str]]:
    """Return the settings that two participants share, as pairs of sides, and notes on what only one of them has.

    Where on the same images each was measured with one group, but not the same, the two are paired all the same: their
    calibrated values can be compared.  What failed on one side is paired with what was measured on the other.

    Raises
    ------
    DataError
        If they were not measured on the same images.
    """
    one, other = _measured(a), _measured(b)
    failed_a, failed_b = _failed(a), _failed(b)
    met = list(_paired_settings(one, other))
    pairs = [(_side(a, one[s], failed_a), _side(b, other[t], failed_b)) for s, t in met]
    lone: list[tuple[Setting, Participant]] = []
    for (mine, measured, failed), (theirs, _, gone), place in (
        ((a, one, failed_a), (b, other, failed_b), 0),
        ((b, other, failed_b), (a, one, failed_a), 1),
    ):
        for s in [s for s in measured if s not in {pair[place] for pair in met}]:
            if some := _failed_there(gone, measured[s]):
                both = _side(mine, measured[s], failed), _nothing(theirs, some)
                pairs.append(both if place == 0 else both[::-1])
            else:
                lone.append((s, mine))
    if not one and not other:
        pairs += _both_failed(a, b, failed_a, failed_b)
    if not pairs:
        raise DataError(_unlike(a, b, list(one), list(other)))
    notes = [f"{s.words} on {s.images[1]} images was measured for {p.name} alone" for s, p in lone]
    return pairs, notes


# --- the settings of a participant ------------------------------------------------------------------------------


def _measured(participant: Participant) -> dict[Setting, tuple[Cells, ...]]:
    """Return {setting: the cells of each model} for the settings that all its models have."""
    each = [_of_model(m) for m in participant.models]
    shared = [s for s in each[0] if all(s in some for some in each)]
    if not shared and len(each) > 1 and any(each):
        names = ", ".join(m.name for m in participant.models[:6])
        raise DataError(f"family {participant.name!r}: its models ({names}) were not all measured on the same images")
    return {s: tuple(some[s] for some in each) for s in shared}


def _of_model(model: Model) -> dict[Setting, dict[tuple[str, str], Result]]:
    found: dict[Setting, dict[tuple[str, str], Result]] = {}
    for r in model.results:
        if r.failed:
            continue
        images = (str(r.data["fingerprint"]), int(r.data["samples"]), int(r.seed))
        setting = Setting(images, str(r.group["name"]), r.group.get("order"), r.data.get("mask"), r.interpolation)
        cells = found.setdefault(setting, {})
        place = (str(r.tap["name"]), r.variant)
        before = cells.setdefault(place, r)
        if before is not r and (before.value, before.calibrated) != (r.value, r.calibrated):
            raise DataError(
                f"{model.source}: two results for {place[1]} of {place[0]!r} in {model.name!r}, {setting.words}, with"
                f" different values ({before.value} and {r.value}); keep one"
            )
    return found


def _paired_settings(one: Mapping[Setting, Any], other: Mapping[Setting, Any]) -> Iterator[tuple[Setting, Setting]]:
    """Yield the settings that both have, and lone ones of different groups on the same images."""
    for images in dict.fromkeys(s.images for s in one):
        left = [s for s in one if s.images == images]
        right = [t for t in other if t.images == images]
        shared = [s for s in left if s in right]
        if shared:
            yield from ((s, s) for s in shared)
        elif len(left) == len(right) == 1:
            yield left[0], right[0]


def _side(participant: Participant, cells: tuple[Cells, ...], failed: Sequence[Result]) -> Side:
    return Side(participant, cells, _failed_there(failed, cells))


def _nothing(participant: Participant, failed: tuple[Result, ...]) -> Side:
    return Side(participant, tuple({} for _ in participant.models), failed)


# --- what failed ------------------------------------------------------------------------------------------------


def _failed(participant: Participant) -> list[Result]:
    return [r for m in participant.models for r in m.results if r.failed]


def _failed_there(failed: Sequence[Result], cells: tuple[Cells, ...]) -> tuple[Result, ...]:
    """Return the failed cells of the same data, group and seed; a failed cell has no fingerprint."""
    there = {_about(r) for some in cells for r in some.values()}
    return tuple(f for f in failed if _about(f) in there)


def _about(r: Result) -> tuple[str, str, int]:
    return str(r.data["uri"]), str(r.group["name"]), int(r.seed)


def _both_failed(
    a: Participant, b: Participant, failed_a: Sequence[Result], failed_b: Sequence[Result]
) -> list[tuple[Side, Side]]:
    found = []
    for about in dict.fromkeys(map(_about, failed_a)):
        one, other = (tuple(f for f in some if _about(f) == about) for some in (failed_a, failed_b))
        if other:
            found.append((_nothing(a, one), _nothing(b, other)))
    return found


# --- refusing ---------------------------------------------------------------------------------------------------


def _unlike(a: Participant, b: Participant, one: Sequence[Setting], other: Sequence[Setting]) -> str:
    """Return why nothing of the two can be paired."""
    if not one or not other:
        empty = a if not one else b
        why = next((str(r.reason) for m in empty.models for r in m.results if r.reason), "it has no results")
        return f"nothing of {empty.name!r} was measured, so there is nothing to compare: {why}"
    if {s.images for s in one} & {t.images for t in other}:
        return (
            f"{a.name!r} was measured with {_words(one)} and {b.name!r} with {_words(other)}: no group in common, and"
            " more than one of them; measure both with the same --group"
        )
    first, second = one[0], other[0]
    differ = [
        f"{what} {x} and {y}"
        for what, x, y in (
            ("number of images", first.images[1], second.images[1]),
            ("seed", first.images[2], second.images[2]),
            ("fingerprint", first.images[0][:12], second.images[0][:12]),
        )
        if x != y
    ]
    where = [str(next(iter(r.data["uri"] for r in p.models[0].results if not r.failed))) for p in (a, b)]
    return (
        f"{a.name!r} ({where[0]}) and {b.name!r} ({where[1]}) were not measured on the same images:"
        f" {', '.join(differ)}; a comparison needs the same --data, --samples and --seed"
    )


def _words(settings: Sequence[Setting]) -> str:
    return ", ".join(dict.fromkeys(s.words for s in settings))
