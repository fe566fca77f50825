"""One measurement cut into shares that any process can run: a share → `Partial`, their union → Results.

::

    partials = [measure_part(plan, part, 3) for part in range(3)]      # anywhere, in any order
    measured = finish(plan, reduce(merge, partials))                   # what measure_plan(plan) gives, to the last bit

Whole micro-batches are shared out, because a runtime may round one image in another way than the same among eight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import groupby, islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from geed_onnx.engine.keys import cell_key, hashed, plan_facts
from geed_onnx.engine.partial import Conditions, Partial, merge
from geed_onnx.engine.passes import Batch, Block, Image, Runner, batch_of, grouped, in_order
from geed_onnx.engine.plan import Plan, Progress
from geed_onnx.engine.record import Measured, record
from geed_onnx.engine.tally import Tally, TapDigest, cells_of
from geed_onnx.errors import DataError, MeasureError, UsageError
from geed_onnx.sources import Fingerprint, plausible

__all__ = ["Conditions", "Partial", "finish", "measure_part", "merge", "notes_of", "rows_of"]

Array = npt.NDArray[Any]
#: Into how many pieces f(x) of a block is cut, however many workers there are.
IDENTITY_PIECES = 4


def measure_part(plan: Plan, part: int, parts: int, *, progress: Progress | None = None) -> Partial:
    """Measure one share of a plan's images: whole blocks of reference images, and whole micro-batches of the rest.

    Every share looks at the first images of the sample, so that all come to the same decisions.  Memory is one
    block of references, beside the tables.

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
            share.run()
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
        "mask": "disc" if plan.masked else None,
    }
    data |= {k: v for k in ("cluster", "name") if (v := getattr(plan.request.data, k))}
    rows = min(s.rows for s in partial.shares.values())
    runtime = {**partial.shares[0].facts.to_json(), "batch": rows, "geed_onnx": _version()}
    runtime |= {"settings": told} if (told := plan.settings.told) else {}
    known = plan_facts(plan, partial.images.hexdigest(), partial.points.hexdigest())
    notes = notes_of(plan, partial)
    found = []
    for target in {t.name: t for t in plan.targets}.values():
        tap = partial.taps[target.name]
        for cell, left in zip(cells_of(plan, target, tap.shape), tap.cells, strict=True):
            key = cell_key(known, plan, target, cell.variant)
            found.append(record(plan, tap, cell, left, data, runtime, notes, key))
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
            "model": plan.opened.model.get("sha256"),
            "group": plan.group.name,
            "images": hashed({"indices": images.tobytes().hex()}),
            "taps": [[t.name, t.kind] for t in plan.targets],
            "variants": [v.name for v in plan.variants],
            "settings": asdict(replace(plan.settings, variants=None)) | {"cluster": plan.request.data.cluster},
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
            skipped=self.skipped,
        )

    # --- work ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run this share: its blocks of references, its run of the rest, its spread points."""
        first = self._first()
        self._bind(first.x)
        if self.part == 0:
            self.warnings = tuple(
                plausible(self.plan.feed.model_input(first.x), self.plan.feed.preprocessing, self.plan.opened.metadata)
            )
        sample, points = self._split(len(first.x))
        stream = self._stream(sample)
        # one more than there are workers: none waits while an older batch, whose turn it is, is not done
        ahead = self.plan.session.facts.workers + 1
        for batch, digest in in_order(self.executor, ahead, stream, self._work):
            self.tally.take(batch, digest)
            self.images.add_all(batch.ids, batch.raw)
        self._run_points(points)

    def _first(self) -> Batch:
        """Return the first two images: two, so that a session can tell whether a batch mixes its images."""
        indices = self.plan.indices if self.plan.request.data.skip_bad else self.plan.indices[:2]
        head = list(islice(self._read(indices, 0), 2))
        if not head:
            raise DataError(f"{self.plan.source.uri}: no image could be read")
        return batch_of(head)

    def _bind(self, x: Array) -> None:
        """Run the first rows of all, which settle shapes, logits and the size of a micro-batch for every share."""
        outputs = self.runner.run(x)
        self.tally.bind(outputs)
        at_once = self.runner.orbits_at_once(outputs)
        self.cut = at_once, self.runner.rows or 1

    def _split(self, spare: int) -> tuple[slice, slice]:
        """Return this share's places in the sample and among the spread points.

        The work is cut into blocks of references and whole micro-batches, and every share has a run of these pieces.
        `spare` passes were made beside those.
        """
        (at_once, rows), order = self.cut, self.plan.group.order
        pieces = [len(block) for block in self.plan.references]
        rest, beside = len(self.plan.indices) - sum(pieces), len(_beside(self.plan))
        pieces += [min(at_once, rest - start) for start in range(0, rest, at_once)]
        points = [min(rows, beside - start) for start in range(0, beside, rows)]
        work = np.cumsum([0, *(n * order for n in pieces), *points])
        # a piece belongs to the share in whose part of the whole its middle lies
        middle = (work[:-1] + work[1:]) / 2 * self.parts / max(work[-1], 1)
        own = np.flatnonzero(middle.astype(int) == self.part)
        start, end = (int(own[0]), int(own[-1]) + 1) if len(own) else (0, 0)
        self.runner.total = spare + int(work[end] - work[start])
        return (
            slice(sum(pieces[:start]), sum(pieces[:end])),
            slice(*(sum(points[: max(i - len(pieces), 0)]) for i in (start, end))),
        )

    def _stream(self, sample: slice) -> Iterator[Batch]:
        """Yield the batches of these places of the sample, read through once: blocks of references, then the rest."""
        blocks = self.plan.references
        piece = {index: number for number, block in enumerate(blocks) for index in block}
        rest = self.plan.indices[len(piece) :]
        piece |= {index: len(blocks) + i // self.cut[0] for i, index in enumerate(rest)}
        images = self._read(self.plan.indices[sample], sample.start)
        for number, some in groupby(images, lambda image: piece[image[0]]):
            if number < len(blocks):
                yield from self._block(number, list(some))
            else:
                yield batch_of(list(some))

    def _block(self, number: int, images: Sequence[Image]) -> Iterator[Batch]:
        """Yield the batches of a block, whose f(x) is on its way: their nulls are held against it."""
        # not by the number of workers: a pass of one row may be rounded in another way than one of several
        size = min(self.cut[1], max(2, -(-len(images) // IDENTITY_PIECES)))
        pieces = [
            self.executor.submit(self.runner.run, np.stack([x for *_, x in images[i : i + size]]))
            for i in range(0, len(images), size)
        ]
        indices, ids, *_ = zip(*images, strict=True)
        block = Block(number, ids, indices, pieces)
        count = max(1, round(len(images) / self.cut[0]))
        bounds = [len(images) * i // count for i in range(count + 1)]
        for start, end in pairwise(bounds):
            yield batch_of(images[start:end], start, block)

    def _work(self, batch: Batch) -> list[TapDigest]:
        if batch.block is None:
            return self.tally.digest(batch, self.runner.orbits(batch))
        names = [t.name for t in self.plan.targets]
        known = {n: _cut(batch.block.identity(n), batch.start, len(batch.ids)) for n in names}
        outputs = self.runner.orbits(batch, known)
        return self.tally.digest(batch, outputs, self._back(batch, outputs) if self.plan.settings.floor else None)

    def _back(self, batch: Batch, outputs: dict[str, list[Array]]) -> dict[str, list[Array]] | None:
        """Run g⁻¹(g x): what resampling the input alone does to taps it should not move."""
        acting = self.plan.acting
        turns = sorted({t for t in acting.resampled_by if t})
        if not turns:
            return None
        # elements of one turn lose the same, so one pass serves them all
        some = [acting.resampled_by.index(turn) for turn in turns]
        x = np.concatenate([acting(acting.group.inverse(g), acting(g, batch.x)) for g in some])
        found = {name: np.split(y, len(turns)) for name, y in self.runner.run(x).items()}
        return {
            name: [found[name][turns.index(t)] if t else y[0] for t in acting.resampled_by]
            for name, y in outputs.items()
        }

    def _run_points(self, points: slice) -> None:
        """Run this share's spread points outside the sample, un-transformed."""
        indices = _beside(self.plan)[points]
        images = self._read(indices, len(self.plan.indices) + points.start)
        for batch in grouped(images, self.cut[1], {index: i for i, index in enumerate(indices)}):
            self.tally.add_points(batch.ids, self.runner.run(batch.x))
            self.points.add_all(batch.ids, batch.raw)

    # --- reading ------------------------------------------------------------------------------------------------

    def _read(self, indices: Sequence[int], first: int) -> Iterator[Image]:
        """Yield the images at `indices`, whose places begin at `first`; remember those that are left out."""
        if not self.plan.request.data.skip_bad:
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


def _beside(plan: Plan) -> tuple[int, ...]:
    """Return the indices of the spread points outside the sample."""
    sample = set(plan.indices)
    return tuple(i for i in plan.spread_indices if i not in sample)


def _cut(pieces: Sequence[Array], start: int, count: int) -> Array:
    """Return `count` rows from `start` of arrays that follow one another."""
    found = []
    for piece in pieces:
        if start < len(piece) and count > 0:
            found.append(piece[start : start + count])
            count -= len(found[-1])
        start = max(start - len(piece), 0)
    return found[0] if len(found) == 1 else np.concatenate(found)


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
