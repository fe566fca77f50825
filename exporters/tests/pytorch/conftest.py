"""What the tests of the PyTorch exporter share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let third-party deprecations pass: they are of torch's and timm's own making, and not ours to mend."""
    for item in items:
        for rule in (
            "ignore::DeprecationWarning:torch.*",
            "ignore::FutureWarning:torch.*",
            "ignore::DeprecationWarning:onnxscript.*",
            "ignore::DeprecationWarning:onnx_ir.*",
            "ignore::DeprecationWarning:timm.*",
        ):
            item.add_marker(pytest.mark.filterwarnings(rule))


@pytest.fixture
def networks() -> Path:
    """The file of small networks, as a user would name it."""
    return Path(__file__).with_name("small_networks.py")
