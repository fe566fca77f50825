"""One pass over one model's data: every variant of every tap from one forward pass per image and group element.

The journey of the data, which `measure_request` reads like::

    images (B,C,H,W) + ids → orbit (B,|G|,C,H,W) → one Session run → {tap: (B,|G|,…)} → f̂ over the kernel
      → deviations (B,|G|) float64 → table keyed by id (activations dropped here) → Estimate → Result
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from geed_onnx.engine.opening import Opened, open_model
from geed_onnx.engine.partial import Partial, merge
from geed_onnx.engine.plan import Plan, Progress, plan_of
from geed_onnx.engine.record import Measured
from geed_onnx.engine.shards import finish, measure_part, notes_of, rows_of
from geed_onnx.groups import Group
from geed_onnx.requests import Request, request_of
from geed_onnx.results import Result

__all__ = [
    "Measured",
    "Opened",
    "Partial",
    "Plan",
    "Progress",
    "finish",
    "measure",
    "measure_part",
    "measure_plan",
    "measure_request",
    "merge",
    "notes_of",
    "open_model",
    "plan_of",
    "rows_of",
]

Notify = Callable[[str], None]


def measure(
    model: Any,
    data: Any,
    group: str | Group,
    *,
    actions: Mapping[str, str | Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
    notify: Notify | None = None,
    **keywords: Any,
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
    actions
        {tap: output action}, as `--act` takes them, or as `geed.taps` declares fields (`geed_onnx.actions.fields`).
    progress, notify
        Called with (passes done, passes in all), and with each warning.
    keywords
        Any field of `geed_onnx.requests`, where each is described: which taps (`taps`, `variants`,
        `declared_action`, `scores`), how many images (`samples`, `seed`, `spread_samples`, `reference_samples`,
        `cluster`), how (`level`, `floor`, `mask`, `interpolation`, `batch_size`), on what (`provider`, `threads`,
        `tf32`), and how images become the input (`input`, `layout`, `constants`, `preprocessing`, `column`,
        `skip_bad`, `streaming`).

    Returns
    -------
    list[Result]
        In the order of taps, then variants.

    Raises
    ------
    GeedError
        `UsageError` for a request that cannot be meant, `DataError` for images, `ModelError` for the file,
        `ActionError` where the group cannot act, `SessionError` where the model does not run, `MeasureError` for NaN.
    TypeError
        If there is no such keyword.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((4, 1, 8, 8))
    >>> [result] = measure(lambda x: {"same": x}, images, "C4", samples="all")
    >>> result.variant, result.value, result.optimum
    ('channelwise', -1.0, -1.0)
    """
    request = request_of(model, data, group, acts=actions, **keywords)
    return [m.result for m in measure_request(request, progress=progress, notify=notify)]


def measure_request(
    request: Request, *, progress: Progress | None = None, notify: Notify | None = None
) -> list[Measured]:
    """Measure what is asked, in this process; the deviations come with the results."""
    return measure_plan(plan_of(request, open_model(request)), progress=progress, notify=notify)


def measure_plan(plan: Plan, *, progress: Progress | None = None, notify: Notify | None = None) -> list[Measured]:
    """Measure what `plan_of` settled, in this process."""
    whole = measure_part(plan, 0, 1, progress=progress)
    if notify is not None:
        for note in notes_of(plan, whole):
            notify(note)
    return finish(plan, whole)
