"""What the tests of batches share: tiny networks and images on disk, suites over them, a run's folder as bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_nets as nets

from geed_onnx.batch import Ran, Watcher, run_suite
from geed_onnx.requests import Data, Model, Runtime, Settings, of_fields
from geed_onnx.results import DEVIATIONS, JACKKNIFE, RESULTS
from geed_onnx.suites import Suite

FILES = (RESULTS, DEVIATIONS, JACKKNIFE)


def desk(folder: Path, models: int = 3, images: int = 24, size: int = 12) -> Path:
    """Write `net0.onnx` … and `images.npy` into a folder."""
    for i in range(models):
        onnx.save(nets.cnn(size=size, channels=(2, 3), classes=4, seed=i), str(folder / f"net{i}.onnx"))
    np.save(folder / "images.npy", np.random.default_rng(0).random((images, 1, size, size)).astype(np.float32))
    return folder


def suite(
    folder: Path,
    models: Sequence[str | Model] = ("net0", "net1", "net2"),
    groups: Sequence[str] = ("C4", "flip"),
    samples: Sequence[Any] = (6,),
    **measure: Any,
) -> Suite:
    """A suite over what `desk` wrote."""
    entries = [m if isinstance(m, Model) else Model(str(folder / f"{m}.onnx"), m) for m in models]
    return Suite(
        path=str(folder / "suite.toml"),
        title="tiny",
        models=tuple(entries),
        data=(Data(str(folder / "images.npy"), "images"),),
        groups=tuple(groups),
        samples=tuple(samples),
        seeds=(0,),
        settings=of_fields(Settings, measure),
        runtime=of_fields(Runtime, {"threads": 1, "provider": "cpu", **measure}),
    )


class Log(Watcher):
    """Remembers what a run said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.cells: list[Any] = []
        self.counted = 0
        super().__init__(cell=self.cells.append, note=self.notes.append, passes=self._count)

    def _count(self, passes: int) -> None:
        self.counted += passes


def ran(asked: Suite, output: Any, **options: Any) -> tuple[Ran, Log]:
    log = Log()
    return run_suite(asked, str(output), watcher=log, **options), log


def contents(folder: Path) -> dict[str, bytes]:
    """The files that hold results, as bytes."""
    return {name: (folder / name).read_bytes() for name in FILES}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / RESULTS).read_text(encoding="utf-8").splitlines()]
