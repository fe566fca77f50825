"""One measurement cut into shares that any process can run: a share → `Partial`, their union → Results.

::

    partials = [measure_part(plan, part, 3) for part in range(3)]      # anywhere, in any order
    measured = finish(plan, reduce(merge, partials))                   # what measure_plan(plan) gives, to the last bit

Whole micro-batches are shared out, because a runtime may round one image in another way than the same among eight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from geed_onnx.engine.keys import cell_key, hashed, plan_facts
from geed_onnx.engine.partial import Conditions, Partial, merge
from geed_onnx.engine.passes import Batch, Image, Runner, batch_of, batches, grouped, in_order, mixed
from geed_onnx.engine.plan import Plan, Progress
from geed_onnx.engine.record import Measured, record
from geed_onnx.engine.tally import Tally, TapDigest, cells_of
from geed_onnx.errors import DataError, MeasureError, UsageError
from geed_onnx.sources import Fingerprint, plausible

__all__ = ["Conditions", "Partial", "finish", "measure_part", "merge", "notes_of", "rows_of"]

Array = npt.NDArray[Any]
#: Into how many pieces f(x) of the reference images is cut, however many workers there are.
IDENTITY_PIECES = 4


def measure_part(plan: Plan, part: int, parts: int, *, progress: Progress | None = None) -> Partial:
    """Measure one share of a plan's images: share 0 has the reference images, the others only of the rest.

    Every share looks at the first images of the sample, so that all come to the same decisions.  Memory is one
    micro-batch, beside the tables.

    Parameters
    ----------
    part, parts
        Which share, 0 to `parts` − 1, of how many.  There may be more than there are images: some are empty then.
    progress
        Called with (passes done, passes of this share).

    Raises
    ------
    UsageError
        If there is no such part.
    GeedError
        As `geed_onnx.engine.measure`.
    """
    if parts < 1 or not 0 <= part < parts:
        raise UsageError(f"there is no part {part} of {parts}: parts are counted from 0")
    with ThreadPoolExecutor(plan.session.facts.workers) as executor:
        share = _Share(plan, part, parts, Runner(plan, progress, -(-rows_of(plan) // parts)), Tally(plan), executor)
        try:
            run = share.run_with_reference() if part == 0 else share.run_ordinary()
            share.run_points(run)
            if part == 0 and plan.settings.floor:
                share.run_floors()
            return share.partial()
        finally:
            share.tally.close()


def rows_of(plan: Plan) -> int:
    """Return how many rows of forward passes a plan costs: what tells whether it is worth sharing out."""
    return len(plan.indices) * plan.group.order + len(_beside(plan))


def notes_of(plan: Plan, partial: Partial) -> tuple[str, ...]:
    """Return what is to be said of the measurement as a whole, in one order however it was shared out."""
    shares = partial.shares.values()
    warnings = [w for s in shares for w in s.warnings]
    notes = [n for s in shares for n in s.notes] + [n for s in shares for n in s.facts.notes]
    return tuple(dict.fromkeys([*plan.notes, *warnings, *notes, *_differing(partial), *_left_out(partial)]))


def finish(plan: Plan, partial: Partial) -> list[Measured]:
    """Return the Results of all shares of a plan, in the order of taps, then variants.

    Raises
    ------
    MeasureError
        If a share is missing, or the shares are of another plan or ran on different providers.
    """
    _check(plan, partial)
    how = plan.feed.preprocessing
    data = {
        "uri": plan.source.uri,
        "fingerprint": partial.images.hexdigest(),
        "samples": len(partial.images),
        "preprocessing": how.to_json() if how else "as is",
        "mask": "disc" if plan.settings.mask else None,
    }
    if plan.settings.cluster is not None:
        data["cluster"] = plan.settings.cluster
    rows = min(s.rows for s in partial.shares.values())
    runtime = {**partial.shares[0].facts.to_json(), "batch": rows, "geed_onnx": _version()}
    known = plan_facts(plan, partial.images.hexdigest(), partial.points.hexdigest())
    notes = notes_of(plan, partial)
    found = []
    for target in {t.name: t for t in plan.targets}.values():
        tap = partial.taps[target.name]
        for cell, left in zip(cells_of(plan, target, tap.shape), tap.cells, strict=True):
            key = cell_key(known, plan, target, cell.variant)
            found.append(record(plan, tap, cell, left, partial.reference, data, runtime, notes, key))
    return found


def _check(plan: Plan, partial: Partial) -> None:
    if partial.missing:
        raise MeasureError(
            f"of the {partial.parts} parts of this measurement, {', '.join(map(str, partial.missing))} (counted from 0)"
            " did not come: merge what measure_part returned for every part before finishing"
        )
    if partial.of != _identity_of(plan):
        raise MeasureError("these parts are of another model, sample, group, taps or settings than the plan: finish"
                           " with the plan that was measured")  # fmt: skip
    providers = {s.facts.provider for s in partial.shares.values()} | {plan.session.facts.provider}
    if len(providers) > 1:
        raise MeasureError(
            f"parts of one measurement ran on different providers ({', '.join(sorted(providers))}), whose numbers are"
            " not the same: name one that every machine has with --provider"
        )


def _identity_of(plan: Plan) -> str:
    """Return a hash of what all shares of one measurement have in common."""
    images = np.array([*plan.indices, -1, *plan.spread_indices], dtype=np.int64)
    return hashed(
        {
            "model": plan.model.get("sha256"),
            "group": plan.group.name,
            "images": hashed({"indices": images.tobytes().hex()}),
            "taps": [[t.name, t.kind] for t in plan.targets],
            "variants": [v.name for v in plan.variants],
            "settings": asdict(plan.settings),
        }
    )


# --- one share --------------------------------------------------------------------------------------------------


@dataclass
class _Share:
    """A share at work: what it runs with, and what it gathers."""

    plan: Plan
    part: int
    parts: int
    runner: Runner
    tally: Tally
    executor: Executor
    images: Fingerprint = field(default_factory=Fingerprint)
    points: Fingerprint = field(default_factory=Fingerprint)
    skipped: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    cut: tuple[int, int] = (1, 1)
    """orbits, and rows, of one micro-batch"""

    def partial(self) -> Partial:
        """Return what was gathered, as plain data."""
        empty = not len(self.images) and not len(self.points)
        facts, notes = self.plan.session.facts, tuple(self.runner.notes)
        rows = self.runner.rows or self.cut[1]
        return Partial(
            of=_identity_of(self.plan),
            parts=self.parts,
            cut=self.cut,
            shares={self.part: Conditions(facts, rows, empty, self.warnings, notes)},
            taps=self.tally.parts(),
            images=self.images,
            points=self.points,
            reference=tuple(self.tally.reference_ids),
            skipped=self.skipped,
        )

    # --- the sample ---------------------------------------------------------------------------------------------

    def run_with_reference(self) -> slice:
        """Run the reference images and this share's run of the rest; returns which spread points are its own."""
        settings, everything = self.plan.settings, self.plan.indices
        many = settings.reference_samples > 0
        images = self._read(everything, 0)
        head = list(islice(images, max(1, settings.reference_samples)))
        first = self._first(head)
        self.warnings = tuple(
            plausible(self.plan.feed.model_input(first.x), self.plan.feed.preprocessing, self.plan.metadata)
        )
        identity = self._identity(first)

        def reference(batch: Batch) -> list[TapDigest]:
            rows = slice(batch.start, batch.start + len(batch.ids))
            known = {name: _joined(y[rows]) for name, y in identity.items()}
            return self.tally.digest(batch, self.runner.orbits(batch, known), reference=many)

        sample, points = self._split(self._behind(head), spare=0)
        # a stream is read through once if it can be
        rest = images if sample.stop == len(everything) else self._read(everything[sample], sample.start)
        # reference orbits take longer to digest: among others, so that workers seldom wait for one another
        stream = mixed(batches(iter(head), self.cut[0], known=True), self._batches(rest, sample))
        references = 0
        for batch in self._taken(stream, reference):
            references += len(batch.ids) if batch.known else 0
            if batch.known and references == len(head):
                identity.clear()
                if many:
                    self.tally.finish_reference(first)
        return points

    def run_ordinary(self) -> slice:
        """Run this share's run of the sample; returns which spread points are its own."""
        everything, wanted = self.plan.indices, max(1, self.plan.settings.reference_samples)
        # where the reference images end shows only in reading them, if some may be left out
        some = everything if self.plan.skip_bad else everything[: min(2, wanted)]
        head = list(islice(self._read(some, 0), wanted))
        first = self._first(head[:2])
        self._bind(first.x)
        behind = self._behind(head) if self.plan.skip_bad else min(wanted, len(everything))
        sample, points = self._split(behind, spare=len(first.x))
        for _ in self._taken(self._batches(self._read(everything[sample], sample.start), sample)):
            pass
        return points

    def _first(self, head: Sequence[Image]) -> Batch:
        if not head:
            raise DataError(f"{self.plan.source.uri}: no image could be read")
        return batch_of(head)

    def _behind(self, head: Sequence[Image]) -> int:
        """Return the place behind the reference images, in the sample's order."""
        if len(head) < max(1, self.plan.settings.reference_samples):
            return len(self.plan.indices)
        return self.plan.indices.index(head[-1][0]) + 1

    def _bind(self, x: Array) -> dict[str, Array]:
        """Run the first rows of all, which settle shapes, logits and the size of a micro-batch for every share."""
        outputs = self.runner.run(x)
        self.tally.bind(outputs)
        at_once = self.runner.orbits_at_once(outputs)
        self.cut = at_once, self.runner.rows or 1
        return outputs

    def _identity(self, head: Batch) -> dict[str, list[Array]]:
        """Return f(x) of the reference images, {tap: [(1, …) each]}, which their orbits' nulls are held against."""
        outputs = self._bind(head.x[:2])  # two, so that a session can tell whether a batch mixes its images
        rest = head.x[2:]
        # not by the number of workers: a pass of one row may be rounded in another way than one of several
        size = min(self.cut[1], max(2, -(-len(rest) // IDENTITY_PIECES)))
        pieces = [rest[i : i + size] for i in range(0, len(rest), size)]
        parts = [outputs, *self.executor.map(self.runner.run, pieces)]
        identity = {name: [row[None] for part in parts for row in part[name]] for name in outputs}
        if self.plan.settings.reference_samples:
            self.tally.add_centres(head.ids, identity)
        return identity

    def _split(self, head: int, spare: int) -> tuple[slice, slice]:
        """Return which of the sample, whose first `head` are share 0's, and which of the points are this share's.

        Shares are runs of whole micro-batches, and even.  `spare` passes were made beside those.
        """
        (at_once, rows), beside = self.cut, len(_beside(self.plan))
        rest = len(self.plan.indices) - head
        chunks = -(-rest // at_once)
        start, end = _run(chunks + -(-beside // rows), head / at_once, self.part, self.parts)
        sample = slice(*(head + min(i * at_once, rest) for i in (start, end)))
        points = slice(*(min(max(i - chunks, 0) * rows, beside) for i in (start, end)))
        own = sample.stop - sample.start + (head if self.part == 0 else 0)
        self.runner.total = spare + own * self.plan.group.order + points.stop - points.start
        return sample, points

    def _batches(self, images: Iterator[Image], sample: slice) -> Iterator[Batch]:
        return grouped(images, self.cut[0], {index: i for i, index in enumerate(self.plan.indices[sample])})

    def _taken(
        self, stream: Iterator[Batch], reference: Callable[[Batch], list[TapDigest]] | None = None
    ) -> Iterator[Batch]:
        """Run orbits and take them in, in order; yields what was taken in."""

        def work(batch: Batch) -> list[TapDigest]:
            if batch.known and reference is not None:
                return reference(batch)
            return self.tally.digest(batch, self.runner.orbits(batch), reference=False)

        for batch, digest in in_order(self.executor, self.plan.session.facts.workers, stream, work):
            self.tally.take(batch, digest)
            self.images.add_all(batch.ids, batch.raw)
            yield batch

    # --- beside the sample --------------------------------------------------------------------------------------

    def run_points(self, points: slice) -> None:
        """Run this share's spread points outside the sample, un-transformed."""
        indices = _beside(self.plan)[points]
        images = self._read(indices, len(self.plan.indices) + points.start)
        for batch in grouped(images, self.cut[1], {index: i for i, index in enumerate(indices)}):
            self.tally.add_points(batch.ids, self.runner.run(batch.x))
            self.points.add_all(batch.ids, batch.raw)

    def run_floors(self) -> None:
        """Run g⁻¹(g x) of the reference images: what resampling the input alone does to taps it should not move."""
        acting = self.plan.acting
        if not any(acting.resampled_by):
            return
        turns = sorted(set(acting.resampled_by))
        for _, name, _, x in self.plan.images(self.tally.reference_indices):
            rows = []
            for turn in turns:
                g = acting.resampled_by.index(turn)
                # elements of one turn lose the same, so one pass serves them all
                rows.append(acting(acting.group.inverse(g), acting(g, x[None])) if turn else x[None])
            outputs = self.runner.run(np.concatenate(rows))
            place = [turns.index(t) for t in acting.resampled_by]
            self.tally.add_floor(name, {tap: y[place] for tap, y in outputs.items()})

    # --- reading ------------------------------------------------------------------------------------------------

    def _read(self, indices: Sequence[int], first: int) -> Iterator[Image]:
        """Yield the images at `indices`, whose places begin at `first`; remember those that are left out."""
        if not self.plan.skip_bad:
            yield from self.plan.images(indices)
            return
        for place, index in enumerate(indices, first):
            before, nothing = self._told(), True
            for image in self.plan.images([index]):
                nothing = False
                yield image
            if nothing:
                # a source that leaves an image out again says so again, in a text of its own
                new = [name for name, why in self._told().items() if before.get(name) is not why]
                self.skipped[new[0] if new else f"number {index}"] = place

    def _told(self) -> dict[str, str]:
        return dict(getattr(self.plan.source, "skipped", None) or {})


def _run(chunks: int, head: float, part: int, parts: int) -> tuple[int, int]:
    """Return which of `chunks` pieces of work are this part's, as (start, end), where part 0 has `head` already."""
    each = (head + chunks) / parts
    if head >= each and parts > 1:
        first, others, part = 0.0, parts - 1, part - 1
    else:
        first, others = -head, parts
    bounds = [round(first + (chunks - first) * i / others) for i in (part, part + 1)]
    start, end = (min(max(b, 0), chunks) for b in bounds)
    return start, end


def _beside(plan: Plan) -> tuple[int, ...]:
    """Return the indices of the spread points outside the sample."""
    sample = set(plan.indices)
    return tuple(i for i in plan.spread_indices if i not in sample)


def _joined(rows: list[Array]) -> Array:
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def _differing(partial: Partial) -> list[str]:
    """Say in what the shares' circumstances differ; none of it moves a number, but one line cannot hold them all."""
    some = [s.facts for s in partial.shares.values() if not s.empty]
    names = [f.name for f in fields(some[0]) if f.name != "notes"] if some else []
    seen: Mapping[str, list[str]] = {n: list(dict.fromkeys(str(getattr(f, n)) for f in some)) for n in names}
    told = [f"{n} {' and '.join(values)}" for n, values in seen.items() if len(values) > 1]
    return [f"its images were shared out among sessions that differ: {'; '.join(told)}"] if told else []


def _left_out(partial: Partial) -> list[str]:
    names = sorted(partial.skipped, key=lambda name: (partial.skipped[name], name))
    return [f"skipped {len(names)} unreadable image(s): {', '.join(names[:5])}"] if names else []


def _version() -> str:
    from geed_onnx import __version__

    return __version__
