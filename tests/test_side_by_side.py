"""Networks side by side on a terminal: whole numbers at any width, names shown and never interpreted."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from engine_tools import SMALL_TAPS, noise, small_net
from page_results import before, result

from geed_onnx import Result, measure
from geed_onnx.reports import print_side_by_side

Array = np.ndarray


def measured(scale: float) -> list[Result]:
    def net(x: Array) -> dict[str, Array]:
        return {name: y * (scale if name == "latent" else 1) for name, y in small_net(x).items()}

    return measure(net, noise(6), "C4", taps=SMALL_TAPS, samples="all")


def printed(networks: dict[str, list[Result]], width: int) -> str:
    out = io.StringIO()
    print_side_by_side(networks, file=out, width=width)
    return out.getvalue()


NETWORKS = {"a network with a rather long name": measured(1.0), "scores only": measured(2.0)[-1:]}


@pytest.mark.parametrize("width", [160, 80, 60, 44, 30])
def test_a_narrow_table_leaves_columns_out_and_never_cuts_a_number(width: int) -> None:
    text = printed(NETWORKS, width)
    assert "…" not in text
    whole = printed(NETWORKS, 160)
    numbers = set(re.findall(r"-?\d+\.\d+", whole))
    assert set(re.findall(r"-?\d+\.\d+", text)) <= numbers
    tables = [line for line in text.splitlines() if not line.startswith(("calibrated", "raw", "left out", "("))]
    assert max(len(line) for line in tables) <= width
    gone = [line for line in text.splitlines() if line.startswith("left out for want of width: ")]
    assert bool(gone) == (width == 30)


def test_values_stand_under_their_headings_and_what_is_not_there_is_a_dash() -> None:
    calibrated, raw = printed(NETWORKS, 160).split("raw: ")
    [first] = [line for line in calibrated.splitlines() if line.startswith("a network")]
    [other] = [line for line in raw.splitlines() if line.startswith("scores only")]
    by_variant = {r.variant: r for r in NETWORKS["a network with a rather long name"]}
    wanted = [by_variant[v] for v in ("channelwise", "latent-l2", "softmax")]
    assert any(r.calibrated is not None for r in wanted)
    reasons = sorted({str(r.why_uncalibrated) for r in wanted if r.calibrated is None})
    assert reasons
    for word, r in zip(first.split()[-3:], wanted, strict=True):
        if r.calibrated is None:
            assert word == f"–({1 + reasons.index(str(r.why_uncalibrated))})"
        else:
            assert float(word) == pytest.approx(r.calibrated, abs=6e-4)
    assert [line[4:] for line in raw.splitlines() if line.startswith("(")] == reasons
    assert other.split()[2:4] == ["–", "–"]
    assert float(other.split()[-1]) == pytest.approx(by_variant["softmax"].value, abs=6e-4)
    assert [line.split() for line in raw.splitlines() if line.startswith("network")] == [
        ["network", "map", "latent", "scores"]
    ]


def test_a_dash_has_its_reason_and_each_reason_stands_once() -> None:
    flat = result(tap="map", calibrated=None, calibrated_reason="insensitive: all alike")
    none = result(tap="map", value=None, calibrated=None, reason="zero spread")
    text = printed({"flat": [flat], "old": [before(flat)], "none": [none], "fine": [result(tap="map")]}, 100)
    calibrated, raw = text.split("raw: ")
    cells = {calibrated: ("–(1)", "–(1)", "–(2)", "0.500"), raw: ("-0.700", "-0.700", "–(2)", "-0.700")}
    for table, wanted in cells.items():
        rows = {line.split()[0]: line.split()[1] for line in table.splitlines() if len(line.split()) == 4}
        assert tuple(rows[name] for name in ("flat", "old", "none", "fine")) == wanted
    assert raw.splitlines()[-2:] == ["(1) insensitive: all alike", "(2) zero spread"]


def test_the_disc_is_said_and_that_it_does_not_mix() -> None:
    disc = result(data="x", tap="map")
    disc = replace(disc, data={**disc.data, "mask": "disc"})
    assert "latent and scores; inside the inscribed disc\n" in printed({"a": [disc], "b": [disc]}, 100)
    assert "some inside the inscribed disc, others not, and these do not compare" in printed(
        {"a": [disc], "b": [result(tap="map")]}, 100
    )
    assert "disc" not in printed({"b": [result()]}, 100)


def test_names_are_shown_and_not_interpreted() -> None:
    text = printed({"[bold]\x1b[31mred": NETWORKS["scores only"]}, 100)
    assert "[bold]\\x1b[31mred" in text
    assert "\x1b" not in text
