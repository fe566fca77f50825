"""A suite as it was meant: frozen data, every default filled in, every glob resolved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

from geed_onnx.gates import Threshold
from geed_onnx.requests import Data, Model, Request, Runtime, Settings

SUITE_SCHEMA = "geed-suite/1"


@dataclass(frozen=True)
class Suite:
    """Everything that `geed-onnx run` is asked for."""

    path: str = field(compare=False)
    """the file it was read from; the same suite may be read from another"""
    title: str
    models: tuple[Model, ...]
    data: tuple[Data, ...]
    groups: tuple[str, ...]
    samples: tuple[int | Literal["all"] | None, ...]
    seeds: tuple[int, ...]
    settings: Settings = field(default_factory=Settings)
    """of all jobs, but for samples and seed"""
    runtime: Runtime = field(default_factory=Runtime)
    thresholds: tuple[Threshold, ...] = ()
    baseline: str | None = None
    """folder or file of results that relative thresholds are held against"""
    output: str | None = None

    def jobs(self) -> Iterator[Request]:
        """Yield what is asked for, job by job, in the order of models, data, groups, samples, seeds."""
        for model, data, group, samples, seed in product(self.models, self.data, self.groups, self.samples, self.seeds):
            yield Request(model, data, group, replace(self.settings, samples=samples, seed=seed), self.runtime)
