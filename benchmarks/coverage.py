"""Simulated coverage of the nominal 95 % interval at n = 50 images: `python benchmarks/coverage.py [--repeats 4000]`.

Each row draws many samples from a population whose true value is known (by a very large draw), computes the interval
as `geed-onnx measure` does, and counts how often it holds the truth.  The populations have the shapes that deviations
have: skewed to the right and positive (ℓ2, KL), skewed towards the optimum −1 (cosines), and ratios to a spread M that
is itself estimated from 200 points, 50 of which are the sample.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from geed_onnx.estimators import Deviations, Spread, Tables, normalisers, spread, value_of

Rng = np.random.Generator
N, ORDER, POINTS, WIDTH = 50, 8, 200, 16


def table(rows: np.ndarray) -> Deviations:
    return Deviations(tuple(f"{i:04d}" for i in range(len(rows))), rows)


def orbit(rng: Rng, per_image: np.ndarray) -> np.ndarray:
    """Elements of one orbit are dependent: they share the image's level."""
    return per_image[:, None] * rng.gamma(4.0, 0.25, size=(len(per_image), ORDER))


UNNORMALISED: dict[str, tuple[Callable[[Rng, int], np.ndarray], float]] = {
    "normal (mean 1, sd .3)": (lambda r, n: 1 + 0.3 * r.standard_normal((n, 1)) + np.zeros((n, ORDER)), 1.0),
    "gamma(4), like ℓ2": (lambda r, n: orbit(r, r.gamma(4.0, 0.25, n)), 1.0),
    "exponential, like KL": (lambda r, n: orbit(r, r.exponential(1.0, n)), 1.0),
    "lognormal(σ = .7)": (lambda r, n: orbit(r, r.lognormal(-0.245, 0.7, n)), 1.0),
    "−beta(8, 2), like −cos": (lambda r, n: -r.beta(8.0, 2.0, (n, 1)) + np.zeros((n, ORDER)), -0.8),
}


def features(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return latent vectors (n, WIDTH) and per-element deviations (n, ORDER) that grow with the vector's norm."""
    z = rng.standard_normal((n, WIDTH)) * rng.gamma(9.0, 1 / 9, size=(n, 1)) + 0.5
    size = np.linalg.norm(z, axis=1) / np.sqrt(WIDTH)
    return z, orbit(rng, 0.5 * size * rng.gamma(4.0, 0.25, n))


def cosine_deviations(rows: np.ndarray) -> np.ndarray:
    return -1 + np.minimum(rows * 0.3, 1.5)


def covers(tables: Tables, truth: float) -> bool:
    e = value_of(tables, 0.95)
    assert e.low is not None
    assert e.high is not None
    return e.low <= truth <= e.high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    worst = []
    print(f"{'population':38s} {'coverage':>9s}   (nominal 0.950, n = {N}, {args.repeats} repeats)")
    for name, (draw, truth) in UNNORMALISED.items():
        optimum, largest = (-1.0, 1.0) if truth < 0 else (-np.inf if "normal (" in name else 0.0, np.inf)
        hits = [
            covers(Tables(table(draw(rng, N)), normalisers["none"], optimum, largest), truth)
            for _ in range(args.repeats)
        ]
        worst.append(float(np.mean(hits)))
        print(f"{name:38s} {worst[-1]:9.4f}")
    population, rows = features(rng, 1_000_000)
    half = len(population) // 2
    distance = np.linalg.norm(population[:half] - population[half:], axis=1).mean()
    unit = population / np.linalg.norm(population, axis=1, keepdims=True)
    similarity = (unit[:half] * unit[half:]).sum(axis=1).mean()
    ratios: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], float]] = {
        "latent-l2 = E/M": ("spread-l2", lambda r: r, float(distance)),
        "latent-cosine = −c/M": ("spread-cosine", cosine_deviations, float(similarity)),
        "latent-cosine-bounded = (1−c)/(1−M)": ("spread-cosine-bounded", cosine_deviations, float(similarity)),
    }
    for name, (kind, change, m_true) in ratios.items():
        normaliser = normalisers[kind]
        truth = float(normaliser.apply(change(rows).mean(), m_true))
        hits = []
        for _ in range(max(args.repeats // 2, 1)):
            z, r = features(rng, POINTS)
            m: Spread = spread({f"{i:04d}": v for i, v in enumerate(z)}, normaliser.spread or "l2")
            optimum = 0.0 if kind == "spread-l2" else -1.0
            hits.append(covers(Tables(table(change(r[:N])), normaliser, optimum, np.inf, m), truth))
        worst.append(float(np.mean(hits)))
        print(f"{name:38s} {worst[-1]:9.4f}")
    print(f"lowest {min(worst):.4f}, highest {max(worst):.4f}; wanted 0.93 to 0.97")


if __name__ == "__main__":
    main()
