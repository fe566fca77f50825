"""A batch turned by 45° against `scipy.ndimage.rotate` at order 1: `python benchmarks/rotation.py`.

Interleaved, median of ratios. `first` includes building the operator, which is cached for the grid afterwards.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from geed_onnx.actions import GridAction, turn_matrix
from geed_onnx.groups import parse_group

CASES = {"images 32×3×224²": ((32, 3, 224, 224), 1 / 3), "maps 32×256×14²": ((32, 256, 14, 14), 1 / 10)}


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    group = parse_group("C8")
    print(f"{'case':20s} {'ndimage ms':>11s} {'ours ms':>8s} {'ns/value':>9s} {'ratio':>7s} {'first ms':>9s}  wanted")
    for name, (shape, limit) in CASES.items():
        x = np.random.default_rng(0).random(shape, dtype=np.float32)
        start = time.perf_counter()
        action = GridAction(group, shape[1:])
        action(1, x)
        first = time.perf_counter() - start
        theirs, ours = [], []
        for _ in range(7):
            theirs.append(timed(lambda x=x: ndimage.rotate(x, 45, axes=(3, 2), order=1, reshape=False)))
            ours.append(timed(lambda a=action, x=x: a(1, x)))
        ratio = statistics.median(o / t for o, t in zip(ours, theirs, strict=True))
        print(
            f"{name:20s} {1e3 * statistics.median(theirs):11.1f} {1e3 * statistics.median(ours):8.1f}"
            f" {1e9 * statistics.median(ours) / x.size:9.2f} {ratio:7.3f} {1e3 * first:9.1f}  ≤ {limit:.3f}"
        )
    turn_matrix.cache_clear()


if __name__ == "__main__":
    main()
