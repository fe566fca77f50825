"""Simulated coverage of the nominal 95 % intervals: `python benchmarks/coverage.py [--repeats 1000]`.

Each cell draws many samples of n images from a population whose truth is known, makes the interval as `geed-onnx` does,
and counts how often it holds the truth.  Populations are of four sorts:

- made: the deviation of an image has a shape that deviations have, from even to rare.  Images lie around centres in R⁸,
  a flip moves each by as much as it deviates, and the null has partners drawn anew;
- quotients E/M, whose M is estimated from 200 points, n of which are the sample (all of them for n = 200);
- shipped: images drawn with replacement from the 300 measured ones, and so are their partners on broken orbits;
- measured: `measure` itself on fresh images of noise, with a convolution, a latent vector and scores.

Differences and gates are tried where they are hardest, with all of the tail on one side: the other network deviates
evenly, by as much on every image.  (For the shipped networks the other one is its twin from Keras.)  The gate allows
2 % more than a baseline, and the network is at this limit: nominally 2.5 % cross.  Families are of five models that
differ from one another by a factor (standard deviation 20 %).
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from geed_onnx import Result, measure
from geed_onnx.actions import Action, on_logs, output_action
from geed_onnx.engine import plan_of
from geed_onnx.engine.passes import Runner, batch_of
from geed_onnx.engine.plan import reference_blocks
from geed_onnx.estimators import (
    Broken,
    Change,
    Deviations,
    Spread,
    Tables,
    calibrated,
    difference,
    hull,
    normalisers,
    over_models,
    spread,
    value_change,
    value_of,
)
from geed_onnx.gates.baseline import weighted
from geed_onnx.groups import parse_group
from geed_onnx.requests import request_of
from geed_onnx.variants import (
    Variant,
    anchored_null,
    broken_null,
    compared,
    kernel_mean,
    largest_value,
    log_probabilities,
    parse_variant,
    shifts,
)

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
SIZES = (8, 20, 50, 200)
LEVEL, POINTS, WIDTH, MODELS, WORSE = 0.95, 200, 16, 5, 1.02
#: Coverage in percent that is not named as missed.
WANTED = (92.0, 98.0)
#: The most that a gate may cross falsely, in percent; nominally half of 5.
MOST_CROSSED = 4.0
SHIPPED = Path(__file__).resolve().parent.parent / "models" / "shipped"


# ---- counting ------------------------------------------------------------------------------------------------------


@dataclass
class Count:
    """How often an interval held the truth, of how many that there were, of how many that were tried."""

    hits: int = 0
    there: int = 0
    tried: int = 0

    def add(self, hit: bool | None) -> None:
        """Count one interval; None: there is no number."""
        self.tried += 1
        if hit is not None:
            self.there += 1
            self.hits += hit

    @property
    def percent(self) -> tuple[float, float]:
        """The share in percent, and its Monte Carlo standard error."""
        p = self.hits / self.there
        # of (hits + 2)/(there + 4): no count is free of error
        q = (self.hits + 2) / (self.there + 4)
        return 100 * p, 100 * math.sqrt(q * (1 - q) / self.there)


#: {statistic: {(population, n): count}}
Counts = defaultdict[str, dict[tuple[str, int], Count]]
RAW, CALIBRATED, PAIRED = "raw value", "calibrated value", "paired difference (hull)"
GATE = "false crossings of a gate"
FAMILY, FAMILY_HERE = f"{MODELS} models, other images", f"{MODELS} models, the same images"
MEASURED, MEASURED_CALIBRATED = "`measure`, raw value", "`measure`, calibrated value"


def holds(low: float | None, high: float | None, truth: float) -> bool:
    """Say whether an interval holds the truth; an end that is not known leaves nothing out."""
    return (low is None or low <= truth) and (high is None or truth <= high)


# ---- made populations ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """Deviations `(n,)` of n images, all at least 0."""

    draw: Callable[[Rng, int], Array]
    mean: float
    largest: float = math.inf


def rarely(draw: Callable[[Rng, int], Array]) -> Callable[[Rng, int], Array]:
    """0 for all but 5 % of the images."""
    return lambda rng, n: np.where(rng.random(n) < 0.05, draw(rng, n), 0.0)


MADE = {
    "normal(1, .3)": Made(lambda r, n: np.abs(1 + 0.3 * r.standard_normal(n)), 1.0),
    "gamma(4), like ℓ2": Made(lambda r, n: r.gamma(4.0, 0.25, n), 1.0),
    "exponential, like KL": Made(lambda r, n: r.exponential(1.0, n), 1.0),
    "lognormal(.7)": Made(lambda r, n: r.lognormal(0, 0.7, n), math.exp(0.245)),
    "lognormal(1.2)": Made(lambda r, n: r.lognormal(0, 1.2, n), math.exp(0.72)),
    "|t₃|": Made(lambda r, n: np.abs(r.standard_t(3, n)), 2 * math.sqrt(3) / math.pi),
    "5 % carry it, others little": Made(
        lambda r, n: np.where(r.random(n) < 0.05, np.abs(1 + 0.3 * r.standard_normal(n)), 0.01 * r.exponential(1.0, n)),
        0.05 + 0.95 * 0.01,
    ),
    "5 % carry it, others none": Made(rarely(lambda r, n: np.abs(1 + 0.3 * r.standard_normal(n))), 0.05),
    "rare events, 0/1 on 5 %": Made(rarely(lambda r, n: np.ones(n)), 0.05, 1.0),
    "within 1e-3 of optimum": Made(lambda r, n: 1e-3 * r.random(n), 5e-4),
}


# ---- orbits whose partners are drawn anew ------------------------------------------------------------------------


@dataclass(frozen=True)
class Orbits:
    """A population of images by what a tap says of their orbits.

    Attributes
    ----------
    elements : (population, *shape) by element of the group
    largest : float
        The most that the deviation of one image can be.
    """

    elements: Sequence[Array]
    action: Action
    variant: Variant
    largest: float

    @cached_property
    def rows(self) -> Array:
        """Return the deviations (population, |G|)."""
        centre = kernel_mean(self.elements, self.action.kernel, self.variant.m.mean)
        return compared(self.elements, centre, self.action, self.variant.m, range(len(self.elements)))

    @cached_property
    def pairs(self) -> Array:
        """Return, where f̂ is f(x) alone, m(f(g x_j), ρ(g) f(x_i)) as (i, j, g)."""
        centre, order = self.elements[0], range(len(self.elements))
        found = np.empty((len(centre), len(centre), len(order)))
        for step in range(len(centre)):
            others = [np.roll(y, -step, axis=0) for y in self.elements]
            i = np.arange(len(centre))
            found[i, (i + step) % len(centre)] = compared(others, centre, self.action, self.variant.m, order)
        return found

    @cached_property
    def stacked(self) -> Array:
        """The elements as one array (|G|, population, *shape)."""
        return np.stack(self.elements)

    @property
    def anchored(self) -> bool:
        """Whether f̂ is f(x) alone."""
        return len(self.action.kernel) == 1

    def steps(self, n: int) -> tuple[int, ...]:
        """Return how far on in a block of n the partner for every element stands, as the engine has it."""
        order = len(self.elements)
        return shifts([min(g, 1) for g in range(order)] if self.anchored else range(order), n)

    def null(self, images: Array, blocks: Sequence[Sequence[int]], steps: Sequence[int] | None = None) -> Broken:
        """Return the null over a sample of the population."""
        parts = []
        for number, block in enumerate(blocks):
            inside = images[list(block)]
            of = steps or self.steps(len(block))
            if self.anchored:
                partners = inside[(np.arange(len(block))[:, None] + np.array(of)) % len(block)]
                found = anchored_null(self.pairs[inside[:, None], partners, np.arange(len(of))], of)
            else:
                found = broken_null(
                    lambda g, some, inside=inside: self.stacked[g, inside[some]],
                    len(block),
                    of,
                    self.action,
                    self.variant.m,
                    4096,
                    (number, len(blocks)),
                )
            parts.append(found)
        ids = names([i for block in blocks for i in block])
        return Broken.of(ids, *(np.concatenate(part) for part in zip(*parts, strict=True)))

    def tables(self, images: Array, *, null: bool) -> Tables:
        """Return what the numbers of a sample of the population are made of."""
        n = len(images)
        return Tables(
            Deviations(tuple(names(range(n))), self.rows[images]),
            normalisers["none"],
            self.variant.m.optimum,
            self.largest,
            null=self.null(images, reference_blocks(range(n), None, 0)) if null else None,
        )

    def expected_null(self, images: Array) -> float:
        """Return the null of partners drawn anew for every image and class of elements."""
        return self.null(images, [range(len(images))], self.steps(1 << 20)).values.mean


def names(numbers: Sequence[int]) -> list[str]:
    return [f"{i:07d}" for i in numbers]


def made_orbits(rng: Rng, sizes: Array, largest: float) -> Orbits:
    """Return images around centres in R⁸ that a flip moves by ±size along one more axis."""
    centre = rng.standard_normal((len(sizes), 8))
    signed = sizes * rng.choice([-1.0, 1.0], len(sizes))
    elements = [np.column_stack([centre, signed]), np.column_stack([centre, -signed])]
    action = output_action("trivial", parse_group("flip"), (9,))
    return Orbits(elements, action, parse_variant("vector:trivial:l2"), largest)


def shipped_orbits(name: str) -> dict[str, Orbits]:
    """Measure f(gx) of a shipped network on all images under C4, by tap."""
    taps = {"block6": "channelwise", "latent": "vector:trivial:l2", "scores": "softmax"}
    model, data = str(SHIPPED / name), str(SHIPPED / "digits-test.parquet")
    plan = plan_of(request_of(model, data, "C4", taps=list(taps), variants=list(taps.values()), samples="all"))
    images, runner = list(plan.images(plan.indices)), Runner(plan, None, 0)
    parts = [runner.orbits(batch_of(images[i : i + 50])) for i in range(0, len(images), 50)]
    found = {}
    for tap, text in taps.items():
        elements = [np.concatenate(some) for some in zip(*(part[tap] for part in parts), strict=True)]
        variant, shape = parse_variant(text), elements[0].shape[1:]
        action = output_action(variant.action, plan.group, shape)
        if tap == "scores":
            action, elements = on_logs(action), [log_probabilities(y, logits=False) for y in elements]
        largest = largest_value(variant, plan.group.order, len(action.kernel), shape[-1])
        found[tap] = Orbits(elements, action, variant, largest)
    return found


# ---- what is counted of them ---------------------------------------------------------------------------------------


def of_value(tables: Tables, truth: float) -> bool:
    found = value_of(tables, LEVEL)
    return holds(found.low, found.high, truth)


def of_calibrated(tables: Tables, truth: float, resolution: float) -> bool | None:
    found = calibrated(tables, LEVEL, resolution).estimate
    return None if found is None else holds(found.low, found.high, truth)


def of_difference(a: Change, b: Change, truth: float, n: int, room: float) -> bool:
    found = difference(a, b, LEVEL, n, (-room, room))
    return holds(found.low, found.high, truth)


def crosses(new: Change, base: Change, factor: float, n: int, hidden: tuple[float, float]) -> bool:
    """Say whether a gate that allows `factor` times the baseline is crossed (both above an optimum of 0)."""
    found = hull(weighted(new, base, new.value - factor * base.value, factor), LEVEL, n, hidden)
    return found.low is not None and found.low > 0


def even(like: Change, value: float) -> Change:
    """Return the number of a network that deviates by as much on every image."""
    return Change.of(value, like.ids, np.zeros(len(like.ids)), like.block)


def count_made(counts: Counts, rng: Rng, repeats: int, few: int) -> None:
    for name, made in MADE.items():
        many = 200_000
        population = made_orbits(rng, made.draw(rng, many), made.largest)
        truth = made.mean / population.expected_null(np.arange(many))
        for n in SIZES:
            raw, cal, paired, gate, other, same = (Count() for _ in range(6))
            for i in range(repeats):
                sizes = made.draw(rng, n)
                orbits = made_orbits(rng, sizes, made.largest)
                tables = orbits.tables(np.arange(n), null=i < few)
                change = value_change(tables)
                raw.add(of_value(tables, made.mean))
                if i < few:
                    cal.add(of_calibrated(tables, truth, orbits.variant.m.resolution))
                paired.add(of_difference(change, even(change, made.mean), 0.0, n, made.largest))
                new = even(change, WORSE * made.mean)
                room = new.value - WORSE * made.largest, new.value
                gate.add(crosses(new, change, WORSE, n, room))
                # models differ by a factor that has mean 1
                factors = np.exp(0.2 * rng.standard_normal(MODELS) - 0.02)
                images = Change.of(0.0, change.ids, change.changes * factors.mean(), change.block)
                values = [float(f * sizes.mean()) for f in factors]
                found = over_models(values, LEVEL, images=images)
                other.add(holds(found.low, found.high, made.mean))
                found = over_models(values, LEVEL)
                same.add(holds(found.low, found.high, float(sizes.mean())))
            statistics = (RAW, CALIBRATED, PAIRED, GATE, FAMILY, FAMILY_HERE)
            for statistic, count in zip(statistics, (raw, cal, paired, gate, other, same), strict=True):
                counts[statistic][name, n] = count


def count_shipped(counts: Counts, rng: Rng, repeats: int, few: int) -> None:
    network, twin = shipped_orbits("digits-cnn.onnx"), shipped_orbits("digits-cnn-keras.onnx")
    for tap, orbits in network.items():
        name, best, size = f"digits-cnn {tap}", orbits.variant.m.optimum, len(orbits.rows)
        value, other = float(orbits.rows.mean()), float(twin[tap].rows.mean())
        truth = (value - best) / (orbits.expected_null(rng.integers(size, size=20_000)) - best)
        at_limit = (value - best) / (other - best)
        for n in SIZES:
            raw, cal, paired, gate = (Count() for _ in range(4))
            for i in range(repeats):
                images = rng.integers(size, size=n)
                tables = orbits.tables(images, null=i < few)
                a, b = (value_change(t) for t in (tables, twin[tap].tables(images, null=False)))
                raw.add(of_value(tables, value))
                if i < few:
                    cal.add(of_calibrated(tables, truth, orbits.variant.m.resolution))
                room = orbits.largest - best
                paired.add(of_difference(a, b, value - other, n, room))
                above = [Change.of(c.value - best, c.ids, c.changes, c.block) for c in (a, b)]
                worse = above[0].value - at_limit * above[1].value
                hidden = worse - above[0].value - at_limit * room, worse + room
                gate.add(crosses(*above, at_limit, n, hidden))
            for statistic, count in zip((RAW, CALIBRATED, PAIRED, GATE), (raw, cal, paired, gate), strict=True):
                counts[statistic][name, n] = count


# ---- quotients -----------------------------------------------------------------------------------------------------


def features(rng: Rng, n: int) -> tuple[Array, Array]:
    """Return latent vectors (n, WIDTH) and deviations (n, 1) that grow with the vector's norm."""
    z = rng.standard_normal((n, WIDTH)) * rng.gamma(9.0, 1 / 9, size=(n, 1)) + 0.5
    size = np.linalg.norm(z, axis=1) / np.sqrt(WIDTH)
    return z, (0.5 * size * rng.gamma(4.0, 0.25, n))[:, None]


def cosine_deviations(rows: Array) -> Array:
    return -1 + np.minimum(rows * 0.3, 1.5)


def count_quotients(counts: Counts, rng: Rng, few: int) -> None:
    population, rows = features(rng, 1_000_000)
    half = len(population) // 2
    apart = float(np.linalg.norm(population[:half] - population[half:], axis=1).mean())
    unit = population / np.linalg.norm(population, axis=1, keepdims=True)
    alike = float((unit[:half] * unit[half:]).sum(axis=1).mean())
    quotients: dict[str, tuple[str, Callable[[Array], Array], float]] = {
        "latent-l2 = E/M": ("spread-l2", lambda r: r, apart),
        "latent-cosine = −c/M": ("spread-cosine", cosine_deviations, alike),
        "latent-cosine-bounded": ("spread-cosine-bounded", cosine_deviations, alike),
    }
    for name, (kind, change, m_true) in quotients.items():
        normaliser = normalisers[kind]
        truth = float(normaliser.apply(change(rows).mean(), m_true))
        optimum, largest = (0.0, math.inf) if kind == "spread-l2" else (-1.0, 1.0)
        for n in SIZES:
            count = counts[RAW][name, n] = Count()
            for _ in range(few):
                z, r = features(rng, POINTS)
                m: Spread = spread(dict(zip(names(range(POINTS)), z, strict=True)), normaliser.spread or "l2")
                table = Deviations(tuple(names(range(n))), change(r[:n]))
                count.add(of_value(Tables(table, normaliser, optimum, largest, spread=m), truth))


# ---- the whole measurement -----------------------------------------------------------------------------------------


def network(x: Array) -> dict[str, Array]:
    """Map (B, 4, H, W), latent (B, 16), scores (B, 5) of images (B, 1, H, W): one 3×3 convolution, ReLU, quadrants."""
    rng, (h, w) = np.random.default_rng(1), x.shape[2:]
    kernel = rng.standard_normal((4, 3, 3)).astype(np.float32)
    head = rng.standard_normal((16, 5))
    p = np.pad(x[:, 0], ((0, 0), (1, 1), (1, 1)))
    maps = np.stack([sum(k[i, j] * p[:, i : i + h, j : j + w] for i in range(3) for j in range(3)) for k in kernel], 1)
    quadrants = np.maximum(maps, 0).reshape(len(x), 4, 2, h // 2, 2, w // 2).mean(axis=(3, 5))
    latent = (quadrants.reshape(len(x), 16) - 1.2) * math.sqrt(h * w) / 8
    scores = np.exp(latent @ head)
    return {"map": maps, "latent": latent, "scores": scores / scores.sum(axis=1, keepdims=True)}


def measured(rng: Rng, group: str, n: int, size: int = 16) -> list[Result]:
    """Measure the network on n fresh images of white noise."""
    return measure(
        network,
        rng.standard_normal((n, 1, size, size)).astype(np.float32),
        group,
        samples="all",
        spread_samples=n,  # the truth wants M of more than 200 points
        taps=["map", "latent", "scores:probability"],
        variants=["channelwise", "latent-l2", "softmax"],
    )


def count_measured(
    counts: Counts, rng: Rng, few: int, groups: Sequence[str] = ("C2", "C4", "C8"), sizes: Sequence[int] = (16, 50)
) -> None:
    """Count the raw and calibrated values of `measure` itself; the truth is that of 3000 images."""
    for group in groups:
        truths = measured(rng, group, 3000)
        for n in sizes:
            for _ in range(few):
                for truth, r in zip(truths, measured(rng, group, n), strict=True):
                    assert truth.value is not None
                    assert truth.calibrated is not None
                    cell = f"{group} {r.variant}", n
                    counts[MEASURED].setdefault(cell, Count()).add(holds(r.low, r.high, truth.value))
                    there = r.calibrated is not None
                    hit = holds(r.calibrated_low, r.calibrated_high, truth.calibrated) if there else None
                    counts[MEASURED_CALIBRATED].setdefault(cell, Count()).add(hit)


# ---- the table -----------------------------------------------------------------------------------------------------


def lines(counts: Counts) -> Iterator[str]:
    """Yield one table a statistic: populations down, numbers of images across, percent ± Monte Carlo error."""
    lacking: list[str] = []
    outside = 0
    for statistic, cells in counts.items():
        sizes = sorted({n for _, n in cells})
        yield ""
        yield f"{statistic:30s}" + "".join(f"{f'n = {n}':>14s}" for n in sizes)
        for name in dict.fromkeys(name for name, _ in cells):
            line = f"{name:30s}"
            for n in sizes:
                count = cells.get((name, n))
                if count is None or not count.there:
                    line += f"{'–':>13s} "
                    continue
                percent, error = count.percent
                missed = percent > MOST_CROSSED if statistic == GATE else not WANTED[0] <= percent <= WANTED[1]
                line += f"{f'{percent:.1f} ± {error:.1f}':>13s}" + ("!" if missed else " ")
                outside += missed
                if count.there < 0.99 * count.tried:
                    share = 100 * (1 - count.there / count.tried)
                    lacking.append(f"{statistic}, {name}, n = {n}: {share:.0f} % of the samples have none")
            yield line.rstrip()
    yield ""
    yield f"! outside {WANTED[0]:g} to {WANTED[1]:g} % (gates: above {MOST_CROSSED:g} %): {outside} cells"
    yield from lacking


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repeats", type=int, default=1000, help="of what is quick; a quarter of it of calibrated values"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, few, counts = np.random.default_rng(args.seed), max(args.repeats // 4, 1), Counts(dict)
    print(
        f"coverage in percent, nominal 95; {args.repeats} samples, {few} for calibrated values, quotients and `measure`"
    )
    count_made(counts, rng, args.repeats, few)
    count_quotients(counts, rng, few)
    count_shipped(counts, rng, args.repeats, few)
    count_measured(counts, rng, few)
    print("\n".join(lines(counts)))


if __name__ == "__main__":
    main()
