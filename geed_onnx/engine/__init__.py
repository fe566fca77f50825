"""One pass over one model's data: every variant of every tap from one forward pass per image and group element.

The journey of the data, which `measure` reads like::

    images (B,C,H,W) + ids → orbit (B,|G|,C,H,W) → one Session run → {tap: (B,|G|,…)} → f̂ over the kernel
      → deviations (B,|G|) float64 → table keyed by id (activations dropped here) → Estimate → Result
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geed_onnx.engine.keys import cell_key, plan_facts
from geed_onnx.engine.passes import Batch, Runner, batch_of, batches, in_order, mixed
from geed_onnx.engine.plan import Plan, Progress, Settings, make_plan
from geed_onnx.engine.record import record
from geed_onnx.engine.tally import Tally, TapDigest
from geed_onnx.errors import DataError
from geed_onnx.estimators import Deviations
from geed_onnx.groups import Group
from geed_onnx.results import CellTables, Result
from geed_onnx.sessions import RuntimeOptions
from geed_onnx.sources import Fingerprint, plausible
from geed_onnx.variants import Variant

__all__ = ["Measured", "Plan", "Settings", "make_plan", "measure", "measure_plan"]

Array = npt.NDArray[Any]
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """A Result and the tables it is a function of."""

    result: Result
    tables: CellTables

    @property
    def deviations(self) -> Deviations:
        """m(f(gx), ρ(g) f̂(x)) by image and element."""
        return self.tables.deviations


def measure(
    model: Any,
    data: Any,
    group: str | Group,
    *,
    taps: Sequence[str] | None = None,
    variants: Sequence[str | Variant] | None = None,
    actions: Mapping[str, str | Mapping[str, Any]] | None = None,
    declared_action: bool = True,
    samples: int | Literal["all"] = 50,
    spread_samples: int | None = None,
    reference_samples: int = 16,
    seed: int = 0,
    level: float = 0.95,
    floor: bool = False,
    mask: bool = False,
    batch_size: int | None = None,
    provider: str = "auto",
    threads: int | None = None,
    tf32: bool = False,
    input: str | None = None,
    layout: str | None = None,
    constants: Mapping[str, Array] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    column: str | None = None,
    skip_bad: bool = False,
    streaming: bool | None = None,
    progress: Progress | None = None,
    notify: Notify | None = None,
) -> list[Result]:
    """Measure how equivariant a model is: one Result per tap and variant of the tap's kind.

    Parameters
    ----------
    model
        Path of an ONNX file, a `Session`, or a callable `(B, C, H, W) -> {tap: (B, …)}`.
    data
        An address (`images/`, `x.npz`, `t.parquet`, `hf:NAME:SPLIT`), an array `(N, …)` used as the model's input as it
        is, or a `Source`.
    group
        `C8`, `D4`, `flip`, `T4`, … or a `Group`.
    taps
        `NAME[:KIND]`: tensor names, module paths or globs; by default the stage ends, the latent and the scores.
    variants
        Names or the general form `KIND:ACTION:DISTANCE[:NORMALISER]`; by default the paper's five.
    actions
        {tap: output action}, as `--act` takes them, or as `geed.taps` declares fields (`geed_onnx.actions.fields`).
    declared_action
        Whether the channel actions that the file declares are used.
    samples, seed
        N images drawn with the seed, or `"all"` in order.
    spread_samples
        Points for M; by default 200, or as many as there are.
    reference_samples
        Images on which floor and null are taken, the first of the sample.
    floor
        Whether the floor of trivially acted taps is computed, by extra forward passes on g⁻¹(g x).
    mask
        Whether everything outside the inscribed disc is set to 0, at the input and at maps alike.
    batch_size
        Rows (images × elements) of one forward pass; by default as many as fit 8 MB of taps (64 MB on a device).
    preprocessing
        `size`, `fit`, `resize`, `colour`, `range`, `mean`, `std`, `resample`: over what the file declares.
    progress, notify
        Called with (passes done, passes in all), and with each warning.

    Returns
    -------
    list[Result]
        In the order of taps, then variants.

    Raises
    ------
    GeedError
        `UsageError` for a request that cannot be meant, `DataError` for images, `ModelError` for the file,
        `ActionError` where the group cannot act, `SessionError` where the model does not run, `MeasureError` for NaN.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((4, 1, 8, 8))
    >>> [result] = measure(lambda x: {"same": x}, images, "C4", samples="all")
    >>> result.variant, result.value, result.optimum
    ('channelwise', -1.0, -1.0)
    """
    plan = make_plan(
        model,
        data,
        group,
        taps=taps,
        variants=variants,
        acts=actions,
        declared=declared_action,
        settings=Settings(samples, spread_samples, reference_samples, seed, level, floor, mask, batch_size),
        input=input,
        layout=layout,
        preprocessing=preprocessing or {},
        runtime=RuntimeOptions(provider, threads, tf32, layout=layout, constants=constants or {}),
        column=column,
        skip_bad=skip_bad,
        streaming=streaming,
    )
    return [m.result for m in measure_plan(plan, progress=progress, notify=notify)]


def measure_plan(plan: Plan, *, progress: Progress | None = None, notify: Notify | None = None) -> list[Measured]:
    """Measure what `make_plan` settled; the deviations come with the results."""
    extra = [i for i in plan.spread_indices if i not in set(plan.indices)]
    runner = Runner(plan, progress, len(plan.indices) * plan.group.order + len(extra))
    prints, points = Fingerprint(), Fingerprint()
    with ThreadPoolExecutor(plan.session.facts.workers) as executor:
        tally = Tally(plan)
        try:
            count, warnings = _sample(plan, runner, tally, executor, prints)
            _points(plan, runner, tally, tuple(extra), points)
            if plan.settings.floor:
                _floors(plan, runner, tally)
            facts = plan.session.facts
            notes = tuple(dict.fromkeys([*plan.notes, *warnings, *runner.notes, *facts.notes, *_skipped(plan)]))
            for note in notes:
                if notify is not None:
                    notify(note)
            data = {"uri": plan.source.uri, "fingerprint": prints.hexdigest(), "samples": count}
            data |= {"preprocessing": plan.feed.preprocessing.to_json() if plan.feed.preprocessing else "as is"}
            data |= {"mask": "disc" if plan.settings.mask else None}
            runtime = {**facts.to_json(), "batch": runner.rows, "geed_onnx": _version()}
            known = plan_facts(plan, prints.merge(points).hexdigest())
            found = []
            for gathered in tally.gathered:
                for cell in gathered.cells:
                    key = cell_key(known, plan, cell.target, cell.variant)
                    reference = tuple(tally.reference_ids)
                    found.append(Measured(*record(plan, gathered, cell, reference, data, runtime, notes, key)))
            return found
        finally:
            tally.close()


def _sample(
    plan: Plan, runner: Runner, tally: Tally, executor: ThreadPoolExecutor, prints: Fingerprint
) -> tuple[int, list[str]]:
    """Run the orbits of the sample; returns the number of images, and warnings about what the model was given."""
    images = plan.images(plan.indices)
    head = list(islice(images, max(1, plan.settings.reference_samples)))
    if not head:
        raise DataError(f"{plan.source.uri}: no image could be read")
    first = batch_of(head)
    warnings = list(plausible(plan.feed.model_input(first.x), plan.feed.preprocessing, plan.metadata))
    identity, at_once = _identity(plan, runner, tally, executor, first)
    workers, many = plan.session.facts.workers, plan.settings.reference_samples > 0
    count = 0

    def reference(batch: Batch) -> list[TapDigest]:
        rows = slice(batch.start, batch.start + len(batch.ids))
        known = {name: _joined(y[rows]) for name, y in identity.items()}
        return tally.digest(batch, runner.orbits(batch, known), reference=many)

    def ordinary(batch: Batch) -> list[TapDigest]:
        return tally.digest(batch, runner.orbits(batch), reference=False)

    # reference orbits take longer to digest: among others, so that workers seldom wait for one another
    stream = mixed(batches(iter(head), at_once, known=True), batches(images, at_once))
    references = 0
    for batch, digest in in_order(executor, workers, stream, lambda b: reference(b) if b.known else ordinary(b)):
        tally.take(batch, digest)
        prints.add_all(batch.ids, batch.raw)
        count += len(batch.ids)
        references += len(batch.ids) if batch.known else 0
        if batch.known and references == len(head):
            identity.clear()
            if many:
                tally.finish_reference(first)
    return count, warnings


def _identity(
    plan: Plan, runner: Runner, tally: Tally, executor: ThreadPoolExecutor, head: Batch
) -> tuple[dict[str, list[Array]], int]:
    """Run f(x) of the reference images, which their orbits' nulls are held against; bind the actions to its shapes.

    Returns {tap: [f(x) as (1, …)]}, and how many orbits fit one micro-batch.
    """
    outputs = runner.run(head.x[:2])  # two, so that a session can tell whether a batch mixes its images
    tally.bind(outputs)
    at_once = runner.orbits_at_once(outputs)
    size = max(1, min(runner.rows or 1, -(-len(head.x[2:]) // plan.session.facts.workers)))
    pieces = [head.x[i : i + size] for i in range(2, len(head.x), size)]
    parts = [outputs, *executor.map(runner.run, pieces)]
    identity = {name: [row[None] for part in parts for row in part[name]] for name in outputs}
    if plan.settings.reference_samples:
        tally.add_centres(head.ids, identity)
    return identity, at_once


def _joined(rows: list[Array]) -> Array:
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def _points(plan: Plan, runner: Runner, tally: Tally, indices: tuple[int, ...], prints: Fingerprint) -> None:
    """Run the spread points outside the sample, un-transformed."""
    for batch in batches(plan.images(indices), runner.rows or 32):
        tally.add_points(batch.ids, runner.run(batch.x))
        prints.add_all(batch.ids, batch.raw)


def _floors(plan: Plan, runner: Runner, tally: Tally) -> None:
    """Run g⁻¹(g x) of the reference images: what resampling the input alone does to taps that it should not move."""
    acting = plan.acting
    if not any(acting.resampled_by):
        return
    turns = sorted(set(acting.resampled_by))
    for _, name, _, x in plan.images(tally.reference_indices):
        rows = []
        for turn in turns:
            g = acting.resampled_by.index(turn)
            # elements of one turn lose the same, so one pass serves them all
            rows.append(acting(acting.group.inverse(g), acting(g, x[None])) if turn else x[None])
        outputs = runner.run(np.concatenate(rows))
        place = [turns.index(t) for t in acting.resampled_by]
        tally.add_floor(name, {tap: y[place] for tap, y in outputs.items()})


def _skipped(plan: Plan) -> list[str]:
    skipped = getattr(plan.source, "skipped", None) or {}
    return [f"skipped {len(skipped)} unreadable image(s): {', '.join(list(skipped)[:5])}"] if skipped else []


def _version() -> str:
    from geed_onnx import __version__

    return __version__
