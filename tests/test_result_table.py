"""Results on a terminal: intervals at every width, no number cut, every dash with its reason."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_nets as nets
import pytest
from click.testing import CliRunner
from page_results import before, result

from geed_onnx import Result
from geed_onnx.cli import main
from geed_onnx.reports import print_results

ENDS = ("low", "high", "calibrated_low", "calibrated_high")


def printed(results: list[Result], width: int | None) -> str:
    out = io.StringIO()
    print_results(results, out, width)
    return out.getvalue()


def rows() -> list[Result]:
    """Five variants, of which one is tiny: its numbers are written with exponents."""
    small = dict.fromkeys(("low", "high", "calibrated_low", "calibrated_high"), 1.25e-7)
    return [
        result(tap="block1", sensitivity=0.3),
        result(tap="block2", value=-1.0, low=-1.0, high=-1.0),
        result(tap="latent", variant="latent-cosine-bounded", kind="vector"),
        result(tap="scores", variant="softmax", kind="probability", value=1.25e-7, calibrated=1.25e-7, **small),
        result(tap="scores", variant="softmax", calibrated=None, calibrated_reason="insensitive: all alike"),
    ]


@pytest.mark.parametrize("width", [200, 160, 130, 110, 100, 90, 80, 72])
def test_value_interval_and_calibrated_are_there_at_every_width_from_72_on(width: int) -> None:
    text = printed(rows(), width)
    table = text.split("\n(1) ")[0].splitlines()[1:]
    assert max(map(len, table)) <= width
    assert "…" not in text
    for r in rows():
        for number in (r.value, r.calibrated, *(getattr(r, name) for name in ENDS)):
            if number is not None:
                assert (f"{number:.3f}" in text) or (f"{number:.2e}" in text)
    gone = "".join(re.findall("left out for want of width: (.*); a wider terminal shows them, --json has them", text))
    assert not {"interval", "calibrated interval"} & set(gone.split(", "))
    # whatever is not there is said, and what is said is not there
    for name in ("optimum", "floor", "null", "sensitivity"):
        assert (name in gone) != any(re.search(rf"\b{name}\b", line) for line in table[:2])
    assert bool(gone) == (width < 160)
    if width >= 80:
        assert "floor" not in gone
        assert "null" not in gone


@pytest.mark.parametrize("width", [60, 50, 40])
def test_a_very_narrow_table_never_cuts_a_number(width: int) -> None:
    text = printed(rows(), width)
    numbers = r"-?\d+\.\d+(?:e-\d+)?"
    assert set(re.findall(numbers, text)) <= set(re.findall(numbers, printed(rows(), 200)))
    assert "left out for want of width: sensitivity, optimum" in text
    assert text.count("[") == text.count("]")
    assert max(map(len, text.split("\n(1) ")[0].splitlines()[1:])) <= width


def test_long_names_fold_and_reasons_are_not_cut() -> None:
    long = result(tap="encoder/" * 40, calibrated=None, calibrated_reason="because " * 60)
    lines = printed([long], 80).splitlines()
    assert "(1) " + ("because " * 60).strip() in [line.strip() for line in lines]
    width = lines[5].index("[")
    names = [line[:width].strip() for line in lines[4:] if not line.startswith(("(1)", "left out", "*"))]
    assert "".join(names) == "encoder/" * 40 + "channelwise"


def test_every_dash_has_its_reason_whichever_field_holds_it() -> None:
    flat = result(tap="a", calibrated=None, calibrated_reason="insensitive: all alike")
    none = result(tap="b", value=None, calibrated=None, reason="zero spread")
    lines = printed([flat, before(flat), none, result(tap="c")], 200).splitlines()
    found = {line.split()[0]: line.rstrip().endswith(("(1)", "(2)")) for line in lines if " channelwise " in line}
    assert found == {"a": True, "b": True, "c": False}
    assert lines[-3:-1] == ["(1) insensitive: all alike", "(2) zero spread"]


def test_an_end_that_is_not_known_is_a_dash_with_a_word() -> None:
    text = printed([result(value=0.0, low=0.0, high=None)], 160)
    assert "[0.000, –]" in text
    assert "no upper end: no variance among the images, and this distance has no largest value" in text
    assert "no lower end" not in text
    text = printed([result(low=None, high=None, method="none: one image")], 160)
    assert "– for an interval: none: one image" in text
    assert "for an" not in printed([result()], 160)


def test_the_heading_says_the_disc_and_the_clusters_and_tables_of_unlike_ones_are_apart() -> None:
    plain, units = result(), result(units=3)
    disc = replace(plain, data={**plain.data, "mask": "disc"})
    heads = [line for line in printed([plain, disc, units], 160).splitlines() if line.startswith("nets/one.onnx")]
    assert heads == [
        "nets/one.onnx · C4 · 8 images of images/",
        "nets/one.onnx · C4 · 8 images of images/ · inside the inscribed disc",
        "nets/one.onnx · C4 · 3 clusters (8 images) of images/",
    ]


#: The rows of such a measurement.
SEEN = ("channelwise", "channelwise", "latent-l2", "latent-cosine", "latent-cosine-bounded", "softmax")


def test_eighty_columns_of_a_real_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no terminal is as wide as COLUMNS says, as in a log of CI; without it, rows take one line each."""
    onnx.save(nets.cnn(size=9, classes=3), tmp_path / "cnn.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((12, 1, 9, 9), dtype=np.float32))
    command = ["measure", str(tmp_path / "cnn.onnx"), "--data", str(tmp_path / "x.npy"), "--group", "C8"]
    for columns, lines in (("80", 2), ("", 1)):
        monkeypatch.setenv("COLUMNS", columns)
        ran = CliRunner().invoke(main, [*command, "--samples", "12"])
        assert ran.exit_code == 0, ran.output
        _, *table = ran.stdout.splitlines()
        [rule] = [i for i, line in enumerate(table) if line.startswith("──")]
        assert rule == lines
        assert max(map(len, table[: rule + 1])) <= int(columns or 160)
        body = [
            line
            for line in table[rule + 1 :]
            if not line.startswith(("(", "*", "–", "left out", "caution", "channels"))
        ]
        starts = [i for i, line in enumerate(body) if line.startswith(("block", "latent ", "scores "))]
        rows = [body[start:end] for start, end in zip(starts, [*starts[1:], len(body)], strict=True)]
        names = ["".join(row) if lines == 1 else "".join(line.split("  ")[0] for line in row[1:]) for row in rows]
        assert [name for name, v in zip(names, SEEN, strict=True) if v not in name] == []
        for row, name in zip(rows, SEEN, strict=True):
            # a value and its interval at least; a name may fold once more
            assert "[" in "".join(row)
            assert len(row) == lines or (len(row) == lines + 1 and name not in row[1])
