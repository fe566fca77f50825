"""Which execution provider a word means, and whether it can be had: ONNX Runtime itself falls back silently."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from geed_onnx.errors import ProviderError, UnknownName

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SUFFIX = "executionprovider"


def available_providers() -> tuple[str, ...]:
    """Return the words for the providers this ONNX Runtime was built with, as `--provider` takes them."""
    import onnxruntime as ort

    return tuple(_word(p) for p in ort.get_available_providers())


def _word(provider: str) -> str:
    return provider.lower().removesuffix(SUFFIX)


@cache
def cuda_driver() -> str | None:
    """Return None where an NVIDIA driver sees a device, else in words what is missing."""
    if cuda_devices():
        return None
    if _driver() is None:
        return f"no NVIDIA driver was found ({_library()} is not there)"
    return "the NVIDIA driver sees no device"


@cache
def cuda_devices() -> int:
    """Return how many devices an NVIDIA driver shows.

    Asked of the driver itself, so that on a machine without one no native library prints its own error text.
    """
    driver = _driver()
    count = ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _library() -> str:
    return "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_library())
    except OSError:
        return None


def resolve_provider(word: str) -> str:
    """Return the provider's full name; `auto` is CUDA where a driver and a CUDA build are present, else the CPU.

    Raises
    ------
    UnknownName
        If ONNX Runtime knows no provider of that name.
    ProviderError
        If it knows the provider but this build or this machine does not have it; the message names the remedy.
    """
    import onnxruntime as ort

    have = ort.get_available_providers()
    if word.lower() == "auto":
        return CUDA if CUDA in have and cuda_driver() is None else CPU
    every = {_word(p): p for p in ort.get_all_providers()}
    name = every.get(_word(word))
    if name is None:
        raise UnknownName("provider", word, ["auto", *every])
    if name not in have:
        remedy = (
            "install onnxruntime-gpu in place of onnxruntime"
            if name == CUDA
            else f"install an ONNX Runtime build that has it (this one has: {', '.join(_word(p) for p in have)})"
        )
        raise ProviderError(f"provider {word!r} ({name}) is not in this ONNX Runtime build; {remedy}")
    if name == CUDA and cuda_driver() is not None:
        raise ProviderError(
            f"provider 'cuda' was asked for, but {cuda_driver()}; use --provider cpu (or auto), or install a driver"
        )
    return str(name)


def not_obtained(asked: str, obtained: list[str]) -> ProviderError:
    """Return the error for a session that came up on another provider than the one asked for."""
    remedy = (
        "its CUDA or cuDNN libraries did not load: pip install 'geed-onnx[cuda]'"
        if asked == CUDA
        else "its libraries did not load"
    )
    return ProviderError(
        f"provider {_word(asked)!r} was asked for, but ONNX Runtime fell back to {', '.join(map(_word, obtained))}:"
        f" {remedy}, or use --provider cpu"
    )
