"""Static figures for papers, in PNG and SVG, readable in greyscale: networks, and families of them."""

from __future__ import annotations

import os
from pathlib import Path

from geed_onnx.errors import UsageError
from geed_onnx.reports.figures.drawing import names, save, style
from geed_onnx.reports.figures.families import family_drawings, place_of
from geed_onnx.reports.figures.networks import DRAWINGS, View
from geed_onnx.reports.page.contents import contents_of
from geed_onnx.results import Collection

__all__ = ["View", "figures_target", "write_figures"]


def write_figures(collection: Collection, folder: str | os.PathLike[str]) -> list[Path]:
    """Write what these results have something for as PNG and SVG; returns the files.

    For each group and set of images: depth, raw depth, profile, models side by side and training curves. For each tap
    and variant, raw and calibrated beside one another, a line or bar for each family with its interval over models:
    `training-…` against the step, `data-…` by data set, `samples-…` and `spread-…` against the number of images and of
    points of M. The numbers behind the latter are those of `geed_onnx.reports.means.family_means`.

    Raises
    ------
    UsageError
        If matplotlib is not installed, or the folder cannot be made or written.
    DataError
        If a result holds something else than its schema says.
    """
    where = figures_target(folder)
    contents = contents_of(collection.results)
    written = []
    for i, name in enumerate(names([place_of(c, contents.contexts) for c in contents.contexts])):
        view = View(contents, i)
        for what, draw in DRAWINGS.items():
            with style():
                sheet = draw(view)
                if sheet is not None:
                    written += save(sheet, where, f"{what}-{name}")
    for drawing in family_drawings(contents):
        with style():
            written += save(drawing.draw(), where, drawing.name)
    return written


def figures_target(folder: str | os.PathLike[str]) -> Path:
    """Return the folder for figures, made if need be, so that nothing is drawn in vain.

    Raises
    ------
    UsageError
        If matplotlib is not installed, or the folder cannot be made or written.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("figures need matplotlib, which is not installed: pip install 'geed-onnx[figures]'") from None
    where = Path(folder)
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write figures to {os.fspath(folder)!r}: {error.strerror}") from None
    if not os.access(where, os.W_OK):
        raise UsageError(f"cannot write figures to {os.fspath(folder)!r}: permission denied")
    return where
