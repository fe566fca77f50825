"""Results of a suite, asked by family, tap and variant; intervals over models by geed-onnx's own estimators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.measure import kept
from geed_onnx.errors import DataError
from geed_onnx.estimators import Estimate, over_models, paired_by_model, welch
from geed_onnx.results import Result, read_results

LEVEL = 0.95
On = Literal["value", "calibrated"]
SCALES: tuple[On, On] = ("value", "calibrated")
#: {seed of the model: its number}
Values = Mapping[int, float]


@dataclass(frozen=True)
class Question:
    """Which results: everything that is not None must agree."""

    family: str | None = None
    tap: str | None = None
    """Name or module path."""
    variant: str | None = None
    step: int | None = None
    data: str | None = None
    """Name in the suite."""
    group: str | None = None
    samples: int | None = None
    seed: int | None = None
    """Of the draw of images."""

    def meets(self, r: Result) -> bool:
        """Say whether a result is one of those that are asked for."""
        found = {
            "family": r.model.get("family"),
            "variant": r.variant,
            "step": r.model.get("step"),
            "data": r.data.get("name"),
            "group": r.group["name"],
            "samples": r.samples,
            "seed": r.seed,
        }
        own = all(getattr(self, k) is None or getattr(self, k) == v for k, v in found.items())
        return own and self.tap in (None, r.tap["name"], r.tap.get("module"))


@dataclass(frozen=True)
class Evidence:
    """The results of one suite."""

    name: str
    results: tuple[Result, ...]

    def ask(self, **asked: Any) -> tuple[Result, ...]:
        """Return the results that a `Question` of these fields meets."""
        question = Question(**asked)
        return tuple(r for r in self.results if question.meets(r))

    def values(self, on: On = "value", **asked: Any) -> dict[int, float]:
        """Return the number of each model by the model's seed.

        Raises
        ------
        DataError
            If there is none, two results are of one seed, or one has no such number; its reason is said.
        """
        found: dict[int, float] = {}
        for r in self.ask(**asked):
            seed, value = int(r.model["seed"]), getattr(r, on)
            if seed in found:
                raise DataError(f"{self.name}: two results of seed {seed} for {asked}; ask for one of them")
            if value is None:
                raise DataError(f"{self.name}: {r.label} has no {on} for {asked}: {r.reason or r.calibrated_reason}")
            found[seed] = value
        if not found:
            raise DataError(f"{self.name}: no result for {asked}")
        return dict(sorted(found.items()))

    def steps(self, family: str) -> list[int]:
        """Return the training steps at which a family was measured."""
        return sorted({int(r.model["step"]) for r in self.ask(family=family) if r.model.get("step") is not None})

    def order(self, what: Literal["data", "family"], **asked: Any) -> list[str]:
        """Return the names of data sets (`data`) or families (`family`), in the order of the suite."""
        some = self.ask(**asked)
        return list(dict.fromkeys(str(r.data.get("name") if what == "data" else r.model.get("family")) for r in some))


def mean(values: Values) -> Estimate:
    """Return the mean over models with Student's t interval."""
    return over_models(list(values.values()), LEVEL)


def gap(a: Values, b: Values) -> Estimate:
    """Return mean(a) − mean(b) of two families of networks that have nothing in common, with Welch's interval."""
    return welch(list(a.values()), list(b.values()), LEVEL)


def change(later: Values, earlier: Values) -> Estimate:
    """Return the mean change within each model, with Student's t interval over models.

    Raises
    ------
    DataError
        If the two are not of the same seeds.
    """
    if set(later) != set(earlier):
        raise DataError(f"a change within models needs the same seeds: {sorted(later)} and {sorted(earlier)}")
    return paired_by_model([later[s] for s in later], [earlier[s] for s in later], LEVEL)


def averaged(several: Sequence[Values]) -> dict[int, float]:
    """Return each model's mean over several numbers (data sets, taps), by seed."""
    return {s: sum(v[s] for v in several) / len(several) for s in several[0]}


def evidence(suite: str, work: Path | None = None) -> Evidence:
    """Return the results of a suite: those in the repository, or those of a work folder.

    Raises
    ------
    DataError
        If there are none, or one of them failed.
    """
    path = kept(suite, work)
    if not path.is_file():
        raise DataError(f"{suite} was not measured: expected {path}; run python -m experiments.measure {suite}")
    results = tuple(read_results(path))
    failed = [r for r in results if r.failed]
    if failed:
        raise DataError(f"{path}: {failed[0].label} could not be measured: {failed[0].reason}")
    return Evidence(suite, results)


def said(e: Estimate, digits: int = 3) -> str:
    """Return `value [low, high]`."""
    if e.low is None or e.high is None:
        return number(e.value, digits)
    return f"{number(e.value, digits)} [{number(e.low, digits)}, {number(e.high, digits)}]"


def number(value: float, digits: int = 3) -> str:
    """Return a number with a minus sign that is one, small ones in powers of ten."""
    text = f"{value:.{digits}f}" if value == 0 or abs(value) >= 0.5 * 10**-digits else f"{value:.1e}"
    return text.replace("-", "−")


def above(e: Estimate) -> bool:
    """Say whether the whole interval lies above 0."""
    return e.low is not None and e.low > 0


def below(e: Estimate) -> bool:
    """Say whether the whole interval lies below 0."""
    return e.high is not None and e.high < 0
