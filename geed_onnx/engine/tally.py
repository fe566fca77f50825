"""What is kept of activations: deviations keyed by image, spread features, reference levels. The rest is dropped."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geed_onnx.actions import Action, Alignment, on_logs, output_action, within_disc
from geed_onnx.ending import put_away, temporary_folder
from geed_onnx.engine.partial import CellPart, Quiet, TapPart
from geed_onnx.engine.passes import Batch, Block
from geed_onnx.engine.plan import Plan
from geed_onnx.engine.targets import Target
from geed_onnx.errors import ActionError, MeasureError
from geed_onnx.estimators import Broken, Deviations, Floats
from geed_onnx.variants import (
    LinedUp,
    Null,
    Readings,
    Variant,
    aligned_readings,
    anchored_null,
    broken_nulls,
    deviations,
    line_up,
    lined_up,
    log_probabilities,
    looks_doubtful,
    looks_like_probabilities,
    missed,
    readings,
    shifts,
)

Array = npt.NDArray[Any]

#: Channels below this share of the mean norm of an image's channels are next to zero.
FAINT = 1e-5
#: Orbits of a block beyond this are kept in a temporary file, not in memory.
REFERENCE_BYTES = 1 << 30
#: Values of an orbit below which a call costs more than what is computed in it.
SMALL = 1 << 15
#: Broken orbits of a block are put together this many bytes at a time.
BROKEN_BYTES = 1 << 26


@dataclass(frozen=True)
class Cell:
    """One (tap, variant) with the output action bound to the shape that the tap really has."""

    target: Target
    variant: Variant
    action: Action | None
    reason: str | None = None
    """why there is no action, and nothing is measured"""
    stated: bool = False
    """whether somebody said how the tap answers to a motion, beyond invariance and moving pixels"""

    @property
    def bound(self) -> Action:
        """The action, where there is one; a cell without is never measured."""
        if self.action is None:
            raise MeasureError(self.reason or "no action")
        return self.action

    @property
    def resamples(self) -> bool:
        """Whether the output action resamples, so that its floor comes from the activations at hand."""
        return self.action is not None and any(self.action.resampled_by)

    @property
    def anchored(self) -> bool:
        """Whether f̂ is f(x) itself, so that its null needs no more of another image than that."""
        return self.action is not None and len(self.action.kernel) == 1

    @property
    def compares(self) -> tuple[str, str]:
        """What is compared with what: cells of one tap that agree in it differ in their normalisers only."""
        return self.variant.distance, self.bound.name

    @property
    def centres(self) -> tuple[str, Any]:
        """What f̂ is: cells of one tap that agree in it have the same broken orbits."""
        return self.bound.name, self.variant.m.mean

    def steps(self, plan: Plan, n: int) -> tuple[int, ...]:
        """Return for every element how far on in a block of n images its partner stands."""
        if not self.anchored:
            return shifts(plan.motions, n)
        # all elements are held against one image, which is then resampled once a turn
        return shifts([1 if motion else 0 for motion in plan.motions], n)


def cells_of(plan: Plan, target: Target, shape: tuple[int, ...]) -> tuple[Cell, ...]:
    """Return the cells of a tap whose values are `(B, *shape)`, in the order of the plan's variants.

    Raises
    ------
    ActionError
        If an action that the user asked for does not fit; one that was taken by default leaves a cell with a reason.
    """
    return tuple(_cell(plan, target, v, shape) for v in plan.variants if v.kind == target.kind)


def _cell(plan: Plan, target: Target, variant: Variant, shape: tuple[int, ...]) -> Cell:
    spec = plan.acts.get(target.name, variant.action)
    try:
        action = output_action(spec, plan.group, shape, plan.settings.interpolation)
        action = on_logs(action) if target.kind == "probability" else action
        action = within_disc(action, plan.masked and target.kind == "map")
    except ActionError as error:
        if plan.opened.explicit or target.name in plan.acts:
            raise type(error)(f"tap {target.name!r}: {error}") from error
        return Cell(target, variant, None, reason=f"tap {target.name!r}: {error}")
    stated = spec not in ("trivial", "pixels") and len(action.kernel) < plan.group.order
    return Cell(target, variant, action, stated=stated)


@dataclass
class Rows:
    """What is gathered of one cell, in the order of reading."""

    cell: Cell
    ids: list[str] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    floors: list[Floats] = field(default_factory=list)
    floor_ids: list[str] = field(default_factory=list)
    nulls: list[Floats] = field(default_factory=list)
    """of the block at hand, where f̂ is f(x): by image and element, m(f(g x_j), ρ(g) f(x_i))"""
    null_ids: list[str] = field(default_factory=list)
    broken: list[Null] = field(default_factory=list)
    contrast: float | None = None

    def part(self) -> CellPart:
        """Return it as tables keyed by image."""
        order = self.cell.action.group.order if self.cell.action else 1
        sample = Deviations.of(self.ids, np.concatenate(self.values)) if self.values else Deviations.empty(order)
        floor = null = None
        if self.broken:
            parts = [np.concatenate(part) for part in zip(*self.broken, strict=True)]
            null = Broken.of(self.null_ids, *parts)
        if self.floors:
            floor = Deviations.of(self.floor_ids, np.concatenate(self.floors))
        return CellPart(sample, floor, null, self.contrast)


@dataclass
class Gathered:
    """What is gathered of one tap, beside its cells' rows."""

    target: Target
    shape: tuple[int, ...]
    rows: list[Rows]
    logits: bool | None = None
    spread: dict[str, Array] = field(default_factory=dict)
    zero_channels: dict[str, Quiet] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    missed: float = 0.0
    centres: dict[int, list[Array]] = field(default_factory=dict)
    """{block: f(x) of its images, each (1, …)}"""
    lined_up: dict[int, dict[tuple[Alignment, int], LinedUp]] = field(default_factory=dict)
    """{block: {its place: f of the image before it, lined up}}, until that place is read"""
    orbits: list[list[Array]] = field(default_factory=list)
    """of the block at hand, [image][element] as (1, …), where a cell's f̂ is a mean over several elements"""

    @property
    def measured(self) -> list[Rows]:
        """The rows of the cells that have an action here."""
        return [r for r in self.rows if r.cell.action is not None]

    def part(self) -> TapPart:
        """Return it as plain data keyed by image."""
        cells = tuple(r.part() for r in self.rows)
        return TapPart(
            self.shape,
            self.logits,
            cells,
            dict(self.spread),
            dict(self.zero_channels),
            dict(self.sizes),
            self.missed,
        )


@dataclass(frozen=True)
class TapDigest:
    """What is kept of one tap's activations in one batch; lists of tables run over the cells that are measured."""

    rows: list[Floats]
    floors: list[Floats | None]
    nulls: list[Floats | None]
    spread: dict[str, Array]
    orbits: list[list[Array]]
    zero_channels: list[Quiet]
    """by image: how many channels of f(x) are zero, or nearly; empty where no variant goes by channels"""
    sizes: list[float]
    """by image: ‖f(x)‖; empty where every distance is free of the features' scale"""
    missed: float
    """how far probabilities were from summing to 1, at most"""


class Tally:
    """Takes activations batch by batch and keeps what the statistics need."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # Two threads in NumPy at once wait for one another's interpreter lock and are slower than one; while one is
        # here, the others are in forward passes, which hold no lock.
        self._turn = threading.Lock()
        self._gathered: dict[str, Gathered] = {}
        self._spread = frozenset(plan.spread_indices)
        self._spooled = 0
        self._folder: Path | None = None

    def parts(self) -> dict[str, TapPart]:
        """Return {tap: what the images taken in so far leave behind}, in the order of the taps."""
        return {name: gathered.part() for name, gathered in self._gathered.items()}

    def close(self) -> None:
        """Remove the temporary file of orbits, if there was one."""
        for gathered in self._gathered.values():
            gathered.orbits.clear()
            gathered.centres.clear()
            gathered.lined_up.clear()
        if self._folder is not None:
            put_away(self._folder)

    # --- binding ------------------------------------------------------------------------------------------------

    def bind(self, outputs: dict[str, Array]) -> None:
        """Bind every tap's action to the shape it really has, from first outputs `(rows, …)`; tell logits from them."""
        for target in self._plan.targets:
            y = outputs[target.name]
            if target.kind == "probability" and y.shape[-1] < 2:
                raise MeasureError(
                    f"tap {target.name!r} has one class only, whose softmax is always 1: measure it as"
                    f" {target.name}:vector"
                )
            logits = _logits(target, y) if target.kind == "probability" else None
            rows = [Rows(cell) for cell in cells_of(self._plan, target, y.shape[1:])]
            self._gathered[target.name] = Gathered(target, y.shape[1:], rows, logits)

    # --- the sample ---------------------------------------------------------------------------------------------

    def digest(
        self, batch: Batch, outputs: dict[str, list[Array]], back: dict[str, list[Array]] | None = None
    ) -> list[TapDigest]:
        """Reduce orbits `{tap: [(B, …) for every g]}` to what is kept of them; threads may call it side by side.

        `back` holds f(g⁻¹(g x)) in the same form, where floors are made from passes.
        """
        with self._turn:
            return [
                self._digest(g, batch, outputs[g.target.name], back[g.target.name] if back else None)
                for g in self._gathered.values()
            ]

    def _digest(self, gathered: Gathered, batch: Batch, raw: list[Array], back: list[Array] | None) -> TapDigest:
        measured = [r.cell for r in gathered.measured]
        # products of channels tell NaN and Inf by themselves: a large map is then read from memory once less
        tells = len(raw) > 1 and any(c.variant.m.per_channel for c in measured)
        if not tells:
            _check_finite(gathered.target.name, raw, batch.ids)
        elements = [self._understood(gathered, y, batch.ids, g) for g, y in enumerate(raw)]
        if back is not None:
            _check_finite(gathered.target.name, back, batch.ids)
        returned = None if back is None else [self._understood(gathered, y, batch.ids, g) for g, y in enumerate(back)]
        reference = batch.block is not None
        rows, floors, nulls = [], [], []
        known: dict[tuple[str, str], Readings] = {}
        for cell in measured:
            if cell.compares in known:
                continue
            alignment = self._alignment(cell, elements[0].dtype)
            if alignment is not None:
                own, before = self._lined_up(gathered, alignment, batch, elements[0])
                known[cell.compares] = aligned_readings(
                    elements, alignment, cell.variant.m, own, before, floor=reference and cell.resamples
                )
                continue
            others = self._others(gathered, cell, batch) if cell.anchored else None
            known[cell.compares] = readings(
                elements,
                cell.bound,
                cell.variant.m,
                floor=reference and cell.resamples,
                others=others,
                turned=self._turned(cell, batch, elements) if others is not None and cell.stated else None,
            )
        for cell in measured:
            found = known[cell.compares]
            rows.append(found.deviations)
            nulls.append(found.null)
            floors.append(found.floor if returned is None or cell.resamples else _floor_of_passes(cell, returned))
        if tells and not all(np.isfinite(r).all() for r in rows):
            _check_finite(gathered.target.name, raw, batch.ids)
        spread = [i in self._spread for i in batch.indices]
        whole = reference and any(not c.anchored for c in measured)
        return TapDigest(
            rows=rows,
            floors=floors,
            nulls=nulls,
            spread=self._spread_features(gathered, batch.ids, elements[0], spread),
            orbits=[[y[b : b + 1] for y in elements] for b in range(len(batch.ids))] if whole else [],
            zero_channels=self._zero_channels(gathered, elements[0]),
            sizes=_sizes(gathered, elements[0]),
            missed=0.0 if gathered.logits is not False else max(map(missed, raw)),
        )

    def _others(self, gathered: Gathered, cell: Cell, batch: Batch) -> list[Array] | None:
        """Return for every element f(x_i) of the images i around which the batch's images j are partners, `(B, …)`."""
        if batch.block is None or len(batch.block.ids) < 2:
            return None
        centres, n = self._centres(gathered, batch.block), len(batch.block.ids)
        found: dict[int, Array] = {}
        steps = cell.steps(self._plan, n)
        for step in {*steps}:
            some = [centres[(batch.start + b - step) % n] for b in range(len(batch.ids))]
            found[step] = some[0] if len(some) == 1 else np.concatenate(some)
        return [found[step] for step in steps]

    def _alignment(self, cell: Cell, dtype: npt.DTypeLike) -> Alignment | None:
        """Return how a cell's maps are lined up, where that gives its null too: one partner for all that move."""
        if cell.stated or not all(self._plan.motions[1:]):
            return None
        return lined_up(cell.bound, cell.variant.m, dtype)

    def _lined_up(
        self, gathered: Gathered, alignment: Alignment, batch: Batch, y: Array
    ) -> tuple[LinedUp, LinedUp | None]:
        """Return f(x) `(B, …)` of a batch lined up, and that of the image before them in their block."""
        own, block = line_up(alignment, y), batch.block
        if block is None or len(block.ids) < 2:
            return own, None
        known = gathered.lined_up.setdefault(block.number, {})
        before = known.pop((alignment, batch.start), None)
        if before is None:
            before = line_up(alignment, self._centres(gathered, block)[batch.start - 1])
        known[alignment, batch.start + len(y)] = own.last
        return own, before

    def _centres(self, gathered: Gathered, block: Block) -> list[Array]:
        if block.number not in gathered.centres:
            name = gathered.target.name
            found: list[Array] = []
            for y in block.identity(name):
                ids = block.ids[len(found) : len(found) + len(y)]
                _check_finite(name, [y], ids)
                found.extend(row[None] for row in self._understood(gathered, y, ids))
            gathered.centres[block.number] = found
        return gathered.centres[block.number]

    def _turned(self, cell: Cell, batch: Batch, elements: list[Array]) -> list[Array]:
        """Return for every element f(g h x_j) `(B, …)` with another h for each image j.

        Images that all stand upright answer alike whatever turns them; a partner in another orientation does not.
        """
        group = cell.bound.group
        h = [self._orientation(batch.start + b) for b in range(len(batch.ids))]
        return [
            np.concatenate([elements[group.product(g, turn)][b : b + 1] for b, turn in enumerate(h)])
            for g in group.elements
        ]

    def _orientation(self, place: int) -> int:
        """Return the element that turns the image at this place of a block, where it is a partner."""
        return place % self._plan.group.order

    def take(self, batch: Batch, digests: list[TapDigest]) -> None:
        """Take in a digest; batches come in the order of reading, those of a block one after the other."""
        with self._turn:
            self._take(batch, digests)

    def _take(self, batch: Batch, digests: list[TapDigest]) -> None:
        for gathered, digest in zip(self._gathered.values(), digests, strict=True):
            gathered.zero_channels |= zip(batch.ids, digest.zero_channels, strict=False)
            gathered.sizes |= zip(batch.ids, digest.sizes, strict=False)
            gathered.missed = max(gathered.missed, digest.missed)
            gathered.spread |= digest.spread
            gathered.orbits.extend([self._kept(y) for y in orbit] for orbit in digest.orbits)
            kept = zip(gathered.measured, digest.rows, digest.floors, digest.nulls, strict=True)
            for rows, values, floors, nulls in kept:
                rows.ids.extend(batch.ids)
                rows.values.append(values)
                if floors is not None and batch.block is not None:
                    rows.floors.append(floors)
                    rows.floor_ids.extend(batch.ids)
                if nulls is not None:
                    rows.nulls.append(nulls)
        if batch.block is not None and batch.ids[-1] == batch.block.ids[-1]:
            self._finish(batch.block)

    def _understood(self, gathered: Gathered, y: Array, ids: Sequence[str], g: int = 0) -> Array:
        """Check the shape of a tap's values `(B, …)` of element g and bring them to what its kind means."""
        name = gathered.target.name
        if y.shape[1:] != gathered.shape:
            raise MeasureError(
                f"tap {name!r} came as {y.shape[1:]} after {gathered.shape}: a tap's shape must not depend on the image"
            )
        if gathered.target.kind != "probability":
            return y
        if not gathered.logits:
            if gathered.target.logits is None and not looks_like_probabilities(y):
                raise MeasureError(
                    f"tap {name!r} sums to 1 for the first images, but not for all of {ids[0]!r} and those after it;"
                    f" tap the logits instead, or declare what it is: {_declare(name)}"
                )
            _check_scores(name, y, ids, g)
        return log_probabilities(y, logits=bool(gathered.logits))

    def _zero_channels(self, gathered: Gathered, y: Array) -> list[Quiet]:
        """Return by image how many channels of f(x) are zero, or nearly, where a variant goes by channels."""
        return quiet_channels(y) if any(by_channel(r.cell.variant) for r in gathered.rows) else []

    # --- spread points ------------------------------------------------------------------------------------------

    def _spread_features(
        self, gathered: Gathered, ids: Sequence[str], y: Array, wanted: Sequence[bool]
    ) -> dict[str, Array]:
        """Return f(x) `(B, …)` of the un-transformed spread points by id, where a variant needs M."""
        if not any(r.cell.variant.scale.spread for r in gathered.measured):
            return {}
        # M is of the probabilities themselves
        points = np.exp(y) if gathered.target.kind == "probability" else y
        return {name: row.copy() for name, row, inside in zip(ids, points, wanted, strict=True) if inside}

    def add_points(self, ids: Sequence[str], outputs: dict[str, Array]) -> None:
        """Take in spread points that are not of the sample, `{tap: (B, …)}`."""
        for gathered in self._gathered.values():
            _check_finite(gathered.target.name, [outputs[gathered.target.name]], ids)
            y = self._understood(gathered, outputs[gathered.target.name], ids)
            gathered.spread |= self._spread_features(gathered, ids, y, [True] * len(ids))

    # --- reference levels ---------------------------------------------------------------------------------------

    def _kept(self, y: Array) -> Array:
        """Keep an array of the block at hand; in a file once what is kept outgrows memory."""
        self._spooled += y.nbytes
        if self._spooled <= REFERENCE_BYTES:
            return y
        if self._folder is None:
            self._folder = temporary_folder()
        name = self._folder / f"{self._spooled}.npy"
        file: Array = np.lib.format.open_memmap(name, mode="w+", dtype=y.dtype, shape=y.shape)
        file[:] = y
        return file

    def _finish(self, block: Block) -> None:
        """Make the broken orbits of a block whose images were all taken in, and let its activations go."""
        n = len(block.ids)
        for gathered in self._gathered.values():
            centres = gathered.centres.pop(block.number, None)
            gathered.lined_up.pop(block.number, None)
            known: dict[tuple[str, str], Null] = {}
            for kept in gathered.measured:
                if n > 1:
                    if kept.cell.compares not in known:
                        known |= self._nulls(gathered, kept, block)
                    kept.broken.append(known[kept.cell.compares])
                    kept.null_ids.extend(block.ids)
                    if block.number == 0:
                        firsts = centres or [orbit[0] for orbit in gathered.orbits]
                        kept.contrast = _contrast(kept.cell, firsts)
                kept.nulls.clear()
            gathered.orbits.clear()
        self._spooled = 0
        if self._folder is not None:
            put_away(self._folder)
            self._folder = None

    def _nulls(self, gathered: Gathered, rows: Rows, block: Block) -> dict[tuple[str, str], Null]:
        """Return the deviations on the broken orbits of the block at hand, of all cells that share their f̂ with one."""
        cell, n = rows.cell, len(block.ids)
        steps = cell.steps(self._plan, n)
        if cell.anchored:
            return {cell.compares: anchored_null(_by_orbit(np.concatenate(rows.nulls), steps), steps)}
        orbits, group = gathered.orbits, cell.bound.group

        size = group.order * orbits[0][0].nbytes
        at_once = max(1, BROKEN_BYTES // max(size, 1))
        turns = [self._orientation(j) if cell.stated else 0 for j in range(n)]
        turned = np.array([[group.product(g, h if steps[g] else 0) for h in turns] for g in group.elements])
        small = np.concatenate([y for orbit in orbits for y in orbit]) if n <= at_once else None

        def orbit(elements: npt.NDArray[np.intp], images: npt.NDArray[np.intp]) -> Array:
            wanted = images * group.order + turned[elements, images]
            if small is not None:
                found: Array = small[wanted]
                return found
            found = np.concatenate([orbits[i // group.order][i % group.order] for i in wanted.ravel().tolist()])
            return found.reshape(*wanted.shape, *found.shape[1:])

        like = {r.cell.compares: r.cell.variant.m for r in gathered.measured if r.cell.centres == cell.centres}
        place = block.number, len(self._plan.references)
        nulls = broken_nulls(orbit, n, steps, cell.bound, [*like.values()], at_once, place)
        return dict(zip(like, nulls, strict=True))


def by_channel(variant: Variant) -> bool:
    """Say whether a variant compares channel by channel, so that channels which are zero everywhere matter."""
    return variant.distance.startswith("channelwise")


def _by_orbit(values: Floats, steps: Sequence[int]) -> Floats:
    """Return null deviations (n, |G|) by broken orbit from those by partner: row j's element g belongs to j − s(g)."""
    rows = np.arange(len(values))[:, None] + np.asarray(steps)
    found: Floats = values[rows % len(values), np.arange(values.shape[1])]
    return found


def _floor_of_passes(cell: Cell, returned: list[Array]) -> Floats:
    """Return what resampling the input costs, from f(g⁻¹(g x)): those images were resampled twice.

    The value's were resampled once, so that half of the excess over the optimum stands, and a quarter where the
    distance is quadratic in the error.
    """
    acted = [cell.bound(g, y) for g, y in enumerate(returned)]
    m = cell.variant.m
    return m.optimum + (deviations(acted, cell.bound, m) - m.optimum) * (0.25 if m.quadratic else 0.5)


def _contrast(cell: Cell, centres: Sequence[Array]) -> float:
    """Return how far f of one image is from f of the next, above the optimum, in the mean over `centres`."""
    m = cell.variant.m
    near, step = [*centres[1:], centres[0]], max(1, BROKEN_BYTES // centres[0].nbytes)
    spans = [slice(i, i + step) for i in range(0, len(near), step)]
    found = [m(np.concatenate(centres[some]), np.concatenate(near[some])) for some in spans]
    return float(np.concatenate(found).mean()) - m.optimum


def _sizes(gathered: Gathered, y: Array) -> list[float]:
    """Return ‖f(x)‖ by image, where a distance depends on the scale of the features."""
    if not any(r.cell.variant.m.homogeneous for r in gathered.rows):
        return []
    return [float(np.linalg.norm(row.astype(np.float64))) for row in y]


def quiet_channels(y: Array) -> list[Quiet]:
    """Return for each of `(B, C, …)` how many channels are zero, and how many are below `FAINT` of the mean norm."""
    flat = y.reshape(*y.shape[:2], -1).astype(np.float64 if y.dtype == np.float64 else np.float32, copy=False)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        norms = np.sqrt(np.vecdot(flat, flat), dtype=np.float64)
    silent = norms == 0
    # squares of what is tiny vanish before it does
    silent[silent] = ~flat[silent].any(axis=1)
    faint = (norms < FAINT * norms.mean(axis=1, keepdims=True)) & ~silent
    return [Quiet(int(z), int(n)) for z, n in zip(silent.sum(axis=1), faint.sum(axis=1), strict=True)]


def _logits(target: Target, y: Array) -> bool:
    """Return whether a scores tap holds logits: as declared, as the graph shows, else as first values look.

    Raises
    ------
    MeasureError
        If none of them tells.
    """
    if target.logits is not None:
        return target.logits
    if looks_doubtful(y):
        raise MeasureError(
            f"tap {target.name!r} lies in [0, 1] and sums to 1 only within {missed(y):.2g}: probabilities that were"
            f" rounded, or scores that are none, and the graph shows no softmax; declare which: {_declare(target.name)}"
        )
    return not looks_like_probabilities(y)


def _declare(tap: str) -> str:
    return f"--scores {tap}=probabilities or --scores {tap}=logits"


def _check_scores(name: str, y: Array, ids: Sequence[str], g: int) -> None:
    """Refuse distributions of which nothing is left once they are clipped at 0."""
    empty = ~(y.max(axis=-1) > 0).reshape(len(y), -1).all(axis=1)
    if empty.any():
        raise MeasureError(
            f"tap {name!r} holds nothing above 0 for image {ids[int(empty.argmax())]!r} (group element {g}), so it is"
            f" no probabilities there; if it holds logits, say so with --scores {name}=logits"
        )


def _check_finite(name: str, elements: Sequence[Array], ids: Sequence[str]) -> None:
    """Refuse NaN and Inf in f(gx) `(B, …)` of every g; sums of squares notice them, and a closer look says where."""
    small = len(elements) > 1 and elements[0].size * len(elements) <= SMALL
    for y in [np.concatenate(elements)] if small else elements:
        flat = y.reshape(len(y) * y.shape[1], -1) if y.ndim > 2 else y
        with np.errstate(over="ignore", invalid="ignore"):
            sums = [np.vecdot(p, p) for p in (flat[:, i : i + 4096] for i in range(0, flat.shape[1], 4096))]
        if not all(np.isfinite(s).all() for s in sums):
            break
    else:
        return
    for g, y in enumerate(elements):
        bad = ~np.isfinite(y)
        if bad.any():
            b = int(np.argwhere(bad)[0][0])
            what = "NaN" if np.isnan(y[bad]).any() else "Inf"
            raise MeasureError(
                f"tap {name!r} holds {what} for image {ids[b]!r} (group element {g}): no honest number comes of it;"
                " check the input's range, or leave the tap out with --tap"
            )
