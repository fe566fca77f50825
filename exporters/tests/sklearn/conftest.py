"""What the tests of the scikit-learn exporter share: fitted models on small random images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from sklearn.base import BaseEstimator

from geed_exporters.cli import main

SIDE = 6
FEATURES = SIDE * SIDE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            # networks are fitted for a few steps on purpose
            item.add_marker(pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"))


def fitted(model: BaseEstimator, *, classes: int | None = 3, features: int = FEATURES) -> Any:
    """Return the model fitted on 90 random rows; targets are numbers where there are no classes."""
    draw = np.random.default_rng(0)
    x = draw.random((90, features))
    y = draw.integers(0, classes, 90) if classes else x @ draw.standard_normal(features)
    return model.fit(x, y)


def metadata(path: Path) -> dict[str, Any]:
    """Return the `geed.*` entries of a file, decoded."""
    props = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    return {key: json.loads(value) if value[:1] in "[{" else value for key, value in props.items()}


def geed_onnx(*arguments: str) -> Any:
    """Run `geed-onnx … --json` and return what it prints, a value a line."""
    run = subprocess.run([sys.executable, "-m", "geed_onnx", *arguments, "--json"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def export(*arguments: object) -> Result:
    """Run `geed-export sklearn …`."""
    return CliRunner().invoke(main, ["sklearn", *map(str, arguments)])


@pytest.fixture
def factory(tmp_path: Path) -> Callable[..., str]:
    """Write a Python file with a function `build`; return `FILE.py:build`."""

    def write(body: str, head: str = "") -> str:
        path = tmp_path / "net.py"
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        path.write_text(f"import numpy as np\n{head}\ndef build():\n{lines}", encoding="utf-8")
        return f"{path}:build"

    return write


#: The body of a factory: a pipeline on 6x6 images.
PIPELINE = """
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
draw = np.random.default_rng(0)
x, y = draw.random((90, 36)), draw.integers(0, 3, 90)
steps = [("scaler", StandardScaler()), ("pca", PCA(10)), ("mlp", MLPClassifier((12, 8), max_iter=5, random_state=0))]
return Pipeline(steps).fit(x, y)
"""
