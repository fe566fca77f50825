"""What is kept of activations: deviations keyed by image, spread features, reference levels. The rest is dropped."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
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
)

Array = npt.NDArray[Any]

#: Reference orbits beyond this are kept in a temporary file, not in memory.
REFERENCE_BYTES = 1 << 30


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


@dataclass(frozen=True)
class TapDigest:
    """What is kept of one tap's activations in one batch; lists run over the cells that are measured."""

    logits: bool | None
    rows: list[Floats]
    floors: list[Floats | None]
    spread: dict[str, Array]
    reference: list[Array]
    zero_channels: int
    channels: int


class Tally:
    """Takes activations `(B, |G|, …)` batch by batch and keeps what the statistics need."""

    def __init__(self, plan: Plan, executor: Executor) -> None:
        self._plan, self._executor = plan, executor
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

    def digest(self, batch: Batch, outputs: dict[str, Array]) -> list[TapDigest]:
        """Reduce one batch of orbits `{tap: (B, |G|, …)}` to what is kept of it; changes nothing, so threads may."""
        fresh = min(max(self._wanted - batch.start, 0), len(batch.ids))
        return [self._digest(g, batch, outputs[g.target.name], fresh) for g in self._gathered.values()]

    def _digest(self, gathered: Gathered, batch: Batch, raw: Array, fresh: int) -> TapDigest:
        y, logits = self._understood(gathered, raw, batch.ids)
        measured = [c for c in gathered.cells if c.action is not None]
        elements = [y[:, g] for g in range(y.shape[1])]
        first = [y[:fresh, g] for g in range(y.shape[1])]
        dead, channels = self._zero_channels(gathered, y)
        return TapDigest(
            logits=logits,
            rows=[deviations(elements, c.bound, c.variant.m) for c in measured],
            floors=[floor_deviations(first, c.bound, c.variant.m) if fresh and c.resamples else None for c in measured],
            spread=self._spread_features(gathered, batch.ids, y[:, 0], [i in self._spread for i in batch.indices]),
            # a batch that is all reference is kept as it came: copying it would cost more than its deviations
            reference=list(y if fresh == len(y) else y[:fresh].copy()) if measured and fresh else [],
            zero_channels=dead,
            channels=channels,
        )

    def take(self, batch: Batch, digests: list[TapDigest]) -> None:
        """Take in a digest; batches come in the sample's order."""
        for gathered, digest in zip(self._gathered.values(), digests, strict=True):
            gathered.logits = digest.logits
            gathered.zero_channels += digest.zero_channels
            gathered.channels += digest.channels
            gathered.spread |= digest.spread
            gathered.reference.extend(self._kept(orbit) for orbit in digest.reference)
            measured = [c for c in gathered.cells if c.action is not None]
            for cell, rows, floors in zip(measured, digest.rows, digest.floors, strict=True):
                cell.ids.extend(batch.ids)
                cell.rows.append(rows)
                if floors is not None:
                    cell.floors.append(floors)
        fresh = max(self._wanted - len(self.reference_ids), 0)
        self.reference_ids.extend(batch.ids[:fresh])
        self.reference_indices.extend(batch.indices[:fresh])
        if len(self.reference_ids) == self._wanted:
            self.finish_reference()

    def _understood(self, gathered: Gathered, y: Array, ids: Sequence[str]) -> tuple[Array, bool | None]:
        """Check a tap's values and bring them to what its kind means; for probabilities, say whether it was logits."""
        name = gathered.target.name
        if y.shape[2:] != gathered.shape:
            raise MeasureError(
                f"tap {name!r} came as {y.shape[2:]} after {gathered.shape}: a tap's shape must not depend on the image"
            )
        _check_finite(name, y, ids)
        if gathered.target.kind == "map":
            return masked(y, self._plan.settings.mask), None
        if gathered.target.kind != "probability":
            return y, None
        normal, logits = looks_like_probabilities(y), gathered.logits
        if logits is None:
            logits = gathered.target.logits is True or not normal
        elif not logits and not normal:
            raise MeasureError(
                f"tap {name!r} sums to 1 for the first images, but not for all of {ids[0]!r} and those after it; tap"
                " the logits instead"
            )
        return as_probabilities(y, logits=logits), logits

    def _zero_channels(self, gathered: Gathered, y: Array) -> tuple[int, int]:
        """Return (channels of f(x) that are zero everywhere, all channels), where a variant goes by channels."""
        if not any(c.variant.distance.startswith("channelwise") for c in gathered.cells):
            return 0, 0
        alive = y[:, 0].reshape(*y.shape[:1], y.shape[2], -1).any(axis=2)
        return int(alive.size - np.count_nonzero(alive)), alive.size

    # --- spread points ------------------------------------------------------------------------------------------

    def _spread_features(
        self, gathered: Gathered, ids: Sequence[str], y: Array, wanted: Sequence[bool]
    ) -> dict[str, Array]:
        """Return f(x) `(B, …)` of the un-transformed spread points by id, where a variant needs M."""
        if not any(c.variant.scale.spread and c.action is not None for c in gathered.cells):
            return {}
        return {name: row.copy() for name, row, inside in zip(ids, y, wanted, strict=True) if inside}

    def add_points(self, ids: Sequence[str], outputs: dict[str, Array]) -> None:
        """Take in spread points that are not of the sample, `{tap: (B, …)}`."""
        for gathered in self._gathered.values():
            y, _ = self._understood(gathered, outputs[gathered.target.name][:, None], ids)
            gathered.spread |= self._spread_features(gathered, ids, y[:, 0], [True] * len(ids))

    # --- reference levels ---------------------------------------------------------------------------------------

    def _kept(self, orbit: Array) -> list[Array]:
        """Keep one orbit `(|G|, …)` as |G| arrays `(1, …)`; in a file once the reference orbits outgrow memory."""
        self._spooled += orbit.nbytes
        if self._spooled <= REFERENCE_BYTES:
            return list(orbit[:, None])
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
            for cell in gathered.cells:
                if cell.action is not None and n >= 2 and not cell.nulls:
                    tasks.append(
                        (cell, [self._executor.submit(_broken, cell, gathered.reference, i) for i in range(n)])
                    )
        for cell, futures in tasks:
            cell.nulls, cell.contrasts = (list(part) for part in zip(*(f.result() for f in futures), strict=True))
        for gathered in self._gathered.values():
            gathered.reference.clear()

    def add_floor(self, name: str, outputs: dict[str, Array]) -> None:
        """Take in f(g⁻¹(g x)) of one reference image, `{tap: (1, |G|, …)}`, for actions that do not resample."""
        for gathered in self._gathered.values():
            y, _ = self._understood(gathered, outputs[gathered.target.name], [name])
            for cell in gathered.cells:
                if cell.action is not None and not cell.resamples:
                    acted = [cell.action(g, y[:, g]) for g in range(y.shape[1])]
                    cell.floors.append(deviations(acted, cell.action, cell.variant.m))


def _broken(cell: Cell, orbits: Sequence[Sequence[Array]], i: int) -> tuple[Floats, float]:
    """Return row i of the null, `(1, |G|)`, and how far image i is from the next, above the optimum."""
    m = cell.variant.m
    contrast = float(m(orbits[i][0], orbits[(i + 1) % len(orbits)][0])[0]) - m.optimum
    return deviations(broken_orbit(orbits, i), cell.bound, m), contrast


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
