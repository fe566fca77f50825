from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geed_exporters.keras import frameworks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # what TensorFlow, Keras and tf2onnx warn about is their own use of NumPy and of one another
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for module in ("tensorflow", "keras", "tf2onnx", "google", "h5py"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore:::{module}.*"))


@pytest.fixture(autouse=True)
def keras() -> Any:
    """Keras with its counters at zero: `dense`, `dense_1` are numbered over the process."""
    module = frameworks.keras()
    module.utils.clear_session()
    module.utils.set_random_seed(0)
    return module


frameworks.tensorflow(cpu=True)
