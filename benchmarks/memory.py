"""Peak memory of a measurement at 50 and at 2,000 images: `python benchmarks/memory.py`.

Each measurement is a process of its own; the figure is its peak resident set size. Images are read from an `.npy` file.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from networks import digits_cnn


def peak_of(model: str, data: str, samples: int) -> None:
    from geed_onnx import measure

    measure(model, data, "C8", samples=samples, provider="cpu")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "DATA", "SAMPLES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        peak_of(args.one[0], args.one[1], int(args.one[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        model, data = Path(folder) / "m.onnx", Path(folder) / "x.npy"
        onnx.save(digits_cnn(), model)
        np.save(data, np.random.default_rng(0).random((2000, 1, 29, 29), dtype=np.float32))
        peaks = {}
        for samples in (50, 2000):
            runs = [
                float(
                    subprocess.run(
                        [sys.executable, __file__, "--one", str(model), str(data), str(samples)],
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout
                )
                for _ in range(3)
            ]
            peaks[samples] = statistics.median(runs)
            print(f"{samples:5d} images: peak {peaks[samples]:7.1f} MB  ({', '.join(f'{r:.1f}' for r in runs)})")
        print(f"growth {peaks[2000] - peaks[50]:.1f} MB, wanted below 50 MB")


if __name__ == "__main__":
    main()
