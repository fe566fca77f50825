"""What a run was made on, for the record."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("geed-onnx", "numpy", "scipy", "onnx", "onnxruntime", "onnxruntime-gpu", "datasets", "pyarrow", "ray")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers come from."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return the platform, the processor, its cores, and the devices that a driver shows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"platform": platform.platform(terse=True), "processor": _processor(), "cores": cores, "gpus": gpus()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpus() -> int:
    """Return how many CUDA devices a driver shows."""
    from geed_onnx.sessions import cuda_devices

    return cuda_devices()
