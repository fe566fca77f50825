"""A Result is read back exactly as it was written, and what is no Result is refused with its line."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import MISSING, FrozenInstanceError, asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geed_onnx.errors import DataError, GeedError, UsageError
from geed_onnx.results import SCHEMA, Result, finite, from_json, read_results, writable, write_results
from geed_onnx.results import writing as module

A_RESULT = Result(
    model={"path": "model.onnx", "sha256": "0" * 64, "producer": "pytorch 2.9"},
    data={"uri": "images/", "fingerprint": "abc", "samples": 50, "preprocessing": {"size": [29, 29], "mean": [0.1]}},
    group={"name": "C8", "order": 8},
    tap={"name": "relu/1:0", "kind": "map", "shape": [64, 56, 56], "layout": "NCHW", "kernel": [0]},
    variant="channelwise",
    value=-0.1 - 0.2,
    low=-0.74,
    high=1 / 3,
    level=0.95,
    method="jackknife",
    samples=50,
    optimum=-1.0,
    spread=None,
    floor=-0.98,
    null=5e-324,
    calibrated=0.40,
    calibrated_low=0.36,
    calibrated_high=1.7976931348623157e308,
    per_element=(-1.0, -0.1 * 3, 1e-17, 0.0),
    law_defect=0.0,
    reason=None,
    seed=0,
    runtime={"provider": "CPUExecutionProvider", "threads": 2},
    notes=("a note", "“quoted”, und: ü, 図\nline"),
    logits=None,
)
EMPTY = replace(A_RESULT, value=None, low=None, high=None, per_element=None, reason="no reason", notes=(), logits=True)

IN_PARTS = replace(
    A_RESULT,
    parts={
        "exact": {"elements": [0, 2], "value": -1.0, "low": -1.0, "high": -0.1 - 0.2, "reason": "not calibrated: ü"},
        "resampled": {"elements": [1, 3], "value": 1 / 3, "low": 5e-324, "high": 2.0, "calibrated": None},
    },
)

numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
rows = st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple)
texts = st.text(st.characters(exclude_categories=["Cs"]))  # a lone surrogate is no text


@st.composite
def any_result(draw: st.DrawFn) -> Result:
    names = ("value", "low", "high", "optimum", "spread", "floor", "null", "calibrated", "sensitivity", "zero_channels")
    return replace(
        A_RESULT,
        **{name: draw(numbers) for name in names},
        notes=tuple(draw(st.lists(texts))),
        reason=draw(st.none() | texts),
        calibrated_reason=draw(st.none() | texts),
        **{name: draw(st.none() | rows) for name in ("per_element", "floor_per_element", "null_per_element")},
        units=draw(st.none() | st.integers(1, 500)),
        tap={"name": draw(texts), "shape": draw(st.lists(st.integers(0, 9)))},
        seed=draw(st.integers()),
        logits=draw(st.none() | st.booleans()),
        spread_samples=draw(st.none() | st.integers(0, 500)),
    )


def exactly(a: Result, b: Result) -> bool:
    """Equal in every field, in type and in the sign of zero too."""
    return a == b and repr(asdict(a)) == repr(asdict(b))


# ---- one line ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [A_RESULT, EMPTY, IN_PARTS])
def test_a_line_reads_back_exactly(result: Result) -> None:
    assert exactly(from_json(result.to_json()), result)
    assert "\n" not in result.to_json()


@given(any_result())
def test_any_result_reads_back_exactly(result: Result) -> None:
    assert exactly(from_json(result.to_json()), result)


def test_the_line_is_the_contract() -> None:
    """DESIGN 6: these fields keep name and meaning; the schema comes first."""
    record = json.loads(A_RESULT.to_json())
    promised = {
        "schema",
        "model",
        "data",
        "group",
        "tap",
        "variant",
        "value",
        "low",
        "high",
        "level",
        "method",
        "samples",
        "optimum",
        "spread",
        "floor",
        "null",
        "calibrated",
        "calibrated_low",
        "calibrated_high",
        "per_element",
        "law_defect",
        "reason",
        "seed",
        "runtime",
    }
    assert promised <= set(record)
    assert next(iter(record)) == "schema"
    assert record["schema"] == SCHEMA == "geed-result/1"
    assert record["value"] == -0.1 - 0.2
    assert record["per_element"] == [-1.0, -0.1 * 3, 1e-17, 0.0]
    assert record["spread"] is None
    assert set(record) == {f.name for f in fields(Result)}
    assert record["parts"] is None


def test_a_line_of_before_there_were_parts_is_read() -> None:
    record = json.loads(A_RESULT.to_json())
    for later in ("parts", "calibrated_reason", "floor_per_element", "null_per_element", "units"):
        assert record.pop(later) is None
    assert from_json(json.dumps(record)) == A_RESULT


def test_why_there_is_no_calibrated_value_is_told_whichever_field_holds_it() -> None:
    none = replace(A_RESULT, calibrated=None)
    assert replace(none, calibrated_reason="few images: 1").why_uncalibrated == "few images: 1"
    # a line of before, and one without a value
    assert replace(none, reason="not calibrated: …").why_uncalibrated == "not calibrated: …"
    assert EMPTY.calibrated is not None
    assert replace(EMPTY, calibrated=None).why_uncalibrated == "no reason"
    assert replace(A_RESULT, calibrated=0.5, calibrated_reason="odd").why_uncalibrated is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float64("nan")])
@pytest.mark.parametrize("name", ["value", "null", "law_defect"])
def test_nan_is_never_written(bad: float, name: str, tmp_path: Path) -> None:
    broken = replace(A_RESULT, **{name: bad})
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.to_json()
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(A_RESULT, per_element=(0.0, bad)).to_json()
    with pytest.raises(ValueError):
        write_results(tmp_path / "r.jsonl", [A_RESULT, broken])
    assert list(tmp_path.iterdir()) == []


def test_finite() -> None:
    assert [finite(v) for v in (None, math.nan, math.inf, -math.inf)] == [None] * 4
    assert type(finite(np.float64(0.5))) is float
    assert finite(np.float64(0.5)) == 0.5
    assert finite(0) == 0.0


def test_a_result_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        A_RESULT.value = 0.0  # type: ignore[misc]


def test_unknown_fields_of_later_minor_schemas_are_left_out() -> None:
    record = {**json.loads(A_RESULT.to_json()), "colour": "blue"}
    assert from_json(json.dumps(record)) == A_RESULT


@pytest.mark.parametrize("name", [f.name for f in fields(Result) if f.name != "schema"])
def test_a_missing_field_is_named_unless_it_has_a_default(name: str) -> None:
    record = json.loads(A_RESULT.to_json())
    del record[name]
    default = next(f.default for f in fields(Result) if f.name == name)
    if default is MISSING:
        with pytest.raises(DataError, match=f"incomplete or malformed: .*'{name}'"):
            from_json(json.dumps(record))
    else:
        assert getattr(from_json(json.dumps(record)), name) == default


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "expected a line of JSON"),
        ("value: 3", "expected a line of JSON .*, got 'value: 3'"),
        ('{"schema": "geed-result/1"', "expected a line of JSON"),
        ("[1, 2]", "expected a result of schema 'geed-result/1', got 'list'"),
        ("null", "got 'NoneType'"),
        ("{}", "expected a result of schema 'geed-result/1', got None"),
        ('{"schema": "geed-result/2"}', "got 'geed-result/2'"),
        ('{"schema": "geed-result/1"}', "incomplete or malformed: .*'model', 'data'"),
        ('{"schema": "geed-result/1", "per_element": 3}', "incomplete or malformed"),
    ],
)
def test_what_is_no_result_is_refused(line: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        from_json(line)


def test_a_long_broken_line_is_quoted_in_part() -> None:
    with pytest.raises(DataError) as caught:
        from_json("x" * 10_000)
    assert len(str(caught.value)) < 200


# ---- a file --------------------------------------------------------------------------------------------------------


def test_a_file_reads_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_results(path, [A_RESULT, EMPTY])
    first, second = read_results(path)
    assert exactly(first, A_RESULT)
    assert exactly(second, EMPTY)
    assert len(path.read_text(encoding="utf-8").split("\n")) == 3
    write_results(path, [])
    assert list(read_results(path)) == []
    assert list(read_results(str(path))) == []


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\r\n", "\n"])
def test_line_separators_within_a_text_do_not_break_the_file(separator: str, tmp_path: Path) -> None:
    """JSON may hold U+2028 and U+0085 unescaped; str.splitlines would cut the record in two."""
    odd = replace(A_RESULT, reason=f"one{separator}two", model={"path": f"a{separator}b.onnx"})
    write_results(tmp_path / "r.jsonl", [odd, A_RESULT])
    assert list(read_results(tmp_path / "r.jsonl")) == [odd, A_RESULT]


def test_a_path_that_is_no_utf_8_reads_back_exactly(tmp_path: Path) -> None:
    odd = replace(A_RESULT, model={"path": b"caf\xe9.onnx".decode("utf-8", "surrogateescape")})
    write_results(tmp_path / "r.jsonl", [odd])
    assert list(read_results(tmp_path / "r.jsonl")) == [odd]


def test_empty_lines_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\r\n".join([A_RESULT.to_json().encode(), b"", b"  ", EMPTY.to_json().encode(), b""]))
    assert list(read_results(path)) == [A_RESULT, EMPTY]


@pytest.mark.parametrize("broken", ["{", "{}", A_RESULT.to_json()[:-20], '{"schema": "geed-result/9"}'])
def test_a_broken_line_is_named_by_its_number(broken: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(f"{A_RESULT.to_json()}\n\n{broken}\n{A_RESULT.to_json()}\n", encoding="utf-8")
    found = read_results(path)
    assert next(found) == A_RESULT
    with pytest.raises(DataError, match=r"r\.jsonl, line 3: expected a"):
        next(found)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read results from '.*none\.jsonl': No such file"):
        list(read_results(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match=r"cannot read results from .*: Is a directory"):
        list(read_results(tmp_path))
    (tmp_path / "binary").write_bytes(b"\x80\x81\xff\x00")
    with pytest.raises(DataError, match=r"cannot read results from .*: expected JSON Lines in UTF-8 text"):
        list(read_results(tmp_path / "binary"))


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_results(path, [A_RESULT])
    before = path.read_bytes()

    def stops() -> Iterator[Result]:
        yield EMPTY
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_results(path, stops())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_results(path, [A_RESULT])
    seen = []

    def looking() -> Iterator[Result]:
        yield EMPTY
        seen.append(list(read_results(path)))
        yield EMPTY

    write_results(path, looking())
    assert seen == [[A_RESULT]]
    assert list(read_results(path)) == [EMPTY, EMPTY]


def test_a_failed_rename_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(GeedError, match=r"cannot write results to '.*r\.jsonl': No space left on device"):
        write_results(tmp_path / "r.jsonl", [A_RESULT])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
def test_the_file_has_the_modes_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_results(tmp_path / "r.jsonl", [A_RESULT])
    plain, written = ((tmp_path / name).stat().st_mode for name in ("plain", "r.jsonl"))
    assert stat.S_IMODE(written) == stat.S_IMODE(plain)


# ---- where a file can be written -----------------------------------------------------------------------------------


def test_a_writable_path_is_returned_and_not_touched(tmp_path: Path) -> None:
    assert writable(tmp_path / "new.jsonl") == tmp_path / "new.jsonl"
    assert writable(str(tmp_path / "new.jsonl")) == tmp_path / "new.jsonl"
    assert list(tmp_path.iterdir()) == []
    write_results(tmp_path / "old.jsonl", [A_RESULT])
    assert writable(tmp_path / "old.jsonl") == tmp_path / "old.jsonl"
    assert list(read_results(tmp_path / "old.jsonl")) == [A_RESULT]


def test_a_folder_or_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is a folder; give a file name in it"):
        writable(tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder '.*missing'"):
        writable(tmp_path / "missing" / "r.jsonl")
    with pytest.raises(UsageError, match="there is no folder"):
        write_results(tmp_path / "missing" / "r.jsonl", [A_RESULT])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("denied", ["folder", "file"])
def test_a_path_without_permission_is_refused(denied: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the permission bits themselves bind no superuser, so the answer of the system is stood in for
    path = tmp_path / "r.jsonl"
    path.touch()
    closed = tmp_path if denied == "folder" else path
    monkeypatch.setattr(module.os, "access", lambda p, mode: not (Path(p) == closed and mode == os.W_OK))
    with pytest.raises(UsageError, match=r"cannot write results to '.*r\.jsonl': permission denied") as caught:
        writable(path, "results")
    assert caught.value.exit_code == 2
