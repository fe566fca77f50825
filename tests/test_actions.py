"""The laws of an action, run over every group, action and grid, against dense matrices and a plain bilinear loop."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geed_onnx.actions import (
    MASKS,
    Action,
    AxisAction,
    GridAction,
    actions,
    disc,
    input_action,
    mask_of,
    masked,
    operators,
    orbit_of,
    output_action,
    parse_declared,
    permutation_action,
    turn_matrix,
    within_disc,
)
from geed_onnx.errors import ActionError, GeedError, UnknownName, UsageError
from geed_onnx.groups import Group, groups, parse_group

REGISTERED = [name for family in groups.values() for name in family.examples]
MORE = ["C1", "C2", "C3", "C12", "D1", "D2", "D12", "T3x2", "S4@height", "flipxflip-ud", "C8xS3@channel", "T2xflip"]
NAMES = list(dict.fromkeys(REGISTERED + MORE))
# odd, even and rectangular grids, a single pixel, single rows and columns, and an axis of length 4 for S4
SHAPES = [(3, 1, 1), (3, 2, 2), (3, 4, 4), (3, 5, 5), (3, 4, 6), (3, 6, 4), (3, 1, 4), (3, 6, 1)]
# an example of every registered action: spec, group, shape; a new action adds its own and inherits the laws
SPECS = {
    "trivial": [("trivial", "C8", (5,)), ("trivial", "D4", (2, 3, 3))],
    "pixels": [("pixels", "C4", (2, 5, 5)), ("pixels", "D8", (2, 4, 4)), ("pixels", "C8", (3, 1, 1))],
    "permute": [
        ("permute:1:1,2,3,0", "C8", (4,)),
        ("permute:2:1,0", "C4", (3, 2, 2)),
        ("permute:1:1,2,3,0;0,3,2,1", "D4", (4, 2, 2)),
    ],
    "roll": [("roll:1:-1", "C8", (8,)), ("roll:1:2", "C4", (8, 2, 2)), ("roll:3:0", "flip", (1, 2, 3))],
    "regular": [("regular:1", "C4", (8, 3, 3)), ("regular:1", "D4", (8,)), ("regular:2", "flip", (3, 4))],
}
QUARTER, MIRROR = [[0, -1], [1, 0]], [[1, 0], [0, -1]]
S8 = math.sqrt(0.5)
#: What files declare: fields of the declared group, restricted to the one that acts.
DECLARED: dict[str, tuple[dict[str, object], str, tuple[int, ...]]] = {
    "regular fields": ({"group": "C8", "fields": [{"type": "regular", "count": 2}]}, "C8", (16, 3, 3)),
    "regular fields of a larger group": ({"group": "C8", "fields": [{"type": "regular"}]}, "C4", (8, 4, 4)),
    "regular fields of D4": ({"group": "D4", "fields": [{"type": "regular"}]}, "D4", (8, 3, 3)),
    "the flip within D4": ({"group": "D4", "fields": [{"type": "regular"}]}, "flip", (8, 2, 3)),
    "the other flip": ({"group": "D4", "fields": [{"type": "regular"}]}, "flip-ud", (8,)),
    "both flips": ({"group": "D4", "fields": [{"type": "regular"}]}, "flipxflip-ud", (8, 3, 2)),
    "mixed, in another order": (
        {
            "group": "C4",
            "fields": [
                {"type": "trivial", "count": 2},
                {"type": "quotient", "subgroup": [0, 2], "count": 2},
                {"type": "permutation", "generators": [[1, 2, 3, 0]]},
            ],
            "order": [9, 0, 8, 1, 7, 2, 6, 3, 5, 4],
        },
        "C4",
        (10, 3, 3),
    ),
    "the sign of D4": (
        {"group": "D4", "fields": [{"type": "quotient", "subgroup": [0, 1, 2, 3]}, {"type": "trivial"}]},
        "D4",
        (3, 2, 2),
    ),
    "a matrix": ({"group": "C4", "fields": [{"type": "matrix", "generators": [QUARTER], "count": 2}]}, "C4", (4, 3, 3)),
    "matrix and permutation": (
        {
            "group": "D4",
            "fields": [{"type": "matrix", "generators": [QUARTER, MIRROR]}, {"type": "regular"}, {"type": "trivial"}],
            "order": [10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0],
        },
        "D4",
        (11, 2, 2),
    ),
    "a matrix of an eighth turn": (
        {"group": "C8", "fields": [{"type": "matrix", "generators": [[[S8, -S8], [S8, S8]]]}], "pixels": False},
        "C8",
        (2, 2, 2),
    ),
    "a matrix that half of the group leaves alone": (
        {"group": "C8", "fields": [{"type": "matrix", "generators": [[[-1]]]}]},
        "C8",
        (1,),
    ),
}
JOINT = [
    ("pixels+permute:1:1,2,3,0", "C4", (4, 3, 3)),
    ("roll:1:1+pixels", "C8", (8, 4, 4)),
    ("permute:1:1,0+roll:2:2", "C4", (2, 4)),
    ("pixels+permute:1:1,2,3,0;0,3,2,1", "D4", (4, 5, 5)),
]


def bound_cases() -> dict[str, tuple[str, tuple[int, ...]]]:
    cases = {}
    for name, shape in itertools.product(NAMES, SHAPES):
        try:
            input_action(parse_group(name), shape)
        except ActionError:
            continue
        cases[f"{name} on {shape}"] = (name, shape)
    return cases


INPUTS = bound_cases()
OUTPUTS = {
    f"{spec} of {name} on {shape}": (spec, name, shape)
    for spec, name, shape in [*itertools.chain(*SPECS.values()), *JOINT]
}
EVERY = [*INPUTS, *OUTPUTS, *DECLARED]
every_action = pytest.mark.parametrize("case", EVERY)


@cache
def action_of(case: str) -> Action:
    if case in INPUTS:
        name, shape = INPUTS[case]
        return input_action(parse_group(name), shape)
    if case in DECLARED:
        declaration, name, shape = DECLARED[case]
        return output_action(parse_declared(declaration), parse_group(name), shape)
    spec, name, shape = OUTPUTS[case]
    return output_action(spec, parse_group(name), shape)


@cache
def dense(case: str) -> np.ndarray:
    """ρ(g) as matrices (|G|, d, d), found by moving every unit vector."""
    action = action_of(case)
    size = math.prod(action.shape)
    units = np.eye(size).reshape(size, *action.shape)
    return np.stack([action(g, units).reshape(size, size).T for g in action.group.elements])


def rounding(case: str) -> float:
    """How far a matrix whose entries are no whole numbers may be from the law."""
    return 1e-12 if case == "a matrix of an eighth turn" else 0.0


def exact(action: Action) -> bool:
    return not any(action.resampled_by)


def sample(action: Action, n: int = 3, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, *action.shape)).astype(dtype)


# ---- every registered thing is tried -------------------------------------------------------------------------------


def test_every_group_acts_on_some_grid_and_every_action_has_examples() -> None:
    assert {name for name, _ in INPUTS.values()} == set(NAMES)
    assert set(actions) == set(SPECS), "give the new action examples in SPECS"


# ---- laws ----------------------------------------------------------------------------------------------------------


@every_action
def test_identity_does_nothing(case: str) -> None:
    action = action_of(case)
    for dtype in ("float16", "float32", "float64"):
        x = sample(action, dtype=dtype)
        assert np.array_equal(action(0, x), x)
    assert 0 in action.kernel
    assert action.resampled_by[0] == 0


@every_action
def test_exact_elements_multiply_as_the_group_does(case: str) -> None:
    """ρ(g)ρ(h) = ρ(gh) to the last bit, for all pairs of which none resamples; those of the rest commute with them."""
    action, matrix = action_of(case), dense(case)
    group, turns = action.group, action.resampled_by
    for g, h in itertools.product(group.elements, repeat=2):
        if not turns[g] or not turns[h]:
            atol = 0 if not (turns[g] or turns[h]) and rounding(case) == 0 else 1e-12
            assert np.allclose(matrix[g] @ matrix[h], matrix[group.product(g, h)], rtol=0, atol=atol), (g, h)


@every_action
def test_exact_elements_are_permutations(case: str) -> None:
    action, matrix = action_of(case), dense(case)
    for g in action.group.elements:
        permutes = set(np.unique(matrix[g])) <= {0.0, 1.0} and np.array_equal(
            matrix[g] @ matrix[g].T, np.eye(len(matrix[g]))
        )
        if "matrix" not in case or ("pixels" not in action.name and g == 0):
            assert permutes == (action.resampled_by[g] == 0)
        assert np.allclose(matrix[g] @ matrix[g].T, np.eye(len(matrix[g])), atol=1e-12) or action.resampled_by[g]


@every_action
def test_law_defect_is_zero_for_actions_and_only_for_them(case: str) -> None:
    action, matrix = action_of(case), dense(case)
    group = action.group
    worst = max(
        np.abs(matrix[g] @ matrix[h] - matrix[group.product(g, h)]).max()
        for g, h in itertools.product(group.elements, repeat=2)
    )
    assert (action.law_defect <= rounding(case)) == (worst < 1e-12) == exact(action)
    assert action.law_defect >= 0


@every_action
def test_kernel_is_found_by_force(case: str) -> None:
    action, matrix = action_of(case), dense(case)
    still = tuple(
        g for g in action.group.elements if np.allclose(matrix[g], np.eye(len(matrix[g])), rtol=0, atol=rounding(case))
    )
    assert action.kernel == still
    # the kernel is a normal subgroup
    product, inverse = action.group.product, action.group.inverse
    assert all(product(a, b) in still for a in still for b in still)
    assert all(product(product(g, k), inverse(g)) in still for g in action.group.elements for k in still)


@every_action
def test_orbit_is_every_element_once(case: str) -> None:
    action, x = action_of(case), sample(action_of(case), dtype="float32")
    for only in (None, sorted({action.group.order - 1, 0}, reverse=True), []):
        wanted = list(action.group.elements) if only is None else only
        seen = list(action.orbit(x, only))
        assert sorted(g for g, _ in seen) == sorted(wanted)
        for g, moved in seen:
            assert moved.dtype == x.dtype
            assert np.array_equal(moved, action(g, x))
    whole = orbit_of(action, x)
    assert whole.shape == (len(x), action.group.order, *action.shape)
    assert np.array_equal(whole[:, 0], x)
    for g in action.group.elements:
        assert np.array_equal(whole[:, g], action(g, x))


@every_action
def test_every_element_is_linear(case: str) -> None:
    action = action_of(case)
    x, y = sample(action, seed=1), sample(action, seed=2)
    for g in action.group.elements:
        together = action(g, 2.5 * x - 0.75 * y)
        assert np.allclose(together, 2.5 * action(g, x) - 0.75 * action(g, y), rtol=0, atol=1e-12)
        assert not action(g, np.zeros_like(x)).any()


@every_action
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_image_is_moved_alike_whatever_comes_with_it(case: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    action = action_of(case)
    x = sample(action, n=5, dtype=dtype)
    before = x.copy()
    for g in action.group.elements:
        together = action(g, x)
        assert together.dtype == x.dtype
        assert together.shape == x.shape
        assert np.array_equal(action(g, x[::-1]), together[::-1])
        for i in range(len(x)):
            assert np.array_equal(action(g, x[i : i + 1])[0], together[i])
        with monkeypatch.context() as patch:
            patch.setattr(operators, "BLOCK_VALUES", 40)  # several blocks, the last one short
            assert np.array_equal(action(g, x), together)
    assert np.array_equal(x, before)


# ---- direction -----------------------------------------------------------------------------------------------------

F = np.array([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=np.float32)


def show(name: str, g: int, picture: np.ndarray = F) -> np.ndarray:
    return input_action(parse_group(name), (1, *picture.shape))(g, picture[None, None])[0, 0]


def test_element_1_of_c4_turns_an_f_counter_clockwise() -> None:
    lying = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 1, 1]])
    assert np.array_equal(show("C4", 1), lying)
    for picture in (F, F[:4, :4]):
        for k in range(4):
            assert np.array_equal(show("C4", k, picture), np.rot90(picture, k))
            assert np.array_equal(show("C8", 2 * k, picture), np.rot90(picture, k))
            assert np.array_equal(show("D4", 4 + k, picture), np.rot90(np.fliplr(picture), k))
            assert np.array_equal(show("D8", 8 + 2 * k, picture), np.rot90(np.fliplr(picture), k))


def test_an_eighth_turn_goes_counter_clockwise_too() -> None:
    dot = np.zeros((9, 9), dtype=np.float32)
    dot[4, 8] = 1.0  # east; a turn by 45 degrees takes it north-east
    y, x = np.unravel_index(np.argmax(show("C8", 1, dot)), dot.shape)
    assert (y, x) == (1, 7)


def test_flips_and_shifts() -> None:
    tall = F[:, :4]
    for picture in (F, tall):
        assert np.array_equal(show("flip", 1, picture), np.fliplr(picture))
        assert np.array_equal(show("flip-ud", 1, picture), np.flipud(picture))
        assert np.array_equal(show("C2", 1, picture), np.rot90(picture, 2))
        assert np.array_equal(show("D1", 1, picture), np.fliplr(picture))
        assert np.array_equal(show("D2", 3, picture), np.flipud(picture))
        assert np.array_equal(show("flipxflip-ud", 3, picture), np.rot90(picture, 2))
    wide = np.arange(24.0).reshape(4, 6)
    for i, j in itertools.product(range(2), range(3)):
        assert np.array_equal(show("T2x3", 3 * i + j, wide), np.roll(wide, (2 * i, 2 * j), axis=(0, 1)))


def test_s_n_permutes_the_named_axis() -> None:
    group = parse_group("S3@channel")
    x = np.arange(24.0).reshape(2, 3, 2, 2)
    for g in group.elements:
        perm = list(group.motions[g][0].permutation)
        assert np.array_equal(input_action(group, (3, 2, 2))(g, x), x[:, perm])
    rows = input_action(parse_group("S2@height"), (3, 2, 2))
    assert np.array_equal(rows(1, x), x[:, :, ::-1])


# ---- turns against a plain loop ------------------------------------------------------------------------------------


def turned(image: np.ndarray, degrees: float, mirror: bool = False) -> np.ndarray:
    """Reflect left-right, then turn counter-clockwise: four weights a pixel, 0 outside the frame (DESIGN 4.2)."""
    height, width = image.shape
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            # pixel centre, x to the right and y up, from the centre of the frame; its source lies clockwise
            x, y = j - (width - 1) / 2, (height - 1) / 2 - i
            source_x, source_y = cos * x + sin * y, -sin * x + cos * y
            if mirror:
                source_x = -source_x
            row, column = (height - 1) / 2 - source_y, source_x + (width - 1) / 2
            for r in (math.floor(row), math.floor(row) + 1):
                for c in (math.floor(column), math.floor(column) + 1):
                    if 0 <= r < height and 0 <= c < width:
                        out[i, j] += (1 - abs(row - r)) * (1 - abs(column - c)) * image[r, c]
    return out


@pytest.mark.parametrize("name", ["C4", "C8", "C3", "C5", "C12", "C16", "D3", "D4", "D8", "D12"])
@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_every_turn_is_one_resampling_of_the_original(name: str, size: int) -> None:
    group = parse_group(name)
    action = input_action(group, (2, size, size))
    x = np.random.default_rng(size).standard_normal((1, 2, size, size))
    n = int(name[1:])
    for g in group.elements:
        for channel in range(2):
            direct = turned(x[0, channel], 360 * (g % n) / n, mirror=g >= n)
            assert np.allclose(action(g, x)[0, channel], direct, rtol=0, atol=1e-12), g
        single = action(g, x.astype(np.float32))
        assert np.allclose(single, action(g, x), rtol=0, atol=1e-5)


def test_corners_are_filled_with_zero() -> None:
    ones = np.ones((1, 1, 9, 9))
    moved = input_action(parse_group("C8"), (1, 9, 9))(1, ones)[0, 0]
    assert [moved[i, j] for i in (0, -1) for j in (0, -1)] == [0.0] * 4
    assert moved[4, 4] == 1.0
    assert np.allclose(moved, turned(ones[0, 0], 45), atol=1e-12)
    assert ((moved >= 0) & (moved <= 1 + 1e-12)).all()


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("name", ["C8", "C12"])
def test_turns_are_what_grid_sample_does(name: str, size: int) -> None:
    """ONNX GridSample with linear, zeros, align_corners=0 is the definition of the design."""
    runtime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    node = helper.make_node("GridSample", ["x", "grid"], ["y"], mode="linear", padding_mode="zeros", align_corners=0)
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, [None] * 4) for port in ("x", "grid", "y")]
    graph = helper.make_graph([node], "turn", ports[:2], ports[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    group = parse_group(name)
    x = np.random.default_rng(0).standard_normal((1, 2, size, size)).astype(np.float32)
    centres = (np.arange(size) + 0.5) / size * 2 - 1  # normalised to [−1, 1]
    right, up = np.meshgrid(centres, -centres)
    for g in group.elements:
        angle = 2 * math.pi * g / group.order
        source_right = math.cos(angle) * right + math.sin(angle) * up
        source_up = -math.sin(angle) * right + math.cos(angle) * up
        grid = np.stack([source_right, -source_up], axis=-1)[None].astype(np.float32)
        (expected,) = session.run(None, {"x": x, "grid": grid})
        assert np.allclose(input_action(group, (2, size, size))(g, x), expected, rtol=0, atol=3e-6), g


@pytest.mark.parametrize("size", [1, 2, 5, 6])
@pytest.mark.parametrize("k", range(8))
def test_an_element_is_the_direct_matrix_of_its_angle(size: int, k: int) -> None:
    """A quarter turn of the resampling by 45° is the resampling by 135°: P R is the operator itself."""
    group = parse_group("C8")
    units = np.eye(size * size).reshape(-1, 1, size, size)
    matrix = GridAction(group, (1, size, size))(k, units).reshape(size * size, -1).T
    direct = turn_matrix(group.motions[k][0].turn, size, size).toarray()
    assert np.allclose(matrix, direct, rtol=0, atol=1e-12)
    if k % 2 == 0:
        assert np.array_equal(matrix, direct)
    assert np.diff(turn_matrix(group.motions[k][0].turn, size, size).indptr).max(initial=0) <= 4


def test_turns_that_share_an_angle_resample_once() -> None:
    for name, angles in (("C8", 2), ("D8", 2), ("C12", 3), ("C4", 1)):
        assert len(set(input_action(parse_group(name), (1, 5, 5)).resampled_by)) == angles


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_integers_are_rounded_to_the_nearest(dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 255, size=(2, 1, 5, 5)).astype(dtype)
    action = input_action(parse_group("C8"), (1, 5, 5))
    for g in range(8):
        moved = action(g, x)
        assert moved.dtype == x.dtype
        direct = np.stack([turned(image[0], 45 * g)[None] for image in x.astype(float)])
        assert np.abs(moved - direct).max() <= 0.5 + 1e-4
    assert np.array_equal(action(2, x), np.rot90(x, 1, axes=(2, 3)))


# ---- what a grid refuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["C4", "C8", "D4", "C3", "D8", "C4xS3@channel"])
def test_a_turn_that_leaves_a_rectangle_is_refused_with_advice(name: str) -> None:
    with pytest.raises(ActionError) as caught:
        input_action(parse_group(name), (3, 4, 6))
    degrees = {"C4": 90, "C8": 45, "D4": 90, "C3": 120, "D8": 45, "C4xS3@channel": 90}[name]
    assert str(caught.value) == (
        f"a turn by {degrees} degrees does not map a 4×6 grid to itself: use a square input (--size 6x6, cropped or"
        " padded), or a group that keeps the rectangle (C2, flip, flip-ud, D2)"
    )
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name", ["C2", "flip", "flip-ud", "D2", "D1", "flipxflip-ud", "C1", "S3@channel"])
def test_the_advice_holds(name: str) -> None:
    assert input_action(parse_group(name), (3, 4, 6)).law_defect == 0


def test_a_shift_by_no_whole_pixels_is_refused() -> None:
    with pytest.raises(ActionError, match=r"cyclic shift by 1/2 of 5 pixels is 2\.5 pixels.*a size that 2 divides"):
        input_action(parse_group("T2"), (1, 4, 5))
    with pytest.raises(ActionError, match="by 1/4 of 6 pixels"):
        input_action(parse_group("T4x1"), (1, 6, 5))
    assert input_action(parse_group("T4x1"), (1, 8, 5)).kernel == (0,)


def test_kernels_of_small_grids() -> None:
    """Trap: on a 1×1 map rotation does nothing, so that f̂ is the mean over the whole group."""
    for name in ("C4", "C8", "D4", "D8", "T2", "C3"):
        group = parse_group(name)
        assert output_action("pixels", group, (16, 1, 1)).kernel == tuple(group.elements)
        assert output_action("pixels", group, (16, 1, 1)).law_defect == 0
    assert output_action("pixels", parse_group("C8"), (16, 2, 2)).kernel == (0,)
    assert input_action(parse_group("T2"), (1, 1, 4)).kernel == (0, 2)  # one row rolls down to itself
    assert input_action(parse_group("D2"), (1, 1, 4)).kernel == (0, 3)
    assert output_action("pixels", parse_group("C2xC8"), (2, 4, 4)).kernel == (0, 12)


def test_images_and_axes_that_do_not_fit() -> None:
    with pytest.raises(ActionError, match=r"C4 moves the pixels of an image.*\(batch, 16\).*S<n>@<axis>"):
        input_action(parse_group("C4"), (16,))
    with pytest.raises(ActionError, match=r"S3@channel permutes 3 entries of axis 1, but.*\(batch, 4, 5, 5\)"):
        input_action(parse_group("S3@channel"), (4, 5, 5))
    with pytest.raises(ActionError, match="permutes 2 entries of axis 4"):
        input_action(parse_group("S2@4"), (4, 5, 5))
    with pytest.raises(ActionError, match=r"'pixels' moves the grid of a map \(C, H, W\).*\(batch, 16\); use trivial"):
        output_action("pixels", parse_group("C4"), (16,))


@every_action
def test_an_action_by_channel_acts_on_any_slice_of_channels(case: str) -> None:
    action = action_of(case)
    x = sample(action)
    if action.by_channel:
        for g in action.group.elements:
            for part in (slice(0, 1), slice(action.shape[0] // 2, None)):
                assert np.array_equal(action(g, x[:, part]), action(g, x)[:, part])
    else:  # some element moves a channel to another, or treats one unlike the rest: a slice does not do
        units = np.eye(action.shape[0]).reshape(action.shape[0], action.shape[0], *[1] * (len(action.shape) - 1))
        lone = units * np.ones(action.shape)
        moved = [action(g, lone) for g in action.group.elements]
        assert any(not np.array_equal(y, lone) for y in moved)


@pytest.mark.parametrize("shape", [(1, 5, 5), (2, 1, 5, 4), (2, 5, 4), (2, 3, 5, 5, 5)])
def test_arrays_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    action = input_action(parse_group("C4"), (3, 5, 5))
    with pytest.raises(ActionError, match=r"bound to arrays \(B, 3, 5, 5\), but got \("):
        action(1, np.zeros(shape))


# ---- permutations of an axis ---------------------------------------------------------------------------------------


def test_c8_acts_through_c4() -> None:
    """Trap: a kernel between the trivial and the whole group."""
    c8 = parse_group("C8")
    action = output_action("permute:1:1,2,3,0", c8, (4, 2))
    assert action.kernel == (0, 4)
    y = np.arange(16.0).reshape(2, 4, 2)
    assert np.array_equal(action(1, y), y[:, [1, 2, 3, 0]])
    assert np.array_equal(action(3, y), y[:, [3, 0, 1, 2]])
    assert np.array_equal(action(5, y), action(1, y))
    assert output_action("roll:1:-1", c8, (4,)).kernel == (0, 4)
    assert output_action("roll:1:-1", c8, (8,)).kernel == (0,)
    assert output_action("permute:1:0,1,2,3", c8, (4,)).kernel == tuple(range(8))
    # D4 through its sign: rotations do nothing, reflections swap
    assert output_action("permute:1:0,1;1,0", parse_group("D4"), (2,)).kernel == (0, 1, 2, 3)


@pytest.mark.parametrize("steps", [-3, -2, 0, 1, 4])
def test_roll_is_numpys(steps: int) -> None:
    action = output_action(f"roll:2:{steps}", parse_group("C8"), (3, 8))
    y = np.arange(48.0).reshape(2, 3, 8)
    for g in range(8):
        assert np.array_equal(action(g, y), np.roll(y, steps * g, axis=2))


@given(st.sampled_from(["C2", "C3", "C4", "C8", "D3", "D4"]), st.data())
def test_permutations_act_exactly_where_they_satisfy_the_relations(name: str, data: st.DataObject) -> None:
    group, n = parse_group(name), int(name[1:])
    images = [list(data.draw(st.permutations(range(4)))) for _ in group.generators]

    def after(*perms: list[int]) -> list[int]:
        """The permutation of ρ(p₁)ρ(p₂)…: (ρ y)[c] = y[p[c]]."""
        out = list(range(4))
        for p in reversed(perms):
            out = [out[p[c]] for c in range(4)]
        return out

    r = images[0]
    holds = after(*[r] * n) == [0, 1, 2, 3]
    if len(images) == 2:
        s = images[1]
        holds = holds and after(s, s) == [0, 1, 2, 3] and after(s, r, s) == after(*[r] * (n - 1))
    if not holds:
        with pytest.raises(ActionError, match=f"is no action of {name}"):
            permutation_action(group, (4,), 1, images, "permute")
        return
    action = permutation_action(group, (4,), 1, images, "permute")
    y = np.arange(4.0)[None]
    for g in group.elements:
        expected = after(*[r] * (g % n), *([images[1]] if g >= n else []))
        assert action(g, y)[0].tolist() == expected


@pytest.mark.parametrize(
    ("spec", "name", "error", "says"),
    [
        ("permute:1:1,2,0,3", "C8", ActionError, r"permute:1:1,2,0,3 is no action of C8: .*rⁿ = 1"),
        ("permute:1:1,2,3,0;0,1,2,3", "D4", ActionError, "is no action of D4: .*s r s = r⁻¹"),
        ("permute:1:1,2,3,0;1,0,2,3", "D4", ActionError, "is no action of D4"),
        ("roll:1:1", "C3", ActionError, "is no action of C3"),
        ("permute:0:1,0", "C4", ActionError, r"axis 0 is none of this tensor's; it is \(batch, 4, 3\).*from 1 to 2"),
        ("permute:3:1,0", "C4", ActionError, "axis 3 is none of this tensor's"),
        ("permute:-1:1,0", "C4", ActionError, "axis -1 is none of this tensor's"),
        ("roll:3:1", "C4", ActionError, "axis 3 is none of this tensor's"),
        (
            "permute:1:1,0",
            "C4",
            ActionError,
            r"expected a permutation of 0\.\.3 \(axis 1 holds 4 entries\), got 2 entr",
        ),
        ("permute:1:0,0,1,2", "C4", ActionError, r"expected a permutation of 0\.\.3 .*: 0,0,1,2"),
        ("permute:1:1,2,3,4", "C4", ActionError, "expected a permutation"),
        ("permute:1:-1,0,1,2", "C4", ActionError, "expected a permutation"),
        ("permute:1:1,2,3,0", "D4", UsageError, r"D4 has 2 generator\(s\).*rotation, then reflection\), got 1"),
        ("permute:1:1,2,3,0;0,3,2,1", "C4", UsageError, r"C4 has 1 generator\(s\).*got 2"),
        ("permute:1", "C4", UsageError, "expected permute:AXIS:i,j,k"),
        ("permute:c:1,0", "C4", UsageError, "whole numbers"),
        ("permute:1:1,x", "C4", UsageError, "whole numbers"),
        ("roll:1", "C4", UsageError, "expected roll:AXIS:STEPS"),
        ("roll:1:half", "C4", UsageError, "expected roll:AXIS:STEPS"),
        ("trivial:1", "C4", UsageError, "'trivial' takes nothing after its name, got trivial:1"),
        ("pixels:2", "C4", UsageError, "'pixels' takes nothing after its name"),
        ("pixel", "C4", UnknownName, "unknown action 'pixel': did you mean 'pixels'"),
        ("permutation:1:1,0", "C4", UnknownName, "unknown action 'permutation': did you mean 'permute'"),
        ("permute:1:1,2,3,0+roll:1:1", "C4", UsageError, "its parts move the same axis"),
        ("", "C4", UnknownName, "unknown action ''; known: permute, pixels, regular, roll, trivial"),
    ],
)
def test_what_is_no_output_action_is_refused(spec: str, name: str, error: type[GeedError], says: str) -> None:
    with pytest.raises(error, match=says):
        output_action(spec, parse_group(name), (4, 3))


def test_an_axis_action_checks_its_own_table() -> None:
    group = parse_group("C2")
    with pytest.raises(ActionError, match="no action of C2"):
        AxisAction(group, (3,), 1, (np.arange(3), np.array([1, 2, 0])), "made")
    swap = AxisAction(group, (2,), 1, (np.arange(2), np.array([1, 0])), "made")
    assert swap.kernel == (0,)


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_action_is_spelt_as_it_is_read(case: str) -> None:
    spec, name, shape = OUTPUTS[case]
    assert action_of(case).name == spec
    assert output_action(action_of(case).name, parse_group(name), shape).kernel == action_of(case).kernel


# ---- several axes at once ------------------------------------------------------------------------------------------


def test_a_joint_action_moves_pixels_and_channels() -> None:
    group: Group = parse_group("D4")
    joint = output_action("pixels+permute:1:1,2,3,0;0,3,2,1", group, (4, 5, 5))
    pixels = output_action("pixels", group, (4, 5, 5))
    channels = output_action("permute:1:1,2,3,0;0,3,2,1", group, (4, 5, 5))
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 5))
    for g in group.elements:
        assert np.array_equal(joint(g, x), channels(g, pixels(g, x)))
        assert np.array_equal(joint(g, x), pixels(g, channels(g, x)))
    # a regular field of C4: one quarter turn of the picture and one step in the field
    field = output_action("pixels+roll:1:1", parse_group("C4"), (4, 5, 5))
    assert np.array_equal(field(1, x), np.roll(np.rot90(x, 1, axes=(2, 3)), 1, axis=1))


def test_the_kernel_of_a_joint_action_is_what_every_part_leaves() -> None:
    c8 = parse_group("C8")
    assert output_action("permute:1:1,2,3,0+permute:2:1,0", c8, (4, 2)).kernel == (0, 4)
    assert output_action("permute:1:1,0+pixels", c8, (2, 1, 1)).kernel == (0, 2, 4, 6)
    assert output_action("permute:1:1,0+pixels", c8, (2, 3, 3)).kernel == (0,)
    assert output_action("trivial+roll:1:1", c8, (2,)).kernel == (0, 2, 4, 6)


def test_the_law_defect_of_a_joint_action_is_its_grids() -> None:
    c8 = parse_group("C8")
    grid = output_action("pixels", c8, (8, 4, 4))
    joint = output_action("roll:1:1+pixels", c8, (8, 4, 4))
    assert joint.law_defect == grid.law_defect > 0
    assert joint.resampled_by == grid.resampled_by


# ---- the disc mask -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 9, 29])
def test_the_disc_commutes_with_what_keeps_the_square(size: int) -> None:
    x = np.random.default_rng(size).standard_normal((2, 1, size, size))
    for name in ("C4", "D4", "flip", "flip-ud"):
        action = input_action(parse_group(name), (1, size, size))
        for g in action.group.elements:
            assert np.array_equal(action(g, masked(x, True)), masked(action(g, x), True))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (5, 5), (6, 6), (4, 7), (9, 6)])
def test_the_disc_holds_the_pixels_whose_centre_lies_in_it(height: int, width: int) -> None:
    mask = disc(height, width)
    radius = min(height, width) / 2
    for i, j in np.ndindex(height, width):
        distance = math.hypot(i + 0.5 - height / 2, j + 0.5 - width / 2)
        assert mask[i, j] == (distance <= radius + 1e-12)
    assert not mask.flags.writeable
    if min(height, width) >= 5:
        assert not mask[0, 0]


def test_no_mask_changes_nothing_and_a_mask_is_zero_outside() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)
    assert masked(x, False) is x
    inside = masked(x, True)
    assert inside.dtype == x.dtype
    assert np.array_equal(inside[..., disc(6, 6)], x[..., disc(6, 6)])
    assert not inside[..., ~disc(6, 6)].any()


# ---- actions within the disc ---------------------------------------------------------------------------------------

WITHIN = [(n, s) for n in ("C4", "C8", "D4", "D8", "C12", "flip", "C8xS2@channel") for s in (1, 2, 3, 5, 6)]


@pytest.mark.parametrize(("name", "size"), WITHIN)
def test_within_the_disc_nothing_is_smeared_over_the_rim(name: str, size: int) -> None:
    inner = input_action(parse_group(name), (2, size, size))
    action = within_disc(inner, True)
    x = masked(sample(inner, dtype="float32"), True)
    seen = dict(action.orbit(x))
    assert sorted(seen) == list(action.group.elements)
    for g, moved in seen.items():
        assert np.array_equal(moved, masked(inner(g, x), True))
        assert np.array_equal(moved, action(g, x))
        assert not moved[..., ~disc(size, size)].any()
        assert all(np.array_equal(action(g, x[i : i + 1])[0], moved[i]) for i in range(len(x)))
    assert np.array_equal(action(0, x), x)
    assert (action.group, action.shape, action.name) == (inner.group, inner.shape, inner.name)
    assert (action.resampled_by, action.by_channel) == (inner.resampled_by, inner.by_channel)


@pytest.mark.parametrize(("name", "size"), WITHIN)
def test_kernel_within_the_disc(name: str, size: int) -> None:
    action = within_disc(input_action(parse_group(name), (2, size, size)), True)
    group, inside = action.group, np.broadcast_to(disc(size, size), (2, size, size))
    units = np.eye(inside.size)[inside.ravel()].reshape(-1, *inside.shape)
    still = tuple(g for g in group.elements if np.array_equal(action(g, units), units))
    assert action.kernel == still


def test_a_mask_is_only_for_grids_that_keep_it() -> None:
    pixels = input_action(parse_group("C4"), (2, 5, 5))
    vector = output_action("trivial", parse_group("C4"), (5,))
    assert within_disc(pixels, False) is pixels
    assert within_disc(vector, True) is vector
    with pytest.raises(
        ActionError, match="element 1 of T2 moves the disc of the mask on a 6×6 grid: leave the mask out"
    ):
        within_disc(input_action(parse_group("T2"), (1, 6, 6)), True)


def test_a_mask_has_one_of_three_names() -> None:
    assert [mask_of(word) for word in MASKS] == ["auto", "disc", "none"]
    with pytest.raises(UnknownName, match="unknown mask 'disk': did you mean 'disc'"):
        mask_of("disk")


def test_the_kernel_within_the_disc_is_computed_not_assumed() -> None:
    """On a 1×3 map the disc leaves the middle pixel only, so that a reflection does nothing there."""
    group = parse_group("flip")
    assert output_action("pixels", group, (1, 1, 3)).kernel == (0,)
    assert within_disc(output_action("pixels", group, (1, 1, 3)), True).kernel == (0, 1)
    assert within_disc(output_action("pixels", group, (1, 5, 5)), True).kernel == (0,)
    swapped = output_action("pixels+permute:1:1,0", group, (2, 1, 3))
    assert within_disc(swapped, True).kernel == (0,)
