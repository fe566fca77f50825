"""`--cluster`: which images are one patient or one scene, from a column, an array, or the folders images lie in."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_nets as nets
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from engine_tools import noise
from PIL import Image

from geed_onnx import measure
from geed_onnx.cli import main
from geed_onnx.engine import Plan, plan_of
from geed_onnx.errors import DataError, UsageError
from geed_onnx.requests import request_of
from geed_onnx.sources import ArraySource, KeptSource, as_images, clusters_of, open_source
from geed_onnx.suites import load_suite, suite_toml

COUNT = 12
#: Three images a patient.
PATIENTS = [f"p{i // 3}" for i in range(COUNT)]


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(value).integers(0, 256, (9, 9), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def table(path: Path, **columns: Any) -> Path:
    pa.parquet.write_table(pa.table({"image": [png(k) for k in range(COUNT)], **columns}), path)
    return path


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and twelve pictures in every form that names clusters, or fails to."""
    desk = tmp_path_factory.mktemp("desk")
    onnx.save(nets.cnn(size=9, classes=3), desk / "cnn.onnx")
    onnx.save(nets.cnn(size=9, classes=3, seed=1), desk / "other.onnx")
    holed: list[str | None] = [*PATIENTS]
    holed[7] = None
    table(desk / "t.parquet", patient=PATIENTS, scene=[i % 2 for i in range(COUNT)], holed=holed, one=["a"] * COUNT)
    table(desk / "ids.parquet", id=[f"i{k}" for k in range(COUNT)], patient=PATIENTS)
    x = noise(COUNT, 9)
    np.savez(
        desk / "x.npz",
        x=x,
        patient=np.array(PATIENTS),
        number=np.array([np.nan if k == 5 else k // 3 for k in range(COUNT)]),
        short=np.array(PATIENTS[:5]),
        square=np.zeros((COUNT, 2)),
        one=np.zeros(COUNT, np.int64),
        id=np.array([f"i{k}" for k in range(COUNT)]),
    )
    np.savez_compressed(desk / "packed.npz", x=x, patient=np.array(PATIENTS).astype("S"))
    np.save(desk / "x.npy", x)
    (desk / "flat").mkdir()
    for k in range(COUNT):
        (desk / "flat" / f"{k:02}.png").write_bytes(png(k))
        folder = desk / "site" / "a" / PATIENTS[k]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{k:02}.png").write_bytes(png(k))
        (desk / "mixed" / "a").mkdir(parents=True, exist_ok=True)
        (desk / "mixed" / ("a" if k else ".") / f"{k:02}.png").write_bytes(png(k))
    (desk / "t.csv").write_text(
        "file,patient\n" + "".join(f"flat/{k:02}.png,{'' if k == 4 else PATIENTS[k]}\n" for k in range(COUNT))
    )
    return desk


def run(*args: Any) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="geed-onnx")


def ask(desk: Path, data: str, *more: Any) -> tuple[Any, ...]:
    return ("measure", desk / "cnn.onnx", "--data", desk / data, "--group", "C4", *more)


# --- what each source says --------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_of_a_table(desk: Path, streaming: bool) -> None:
    source = open_source(str(desk / "t.parquet"), streaming=streaming)
    assert clusters_of(source, range(COUNT), "patient") == {str(k): PATIENTS[k] for k in range(COUNT)}
    # in the order that is asked for, numbers as text
    found = clusters_of(source, (11, 4, 7), "scene")
    assert list((found or {}).items()) == [("11", "1"), ("4", "0"), ("7", "1")]
    named = open_source(str(desk / "ids.parquet"), streaming=streaming)
    assert clusters_of(named, (8, 0), "patient") == {"i8": "p2", "i0": "p0"}
    assert clusters_of(named, (8, 0), "id") == {"i8": "i8", "i0": "i0"}
    # what is missing elsewhere is nobody's business
    assert clusters_of(source, (6, 8), "holed") == {"6": "p2", "8": "p2"}
    with pytest.raises(DataError, match=r"'holed' has no value for image '7' \(row 7, counted from 0\)"):
        clusters_of(source, (0, 7), "holed")
    with pytest.raises(DataError, match="'image' holds bytes for image '0'; expected text or numbers"):
        clusters_of(source, (0,), "image")
    # images are read as ever
    assert [name for name, _ in source.items((3, 1))] == ["3", "1"]


def test_a_local_data_set_of_the_hub(desk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "test.parquet").write_bytes((desk / "t.parquet").read_bytes())
    for streaming in (False, True):
        source = open_source(f"hf:{folder}", streaming=streaming)
        assert clusters_of(source, (5, 2), "patient") == {"5": "p1", "2": "p0"}


def test_an_array_of_an_npz(desk: Path) -> None:
    source = open_source(str(desk / "x.npz"))
    names = {f"i{k}": PATIENTS[k] for k in (9, 2)}
    assert clusters_of(source, (9, 2), "patient") == names
    assert clusters_of(as_images(KeptSource(source)), (9, 2), "patient") == names
    assert clusters_of(source, (0, 11), "number") == {"i0": "0.0", "i11": "3.0"}
    assert clusters_of(open_source(str(desk / "packed.npz")), (9, 2), "patient") == {"9": "p3", "2": "p0"}


def test_the_folder_an_image_lies_in(desk: Path) -> None:
    found = clusters_of(open_source(str(desk / "site")), (11, 0), "folder")
    assert found == {"a/p3/11.png": "a/p3", "a/p0/00.png": "a/p0"}


def test_without_a_column_there_are_none(desk: Path) -> None:
    assert clusters_of(open_source(str(desk / "x.npy")), (0,), None) is None


class Plain:
    """A source of somebody else's."""

    uri, as_is, size, skipped = "plain", True, 4, {}

    def items(self, indices: Any = None) -> Any:
        images = noise(4)
        for i in range(4) if indices is None else indices:
            yield str(i), images[i]


class Named(Plain):
    """Another, that names clusters."""

    def clusters(self, indices: Any, column: str) -> list[tuple[str, Any]]:
        return [(str(i), i // 2) for i in indices]


def test_a_source_of_somebody_elses() -> None:
    assert clusters_of(Named(), (3, 0), "any") == {"3": "1", "0": "0"}
    for source in (Plain(), KeptSource(Plain())):
        with pytest.raises(UsageError) as caught:
            clusters_of(source, (0,), "patient")
        assert str(caught.value) == (
            "--cluster patient: 'plain' is a source that names no clusters; a table does (a column), an .npz (an"
            " array), and a folder of images (folder)"
        )


# --- plans, results, keys ---------------------------------------------------------------------------------------


def plan(data: Any, taps: list[str] | None = None, model: Any = None, **settings: Any) -> Plan:
    return plan_of(request_of(str(model), data, "C4", taps=taps, provider="cpu", **settings))


def test_a_plan_has_the_clusters_of_its_images(desk: Path) -> None:
    model, data = desk / "cnn.onnx", str(desk / "ids.parquet")
    assert plan(data, model=model).units is None
    found = plan(data, model=model, samples=5, spread_samples=8, cluster="patient")
    wanted = [*found.indices, *(i for i in found.spread_indices if i not in found.indices)]
    assert len(wanted) == 8
    assert found.units == {f"i{i}": PATIENTS[i] for i in wanted}
    # no points are looked at where no variant is relative to M
    found = plan(data, ["block1"], model, samples=5, cluster="patient")
    assert found.units == {f"i{i}": PATIENTS[i] for i in found.indices}


def test_python_takes_it_too(desk: Path) -> None:
    results = measure(str(desk / "cnn.onnx"), str(desk / "x.npz"), "C4", cluster="patient")
    assert {r.data["cluster"] for r in results} == {"patient"}
    with pytest.raises(UsageError) as caught:
        measure(lambda x: {"y": x}, noise(4), "C4", cluster="patient")
    assert str(caught.value) == (
        "--cluster patient: 'array' holds one array and has no columns; save the images and an array 'patient', one"
        " value an image, in one .npz"
    )
    assert measure(lambda x: {"y": x}, Named(), "C4", cluster="any")[0].data["cluster"] == "any"


def keys(desk: Path, *args: Any) -> dict[tuple[str, str], str]:
    result = run(*ask(desk, *args, "--json"))
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {(r["tap"]["name"], r["variant"]): r["key"] for r in lines}


def test_keys_depend_on_the_clusters_and_on_nothing_else(desk: Path, tmp_path: Path) -> None:
    plain, clustered = keys(desk, "ids.parquet"), keys(desk, "ids.parquet", "--cluster", "patient")
    assert plain.keys() == clustered.keys()
    assert not set(plain.values()) & set(clustered.values())
    # the same images, another patient for the last of them
    moved = table(tmp_path / "moved.parquet", id=[f"i{k}" for k in range(COUNT)], patient=[*PATIENTS[:-1], "p0"])
    assert keys(desk, moved) == plain
    other = keys(desk, moved, "--cluster", "patient")
    assert not set(other.values()) & set(clustered.values())
    # without the taps that M is for, too
    some = keys(desk, "ids.parquet", "--samples", 5, "--cluster", "patient", "--tap", "block1")
    every = keys(desk, "ids.parquet", "--samples", 5, "--cluster", "patient")
    assert some.items() <= every.items()


# --- the command line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "column", "more"),
    [
        ("t.parquet", "patient", ()),
        ("t.parquet", "patient", ("--streaming",)),
        ("x.npz", "patient", ()),
        ("site", "folder", ()),
    ],
)
def test_a_result_says_which_column_it_was(desk: Path, data: str, column: str, more: tuple[str, ...]) -> None:
    result = run(*ask(desk, data, "--samples", "all", "--cluster", column, *more, "--json"))
    assert result.exit_code == 0, result.output
    clustered = [json.loads(line) for line in result.stdout.splitlines()]
    result = run(*ask(desk, data, "--samples", "all", *more, "--json"))
    plain = [json.loads(line) for line in result.stdout.splitlines()]
    assert {r["data"]["cluster"] for r in clustered} == {column}
    assert not any("cluster" in r["data"] for r in plain)
    # the unit is a matter of intervals, and of no value
    assert [r["value"] for r in clustered] == [r["value"] for r in plain]


@pytest.mark.parametrize(
    ("code", "data", "column", "said"),
    [
        (2, "t.parquet", "patiant", "unknown column 'patiant': did you mean 'patient'?; in {}"),
        (2, "x.npz", "patiant", "unknown array 'patiant': did you mean 'patient'?; in {}"),
        (
            1,
            "t.parquet",
            "holed",
            "{}: 'holed' has no value for image '7' (row 7, counted from 0); every image needs a cluster",
        ),
        (
            1,
            "t.csv",
            "patient",
            "{}: 'patient' has no value for image '4' (row 4, counted from 0); every image needs a cluster",
        ),
        (
            1,
            "x.npz",
            "number",
            "{}: 'number' has no value for image 'i5' (row 5, counted from 0); every image needs a cluster",
        ),
        (1, "x.npz", "short", "{}: array 'short' has 5 values for 12 images; expected one each"),
        (
            1,
            "x.npz",
            "square",
            "{}: array 'square' is float64 (12, 2); expected one axis of text or numbers, the cluster of each image",
        ),
        (
            1,
            "t.parquet",
            "one",
            "{}: the sample of 12 images is one cluster, one 'a'; an interval over clusters takes at least 2:"
            " measure more images, or leave out --cluster",
        ),
        (1, "t.parquet", "image", "{}: 'image' holds bytes for image '0'; expected text or numbers that name clusters"),
        (
            2,
            "x.npy",
            "patient",
            "--cluster patient: '{}' holds one array and has no columns; save the images and an array 'patient', one"
            " value an image, in one .npz",
        ),
        (
            2,
            "site",
            "patient",
            "--cluster patient: '{}' is a folder of images and has no columns; the word 'folder' takes the folder that"
            " each image lies in for its cluster",
        ),
        (
            1,
            "flat",
            "folder",
            "{}: 12 of 12 images lie in no folder below it, such as '00.png', so --cluster folder tells nothing of"
            " them; put each into the folder of its cluster",
        ),
        (
            1,
            "mixed",
            "folder",
            "{}: 1 of 12 images lie in no folder below it, such as '00.png', so --cluster folder tells nothing of them;"
            " put each into the folder of its cluster",
        ),
    ],
)
def test_clusters_that_cannot_be_told(desk: Path, code: int, data: str, column: str, said: str) -> None:
    result = run(*ask(desk, data, "--samples", "all", "--cluster", column))
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == f"error: {said.format(desk / data)}\n"


def test_one_image_is_one_cluster(desk: Path) -> None:
    result = run(*ask(desk, "t.parquet", "--samples", 1, "--cluster", "patient"))
    assert result.exit_code == 1
    assert "the sample of 1 image is one cluster, patient 'p" in result.stderr


def test_compare_takes_it_for_models(desk: Path) -> None:
    models = (desk / "cnn.onnx", desk / "other.onnx")
    result = run("compare", *models, "--data", desk / "t.parquet", "--group", "C4", "--cluster", "patiant")
    assert result.exit_code == 2
    assert "unknown column 'patiant': did you mean 'patient'?" in result.stderr
    result = run("compare", *models, "--data", desk / "t.parquet", "--group", "C4", "--cluster", "patient", "--json")
    assert result.exit_code == 0, result.output
    run(*ask(desk, "t.parquet", "--json"), "-o", desk / "r.jsonl")
    result = run("compare", desk / "r.jsonl", desk / "r.jsonl", "--cluster", "patient")
    assert result.exit_code == 2
    assert "--cluster: for models that are measured now" in result.stderr


def test_a_suite_takes_it_for_a_data_set(desk: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.parquet"
    data.write_bytes((desk / "ids.parquet").read_bytes())
    text = f'group = "C4"\nsamples = "all"\nmodels = "{desk}/cnn.onnx"\n[[data]]\nsource = "{data}"\n'
    (tmp_path / "suite.toml").write_text(text + 'cluster = "patient"\n')
    suite = load_suite(tmp_path / "suite.toml")
    (tmp_path / "again.toml").write_text(suite_toml(suite))
    assert load_suite(tmp_path / "again.toml").data == suite.data
    ask_run = ("run", tmp_path / "suite.toml", "-o", tmp_path / "run", "--json")
    lines = [json.loads(line) for line in run(*ask_run).stdout.splitlines()]
    assert {r["data"]["cluster"] for r in lines} == {"patient"}
    assert "0 measured" in run(*ask_run).stderr
    # the images are the same; that one is another patient's is no less another measurement
    table(data, id=[f"i{k}" for k in range(COUNT)], patient=[*PATIENTS[:-1], "p0"])
    assert "0 measured" not in run(*ask_run).stderr
    (tmp_path / "suite.toml").write_text(text + 'cluster = "patiant"\n')
    result = run("run", tmp_path / "suite.toml", "-o", tmp_path / "wrong")
    assert result.exit_code == 4
    [reason] = {json.loads(x)["reason"] for x in (tmp_path / "wrong" / "results.jsonl").read_text().splitlines()}
    assert reason.startswith("unknown column 'patiant': did you mean 'patient'?; in ")
    (tmp_path / "suite.toml").write_text(text + "cluster = 3\n")
    result = run("run", tmp_path / "suite.toml", "-o", tmp_path / "wrong")
    assert result.exit_code == 2
    assert 'data[0].cluster: 3 – expected the name of a column, or "folder"' in result.stderr


def test_an_array_is_no_cluster_of_itself(desk: Path) -> None:
    with pytest.raises(DataError, match=r"array 'x' is float32 \(12, 1, 9, 9\); expected one axis"):
        clusters_of(open_source(str(desk / "x.npz")), (0,), "x")
    with pytest.raises(UsageError, match="holds one array and has no columns"):
        clusters_of(ArraySource("array", noise(3)), (0,), "x")
