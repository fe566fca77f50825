"""Whole-measurement time over the bare ONNX Runtime forward passes of the same inputs, CPU, two threads.

    python benchmarks/overhead.py [--repeats 5] [--case default|relu|digits]

Both sides are run in turn in one process and the median of the ratios is printed. The bare side is what nobody can
avoid: the untouched file, its own output only, the same rows in batches of the same size. The measured side is
`geed_onnx.measure` whole: reading and hashing the file, making the orbits, the passes, deviations of every tap, floor,
null, intervals.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from networks import digits_cnn, relu_taps, resnet18_like

from geed_onnx import measure
from geed_onnx.actions import input_action, orbit_of
from geed_onnx.groups import parse_group

THREADS = 2
LIMITS = {"default": 1.20, "relu": 1.40, "digits": 2.5}


def bare(path: Path, rows: np.ndarray, batch: int) -> float:
    """Seconds of the forward passes alone, session creation left out."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = THREADS
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [session.get_outputs()[0].name]
    session.run(outputs, {name: rows[:batch]})
    start = time.perf_counter()
    for i in range(0, len(rows), batch):
        session.run(outputs, {name: rows[i : i + batch]})
    return time.perf_counter() - start


def case(name: str, folder: Path) -> tuple[Path, np.ndarray, list[str] | None]:
    """Return (model file, images, taps)."""
    rng = np.random.default_rng(0)
    if name == "digits":
        path = folder / "digits.onnx"
        onnx.save(digits_cnn(), path)
        return path, rng.random((300, 1, 29, 29), dtype=np.float32), None
    path = folder / "resnet18.onnx"
    model = resnet18_like(path)
    images = rng.random((48, 3, 224, 224), dtype=np.float32)
    return path, images, relu_taps(model) if name == "relu" else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", choices=sorted(LIMITS), action="append")
    args = parser.parse_args()
    group = parse_group("C8")
    print(f"{'case':10s} {'bare s':>8s} {'whole s':>8s} {'ratio':>6s} {'min':>6s} {'max':>6s}  wanted")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.case or sorted(LIMITS):
            path, images, taps = case(name, Path(folder))
            rows = orbit_of(input_action(group, images.shape[1:]), images).reshape(-1, *images.shape[1:])
            ratios, bares, wholes = [], [], []
            for _ in range(args.repeats):
                start = time.perf_counter()
                results = measure(path, images, group, taps=taps, samples="all", provider="cpu", threads=THREADS)
                wholes.append(time.perf_counter() - start)
                bares.append(bare(path, rows, results[0].runtime["batch"]))
                ratios.append(wholes[-1] / bares[-1])
            print(
                f"{name:10s} {statistics.median(bares):8.2f} {statistics.median(wholes):8.2f}"
                f" {statistics.median(ratios):6.2f} {min(ratios):6.2f} {max(ratios):6.2f}  ≤ {LIMITS[name]:.2f}"
                f"  ({len({r.tap['name'] for r in results})} taps, batch {results[0].runtime['batch']})",
                flush=True,
            )


if __name__ == "__main__":
    main()
