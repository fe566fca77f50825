"""The gallery: the images that deviate most with their orbits, and feature maps g·f(x) beside f(gx).

A run's folder says which images deviate; pictures and activations are not kept there.  So models and data are opened
again from the paths in the results, and only if they are the ones that were measured::

    gallery = make_gallery(open_results("runs/digits"))
    gallery.exhibits[0].image, gallery.exhibits[0].orbit.shape
    gallery.reasons                                          # what there is not, and why
"""

from __future__ import annotations

from collections.abc import Callable

from geed_onnx.errors import GeedError, UsageError
from geed_onnx.gallery.exhibits import Exhibit, FeatureMaps, Gallery
from geed_onnx.gallery.jobs import choose_jobs
from geed_onnx.gallery.looking import look
from geed_onnx.gallery.opening import Reopen, Shelf, open_job
from geed_onnx.results import Collection

__all__ = ["Exhibit", "FeatureMaps", "Gallery", "Reopen", "make_gallery"]

Notify = Callable[[str], None]


def make_gallery(
    collection: Collection,
    *,
    limit: int = 6,
    models: int = 3,
    tap: str | None = None,
    channels: int = 4,
    reopen: Reopen | None = None,
    notify: Notify | None = None,
) -> Gallery:
    """Return the images that deviate most, and the feature maps that agree least, of the models of a collection.

    A model, an image or an action that is not the one that was measured is left out with a reason, never shown in
    place of it: files are held against their SHA-256, images against their fingerprint, and every deviation against
    the tables.

    Parameters
    ----------
    limit
        Images of each model, data set and group.
    models
        Models that are shown, in the order of the results; of training runs their last checkpoints first.
    tap
        Name or module path of the map whose channels are shown; by default the last map of at least 4×4.
    channels
        Channels of a map that are shown, those that agree least first.
    reopen
        Returns, of a result and the request that it says it was measured by, the one that opens it again: with what
        the result does not say, such as constants or a column.
    notify
        Called with each reason.

    Raises
    ------
    UsageError
        If a number is below 1.
    UnknownName
        If no result is of the tap asked for.
    """
    for word, value in (("limit", limit), ("models", models), ("channels", channels)):
        if value < 1:
            raise UsageError(f"{word} must be at least 1, not {value}")
    jobs, reasons = choose_jobs(collection, limit=limit, models=models, tap=tap)
    exhibits: list[Exhibit] = []
    maps: list[FeatureMaps] = []
    shelf = Shelf(jobs)
    for job in jobs:
        try:
            opened = open_job(job, reopen, shelf)
            found = list(look(job, opened, channels))
        except (GeedError, MemoryError) as error:
            reasons.append(f"{job.label}: {error or 'out of memory'}")
            continue
        reasons += [f"{job.label}: {reason}" for reason in opened.reasons]
        exhibits += [f for f in found if isinstance(f, Exhibit)]
        maps += [f for f in found if isinstance(f, FeatureMaps)]
    if notify is not None:
        for reason in reasons:
            notify(reason)
    return Gallery(tuple(exhibits), tuple(maps), tuple(reasons))
