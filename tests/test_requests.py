"""What is asked, whole: defaults, refusals, values that compare, and what it takes to add a setting."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geed_onnx
from geed_onnx import measure
from geed_onnx.actions import INTERPOLATIONS, MASKS
from geed_onnx.errors import DataError, UnknownName, UsageError
from geed_onnx.requests import PREPROCESSING, Data, Model, Runtime, Settings, asked_of, request_of
from geed_onnx.sources.preprocessing import COLOURS, FITS, LAYOUTS, RESAMPLES
from geed_onnx.suites import load_suite

SHIPPED = Path(__file__).parents[1] / "models" / "shipped"
DIGITS = str(SHIPPED / "digits-test.parquet")


# --- a value ----------------------------------------------------------------------------------------------------


def test_a_request_compares_hashes_prints_and_travels() -> None:
    options: dict[str, Any] = {"acts": {"a": "trivial"}, "constants": {"k": np.ones(2)}, "taps": ["a"], "seed": 3}
    one, other = (request_of("m.onnx", "x.npz", "C8", **options) for _ in range(2))
    assert one == other
    assert len({one, other, pickle.loads(pickle.dumps(one))}) == 1
    assert one != request_of("m.onnx", "x.npz", "C8", **options | {"constants": {"k": np.zeros(2)}})
    assert one.model.taps == ("a",)
    assert (one.model.seed, one.settings.seed) == (None, 3)
    assert "acts={'a': 'trivial'}" in repr(one)
    with pytest.raises(FrozenInstanceError):
        one.settings.seed = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mask": "disk"}, "unknown mask 'disk': did you mean 'disc'?"),
        ({"interpolation": "cubic"}, "unknown interpolation 'cubic': did you mean 'bicubic'?"),
        ({"layout": "NCWH"}, "unknown layout 'NCWH'"),
        ({"spread_samples": 1}, "spread samples must be at least 2, not 1"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"level": 95}, "level must lie between 0 and 1 (0.95 is 95 %), not 95"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises((UsageError, UnknownName)) as refused:
        request_of("m.onnx", "x.npz", "C8", **options)
    assert str(refused.value).startswith(said)


def test_a_group_data_or_a_keyword_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="group"):
        request_of("m.onnx", "x.npz", "Q8x")
    with pytest.raises(UsageError, match="expected an address, an array or a Source, got dict"):
        request_of("m.onnx", {}, "C8")
    with pytest.raises(DataError, match=r"expected an array \(images, …\) of numbers"):
        request_of("m.onnx", np.ones(3), "C8")
    with pytest.raises(TypeError, match="unexpected keyword argument 'sample': did you mean 'samples'"):
        measure("m.onnx", "x.npz", "C8", sample=3)


def test_words_are_those_of_the_place_that_uses_them() -> None:
    words = {f.name: how.words for part in (Model, Data, Settings, Runtime) for f, how in asked_of(part)}
    assert (words["mask"], words["interpolation"], words["layout"]) == (MASKS, INTERPOLATIONS, LAYOUTS)
    said = {key: how.words for key, how in PREPROCESSING.items()}
    assert (said["fit"], said["colour"], said["resample"]) == (FITS, COLOURS, RESAMPLES)


# --- keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "group", "options", "first", "last"),
    [
        ("mlp", "C8", {"samples": 4, "spread_samples": 6}, "550f8bcca1876110", "7fe1097505597ae3"),
        (
            "cnn",
            "D4",
            {
                "samples": 4, "spread_samples": 5, "seed": 3, "level": 0.9, "floor": True, "reference_samples": 3,
                "mask": "none", "interpolation": "bicubic", "taps": ["block6", "latent", "scores"],
            },
            "5ab21296262ecc37",
            "ccf8712845684ed3",
        ),
        ("c8cnn", "C8", {"samples": 3, "spread_samples": 4}, "fccfa1d1942dffb9", "f5b085299416476d"),
        (
            "c8cnn",
            "C4",
            {"samples": 3, "spread_samples": 4, "declared_action": False},
            "cabafa3ab6963bfe",
            "a6d836902d05c30e",
        ),
    ],
    ids=["default", "everything said", "declared", "not declared"],
)  # fmt: skip
def test_keys_are_those_of_results_that_were_written_before_there_were_requests(
    model: str, group: str, options: dict[str, Any], first: str, last: str
) -> None:
    found = measure(str(SHIPPED / f"digits-{model}.onnx"), DIGITS, group, provider="cpu", **options)
    keys = [str(found[0].key), str(found[-1].key)]
    assert [k[:16] for k in keys] == [first, last]


# --- adding a setting -------------------------------------------------------------------------------------------

SETTING = """
    sharpness: int = asked("whole", "Of the picture.", default=0, metavar="N", least=0)
"""


def test_a_setting_is_one_field_and_the_place_that_uses_it(tmp_path: Path) -> None:
    """One line in `requests.py` brings it to the options, the suites, the dry run, the key and the Result."""
    house = tmp_path / "geed_onnx"
    shutil.copytree(Path(geed_onnx.__file__).parent, house, ignore=shutil.ignore_patterns("__pycache__"))
    text = (house / "requests.py").read_text(encoding="utf-8")
    end = "    def __post_init__(self) -> None:\n        _settled(self)\n\n    @property\n    def keyed"
    assert text.count(end) == 1
    (house / "requests.py").write_text(text.replace(end, f"{SETTING}\n{end}"), encoding="utf-8")

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "geed_onnx", *map(str, args)]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    def lines(*args: object) -> list[dict[str, Any]]:
        done = run(*args, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    model = SHIPPED / "digits-mlp.onnx"
    for command in ("measure", "compare"):
        assert "--sharpness N" in run(command, "--help").stdout
    asked = ("measure", model, "--data", DIGITS, "--group", "C4", "--samples", 3, "--provider", "cpu")
    plain, sharp = lines(*asked), lines(*asked, "--sharpness", 2)
    assert "settings" not in plain[0]["runtime"]
    assert sharp[0]["runtime"]["settings"] == {"sharpness": 2}
    assert not {r["key"] for r in plain} & {r["key"] for r in sharp}
    before = measure(str(model), DIGITS, "C4", samples=3, provider="cpu")
    assert [r["key"] for r in plain] == [r.key for r in before]

    suite = tmp_path / "suite.toml"
    table = f'groups = "C4"\nsamples = 3\nmodels = "{model}"\ndata = "{DIGITS}"\n[measure]\nprovider = "cpu"\n'
    suite.write_text(f"{table}sharpness = -1\n")
    assert "measure.sharpness: -1 – expected a whole number from 0" in run("run", suite, "-o", "out").stderr
    suite.write_text(f"{table}sharpness = 2\n")
    [dry] = lines("run", suite, "--dry-run")
    assert dry["settings"] == {"sharpness": 2}
    assert "(seed 0, sharpness 2)" in run("run", suite, "--dry-run").stdout
    assert [r["key"] for r in lines("run", suite, "-o", "out")] == [r["key"] for r in sharp]
    assert "sharpness = 2" in (tmp_path / "out" / "suite.toml").read_text()


def test_only_settings_that_are_another_are_named() -> None:
    assert Settings().unusual == Settings().told == {}
    some = Settings(samples=3, seed=2, interpolation="nearest", batch_size=4)
    assert some.unusual == {"interpolation": "nearest", "batch_size": 4}
    assert some.keyed["interpolation"] == "nearest"
    assert "interpolation" not in replace(some, interpolation="bilinear").keyed
    assert some.told == {}  # a Result's group says it


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"path": "other.onnx"}, TypeError, "unexpected keyword argument 'path'"),
        ({"source": "photos"}, TypeError, "unexpected keyword argument 'source'"),
        ({"mask": None}, UnknownName, "mask"),
        ({"interpolation": None}, UnknownName, "interpolation"),
    ],
)
def test_what_is_no_keyword_or_may_not_be_left_open_is_refused(
    keywords: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        request_of("m.onnx", "photos", "C4", **keywords)


def test_data_that_is_no_array_of_numpys_kind_is_refused() -> None:
    class Tensor:
        ndim, dtype = 4, "torch.float32"

    with pytest.raises(UsageError, match="expected an address, an array or a Source, got Tensor"):
        request_of("m.onnx", Tensor(), "C4")


def test_a_suite_may_leave_a_name_open(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 4, 4), np.float32))
    text = {"groups": ["C4"], "models": [{"path": "m.onnx", "name": None}], "data": [{"source": "x.npy", "name": None}]}
    (tmp_path / "s.json").write_text(json.dumps(text))
    (job,) = load_suite(tmp_path / "s.json").jobs()
    assert (job.model.name, job.model.path) == ("m", str(tmp_path / "m.onnx"))
