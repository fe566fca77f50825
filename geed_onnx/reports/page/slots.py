"""Which taps of different models stand in one column: by their names where models share them, else by their place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: From the input to the scores; other kinds come last.
KINDS = ("map", "vector", "probability")
#: The last vector of a network is its latent and its last probabilities are its scores, whatever they are called.
LAST = {"vector": "latent", "probability": "scores"}
#: Names line up as long as they make at most this many times the columns of the deepest model,
SPREAD = 1.5
#: or most of the models agree on them and the others bring at most this many further columns.
FURTHER = 24

Tap = tuple[str, str]
"""(kind, name)"""


@dataclass(frozen=True)
class Slot:
    """One column: a tap, as models share it."""

    label: str
    kind: str


@dataclass(frozen=True)
class Slots:
    """The columns from the input to the scores, and where each model's taps stand in them."""

    slots: tuple[Slot, ...]
    places: Mapping[tuple[int, Tap], int]
    """(model, tap) → column"""


def slots_of(taps: Mapping[int, Sequence[Tap]]) -> Slots:
    """Return the columns for models `{model: its taps in the graph's order}`."""
    kinds = list(dict.fromkeys(kind for some in taps.values() for kind, _ in some))
    kinds.sort(key=lambda k: KINDS.index(k) if k in KINDS else len(KINDS))
    slots: list[Slot] = []
    places: dict[tuple[int, Tap], int] = {}
    for kind in kinds:
        names = {m: list(dict.fromkeys(name for k, name in some if k == kind)) for m, some in taps.items()}
        names = {m: some for m, some in names.items() if some}
        labels = _labels(kind, names)
        order = merged([list(some) for some in labels.values()])
        first = len(slots)
        taken = {s.label for s in slots}
        slots += [Slot(label if label not in taken else f"{label} ({kind})", kind) for label in order]
        for m, some in names.items():
            for name, label in zip(some, labels[m], strict=True):
                places[m, (kind, name)] = first + order.index(label)
    return Slots(tuple(slots), places)


def _labels(kind: str, names: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
    """Return each model's column labels, one for each of its taps of this kind."""
    longest = max(map(len, names.values()))
    last = LAST.get(kind)
    if last is not None and len({some[-1] for some in names.values()}) > 1:
        before = _labels(kind + " before", {m: some[:-1] for m, some in names.items()})
        taken = {label for some in before.values() for label in some}
        end = last if last not in taken else f"last {last}"
        return {m: [*before[m], end] for m in names}
    columns = len({name for some in names.values() for name in some})
    agreed = max(Counter(map(tuple, names.values())).values())
    if columns <= SPREAD * longest or (2 * agreed > len(names) and columns <= longest + FURTHER):
        return {m: list(some) for m, some in names.items()}
    word = kind.removesuffix(" before")
    return {m: [f"{word} {i}" for i in range(1, len(some) + 1)] for m, some in names.items()}


def merged(orders: Sequence[Sequence[str]]) -> list[str]:
    """Return all labels once, in an order that agrees with every given one wherever they agree among themselves."""
    depth: dict[str, list[float]] = {}
    after: dict[str, set[str]] = {}
    for some in orders:
        for i, label in enumerate(some):
            depth.setdefault(label, []).append(i / max(1, len(some) - 1))
            after.setdefault(label, set())
            if i:
                after[label].add(some[i - 1])
    mean = {label: sum(d) / len(d) for label, d in depth.items()}
    found: list[str] = []
    left = dict.fromkeys(depth)
    while left:
        free = [label for label in left if not after[label] & left.keys()] or list(left)
        chosen = min(free, key=lambda label: mean[label])
        found.append(chosen)
        del left[chosen]
    return found
