"""What the findings on robustness ask of results: the cell of a table's row, its draws, its models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from experiments.findings.evidence import Evidence
from experiments.findings.finding import joined
from geed_onnx.errors import DataError
from geed_onnx.estimators import Estimate
from geed_onnx.results import Result

K = TypeVar("K")


class Cell(NamedTuple):
    """What one row of a table is of."""

    family: str
    tap: str
    variant: str

    def __str__(self) -> str:
        """Return `block1 of the CNN`; of a tap that is no map the variant says more than the tap."""
        return f"{self.tap if self.variant == 'channelwise' else self.variant} of the {self.family}"


def cells(found: Evidence) -> list[Cell]:
    """Return what was measured, in the order of the suite.

    Raises
    ------
    DataError
        If there is no result.
    """
    if not found.results:
        raise DataError(f"{found.name}: no result; measure the suite again")
    return list(
        dict.fromkeys(
            Cell(str(r.model.get("family")), str(r.tap.get("module") or r.tap["name"]), r.variant)
            for r in found.results
        )
    )


def drawn(found: Evidence, cell: Cell, samples: int | None = None) -> dict[int, Result]:
    """Return the results of one network by the seed of the draw.

    Raises
    ------
    DataError
        If there are fewer than two, two are of one draw, or one has no value or no interval.
    """
    results = found.ask(**cell._asdict(), samples=samples)
    where = f"{found.name}: {cell}" + (f", {samples} images" if samples else "")
    if len(results) < 2:
        raise DataError(f"{where}: expected several draws, got {len(results)} results; measure the suite again")
    if len({r.seed for r in results}) < len(results):
        raise DataError(f"{where}: expected one result a draw, got two of one seed")
    for r in results:
        if r.value is None or r.low is None or r.high is None:
            raise DataError(f"{where}: draw {r.seed} has no value with an interval: {r.reason}")
    return {r.seed: r for r in sorted(results, key=lambda r: r.seed)}


def taken(found: Evidence, cell: Cell, what: Callable[[Result], float]) -> dict[int, float]:
    """Return a number that is made of each model's result, by the model's seed.

    Raises
    ------
    DataError
        If there is no result, two are of one seed, or one has no value.
    """
    seeds = found.values(**cell._asdict())
    by_seed = {int(r.model["seed"]): what(r) for r in found.ask(**cell._asdict())}
    return {s: by_seed[s] for s in seeds}


def given(value: float | None, what: str, r: Result) -> float:
    """Return a field of a result.

    Raises
    ------
    DataError
        If there is none; its reason is said.
    """
    if value is None:
        raise DataError(f"{r.label}, {r.tap['name']}, {r.variant}: no {what}: {r.reason or r.calibrated_reason}")
    return value


def above_optimum(r: Result, value: float | None, what: str) -> float:
    """Return how far a number is from that of an exactly equivariant network."""
    return given(value, what, r) - given(r.optimum, "optimum", r)


def quotient(a: float, b: float, what: object) -> float:
    """Return a / b.

    Raises
    ------
    DataError
        If b is 0.
    """
    if b == 0:
        raise DataError(f"{what}: expected a number to compare with, got 0")
    return a / b


def same_order(several: Iterable[tuple[float, float]]) -> bool:
    """Say whether the same one of two is the larger, every time."""
    return len({a > b for a, b in several}) == 1


def furthest(estimates: Mapping[K, Estimate]) -> K:
    """Return the key of the value that is furthest from 0."""
    return max(estimates, key=lambda k: abs(estimates[k].value))


def told(e: Estimate) -> bool:
    """Say whether the interval leaves out 0."""
    return e.low is not None and e.high is not None and (e.low > 0 or e.high < 0)


def named(some: Sequence[Cell]) -> str:
    """Return `latent-l2 of the CNN and softmax of the CNN`."""
    return joined([str(c) for c in some])
