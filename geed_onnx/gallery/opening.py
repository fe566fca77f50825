"""A measurement opened again: the same model file, images and actions, or an error that says what is another."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geed_onnx.actions import Action, Declared, interpolation_of, on_logs, output_action, within_disc
from geed_onnx.engine import Plan, open_model, plan_of
from geed_onnx.engine.opening import open_data
from geed_onnx.errors import ActionError, DataError, GeedError, MeasureError, ModelError
from geed_onnx.gallery.exhibits import Array
from geed_onnx.gallery.jobs import Cell, Job
from geed_onnx.requests import Data, Model, Request, Settings
from geed_onnx.results import Result
from geed_onnx.sources import Fingerprint, Source, draw
from geed_onnx.variants import Variant, parse_variant

#: Rows of one forward pass.
ROWS = 16
#: What of the preprocessing says where it came from, and changes no image.
_REMARKS = ("origin", "notes")
#: Metadata longer than this is no list of classes.
MOST_TEXT = 1 << 20


#: What a result's measurement was told beside what the result says: from both, the request that opens it again.
Reopen = Callable[[Result, Request], Request]


@dataclass(frozen=True, eq=False)
class Bound:
    """A cell whose tap and action were found again."""

    cell: Cell
    variant: Variant
    action: Action

    @property
    def tap(self) -> str:
        """Name of the tensor."""
        return self.cell.tap


@dataclass(frozen=True, eq=False)
class Reopened:
    """A plan that runs the model of a job, its images, and what to call its classes."""

    plan: Plan
    raw: Mapping[str, Array]
    """{id: array as read} of the job's images"""
    exhibit: Bound
    map: Bound | None
    reasons: tuple[str, ...]
    """why there is no map"""
    metadata: Mapping[str, str]
    folder: Path


class Shelf:
    """Sources and images that several jobs share, each opened and read once."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._wanted: dict[str, set[str]] = {}
        for job in jobs:
            self._wanted.setdefault(_data(job.result), set()).update(job.images)
        self._sources: dict[Data, Source] = {}
        self._read: dict[str, dict[str, Array] | GeedError] = {}

    def source(self, data: Data) -> Source:
        """Return the images of a request."""
        if data not in self._sources:
            self._sources[data] = open_data(data)
        return self._sources[data]

    def images(self, job: Job, source: Source) -> dict[str, Array]:
        """Return {id: array as read} of the images that any job wants of this one's data.

        Raises
        ------
        DataError
            If the sample that was measured is not there any more, or is another.
        """
        key = _data(job.result)
        if key not in self._read:
            try:
                self._read[key] = _images(job, source, self._wanted[key])
            except GeedError as error:
                self._read[key] = error
        found = self._read[key]
        if isinstance(found, GeedError):
            raise found
        return found


def asked_again(result: Result) -> Request:
    """Return the request that a result says it was measured by, on one image and at its own tap.

    Raises
    ------
    ModelError
        If the model was no file.
    DataError
        If it does not say how large the images were.
    """
    path = result.model.get("path")
    if path is None:
        raise ModelError("it was measured from Python, and there is no file to open again")
    model = Model(path, layout=_said(result).get("layout"), preprocessing=_flags(result))
    settings = Settings(
        samples=1,
        reference_samples=0,
        seed=result.seed,
        mask="disc" if result.data.get("mask") else "none",
        batch_size=ROWS,
        interpolation=interpolation_of(result.interpolation),
    )
    return Request(model, Data(str(result.data["uri"])), str(result.group["name"]), settings)


def open_job(job: Job, reopen: Reopen | None, shelf: Shelf) -> Reopened:
    """Open the model and the data of a job again.

    Raises
    ------
    GeedError
        `ModelError` if the model file is gone or another, `DataError` if the images are, `ActionError` if the action
        cannot be told; whatever else keeps the model from being run.
    """
    from geed_onnx.taps import file_sha256, read_graph

    result, request = job.result, asked_again(job.result)
    if reopen is not None:
        request = reopen(result, request)
    graph = read_graph(request.model.path)
    found, wanted = file_sha256(graph), result.model.get("sha256")
    if found != wanted:
        raise ModelError(
            f"{request.model.path!r} is not the file that was measured (SHA-256 {found[:12]}…, the result says"
            f" {str(wanted)[:12]}…); measure it again, or put the measured file there"
        )
    cells = [job.exhibit, *([job.map] if job.map is not None else [])]
    specs = dict.fromkeys(f"{c.tap}:{c.result.tap['kind']}" for c in cells)
    model = replace(request.model, taps=tuple(specs), acts=_acts(request.model.acts, cells), scores={})
    # what scores are and how images become the input the result says; one image is no sample of clusters
    request = replace(request, model=model, data=replace(request.data, cluster=None, preprocessing={}))
    plan = plan_of(request, open_model(request, shelf.source(request.data)))
    if any(c.deviations.values.shape[1] != plan.group.order for c in cells):
        raise DataError(f"the table of deviations is of another group than {plan.group.name}; measure again")
    _same_preprocessing(plan, result)
    raw = shelf.images(job, plan.source)
    exhibit, map, reasons = _bound(plan, job.exhibit), None, []
    if job.map is not None:
        try:
            map = _bound(plan, job.map)
        except ActionError as error:
            reasons.append(f"no feature maps: {error}")
    mine = {i: raw[i] for i in job.images}
    return Reopened(plan, mine, exhibit, map, tuple(reasons), graph.metadata, graph.path.parent)


# --- images -----------------------------------------------------------------------------------------------------


def _images(job: Job, source: Source, wanted: set[str]) -> dict[str, Array]:
    sample, found, prints = set(job.exhibit.deviations.ids), {}, Fingerprint()
    for name, raw in _drawn(source, len(sample), job.result.seed):
        if shown_id(name) in sample:
            prints.add(name, raw)
            if shown_id(name) in wanted:
                found[shown_id(name)] = raw
        if len(prints) == len(sample):
            break
    if len(prints) < len(sample):
        missing = next((i for i in job.images if i not in found), "one of the sample")
        raise DataError(
            f"{source.uri}: {len(sample) - len(prints)} of the {len(sample)} images that were measured are not there"
            f" any more (such as {missing!r}); measure again, or bring them back"
        )
    if prints.hexdigest() != job.result.data.get("fingerprint"):
        raise DataError(
            f"{source.uri}: these are not the images that were measured (their fingerprint begins"
            f" {prints.hexdigest()[:12]}, the result says {str(job.result.data.get('fingerprint'))[:12]}); measure"
            " again, or bring those images back"
        )
    return found


def _drawn(source: Source, count: int, seed: int) -> Iterable[tuple[str, Array]]:
    order = draw(source, "all", 0)
    order = draw(source, len(order), seed)
    # the sample as it was drawn comes first: a stream need not be read to its end
    yield from source.items(order[:count])
    if order[count:]:
        yield from source.items(order[count:])


def shown_id(name: str) -> str:
    """Return an id as the tables hold it: UTF-8, with anything else spelled out."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _data(result: Result) -> str:
    as_is = isinstance(result.data.get("preprocessing"), str)
    return json.dumps([result.data["uri"], result.data.get("fingerprint"), result.seed, as_is])


# --- preprocessing ----------------------------------------------------------------------------------------------


def _said(result: Result) -> Mapping[str, Any]:
    said = result.data.get("preprocessing")
    return said if isinstance(said, Mapping) else {}


def _flags(result: Result) -> dict[str, Any]:
    """Return the preprocessing of a result as the flags that ask for it."""
    said = dict(_said(result))
    if not said:
        return {}
    size = [said.pop("height", None), said.pop("width", None)]
    if None in size:
        raise DataError("the result does not say the size that the images were brought to; measure again")
    return {"size": size} | {k: v for k, v in said.items() if k not in (*_REMARKS, "layout") and v is not None}


def _same_preprocessing(plan: Plan, result: Result) -> None:
    now = plan.feed.preprocessing.to_json() if plan.feed.preprocessing else {}
    then = _said(result)
    other = sorted(k for k in {*now, *then} - {*_REMARKS} if now.get(k) != then.get(k))
    if other:
        listed = ", ".join(f"{k} {now.get(k)!r} for {then.get(k)!r}" for k in other)
        raise DataError(f"the images would not be prepared as they were when measured: {listed}")


# --- actions ----------------------------------------------------------------------------------------------------


def _acts(acts: Mapping[str, Any], cells: Sequence[Cell]) -> dict[str, str | Mapping[str, Any]]:
    # an action of a tap that is not opened would be refused
    names = {str(n) for c in cells for n in (c.tap, c.result.tap.get("module")) if n}
    kinds = ("", ":map", ":vector", ":probability")
    return {tap: act for tap, act in acts.items() if any(tap == name + kind for name in names for kind in kinds)}


def _bound(plan: Plan, cell: Cell) -> Bound:
    """Bind the action that the result names: the one of the plan, the variant's own, or as the result spells it."""
    result, variant = cell.result, parse_variant(cell.result.variant)
    shape, said = tuple(result.tap["shape"]), str(result.tap["action"])
    mask = plan.masked and result.tap["kind"] == "map"
    tried: list[str | Declared] = [variant.action, said]
    if cell.tap in plan.acts:
        tried.insert(0, plan.acts[cell.tap])
    for spec in tried:
        try:
            action = within_disc(output_action(spec, plan.group, shape, plan.settings.interpolation), mask)
            action = on_logs(action) if result.tap["kind"] == "probability" else action
        except GeedError:
            continue
        if action.name == said and list(action.kernel) == list(result.tap["kernel"] or action.kernel):
            return Bound(cell, variant, action)
    raise ActionError(f"tap {cell.tap!r}: the output action {said!r} that was measured cannot be told from the file")


# --- names of classes -------------------------------------------------------------------------------------------


def class_names(metadata: Mapping[str, str], folder: Path, count: int) -> tuple[str, ...] | None:
    """Return the names of `count` classes from a file's metadata or the `config.json` beside it; None if none tells.

    Read are the keys `names`, `classes`, `labels` and `id2label`: a list, or {number: name}, as JSON or as Python
    writes it.
    """
    for key in ("names", "classes", "labels", "id2label"):
        found = _names(_literal(metadata.get(key, "")), count)
        if found is not None:
            return found
    for place in (folder, folder.parent) if folder.name == "onnx" else (folder,):
        config = place / "config.json"
        if config.is_file():
            try:
                read = json.loads(config.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                return None
            return _names(read.get("id2label"), count) if isinstance(read, dict) else None
    return None


def _literal(text: str) -> Any:
    if len(text) > MOST_TEXT:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return None


def _names(found: Any, count: int) -> tuple[str, ...] | None:
    if isinstance(found, Mapping):
        by_number = {str(k): v for k, v in found.items()}
        found = [by_number.get(str(i)) for i in range(count)] if len(by_number) == count else None
    if not isinstance(found, list) or len(found) != count or not all(isinstance(n, (str, int)) for n in found):
        return None
    return tuple(str(n) for n in found)


def checked_finite(name: str, values: Array) -> Array:
    """Return values of a tap, known to be finite.

    Raises
    ------
    MeasureError
        If one is not.
    """
    import numpy as np

    if not np.isfinite(values).all():
        raise MeasureError(f"tap {name!r} holds NaN or Inf now, and did not when it was measured")
    return values
