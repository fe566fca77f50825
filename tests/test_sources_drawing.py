"""Which images are drawn: defaults that take what is there, copies counted once, an order that no folder decides."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterator, Sequence
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
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geed_onnx import measure
from geed_onnx.cli import main
from geed_onnx.engine import finish, measure_part, measure_plan, merge, plan_of
from geed_onnx.errors import DataError, UsageError
from geed_onnx.requests import request_of
from geed_onnx.sources import ArraySource, KeptSource, as_images, draw, draw_distinct, open_source, permuted
from geed_onnx.suites import load_suite, suite_toml

Array = np.ndarray[Any, Any]


def pictures(contents: Sequence[int]) -> Array:
    """`(N, 3)` float32, equal rows for equal numbers."""
    return np.array([[k, k / 7, -k] for k in contents], np.float32)


class Looking(ArraySource):
    """Remembers whose content it was asked for."""

    def __init__(self, contents: Sequence[int]) -> None:
        super().__init__("looking", pictures(contents))
        self.looked: list[int] = []

    def digest(self, index: int) -> bytes:
        self.looked.append(index)
        return super().digest(index)


class Blind:
    """A source of somebody else's, which tells neither copies nor clusters."""

    uri, as_is, size, skipped = "blind", True, 6, {}

    def items(self, indices: Sequence[int] | None = None) -> Iterator[tuple[str, Array]]:
        for i in range(6) if indices is None else indices:
            yield str(i), np.zeros((1, 8, 8), np.float32)


# --- the draw ---------------------------------------------------------------------------------------------------


def test_without_copies_it_is_the_draw_of_old() -> None:
    source = ArraySource("x", pictures(range(300)))
    for samples in (1, 50, 300, "all"):
        found = draw_distinct(source, samples, None, seed=3)
        assert found == (draw(source, samples, 3), draw(source, 200, 3), ())
    assert draw_distinct(source, None, 7, seed=3) == (draw(source, 50, 3), draw(source, 7, 3), ())
    unwanted = draw_distinct(source, 9, 20, seed=3, spread=False)
    assert (unwanted.spread, unwanted.notes) == ((), ())  # none are too few


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=40),
    st.one_of(st.none(), st.just("all"), st.integers(1, 40)),
    st.one_of(st.none(), st.integers(2, 40)),
    st.integers(0, 3),
)
def test_every_content_once_as_far_as_asked_for(contents: list[int], samples: Any, spread: Any, seed: int) -> None:
    if any(isinstance(n, int) and n > len(contents) for n in (samples, spread)):
        return
    source = Looking(contents)
    sample, points, _ = draw_distinct(source, samples, spread, seed)
    order = draw(source, len(contents), seed)
    different = len(set(contents))
    # as many as are wanted and there are, no content twice
    assert len(sample) == min(different, {None: 50, "all": 50}.get(samples, samples))
    assert len(points) == min(different, spread or 200)
    for found in (sample, points):
        assert len({contents[i] for i in found}) == len(found)
    # the first of its content in the order of the draw
    walk = range(len(contents)) if samples == "all" else order
    seen = [contents[i] for i in walk]
    assert list(sample) == [i for at, i in enumerate(walk) if contents[i] not in seen[:at]][: len(sample)]
    # the larger draw contains the smaller, to the very copies
    small, large = sorted((set(sample), set(points)), key=len)
    if samples != "all":
        assert small <= large
    elif len(points) == different:
        assert set(points) == set(sample)
    # each looked at once at most, and none behind the last that was needed
    assert len(source.looked) == len(set(source.looked))
    if samples != "all":
        needed = max(order.index(i) for i in {*sample, *points}) + 1
        enough = len(sample) == (samples or 50) and len(points) == (spread or 200)
        assert set(source.looked) == set(order[: needed if enough else len(order)])


def test_no_more_images_are_looked_at_than_are_drawn() -> None:
    source = Looking(range(100_000))
    assert len(draw_distinct(source, 50, None, seed=0, spread=False).sample) == 50
    assert len(source.looked) == 50
    kept = KeptSource(source)
    for _ in range(3):
        draw_distinct(kept, 50, None, seed=0, spread=False)
    assert len(source.looked) == 100  # once more, and then it is remembered


@pytest.mark.parametrize(
    ("contents", "samples", "spread", "notes"),
    [
        (range(60), None, None, ()),
        (range(50), None, None, ()),
        (range(20), None, None, ("20 images: all there are (50 by default)",)),
        ([4], None, None, ("1 image: all there are (50 by default)",)),
        (range(20), 20, 20, ()),
        (range(20), "all", None, ()),
        (
            [*range(10)] * 5,
            None,
            None,
            (
                "40 of 50 images are copies of others and were left out: counted once",
                "10 images: all distinct ones there are (50 by default)",
            ),
        ),
        (
            [*range(10)] * 5,
            50,
            30,
            (
                "40 of 50 images are copies of others and were left out: counted once",
                "10 images: all distinct ones there are (50 were asked for)",
                "10 spread points: all distinct ones there are (30 were asked for)",
            ),
        ),
        (
            [*range(10)] * 5,
            "all",
            None,
            ("40 of 50 images are copies of others and were left out: counted once",),
        ),
        # one image for the sample has no copy; the ten spread points are looked for among all twenty
        ([0] * 11 + [*range(1, 10)], 1, 10, None),
    ],
)
def test_what_is_said_of_a_draw(contents: Sequence[int], samples: Any, spread: Any, notes: Any) -> None:
    source = ArraySource("x", pictures(contents))
    found = draw_distinct(source, samples, spread, seed=0)
    if notes is None:
        order = [contents[i] for i in draw(source, 20, seed=0)]
        passed = max(order.index(k) for k in range(10)) + 1
        assert passed > 10
        counted = f"{passed - 10} of {passed} images"
        notes = (f"spread points: {counted} are copies of others and were left out: counted once",)
    assert found.notes == notes


def test_only_an_explicit_number_is_too_large() -> None:
    source = ArraySource("x.npy", pictures(range(20)))
    with pytest.raises(DataError) as caught:
        draw_distinct(source, 21, None, 0)
    assert str(caught.value) == (
        "x.npy: 21 images were asked for, but there are only 20; ask for at most 20, or for 'all'"
    )
    with pytest.raises(DataError) as caught:
        draw_distinct(source, None, 21, 0)
    assert str(caught.value) == (
        "x.npy: 21 spread points were asked for, but there are only 20 images; ask for at most 20 (--spread-samples)"
    )
    for wrong in (0, -3, True, 2.5, "some"):
        with pytest.raises(UsageError, match="samples must be a positive number or 'all', not "):
            draw_distinct(source, wrong, None, 0)


def test_a_source_that_tells_no_copies_is_said_to(tmp_path: Path) -> None:
    found = draw_distinct(Blind(), 4, None, 0)
    assert len(found.sample) == 4
    assert found.notes == ("copies among 6 images were not looked for: that would read them twice",)
    pa.parquet.write_table(pa.table({"image": [png(0)] * 3 + [png(1)] * 3}), tmp_path / "t.parquet")
    streamed = draw_distinct(open_source(str(tmp_path / "t.parquet"), streaming=True), "all", None, 0)
    assert (streamed.sample, streamed.notes) == ((0, 1, 2, 3, 4, 5), found.notes)
    mapped = draw_distinct(open_source(str(tmp_path / "t.parquet")), "all", None, 0)
    assert (mapped.sample, len(mapped.spread)) == ((0, 3), 2)
    assert set(mapped.spread) == {0, 3}
    # addresses elsewhere are not fetched for it; a cell without an image is a copy of nothing
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "b.png").write_bytes(png(0))
    (tmp_path / "t.csv").write_text(f"file,n\na.png,1\nb.png,2\nfile://{tmp_path}/a.png,3\ngone.png,4\nlost.png,5\n")
    found = draw_distinct(open_source(str(tmp_path / "t.csv")), "all", None, 0)
    assert found.sample == (0, 2, 3, 4)
    assert found.notes == (
        "1 of 5 images are copies of others and were left out: counted once",
        "copies among 1 of 5 images were not looked for: that would read them twice",
    )


def test_files_damaged_alike_are_damaged_and_no_copies(tmp_path: Path) -> None:
    for k in range(6):
        (tmp_path / f"{k}.png").write_bytes(png(k % 2) if k % 3 else b"a page that says: not found")
    found = draw_distinct(open_source(str(tmp_path), skip_bad=True), "all", None, 0)
    # 0 and 3 are damaged; 1 and 5 are one picture, 2 and 4 another
    assert found.sample == (0, 1, 2, 3)
    assert found.notes == ("2 of 6 images are copies of others and were left out: counted once",)
    with pytest.raises(DataError, match=r"cannot read image '0\.png'"):
        draw_distinct(open_source(str(tmp_path)), "all", None, 0)


# --- the order of references ------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10_000), unique=True, max_size=60), st.integers(0, 99), st.randoms())
def test_an_order_of_the_seeds_whatever_order_is_given(indices: list[int], seed: int, chance: Any) -> None:
    found = permuted(indices, seed)
    assert sorted(found) == sorted(indices)
    assert all(isinstance(i, int) for i in found)
    shuffled = indices[:]
    chance.shuffle(shuffled)
    assert permuted(shuffled, seed) == permuted(sorted(indices), seed) == found


def test_neighbours_are_of_any_class() -> None:
    # ten classes of twenty, one after another: 19 of 199 other images are of one's own class
    for seed in range(5):
        assert permuted(range(200), seed) != permuted(range(200), seed + 1)
        for indices in (range(200), draw(ArraySource("x", pictures(range(200))), 100, seed)):
            order = permuted(indices, seed)
            pairs = [a // 20 == b // 20 for a, b in itertools.pairwise(order)]
            # five standard deviations of as many independent pairs
            p, n = 19 / 199, len(pairs)
            assert abs(sum(pairs) / n - p) < 5 * (p * (1 - p) / n) ** 0.5


def test_all_of_a_sample_is_ordered_as_it_would_be_drawn() -> None:
    source = ArraySource("x", pictures(range(30)))
    assert permuted(draw(source, "all", 4), 4) == permuted(draw(source, 30, 4), 4)


# --- measured ---------------------------------------------------------------------------------------------------


def flat(x: Array) -> dict[str, Array]:
    return {"latent": x.reshape(len(x), -1)}


def test_copies_weigh_nothing() -> None:
    images = noise(10)
    ten = measure(flat, images, "C4", taps=["latent"], samples="all")
    fifty = measure(flat, np.concatenate([images] * 5), "C4", taps=["latent"], samples="all")
    for a, b in zip(ten, fifty, strict=True):
        assert (b.samples, b.spread_samples, b.data["samples"]) == (10, 10, 10)
        assert (a.value, a.low, a.high, a.spread) == (b.value, b.low, b.high, b.spread)
        assert b.notes == ("40 of 50 images are copies of others and were left out: counted once",)


def test_every_share_comes_to_the_same_images() -> None:
    images = np.concatenate([noise(10)] * 3)

    def plan() -> Any:
        return plan_of(request_of(flat, images, "C4", taps=["latent"], seed=2))

    whole = [m.result for m in measure_plan(plan())]
    parts = [measure_part(plan(), part, 3) for part in range(3)]
    assert [m.result for m in finish(plan(), merge(merge(parts[2], parts[0]), parts[1]))] == whole
    assert whole[0].samples == 10


# --- the command line -------------------------------------------------------------------------------------------


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(value).integers(0, 256, (9, 9), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def run(*args: Any) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="geed-onnx")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, folders of 8, of 20, and of 50 images (10 pictures, 5 copies of each), and 50 in a stream."""
    desk = tmp_path_factory.mktemp("desk")
    onnx.save(nets.cnn(size=9, classes=3), desk / "cnn.onnx")
    onnx.save(nets.cnn(size=9, classes=3, seed=1), desk / "other.onnx")
    for name, contents in {"eight": range(8), "twenty": range(20), "fifty": [*range(10)] * 5}.items():
        (desk / name).mkdir()
        for i, content in enumerate(contents):
            (desk / name / f"{i:02}.png").write_bytes(png(content))
    pa.parquet.write_table(pa.table({"image": [png(k % 10) for k in range(50)]}), desk / "fifty.parquet")
    return desk


def ask(desk: Path, data: str, *more: Any) -> tuple[Any, ...]:
    return ("measure", desk / "cnn.onnx", "--data", desk / data, "--group", "C4", *more)


SHORT = "{} images: all there are (50 by default)"
COPIES = "40 of 50 images are copies of others and were left out: counted once"


@pytest.mark.parametrize(
    ("data", "more", "count", "notes"),
    [
        ("eight", (), 8, [SHORT.format(8)]),
        ("twenty", (), 20, [SHORT.format(20)]),
        ("twenty", ("--samples", 20), 20, []),
        ("twenty", ("--samples", "all"), 20, []),
        ("twenty", ("--spread-samples", 20), 20, [SHORT.format(20)]),
        ("fifty", (), 10, [COPIES, "10 images: all distinct ones there are (50 by default)"]),
        ("fifty", ("--samples", 50), 10, [COPIES, "10 images: all distinct ones there are (50 were asked for)"]),
        ("fifty", ("--samples", "all"), 10, [COPIES]),
        ("fifty.parquet", ("--samples", "all"), 10, [COPIES]),
        (
            "fifty.parquet",
            ("--samples", "all", "--streaming"),
            50,
            ["copies among 50 images were not looked for: that would read them twice"],
        ),
    ],
)
def test_what_is_there_is_measured_and_said(
    desk: Path, data: str, more: tuple[Any, ...], count: int, notes: list[str]
) -> None:
    result = run(*ask(desk, data, *more, "--json"))
    assert result.exit_code == 0, result.output
    assert result.stderr == "".join(f"warning: {note}\n" for note in notes)
    for line in result.stdout.splitlines():
        found = json.loads(line)
        assert found["samples"] == found["data"]["samples"] == count
        assert found["notes"][: len(notes)] == notes
        assert found["spread_samples"] in (None, count)


@pytest.mark.parametrize(
    ("code", "more", "said"),
    [
        (1, ("--samples", 9), "{}: 9 images were asked for, but there are only 8; ask for at most 8, or for 'all'"),
        (
            1,
            ("--spread-samples", 9),
            "{}: 9 spread points were asked for, but there are only 8 images; ask for at most 8 (--spread-samples)",
        ),
        (
            2,
            ("--samples", 0),
            "invalid value for '--samples': expected at least 1, got 0 (see geed-onnx measure --help)",
        ),
        (
            2,
            ("--samples", -3),
            "invalid value for '--samples': expected at least 1, got -3 (see geed-onnx measure --help)",
        ),
        (
            2,
            ("--samples", "some"),
            "invalid value for '--samples': expected a number of images or 'all', got 'some' (see geed-onnx measure"
            " --help)",
        ),
    ],
)
def test_a_number_that_was_asked_for_is_held(desk: Path, code: int, more: tuple[Any, ...], said: str) -> None:
    result = run(*ask(desk, "eight", *more))
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == f"error: {said.format(desk / 'eight')}\n"


def test_compare_takes_what_is_there_too(desk: Path) -> None:
    models = (desk / "cnn.onnx", desk / "other.onnx")
    result = run("compare", *models, "--data", desk / "eight", "--group", "C4", "--json")
    assert result.exit_code == 0, result.output
    assert {json.loads(line)["samples"] for line in result.stdout.splitlines()} == {8}
    assert result.stderr == "".join(f"warning: {m}: {SHORT.format(8)}\n" for m in models)
    result = run("compare", *models, "--data", desk / "eight", "--group", "C4", "--samples", 9)
    assert result.exit_code == 1
    assert "9 images were asked for, but there are only 8" in result.stderr


def test_a_suite_takes_what_is_there_too(desk: Path, tmp_path: Path) -> None:
    head = f'group = "C4"\nmodels = ["{desk}/cnn.onnx", "{desk}/other.onnx"]\ndata = "{desk}/fifty"\n'
    (tmp_path / "suite.toml").write_text(head)
    result = run("run", tmp_path / "suite.toml", "-o", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    assert {json.loads(line)["samples"] for line in result.stdout.splitlines()} == {10}
    # said once, though two models were measured
    for note in (COPIES, "10 images: all distinct ones there are (50 by default)"):
        assert result.stderr.count(note) == 1
    # the default is no number: it loads back as the default, and what was measured is known
    suite = load_suite(tmp_path / "run" / "suite.toml")
    assert suite.samples == (None,)
    assert "samples =" not in suite_toml(suite).replace("reference_samples =", "")
    again = run("run", tmp_path / "suite.toml", "-o", tmp_path / "run")
    assert "0 measured" in again.stderr
    dry = run("run", tmp_path / "suite.toml", "--dry-run")
    # named as from here, where that is shorter
    assert re.search(r"cnn · C4 · 10 images of \S*/fifty \(seed 0\)", dry.stdout)
    planned = run("run", tmp_path / "suite.toml", "--dry-run", "--json").stdout.splitlines()
    assert [json.loads(line)["samples"] for line in planned] == [10, 10]
    (tmp_path / "suite.toml").write_text("samples = 51\n" + head)
    result = run("run", tmp_path / "suite.toml", "-o", tmp_path / "more")
    assert result.exit_code == 4
    reasons = {json.loads(line)["reason"] for line in (tmp_path / "more" / "results.jsonl").read_text().splitlines()}
    assert reasons == {
        f"{desk}/fifty: 51 images were asked for, but there are only 50; ask for at most 50, or for 'all'"
    }


def test_arrays_taken_for_images_are_looked_through_too() -> None:
    source = as_images(ArraySource("x", np.zeros((4, 5, 5), np.float32)))
    assert draw_distinct(source, "all", None, 0)[:2] == ((0,), (0,))
