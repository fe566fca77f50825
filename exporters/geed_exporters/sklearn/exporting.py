"""From a fitted model to an `Export`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from geed_exporters.candidates import Candidate, select
from geed_exporters.errors import ExportError, NotExportable
from geed_exporters.export import Array, Export, InputSpec, Kind, Layout, Role, Source, TapEntry
from geed_exporters.factories import framework
from geed_exporters.facts import COMMAND_LINE, NOTHING, Facts, input_spec, over
from geed_exporters.sklearn.conversion import LONG, SHORT, converted
from geed_exporters.sklearn.plan import FINAL, Step, evaluated, planned
from geed_onnx.errors import UsageError

INSTALL = "pip install 'geed-onnx[sklearn]'"
OPSET = 20


def candidates(model: Any) -> tuple[Candidate, ...]:
    """Return what can be tapped: each step of a pipeline, each hidden layer of a perceptron, the scores.

    Raises
    ------
    ExportError
        If it is no fitted scikit-learn estimator.
    NotExportable
        If it does not take one matrix of numbers.
    """
    framework("sklearn", INSTALL)
    steps = planned(model)
    return _candidates(steps, _widths(steps, _features(steps)))


def export_sklearn(
    model: Any,
    *,
    image: Facts = NOTHING,
    layout: Layout = "NCHW",
    taps: Sequence[str] = (),
    opset: int = OPSET,
    name: str | None = None,
    weights: Any = "as fitted",
) -> Export:
    """Return a fitted estimator or pipeline, ready to be written.

    Taps are named by their path in the pipeline: `scaler`, `union.pca`, `mlp.hidden_1`; the last step's output is
    `probabilities`, `decision` (of a classifier without probabilities) or `prediction` (of a regressor).

    Parameters
    ----------
    image
        What the features are pixels of; the file's input is then an image, flattened inside. Nothing: a plain vector.
        It has one channel unless it says otherwise.
    layout
        In which order the image was flattened: NHWC for (H, W, C) arrays.
    taps
        Globs over the names above; `stages`, `latent` and `scores` stand for groups of them. None: all.
    name, weights
        What `geed.source` says of the model; the class's name where there is none.

    Raises
    ------
    MissingFramework
        If scikit-learn or skl2onnx is not installed.
    ExportError
        If it is no fitted estimator, or the image does not have as many values as the model has features.
    UsageError
        If the opset is none that skl2onnx is tested with, or what is said of the image does not agree with itself.
    NotExportable
        If a step has no ONNX form, or the model takes several inputs.
    UnknownName
        If a glob meets nothing.
    """
    sklearn = framework("sklearn", INSTALL)
    framework("skl2onnx", INSTALL)
    if not SHORT <= opset <= LONG:
        raise UsageError(f"--opset {opset}: skl2onnx is tested from {SHORT} to {LONG}; {OPSET} is the default")
    steps = planned(model)
    features = _features(steps)
    spec = _input(steps, features, image, layout)
    widths = _widths(steps, features)
    chosen = select(_candidates(steps, widths), taps)
    modules = {step.output: step.module for step in steps}
    entries = tuple(TapEntry(c.module, c.natural_kind, None, modules.get(c.module, c.module), c.role) for c in chosen)
    names = [entry.name for entry in entries]

    def reference(x: Array) -> dict[str, Array]:
        arrays = evaluated(steps, x.reshape(len(x), -1))
        return {tap: arrays[tap] for tap in names}

    def probe(batch: int) -> Array:
        draw = np.random.default_rng(batch)
        if spec.range is None:
            return draw.standard_normal((batch, *spec.shape)).astype(np.float32)
        each = (-1, 1, 1) if spec.layout == "NCHW" else (-1,)
        mean, std = (np.reshape(numbers, each) for numbers in (spec.mean or (0.0,), spec.std or (1.0,)))
        seen: Array = ((draw.uniform(*spec.range, (batch, *spec.shape)) - mean) / std).astype(np.float32)
        return seen

    return Export(
        model=converted(steps, widths | {"": features}, spec, names, opset),
        input=spec,
        taps=entries,
        source=Source("scikit-learn", sklearn.__version__, name or type(model).__name__, weights),
        reference=reference,
        probe=probe,
    )


def image_input(image: Facts, layout: Layout) -> InputSpec | None:
    """Return the input that an image makes, or None where nothing is said of one.

    Raises
    ------
    UsageError
        If it is an image without a size, or what is said of it does not agree with itself.
    """
    if image == NOTHING:
        return None
    if image.size is None:
        raise UsageError("--channels, --colour, --range, --mean and --std describe an image: give its --size HxW too")
    # grey is not said for two channels or four
    known = over(Facts(channels=1), image) if image.colour is None else image
    return input_spec(known, layout=layout, whose=COMMAND_LINE)


def _input(steps: Sequence[Step], features: int, image: Facts, layout: Layout) -> InputSpec:
    """Return the file's input, under a name that no step has: the image, or a plain vector `(batch, features)`."""
    spec = image_input(image, layout) or InputSpec("features", (features,))
    if any(s.output == spec.name for s in steps):
        spec = replace(spec, name=f"{spec.name}_input")
    if spec.layout is None:
        return spec
    channels, height, width = spec.chw
    if math.prod(spec.shape) != features:
        side = round((features / channels) ** 0.5)
        square = f"; {features} would be {side}x{side}" if side * side * channels == features else ""
        more = f" with {channels} channels" if channels > 1 else ""
        raise ExportError(
            f"the model takes {features} features, but --size {height}x{width}{more} has"
            f" {math.prod(spec.shape)}{square}{more if square else ''}"
        )
    return replace(spec, colour=spec.colour or ("grey" if channels == 1 else None))


def _features(steps: Sequence[Step]) -> int:
    """Return how many numbers a row has: what the first step was fitted on."""
    first = steps[0].estimator
    features = getattr(first, "n_features_in_", None)
    if not isinstance(features, (int, np.integer)):
        raise NotExportable(
            f"{type(first).__name__} does not say how many numbers it takes (no n_features_in_): a model of texts or"
            " other objects cannot be measured"
        )
    return int(features)


def _widths(steps: Sequence[Step], features: int) -> dict[str, int]:
    """Return the width of every array, from one run."""
    arrays = evaluated(steps, np.random.default_rng(0).standard_normal((2, features)).astype(np.float32))
    return {name: array.shape[1] for name, array in arrays.items()}


def _candidates(steps: Sequence[Step], widths: dict[str, int]) -> tuple[Candidate, ...]:
    order = [(name, step) for step in steps for name in (*step.hidden, step.output)]
    features = [name for name, step in order if name in step.hidden or step.method not in FINAL]
    found = []
    for name, step in order:
        role: Role = "stage"
        kind: Kind = "vector"
        if name == step.output and step.method in FINAL:
            role, kind = "scores", "probability" if step.method == "predict_proba" else "vector"
        elif name == features[-1]:
            role = "latent"
        found.append(Candidate(name, (widths[name],), block=True, role=role, kind=kind))
    return tuple(found)
