"""What is kept of activations: deviations keyed by image, spread features, reference levels. The rest is dropped."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from geed_onnx.actions import Action, masked, on_logs, output_action, within_disc
from geed_onnx.engine.partial import CellPart, Quiet, TapPart
from geed_onnx.engine.passes import Batch
from geed_onnx.engine.plan import Plan, Target
from geed_onnx.errors import ActionError, MeasureError
from geed_onnx.estimators import Deviations, Floats
from geed_onnx.variants import (
    Variant,
    broken_deviation,
    broken_orbit,
    deviations,
    floor_deviations,
    log_probabilities,
    looks_doubtful,
    looks_like_probabilities,
    missed,
)

Array = npt.NDArray[Any]

#: Channels below this share of the mean norm of an image's channels are next to zero.
FAINT = 1e-5
#: Reference orbits beyond this are kept in a temporary file, not in memory.
REFERENCE_BYTES = 1 << 30


@dataclass(frozen=True)
class Cell:
    """One (tap, variant) with the output action bound to the shape that the tap really has."""

    target: Target
    variant: Variant
    action: Action | None
    reason: str | None = None
    """why there is no action, and nothing is measured"""

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
        action = within_disc(action, plan.settings.mask and target.kind == "map")
        return Cell(target, variant, on_logs(action) if target.kind == "probability" else action)
    except ActionError as error:
        if plan.explicit or target.name in plan.acts:
            raise type(error)(f"tap {target.name!r}: {error}") from error
        return Cell(target, variant, None, reason=f"tap {target.name!r}: {error}")


@dataclass
class Rows:
    """What is gathered of one cell, in the sample's order."""

    cell: Cell
    ids: list[str] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    floors: list[Floats] = field(default_factory=list)
    nulls: list[Floats] = field(default_factory=list)
    contrast: float | None = None

    def part(self, reference: Sequence[str]) -> CellPart:
        """Return it as tables keyed by image; floors and nulls are of the `reference` images."""
        order = self.cell.action.group.order if self.cell.action else 1
        sample = Deviations.of(self.ids, np.concatenate(self.values)) if self.values else Deviations.empty(order)
        floor, null = (
            Deviations.of(reference, np.concatenate(rows)) if rows else None for rows in (self.floors, self.nulls)
        )
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
    missed: float = 0.0
    centres: list[Array] = field(default_factory=list)
    """f(x) of the reference images, each (1, …)"""
    orbits: list[list[Array]] = field(default_factory=list)

    @property
    def measured(self) -> list[Rows]:
        """The rows of the cells that have an action here."""
        return [r for r in self.rows if r.cell.action is not None]

    def part(self, reference: Sequence[str]) -> TapPart:
        """Return it as plain data keyed by image."""
        cells = tuple(r.part(reference) for r in self.rows)
        return TapPart(self.shape, self.logits, cells, dict(self.spread), dict(self.zero_channels), self.missed)


@dataclass(frozen=True)
class TapDigest:
    """What is kept of one tap's activations in one batch; lists of tables run over the cells that are measured."""

    rows: list[Floats]
    floors: list[Floats | None]
    nulls: list[Floats | None]
    """by image and element: m(f(g x_j), ρ(g) f(x_{j−g})); None where f̂ is no single f(x)"""
    spread: dict[str, Array]
    orbits: list[list[Array]]
    """whole orbits of reference images, [image][element] as (1, …), where a cell's f̂ is a mean over several"""
    zero_channels: list[Quiet]
    """by image: how many channels of f(x) are zero, or nearly; empty where no variant goes by channels"""
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
        self.reference_ids: list[str] = []
        self.reference_indices: list[int] = []
        self._spread = frozenset(plan.spread_indices)
        self._spooled = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def parts(self) -> dict[str, TapPart]:
        """Return {tap: what the images taken in so far leave behind}, in the order of the taps."""
        return {name: gathered.part(self.reference_ids) for name, gathered in self._gathered.items()}

    def close(self) -> None:
        """Remove the temporary file of reference orbits, if there was one."""
        for gathered in self._gathered.values():
            gathered.orbits.clear()
            gathered.centres.clear()
        if self._folder is not None:
            self._folder.cleanup()

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

    def digest(self, batch: Batch, outputs: dict[str, list[Array]], *, reference: bool) -> list[TapDigest]:
        """Reduce orbits `{tap: [(B, …) for every g]}` to what is kept of them; changes nothing, so threads may call it.

        `reference`: the batch is of reference images, `batch.start` the place of its first among them.
        """
        with self._turn:
            return [self._digest(g, batch, outputs[g.target.name], reference) for g in self._gathered.values()]

    def _digest(self, gathered: Gathered, batch: Batch, raw: list[Array], reference: bool) -> TapDigest:
        measured = [r.cell for r in gathered.measured]
        # products of channels tell NaN and Inf by themselves: a large map is then read from memory once less
        tells = len(raw) > 1 and any(c.variant.m.per_channel for c in measured)
        elements = [self._understood(gathered, y, batch.ids, g, check=not tells) for g, y in enumerate(raw)]
        rows = [deviations(elements, c.bound, c.variant.m) for c in measured]
        if tells and not all(np.isfinite(r).all() for r in rows):
            for g, y in enumerate(raw):
                _check_finite(gathered.target.name, y, batch.ids, g)
        spread = [i in self._spread for i in batch.indices]
        # a cell whose f̂ is f(x) needs no more of other images than f(x); others need the orbits whole
        whole = reference and any(len(c.bound.kernel) > 1 for c in measured)
        return TapDigest(
            rows=rows,
            floors=[
                floor_deviations(elements, c.bound, c.variant.m) if reference and c.resamples else None
                for c in measured
            ],
            nulls=[
                self._anchored_null(gathered, c, batch, elements) if reference and len(c.bound.kernel) == 1 else None
                for c in measured
            ],
            spread=self._spread_features(gathered, batch.ids, elements[0], spread),
            orbits=[[y[b : b + 1] for y in elements] for b in range(len(batch.ids))] if whole else [],
            zero_channels=self._zero_channels(gathered, elements[0]),
            missed=0.0 if gathered.logits is not False else max(map(missed, raw)),
        )

    def _anchored_null(self, gathered: Gathered, cell: Cell, batch: Batch, elements: list[Array]) -> Floats:
        """Return m(f(g x_j), ρ(g) f(x_{j−g})) for the batch's images j, `(B, |G|)`; column 0 is at equality."""
        n = len(gathered.centres)
        out = np.full((len(batch.ids), len(elements)), cell.variant.m.optimum)
        for g, element in enumerate(elements[1:], 1):
            others = [gathered.centres[(batch.start + b - g) % n] for b in range(len(batch.ids))]
            centre = others[0] if len(others) == 1 else np.concatenate(others)
            out[:, g] = broken_deviation(g, element, centre, cell.bound, cell.variant.m)
        return out

    def take(self, batch: Batch, digests: list[TapDigest]) -> None:
        """Take in a digest; batches come in the sample's order."""
        for gathered, digest in zip(self._gathered.values(), digests, strict=True):
            gathered.zero_channels |= zip(batch.ids, digest.zero_channels, strict=False)
            gathered.missed = max(gathered.missed, digest.missed)
            gathered.spread |= digest.spread
            gathered.orbits.extend([self._kept(y) for y in orbit] for orbit in digest.orbits)
            kept = zip(gathered.measured, digest.rows, digest.floors, digest.nulls, strict=True)
            for rows, values, floors, nulls in kept:
                rows.ids.extend(batch.ids)
                rows.values.append(values)
                if floors is not None:
                    rows.floors.append(floors)
                if nulls is not None:
                    rows.nulls.append(nulls)

    def _understood(self, gathered: Gathered, y: Array, ids: Sequence[str], g: int = 0, *, check: bool = True) -> Array:
        """Check a tap's values `(B, …)` of element g and bring them to what its kind means."""
        name = gathered.target.name
        if y.shape[1:] != gathered.shape:
            raise MeasureError(
                f"tap {name!r} came as {y.shape[1:]} after {gathered.shape}: a tap's shape must not depend on the image"
            )
        if check:
            _check_finite(name, y, ids, g)
        if gathered.target.kind == "map":
            return masked(y, self._plan.settings.mask)
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
            y = self._understood(gathered, outputs[gathered.target.name], ids)
            gathered.spread |= self._spread_features(gathered, ids, y, [True] * len(ids))

    # --- reference levels ---------------------------------------------------------------------------------------

    def add_centres(self, ids: Sequence[str], identity: dict[str, list[Array]]) -> None:
        """Take in f(x) of the reference images, `{tap: [(1, …) each]}`, before their orbits."""
        for gathered in self._gathered.values():
            if gathered.measured:
                for name, y in zip(ids, identity[gathered.target.name], strict=True):
                    gathered.centres.append(self._kept(self._understood(gathered, y, [name])))

    def _kept(self, y: Array) -> Array:
        """Keep an array; in a file once what is kept outgrows memory."""
        self._spooled += y.nbytes
        if self._spooled <= REFERENCE_BYTES:
            return y
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="geed-onnx-")
        name = os.path.join(self._folder.name, f"{self._spooled}.npy")
        file: Array = np.lib.format.open_memmap(name, mode="w+", dtype=y.dtype, shape=y.shape)
        file[:] = y
        return file

    def finish_reference(self, batch: Batch) -> None:
        """Complete nulls and contrasts once the orbits of all reference images were taken in, and let them go."""
        n = len(batch.ids)
        self.reference_ids, self.reference_indices = list(batch.ids), list(batch.indices)
        for gathered in self._gathered.values():
            for kept in gathered.measured:
                cell = kept.cell
                if n < 2:
                    kept.nulls.clear()
                    continue
                if kept.nulls:
                    # row j held the elements of image j: element g belongs to the broken orbit of image j − g
                    rows, elements = np.indices((n, self._plan.group.order))
                    kept.nulls = [np.concatenate(kept.nulls)[(rows + elements) % n, elements]]
                else:
                    kept.nulls = [
                        deviations(broken_orbit(gathered.orbits, i), cell.bound, cell.variant.m) for i in range(n)
                    ]
                kept.contrast = _contrast(cell, gathered.centres)
            gathered.orbits.clear()
            gathered.centres.clear()

    def add_floor(self, name: str, outputs: dict[str, Array]) -> None:
        """Take in f(g⁻¹(g x)) of one reference image, `{tap: (|G|, …)}`, for actions that do not resample."""
        for gathered in self._gathered.values():
            rows = outputs[gathered.target.name]
            y = [self._understood(gathered, row[None], [name], g) for g, row in enumerate(rows)]
            for kept in gathered.measured:
                cell = kept.cell
                if not cell.resamples:
                    acted = [cell.bound(g, row) for g, row in enumerate(y)]
                    kept.floors.append(deviations(acted, cell.bound, cell.variant.m))


def by_channel(variant: Variant) -> bool:
    """Say whether a variant compares channel by channel, so that channels which are zero everywhere matter."""
    return variant.distance.startswith("channelwise")


def _contrast(cell: Cell, centres: Sequence[Array]) -> float:
    """Return how far f of one image is from f of the next, above the optimum, in the mean over `centres`."""
    m = cell.variant.m
    pairs = zip(centres, [*centres[1:], centres[0]], strict=True)
    return float(np.mean([m(a, b)[0] for a, b in pairs])) - m.optimum


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


def _check_finite(name: str, y: Array, ids: Sequence[str], g: int) -> None:
    """Refuse NaN and Inf; a sum of squares is enough to notice them, and a closer look says where."""
    with np.errstate(over="ignore", invalid="ignore"):
        rows = y.reshape(len(y) * y.shape[1], -1) if y.ndim > 2 else y
        if all(
            np.isfinite(np.vecdot(p, p)).all() for p in (rows[:, i : i + 4096] for i in range(0, rows.shape[1], 4096))
        ):
            return
    bad = ~np.isfinite(y)
    if bad.any():
        b = int(np.argwhere(bad)[0][0])
        what = "NaN" if np.isnan(y[bad]).any() else "Inf"
        raise MeasureError(
            f"tap {name!r} holds {what} for image {ids[b]!r} (group element {g}): no honest number comes of it; check"
            " the input's range, or leave the tap out with --tap"
        )
