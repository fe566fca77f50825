"""One pass over one model's data: every variant of every tap from one forward pass per image and group element.

The journey of the data, which `measure` reads like::

    images (B,C,H,W) + ids → orbit (B,|G|,C,H,W) → one Session run → {tap: (B,|G|,…)} → f̂ over the kernel
      → deviations (B,|G|) float64 → table keyed by id (activations dropped here) → Estimate → Result
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy.typing as npt

from geed_onnx.actions import Interpolation, Mask
from geed_onnx.engine.partial import Partial, merge
from geed_onnx.engine.plan import Opened, Plan, Progress, Settings, make_plan, open_file, plan_of
from geed_onnx.engine.record import Measured
from geed_onnx.engine.shards import finish, measure_part, notes_of, rows_of
from geed_onnx.groups import Group
from geed_onnx.results import Result
from geed_onnx.sessions import RuntimeOptions
from geed_onnx.variants import Variant

__all__ = [
    "Measured",
    "Opened",
    "Partial",
    "Plan",
    "Settings",
    "finish",
    "make_plan",
    "measure",
    "measure_part",
    "measure_plan",
    "merge",
    "notes_of",
    "open_file",
    "plan_of",
    "rows_of",
]

Array = npt.NDArray[Any]
Notify = Callable[[str], None]


def measure(
    model: Any,
    data: Any,
    group: str | Group,
    *,
    taps: Sequence[str] | None = None,
    variants: Sequence[str | Variant] | None = None,
    actions: Mapping[str, str | Mapping[str, Any]] | None = None,
    declared_action: bool = True,
    scores: Mapping[str, str] | None = None,
    samples: int | Literal["all"] | None = None,
    spread_samples: int | None = None,
    reference_samples: int | None = None,
    seed: int = 0,
    level: float = 0.95,
    floor: bool = False,
    mask: Mask = "auto",
    interpolation: Interpolation = "bilinear",
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
    cluster: str | None = None,
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
    scores
        {tap: `"logits"` or `"probabilities"`}: what scores are, over what the graph shows.
    samples, seed
        N images drawn with the seed, or `"all"` in order; by default 50, or as many as there are. Copies of an image
        (of its file, its cell, its row) are counted once, and notes say so.
    spread_samples
        Points for M; by default 200, or as many as there are.
    reference_samples
        Images on which floor and null are taken; by default all of the sample.
    floor
        Whether the floor of trivially acted taps is computed, by extra forward passes on g⁻¹(g x).
    mask
        `disc`: everything outside the inscribed disc is set to 0, at the input and at maps alike; `none`: nothing is;
        `auto`: the disc where an element of the group resamples.
    interpolation
        How turns that are no permutation of the grid resample, at the input and at maps alike: `nearest`, `bilinear` or
        `bicubic` (whose over- and undershoots are kept in floating-point images). The Result says so, in
        `group["interpolation"]`, where it is not `bilinear`.
    batch_size
        Rows (images × elements) of one forward pass; by default as many as fit 16 MB of taps (64 MB on a device).
    preprocessing
        `size`, `fit`, `resize`, `colour`, `range`, `mean`, `std`, `resample`: over what the file declares.
    cluster
        What names each image's cluster (its patient, its scene), which is then the unit of uncertainty: a column of the
        table, an array of the `.npz`, or `folder` for the folder that an image lies in.
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
        settings=Settings(
            samples, spread_samples, reference_samples, seed, level, floor, mask, batch_size, interpolation, cluster
        ),
        input=input,
        layout=layout,
        preprocessing=preprocessing or {},
        runtime=RuntimeOptions(provider, threads, tf32, layout=layout, constants=constants or {}),
        column=column,
        skip_bad=skip_bad,
        streaming=streaming,
        scores=scores,
    )
    return [m.result for m in measure_plan(plan, progress=progress, notify=notify)]


def measure_plan(plan: Plan, *, progress: Progress | None = None, notify: Notify | None = None) -> list[Measured]:
    """Measure what `make_plan` settled, in this process; the deviations come with the results."""
    whole = measure_part(plan, 0, 1, progress=progress)
    if notify is not None:
        for note in notes_of(plan, whole):
            notify(note)
    return finish(plan, whole)
