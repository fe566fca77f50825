"""Nearest, bilinear and bicubic: against a loop over all pixels and GridSample, the laws, and all that says which."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from batch_tools import desk, lines, ran, suite
from click.testing import CliRunner
from comparison_tools import alone, cell, random_raw
from engine_tools import measured
from gallery_tools import run_folder
from gate_tools import cell as judged
from gate_tools import collected
from onnx_nets import cnn
from page_results import result as page_result

from geed_onnx import measure
from geed_onnx.actions import (
    INTERPOLATIONS,
    Action,
    DiscAction,
    GridAction,
    Interpolation,
    JointAction,
    TrivialAction,
    actions,
    disc,
    input_action,
    interpolated,
    interpolation_of,
    orbit_of,
    output_action,
    parse_declared,
    turn_matrix,
    within_disc,
)
from geed_onnx.batch.bench import Bench
from geed_onnx.batch.run import tasks_of
from geed_onnx.cli import main
from geed_onnx.comparisons import compare, models_of
from geed_onnx.comparisons.comparable import raw_problem
from geed_onnx.comparisons.settings import matched_settings
from geed_onnx.engine.keys import plan_facts
from geed_onnx.errors import ActionError, DataError, UnknownName
from geed_onnx.gallery import make_gallery
from geed_onnx.gates.baseline import find
from geed_onnx.groups import Group, parse_group
from geed_onnx.reports.page.contents import contents_of
from geed_onnx.results import Collection, open_results
from geed_onnx.suites import load_suite, suite_toml

Array = np.ndarray[Any, Any]
EVERY: list[Interpolation] = ["nearest", "bilinear", "bicubic"]
every = pytest.mark.parametrize("how", EVERY)
OTHERS: list[Interpolation] = ["nearest", "bicubic"]
others = pytest.mark.parametrize("how", OTHERS)
GROUPS = ["C4", "C8", "C3", "C12", "C16", "D3", "D8", "flip", "T2", "C8xS2@channel", "C2xC8"]


# ---- the oracle: every pixel of the frame weighs in, by its distance along each axis --------------------------------


def weight(how: str, distance: float) -> float:
    d = abs(distance)
    if how == "nearest":
        return 0.5 if math.isclose(d, 0.5, abs_tol=1e-9) else float(d < 0.5)
    if how == "bilinear":
        return max(0.0, 1 - d)
    a = -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


@cache
def slow_matrix(how: str, size: int, turn: Fraction, mirror: bool = False) -> Array:
    """(size², size²): reflect left-right, then turn counter-clockwise; from first words, pixel by pixel."""
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    out, centre = np.zeros((size, size, size, size)), (size - 1) / 2
    for i, j in np.ndindex(size, size):
        right, up = j - centre, centre - i
        source_right, source_up = cos * right + sin * up, cos * up - sin * right
        source_right = -source_right if mirror else source_right
        for r, c in np.ndindex(size, size):
            out[i, j, r, c] = weight(how, r - (centre - source_up)) * weight(how, c - (source_right + centre))
    return out.reshape(size * size, size * size)


def dense(action: Action) -> Array:
    """ρ(g) as matrices (|G|, d, d), found by moving every unit vector."""
    size = math.prod(action.shape)
    units = np.eye(size).reshape(size, *action.shape)
    return np.stack([action(g, units).reshape(size, size).T for g in action.group.elements])


@every
@pytest.mark.parametrize("name", ["C4", "C8", "C3", "C5", "C12", "C16", "D3", "D8", "D12"])
@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_every_turn_is_one_resampling_of_the_original(how: Interpolation, name: str, size: int) -> None:
    group, n = parse_group(name), int(name[1:])
    found = dense(input_action(group, (1, size, size), how))
    for g in group.elements:
        direct = slow_matrix(how, size, Fraction(g % n, n), g >= n)
        assert np.allclose(found[g], direct, rtol=0, atol=1e-12), g
    x = np.random.default_rng(size).standard_normal((2, 1, size, size)).astype(np.float32)
    action = input_action(group, (1, size, size), how)
    for g in group.elements:
        single, double = action(g, x), action(g, x.astype(np.float64))
        assert single.dtype == np.float32
        assert np.allclose(single, double, rtol=0, atol=1e-5)


def grid_sampler(mode: str) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    node = helper.make_node("GridSample", ["x", "grid"], ["y"], mode=mode, padding_mode="zeros", align_corners=0)
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, [None] * 4) for port in ("x", "grid", "y")]
    graph = helper.make_graph([node], "turn", ports[:2], ports[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def sampled(session: Any, x: Array, turn: Fraction) -> tuple[Array, Array]:
    """What GridSample makes of images (B, C, size, size), and where it samples, (size, size, 2) in pixels (x, y)."""
    size, angle = x.shape[-1], 2 * math.pi * turn
    centres = (np.arange(size) + 0.5) / size * 2 - 1  # normalised to [−1, 1]
    right, up = np.meshgrid(centres, -centres)
    source = np.stack(
        [math.cos(angle) * right + math.sin(angle) * up, math.sin(angle) * right - math.cos(angle) * up], axis=-1
    )
    grid = np.repeat(source[None], len(x), axis=0).astype(np.float32)
    (found,) = session.run(None, {"x": x, "grid": grid})
    return found, (source + 1) * size / 2 - 0.5


@pytest.mark.parametrize(("how", "mode"), [("nearest", "nearest"), ("bilinear", "linear"), ("bicubic", "cubic")])
@pytest.mark.parametrize("size", [4, 5, 12, 29])
def test_a_turn_by_any_angle_is_what_grid_sample_does(how: Interpolation, mode: str, size: int) -> None:
    session, rng = grid_sampler(mode), np.random.default_rng(size)
    x = rng.standard_normal((2, 3, size, size)).astype(np.float32)
    for turn in [Fraction(1, 8), Fraction(1, 12), *(Fraction(int(k), 9973) for k in rng.integers(1, 9973, 12))]:
        expected, place = sampled(session, x, turn)
        matrix = turn_matrix(turn, size, size, how)
        ours = (matrix @ x.reshape(6, -1).T.astype(np.float64)).T.reshape(x.shape)
        # float32 coordinates cannot tell which side of the middle of two pixels a sample lies
        sure = (np.abs(np.abs(place - np.floor(place)) - 0.5) > 1e-4).all(axis=-1) if how == "nearest" else slice(None)
        assert how != "nearest" or np.mean(sure) >= 0.5
        assert np.allclose(ours[..., sure], expected[..., sure], rtol=0, atol=2e-5), turn


@pytest.mark.parametrize(("turn", "size"), [(Fraction(1, 8), 4), (Fraction(1, 8), 12), (Fraction(1, 12), 5)])
def test_on_a_tie_nearest_takes_the_mean_of_both_and_grid_sample_one_of_them(turn: Fraction, size: int) -> None:
    matrix = turn_matrix(turn, size, size, "nearest").toarray()
    ties = np.flatnonzero((matrix == 0.5).any(axis=1))
    assert len(ties) >= 2
    assert all(sorted(matrix[p][matrix[p] > 0]) == [0.5, 0.5] for p in ties)
    x = np.random.default_rng(0).standard_normal((1, 1, size, size)).astype(np.float32)
    expected, _ = sampled(grid_sampler("nearest"), x, turn)
    for p in ties:
        both = x.ravel()[matrix[p] > 0]
        assert expected.ravel()[p] in both
    rest = np.setdiff1d(np.arange(size * size), ties)
    assert set(np.unique(matrix[rest])) == {0.0, 1.0}


@pytest.mark.parametrize("size", [2, 28, 224, 1000])
def test_ties_are_seen_as_such_at_every_size(size: int) -> None:
    """An eighth turn of an even frame: ties are the diagonals' samples within it, whatever rounding does to them."""
    matrix = turn_matrix(Fraction(1, 8), size, size, "nearest")
    tied = np.unique(np.repeat(np.arange(size**2), np.diff(matrix.indptr))[matrix.data == 0.5])
    rows, columns = np.indices((size, size)) - (size - 1) / 2
    diagonal = (np.abs(rows) == np.abs(columns)) & (math.sqrt(2) * np.abs(rows) < size / 2)
    assert np.array_equal(tied, np.flatnonzero(diagonal.ravel()))
    assert set(np.unique(matrix.data)) <= {0.5, 1.0}


def test_on_odd_sizes_an_eighth_turn_has_no_ties() -> None:
    for size in (3, 5, 29):
        assert set(np.unique(turn_matrix(Fraction(1, 8), size, size, "nearest").data)) == {1.0}


@every
def test_weights_inside_the_frame_add_up_to_one(how: Interpolation) -> None:
    """A constant stays constant where the disc and the support of the weights leave no corner in."""
    ones = np.ones((1, 1, 15, 15))
    action = input_action(parse_group("C16"), (1, 15, 15), how)
    for g in range(16):
        assert np.allclose(action(g, ones)[0, 0, 4:11, 4:11], 1, rtol=0, atol=1e-12)
        assert g % 4 == 0 or not np.allclose(action(g, ones), 1)


# ---- laws -----------------------------------------------------------------------------------------------------------

DECLARED = {"group": "C8", "fields": [{"type": "regular", "count": 1}]}


def law_cases() -> dict[str, Action]:
    found: dict[str, Action] = {}
    for how, name, size in itertools.product(OTHERS, GROUPS, (1, 2, 3, 4, 5)):
        try:
            action = input_action(parse_group(name), (2, size, size), how)
        except ActionError:  # T2 on an odd size
            continue
        found[f"{how} {name} {size}"] = action
        if name in ("C8", "D8", "C12"):
            found[f"{how} {name} {size} disc"] = within_disc(action, True)
    for how in OTHERS:
        found[f"{how} joint"] = output_action("pixels+roll:1:1", parse_group("C8"), (8, 4, 4), how)
        found[f"{how} declared"] = output_action(parse_declared(DECLARED), parse_group("C8"), (8, 3, 3), how)
    return found


CASES = law_cases()
every_case = pytest.mark.parametrize("case", CASES)


@cache
def matrices(case: str) -> Array:
    """ρ(g) of a case, (|G|, d, d); on arrays that are 0 outside the disc where the action is of those."""
    action = CASES[case]
    matrix = dense(action)
    if not isinstance(action, DiscAction):
        return matrix
    inside = np.broadcast_to(disc(*action.shape[-2:]), action.shape).ravel()
    return matrix[:, inside][:, :, inside]


def parts_of(action: Action) -> list[Action]:
    return [p for part in action.parts for p in parts_of(part)] if isinstance(action, JointAction) else [action]


@every_case
def test_exact_elements_multiply_as_the_group_does(case: str) -> None:
    """ρ(g)ρ(h) = ρ(gh) for all pairs of which one does not resample: ties must be symmetric for it."""
    action = CASES[case]
    matrix, group, turns = matrices(case), action.group, action.resampled_by
    assert np.array_equal(matrix[0], np.eye(len(matrix[0])))
    for g, h in itertools.product(group.elements, repeat=2):
        if not turns[g] or not turns[h]:
            assert np.allclose(matrix[g] @ matrix[h], matrix[group.product(g, h)], rtol=0, atol=1e-12), (g, h)


@every_case
def test_elements_of_one_turn_lose_the_same(case: str) -> None:
    """ρ(g⁻¹)ρ(g) is one operator for all elements of one turn: floors are taken of one of them."""
    action = CASES[case]
    matrix, inverse = matrices(case), action.group.inverse
    for turn in set(action.resampled_by):
        lost = [matrix[inverse(g)] @ matrix[g] for g, t in enumerate(action.resampled_by) if t == turn]
        assert all(np.allclose(some, lost[0], rtol=0, atol=1e-12) for some in lost)
        assert turn or np.allclose(lost[0], np.eye(len(lost[0])), atol=0)


@every_case
def test_the_kernel_is_a_subgroup_of_elements_that_do_nothing(case: str) -> None:
    """It holds all of them, but for turns too small for `nearest`, whose multiples do something."""
    action = CASES[case]
    matrix, product = matrices(case), action.group.product
    still = {g for g in action.group.elements if np.array_equal(matrix[g], np.eye(len(matrix[g])))}
    kernel = set(action.kernel)
    assert {product(a, b) for a in kernel for b in kernel} == kernel
    assert kernel <= still
    # ρ(gk) = ρ(g) for all g: what f̂ is a mean over
    factors = {
        k for k in action.group.elements
        if all(np.allclose(matrix[product(g, k)], matrix[g], rtol=0, atol=1e-12) for g in action.group.elements)
    }  # fmt: skip
    assert factors == kernel
    assert kernel == still or "nearest" in case


@every_case
def test_every_element_is_linear_and_the_orbit_holds_each_once(case: str) -> None:
    action, rng = CASES[case], np.random.default_rng(1)
    x, y = rng.standard_normal((2, 3, *action.shape))
    for g in action.group.elements:
        together = action(g, 2.5 * x - 0.75 * y)
        assert np.allclose(together, 2.5 * action(g, x) - 0.75 * action(g, y), rtol=0, atol=1e-12)
        assert all(np.array_equal(action(g, x[i : i + 1])[0], action(g, x)[i]) for i in range(len(x)))
    for dtype in ("float16", "float32"):
        small = x.astype(dtype)
        orbit = orbit_of(action, small)
        assert orbit.dtype == dtype
        assert np.array_equal(orbit[:, 0], small)
        assert all(np.array_equal(orbit[:, g], action(g, small)) for g in action.group.elements)


@others
@pytest.mark.parametrize("size", [2, 5, 6])
def test_quarter_turns_and_flips_are_the_same_permutations_whatever_the_interpolation(
    how: Interpolation, size: int
) -> None:
    for name in ("C4", "D4", "C8", "D8", "flip"):
        plain, other = (dense(input_action(parse_group(name), (1, size, size), h)) for h in ("bilinear", how))
        turns = input_action(parse_group(name), (1, size, size)).resampled_by
        for g, turn in enumerate(turns):
            assert np.array_equal(plain[g], other[g]) == (turn == 0)


# ---- small grids ----------------------------------------------------------------------------------------------------


@every
def test_on_a_single_pixel_every_element_is_in_the_kernel(how: Interpolation) -> None:
    for name in ("C4", "C8", "D8", "C3", "C12"):
        action = output_action("pixels", parse_group(name), (16, 1, 1), how)
        assert action.kernel == tuple(action.group.elements)
        assert (action.law_defect, set(action.resampled_by)) == (0.0, {Fraction(0)})


def test_nearest_on_two_by_two_pixels() -> None:
    """A turn by 22.5° moves no pixel and is in no kernel; one by 45° is the mean of no turn and a quarter turn."""
    action = output_action("pixels", parse_group("C16"), (1, 2, 2), "nearest")
    x = np.arange(4.0).reshape(1, 1, 2, 2)
    assert np.array_equal(action(1, x), x)
    assert np.array_equal(action(2, x), (x + np.rot90(x, 1, axes=(2, 3))) / 2)
    assert np.array_equal(action(3, x), np.rot90(x, 1, axes=(2, 3)))
    assert action.kernel == (0,)
    assert action.law_defect > 0


def test_nearest_on_three_by_three_pixels_is_an_action_of_c8() -> None:
    """The ring around the middle moves one step, so that 45° twice is 90°."""
    action = output_action("pixels", parse_group("C8"), (1, 3, 3), "nearest")
    x = np.array([[[[0.0, 1, 2], [3, 4, 5], [6, 7, 8]]]])
    assert np.array_equal(action(1, x)[0, 0], [[1, 2, 5], [0, 4, 8], [3, 6, 7]])
    assert action.law_defect == 0
    assert action.kernel == (0,)
    assert output_action("pixels", parse_group("C8"), (1, 3, 3)).law_defect > 0.1


# ---- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "int32", "int64", "uint64"])
@every
def test_integers_are_rounded_and_held_within_their_range(how: Interpolation, dtype: str) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    board = np.where(np.indices((7, 7)).sum(axis=0) // 2 % 2, high, low).astype(dtype)[None, None]
    action = input_action(parse_group("C8"), (1, 7, 7), how)
    exact = (slow_matrix(how, 7, Fraction(1, 8)) @ board.ravel().astype(np.float64)).reshape(board.shape)
    moved = action(1, board)
    assert moved.dtype == board.dtype
    # float32 holds 24 bits; a value that wrapped around would be off by the whole range
    room = 0.5 + 1e-6 * (float(high) - float(low))
    assert np.abs(moved.astype(np.float64) - np.clip(exact, float(low), float(high))).max() <= room
    assert (exact.min() < low - 1 and exact.max() > high + 1) == (how == "bicubic")
    assert np.array_equal(dict(action.orbit(board))[1], moved)


def test_nearest_keeps_the_values_of_an_odd_image() -> None:
    x = np.random.default_rng(0).integers(1, 256, (2, 3, 9, 9)).astype(np.uint8)
    action = input_action(parse_group("C8"), (3, 9, 9), "nearest")
    for g in range(8):
        assert set(np.unique(action(g, x))) <= {0, *np.unique(x)}


def test_overshoot_of_floats_is_kept() -> None:
    step = np.zeros((1, 1, 9, 9), dtype=np.float32)
    step[..., 4:] = 1
    for how in EVERY:
        moved = input_action(parse_group("C8"), (1, 9, 9), how)(1, step)
        beyond = moved.min() < -0.01 and moved.max() > 1.01
        assert beyond == (how == "bicubic")


# ---- choosing -------------------------------------------------------------------------------------------------------


def test_only_pixels_are_told_how() -> None:
    group = parse_group("C8")
    for action in (
        output_action("roll:1:1", group, (8, 3, 3), "nearest"),
        output_action("trivial", group, (3,), "bicubic"),
        TrivialAction(group, (2,)),
    ):
        assert interpolated(action, "bicubic") is action
    grid = input_action(group, (1, 4, 4))
    assert interpolated(grid, "bilinear") is grid
    for spec in ("pixels", "pixels+roll:1:1", parse_declared(DECLARED)):
        action = output_action(spec, group, (8, 4, 4), "nearest")
        assert [p.interpolation for p in parts_of(action) if isinstance(p, GridAction)] == ["nearest"]


def test_an_action_of_others_that_resamples_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(TrivialAction):
        @property
        def name(self) -> str:
            return "own"

        @property
        def resampled_by(self) -> tuple[Fraction, ...]:
            return (Fraction(0), *[Fraction(1, 8)] * (self.group.order - 1))

    def make(group: Group, shape: tuple[int, ...], text: str) -> Action:
        return Own(group, shape)

    monkeypatch.setitem(actions._entries, "own", make)
    assert output_action("own", parse_group("C8"), (1, 4, 4)).name == "own"
    with pytest.raises(ActionError, match="'own' resamples in a way of its own, so it cannot do so by nearest"):
        output_action("own", parse_group("C8"), (1, 4, 4), "nearest")


def test_an_unknown_interpolation() -> None:
    assert [interpolation_of(word) for word in INTERPOLATIONS] == EVERY
    with pytest.raises(UnknownName, match="unknown interpolation 'biliner': did you mean 'bilinear'"):
        interpolation_of("biliner")
    images = np.zeros((3, 1, 4, 4), dtype=np.float32)
    with pytest.raises(UnknownName, match="unknown interpolation 'linear'"):
        measure(lambda x: {"y": x}, images, "C8", interpolation="linear")  # type: ignore[arg-type]


# ---- measuring ------------------------------------------------------------------------------------------------------

SIZE, COUNT = 6, 5


def images() -> Array:
    return np.random.default_rng(0).random((COUNT, 1, SIZE, SIZE))


def net(x: Array) -> dict[str, Array]:
    """Two channels that no turn keeps: products with the pixel to the left, and above."""
    return {"y": np.concatenate([x * np.roll(x, 1, axis=3), np.maximum(x - 0.7 * np.roll(x, 1, axis=2), 0)], axis=1)}


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@every
@pytest.mark.parametrize("name", ["C8", "D8"])
def test_value_and_floor_from_first_words(how: Interpolation, name: str) -> None:
    """−mean cos(f(gx), ρ(g) f(x)), and −mean cos(ρ(g⁻¹)ρ(g) f(x), f(x)), with the slow matrices on both sides."""
    group, n = parse_group(name), int(name[1:])
    rho = [slow_matrix(how, SIZE, Fraction(g % n, n), g >= n) for g in group.elements]
    values, floors = [], []
    for x in images():
        here = net(x[None])["y"][0]
        for g in group.elements:
            there = net((rho[g] @ x.ravel()).reshape(1, 1, SIZE, SIZE))["y"][0]
            lost = rho[group.inverse(g)] @ rho[g]
            values += [-cosine(there[c].ravel(), rho[g] @ here[c].ravel()) for c in range(2)]
            floors += [-cosine(lost @ here[c].ravel(), here[c].ravel()) for c in range(2)]
    [result] = measured(net, images(), name, samples="all", variants=["channelwise"], mask="none", interpolation=how)
    assert result.value == pytest.approx(np.mean(values), abs=1e-10)
    assert result.floor == pytest.approx(np.mean(floors), abs=1e-10)
    assert result.floor_method == "resampling"
    assert result.interpolation == how
    assert result.group == {"name": name, "order": group.order} | ({} if how == "bilinear" else {"interpolation": how})


def test_the_three_differ_and_bicubic_costs_least_on_smooth_images() -> None:
    """On Gaussians, which sampling resolves: the better the interpolation, the nearer the floor to −1."""
    place = np.arange(15) - 7
    x = np.stack([np.exp(-(place[:, None] ** 2 + (place - at) ** 2) / 12)[None] for at in (1.0, 1.5)])
    floors = {}
    for how in EVERY:
        options: dict[str, Any] = {"samples": "all", "variants": ["channelwise"], "mask": "none"}
        [result] = measured(lambda x: {"y": x}, x, "C8", interpolation=how, **options)
        assert result.value == pytest.approx(-1, abs=1e-12)  # the identity network is equivariant for any ρ
        floors[how] = result.floor
    assert -1 < floors["bicubic"] < floors["bilinear"] < -0.9
    assert floors["bicubic"] < floors["nearest"]


@others
def test_mask_and_measured_floor_go_along(how: Interpolation) -> None:
    def total(x: Array) -> dict[str, Array]:
        return {"z": np.stack([(x * x).sum(axis=(1, 2, 3)), (x**3).sum(axis=(1, 2, 3))], axis=1)}

    options: dict[str, Any] = {"samples": "all", "variants": ["vector:trivial:l2"], "interpolation": how}
    [masked] = measured(total, images(), "C8", mask="disc", floor=True, **options)
    [plain] = measured(total, images(), "C8", mask="none", floor=True, **options)
    [other] = measured(total, images(), "C8", mask="none", floor=True, **{**options, "interpolation": "bilinear"})
    assert masked.floor_method == plain.floor_method == "passes"
    assert masked.value != plain.value
    assert plain.value != other.value
    assert plain.floor != other.floor
    assert plain.input_law_defect != other.input_law_defect


# ---- keys, suites, runs ---------------------------------------------------------------------------------------------


def test_a_key_tells_interpolations_apart_and_bilinear_has_the_key_it_had(tmp_path: Path) -> None:
    desk(tmp_path, models=1)

    def keys(**measure: Any) -> set[str]:
        [task] = tasks_of(suite(tmp_path, models=("net0",), groups=("C8",), **measure))
        prepared = Bench().prepare(task)
        facts = plan_facts(prepared.plan, "s", "p")
        assert facts is not None
        assert facts.get("interpolation") == (measure.get("interpolation") if measure else None)
        return set(map(str, prepared.keys.values()))

    plain, nearest, bicubic = keys(), keys(interpolation="nearest"), keys(interpolation="bicubic")
    assert len(plain | nearest | bicubic) == 3 * len(plain)


def test_a_run_says_how_and_measures_again_when_it_changes(tmp_path: Path) -> None:
    desk(tmp_path, models=1)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no onnx file")

    def asked(how: str) -> Any:
        return suite(tmp_path, models=("net0", "broken"), groups=("C8",), interpolation=how)

    first, _ = ran(asked("nearest"), tmp_path / "run")
    assert first.measured > 0
    assert {r["group"]["interpolation"] for r in lines(tmp_path / "run")} == {"nearest"}
    assert any(r["failed"] for r in lines(tmp_path / "run"))
    again, _ = ran(asked("nearest"), tmp_path / "run")
    assert (again.measured, again.kept) == (0, first.measured)
    other, _ = ran(asked("bilinear"), tmp_path / "run")
    assert (other.measured, other.kept) == (first.measured, 0)
    assert not any("interpolation" in r["group"] for r in lines(tmp_path / "run"))


def test_a_suite_says_it_and_is_written_with_it(tmp_path: Path) -> None:
    desk(tmp_path, models=1)
    text = 'groups = "C8"\nmodels = "net0.onnx"\ndata = "images.npy"\n'
    for said, how in (("", "bilinear"), ('[measure]\ninterpolation = "bicubic"\n', "bicubic")):
        (tmp_path / "suite.toml").write_text(text + said, encoding="utf-8")
        found = load_suite(tmp_path / "suite.toml")
        assert found.settings.interpolation == how
        (tmp_path / "again.toml").write_text(suite_toml(found), encoding="utf-8")
        assert load_suite(tmp_path / "again.toml") == found
        assert f'interpolation = "{how}"' in suite_toml(found)


# ---- the command line -----------------------------------------------------------------------------------------------


def geed(*args: Any) -> Any:
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="geed-onnx")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = desk(tmp_path_factory.mktemp("table"), models=2)
    onnx.save(cnn(size=12, channels=(2, 3), classes=4, seed=0), str(folder / "same.onnx"))
    return folder


def asked(table: Path, *more: Any) -> list[dict[str, Any]]:
    ended = geed("measure", table / "net0.onnx", "--data", table / "images.npy", "--group", "C8", *more, "--json")
    assert ended.exit_code == 0, ended.output
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_measure_takes_it_and_json_says_it(table: Path) -> None:
    found = {how: asked(table, "--samples", 4, "--interpolation", how) for how in EVERY}
    assert asked(table, "--samples", 4) == found["bilinear"]
    assert {r["group"].get("interpolation") for r in found["bilinear"]} == {None}
    for how in OTHERS:
        assert {r["group"]["interpolation"] for r in found[how]} == {how}
        for one, other in zip(found[how], found["bilinear"], strict=True):
            assert one["value"] != other["value"]
            assert one["key"] != other["key"]


def test_the_table_says_it_too(table: Path) -> None:
    about = ("measure", table / "net0.onnx", "--data", table / "images.npy", "--group", "C8", "--samples", 4)
    assert " · C8 · 4 images of " in geed(*about).stdout
    assert " · C8 (nearest) · 4 images of " in geed(*about, "--interpolation", "nearest").stdout


def test_a_wrong_word_is_a_usage_error(table: Path) -> None:
    ended = geed("measure", table / "net0.onnx", "--data", "x", "--group", "C8", "--interpolation", "biqubic")
    assert ended.exit_code == 2
    assert "unknown word 'biqubic': did you mean 'bicubic'" in ended.stderr


def test_help_lists_every_interpolation() -> None:
    for command in ("measure", "compare"):
        assert f"--interpolation {'|'.join(INTERPOLATIONS)}" in geed(command, "--help").stdout


def test_compare_measures_models_with_it(table: Path) -> None:
    about = ("--data", table / "images.npy", "--group", "C8", "--samples", 4, "--json")
    ended = geed("compare", table / "net0.onnx", table / "same.onnx", *about, "--interpolation", "nearest")
    assert ended.exit_code == 0, ended.output
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert {r["group"]["interpolation"] for r in rows} == {"nearest"}
    assert {r["difference"] for r in rows} == {0.0}
    direct = asked(table, "--samples", 4, "--interpolation", "nearest")
    assert {(r["tap_a"]["name"], r["variant"]): r["value_a"] for r in rows} == {
        (r["tap"]["name"], r["variant"]): r["value"] for r in direct
    }


# ---- holding against one another ------------------------------------------------------------------------------------


def with_group(row: Any, **facts: Any) -> Any:
    return replace(row[0], group={**row[0].group, **facts}), row[1]


def test_raw_values_of_two_interpolations_are_not_subtracted() -> None:
    a, b = cell(random_raw(1)), with_group(cell(random_raw(2), "b"), interpolation="nearest")
    [row] = compare([(alone(a), alone(b))]).rows
    assert row.on == "calibrated"
    assert row.value.difference is None
    assert row.value.reason == "raw values are not comparable: bilinear and nearest interpolation"
    assert raw_problem(b[0], b[0]) is None
    assert raw_problem(a[0], with_group(a, interpolation=None)[0]) is None


def test_results_of_several_interpolations_meet_their_own() -> None:
    rows = [with_group(cell(random_raw(1)), interpolation=how) for how in (None, "nearest", "bicubic")]
    fewer = [with_group(cell(random_raw(2), "b"), interpolation=how) for how in ("bicubic", None)]
    pairs, notes = matched_settings(alone(*rows, name="a"), alone(*fewer, name="b"))
    hows = [tuple({r.interpolation for r in side.first.values()} for side in pair) for pair in pairs]
    assert hows == [({"bilinear"}, {"bilinear"}), ({"bicubic"}, {"bicubic"})]
    assert notes == ["C4 (nearest) on 12 images was measured for a alone"]


def test_a_damaged_interpolation_is_refused() -> None:
    damaged = with_group(cell(random_raw(1)), interpolation=["nearest"])[0]
    with pytest.raises(DataError, match="group\\.interpolation must be a text"):
        models_of(Collection("here", (damaged,)))


def test_a_baseline_of_another_interpolation_is_none() -> None:
    new, old = judged(), replace(judged(), group={**judged().group, "interpolation": "bicubic"})
    none = find(new, collected(old))
    assert none.result is None
    assert none.reason == "measured with bilinear interpolation here and bicubic in the baseline"
    assert find(old, collected(new, old)).result == old


def test_the_page_keeps_interpolations_apart() -> None:
    rows = [page_result(group="C8", order=8, key=how) for how in EVERY]
    rows = [replace(r, group={**r.group, "interpolation": r.key}) for r in rows]
    assert [c.label for c in contents_of(rows).contexts] == [
        "C8 on 8 images of images, nearest",
        "C8 on 8 images of images",
        "C8 on 8 images of images, bicubic",
    ]


@others
def test_the_gallery_opens_a_result_as_it_was_measured(how: Interpolation, tmp_path: Path) -> None:
    """Deviations computed again are held against the table, so that another interpolation would be refused."""
    folder = desk(tmp_path, models=1)
    run = run_folder(tmp_path / "run", [folder / "net0.onnx"], folder / "images.npy", ["C8"], interpolation=how)
    shown = make_gallery(run)
    assert shown.reasons == ()
    assert len(shown.exhibits) > 0
    # a line that says another one does not give what was measured
    told = open_results(tmp_path / "run")
    wrong = replace(told, results=tuple(replace(r, group={"name": "C8", "order": 8}) for r in told.results))
    refused = make_gallery(wrong)
    assert refused.exhibits == ()
    assert "does not give what was measured" in refused.reasons[0]
