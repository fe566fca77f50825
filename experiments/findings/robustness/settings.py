"""R3, R4 and R5: interpolation, mask and size. The unit of uncertainty is the model, and changes are within models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.findings.digits import C8, CNN
from experiments.findings.evidence import Evidence, On, Values, averaged, change, mean, number, said
from experiments.findings.finding import Finding, joined
from experiments.findings.robustness.cells import Cell, cells, furthest, same_order, told
from geed_onnx.errors import DataError
from geed_onnx.estimators import Estimate


class Move(NamedTuple):
    """A change of one number from one setting to another."""

    cell: Cell
    later: str
    earlier: str

    def __str__(self) -> str:
        """Return `block1 of the CNN, bicubic minus nearest`."""
        return f"{self.cell}, {self.later} minus {self.earlier}"


def moves(by: Mapping[str, Evidence], on: On) -> dict[Move, Estimate]:
    """Return the change of every number between every two settings, paired by the models' seeds."""
    return {
        Move(c, later, earlier): change(*(by[name].values(on, **c._asdict()) for name in (later, earlier)))
        for c in cells(next(iter(by.values())))
        for earlier, later in itertools.combinations(by, 2)
    }


def orders(by: Mapping[str, Evidence], on: On) -> list[bool]:
    """Return for every number of two families whether they are in one order under all settings."""

    def level(e: Evidence, c: Cell) -> float:
        return mean(e.values(on, **c._asdict())).value

    return [
        same_order((level(e, a), level(e, b)) for e in by.values())
        for a, b in itertools.combinations(cells(next(iter(by.values()))), 2)
        if a[1:] == b[1:]
    ]


def _blocks(found: Mapping[Move, Estimate]) -> dict[Move, Estimate]:
    return {m: e for m, e in found.items() if m.cell.variant == "channelwise"}


def _largest(found: Mapping[Move, Estimate], cell: Cell) -> str:
    m = furthest({m: e for m, e in found.items() if m.cell == cell})
    return f"{said(found[m])} ({m.later} − {m.earlier})"


def r3(by: Mapping[str, Evidence]) -> Finding:
    """Nearest, bilinear or bicubic: the largest changes, raw and calibrated.

    Raises
    ------
    DataError
        If a number is missing, or settings were not measured on the same models.
    """
    raw, calibrated = moves(by, "value"), moves(by, "calibrated")
    worst, block, raw_block = furthest(calibrated), furthest(_blocks(calibrated)), furthest(_blocks(raw))
    same = {"raw": orders(by, "value"), "calibrated": orders(by, "calibrated")}
    return Finding(
        key="R3",
        title="Does the interpolation decide the answer?",
        claim=f"Images and maps are turned by {joined(list(by))} interpolation. How much do the raw and the calibrated"
        " numbers change?",
        verdict="answered",
        sentence=f"The largest change of a calibrated number is {said(calibrated[worst])} ({worst}), that of a block"
        f" {said(calibrated[block])} ({block}); raw, the largest of a block is {said(raw[raw_block])} ({raw_block}). The"
        " two networks are in one order under all of them in"
        f" {joined([f'{sum(s)} of {len(s)} numbers {on}' for on, s in same.items()])}.",
        number=calibrated[worst],
        of=f"change of the calibrated number, {worst}, the largest of all, within models",
        figure="r3-interpolation",
        table=(
            ("number", *(f"calibrated, {n}" for n in by), "largest change, calibrated", "largest change, raw"),
            *(
                (
                    str(c),
                    *(number(mean(e.values("calibrated", **c._asdict())).value) for e in by.values()),
                    _largest(calibrated, c),
                    _largest(raw, c),
                )
                for c in cells(next(iter(by.values())))
            ),
        ),
    )


def r4(whole: Evidence, disc: Evidence) -> Finding:
    """Whole frame or disc: the paired change by block, raw and calibrated.

    Raises
    ------
    DataError
        If a number is missing, or the two were not measured on the same models.
    """
    by = {"whole frame": whole, "disc": disc}
    raw, calibrated = moves(by, "value"), moves(by, "calibrated")
    blocks, raw_blocks = _blocks(calibrated), _blocks(raw)
    worst, raw_worst = furthest(blocks), furthest(raw_blocks)
    same = orders(by, "calibrated")
    return Finding(
        key="R4",
        title="Do the corners decide it?",
        claim="A turn pushes the corners out of the frame. What changes when everything outside the inscribed disc is set"
        " to 0, in images and maps?",
        verdict="answered",
        sentence=f"With the disc the raw deviation of a block moves by {said(raw_blocks[raw_worst])} where it moves most"
        f" ({raw_worst.cell}) and the calibrated one by {said(blocks[worst])} ({worst.cell}); the change is told from 0"
        f" in {sum(map(told, raw_blocks.values()))} of {len(raw_blocks)} blocks raw and in"
        f" {sum(map(told, blocks.values()))} calibrated. The two networks are in one order with and without it in"
        f" {sum(same)} of {len(same)} calibrated numbers.",
        number=blocks[worst],
        of=f"change of the calibrated number, {worst}, the largest of all blocks, within models",
        figure="r4-mask",
        table=(
            ("number", "raw, whole frame", "raw, disc", "change, raw", "change, calibrated"),
            *(
                (
                    str(m.cell),
                    *(said(mean(e.values(**m.cell._asdict()))) for e in by.values()),
                    said(raw[m]),
                    said(calibrated[m]),
                )
                for m in raw
            ),
        ),
    )


def keeps_centre(size: int) -> bool:
    """Say whether both layers of stride 2 lie about the centre: the first needs n odd, the second n ≡ 1 (mod 4)."""
    return size % 4 == 1


#: Of the table: variant, tap, group.
COLUMNS = (("latent-l2", "latent", "C4"), ("channelwise", "block6", "C4"), ("latent-l2", "latent", "C8"))


def r5(found: Evidence) -> Finding:
    """Odd and even sizes: C4 latent-l2 where the strides keep the centre of the frame, and where they do not.

    Raises
    ------
    DataError
        If a number is missing, or a size was measured on other models than the rest.
    """
    sizes = sorted({int(f.rsplit(" ", 1)[1]) for f in found.order("family")})
    kept, lost = ([n for n in sizes if keeps_centre(n) is there] for there in (True, False))

    def at(network: str, size: int, variant: str, tap: str, group: str) -> Values:
        values = found.values(family=f"{network} {size}", variant=variant, tap=tap, group=group)
        first = found.values(family=f"{network} {sizes[0]}", variant=variant, tap=tap, group=group)
        if set(values) != set(first):
            raise DataError(
                f"{found.name}: {network}: size {sizes[0]} has {sorted(first)}, {size} has {sorted(values)}"
            )
        return values

    def over(network: str, some: Sequence[int]) -> Values:
        return averaged([at(network, n, *COLUMNS[0]) for n in some])

    off = {f: change(over(f, lost), over(f, kept)) for f in (C8, CNN)}
    parity = change(over(C8, [n for n in lost if n % 2]), over(C8, [n for n in lost if n % 2 == 0]))
    levels = {(f, n): mean(at(f, n, *COLUMNS[0])).value for f in (C8, CNN) for n in sizes}
    apart = max(levels[C8, n] for n in kept) < min(levels[C8, n] for n in lost)
    names = joined([str(n) for n in kept])
    pairs = {f: [_range([levels[f, n] for n in some]) for some in (kept, lost)] for f in (C8, CNN)}
    return Finding(
        key="R5",
        title="Odd or even sizes?",
        claim=f"The same weights on images of {sizes[0]} to {sizes[-1]} pixels, the digits unscaled: quarter turns are exact"
        f" on every grid, but strides keep the centre of the frame at {names} alone. Does an equivariant network stay one?",
        verdict="answered",
        sentence=f"Under C4 the latent-l2 of the C8-CNN is {pairs[C8][0]} at {names} and {pairs[C8][1]} at the other sizes:"
        f" {'lower wherever' if apart else 'not lower wherever'} the strides keep the centre, the others minus {names} being"
        f" {said(off[C8])}. Parity by itself makes {said(parity)} (odd minus even among the others). Of the CNN it is"
        f" {pairs[CNN][0]} and {pairs[CNN][1]}, a difference of {said(off[CNN])}.",
        number=off[C8],
        of=f"latent-l2 C4-EED of the C8-CNN, mean over the other sizes minus mean over {names}, within models",
        figure="r5-sizes",
        table=(
            ("size", "centre", *(f"{t} of the {f}, {g}" for _, t, g in COLUMNS for f in (CNN, C8))),
            *(
                (
                    str(n),
                    "kept" if keeps_centre(n) else "lost",
                    *(said(mean(at(f, n, *column))) for column in COLUMNS for f in (CNN, C8)),
                )
                for n in sizes
            ),
        ),
    )


def _range(values: Sequence[float]) -> str:
    return joined(list(dict.fromkeys(number(v) for v in (min(values), max(values))))).replace(" and ", " to ")
