"""Start-up time of the command line, and what `import geed_onnx` loads: `python benchmarks/startup.py`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def main() -> None:
    times = []
    for _ in range(9):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "geed_onnx", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    print(f"geed-onnx --help: median {statistics.median(times):.3f} s (max {max(times):.3f}), wanted below 0.4 s")
    code = "import geed_onnx, sys; print([m for m in ('onnxruntime', 'datasets', 'onnx', 'scipy') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    print(f"import geed_onnx loads of onnxruntime, datasets, onnx, scipy: {loaded}")


if __name__ == "__main__":
    main()
