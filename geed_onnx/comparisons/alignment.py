"""Which tap of one model stands beside which of another: by name, by module path, by relative depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from geed_onnx.errors import UnknownName

Align = Literal["auto", "name", "module", "depth"]
ALIGNMENTS: tuple[str, ...] = get_args(Align)
Tap = Mapping[str, Any]
"""`tap` of a Result: name, kind, shape, module"""


@dataclass(frozen=True)
class Match:
    """Two taps that are compared, by their places in the two lists, and what brought them together."""

    a: int
    b: int
    by: str
    """`name`, `module` or `depth`"""


def align(a: Sequence[Tap], b: Sequence[Tap], how: str = "auto") -> tuple[Match, ...]:
    """Return which taps of two models are compared; taps of different kinds never are.

    `a` and `b` are the taps of two models in the order of their graphs, each once.  Aligning the other way round gives
    the same pairs.

    - `name`: taps of the same name, which is what a file declares (`geed.taps`), else the tensor's.
    - `module`: taps of the same module path, where one tap of each model has it.
    - `depth`: by the relative depth i/(k−1) of tap i among the k taps of its kind, each of the shorter list with the
      nearest of the longer; the only tap of its kind counts as the last.
    - `auto`: by name, those left by module path, and by depth only where neither brings any two taps of a kind
      together.

    Raises
    ------
    UnknownName
        If there is no such way.
    """
    if how not in ALIGNMENTS:
        raise UnknownName("alignment", how, ALIGNMENTS)
    found: list[Match] = []
    for kind in dict.fromkeys(str(t.get("kind")) for t in a):
        left, right = _of_kind(a, kind), _of_kind(b, kind)
        some: list[Match] = []
        if how in ("auto", "name"):
            some += _by("name", a, b, left, right)
        if how in ("auto", "module"):
            gone_a, gone_b = {m.a for m in some}, {m.b for m in some}
            some += _by("module", a, b, [i for i in left if i not in gone_a], [j for j in right if j not in gone_b])
        if how == "depth" or (how == "auto" and not some):
            some = [Match(i, j, "depth") for i, j in by_depth(left, right)]
        found += some
    return tuple(sorted(found, key=lambda m: (m.a, m.b)))


def by_depth(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
    """Pair each of the shorter list with the nearest in relative depth of the longer, each at most once."""
    if len(a) > len(b):
        return [(i, j) for j, i in by_depth(b, a)]
    if not a:
        return []
    if len(a) == 1:
        return [(a[0], b[-1])]
    # steps are at least 1 apart, so no two round to one place
    return [(a[i], b[(2 * i * (len(b) - 1) + len(a) - 1) // (2 * (len(a) - 1))]) for i in range(len(a))]


def _of_kind(taps: Sequence[Tap], kind: str) -> list[int]:
    return [i for i, t in enumerate(taps) if str(t.get("kind")) == kind]


def _by(word: str, a: Sequence[Tap], b: Sequence[Tap], left: Sequence[int], right: Sequence[int]) -> list[Match]:
    def places(taps: Sequence[Tap], some: Sequence[int], read: Callable[[Tap], Any]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for i in some:
            if read(taps[i]):
                found.setdefault(str(read(taps[i])), []).append(i)
        return found

    one, other = (places(taps, some, lambda t: t.get(word)) for taps, some in ((a, left), (b, right)))
    # several taps of one module cannot be told apart by its path
    return [Match(i[0], other[n][0], word) for n, i in one.items() if len(i) == 1 and len(other.get(n, ())) == 1]
