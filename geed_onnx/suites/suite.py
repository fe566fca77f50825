"""A suite as it was meant: frozen data, every default filled in, every glob resolved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from geed_onnx.gates import Threshold

if TYPE_CHECKING:
    from geed_onnx.actions import Interpolation, Mask

SUITE_SCHEMA = "geed-suite/1"


@dataclass(frozen=True)
class ModelEntry:
    """One ONNX file of a suite."""

    path: str
    """as it is opened: relative to the working directory, absolute, or a remote address that fsspec knows"""
    name: str
    """unique in the suite"""
    family: str | None = None
    """models of one family are copies of one another but for chance (seeds): they get an interval over models"""
    seed: int | None = None
    """which copy of its family"""
    step: int | None = None
    """training step of a checkpoint"""
    taps: tuple[str, ...] | None = None
    """None: the default choice"""
    acts: Mapping[str, str] = field(default_factory=dict)
    declared_action: bool = True
    scores: Mapping[str, str] = field(default_factory=dict)
    """{tap: `logits` or `probabilities`}"""
    input: str | None = None
    layout: str | None = None
    constants: Mapping[str, float | str] = field(default_factory=dict)
    """a number, or the path of a .npy file"""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataEntry:
    """One data set of a suite."""

    source: str
    """an address as `--data` takes it"""
    name: str
    column: str | None = None
    skip_bad: bool = False
    streaming: bool | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    cluster: str | None = None
    """what names each image's cluster, as `--cluster` takes it"""


@dataclass(frozen=True)
class MeasureEntry:
    """The numbers of all measurements of a suite."""

    variants: tuple[str, ...] | None = None
    spread_samples: int | None = None
    reference_samples: int | None = None
    level: float = 0.95
    floor: bool = False
    mask: Mask = "auto"
    batch_size: int | None = None
    provider: str = "auto"
    threads: int | None = None
    tf32: bool = False
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True)
class Job:
    """One model, data set, group, sample: what one set of forward passes serves."""

    model: ModelEntry
    data: DataEntry
    group: str
    samples: int | Literal["all"] | None
    """None: 50, or as many as there are"""
    seed: int
    measure: MeasureEntry


@dataclass(frozen=True)
class Suite:
    """Everything that `geed-onnx run` is asked for."""

    path: str = field(compare=False)
    """the file it was read from; the same suite may be read from another"""
    title: str
    models: tuple[ModelEntry, ...]
    data: tuple[DataEntry, ...]
    groups: tuple[str, ...]
    samples: tuple[int | Literal["all"] | None, ...]
    seeds: tuple[int, ...]
    measure: MeasureEntry
    thresholds: tuple[Threshold, ...] = ()
    baseline: str | None = None
    """folder or file of results that relative thresholds are held against"""
    output: str | None = None

    def jobs(self) -> Iterator[Job]:
        """Yield every job, in the order of models, data, groups, samples, seeds."""
        for model, data, group, samples, seed in product(self.models, self.data, self.groups, self.samples, self.seeds):
            yield Job(model, data, group, samples, seed, self.measure)
