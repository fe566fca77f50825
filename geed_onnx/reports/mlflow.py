"""Results into an MLflow server (extra `[mlflow]`): parameters, values as metrics with steps, files as artifacts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from geed_onnx.ending import at_end, put_away, temporary_folder
from geed_onnx.errors import GeedError, UsageError
from geed_onnx.gates import Verdict
from geed_onnx.reports.markdown import markdown
from geed_onnx.reports.table import clean
from geed_onnx.results import RESULTS, SUITE, Collection, Result, finite, write_results

#: What a metric's name has behind its stem, and the field of the Result that it is.
SUFFIXES = {
    "": "value",
    ".low": "low",
    ".high": "high",
    ".calibrated": "calibrated",
    ".calibrated_low": "calibrated_low",
    ".calibrated_high": "calibrated_high",
}
#: MLflow's limits: of a name, of a parameter's value (that of old servers), of one request.
LONGEST_NAME, LONGEST_VALUE, BATCH = 250, 500, 1000
NAMES, REASONS = "metric_names.json", "reasons.json"
#: Seconds and attempts that the first request may take, and each one after it.
FIRST, LATER = (10, 1), (60, 3)


@dataclass(frozen=True)
class Series:
    """Where a result's numbers go: `name` and `name.low`, … at `step`.

    Attributes
    ----------
    name : str
        `MODEL[/DATA]/GROUP/TAP/VARIANT`; checkpoints of one family and seed share it.
    step : int
        The checkpoint's; 0 for a model that is none.
    said : tuple[str, ...]
        The parts as they are, before they were made to fit.
    changed : bool
        Whether a hash was added, because another series came to the same name or the name was too long.
    """

    name: str
    step: int
    said: tuple[str, ...]
    changed: bool = False


def log_to_mlflow(
    collection: Collection,
    uri: str,
    *,
    experiment: str = "geed-onnx",
    page: Path | None = None,
    verdict: Verdict | None = None,
    notify: Callable[[str], None] | None = None,
) -> str:
    """Log a run's results as one MLflow run, and return its id.

    Parameters are what was asked for (data, groups, variants, samples, seeds) and what ran (versions, provider); each
    value is a metric, its interval and calibrated value beside it; ``results.jsonl``, the suite, the page and the
    summary of the gate are artifacts, and so are ``metric_names.json``, which says what every metric is of, and
    ``reasons.json``, which says why a value or a calibrated value is no metric.

    Parameters
    ----------
    uri
        A tracking server's address, or what else MLflow takes (``sqlite:///…``).
    page
        The page of `geed-onnx report`.
    notify
        Called with what is worth knowing: names that were changed.

    Raises
    ------
    UsageError
        If MLflow is not installed, or the page is not there.
    GeedError
        If the server does not answer (within about half a minute) or refuses; the results stay where they are.
    """
    if page is not None and not page.is_file():
        raise UsageError(f"no page to log: {str(page)!r} is no file")
    with _environment(uri, *FIRST), _explained(uri, collection):
        client = _client(uri)
        run_id = _create(client, experiment, collection)
    status = "FAILED"

    def ended() -> None:
        # what failed is told already; that a run stays open where the server is gone is the server's
        with _environment(uri, *FIRST), contextlib.suppress(Exception):
            client.set_terminated(run_id, status)

    try:
        with at_end(ended), _environment(uri, *LATER), _explained(uri, collection):
            _log(client, run_id, collection, verdict, notify)
            _artifacts(client, run_id, collection, page, verdict)
            status = "FINISHED"
    finally:
        ended()
    return run_id


def _client(uri: str) -> Any:
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise UsageError("logging to MLflow needs its client: pip install 'geed-onnx[mlflow]'") from None
    return MlflowClient(tracking_uri=uri)


@contextlib.contextmanager
def _environment(uri: str, timeout: int, retries: int) -> Iterator[None]:
    """Bound MLflow's waiting, which is minutes by itself, and keep it from writing to stdout and from phoning home.

    What the user has set stays as it is.
    """
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    added = {k: v for k, v in wanted.items() if k not in os.environ}
    # older clients find the server of artifacts by it alone
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ.update(added, MLFLOW_TRACKING_URI=uri)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        if before is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextlib.contextmanager
def _explained(uri: str, collection: Collection) -> Iterator[None]:
    """Make one clear line of whatever goes wrong between here and the server."""
    try:
        yield
    except GeedError:
        raise
    except Exception as error:
        # the client's address may hold a password, and its messages repeat it
        first = hidden((str(error).splitlines() or [type(error).__name__])[0])
        silent = any(
            w in first for w in ("Max retries exceeded", "timed out", "Connection refused", "Connection aborted")
        )
        said = "does not answer" if silent else "refused"
        raise GeedError(
            f"the MLflow server {hidden(uri)!r} {said}: {first[:300]}; nothing is lost, the results are at"
            f" {collection.uri!r}"
        ) from None


def hidden(text: str) -> str:
    """Return text with the name and the password of every address in it left out."""
    return re.sub(r"(?<=://)[^/\s@]+@", "", text)


def _create(client: Any, experiment: str, collection: Collection) -> str:
    found = client.get_experiment_by_name(experiment)
    place = client.create_experiment(experiment) if found is None else found.experiment_id
    name = clean(PurePosixPath(collection.uri.replace(os.sep, "/")).name or "geed-onnx")
    return str(client.create_run(place, run_name=name[:LONGEST_NAME]).info.run_id)


def _log(
    client: Any,
    run_id: str,
    collection: Collection,
    verdict: Verdict | None,
    notify: Callable[[str], None] | None,
) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    series = series_of(collection.results)
    changed = {s.name for s in series if s.changed}
    if changed and notify is not None:
        notify(
            f"MLflow: {len(changed)} metric names were too long or not distinct and carry a hash; {NAMES} has them all"
        )
    metrics = [Metric(name, value, now, step) for name, value, step in metrics_of(collection.results, series)]
    tags = {
        "geed.cells": len(collection.results),
        "geed.failed": sum(r.failed for r in collection.results),
        "geed.uncalibrated": sum(r.value is not None and r.calibrated is None for r in collection.results),
        "geed.results": hidden(clean(collection.uri)),
    }
    if verdict is not None:
        tags["geed.gate"] = "crossed" if verdict.crossed else "holds"
        metrics.append(Metric("gate.crossed", float(len(verdict.crossed)), now, 0))
        metrics.append(Metric("gate.judged", float(len(verdict.judged)), now, 0))
    client.log_batch(
        run_id,
        params=[Param(k, v) for k, v in parameters_of(collection).items()],
        tags=[RunTag(k, str(v)[:LONGEST_VALUE]) for k, v in tags.items()],
    )
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])


def _artifacts(client: Any, run_id: str, collection: Collection, page: Path | None, verdict: Verdict | None) -> None:
    folder = temporary_folder()
    try:
        write_results(folder / RESULTS, collection.results)
        series = {s.name: list(s.said) for s in series_of(collection.results)}
        (folder / NAMES).write_text(json.dumps(series, indent=2), encoding="utf-8")
        reasons = json.dumps(reasons_of(collection.results), indent=2)
        (folder / REASONS).write_text(reasons, encoding="utf-8")
        if collection.suite is not None:
            (folder / SUITE).write_text(collection.suite, encoding="utf-8", errors="backslashreplace")
        if verdict is not None:
            (folder / "gate.md").write_text(markdown(verdict), encoding="utf-8", errors="backslashreplace")
        for path in [*sorted(folder.iterdir()), *([page] if page is not None else [])]:
            client.log_artifact(run_id, str(path))
    finally:
        put_away(folder)


def parameters_of(collection: Collection) -> dict[str, str]:
    """Return the run's parameters, each short enough for every server."""
    results = collection.results

    def every(values: Iterable[Any]) -> str:
        said = ", ".join(dict.fromkeys(clean(v) for v in values if v is not None))
        return said if len(said) <= LONGEST_VALUE else f"{said[: LONGEST_VALUE - 1]}…"

    versions = sorted({name for r in results for name in r.runtime if name in ("geed_onnx", "onnxruntime", "onnx")})
    found = {
        "suite": every([hidden(collection.uri)]),
        "models": every(r.label for r in results),
        "data": every(hidden(str(r.data["uri"])) for r in results),
        "groups": every(r.group["name"] for r in results),
        "variants": every(r.variant for r in results),
        "samples": every(r.data.get("samples") for r in results if not r.failed),
        "clusters": every(r.units for r in results),
        "mask": every(r.data.get("mask") for r in results),
        "seed": every(r.seed for r in results),
        "level": every(r.level for r in results),
        "provider": every(r.runtime.get("provider") for r in results),
        **{f"version.{name}": every(r.runtime.get(name) for r in results) for name in versions},
    }
    return {name: value for name, value in found.items() if value}


def metrics_of(results: Sequence[Result], series: Sequence[Series]) -> Iterator[tuple[str, float, int]]:
    """Yield (name, value, step) of every number there is; of a cell that is there twice, the last."""
    last = {(s.name, s.step): r for s, r in zip(series, results, strict=True)}
    for (name, step), result in last.items():
        for suffix, field in SUFFIXES.items():
            value = finite(getattr(result, field))
            if value is not None:
                yield f"{name}{suffix}", value, step


def reasons_of(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return why there is no metric, for each value and calibrated value that is none: metric, step, reason."""
    return [
        {"metric": f"{s.name}{suffix}", "step": s.step, "reason": clean(why or "no reason was given")}
        for s, r in zip(series_of(results), results, strict=True)
        for suffix, value, why in (("", r.value, r.reason), (".calibrated", r.calibrated, r.why_uncalibrated))
        if value is None
    ]


def series_of(results: Sequence[Result]) -> list[Series]:
    """Return the series of every result.

    The data, the number of images and the seed of their draw are in the name only where results differ in them.
    Names that differ in nothing but case or characters that MLflow does not allow get a hash of what they really are.
    """
    differing = [title for title, read in FURTHER.items() if len({read(r) for r in results if not r.failed}) > 1]
    parts = [_parts(r, differing) for r in results]
    plain = ["/".join(component(p) for p in shown) for _, shown in parts]
    rivals = defaultdict(set)
    for (said, _), name in zip(parts, plain, strict=True):
        rivals[_key(name)].add(said)
    longest = LONGEST_NAME - max(map(len, SUFFIXES))
    found = []
    for result, (said, _), name in zip(results, parts, plain, strict=True):
        changed = len(rivals[_key(name)]) > 1 or len(name) > longest
        if changed:
            mark = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:8]
            name = f"{name[: longest - len(mark) - 1]}-{mark}"
        step = result.model.get("step")
        found.append(Series(name, step if isinstance(step, int) else 0, said, changed))
    return found


#: What is in a name where results differ in it.
FURTHER: dict[str, Callable[[Result], str]] = {
    "data": lambda r: str(r.data["uri"]),
    "samples": lambda r: f"n{r.data.get('samples')}",
    "seed": lambda r: f"seed{r.seed}",
}


def _parts(result: Result, differing: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the parts of a name as they are, and as they are shown: of paths the last part."""
    model, further = series_label(result), [FURTHER[title](result) for title in differing]
    rest = (str(result.group["name"]), str(result.tap["name"]), result.variant)
    shown = model if result.model.get("name") else _last(model)
    return (model, *further, *rest), (shown, *map(_last, further), *rest)


def _last(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name or path


def series_label(result: Result) -> str:
    """Return what all checkpoints of one training have in common: family and seed, else the name without the step."""
    model = result.model
    family, seed, step = (model.get(k) for k in ("family", "seed", "step"))
    if step is None:
        return result.label
    if family is not None:
        return str(family) if seed is None else f"{family}-seed{seed}"
    name = re.sub(rf"(?<!\d)0*{re.escape(str(step))}(?!\d)", "", result.label)
    return re.sub(r"[-_@. ]+(?=$|\.onnx$)", "", name) or result.label


def component(text: str) -> str:
    """Return one part of a metric's name as every MLflow allows it: ASCII letters, digits, `_`, `-`, `.`, spaces."""
    plain = re.sub(r"[^A-Za-z0-9_.\- ]", "_", re.sub(r"[/:\\]+", ".", text)).strip(" .")
    return plain or "_"


def _key(name: str) -> str:
    """Return what names must differ in: some databases see no case, and a suffix must not make another's name."""
    key = name.lower()
    while (suffix := next((s for s in SUFFIXES if s and key.endswith(s)), None)) is not None:
        key = key.removesuffix(suffix)
    return key
