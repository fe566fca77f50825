"""`compare`: participants two by two, setting by setting, tap by tap, variant by variant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from geed_onnx.comparisons.alignment import ALIGNMENTS, Match, align
from geed_onnx.comparisons.comparable import calibrated_problem, notes_on, raw_problem
from geed_onnx.comparisons.differences import Cell, Difference, Of, difference_of
from geed_onnx.comparisons.participants import Pair, listed
from geed_onnx.comparisons.record import Comparison
from geed_onnx.comparisons.settings import Side, is_meant, matched_settings, stands_for
from geed_onnx.errors import DataError, UnknownName, UsageError
from geed_onnx.estimators import check_margin
from geed_onnx.results import Result


@dataclass(frozen=True)
class Comparisons:
    """Every row, and what is worth saying about them as a whole."""

    rows: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def unproven(self) -> tuple[Comparison, ...]:
        """The rows that were to be shown equivalent, and were not."""
        return tuple(r for r in self.rows if r.holds is False)


@dataclass(frozen=True)
class Request:
    """How to compare; see `compare`."""

    level: float | None = None
    within: float | None = None
    on: Of = "value"
    align: str = "auto"
    taps: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    images: bool = False

    def __post_init__(self) -> None:
        if self.on not in ("value", "calibrated"):
            raise UnknownName("number to compare", self.on, ("value", "calibrated"))
        if self.align not in ALIGNMENTS:
            raise UnknownName("alignment", self.align, ALIGNMENTS)
        if self.level is not None and not 0 < self.level < 1:
            raise UsageError(f"level must lie between 0 and 1 (0.95 is 95 %), not {self.level:g}")
        if self.within is not None:
            check_margin(self.within, 0.95 if self.level is None else self.level)


def compare(
    pairs: Sequence[Pair],
    *,
    level: float | None = None,
    within: float | None = None,
    on: Of = "value",
    align: str = "auto",
    taps: Sequence[str] = (),
    variants: Sequence[str] = (),
    images: bool = False,
) -> Comparisons:
    """Compare participants two by two: a row for each pair of taps and each variant that both have.

    Parameters
    ----------
    pairs
        Who is compared with whom (`pairs_of`); differences are the first minus the second.
    level
        Of intervals and verdicts; by default that of the results.
    within
        δ: whether the two are equivalent within ±δ in what `on` names; None asks only whether they differ.
    on
        `value` or `calibrated`.  Raw values that are not comparable are never subtracted: the row then shows the
        calibrated ones and says why.
    align
        How taps are brought together: `auto`, `name`, `module`, `depth`.
    taps
        Names, module paths or globs; a row stays if one of its two taps is meant.
    variants
        As `--variant` takes them.
    images
        Whether the intervals of families, which are over models that share their images, carry the uncertainty over
        images too.

    Raises
    ------
    DataError
        If two participants were not measured on the same images, or have nothing in common.
    UsageError
        If δ or the level cannot be meant; `UnknownName` for a tap or variant that no row has.
    """
    request = Request(level, within, on, align, tuple(taps), tuple(variants), images)
    rows: list[Comparison] = []
    notes: list[str] = []
    for a, b in pairs:
        found: list[Comparison] = []
        settings, some = matched_settings(a, b)
        notes += some
        for one, other in settings:
            found += _rows(one, other, request, notes)
        if not found:
            raise DataError(_nothing_in_common(settings, request))
        rows += found
    return Comparisons(_chosen(rows, request), tuple(dict.fromkeys(notes)))


def _rows(one: Side, other: Side, request: Request, notes: list[str]) -> Iterator[Comparison]:
    """Yield the rows of two sides of a setting; what only one of them has goes to `notes`."""
    taps_a, taps_b = one.taps, other.taps
    matches = align(taps_a, taps_b, request.align)
    names = one.participant.name, other.participant.name
    met: tuple[set[tuple[str, str]], set[tuple[str, str]]] = (set(), set())
    for match in matches:
        tap_a, tap_b = str(taps_a[match.a]["name"]), str(taps_b[match.b]["name"])
        for variant in [v for t, v in one.first if t == tap_a and (tap_b, v) in other.first]:
            met[0].add((tap_a, variant))
            met[1].add((tap_b, variant))
            row = _row(_cell(one, tap_a, variant), _cell(other, tap_b, variant), match, request)
            notes += notes_on(one.first[tap_a, variant], other.first[tap_b, variant], names)
            yield row
    for side, opposite, seen, turned in ((one, other, met[0], False), (other, one, met[1], True)):
        alone: dict[str, list[str]] = {}
        for (tap, variant), result in side.first.items():
            if (tap, variant) in seen:
                continue
            if (failed := opposite.failure(tap, variant)) is not None:
                yield _failed_row(side, result, opposite, failed, request, turned=turned)
            else:
                alone.setdefault(tap, []).append(variant)
        if alone:
            taps = listed([f"{tap} ({', '.join(some)})" for tap, some in alone.items()])
            notes.append(f"in {side.participant.name}, without a counterpart in {opposite.participant.name}: {taps}")
    for mine in one.failed:
        for theirs in other.failed:
            if mine.tap["name"] == theirs.tap["name"] and mine.variant == theirs.variant:
                yield _failed_row(one, mine, other, theirs, request, turned=False)
    notes += [*_failed_unmet(one, other), *_failed_unmet(other, one)]


def _failed_unmet(side: Side, opposite: Side) -> Iterator[str]:
    """Yield a note for each failed cell that nothing of the other side is held against."""
    for f in side.failed:
        met = any(stands_for(f, tap, variant) for tap, variant in opposite.first)
        met = met or any(g.tap["name"] == f.tap["name"] and g.variant == f.variant for g in opposite.failed)
        if not met:
            yield f"in {side.participant.name}, {f.variant} of {f.tap['name']} failed: {f.reason}"


def _cell(side: Side, tap: str, variant: str) -> Cell:
    return Cell(side.participant, tuple(cells.get((tap, variant)) for cells in side.cells))


def _row(a: Cell, b: Cell, match: Match, request: Request) -> Comparison:
    everyone = [(x, y) for x in a.known for y in b.known]
    raw = next((p for x, y in everyone if (p := raw_problem(x, y)) is not None), None)
    calibrated = next((p for x, y in everyone if (p := calibrated_problem(x, y)) is not None), None)
    on: Of = "calibrated" if raw is not None else request.on

    def subtracted(of: Of, problem: str | None) -> Difference:
        # δ was given for what was asked for, and means nothing on another scale
        margin = request.within if of == request.on else None
        return difference_of(of, a, b, level=request.level, delta=margin, problem=problem, images=request.images)

    differences: dict[Of, Difference] = {
        "value": subtracted("value", raw),
        "calibrated": subtracted("calibrated", calibrated),
    }
    return _comparison(a.first, b.first, (a.participant, b.participant), match.by, on, differences, request)


def _failed_row(
    side: Side, result: Result, opposite: Side, failed: Result, request: Request, *, turned: bool
) -> Comparison:
    """Return the row of a cell that could not be measured on one side, or on both."""
    reason = "; ".join(f"{s.participant.name} failed: {r.reason or 'no reason was given'}"
                       for s, r in ((side, result), (opposite, failed)) if r.failed)  # fmt: skip
    nothing = Difference(reason=reason)
    pair: Pair = (side.participant, opposite.participant)
    results = (result, failed)
    if turned:
        pair, results = (pair[1], pair[0]), (failed, result)
    # what was measured says more of the data than what failed
    return _comparison(*results, pair, None, request.on, {"value": nothing, "calibrated": nothing}, request)


def _comparison(
    a: Result,
    b: Result,
    pair: Pair,
    by: str | None,
    on: Of,
    differences: Mapping[Of, Difference],
    request: Request,
) -> Comparison:
    told = b if a.failed else a
    return Comparison(
        a=pair[0],
        b=pair[1],
        tap_a=a.tap,
        tap_b=b.tap,
        aligned_by=by,
        variant=told.variant,
        data={k: told.data[k] for k in ("uri", "fingerprint", "samples")},
        seed=told.seed,
        group_a=a.group,
        group_b=b.group,
        samples=told.samples,
        wanted=request.on,
        on=on,
        value=differences["value"],
        calibrated=differences["calibrated"],
        within=request.within,
    )


# --- choosing rows, and having none -----------------------------------------------------------------------------


def _chosen(rows: Sequence[Comparison], request: Request) -> tuple[Comparison, ...]:
    """Return the rows that `taps` and `variants` ask for."""
    from geed_onnx.variants import parse_variant

    names = sorted({str(t["name"]) for r in rows for t in (r.tap_a, r.tap_b)})
    for tap in request.taps:
        if not any(_is_tap(r, tap) for r in rows):
            raise UnknownName("tap", tap, names, "only taps that both sides have are compared")
    wanted = [v if any(r.variant == v for r in rows) else parse_variant(v).name for v in request.variants]
    for variant in wanted:
        if not any(r.variant in (variant, "*") for r in rows):
            raise UnknownName("variant among the results", variant, sorted({r.variant for r in rows}))
    kept = tuple(
        r
        for r in rows
        if (not request.taps or any(_is_tap(r, t) for t in request.taps))
        and (not wanted or r.variant in (*wanted, "*"))
    )
    if not kept:
        raise UsageError("no tap that was asked for has a variant that was asked for; leave out --tap or --variant")
    return kept


def _is_tap(row: Comparison, spec: str) -> bool:
    names = {str(t[k]) for t in (row.tap_a, row.tap_b) for k in ("name", "module") if t.get(k)}
    return any(is_meant(name, spec) for name in names)


def _nothing_in_common(settings: Sequence[tuple[Side, Side]], request: Request) -> str:
    one, other = settings[0]
    said = [f"{s.participant.name!r} has {_told(s.first.values())}" for s in (one, other)]
    more = "" if request.align in ("auto", "depth") else f" by {request.align}; --align depth pairs them by depth"
    return f"no tap and variant in common{more}: {said[0]}, {said[1]}"


def _told(results: Iterable[Result]) -> str:
    return listed([f"{r.tap['name']} ({r.tap.get('kind')}: {r.variant})" for r in results]) or "none"
