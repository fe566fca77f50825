"""What is kept of activations: deviations keyed by image, spread features, reference levels. The rest is dropped."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from geed_onnx.actions import Action, masked, output_action, within_disc
from geed_onnx.engine.passes import Batch
from geed_onnx.engine.plan import Plan, Target
from geed_onnx.errors import ActionError, MeasureError
from geed_onnx.estimators import Deviations, Floats
from geed_onnx.variants import (
    Variant,
    as_probabilities,
    broken_orbit,
    deviations,
    floor_deviations,
    looks_like_probabilities,
    shares,
)

Array = npt.NDArray[Any]

#: Reference orbits beyond this are kept in a temporary file, not in memory.
REFERENCE_BYTES = 1 << 30
#: Deviations of larger tensors are shared between threads, element by element.
SHARED_VALUES = 1 << 18


@dataclass
class Cell:
    """One (tap, variant) being measured; rows are gathered here, in the sample's order."""

    target: Target
    variant: Variant
    action: Action | None
    reason: str | None = None
    ids: list[str] = field(default_factory=list)
    rows: list[Floats] = field(default_factory=list)
    floors: list[Floats] = field(default_factory=list)
    nulls: list[Floats] = field(default_factory=list)
    contrasts: list[float] = field(default_factory=list)

    def table(self) -> Deviations:
        """Return the deviations of the sample, keyed by image."""
        order = self.action.group.order if self.action else 1
        return Deviations.of(self.ids, np.concatenate(self.rows)) if self.rows else Deviations.empty(order)

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


@dataclass
class Gathered:
    """What one tap leaves behind, beside its cells' rows."""

    target: Target
    shape: tuple[int, ...]
    cells: list[Cell]
    logits: bool | None = None
    spread: dict[str, Array] = field(default_factory=dict)
    zero_channels: int = 0
    channels: int = 0
    reference: list[list[Array]] = field(default_factory=list)


class Tally:
    """Takes activations `(B, |G|, …)` batch by batch and keeps what the statistics need."""

    def __init__(self, plan: Plan, executor: Executor, workers: int) -> None:
        self._plan, self._executor, self._workers = plan, executor, workers
        self._gathered: dict[str, Gathered] = {}
        self.reference_ids: list[str] = []
        self.reference_indices: list[int] = []
        self._spread = frozenset(plan.spread_indices)
        self._wanted = min(plan.settings.reference_samples, len(plan.indices))
        self._spooled = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def gathered(self) -> tuple[Gathered, ...]:
        """What every tap has left, in the order of the taps."""
        return tuple(self._gathered.values())

    def close(self) -> None:
        """Remove the temporary file of reference orbits, if there was one."""
        for gathered in self._gathered.values():
            gathered.reference.clear()
        if self._folder is not None:
            self._folder.cleanup()

    # --- binding ------------------------------------------------------------------------------------------------

    def bind(self, outputs: dict[str, Array]) -> None:
        """Bind every tap's action to the shape it really has, from the first outputs `(1, |G|, …)`."""
        for target in self._plan.targets:
            y = outputs[target.name]
            if target.kind == "probability" and y.shape[-1] < 2:
                raise MeasureError(
                    f"tap {target.name!r} has one class only, whose softmax is always 1: measure it as"
                    f" {target.name}:vector"
                )
            chosen = [v for v in self._plan.variants if v.kind == target.kind]
            cells = [self._cell(target, v, y.shape[2:]) for v in chosen]
            self._gathered[target.name] = Gathered(target, y.shape[2:], cells)

    def _cell(self, target: Target, variant: Variant, shape: tuple[int, ...]) -> Cell:
        spec = self._plan.acts.get(target.name, variant.action)
        try:
            action = output_action(spec, self._plan.group, shape)
            return Cell(target, variant, within_disc(action, self._plan.settings.mask and target.kind == "map"))
        except ActionError as error:
            if self._plan.explicit or target.name in self._plan.acts:
                raise type(error)(f"tap {target.name!r}: {error}") from error
            return Cell(target, variant, None, reason=f"tap {target.name!r}: {error}")

    # --- the sample ---------------------------------------------------------------------------------------------

    def add(self, batch: Batch, outputs: dict[str, Array]) -> None:
        """Take in one batch of orbits `{tap: (B, |G|, …)}`; nothing of it is kept but what the class promises."""
        jobs, ids = [], batch.ids
        spread_ids = frozenset(name for i, name in zip(batch.indices, ids, strict=True) if i in self._spread)
        fresh = max(0, min(self._wanted - len(self.reference_ids), len(ids)))
        every = self._gathered.values()
        understood = self._executor.map(lambda g: self._understood(g, outputs[g.target.name], ids), every)
        for gathered, y in zip(every, understood, strict=True):
            self._count_zero_channels(gathered, y)
            self.add_spread(gathered, ids, y[:, 0], spread_ids)
            measured = [c for c in gathered.cells if c.action is not None]
            if measured and fresh:
                # a batch that is all reference is kept as it came: copying it costs more than its deviations
                gathered.reference.extend(self._kept(y[i], copy=fresh < len(y)) for i in range(fresh))
            for cell in measured:
                jobs.append((cell, y, fresh))
                cell.ids.extend(ids)
        for (cell, _, fresh), rows, floors in zip(jobs, *self._rows(jobs), strict=True):
            cell.rows.append(rows)
            if fresh and cell.resamples:
                cell.floors.append(floors)
        self.reference_ids.extend(ids[:fresh])
        self.reference_indices.extend(batch.indices[:fresh])
        if fresh and len(self.reference_ids) == self._wanted:
            self.finish_reference()

    def _rows(self, jobs: list[tuple[Cell, Array, int]]) -> tuple[list[Floats], list[Floats]]:
        """Compute deviations and floors of all cells on all cores, the largest pieces first."""
        pieces: list[tuple[int, int, list[int], Any]] = []
        floors: list[Any] = []
        order = sorted(range(len(jobs)), key=lambda j: -jobs[j][1].size)
        for j in order:
            cell, y, _ = jobs[j]
            for start, stop in self._spans(y):
                elements = [y[start:stop, g] for g in range(y.shape[1])]
                for part in shares(cell.bound, self._workers if y[0].size >= SHARED_VALUES else 1):
                    task = self._executor.submit(deviations, elements, cell.bound, cell.variant.m, part)
                    pieces.append((j, start, part, task))
        for cell, y, fresh in jobs:
            wanted = fresh if cell.resamples else 0
            elements = [y[:wanted, g] for g in range(y.shape[1])]
            floors.append(
                self._executor.submit(floor_deviations, elements, cell.bound, cell.variant.m) if wanted else None
            )
        rows = [np.empty((len(y), y.shape[1])) for _, y, _ in jobs]
        for j, start, part, task in pieces:
            values = task.result()
            rows[j][start : start + len(values), part] = values
        return rows, [f.result() if f is not None else np.empty((0, 0)) for f in floors]

    def _spans(self, y: Array) -> Iterable[tuple[int, int]]:
        """Split a batch so that one piece is large enough to be worth a task and small enough for the cache."""
        step = max(1, (4 * SHARED_VALUES) // max(y[0].size, 1))
        return [(s, min(s + step, len(y))) for s in range(0, len(y), step)]

    def _understood(self, gathered: Gathered, y: Array, ids: Sequence[str]) -> Array:
        """Check a tap's values and bring them to what its kind means: masked maps, probabilities in float64."""
        if y.shape[2:] != gathered.shape:
            raise MeasureError(
                f"tap {gathered.target.name!r} came as {y.shape[2:]} after {gathered.shape}: a tap's shape must not"
                " depend on the image"
            )
        _check_finite(gathered.target.name, y, ids)
        if gathered.target.kind == "map":
            return masked(y, self._plan.settings.mask)
        if gathered.target.kind != "probability":
            return y
        normal = looks_like_probabilities(y)
        if gathered.logits is None:
            gathered.logits = gathered.target.logits is True or not normal
        elif not gathered.logits and not normal:
            raise MeasureError(
                f"tap {gathered.target.name!r} sums to 1 for the first images, but not for {ids[0]!r} and those after"
                " it; tap the logits instead"
            )
        return as_probabilities(y, logits=gathered.logits)

    def _count_zero_channels(self, gathered: Gathered, y: Array) -> None:
        if any(c.variant.distance.startswith("channelwise") for c in gathered.cells):
            alive = y[:, 0].reshape(*y.shape[:1], y.shape[2], -1).any(axis=2)
            gathered.channels += alive.size
            gathered.zero_channels += int(alive.size - np.count_nonzero(alive))

    # --- spread points ------------------------------------------------------------------------------------------

    def add_spread(self, gathered: Gathered, ids: Sequence[str], y: Array, wanted: frozenset[str]) -> None:
        """Keep f(x) `(B, …)` of the un-transformed spread points, where a variant needs M."""
        if any(c.variant.scale.spread and c.action is not None for c in gathered.cells):
            for name, features in zip(ids, y, strict=True):
                if name in wanted:
                    gathered.spread[name] = features.copy()

    def add_points(self, ids: Sequence[str], outputs: dict[str, Array]) -> None:
        """Take in spread points that are not of the sample, `{tap: (B, …)}`."""
        wanted = frozenset(ids)
        for gathered in self._gathered.values():
            y = self._understood(gathered, outputs[gathered.target.name][:, None], ids)[:, 0]
            self.add_spread(gathered, ids, y, wanted)

    # --- reference levels ---------------------------------------------------------------------------------------

    def _kept(self, orbit: Array, *, copy: bool) -> list[Array]:
        """Keep one orbit `(|G|, …)` as |G| arrays `(1, …)`; in a file once the reference orbits outgrow memory."""
        self._spooled += orbit.nbytes
        if self._spooled <= REFERENCE_BYTES:
            return list((orbit.copy() if copy else orbit)[:, None])
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="geed-onnx-")
        name = os.path.join(self._folder.name, f"{self._spooled}.npy")
        file = np.lib.format.open_memmap(name, mode="w+", dtype=orbit.dtype, shape=orbit.shape)
        file[:] = orbit
        return list(file[:, None])

    def finish_reference(self) -> None:
        """Compute nulls and contrasts once all reference orbits are at hand, then let them go; harmless when done."""
        n = len(self.reference_ids)
        tasks = []
        for gathered in sorted(self._gathered.values(), key=lambda g: -int(np.prod(g.shape))):
            orbits = gathered.reference
            for cell in gathered.cells:
                if cell.action is None or n < 2 or cell.nulls:
                    continue
                large = int(np.prod(gathered.shape)) * cell.action.group.order >= SHARED_VALUES
                for i in range(n):
                    broken = broken_orbit(orbits, i)
                    for part in shares(cell.action, self._workers if large else 1):
                        task = self._executor.submit(deviations, broken, cell.action, cell.variant.m, part)
                        tasks.append((cell, i, part, task))
                cell.nulls = [np.empty((1, cell.action.group.order)) for _ in range(n)]
                cell.contrasts = [
                    float(cell.variant.m(orbits[i][0], orbits[(i + 1) % n][0])[0]) - cell.variant.m.optimum
                    for i in range(n)
                ]
        for cell, i, part, task in tasks:
            cell.nulls[i][:, part] = task.result()
        for gathered in self._gathered.values():
            gathered.reference.clear()

    def add_floor(self, name: str, outputs: dict[str, Array]) -> None:
        """Take in f(g⁻¹(g x)) of one reference image, `{tap: (1, |G|, …)}`, for actions that do not resample."""
        for gathered in self._gathered.values():
            y = self._understood(gathered, outputs[gathered.target.name], [name])
            for cell in gathered.cells:
                if cell.action is not None and not cell.resamples:
                    acted = [cell.action(g, y[:, g]) for g in range(y.shape[1])]
                    cell.floors.append(deviations(acted, cell.action, cell.variant.m))


def _check_finite(name: str, y: Array, ids: Sequence[str]) -> None:
    """Refuse NaN and Inf; a sum is enough to notice them, and a closer look says where."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(y.sum()):
            return
    bad = ~np.isfinite(y)
    if bad.any():
        b, g = (int(i) for i in np.argwhere(bad)[0][:2])
        what = "NaN" if np.isnan(y[bad]).any() else "Inf"
        raise MeasureError(
            f"tap {name!r} holds {what} for image {ids[b]!r} (group element {g}): no honest number comes of it; check"
            " the input's range, or leave the tap out with --tap"
        )
