"""A model opened on its data: what does not depend on the group, the variants or the sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from geed_onnx.engine.feeding import Feed, first_raw, prepare_file
from geed_onnx.engine.targets import Target, callable_targets, targets_of
from geed_onnx.errors import MeasureError, OutOfMemory, UsageError
from geed_onnx.requests import Constant, Data, Model, Request, Runtime
from geed_onnx.sessions import CallableSession, RuntimeOptions, Session
from geed_onnx.sources import Source, open_source

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Opened:
    """A model that runs on some data."""

    connect: Callable[[], Session]
    """opens the session, which takes longest: so it is the last thing that is asked for"""
    model: Mapping[str, Any]
    source: Source
    feed: Feed
    shape: tuple[int, ...]
    """of what the group acts on"""
    targets: tuple[Target, ...]
    explicit: bool
    """whether the taps were named by the user: then one that cannot be measured is an error, not a row with a reason"""
    metadata: Mapping[str, str] = field(default_factory=dict)
    input: str | None = None
    """the model's input that the group acts on"""
    constants: Mapping[str, Array] = field(default_factory=dict)
    """what the other inputs are given"""
    notes: tuple[str, ...] = ()

    @cached_property
    def session(self) -> Session:
        """The session, opened when it is first asked for."""
        return self.connect()


def open_model(request: Request, source: Source | None = None, path: str | None = None) -> Opened:
    """Open the model of a request on its data.

    `source` stands for the data where they are open already, `path` for the model's where a copy of it lies elsewhere.
    """
    if isinstance(request.model.path, str):
        return _open_file(request, source, path or request.model.path)
    return _open_callable(request.model, source or open_data(request.data))


def open_data(data: Data) -> Source:
    """Return the images of a request."""
    if not isinstance(data.source, str):
        found: Source = data.source
        return found
    return open_source(data.source, column=data.column, skip_bad=data.skip_bad, streaming=data.streaming)


def runtime_options(model: Model, runtime: Runtime) -> RuntimeOptions:
    """Return how a session is to run a model.

    Raises
    ------
    UsageError
        If a constant's file cannot be read.
    """
    constants = {name: _constant(name, value) for name, value in model.constants.items()}
    return RuntimeOptions(runtime.provider, runtime.threads, runtime.tf32, layout=model.layout, constants=constants)


def _constant(name: str, value: float | str | Constant) -> Array:
    if isinstance(value, Constant):
        return np.asarray(value.array)
    if not isinstance(value, str):
        return np.asarray(value)
    try:
        found: Array = np.load(value, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"constant {name!r}: expected a number or a .npy file with an array, got {value!r} ({error})"
        ) from None
    return found


def _open_file(request: Request, source: Source | None, path: str) -> Opened:
    from geed_onnx.sessions import open_session
    from geed_onnx.taps import choose_taps, declaration_problems, file_sha256, read_graph, resolve_taps

    asked, options = request.model, runtime_options(request.model, request.runtime)
    # before the data, because the model is named first
    graph = read_graph(path)
    flags = {**request.data.preprocessing, **asked.preprocessing}
    file, source = prepare_file(
        graph, source or open_data(request.data), input=asked.input, layout=asked.layout, flags=flags
    )
    name = file.port.name
    taps = resolve_taps(file.graph, asked.taps, input=name) if asked.taps else choose_taps(file.graph, input=name)
    if not taps:
        raise MeasureError(
            f"{path}: no stage, latent or scores were found in the graph; name tensors with --tap"
            " (geed-onnx taps lists them)"
        )
    known = {"path": asked.path, "sha256": file_sha256(file.graph), "producer": file.graph.producer}
    return Opened(
        connect=lambda: open_session(file.graph, taps, file.port, options),
        model=known | asked.called,
        source=source,
        feed=file.feed,
        shape=file.shape,
        targets=targets_of(taps, asked.layout),
        explicit=asked.taps is not None,
        metadata=file.graph.metadata,
        input=name,
        constants=options.constants,
        notes=tuple(declaration_problems(file.graph)),
    )


def _open_callable(asked: Model, source: Source) -> Opened:
    """Open a Session, or a Python callable as one."""
    model = asked.path
    if not hasattr(model, "run"):
        if not callable(model):
            raise UsageError(f"model: expected a path, a Session or a callable, got {type(model).__name__}")
        model = CallableSession(model, getattr(model, "__name__", "callable"))
    if not source.as_is:
        raise UsageError("a model that is no file has no declared input: give arrays that are its input")
    raw = first_raw(source)
    feed = Feed(None, asked.layout, raw.dtype.name)
    first = feed.prepare(raw)
    try:
        outputs = model.run(feed.model_input(first[None]))
    except MemoryError as error:
        raise OutOfMemory(f"not even one row fits into memory ({error})") from error
    return Opened(
        connect=lambda: model,
        model={"path": None, "sha256": None, "producer": model.facts.provider} | asked.called,
        source=source,
        feed=feed,
        shape=first.shape,
        targets=callable_targets(outputs, asked.taps),
        explicit=asked.taps is not None,
    )
