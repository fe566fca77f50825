from __future__ import annotations

import pytest

from geed_exporters.escnn.stubs import import_escnn

import_escnn()  # before any test module imports escnn itself


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # torch's exporter uses what Python and NumPy are about to drop; nothing here can change it
        item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:(torch|onnxscript|copyreg|escnn).*"))
        item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning:(torch|onnxscript|copyreg).*"))
