"""Who is compared with whom, on what, tap by tap: alignment, refusals, what is not comparable, families, failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison_tools import (
    Raw,
    Row,
    alone,
    cell,
    failed,
    folder,
    model,
    random_raw,
    without_tables,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from geed_onnx.comparisons import (
    Comparison,
    Participant,
    align,
    compare,
    models_of,
    pairs_of,
    participants_of,
    picked,
    write_comparisons,
)
from geed_onnx.comparisons.alignment import by_depth
from geed_onnx.errors import DataError, UnknownName, UsageError
from geed_onnx.results import Collection, open_results

A, B = random_raw(1), random_raw(2, shift=0.05)


def one(a: Row, b: Row, **options: Any) -> Comparison:
    [row] = compare([(alone(a), alone(b))], **options).rows
    return row


# ---- alignment ------------------------------------------------------------------------------------------------------


def taps(*said: str) -> list[dict[str, str | None]]:
    """`name`, `name@module`, or either with `:kind`; a map where no kind is said."""
    found: list[dict[str, str | None]] = []
    for text in said:
        rest, _, kind = text.partition(":")
        name, _, path = rest.partition("@")
        found.append({"name": name, "module": path or None, "kind": kind or "map"})
    return found


@pytest.mark.parametrize(
    ("how", "a", "b", "expected"),
    [
        ("auto", ["x", "y"], ["y", "x"], [(0, 1, "name"), (1, 0, "name")]),
        ("auto", ["x@m.1", "y@m.2"], ["p@m.2", "x@m.9"], [(0, 1, "name"), (1, 0, "module")]),
        ("auto", ["x", "y"], ["x", "q"], [(0, 0, "name")]),
        ("auto", ["x", "y"], ["p", "q"], [(0, 0, "depth"), (1, 1, "depth")]),
        ("auto", ["x", "v:vector"], ["x", "w:vector"], [(0, 0, "name"), (1, 1, "depth")]),
        ("auto", ["x:map"], ["x:vector"], []),
        ("name", ["x", "y"], ["p", "q"], []),
        ("name", ["x@m"], ["x@n"], [(0, 0, "name")]),
        ("module", ["x@m", "y@n"], ["x@n", "q@m"], [(0, 1, "module"), (1, 0, "module")]),
        ("module", ["x@m", "y@m"], ["p@m"], []),
        ("module", ["x"], ["x"], []),
        ("depth", ["x", "y"], ["y", "x"], [(0, 0, "depth"), (1, 1, "depth")]),
        ("depth", ["a", "b", "c", "d", "e"], ["p", "q", "r"], [(0, 0, "depth"), (2, 1, "depth"), (4, 2, "depth")]),
        ("depth", ["only"], ["p", "q", "r"], [(0, 2, "depth")]),
        ("depth", [], ["p"], []),
    ],
)
def test_taps_are_brought_together(how: str, a: list[str], b: list[str], expected: list[tuple[int, int, str]]) -> None:
    found = align(taps(*a), taps(*b), how)
    assert [(m.a, m.b, m.by) for m in found] == expected
    back = align(taps(*b), taps(*a), how)
    assert sorted((m.b, m.a, m.by) for m in back) == sorted(expected)


@given(st.integers(2, 12), st.integers(2, 12))
def test_depth_pairs_are_nearest_and_one_to_one(k: int, n: int) -> None:
    found = by_depth(range(k), range(n))
    assert len(found) == min(k, n) == len({i for i, _ in found}) == len({j for _, j in found})
    assert found == sorted(found)
    for i, j in found:
        short, long, other, most = (i, j, k, n) if k <= n else (j, i, n, k)
        gaps = [abs(Fraction(short, other - 1) - Fraction(x, most - 1)) for x in range(most)]
        assert gaps[long] == min(gaps)
    assert sorted((i, j) for j, i in by_depth(range(n), range(k))) == found


def test_an_unknown_way_of_aligning() -> None:
    with pytest.raises(UnknownName, match="unknown alignment 'deph': did you mean 'depth'"):
        align([], [], "deph")
    with pytest.raises(UnknownName, match="unknown alignment 'deph'"):
        compare([], align="deph")


def test_rows_say_how_their_taps_were_matched() -> None:
    a = alone(cell(A, tap="conv"), cell(A, tap="head"), name="a")
    b = alone(cell(B, "b", tap="conv"), cell(B, "b", tap="Dense_1"), name="b")
    by_name = compare([(a, b)])
    assert [(r.tap_a["name"], r.tap_b["name"], r.aligned_by) for r in by_name.rows] == [("conv", "conv", "name")]
    assert set(by_name.notes) == {
        "in a, without a counterpart in b: head (vector:trivial:l2)",
        "in b, without a counterpart in a: Dense_1 (vector:trivial:l2)",
    }
    by_depth = compare([(a, b)], align="depth")
    assert [(r.tap_a["name"], r.tap_b["name"], r.aligned_by) for r in by_depth.rows] == [
        ("conv", "conv", "depth"),
        ("head", "Dense_1", "depth"),
    ]
    assert by_depth.notes == ()


# ---- the two sides --------------------------------------------------------------------------------------------------


def test_the_other_way_round_every_row_is_the_mirror_image() -> None:
    a = alone(cell(A, normaliser="spread-l2"), cell(A, tap="t2"), name="a")
    b = alone(cell(B, "b", normaliser="spread-l2"), cell(B, "b", tap="t2"), name="b")
    for pair in ((a, b), (without_tables(a), without_tables(b))):
        for of in ("value", "calibrated"):
            forth = compare([pair], on=of, within=0.3).rows
            back = compare([pair[::-1]], on=of, within=0.3).rows
            assert len(forth) == len(back) == 2
            for x, y in zip(forth, back, strict=True):
                assert x.judged.difference == -y.judged.difference  # type: ignore[operator]
                mirrored = (-y.judged.high, -y.judged.low)  # type: ignore[operator]
                assert (x.judged.low, x.judged.high) == pytest.approx(mirrored, rel=1e-9)
                assert (x.judged.a, x.judged.b) == (y.judged.b, y.judged.a)
                assert (x.verdict, x.holds) == (y.verdict, y.holds)


@pytest.mark.parametrize("of", ["value", "calibrated"])
def test_a_model_against_itself_is_equivalent_however_small_the_margin(of: Any) -> None:
    a = alone(cell(A, normaliser="spread-l2"))
    for pair in ((a, a), (without_tables(a), without_tables(a))):
        [row] = compare([pair], within=1e-12, on=of).rows
        assert (row.judged.difference, row.judged.low, row.judged.high) == (0.0, 0.0, 0.0)
        assert (row.verdict, row.holds) == ("equivalent", True)
        assert row.judged.paired


def test_lines_are_strict_json_with_every_field() -> None:
    row = one(cell(A), cell(B, "b"), within=0.2)
    line = json.loads(row.to_json(), parse_constant=lambda word: pytest.fail(word))
    assert line["schema"] == "geed-comparison/1"
    assert line["a"] == {"name": "a", "source": "a", "path": "a.onnx", "sha256": "sha of a"}
    assert line["b"]["name"] == "b"
    assert line["tap_a"] == {"name": "latent", "kind": "vector", "shape": [6], "module": None, "action": "trivial"}
    promised = {"a", "b", "tap_a", "tap_b", "aligned_by", "variant", "group", "on", "value_a", "value_b", "difference"}
    promised |= {"low", "high", "level", "method", "paired", "samples", "within", "verdict", "reason"}
    promised |= {"calibrated_a", "calibrated_b", "calibrated_difference", "calibrated_low", "calibrated_high"}
    promised |= {"calibrated_method", "calibrated_paired", "calibrated_reason", "different", "equivalent"}
    assert promised <= set(line)
    assert line["difference"] == pytest.approx(line["value_a"] - line["value_b"])
    assert line["low"] < line["difference"] < line["high"]
    assert (line["level"], line["paired"], line["samples"], line["within"]) == (0.95, True, 12, 0.2)
    assert line["value_a_low"] < line["value_a"] < line["value_a_high"]
    assert line["calibrated_difference"] == pytest.approx(line["calibrated_a"] - line["calibrated_b"])


def test_lines_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    row = one(cell(A), cell(B, "b"))
    write_comparisons(tmp_path / "c.jsonl", [row, row])
    assert (tmp_path / "c.jsonl").read_text(encoding="utf-8") == 2 * (row.to_json() + "\n")

    def stops() -> Any:
        yield row
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_comparisons(tmp_path / "c.jsonl", stops())
    assert [p.name for p in tmp_path.iterdir()] == ["c.jsonl"]
    assert (tmp_path / "c.jsonl").read_text(encoding="utf-8") == 2 * (row.to_json() + "\n")
    with pytest.raises(UsageError, match="there is no folder"):
        write_comparisons(tmp_path / "none" / "c.jsonl", [row])


# ---- without tables -------------------------------------------------------------------------------------------------


def test_without_tables_the_intervals_are_combined_and_it_is_said() -> None:
    a, b = alone(cell(A)), alone(cell(B, "b"))
    [row] = compare([(without_tables(a), without_tables(b))], within=5.0).rows
    [paired] = compare([(a, b)]).rows
    x, y = a.models[0].results[0], b.models[0].results[0]
    assert x.value is not None
    assert y.value is not None
    low = row.value.difference - np.hypot(x.value - x.low, y.high - y.value)  # type: ignore[operator]
    high = row.value.difference + np.hypot(x.high - x.value, y.value - y.low)  # type: ignore[operator]
    assert row.value.difference == x.value - y.value == pytest.approx(paired.value.difference)
    assert (row.value.low, row.value.high) == pytest.approx((low, high))
    assert not row.value.paired
    assert row.value.method is not None
    assert "MOVER" in row.value.method
    assert row.value.method.endswith("no tables of leave-one-out changes beside a and b")
    assert (row.verdict, row.holds) == ("equivalent", True)
    assert row.value.high is not None
    edge = max(abs(row.value.low or 0), row.value.high)
    [tight] = compare([(without_tables(a), without_tables(b))], within=edge * (1 - 1e-9)).rows
    assert tight.holds is False


def test_without_tables_on_one_side_only() -> None:
    row = compare([(alone(cell(A)), without_tables(alone(cell(B, "b"))))]).rows[0]
    assert not row.value.paired
    assert str(row.value.method).endswith("beside b")


def test_without_tables_there_is_one_level() -> None:
    a, b = (without_tables(alone(cell(raw, n))) for raw, n in ((A, "a"), (B, "b")))
    row = compare([(a, b)], level=0.9).rows[0]
    assert row.value.difference is None
    assert row.reason is not None
    assert "no interval at 0.9 can be made" in row.reason
    assert "the results' own intervals are at 0.95" in row.reason
    assert row.verdict is None
    mixed = compare([(a, without_tables(alone(cell(B, "b", level=0.9))))]).rows[0]
    assert "at 0.9 and 0.95" in str(mixed.reason)
    # with tables any level can be had, and results of two levels meet at 0.95
    rows = compare([(alone(cell(A, level=0.8)), alone(cell(B, "b", level=0.9)))]).rows
    assert (rows[0].value.level, rows[0].value.difference is not None) == (0.95, True)
    assert compare([(alone(cell(A, level=0.8)), alone(cell(B, "b", level=0.8)))]).rows[0].value.level == 0.8


def test_other_spread_points_or_references_are_not_paired() -> None:
    fewer = random_raw(2, points=13)
    row = one(cell(A, normaliser="spread-l2"), cell(fewer, "b", normaliser="spread-l2"))
    assert not row.value.paired
    assert "M were taken over different images (--spread-samples)" in str(row.value.method)
    references = random_raw(2, references=4)
    row = one(cell(A), cell(references, "b"))
    assert row.value.paired
    assert not row.calibrated.paired
    assert "(--reference-samples)" in str(row.calibrated.method)


# ---- the same data --------------------------------------------------------------------------------------------------


def test_other_images_are_refused() -> None:
    for change, says in (
        ({"fingerprint": "0" * 64}, "fingerprint ffffffffffff and 000000000000"),
        ({"seed": 3}, "seed 0 and 3"),
    ):
        with pytest.raises(DataError, match="were not measured on the same images") as caught:
            one(cell(A), cell(B, "b", **change))
        assert says in str(caught.value)
        assert "the same --data, --samples and --seed" in str(caught.value)
    with pytest.raises(DataError, match="number of images 12 and 10, fingerprint"):
        one(cell(A), cell(random_raw(2, n=10), "b", fingerprint="0" * 64))


def test_one_fingerprint_and_other_ids_is_damage() -> None:
    other = Raw({f"x{i}": row for i, row in B.deviations.items()})
    with pytest.raises(DataError, match="their tables are not of the same images"):
        one(cell(A), cell(other, "b"))


def test_preprocessing_and_provider_are_noted() -> None:
    row, result = cell(A), cell(B, "b")[0]
    data = {**result.data, "preprocessing": {"height": 29, "layout": "NHWC", "mean": [0.5], "notes": ["x"]}}
    mine = {**result.data, "preprocessing": {"height": 29, "layout": "NCHW", "mean": [0.0], "notes": []}}
    a = (replace(row[0], data=mine), row[1])
    b = (replace(result, data=data, runtime={"provider": "CUDA"}), cell(B, "b")[1])
    found = compare([(alone(a), alone(b))])
    assert found.rows[0].value.difference is not None
    assert found.notes == (
        "a and b are given their images differently: mean [0.0] and [0.5]",
        "a and b ran on different providers: tests and CUDA",
    )


def test_what_only_one_was_measured_with_is_noted() -> None:
    a = alone(cell(A, group="C4"), cell(A, group="C8"), name="a")
    found = compare([(a, alone(cell(B, "b", group="C8")))])
    assert [r.group_a["name"] for r in found.rows] == ["C8"]
    assert found.notes == ("C4 on 12 images was measured for a alone",)


# ---- comparable or not ----------------------------------------------------------------------------------------------

UNLIKE: list[tuple[dict[str, Any], str]] = [
    ({"group": "C8"}, "different groups, C4 (order 4) and C8 (order 4)"),
    ({"mask": "disc"}, "no mask and mask disc"),
    ({"tap_facts": {"shape": [32]}}, "latents of different width, 6 and 32"),
    ({"tap_facts": {"kernel": [0]}}, "f̂ is a mean over 4 and over 1 elements"),
]


@pytest.mark.parametrize(("changes", "says"), UNLIKE)
def test_raw_values_that_are_not_comparable_give_way_to_calibrated_ones(changes: dict[str, Any], says: str) -> None:
    row = one(cell(A), cell(B, "b", **changes))
    assert row.on == "calibrated"
    assert row.value.difference is None
    assert row.value.reason is not None
    assert row.value.reason.startswith("raw values are not comparable: ")
    assert says in row.value.reason
    assert row.value.a is not None
    assert row.calibrated.difference is not None
    assert row.calibrated.paired
    assert row.reason == row.value.reason
    assert row.verdict in ("different", "undecided")
    assert json.loads(row.to_json())["on"] == "calibrated"


def test_a_margin_for_raw_values_is_not_held_against_calibrated_ones() -> None:
    a, b = cell(A), cell(B, "b", group="C8")
    row = one(a, b, within=10.0)
    assert (row.on, row.holds, json.loads(row.to_json())["equivalent"]) == ("calibrated", False, False)
    assert one(a, b, within=10.0, on="calibrated").holds is True


@pytest.mark.parametrize(
    ("kind", "variant", "shapes", "comparable"),
    [
        ("map", "channelwise", ([16, 8, 8], [64, 8, 8]), True),
        ("map", "channelwise", ([16, 8, 8], [16, 4, 4]), False),
        ("map", "map:pixels:l2", ([16, 8, 8], [64, 8, 8]), False),
        ("probability", "softmax", ([10], [12]), False),
        ("vector", "latent-l2", ([64], [64]), True),
        ("map", "a-variant-of-a-plugin", ([16, 8, 8], [64, 8, 8]), False),
    ],
)
def test_which_shapes_are_comparable(
    kind: str, variant: str, shapes: tuple[list[int], list[int]], comparable: bool
) -> None:
    a, b = (
        cell(raw, name, kind=kind, variant=variant, tap_facts={"shape": shape})
        for raw, name, shape in ((A, "a", shapes[0]), (B, "b", shapes[1]))
    )
    assert (one(a, b).value.difference is not None) == comparable


def test_raw_values_whose_optimum_moves_have_no_difference_and_fail_nothing() -> None:
    """−1/M: the same rule as the gate's; what was asked for cannot be meant, so no exit code comes of it."""
    a, b = (cell(raw, name, variant="latent-cosine") for raw, name in ((A, "a"), (B, "b")))
    found = compare([(alone(a), alone(b))], within=1e-9)
    [row] = found.rows
    assert row.value.difference is None
    assert row.value.a is not None
    assert row.value.reason == (
        "raw values are not comparable: the optimum of latent-cosine moves with each network's own spread M; use"
        " latent-cosine-bounded or the calibrated value"
    )
    assert (row.on, row.holds, found.unproven) == ("calibrated", None, ())
    assert json.loads(row.to_json())["equivalent"] is None
    # on the calibrated scale it is held against δ as any other
    [asked] = compare([(alone(a), alone(b))], within=1e-9, on="calibrated").rows
    assert asked.holds is False
    for same in ("latent-cosine-bounded", "latent-l2", "vector:trivial:cosine"):
        assert one(cell(A, variant=same), cell(B, "b", variant=same)).value.difference is not None
    general = "vector:trivial:cosine:spread-l2"
    assert one(cell(A, variant=general), cell(B, "b", variant=general)).value.difference is None


def test_a_floor_measured_for_one_only() -> None:
    a, b = cell(A, floor_method="passes"), cell(B, "b", floor_method="optimum")
    row = one(a, b)
    assert row.value.difference is not None
    assert "measure both with --floor" in str(row.calibrated.reason)
    found = compare([(alone(cell(A)), alone(b))])
    assert found.rows[0].calibrated.difference is not None
    assert any("the optimum stands in for it" in note for note in found.notes)


def test_no_calibrated_value_has_its_reason() -> None:
    b, tables = cell(B, "b")
    blind = replace(b, calibrated=None, calibrated_low=None, calibrated_high=None, reason="not calibrated: blind")
    row = one(cell(A), (blind, replace(tables, calibrated=None)), on="calibrated")
    assert row.value.difference is not None
    assert (row.calibrated.difference, row.reason) == (None, "b: not calibrated: blind")
    told = replace(blind, reason="another", calibrated_reason="insensitive: blind")
    assert one(cell(A), (told, replace(tables, calibrated=None)), on="calibrated").reason == "b: insensitive: blind"
    assert row.calibrated.a is not None
    assert row.verdict is None


# ---- families -------------------------------------------------------------------------------------------------------


def seeds(name: str, shift: float, members: tuple[int, ...] = (0, 1, 2, 3), step: int | None = None) -> list[Row]:
    facts: dict[str, Any] = {"family": name} | ({} if step is None else {"step": step})
    return [
        cell(random_raw(10 * s + len(name), shift=shift), f"{name}-{s}-{step}", model={**facts, "seed": s})
        for s in members
    ]


def families(*rows: Row) -> tuple[Participant, ...]:
    return participants_of([model(r) for r in rows] and [replace(model(r), source="runs") for r in rows], families=True)


def test_families_of_the_same_seeds_are_paired_by_seed() -> None:
    a, b = seeds("plain", 0.0), seeds("augmented", 0.3)
    one_family, other = families(*a, *reversed(b))
    assert (one_family.name, len(one_family.models), one_family.family) == ("plain", 4, True)
    [row] = compare([(one_family, other)], within=1.0, level=0.9).rows
    x, y = ([r.value for r, _ in some] for some in (a, b))
    expected = stats.ttest_rel(x, y).confidence_interval(0.9)
    assert row.value.difference == pytest.approx(np.mean(x) - np.mean(y))
    assert (row.value.low, row.value.high) == pytest.approx(expected)
    assert row.value.paired
    assert (row.value.low_a, row.value.high_a) == pytest.approx(stats.t.interval(0.9, 3, np.mean(x), stats.sem(x)))
    assert row.verdict == "different but equivalent"
    line = json.loads(row.to_json())
    assert (line["models_a"], line["a"]["models"]) == (4, [r.label for r, _ in a])


def test_families_of_other_seeds_are_held_against_one_another_by_welch() -> None:
    a, b = seeds("plain", 0.0), seeds("augmented", 0.3, (4, 5, 6))
    [row] = compare([families(*a, *b)]).rows  # type: ignore[list-item]
    x, y = ([r.value for r, _ in some] for some in (a, b))
    expected = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert (row.value.low, row.value.high) == pytest.approx(expected)
    assert not row.value.paired
    assert "Welch" in str(row.value.method)


def test_families_say_what_their_interval_covers_and_cover_images_on_request() -> None:
    """Per image the mean change over the models of one family less that of the other, jackknifed, beside the seeds."""
    a, b = seeds("plain", 0.0), seeds("augmented", 0.3)
    pair = families(*a, *b)
    [row] = compare([pair]).rows  # type: ignore[list-item]
    assert row.value.method == (
        "Student t over 4 seeds, paired by seed; the models share their images, so it says nothing of other images"
    )
    [wide] = compare([pair], images=True).rows  # type: ignore[list-item]
    changes = [np.mean([t.value.changes for _, t in some], axis=0) for some in (a, b)]  # type: ignore[union-attr]
    u = changes[0] - changes[1]
    n = len(u)
    by_seed = np.array([x.value - y.value for (x, _), (y, _) in zip(a, b, strict=True)])  # type: ignore[operator]
    parts = [(by_seed.var(ddof=1) / 4, 3), ((n - 1) / n * ((u - u.mean()) ** 2).sum(), n - 1)]
    variance = sum(v for v, _ in parts)
    reach = stats.t.ppf(0.975, variance**2 / sum(v * v / d for v, d in parts)) * np.sqrt(variance)
    reach = max(reach, stats.t.ppf(0.975, 3) * np.sqrt(parts[0][0]))
    assert wide.value.difference == row.value.difference
    assert wide.value.high - wide.value.difference == pytest.approx(reach)  # type: ignore[operator]
    assert wide.value.method == "Student t over 4 seeds, paired by seed, and jackknife over images"
    assert wide.value.low_a < row.value.low_a  # type: ignore[operator]


def test_the_image_component_needs_the_tables_of_the_same_images() -> None:
    a, b = seeds("plain", 0.0), seeds("augmented", 0.3)
    bare = tuple(
        replace(p, models=tuple(replace(m, tables=lambda _: None) for m in p.models)) for p in families(*a, *b)
    )
    with pytest.raises(UsageError) as caught:
        compare([bare], images=True)  # type: ignore[list-item]
    assert str(caught.value) == (
        "--image-component: there are no tables of leave-one-out changes of plain-0-None beside runs; compare folders"
        " of geed-onnx run, or results with --tables"
    )
    fewer = [cell(random_raw(7, points=13), "plain-9", normaliser="spread-l2", model={"family": "plain", "seed": 9})]
    others = [
        cell(random_raw(s), f"plain-{s}", normaliser="spread-l2", model={"family": "plain", "seed": s}) for s in (1, 2)
    ]
    with pytest.raises(
        UsageError, match="'plain-1' and 'plain-9' do not share their images: their spreads M were taken"
    ):
        compare([families(*others, *fewer, *seeds("augmented", 0.3))], images=True)  # type: ignore[list-item]


def test_a_family_against_itself_is_one_measurement() -> None:
    [some] = families(*seeds("plain", 0.0))
    [row] = compare([(some, some)], within=1e-12).rows
    assert (row.value.difference, row.value.low, row.value.high, row.holds) == (0.0, 0.0, 0.0, True)


def test_a_copy_of_a_network_on_few_images_is_undecided() -> None:
    """Not the same measurement: nothing differs on 12 images, but 26 % of all may (1 − 0.025^(1/12))."""
    row = one(cell(A), cell(A, "b"), within=0.1)
    assert (row.value.difference, row.value.low, row.value.high) == (0.0, None, None)  # ℓ2 knows no largest value
    assert (row.verdict, row.holds) == ("undecided", False)
    facts: dict[str, Any] = {"kind": "probability", "variant": "probability:trivial:disagreement"}
    same = Raw({i: [0.0] * 4 for i in A.deviations})
    row = one(cell(same, **facts), cell(same, "b", **facts), within=0.1)
    assert (row.value.low, row.value.high) == (
        pytest.approx(0.025 ** (1 / 12) - 1),
        pytest.approx(1 - 0.025 ** (1 / 12)),
    )
    assert (row.verdict, row.holds) == ("undecided", False)


def test_a_family_and_a_single_model_have_no_interval() -> None:
    some = families(*seeds("plain", 0.0), cell(B, "b"))
    [row] = compare([(some[0], some[1])], within=10.0).rows
    assert (row.value.low, row.value.method) == (None, "none: one model in a family")
    assert (row.verdict, row.holds) == ("undecided", False)


def test_checkpoints_of_a_family_are_families_of_their_own() -> None:
    found = families(*seeds("plain", 0.0, step=100), *seeds("plain", 0.1, step=200))
    assert [(p.name, len(p.models)) for p in found] == [("plain @ step 100", 4), ("plain @ step 200", 4)]
    assert compare([found]).rows[0].value.paired  # type: ignore[list-item]


def test_a_member_without_a_number_is_named() -> None:
    rows = seeds("plain", 0.0)
    rows[2] = (replace(rows[2][0], value=None, low=None, high=None, reason="the spread M is 0"), rows[2][1])
    [row] = compare([families(*rows, *seeds("augmented", 0.3))]).rows  # type: ignore[list-item]
    assert row.value.difference is None
    assert row.reason == "plain-2-None: the spread M is 0"


def test_a_family_on_different_images_and_models_without_one() -> None:
    rows = seeds("plain", 0.0)
    data = {**rows[1][0].data, "fingerprint": "other"}
    rows[1] = (replace(rows[1][0], data=data), rows[1][1])
    with pytest.raises(DataError, match=r"family 'plain': its models .* were not all measured on the same images"):
        compare([families(*rows, *seeds("augmented", 0.3))])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="none of the models has a family"):
        families(cell(A), cell(B, "b"))


# ---- who takes part -------------------------------------------------------------------------------------------------


def named(*names: str) -> list[Participant]:
    return [alone(cell(A, n)) for n in names]


def test_the_first_is_the_reference_unless_another_is_named() -> None:
    old, new = named("a", "b"), named("c")
    assert [(x.name, y.name) for x, y in pairs_of([old, new])] == [("a", "b"), ("a", "c")]
    assert [(x.name, y.name) for x, y in pairs_of([old, new], reference="b")] == [("b", "a"), ("b", "c")]
    with pytest.raises(UnknownName, match="unknown reference 'aa': did you mean 'a'"):
        pairs_of([old, new], reference="aa")


def test_runs_can_be_compared_by_name() -> None:
    old, new = named("a", "b"), named("b", "a", "z")
    assert [(x.name, y.name) for x, y in pairs_of([old, new], by_name=True)] == [("b", "b"), ("a", "a")]
    assert all(x in old and y in new for x, y in pairs_of([old, new], by_name=True))
    with pytest.raises(UsageError, match="no model of a has its name elsewhere"):
        pairs_of([named("a"), named("b")], by_name=True)
    with pytest.raises(UsageError, match="give two"):
        pairs_of([old], by_name=True)
    with pytest.raises(UsageError, match="exclude one another"):
        pairs_of([old, new], by_name=True, reference="a")


def test_one_participant_has_nobody_to_be_compared_with() -> None:
    with pytest.raises(UsageError, match="there is only 'a' to compare; give two or more"):
        pairs_of([named("a")])


def test_models_are_picked_by_globs() -> None:
    some = [m for p in named("fp32", "int8", "[x]") for m in p.models]
    assert [m.name for m in picked(some, ["int*", "fp32"])] == ["fp32", "int8"]
    assert [m.name for m in picked(some, ["[x]"])] == ["[x]"]
    assert picked(some, []) == tuple(some)
    with pytest.raises(UnknownName, match="unknown model 'int9': did you mean 'int8'"):
        picked(some, ["int9"])


def test_models_of_a_folder(tmp_path: Path) -> None:
    again = cell(B, "a", model={"sha256": "0123456789abcdef"})
    again = (replace(again[0], key="another"), again[1])
    found = models_of(open_results(folder(tmp_path / "run", [cell(A), cell(B, "b"), again, failed("b")])))
    assert [m.name for m in found] == ["a (sha of a)", "a (01234567)", "b"]
    assert [len(m.results) for m in found] == [1, 1, 2]
    read = found[0].tables(found[0].results[0])
    assert read is not None
    assert read.value is not None
    assert read.value.value == found[0].results[0].value
    [row] = compare(pairs_of([participants_of(found[:2])])).rows
    assert row.value.paired
    assert row.value.difference == pytest.approx(one(cell(A), cell(B, "b")).value.difference, rel=1e-12)


def test_two_different_values_for_one_cell_are_refused() -> None:
    twice = alone(cell(A), cell(B), name="a")
    with pytest.raises(DataError, match="two results for vector:trivial:l2 of 'latent' in 'a', C4, with different val"):
        compare([(twice, alone(cell(B, "b")))])
    same = alone(cell(A), cell(A), name="a")
    assert len(compare([(same, alone(cell(B, "b")))]).rows) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: replace(r, tap=None), "tap must be an object"),
        (lambda r: replace(r, tap={"kind": "map"}), "tap must hold 'name'"),
        (lambda r: replace(r, group={"name": ["C4"]}), "group.name must be a text"),
        (lambda r: replace(r, value="0.5"), "value must be a finite number or null"),
        (lambda r: replace(r, low=float("nan")), "low must be a finite number or null"),
        (lambda r: replace(r, level=None), "level must be a finite number,"),
        (lambda r: replace(r, seed="0"), "seed must be a whole number"),
        (lambda r: replace(r, data={**r.data, "samples": None}), "data.samples must be a whole number"),
        (lambda r: replace(r, variant=None), "variant must be a text"),
        (lambda r: replace(r, data={**r.data, "mask": ["disc"]}), "data.mask must be a text"),
    ],
)
def test_a_damaged_result_is_refused(change: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(DataError, match=f"here: a damaged result: {says}"):
        models_of(Collection("here", (change(cell(A)[0]),)))
    with pytest.raises(DataError, match="here: there are no results in it"):
        models_of(Collection("here", ()))


# ---- failed cells ---------------------------------------------------------------------------------------------------


def test_a_model_that_failed_is_a_row_with_its_reason() -> None:
    a = alone(cell(A, tap="x"), cell(A, tap="y"), name="a")
    found = compare([(a, alone(failed("b")))], within=1.0)
    assert [(r.tap_a["name"], r.tap_b["name"], r.aligned_by) for r in found.rows] == [
        ("x", "*", None),
        ("y", "*", None),
    ]
    for row in found.rows:
        assert (row.value.difference, row.verdict, row.holds) == (None, None, False)
        assert row.reason == "b failed: the file is truncated"
        assert json.loads(row.to_json())["difference"] is None
    back = compare([(alone(failed("b")), a)]).rows
    assert [(r.tap_a["name"], r.tap_b["name"], r.a.name) for r in back] == [("*", "x", "b"), ("*", "y", "b")]
    [both] = compare([(alone(failed("a")), alone(failed("b")))]).rows
    assert both.reason == "a failed: the file is truncated; b failed: the file is truncated"


@pytest.mark.parametrize("spec", ["y", "y:vector", "?"])
def test_one_failed_tap_leaves_the_others(spec: str) -> None:
    a = alone(cell(A, tap="x"), cell(A, tap="y"), cell(A, tap="zz"), cell(A, tap="y", variant="latent-l2"), name="a")
    b = alone(cell(B, "b", tap="x"), failed("b", spec, "vector:trivial:l2"), name="b")
    found = compare([(a, b)])
    assert found.notes == ("in a, without a counterpart in b: zz (vector:trivial:l2), y (latent-l2)",)
    rows = {str(r.tap_a["name"]): r for r in found.rows}
    assert rows["x"].value.difference is not None
    assert rows["y"].reason == "b failed: the file is truncated"
    assert len(rows) == 2


def test_a_failure_that_meets_nothing_is_noted() -> None:
    b = alone(cell(B, "b", tap="x"), failed("b", "y"), name="b")
    found = compare([(alone(cell(A, tap="x")), b)])
    assert len(found.rows) == 1
    assert found.notes == ("in b, * of y failed: the file is truncated",)


def test_failures_elsewhere_are_nobody_elses() -> None:
    a = alone(cell(A, tap="x"), name="a")
    b = alone(cell(B, "b", tap="x"), failed("b", group={"name": "C8", "order": None}), name="b")
    [row] = compare([(a, b)]).rows
    assert row.value.difference is not None
    with pytest.raises(DataError, match="nothing of 'b' was measured, so there is nothing to compare: the file is tr"):
        compare([(a, alone(failed("b", group={"name": "C8", "order": None})))])


# ---- choosing rows --------------------------------------------------------------------------------------------------


def test_taps_and_variants_are_chosen() -> None:
    a = alone(*(cell(A, tap=t, variant=v) for t in ("x", "y") for v in ("latent-l2", "vector:trivial:l2")), name="a")
    b = alone(*(cell(B, "b", tap=t, variant=v) for t in ("x", "y") for v in ("latent-l2", "vector:trivial:l2")))

    def cells(**options: Any) -> list[tuple[str, str]]:
        return [(str(r.tap_a["name"]), r.variant) for r in compare([(a, b)], **options).rows]

    assert len(cells()) == 4
    assert cells(taps=["x"]) == [("x", "latent-l2"), ("x", "vector:trivial:l2")]
    assert cells(taps=["y:vector"], variants=["latent-l2"]) == [("y", "latent-l2")]
    assert cells(taps=["?"], variants=["vector:trivial:l2"]) == [("x", "vector:trivial:l2"), ("y", "vector:trivial:l2")]
    with pytest.raises(UnknownName, match="unknown tap 'z'; known: x, y; only taps that both sides have"):
        cells(taps=["z"])
    with pytest.raises(UnknownName, match="unknown variant 'latent-l3': did you mean 'latent-l2'"):
        cells(variants=["latent-l3"])
    with pytest.raises(UnknownName, match="unknown variant among the results 'softmax'"):
        cells(variants=["softmax"])


def test_nothing_in_common() -> None:
    a, b = alone(cell(A, tap="x")), alone(cell(B, "b", tap="y"))
    with pytest.raises(DataError, match=r"no tap and variant in common by name; --align depth .*'a' has x \(vector: "):
        compare([(a, b)], align="name")
    with pytest.raises(DataError, match="no tap and variant in common: 'a' has x"):
        compare([(a, alone(cell(B, "b", tap="x", kind="map")))])
    with pytest.raises(DataError, match="no tap and variant in common: "):
        compare([(a, alone(cell(B, "b", tap="x", variant="latent-l2")))])
    groups = alone(cell(B, "b", group="D4"), cell(B, "b", group="C8"), name="b")
    with pytest.raises(DataError, match="with C4 and 'b' with D4, C8: no group in common, and more than one"):
        compare([(alone(cell(A)), groups)])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"within": -0.1}, "positive number, not -0.1"),
        ({"within": 0.1, "level": 0.4}, "above 0.5"),
        ({"level": 1.0}, "level must lie between 0 and 1"),
        ({"on": "raw"}, "unknown number to compare 'raw'"),
    ],
)
def test_requests_that_cannot_be_meant(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        compare([(alone(cell(A)), alone(cell(B, "b")))], **options)


def test_numbers_too_large_to_subtract_are_no_number() -> None:
    a, b = (
        without_tables(alone(cell(raw, n, value=v, low=v, high=v))) for raw, n, v in ((A, "a", 1e308), (B, "b", -1e308))
    )
    row = compare([(a, b)]).rows[0]
    assert row.reason == "the two are too large to be subtracted"
    json.loads(row.to_json())
