"""A session over an ONNX file in ONNX Runtime, on the provider that was asked for or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from geed_onnx.errors import ModelError, OutOfMemory, SessionError, UsageError
from geed_onnx.sessions.providers import CPU, CUDA, not_obtained, resolve_provider
from geed_onnx.sessions.session import Array, SessionFacts
from geed_onnx.taps import Graph, Port, Tap, exposed

#: Batches run at once on a CPU; each holds a micro-batch in memory.
MOST_WORKERS = 4
#: How far a batch may differ from single images before it is taken for another computation, relative to the largest.
BATCH_TOLERANCE = {"float16": 3e-2}
DEFAULT_BATCH_TOLERANCE = 1e-3

if TYPE_CHECKING:
    from onnx import ModelProto

_NO_MEMORY = ("bad_alloc", "failed to allocate memory", "out of memory", "cudaerrormemoryallocation", "bad allocation")


@dataclass(frozen=True)
class RuntimeOptions:
    """How a file is to be run."""

    provider: str = "auto"
    threads: int | None = None
    """None: every core this process may use"""
    tf32: bool = False
    optimise: bool = True
    """whether ONNX Runtime may rewrite the graph; where it is quantised, it never may"""
    spinning: bool = False
    """whether ONNX Runtime's threads busy-wait between runs: they then take the cores from NumPy"""
    layout: str | None = None
    """NCHW or NHWC, for maps whose layout the graph does not tell"""
    constants: Mapping[str, Array] = field(default_factory=dict)
    """the inputs the group does not act on; a leading batch axis is filled to the batch"""


def open_session(
    graph: Graph, taps: Sequence[Tap], image: Port, options: RuntimeOptions = RuntimeOptions()
) -> OnnxSession:
    """Return a session that draws off `taps`, on the provider asked for.

    A fixed batch is made dynamic only if the result is the same as for single images (tried on the first real batch);
    else the file is run image by image.

    Raises
    ------
    ProviderError
        If the provider is not there or is not obtained.
    UsageError
        If an input is left without a value.
    SessionError
        If ONNX Runtime refuses the file.
    """
    # taps in the first layers may not need the other inputs at all
    model = exposed(graph, list(dict.fromkeys(t.name for t in taps)))
    needed = {v.name for v in model.graph.input}
    others = [p for p in graph.inputs if p.name != image.name and (p.name in needed or p.name in options.constants)]
    constants = _constants(others, options.constants, image)
    for tap in taps:
        if tap.kind == "map" and tap.layout is None and options.layout is None:
            raise ModelError(
                f"the graph does not tell whether the map {tap.name!r} is NCHW or NHWC; add --layout NCHW or"
                " --layout NHWC, or leave it out with --tap"
            )
    return OnnxSession(graph, tuple(taps), image, options, constants, model)


def _constants(others: Sequence[Port], given: Mapping[str, Array], image: Port) -> dict[str, Array]:
    for name in given:
        if name not in {p.name for p in others}:
            known = ", ".join(repr(p.name) for p in others) or "none"
            raise UsageError(f"--constant {name}: the file has no further input of that name (others: {known})")
    missing = [p for p in others if p.name not in given]
    if missing:
        listed = ", ".join(f"{p.name} ({p.dtype}{list(p.shape)})" for p in missing)
        raise UsageError(
            f"the model has inputs beside {image.name!r}, and the group acts on that one only; give the others"
            f" constants: {' '.join(f'--constant {p.name}=VALUE' for p in missing)} (a number or a .npy file);"
            f" they are {listed}"
        )
    return {p.name: _shaped(p, np.asarray(given[p.name])) for p in others}


def _shaped(port: Port, value: Array) -> Array:
    """Return a constant in the port's type and rank; a scalar fills the whole shape, open axes taken as 1."""
    shape = tuple(d if isinstance(d, int) else 1 for d in port.shape)
    cast = value.astype(port.dtype)
    if value.ndim == 0 and shape:
        return np.full(shape, cast)
    if cast.ndim != len(shape):
        raise UsageError(f"--constant {port.name}: expected {list(port.shape)}, got an array of shape {value.shape}")
    return cast


class OnnxSession:
    """One ONNX Runtime session with its taps as outputs; see `open_session`."""

    def __init__(
        self,
        graph: Graph,
        taps: tuple[Tap, ...],
        image: Port,
        options: RuntimeOptions,
        constants: dict[str, Array],
        model: ModelProto,
    ) -> None:
        self._graph, self._taps, self._image, self._options = graph, taps, image, options
        self._constants = constants
        self._names = list(dict.fromkeys(t.name for t in taps))
        self._provider = resolve_provider(options.provider)
        self._quantised = any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in graph.model.graph.node)
        self._fixed = next((n for n in image.shape[:1] if isinstance(n, int)), None)
        self._session = self._open(model)
        self._inputs = frozenset(i.name for i in self._session.get_inputs())
        self._batching = "dynamic" if self._fixed is None else "looped"
        self._verified = False
        self._lock = threading.Lock()
        self._device = threading.Lock()  # buffers are reused, and not every provider takes two passes at once
        self._buffers: dict[tuple[tuple[int, ...], str], Any] = {}
        self._notes: list[str] = []

    @property
    def facts(self) -> SessionFacts:
        """The provider obtained, versions, threads, and how batches are run."""
        import onnx
        import onnxruntime as ort

        return SessionFacts(
            provider=self._session.get_providers()[0],
            threads=self._threads_of_one,
            workers=self._workers,
            versions={"onnxruntime": ort.__version__, "onnx": onnx.__version__, "numpy": np.__version__},
            batching=self._batching,
            tf32=self._options.tf32 and self._provider == CUDA,
            optimisation=(
                "disabled (quantised graph)" if self._quantised else "all" if self._options.optimise else "disabled"
            ),
            notes=tuple(self._notes),
        )

    @property
    def _threads(self) -> int:
        if self._options.threads is not None:
            return self._options.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def _workers(self) -> int:
        """How many batches run at once: on a CPU each on threads of its own, because threads that share one pass wait
        for one another; elsewhere one on the device while NumPy works on the other."""
        return min(self._threads, MOST_WORKERS) if self._provider == CPU else 2

    @property
    def _threads_of_one(self) -> int:
        return self._threads // self._workers if self._provider == CPU else self._threads

    def run(self, x: Array) -> dict[str, Array]:
        """Run one batch `(B, …)` of model inputs; returns every tap, maps as NCHW, half precision as float32.

        Several threads may call it at once.
        """
        if not self._verified:
            with self._lock:
                known = None if self._verified else self._verify(x)
            if known is not None:
                return self._canonical(known)
        return self._canonical(self._looped(x) if self._batching == "looped" else self._raw(self._session, x))

    # --- batches ------------------------------------------------------------------------------------------------

    def _looped(self, x: Array) -> list[Array]:
        """Run in pieces of the file's fixed batch (1 for a dynamic file that mixes images); the last is padded."""
        size = self._fixed or 1
        pieces: list[list[Array]] = []
        for start in range(0, len(x), size):
            rows = x[start : start + size]
            short = size - len(rows)
            padded = np.concatenate([rows, np.repeat(rows[-1:], short, axis=0)]) if short else rows
            pieces.append([y[: len(rows)] for y in self._checked(self._raw(self._session, padded), size)])
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    def _checked(self, outputs: list[Array], size: int) -> list[Array]:
        for name, y in zip(self._names, outputs, strict=True):
            if y.shape[:1] != (size,):
                raise SessionError(
                    f"the tensor {name!r} came as {y.shape} for a batch of {size}: its first axis is not the batch, so"
                    " it cannot be tapped; choose another with --tap"
                )
        return outputs

    def _probe(self, x: Array) -> Array:
        """Return two rows that differ from one another, in the range of the data: a mix-up of images then shows."""
        rows = x[[0, len(x) - 1]]
        if not np.array_equal(rows[0], rows[1]):
            return rows
        if rows.dtype.kind == "f":
            faded: Array = (rows * np.random.default_rng(0).uniform(0.5, 1.0, size=rows.shape)).astype(x.dtype)
            return faded
        shifted: Array = np.stack([np.roll(row, i + 1, axis=-1) for i, row in enumerate(rows)])
        return shifted

    def _same(self, batch: list[Array], single: list[Array]) -> bool:
        def alike(a: Array, b: Array) -> bool:
            a64, b64 = a.astype(np.float64), b.astype(np.float64)
            # NaN and Inf are the engine's to report; here they must not widen the tolerance, nor count as a mix-up
            largest = np.abs(b64[np.isfinite(b64)]).max(initial=0.0)
            tolerance = BATCH_TOLERANCE.get(b.dtype.name, DEFAULT_BATCH_TOLERANCE) * max(largest, 1e-6)
            return a.shape == b.shape and np.allclose(a64, b64, rtol=0, atol=tolerance, equal_nan=True)

        return all(alike(a, b) for a, b in zip(batch, single, strict=True))

    def _verify(self, x: Array) -> list[Array] | None:
        """Settle how batches are run, on the first real batch that the file's own does not hold; its outputs if known.

        A fixed batch is made dynamic if that changes nothing: some files silently compute something else then. A batch
        that is free must give what single images give: a Reshape may hold the batch the file was made with.
        """
        if len(x) <= (self._fixed or 1):
            return None
        probe = self._probe(x)
        single = self._looped(probe)
        why = "a batch gives other values than its images one by one"
        try:
            candidate = self._session
            if self._fixed is not None:
                candidate = self._open(exposed(self._graph, self._names, batch="dynamic"))
            batch = self._raw(candidate, probe)
            if self._same(batch, single):
                self._session, self._verified = candidate, True
                self._batching = "dynamic" if self._fixed is None else "rewritten"
                return batch if self._fixed is None and np.array_equal(x, probe) else None
        except OutOfMemory:
            raise
        except (SessionError, ModelError):  # a graph that holds its batch in a Reshape, say: the loop serves
            why = "it does not run on more than one image"
        self._batching, self._verified = "looped", True
        self._notes.append(
            f"the file says its batch is free, but {why}: run image by image"
            if self._fixed is None
            else f"the file's batch is fixed at {self._fixed} and cannot be changed: run piece by piece"
        )
        return None

    # --- ONNX Runtime -------------------------------------------------------------------------------------------

    def _open(self, model: ModelProto) -> Any:
        import onnxruntime as ort

        if self._provider == CUDA and hasattr(ort, "preload_dlls"):
            with _hushed(ort, self._provider):
                ort.preload_dlls()
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self._threads_of_one
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4
        settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(self._options.spinning)))
        if self._quantised or not self._options.optimise:
            # fusing around Q/DQ moves the exposed tensors by up to 1.5 % between optimisation levels
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if self._graph.external:
            folder = str(self._graph.path.resolve().parent)
            settings.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        provider: Any = self._provider
        if provider == CUDA:
            provider = (CUDA, {"use_tf32": str(int(self._options.tf32))})
        try:
            with _hushed(ort, self._provider):
                session = ort.InferenceSession(model.SerializeToString(), settings, providers=[provider])
        except Exception as error:  # ONNX Runtime raises its own tree, some of it plain Exception
            raise _translated(error, f"ONNX Runtime cannot open {str(self._graph.path)!r}") from error
        obtained = session.get_providers()
        if obtained[0] != self._provider:
            raise not_obtained(self._provider, obtained)
        session.disable_fallback()  # else a pass that fails on the device is run again on the CPU, and nobody told
        return session

    def _feed(self, x: Array) -> dict[str, Array]:
        feed = {self._image.name: np.ascontiguousarray(x)}
        for name, value in self._constants.items():
            if name not in self._inputs:
                continue
            first = next(p for p in self._graph.inputs if p.name == name).shape[:1]
            open_batch = bool(first) and not isinstance(first[0], int)
            fills = open_batch and len(value) == 1 and first == self._image.shape[:1]
            feed[name] = np.repeat(value, len(x), axis=0) if fills else value
        return feed

    def _raw(self, session: Any, x: Array) -> list[Array]:
        try:
            with nullcontext() if self._provider == CPU else self._device:
                run = self._bound if self._provider == CUDA else self._plain
                return run(session, x)
        except MemoryError as error:
            raise OutOfMemory(f"a batch of {len(x)} does not fit into memory") from error
        except Exception as error:
            raise _translated(error, f"ONNX Runtime failed on a batch of shape {x.shape}") from error

    def _plain(self, session: Any, x: Array) -> list[Array]:
        return list(session.run(self._names, self._feed(x)))

    def _bound(self, session: Any, x: Array) -> list[Array]:
        """Run with I/O binding: one input buffer on the device per shape, refilled; outputs stay there until copied."""
        import onnxruntime as ort

        binding = session.io_binding()
        for name, value in self._feed(x).items():
            key = (value.shape, f"{name}:{value.dtype}")
            if key in self._buffers:
                self._buffers[key].update_inplace(value)
            else:
                self._buffers[key] = ort.OrtValue.ortvalue_from_numpy(value, "cuda", 0)
            binding.bind_ortvalue_input(name, self._buffers[key])
        for name in self._names:
            binding.bind_output(name, "cuda", 0)
        session.run_with_iobinding(binding)
        outputs: list[Array] = binding.copy_outputs_to_cpu()
        return outputs

    def _canonical(self, outputs: list[Array]) -> dict[str, Array]:
        """Bring NHWC maps to NCHW, (B, C, 1, 1) vectors to (B, C), half precision to float32."""
        by_name = dict(zip(self._names, outputs, strict=True))
        return {t.name: _canonical(by_name[t.name], t, self._options.layout) for t in self._taps}


@contextmanager
def _hushed(ort: Any, provider: str) -> Iterator[None]:
    """Keep what ONNX Runtime prints about a provider that does not load off stdout (and its log off stderr)."""
    if provider == CPU:
        yield
        return
    ort.set_default_logger_severity(4)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        ort.set_default_logger_severity(2)  # ONNX Runtime's own default, which it does not let one ask for


def _canonical(y: Array, tap: Tap, layout: str | None) -> Array:
    if y.dtype.kind != "f":
        raise SessionError(f"the tensor {tap.name!r} holds {y.dtype}, not floating-point values; tap another")
    if y.dtype.itemsize < 4:
        y = y.astype(np.float32)
    if tap.kind == "map":
        if y.ndim != 4:
            raise SessionError(f"the tensor {tap.name!r} came as {y.shape}; a map has four axes: use {tap.name}:vector")
        if (tap.layout or layout) == "NHWC":
            y = np.ascontiguousarray(np.moveaxis(y, 3, 1))
        return y
    if y.ndim > 2:
        y = y.reshape(y.shape[0], *(d for d in y.shape[1:] if d != 1))
    return y[:, None] if y.ndim == 1 else y


def _translated(error: Exception, context: str) -> SessionError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if any(mark in str(error).lower() for mark in _NO_MEMORY):
        return OutOfMemory(f"{context}: out of memory ({text[:160]})")
    return SessionError(f"{context}: {text[:300]}")
