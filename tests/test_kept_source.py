"""A kept source yields what its source yields, and asks it for nothing twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geed_onnx.sources import ArraySource, KeptSource, open_source

ARRAYS = np.random.default_rng(0).random((9, 1, 4, 4)).astype(np.float32)


class Counting:
    """An array source that counts what it is asked for."""

    def __init__(self) -> None:
        self.source = ArraySource("array", ARRAYS)
        self.uri, self.as_is, self.size = "array", True, 9
        self.skipped: dict[str, str] = {}
        self.asked: list[int] = []

    def items(self, indices: Sequence[int] | None = None) -> Iterator[tuple[str, Any]]:
        self.asked.extend(range(9) if indices is None else indices)
        return self.source.items(indices)


@given(st.lists(st.lists(st.integers(0, 8), max_size=12), max_size=5), st.sampled_from([0, 64, 200, 1 << 20]))
def test_it_yields_what_the_source_yields(requests: list[list[int]], most: int) -> None:
    kept = KeptSource(Counting(), most=most)
    for indices in requests:
        for (name, array), (expected, values) in zip(
            kept.items(indices), ArraySource("array", ARRAYS).items(indices), strict=True
        ):
            assert name == expected
            assert np.array_equal(array, values)


def test_each_image_is_read_once_while_there_is_room() -> None:
    source = Counting()
    kept = KeptSource(source)
    for _ in range(3):
        list(kept.items([3, 1, 4, 1, 5]))
    assert sorted(set(source.asked)) == [1, 3, 4, 5]
    assert len(source.asked) <= 5  # the 1 that came twice in one request may have been read with it
    small = KeptSource(Counting(), most=2 * ARRAYS[0].nbytes)
    for _ in range(2):
        list(small.items([0, 1, 2]))
    assert small.source.asked.count(0) == 1  # type: ignore[attr-defined]
    assert small.source.asked.count(2) == 2  # type: ignore[attr-defined]


def test_what_is_kept_cannot_be_changed() -> None:
    kept = KeptSource(Counting())
    [(_, array)] = kept.items([2])
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_images_that_are_left_out_shift_no_other(tmp_path: Path) -> None:
    for i in range(5):
        Image.fromarray(np.full((4, 4), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    plain = open_source(str(tmp_path), skip_bad=True)
    kept = KeptSource(open_source(str(tmp_path), skip_bad=True), aligned=False)
    for _ in range(2):
        for index in range(5):
            found, expected = (list(s.items([index])) for s in (kept, plain))
            assert [n for n, _ in found] == [n for n, _ in expected]
            assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, expected, strict=True))
        assert [n for n, _ in kept.items([0, 1, 2, 3])] == [n for n, _ in plain.items([0, 1, 2, 3])]
    assert kept.skipped == plain.skipped
