"""The seam: what the engine asks of anything that runs a model, and the session over a plain Python callable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from geed_onnx.errors import SessionError
from geed_onnx.registry import Registry

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SessionFacts:
    """What a session really is, for the record."""

    provider: str
    """the execution provider *obtained*, such as `CPUExecutionProvider`"""
    threads: int = 1
    """of one forward pass"""
    workers: int = 1
    """how many batches may be run at once, each on `threads` threads"""
    versions: Mapping[str, str] | None = None
    batching: str = "dynamic"
    """dynamic; rewritten (a fixed batch made dynamic, verified against single images); looped"""
    tf32: bool = False
    optimisation: str = "all"
    notes: tuple[str, ...] = ()

    @property
    def on_device(self) -> bool:
        """Whether an accelerator runs it."""
        return self.provider.endswith("ExecutionProvider") and self.provider != "CPUExecutionProvider"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


class Session(Protocol):
    """Maps a batch of model inputs `(B, …)` to `{tap: (B, …)}`; maps come as NCHW, floats as float32 or float64."""

    @property
    def facts(self) -> SessionFacts:
        """What it runs on; complete after the first run."""
        ...

    def run(self, x: Array) -> dict[str, Array]:
        """Run one batch.

        Raises
        ------
        SessionError
            If the model does not run on this batch.
        OutOfMemory
            If it does not fit; a smaller batch may.
        """
        ...


@dataclass(frozen=True)
class CallableSession:
    """A session over a Python callable `(B, C, H, W) -> {tap: (B, …)}` (or one array, called `output`).

    For tests, and for models that are no file. The callable is given float arrays and must keep the batch first.
    """

    function: Callable[[Array], Mapping[str, Array] | Array]
    name: str = "callable"

    @property
    def facts(self) -> SessionFacts:
        """A Python callable on the CPU."""
        return SessionFacts(provider=f"python:{self.name}", versions={"numpy": np.__version__})

    def run(self, x: Array) -> dict[str, Array]:
        """Call the function and check that every output keeps the batch."""
        out = self.function(x)
        named = {"output": out} if isinstance(out, np.ndarray) else dict(out)
        for name, value in named.items():
            if not isinstance(value, np.ndarray) or value.shape[:1] != x.shape[:1]:
                got = value.shape if isinstance(value, np.ndarray) else type(value).__name__
                raise SessionError(f"{self.name}: expected {name!r} as an array of {len(x)} rows, got {got}")
        return named


sessions: Registry[str] = Registry("sessions", "session")
sessions.register("onnxruntime", "an ONNX file in ONNX Runtime, on any of its execution providers")
sessions.register("callable", "a Python callable (from Python only): CallableSession(f)")
