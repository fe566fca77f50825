"""f̂ follows the kernel, E is a double loop, and every variant's closed form comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from geed_onnx.actions import Action, ChannelAction, GridAction, input_action, on_logs, orbit_of, output_action
from geed_onnx.actions.fields import Fields
from geed_onnx.distances import distances
from geed_onnx.errors import ActionError, UnknownName, UsageError
from geed_onnx.estimators import Deviations, normalisers, spread
from geed_onnx.groups import Group, parse_group
from geed_onnx.variants import (
    KINDS,
    Readings,
    aligned,
    aligned_readings,
    anchored_null,
    broken_null,
    deviations,
    family,
    kernel_mean,
    largest_value,
    line_up,
    lined_up,
    log_probabilities,
    looks_doubtful,
    looks_like_probabilities,
    missed,
    parse_variant,
    range_of,
    readings,
    shifts,
    variants,
)


def features(order: int, shape: tuple[int, ...], batch: int = 3, seed: int = 0) -> list[np.ndarray]:
    """f(gx) of some network without symmetry: (batch, *shape) for every element."""
    return list(np.random.default_rng(seed).standard_normal((order, batch, *shape)))


def mixing_action(group: Group, shape: tuple[int, ...], images: tuple[np.ndarray, ...]) -> ChannelAction:
    """ρ(g) as a matrix over the classes."""
    return ChannelAction(group, shape, (Fields("matrix", 1, images),), np.arange(shape[0]), "mixing")


# ---- f̂ -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [(0,), (0, 4), (0, 2, 4, 6), tuple(range(8))])
def test_kernel_mean_is_the_mean_over_the_kernel(kernel: tuple[int, ...]) -> None:
    elements = features(8, (3, 2))
    found = kernel_mean(elements, kernel)
    for index in np.ndindex(found.shape):
        assert found[index] == pytest.approx(math.fsum(float(elements[k][index]) for k in kernel) / len(kernel))


def test_kernel_mean_is_accumulated_in_float64_and_changes_nothing() -> None:
    elements = [np.full((1, 4), 1e4 + 0.01 * g, dtype=np.float32) for g in range(16)]
    before = [e.copy() for e in elements]
    found = kernel_mean(elements, range(16))
    assert found.dtype == np.float64
    assert np.array_equal(found, np.mean([e.astype(np.float64) for e in elements], axis=0))
    assert all(np.array_equal(a, b) for a, b in zip(elements, before, strict=True))
    half = [np.full((1, 2), 60000, dtype=np.float16)] * 4  # whose sum float16 cannot hold
    assert kernel_mean(half, range(4)).tolist() == [[60000.0 - 0.0] * 2]


def test_a_faithful_action_has_f_itself_as_centre() -> None:
    elements = features(4, (2, 3, 3))
    assert kernel_mean(elements, (0,)) is elements[0]


# ---- E, by a double loop -------------------------------------------------------------------------------------------

LOOPS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "l2": lambda a, b: math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a.flat, b.flat, strict=True))),
    "cosine": lambda a, b: (
        -math.fsum(x * y for x, y in zip(a.flat, b.flat, strict=True))
        / math.sqrt(math.fsum(x * x for x in a.flat))
        / math.sqrt(math.fsum(x * x for x in b.flat))
    ),
    "channelwise-cosine": lambda a, b: sum(LOOPS["cosine"](x, y) for x, y in zip(a, b, strict=True)) / len(a),
    "kl": lambda a, b: math.fsum(x * math.log(x / y) for x, y in zip(a, b, strict=True)),
}


def picture_motion(name: str, g: int, x: np.ndarray) -> np.ndarray:
    """ρ(g) of an exact element on (…, H, W), by numpy alone."""
    if name == "flip":
        return x[..., ::-1] if g else x
    n = int(name[1:])
    return np.rot90(x[..., ::-1] if g >= n else x, (g % n) * 4 // n, axes=(-2, -1))


@pytest.mark.parametrize("name", ["C4", "D4", "flip", "C2"])
@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("m", ["channelwise-cosine", "l2", "cosine"])
def test_deviations_of_maps(name: str, size: int, m: str) -> None:
    """E of eq. (4): m(f(gx), ρ(g) f(x)) for a faithful output action."""
    group = parse_group(name)
    elements = features(group.order, (2, size, size))
    found = deviations(elements, output_action("pixels", group, (2, size, size)), distances[m])
    assert found.shape == (3, group.order)
    for b in range(3):
        for g in group.elements:
            expected = LOOPS[m](elements[g][b], picture_motion(name, g, elements[0][b]))
            assert found[b, g] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("order", [2, 4, 8])
@pytest.mark.parametrize("m", ["l2", "cosine", "kl"])
def test_deviations_of_invariants(order: int, m: str) -> None:
    """Eq. (6): the trivial action, f̂ the mean of the raw features over the orbit."""
    group = parse_group(f"C{order}")
    elements = features(order, (6,))
    action, distance = output_action("trivial", group, (6,)), distances[m]
    if m == "kl":
        logs = [log_probabilities(e, logits=True) for e in elements]
        found, elements = deviations(logs, action, distance.in_logs()), [np.exp(e) for e in logs]
        assert np.allclose(found, deviations(elements, action, distance), rtol=0, atol=1e-14)
    else:
        found = deviations(elements, action, distance)
    for b in range(3):
        centre = np.array([math.fsum(e[b, i] for e in elements) / order for i in range(6)])
        for g in range(order):
            assert found[b, g] == pytest.approx(LOOPS[m](elements[g][b], centre), rel=1e-12)


def test_c8_acts_on_the_output_through_c4() -> None:
    """Trap: the kernel is {0, 4}, so f̂ = (f(x) + f(r⁴x))/2, moved by ρ(g)."""
    group = parse_group("C8")
    action = output_action("permute:1:1,2,3,0", group, (4,))
    elements = features(8, (4,))
    found = deviations(elements, action, distances["l2"])
    for b in range(3):
        for g in range(8):
            centre = [(elements[0][b][c] + elements[4][b][c]) / 2 for c in range(4)]
            moved = np.array([centre[(c + g) % 4] for c in range(4)])
            assert found[b, g] == pytest.approx(LOOPS["l2"](elements[g][b], moved), rel=1e-12)
    # a network that is equivariant through C4 scores the optimum, every element of it
    exact = [action(g, elements[0]) for g in range(8)]
    assert np.abs(deviations(exact, action, distances["l2"])).max() == 0.0


def test_rotation_of_a_1x1_map_is_invariance() -> None:
    """Trap: kernel on a 1×1 map."""
    group = parse_group("C4")
    elements = features(4, (5, 1, 1))
    pixels = deviations(elements, output_action("pixels", group, (5, 1, 1)), distances["l2"])
    flat = deviations([e.reshape(3, 5) for e in elements], output_action("trivial", group, (5,)), distances["l2"])
    assert np.array_equal(pixels, flat)


@pytest.mark.parametrize("name", ["C4", "C8", "D4", "D8", "flip", "C12"])
@pytest.mark.parametrize("size", [1, 5, 6])
def test_the_identity_network_scores_the_optimum(name: str, size: int) -> None:
    group = parse_group(name)
    x = np.random.default_rng(1).standard_normal((2, 3, size, size)).astype(np.float32)
    action = input_action(group, (3, size, size))
    elements = list(np.moveaxis(orbit_of(action, x), 1, 0))
    for m in ("channelwise-cosine", "channelwise-correlation", "cosine", "l2", "relative-l2"):
        if m == "channelwise-correlation" and size == 1:
            continue
        found = deviations(elements, action, distances[m])
        assert np.abs(found - distances[m].optimum).max() < 1e-12


def test_the_identity_element_is_in_the_mean() -> None:
    """Trap: for a faithful action its deviation is the optimum, and 1/|G| of the value."""
    elements = features(8, (2, 4, 4))
    found = deviations(elements, output_action("pixels", parse_group("C8"), (2, 4, 4)), distances["channelwise-cosine"])
    assert np.allclose(found[:, 0], -1.0, rtol=0, atol=1e-12)
    assert (found[:, 1:] > -0.9).all()
    assert np.allclose(Deviations.of(list("abc"), found).mean, (-1 + found[:, 1:].mean() * 7) / 8)


@pytest.mark.parametrize("spec", ["pixels", "trivial", "pixels+permute:1:1,2,3,0;0,3,2,1", "permute:1:0,1,2,3;1,0,3,2"])
def test_deviations_do_not_depend_on_the_batch(spec: str) -> None:
    group = parse_group("D4")
    action = output_action(spec, group, (4, 5, 5))
    elements = [e.astype(np.float32) for e in features(8, (4, 5, 5), batch=5)]
    for entry in (distances["channelwise-cosine"], distances["l2"]):
        whole = deviations(elements, action, entry)
        for b in range(5):
            assert np.array_equal(deviations([e[b : b + 1] for e in elements], action, entry)[0], whole[b])


@pytest.mark.parametrize("name", ["C8", "D8"])
@pytest.mark.parametrize("m", ["channelwise-cosine", "channelwise-correlation", "channelwise-weighted-cosine"])
def test_large_maps_are_compared_a_slice_of_channels_at_a_time(
    name: str, m: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = parse_group(name)
    action = output_action("pixels", group, (7, 5, 5))
    elements = [e.astype(np.float32) for e in features(group.order, (7, 5, 5), batch=4)]
    before = features(1, (7, 5, 5), batch=1, seed=1)[0].astype(np.float32)
    other = np.concatenate([before, elements[0][:-1]])
    alignment = lined_up(action, distances[m], np.float32)

    def read() -> Readings:
        if alignment is None:
            return readings(elements, action, distances[m], floor=True, others=[other] * group.order)
        own, another = (line_up(alignment, y) for y in (elements[0], before))
        return aligned_readings(elements, alignment, distances[m], own, another, floor=True)

    assert (alignment is None) == (m == "channelwise-correlation")
    whole = read()
    slow = readings(elements, action, replace(distances[m], per_channel=None), floor=True, others=[other] * group.order)
    for one, another in zip(whole, slow, strict=True):
        assert one is not None
        assert another is not None
        # float32 is rounded once a resampling, in one order of sums or another: at most twice there and back
        assert np.abs(one - another).max() < 4 * np.finfo(np.float32).eps
    for values in (1, 4 * 25 * 2, 4 * 25 * 3 + 1, 10**9):
        monkeypatch.setattr(family, "SLICE_VALUES", values)
        monkeypatch.setattr(aligned, "ALIGNED_VALUES", values)
        again = read()
        assert all(np.array_equal(x, y) for x, y in zip(again, whole, strict=True))  # type: ignore[arg-type]
        assert np.array_equal(deviations(elements, action, distances[m]), whole.deviations)
    plain = np.stack([distances[m](elements[g], action(g, elements[0])) for g in group.elements], axis=1)
    assert np.allclose(whole.deviations, plain, rtol=0, atol=1e-12)


# ---- closed forms --------------------------------------------------------------------------------------------------


def entropy(p: np.ndarray) -> float:
    return -math.fsum(x * math.log(x) for x in p.flat if x > 0)


@pytest.mark.parametrize(("name", "classes"), [("flip", 5), ("C4", 3), ("C8", 9), ("D8", 4)])
@pytest.mark.parametrize("sharp", [1.0, 30.0])
def test_softmax_is_the_jensen_shannon_divergence_of_the_orbit(name: str, classes: int, sharp: float) -> None:
    """H(mean) − mean H, hence at most log min(|G|, classes)."""
    group = parse_group(name)
    variant = parse_variant("softmax")
    logs = [log_probabilities(sharp * e, logits=True) for e in features(group.order, (classes,), batch=6)]
    found = deviations(logs, output_action(variant.action, group, (classes,)), variant.m).mean(axis=1)
    elements = [np.exp(e) for e in logs]
    for b in range(6):
        middle = np.mean([e[b] for e in elements], axis=0)
        expected = entropy(middle) - sum(entropy(e[b]) for e in elements) / group.order
        assert found[b] == pytest.approx(expected, abs=1e-12)
        assert 0 <= found[b] <= math.log(min(group.order, classes)) + 1e-12


def test_softmax_reaches_its_bound() -> None:
    one_hot = [np.eye(4)[[g % 4]] for g in range(8)]
    trivial = output_action("trivial", parse_group("C8"), (4,))
    assert deviations(one_hot, trivial, distances["kl"]).mean() == pytest.approx(math.log(4), abs=1e-14)
    few = [np.eye(9)[[g]] for g in range(2)]
    trivial = output_action("trivial", parse_group("flip"), (9,))
    assert deviations(few, trivial, distances["kl"]).mean() == pytest.approx(math.log(2), abs=1e-14)


@pytest.mark.parametrize("name", ["flip", "C4", "C8", "D8"])
def test_structureless_features_have_a_closed_form_and_are_their_own_null(name: str) -> None:
    """√((1 − 1/|G|)/2) for latent-l2, and the same on broken orbits (DESIGN 4.9)."""
    group = parse_group(name)
    variant = parse_variant("latent-l2")
    n, size = 24, 6000
    elements = np.random.default_rng(2).standard_normal((group.order, n, size), dtype=np.float32)
    action = output_action(variant.action, group, (size,))
    m = spread({f"{i:02}": elements[0, i] for i in range(n)}, "l2").value
    assert m == pytest.approx(math.sqrt(2 * size), rel=0.01)
    expected = math.sqrt((1 - 1 / group.order) / 2)
    value = variant.scale.apply(deviations(list(elements), action, variant.m).mean(), m)
    assert value == pytest.approx(expected, rel=0.01)
    steps = shifts(group.elements, n)
    broken = broken_null(lambda g, images: elements[g, images], n, steps, action, variant.m, rows=5)
    assert variant.scale.apply(broken.values.mean(), m) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("name", "value"), [("latent-l2", 0.0), ("latent-cosine", None), ("latent-cosine-bounded", 0.0)]
)
def test_an_invariant_network_scores_the_optimum(name: str, value: float | None) -> None:
    """Trap: optimum −1 and −1/M."""
    variant = parse_variant(name)
    group = parse_group("D4")
    rng = np.random.default_rng(3)
    x = rng.standard_normal((5, 7)).astype(np.float32) + 0.5
    m = spread(dict(zip("abcde", x, strict=True)), str(variant.scale.spread)).value
    found = deviations([x] * 8, output_action("trivial", group, (7,)), variant.m)
    expected = -1 / m if value is None else value
    assert variant.scale.apply(found.mean(), m) == pytest.approx(expected, abs=1e-12)
    assert variant.scale.apply(variant.m.optimum, m) == pytest.approx(expected, abs=1e-12)


def test_latent_cosine_is_the_papers_value_and_its_bounded_twin() -> None:
    group = parse_group("C4")
    elements = [e + 1.0 for e in features(4, (9,), batch=6)]
    m = spread(dict(zip("abcdef", elements[0], strict=True)), "cosine").value
    cosines = []
    for b in range(6):
        centre = np.mean([e[b] for e in elements], axis=0)
        cosines += [-LOOPS["cosine"](elements[g][b], centre) for g in range(4)]
    c = sum(cosines) / len(cosines)
    for name, expected in (("latent-cosine", -c / m), ("latent-cosine-bounded", (1 - c) / (1 - m))):
        variant = parse_variant(name)
        mean = deviations(elements, output_action("trivial", group, (9,)), variant.m).mean()
        assert variant.scale.apply(mean, m) == pytest.approx(expected, rel=1e-12)


def test_dead_channels_decide_nothing_where_channels_count_by_their_norm() -> None:
    """Two channels that turn with the image, one of dust that does not, one of zeros."""
    group = parse_group("C4")
    action = output_action("pixels", group, (4, 5, 5))
    rng = np.random.default_rng(9)
    x = np.zeros((2, 4, 5, 5))
    x[:, :2] = rng.standard_normal((2, 2, 5, 5))
    elements = []
    for g in group.elements:
        moved = action(g, x).copy()
        moved[:, 2] = 1e-7 * rng.standard_normal((2, 5, 5))
        elements.append(moved)
    plain = deviations(elements, action, parse_variant("channelwise").m)
    weighted = deviations(elements, action, parse_variant("channelwise-weighted").m)
    assert (plain[:, 1:] > -0.95).all()
    assert np.abs(weighted + 1).max() < 1e-6


def test_logarithms_are_moved_by_permutations_and_mixed_as_probabilities() -> None:
    """ρ mixes classes 0 and 1 evenly at element 1: the logarithm of the mixture, −inf where nothing is mixed."""
    group = parse_group("C2")
    swap = output_action("permute:1:1,0,2", group, (3,))
    assert on_logs(swap) is swap
    assert on_logs(output_action("trivial", group, (3,))).kernel == (0, 1)

    half = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    mixing = on_logs(mixing_action(group, (3,), (np.eye(3), half)))
    p = np.array([[0.75, 0.25, 0.0]])
    with np.errstate(divide="ignore"):
        logs = np.log(p)
    assert np.exp(mixing(1, logs)).tolist() == [[0.25, 0.75, 0.0]]
    assert [np.exp(moved).tolist() for _, moved in mixing.orbit(logs)] == [p.tolist(), [[0.25, 0.75, 0.0]]]
    with pytest.raises(ActionError, match=r"makes negative numbers .-1. of probabilities at element 1 of C2: give one"):
        on_logs(mixing_action(group, (3,), (np.eye(3), -half)))


# ---- broken orbits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 8, 16])
@pytest.mark.parametrize("classes", [range(3), range(8), (0, 1, 2, 3, 0, 1, 2, 3), (0, 0, 0, 0), (0, 5, 2, 9, 2)])
def test_partners_are_of_the_block_and_never_ones_own_image(n: int, classes: Sequence[int]) -> None:
    steps = shifts(classes, n)
    assert len(steps) == len(classes)
    for c, s in zip(classes, steps, strict=True):
        assert (s == 0) if c == 0 else (0 < s < n)
        # the partners of a block are its images, each once
        assert sorted((i + s) % n for i in range(n)) == list(range(n))
    alike = {c: {s for d, s in zip(classes, steps, strict=True) if d == c} for c in classes}
    assert all(len(some) == 1 for some in alike.values())
    if len(moving := {*classes} - {0}) < n:
        assert len({min(alike[c]) for c in moving}) == len(moving)
    else:  # more classes than other images: every one of these is a partner
        assert {*steps} - {0} == set(range(1, n))


def test_a_block_of_one_image_has_no_partners() -> None:
    assert shifts(range(5), 1) == (0,) * 5


def partners(steps: Sequence[int], i: int, n: int) -> list[int]:
    return [(i + s) % n for s in steps]


@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize("classes", [range(4), (0, 1, 0, 1), (0, 1, 1, 2)])
def test_what_an_image_takes_out_of_an_anchored_null(n: int, classes: Sequence[int]) -> None:
    values, steps = np.random.default_rng(6).normal(size=(n, 4)), shifts(classes, n)
    found = anchored_null(values, steps)
    assert np.array_equal(found.values, values)
    for image in range(n):
        for g in range(4):
            gone = [values[i, g] for i in range(n) if image in (i, partners(steps, i, n)[g])]
            assert found.lost[image, g] == len(gone)
            assert found.taken[image, g] == pytest.approx(math.fsum(gone), rel=1e-12, abs=1e-15)


BROKEN = [
    ("C4", "trivial", (0, 1, 2, 3)),
    ("C4", "trivial", (0, 1, 0, 1)),
    ("C8", "permute:1:1,2,3,0", range(8)),
    ("C8", "permute:1:1,2,3,0", (0, 1, 2, 3, 0, 1, 2, 3)),
    ("D4", "permute:1:1,0,3,2;0,1,2,3", range(8)),
]


@pytest.mark.parametrize(("name", "spec", "classes"), BROKEN)
@pytest.mark.parametrize("n", [2, 3, 5, 11])
@pytest.mark.parametrize("m", ["l2", "kl"])
def test_without_an_image_the_centre_of_a_broken_orbit_is_formed_again(
    name: str, spec: str, classes: Sequence[int], n: int, m: str
) -> None:
    """Against a loop: an image's elements leave every orbit and its f̂; an entry goes with its own element alone."""
    group = parse_group(name)
    action, steps = output_action(spec, group, (4,)), shifts(classes, n)
    assert len(action.kernel) > 1
    elements, distance = np.stack(features(group.order, (4,), batch=n)), distances[m]
    if m == "kl":
        elements, distance = np.stack([log_probabilities(e, logits=True) for e in elements]), distance.in_logs()
        action = on_logs(action)
    seen = np.exp(elements) if m == "kl" else elements

    def slow(i: int, without: int | None) -> dict[int, float]:
        """The entries of the broken orbit around image i that are left."""
        of = partners(steps, i, n)
        kept = [g for g in group.elements if of[g] != without]
        if not {*kept} & {*action.kernel}:
            return {}
        centre = np.mean([seen[k, of[k]] for k in action.kernel if k in kept], axis=0)[None]
        moved = output_action(spec, group, (4,))
        return {g: LOOPS[m](seen[g, of[g]], moved(g, centre)[0]) for g in kept}

    found = broken_null(lambda g, images: elements[g, images], n, steps, action, distance, rows=n)
    for rows in (1, 2):
        again = broken_null(lambda g, images: elements[g, images], n, steps, action, distance, rows=rows)
        assert all(np.allclose(x, y, rtol=1e-13, atol=1e-13) for x, y in zip(found, again, strict=True))
    for i in range(n):
        assert dict(enumerate(found.values[i])) == pytest.approx(slow(i, None), rel=1e-9, abs=1e-12)
    for image in range(n):
        left = [slow(i, image) for i in range(n) if i != image or len({*steps}) > 2]
        for g in group.elements:
            column = [row[g] for row in left if g in row]
            assert n - found.lost[image, g] == len(column)
            rest = found.values[:, g].sum() - found.taken[image, g]
            assert rest == pytest.approx(math.fsum(column), rel=1e-9, abs=1e-11)


@pytest.mark.parametrize(("name", "spec", "classes"), BROKEN)
def test_the_null_of_images_that_are_all_alike_is_their_value(name: str, spec: str, classes: Sequence[int]) -> None:
    group = parse_group(name)
    action, one = output_action(spec, group, (4,)), features(group.order, (4,), batch=1)

    def orbit(g: np.ndarray, images: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.stack(one)[g[:, 0]], (*images.shape, 4))

    found = broken_null(orbit, 6, shifts(classes, 6), action, distances["l2"], rows=4)
    value = deviations(one, action, distances["l2"])
    assert np.allclose(found.values, np.repeat(value, 6, axis=0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["C4", "D4", "flip"])
@pytest.mark.parametrize("m", ["channelwise-cosine", "l2"])
@pytest.mark.parametrize("turned", [False, True])
def test_an_anchored_null_holds_each_element_against_another_image(name: str, m: str, turned: bool) -> None:
    """m(f(gx), ρ(g) f(x')), the identity at equality; `turned` is what stands for f(gx) there."""
    group = parse_group(name)
    elements, other = features(group.order, (2, 4, 4)), features(1, (2, 4, 4), seed=1)[0]
    seen = features(group.order, (2, 4, 4), seed=2) if turned else elements
    found = readings(
        elements,
        output_action("pixels", group, (2, 4, 4)),
        distances[m],
        others=[other] * group.order,
        turned=None if seen is elements else seen,
    )
    assert found.floor is None
    assert found.null is not None
    assert (found.null[:, 0] == distances[m].optimum).all()
    for b in range(3):
        for g in group.elements[1:]:
            expected = LOOPS[m](seen[g][b], picture_motion(name, g, other[b]))
            assert found.null[b, g] == pytest.approx(expected, rel=1e-12)


# ---- floors --------------------------------------------------------------------------------------------------------


def direct_floor(elements: list[np.ndarray], action: Action, m: str) -> np.ndarray:
    """m(ρ(g⁻¹)ρ(g) f̂, f̂), element by element, image by image."""
    group = action.group
    out = np.empty((len(elements[0]), group.order))
    for b in range(len(out)):
        centre = np.mean([elements[k][b] for k in action.kernel], axis=0)[None]
        for g in group.elements:
            (inverse,) = (h for h in group.elements if group.product(h, g) == 0)
            out[b, g] = distances[m](action(inverse, action(g, centre)), centre)[0]
    return out


@pytest.mark.parametrize("name", ["C8", "D8", "C12", "D12", "C3", "C4", "D4", "flip", "C8xS2@channel", "C2xC8"])
@pytest.mark.parametrize("size", [1, 5, 6])
@pytest.mark.parametrize("m", ["channelwise-cosine", "l2"])
def test_the_floor_is_what_going_and_coming_back_costs(name: str, size: int, m: str) -> None:
    group = parse_group(name)
    action = output_action("pixels", group, (2, size, size))
    elements = features(group.order, (2, size, size), batch=2)
    found = readings(elements, action, distances[m], floor=True).floor
    assert np.allclose(found, direct_floor(elements, action, m), rtol=1e-11, atol=1e-12)
    exact = np.array(action.resampled_by) == 0
    assert (found[:, exact] == distances[m].optimum).all()
    assert (found[:, ~exact] > distances[m].optimum + 0.01).all()
    assert exact.all() == (name in ("C4", "D4", "flip") or size == 1)


def test_the_floor_of_a_field_moves_its_channels_back() -> None:
    group = parse_group("C8")
    action = output_action("pixels+roll:1:1", group, (8, 5, 5))
    elements = features(8, (8, 5, 5), batch=2)
    found = readings(elements, action, distances["channelwise-cosine"], floor=True).floor
    assert np.allclose(found, direct_floor(elements, action, "channelwise-cosine"), rtol=0, atol=1e-12)


def test_the_floor_of_the_trivial_action_is_the_optimum() -> None:
    elements = features(8, (5,))
    for m in ("l2", "cosine"):
        found = readings(elements, output_action("trivial", parse_group("C8"), (5,)), distances[m], floor=True).floor
        assert (found == distances[m].optimum).all()


# ---- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(variants))
def test_every_variant_is_whole(name: str) -> None:
    variant = variants[name]
    assert parse_variant(name) is variant
    assert variant.name == name
    assert variant.kind in KINDS
    assert variant.kind in variant.m.kinds
    assert variant.about
    # and its general form is the same variant by another name
    parts = (variant.kind, variant.action, variant.distance, variant.normaliser)
    general = parse_variant(":".join(parts))
    assert (general.kind, general.action, general.distance, general.normaliser) == parts
    assert general.m is variant.m
    assert general.scale is variant.scale


def test_the_five_of_the_paper() -> None:
    assert {n: (v.kind, v.action, v.distance, v.normaliser) for n, v in variants.items() if n in PAPER} == PAPER


PAPER = {
    "channelwise": ("map", "pixels", "channelwise-cosine", "none"),
    "latent-l2": ("vector", "trivial", "l2", "spread-l2"),
    "latent-cosine": ("vector", "trivial", "cosine", "spread-cosine"),
    "latent-cosine-bounded": ("vector", "trivial", "cosine", "spread-cosine-bounded"),
    "softmax": ("probability", "trivial", "kl", "none"),
}


@pytest.mark.parametrize("distance", list(distances))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", ["pixels", "trivial"])
@pytest.mark.parametrize("normaliser", list(normalisers))
def test_the_general_form_is_read_exactly_where_it_makes_sense(
    distance: str, kind: str, action: str, normaliser: str
) -> None:
    text = f"{kind}:{action}:{distance}:{normaliser}"
    sensible = (
        kind in distances[distance].kinds
        and (action == "trivial" or kind == "map")
        and (normalisers[normaliser].spread != "cosine" or distance == "cosine")
    )
    if not sensible:
        with pytest.raises(UsageError, match=f"variant '{text}': the "):
            parse_variant(text)
        return
    variant = parse_variant(text)
    assert (variant.name, variant.kind, variant.action) == (text, kind, action)
    assert (variant.distance, variant.normaliser) == (distance, normaliser)


def test_the_normaliser_may_be_left_out() -> None:
    assert parse_variant("map:pixels:relative-l2").normaliser == "none"


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("chanelwise", UnknownName, "unknown variant 'chanelwise': did you mean 'channelwise'"),
        ("latent", UnknownName, "unknown variant 'latent'.*latent-"),
        ("", UnknownName, "unknown variant ''; known: channelwise, channelwise-weighted, latent-cosine"),
        ("map:pixels", UsageError, r"expected KIND:ACTION:DISTANCE\[:NORMALISER\], as in map:pixels:relative-l2"),
        ("map:pixels:l2:none:none", UsageError, "expected KIND:ACTION:DISTANCE"),
        ("map:", UsageError, "expected KIND:ACTION:DISTANCE"),
        ("maps:pixels:l2", UnknownName, "unknown kind of tap 'maps': did you mean 'map'"),
        ("map:pixel:l2", UnknownName, "unknown action in a variant 'pixel': did you mean 'pixels'.*--act"),
        ("vector:permute:l2", UnknownName, "unknown action in a variant 'permute'.*give others to the tap with --act"),
        ("map:pixels:l3", UnknownName, "unknown distance 'l3'; known: .*, l2, "),
        ("map:pixels:", UnknownName, "unknown distance ''"),
        ("map:pixels:l2:spread", UnknownName, "unknown normaliser 'spread': did you mean 'spread-l2'"),
        ("vector:trivial:kl", UsageError, "the distance kl is for probability, not for a vector"),
        ("vector:trivial:channelwise-cosine", UsageError, "channelwise-cosine is for map, not for a vector"),
        ("vector:pixels:l2", UsageError, "'pixels' moves the grid of a map, and a vector has none"),
        ("probability:pixels:kl", UsageError, "a probability has none"),
        ("vector:trivial:l2:spread-cosine", UsageError, "spread-cosine goes with the distance cosine, not l2"),
        ("vector:trivial:l2:spread-cosine-bounded", UsageError, "goes with the distance cosine, not l2"),
    ],
)
def test_what_is_no_variant_is_refused(text: str, error: type[UsageError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        parse_variant(text)
    assert caught.value.exit_code == 2


# ---- probabilities or logits ---------------------------------------------------------------------------------------


def test_probabilities_are_told_from_logits() -> None:
    p = np.random.default_rng(4).dirichlet(np.ones(9), size=6)
    assert looks_like_probabilities(p)
    assert looks_like_probabilities(p.astype(np.float16))
    assert not looks_like_probabilities(np.log(p))
    assert not looks_like_probabilities(p * 1.01)
    assert not looks_like_probabilities(np.array([[1.5, -0.5]]))  # sums to 1
    assert not looks_like_probabilities(np.stack([p[0], p[1] * 2]))  # one row is enough


def test_what_may_be_rounded_probabilities_is_doubtful() -> None:
    p = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    assert not looks_doubtful(p)
    for scaled in (0.91 * p, 0.998 * p, 1.002 * p, 1.09 * p):
        assert looks_doubtful(scaled)
        assert not looks_like_probabilities(scaled)
    assert not looks_doubtful(0.89 * p)
    assert not looks_doubtful(p + np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))  # one row whose sum is 2
    assert not looks_doubtful(np.array([[1.01, 0.0], [0.5, 0.45]]))  # more than 1
    assert not looks_doubtful(np.array([[-0.01, 1.0], [0.5, 0.45]]))
    assert missed(0.91 * p) == pytest.approx(0.09)


def test_logits_pass_through_a_float64_softmax() -> None:
    y = np.array([[1000.0, 999.0, -1000.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    logs = log_probabilities(y, logits=True)
    assert logs.dtype == np.float64
    e = math.e
    assert np.allclose(np.exp(logs), [[e / (1 + e), 1 / (1 + e), 0.0], [1 / 3] * 3], rtol=1e-15, atol=0)
    assert logs[0, 2] == pytest.approx(-2000 - math.log(1 + 1 / e), rel=1e-15)
    assert y[0, 0] == 1000  # what was given stays as it is


def test_probabilities_are_clipped_and_made_to_sum_to_1_in_float64() -> None:
    p = np.random.default_rng(5).dirichlet(np.ones(9), size=6).astype(np.float16)
    logs = log_probabilities(p, logits=False)
    scaled = np.exp(logs)
    assert logs.dtype == np.float64
    clipped = log_probabilities(np.array([[-0.1, 0.3, 0.6]]), logits=False)
    assert clipped[0, 0] == -np.inf
    assert np.allclose(clipped[0, 1:], [-math.log(3), math.log(2 / 3)], rtol=1e-15)
    assert np.allclose(scaled.sum(axis=-1), 1.0, rtol=0, atol=1e-15)
    assert np.allclose(scaled, p, atol=2e-3)


def test_grid_actions_of_different_groups_are_told_apart() -> None:
    """The operators are cached by group and grid: names must not be confused."""
    five = GridAction(parse_group("D2"), (1, 4, 4)), GridAction(parse_group("C4"), (1, 4, 4))
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    assert not np.array_equal(five[0](1, x), five[1](1, x))
    assert np.array_equal(five[0](1, x), five[1](2, x))


# ---- how large one image's value can be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "order", "kernel", "classes", "largest"),
    [
        ("softmax", 8, 8, 10, math.log(8)),
        ("softmax", 24, 24, 10, math.log(10)),
        ("softmax", 8, 2, 10, math.inf),  # f̂ is no mean over the whole group: KL has no bound
        ("probability:trivial:jensen-shannon", 24, 1, 10, math.log(2)),
        ("probability:trivial:disagreement", 8, 8, 10, 1.0),
        ("probability:trivial:total-variation", 8, 8, 10, 1.0),
        ("channelwise", 8, 1, 64, 1.0),
        ("latent-cosine-bounded", 8, 8, 64, 1.0),
        ("latent-l2", 8, 8, 64, math.inf),
    ],
)
def test_the_largest_value_of_an_image(name: str, order: int, kernel: int, classes: int, largest: float) -> None:
    assert largest_value(parse_variant(name), order, kernel, classes) == pytest.approx(largest)


def test_the_bound_of_kl_is_reached_and_not_passed() -> None:
    """An orbit of n distributions that share nothing has KL(f(gx) ‖ f̂) = log n for every element."""
    for order, classes in ((4, 4), (4, 9), (6, 3)):
        orbit = np.eye(classes)[np.arange(order) % classes]
        mean = orbit.mean(axis=0)
        value = distances["kl"](orbit, np.broadcast_to(mean, orbit.shape)).mean()
        assert value == pytest.approx(largest_value(variants["softmax"], order, order, classes))
    rng = np.random.default_rng(0)
    for _ in range(50):
        orbit = rng.dirichlet(np.full(5, 0.05), size=7)
        value = distances["kl"](orbit, np.broadcast_to(orbit.mean(axis=0), orbit.shape)).mean()
        assert value <= largest_value(variants["softmax"], 7, 7, 5)


@dataclass(frozen=True)
class Recorded:
    variant: str
    group: dict[str, Any]
    tap: dict[str, Any]
    spread: float | None = None
    floor: float | None = None
    null: float | None = None


@pytest.mark.parametrize(
    ("cell", "value", "calibrated"),
    [
        (
            Recorded("softmax", {"order": 8}, {"shape": [10], "kernel": list(range(8))}, None, 0.0, 0.5),
            (0.0, math.log(8)),
            (0.0, 2 * math.log(8)),
        ),
        # classes that move: f̂ is f itself, and KL may be anything
        (
            Recorded("softmax", {"order": 8}, {"shape": [10], "kernel": [0]}, None, 0.0, 0.5),
            (0.0, math.inf),
            (0.0, math.inf),
        ),
        (Recorded("channelwise", {"order": 4}, {"shape": [3, 8, 8]}, None, -0.9, -0.4), (-1.0, 1.0), (-0.2, 3.8)),
        # the bounded cosine: (1 + E)/(1 − M), E from −1 to 1
        (
            Recorded("latent-cosine-bounded", {"order": 4}, {"shape": [9]}, 0.5, 0.0, 1.0),
            (0.0, 4.0),
            (0.0, 4.0),
        ),
        # −c/M of centred features turns the scale over
        (Recorded("latent-cosine", {"order": 4}, {"shape": [9]}, -0.5, None, None), (-2.0, 2.0), (-math.inf, math.inf)),
        (Recorded("latent-l2", {"order": 4}, {"shape": [9]}, 2.0, 0.0, 0.7), (0.0, math.inf), (0.0, math.inf)),
        (Recorded("latent-l2", {"order": 4}, {"shape": [9]}), (-math.inf, math.inf), (-math.inf, math.inf)),
        (Recorded("of-a-plugin", {"order": 4}, {"shape": [9]}), (-math.inf, math.inf), (-math.inf, math.inf)),
    ],
)
def test_the_range_of_one_images_number(cell: Recorded, value: Any, calibrated: Any) -> None:
    assert range_of(cell, "value") == pytest.approx(value)
    assert range_of(cell, "calibrated") == pytest.approx(calibrated)


def test_which_optima_move() -> None:
    moving = {name for name in variants if variants[name].optimum_moves}
    assert moving == {"latent-cosine"}
    assert parse_variant("vector:trivial:cosine:spread-l2").optimum_moves
    assert not parse_variant("vector:trivial:l2:spread-l2").optimum_moves
