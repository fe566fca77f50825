"""How far ρ(g)ρ(h) is from ρ(gh): against dense matrices and their singular values, every pair of them."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import svds

from geed_onnx.actions import (
    INTERPOLATIONS,
    Action,
    Interpolation,
    JointAction,
    disc,
    input_action,
    output_action,
    parse_declared,
    turn_matrix,
    within_disc,
)
from geed_onnx.actions import grid as grids
from geed_onnx.actions.spectral import spectral_norm
from geed_onnx.errors import ActionError
from geed_onnx.groups import Group, parse_group

Array = np.ndarray[Any, Any]
every = pytest.mark.parametrize("how", INTERPOLATIONS)
masks = pytest.mark.parametrize("mask", [False, True], ids=["frame", "disc"])


def worst_pair(rho: Array, group: Group) -> float:
    """`max ‖ρ(g)ρ(h) − ρ(gh)‖₂ / ‖ρ(gh)‖₂` of matrices (|G|, d, d), from all their singular values."""
    sizes = np.linalg.svd(rho, compute_uv=False)[:, 0]
    worst = 0.0
    for g in group.elements:
        products = group.table[g]
        errors = np.linalg.svd(rho[g] @ rho - rho[products], compute_uv=False)[:, 0]
        worst = max(worst, float((errors / sizes[products]).max()))
    return worst


def dense(action: Action, mask: bool = False) -> Array:
    """ρ(g) as matrices (|G|, d, d), found by moving every unit vector; on the pixels of the disc alone with `mask`."""
    size = math.prod(action.shape)
    units = np.eye(size).reshape(size, *action.shape)
    found = np.stack([action(g, units).reshape(size, size).T for g in action.group.elements])
    if not mask:
        return found
    inside = np.broadcast_to(disc(*action.shape[-2:]), action.shape).ravel()
    return found[:, inside][:, :, inside]


@masks
@every
@pytest.mark.parametrize(
    ("name", "size"),
    [*itertools.product(("C3", "C8"), range(2, 13)), *(("D8", n) for n in (2, 3, 4, 5, 7, 12)),
     *itertools.product(("C12", "C16", "D3", "C2xC8", "C5"), (2, 3, 6))],
)  # fmt: skip
def test_law_defect_is_the_largest_of_all_singular_values(name: str, size: int, how: Interpolation, mask: bool) -> None:
    action = input_action(parse_group(name), (1, size, size), how)
    expected = worst_pair(dense(action, mask), action.group)
    found = within_disc(action, mask).law_defect
    assert found == pytest.approx(expected, rel=1e-5, abs=0)
    assert found > 0.1 or (how, size) == ("nearest", 3)  # 45 degrees are no action but there


@every
def test_channels_do_not_move_it(how: Interpolation) -> None:
    one, three = (input_action(parse_group("C8"), (c, 6, 6), how).law_defect for c in (1, 3))
    assert one == three
    both = input_action(parse_group("C8xS2@channel"), (2, 3, 3), how)
    assert isinstance(both, JointAction)
    assert both.law_defect == pytest.approx(worst_pair(dense(both), both.group), rel=1e-5)


def test_where_nothing_is_resampled_it_is_zero_whatever_the_grid() -> None:
    for name, shape in [("C4", (1, 900, 900)), ("D4", (1, 7, 7)), ("flip", (3, 4, 900)), ("C8", (64, 1, 1))]:
        action = input_action(parse_group(name), shape)
        assert (action.law_defect, within_disc(action, True).law_defect) == (0.0, 0.0)


@every
def test_within_six_digits_of_arpack_on_a_grid_too_large_for_dense_matrices(how: Interpolation) -> None:
    action = input_action(parse_group("C8"), (1, 40, 40), how)
    turn = turn_matrix(action.resampled_by[1], 40, 40, how)
    quarter = sparse.csr_array(sparse.eye_array(1600, format="csr")[np.rot90(np.arange(1600).reshape(40, 40)).ravel()])
    _, [largest], _ = svds(turn @ turn - quarter, k=1, v0=np.ones(1600) + np.arange(1600) % 7, tol=1e-10)
    assert action.law_defect == pytest.approx(largest, rel=1e-5)


@masks
@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", ["C8", "D8", "C12", "C20"])
def test_what_a_large_grid_takes_from_a_smaller_one_is_within_a_hundredth(
    name: str, how: Interpolation, mask: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = parse_group(name)
    wanted = {}
    for work in (0, 1 << 40):
        monkeypatch.setattr(grids, "EXACT_WORK", work)
        monkeypatch.setattr(grids, "MOST_PAIRS", 16 if work == 0 else 1 << 20)
        grids.law_defect.cache_clear()
        wanted[work] = {n: grids.law_defect(group, n, how, mask) for n in (31, 32, 37, 40)}
    short, exact = wanted.values()
    assert (short[37], short[40]) == (short[31], short[32])
    if name != "C20":
        assert (short[31], short[32]) == (exact[31], exact[32])
    for n, value in exact.items():
        assert short[n] == pytest.approx(value, rel=1e-2)
    grids.law_defect.cache_clear()


def test_the_same_digits_whatever_the_threads() -> None:
    script = (
        "from geed_onnx.actions import input_action, within_disc\nfrom geed_onnx.groups import parse_group\n"
        "print([within_disc(input_action(parse_group(n), (1, s, s)), m).law_defect"
        " for n in ('C8', 'D8', 'C3') for s in (5, 29, 64) for m in (False, True)])"
    )
    said = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        said.add(done.stdout)
    assert len(said) == 1
    for value in json.loads(said.pop()):
        assert value == float(f"{value:.6g}")


# ---- the norm ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 10, 11, 57])
@pytest.mark.parametrize("scale", [1e-100, 1e-8, 1.0, 1e8])
def test_the_norm_of_a_matrix_is_its_largest_singular_value_at_any_scale(size: int, scale: float) -> None:
    rng = np.random.default_rng(size)
    orthogonal = np.linalg.qr(rng.standard_normal((size, size)))[0]
    low_rank = np.outer(rng.standard_normal(size), rng.standard_normal(size))
    nilpotent = np.diag(np.ones(size - 1), 1)
    for matrix in (rng.standard_normal((size, size)), orthogonal, low_rank, np.eye(size), nilpotent):
        expected = np.linalg.svd(matrix, compute_uv=False)[0] * scale
        found = spectral_norm(sparse.csr_array(matrix * scale))
        assert found == pytest.approx(expected, rel=1e-8, abs=0)


def test_the_norm_of_nothing_is_zero() -> None:
    assert spectral_norm(sparse.csr_array((5, 5))) == 0.0
    one = sparse.csr_array(np.eye(5))
    assert spectral_norm(sparse.csr_array(one - one)) == 0.0


# ---- matrices that a file declares -----------------------------------------------------------------------------------


def declared(*generators: Array, group: str = "C4") -> Any:
    listed = [g.tolist() for g in generators]
    return parse_declared({"group": group, "pixels": False, "fields": [{"type": "matrix", "generators": listed}]})


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1.0, 1e4, 1e8])
def test_the_basis_of_a_field_does_not_decide_whether_it_is_a_representation(scale: float) -> None:
    """One feature in another unit than the other: the law holds as it did, relative to what ρ(gh) does."""
    basis = np.diag([scale, 1.0])
    quarter = basis @ np.array([[0.0, -1.0], [1.0, 0.0]]) @ np.linalg.inv(basis)
    action = output_action(declared(quarter), parse_group("C4"), (2,))
    assert action.kernel == (0,)
    assert action.law_defect <= 1e-12
    assert action.law_defect == pytest.approx(worst_generator(dense(action), action.group), rel=1e-6, abs=1e-15)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_one_that_breaks_the_law_is_refused_in_any_basis(scale: float) -> None:
    basis = np.diag([scale, 1.0])
    angle = math.pi / 2 + 1e-4
    almost = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    with pytest.raises(ActionError, match="is no representation of C4"):
        declared(basis @ almost @ np.linalg.inv(basis))


def test_rounding_of_float32_weights_is_measured_and_let_pass() -> None:
    eighth = np.array([[1, -1], [1, 1]]) / math.sqrt(2)
    action = output_action(declared(eighth.astype(np.float32).astype(float), group="C8"), parse_group("C8"), (2,))
    assert 1e-9 < action.law_defect < 1e-6
    assert action.law_defect == pytest.approx(worst_generator(dense(action), action.group), rel=1e-6)


def worst_generator(rho: Array, group: Group) -> float:
    pairs = itertools.product(group.elements, group.generators)
    direct = {(g, s): rho[group.product(g, s)] for g, s in pairs}
    return max(
        float(np.linalg.svd(rho[g] @ rho[s] - m, compute_uv=False)[0] / np.linalg.svd(m, compute_uv=False)[0])
        for (g, s), m in direct.items()
    )
