"""What the tests of the JAX exporter share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

NETWORKS = Path(__file__).with_name("flax_networks.py")


@pytest.fixture
def networks() -> Path:
    """The Python file of factories."""
    return NETWORKS


@pytest.fixture
def factory(tmp_path: Path) -> Callable[[str], str]:
    """Write a Python file with a function `build`; return `FILE.py:build`."""

    def write(body: str) -> str:
        path = tmp_path / "net.py"
        head = "import jax, jax.numpy as jnp, numpy as np\nfrom flax import linen, nnx\n"
        path.write_text(head + body, encoding="utf-8")
        return f"{path}:build"

    return write


def metadata(path: Path) -> dict[str, Any]:
    """Return the `geed.*` entries of a file, decoded."""
    props = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    return {key: json.loads(value) if value[:1] in "[{" else value for key, value in props.items()}


def geed_onnx_taps(path: Path) -> dict[str, dict[str, Any]]:
    """Return what `geed-onnx taps FILE --json` says, by tap."""
    run = subprocess.run(
        [sys.executable, "-m", "geed_onnx", "taps", str(path), "--json"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return {entry["name"]: entry for entry in map(json.loads, run.stdout.splitlines())}
