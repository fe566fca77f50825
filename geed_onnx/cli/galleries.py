"""The pictures on a page: models and data of a run opened again, as its suite says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from geed_onnx.cli.limits import in_suite
from geed_onnx.errors import GeedError, UsageError

if TYPE_CHECKING:
    from geed_onnx.gallery import Gallery, Reopen
    from geed_onnx.reports.page import Section
    from geed_onnx.requests import Request
    from geed_onnx.results import Collection, Result


def seen_from(one: Collection, root: str | None, place: str | None) -> str | None:
    """Return where a path of a run's suite is: from the suite's root if it is there, else as it is."""
    if place is None or "://" in place:
        return place
    there = os.path.normpath(os.path.join(one.uri, root or "", place))
    return there if os.path.exists(there) else place


def gallery_of(found: Sequence[Collection], tap: str | None) -> tuple[Sequence[Section], Sequence[str]]:
    """Return the sections with images and feature maps, and what could not be shown.

    Raises
    ------
    UsageError
        If no result is of the tap asked for.
    """
    from geed_onnx.gallery import Gallery, make_gallery
    from geed_onnx.reports.page.gallery import render_gallery

    made: list[Gallery] = []
    reasons: list[str] = []
    for one in found:
        try:
            made.append(make_gallery(one, tap=tap, reopen=reopening(one)))
        except UsageError:
            if tap is not None:
                raise
        except GeedError as error:
            reasons.append(f"no gallery of {one.uri}: {error}")
    whole = Gallery(
        tuple(e for g in made for e in g.exhibits),
        tuple(m for g in made for m in g.maps),
        tuple(dict.fromkeys([*reasons, *(r for g in made for r in g.reasons)])),
    )
    return render_gallery(whole), [f"gallery: {reason}" for reason in whole.reasons]


def reopening(one: Collection) -> Reopen | None:
    """Return what the run's suite says of how a result's model and data were opened; None where there is no suite."""
    from geed_onnx.results import SUITE
    from geed_onnx.suites import load_suite

    if not one.suite:
        return None
    try:
        suite, root = load_suite(os.path.join(one.uri, SUITE), files=False), in_suite(one).root
    except GeedError:
        # a suite of another version, or written by hand: the results alone may say enough
        return None
    models = {m.name: m for m in suite.models}
    data = {os.path.normpath(d.source): d for d in suite.data}

    def reopen(result: Result, request: Request) -> Request:
        said, uri = request.model, str(result.data.get("uri"))
        model = models.get(str(result.model.get("name")), said)
        files = {n: str(seen_from(one, root, v)) for n, v in model.constants.items() if isinstance(v, str)}
        model = replace(
            model,
            path=seen_from(one, root, said.path),
            constants={**model.constants, **files},
            layout=model.layout or said.layout,
            preprocessing=said.preprocessing,
        )
        images = replace(data.get(os.path.normpath(uri), request.data), source=seen_from(one, root, uri))
        return replace(request, model=model, data=images, runtime=suite.runtime)

    return reopen
