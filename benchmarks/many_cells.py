"""A thousand tiny cells: what share of a run is spent outside the forward passes and the deviations.

python benchmarks/many_cells.py [MODELS]

Copies of the shipped CNN with other weights (so that no two are one cell), four groups, the shipped images: 40 cells a
model. Inside is the time within `measure_plan`, which runs orbits through the network and reduces them to deviations;
outside is everything else: reading graphs, opening sessions, reading images, hashing, records, Parquet, fsync.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from geed_onnx.batch import bench, run_suite
from geed_onnx.requests import Data, Model
from geed_onnx.suites import Suite

SHIPPED = Path(__file__).resolve().parent.parent / "models" / "shipped"
GROUPS = ("C4", "C8", "D4", "flip")


def copies(folder: Path, count: int) -> list[Model]:
    """Write copies of the CNN, each with noise on its weights."""
    found = []
    for i in range(count):
        model = onnx.load(str(SHIPPED / "digits-cnn.onnx"))
        rng = np.random.default_rng(i)
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.ndim > 1 and values.dtype == np.float32:
                noisy = values * rng.normal(1, 0.01, values.shape)
                tensor.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), tensor.name))
        path = folder / f"cnn{i}.onnx"
        onnx.save(model, str(path))
        found.append(Model(str(path), path.stem))
    return found


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    inside = 0.0
    original = bench.measure_plan

    def timed(*args: object, **options: object) -> object:
        nonlocal inside
        start = time.perf_counter()
        try:
            return original(*args, **options)  # type: ignore[arg-type]
        finally:
            inside += time.perf_counter() - start

    bench.measure_plan = timed  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = Suite(
            path="many_cells.toml",
            title="many cells",
            models=tuple(copies(folder, count)),
            data=(Data(str(SHIPPED / "digits-test.parquet"), "digits"),),
            groups=GROUPS,
            samples=(50,),
            seeds=(0,),
        )
        start = time.perf_counter()
        ran = run_suite(asked, str(folder / "run"))
        whole = time.perf_counter() - start
        again = time.perf_counter()
        run_suite(asked, str(folder / "run"))
        again = time.perf_counter() - again
    share = (whole - inside) / whole
    print(f"{len(ran.results)} cells of {count} models in {whole:.1f} s: {inside:.1f} s inside, {share:.1%} outside")
    print(f"run again, with everything known: {again:.1f} s")


if __name__ == "__main__":
    main()
