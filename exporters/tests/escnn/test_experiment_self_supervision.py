"""Section 4.4's training: views, losses, the teacher, and that a trial that is resumed ends where it would have."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from experiments.networks import ResNet
from experiments.self_supervision import methods, train
from experiments.self_supervision.methods import Plans, Prototypes, plans
from experiments.self_supervision.objectives import distillation, follow, nt_xent
from experiments.self_supervision.train import Encoding, neighbours
from experiments.self_supervision.views import Plan, coloured, cropped, flipped, grey, hue, view, windows
from experiments.trials import Recipe
from experiments.trials import train as run

SHARED = Path(__file__).resolve().parents[4] / "shared"
NAMES = get_args(train.Method)


def drawing(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pictures(count: int = 8, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(drawing(seed).random((count, 3, size, size), np.float32))


def chosen(name: str) -> Plans:
    base, _, control = name.partition("-")
    return plans(base, flips=not control)


def every(found: Plans) -> list[Plan]:
    return [found.whole, *([found.part] if found.part else [])]


# --- views ------------------------------------------------------------------------------------------------------


def test_a_plan_of_nothing_gives_the_image() -> None:
    x = pictures()
    assert torch.equal(view(x, Plan(), drawing()), x)


@pytest.mark.parametrize("name", NAMES)
def test_with_crops_and_colour_off_a_view_is_the_image_or_its_mirror_image(name: str) -> None:
    """Exactly the image for methods without flips, each of the two about half of the time for the others."""
    x = pictures(200)
    plan = replace(chosen(name).whole, area=None, colour=0.0, grey=0.0)
    seen = view(x, plan, drawing())
    same = (seen == x).flatten(1).all(1)
    mirrored = (seen == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    if name.endswith("noflip"):
        assert same.all()
    else:
        assert 70 < mirrored.sum() < 130


@pytest.mark.parametrize("name", NAMES)
def test_left_stays_left_in_every_view_of_a_method_without_flips(name: str) -> None:
    """Images brighter from left to right: cropped and coloured, they still are, unless they were reflected."""
    ramp = torch.linspace(0.2, 0.8, 32).expand(200, 3, 32, 32)
    for plan in every(chosen(name)):
        seen = view(ramp, plan, drawing())
        assert seen.shape == (200, 3, plan.size, plan.size)
        brighter = (grey(seen)[:, 0].diff(dim=-1) >= -1e-6).flatten(1).all(1)
        darker = (grey(seen)[:, 0].diff(dim=-1) <= 1e-6).flatten(1).all(1)
        assert (brighter | darker).all()
        assert (darker & ~brighter).sum() == 0 if name.endswith("noflip") else 70 < (darker & ~brighter).sum() < 130


def test_the_controls_differ_from_their_methods_in_flips_alone() -> None:
    for name in ("supervised", "simclr"):
        with_flips, without = chosen(name).whole, chosen(f"{name}-noflip").whole
        assert with_flips.flips
        assert without == replace(with_flips, flips=False)


@pytest.mark.parametrize("name", NAMES)
def test_views_depend_on_the_draw_alone_and_stay_within_range(name: str) -> None:
    x = pictures(32)
    for plan in every(chosen(name)):
        one = view(x, plan, drawing(3))
        torch.manual_seed(99)
        assert torch.equal(one, view(x, plan, drawing(3)))
        assert not torch.equal(one, view(x, plan, drawing(4)))
        assert one.min() >= 0
        assert one.max() <= 1


def test_a_crop_is_the_window_of_the_image() -> None:
    """A window whose pixels fall on the image's own is a slice of it; windows lie within the image."""
    x = pictures(2)
    # the window of 16x16 pixels whose first row is 4 and first column 8: its centre is pixel edge (12, 16)
    window = torch.tensor([[0.5, 0.5, (16 - 16) / 16, (12 - 16) / 16]]).expand(2, 4)
    torch.testing.assert_close(cropped(x, window, 16), x[:, :, 4:20, 8:24])
    whole = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).expand(2, 4)
    torch.testing.assert_close(cropped(x, whole, 32), x)
    found = windows(1000, (0.1, 0.4), drawing())
    width, height, right, down = found.unbind(1)
    assert (right.abs() + width <= 1 + 1e-6).all()
    assert (down.abs() + height <= 1 + 1e-6).all()
    area = width * height
    assert area.min() >= 0.1 - 1e-6
    assert area.max() <= 0.4 + 1e-6
    assert 0.24 < area.mean() < 0.26
    assert (width / height).min() >= 0.75 - 1e-6
    assert (width / height).max() <= 4 / 3 + 1e-6


def test_colour_leaves_grey_grey_and_no_strength_changes_nothing() -> None:
    x = pictures()
    torch.testing.assert_close(coloured(x, 0.0, drawing()), x)
    seen = coloured(grey(x), 1.0, drawing())
    torch.testing.assert_close(seen, seen[:, :1].expand_as(seen), atol=1e-5, rtol=0)
    assert not torch.allclose(coloured(x, 0.5, drawing()), x, atol=0.05)


def test_hue_is_a_rotation_of_the_colour_cube() -> None:
    """Orthogonal, keeps grey; a third of a turn takes red to green to blue; turns add up."""
    angle = torch.tensor([0.3, 2.0])
    turn = hue(angle)
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(turn.sum(2), torch.ones(2, 3))
    third = hue(torch.tensor([2 * math.pi / 3]))[0]
    torch.testing.assert_close(third, torch.eye(3).roll(1, 0), atol=1e-6, rtol=0)
    torch.testing.assert_close(turn[0] @ turn[1], hue(angle.sum()[None])[0], atol=1e-6, rtol=0)


def test_flipped_is_the_reflection_across_the_vertical_axis() -> None:
    x = pictures(2)
    found = flipped(x, torch.tensor([True, False]))
    for column in range(32):
        assert torch.equal(found[0, :, :, column], x[0, :, :, 31 - column])
    assert torch.equal(found[1], x[1])


# --- losses -----------------------------------------------------------------------------------------------------


def slow_nt_xent(one: np.ndarray, other: np.ndarray, temperature: float) -> float:
    z = [*one, *other]
    count, total = len(one), 0.0

    def similar(i: int, j: int) -> float:
        return float(z[i] @ z[j] / math.sqrt((z[i] @ z[i]) * (z[j] @ z[j]))) / temperature

    for i in range(2 * count):
        partner = i + count if i < count else i - count
        below = sum(math.exp(similar(i, j)) for j in range(2 * count) if j != i)
        total -= math.log(math.exp(similar(i, partner)) / below)
    return total / (2 * count)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_its_definition(temperature: float) -> None:
    one, other = drawing().normal(size=(2, 5, 7))
    found = nt_xent(torch.from_numpy(one), torch.from_numpy(other), temperature)
    assert found.item() == pytest.approx(slow_nt_xent(one, other, temperature), rel=1e-10)
    # the length of a vector, and which view is which, are nothing to it
    scaled = nt_xent(torch.from_numpy(other) * 3, torch.from_numpy(one), temperature)
    assert scaled.item() == pytest.approx(found.item(), rel=1e-10)


def test_nt_xent_of_one_vector_for_all_is_that_of_a_guess() -> None:
    same = torch.ones(6, 4, dtype=torch.float64)
    assert nt_xent(same, same, 0.5).item() == pytest.approx(math.log(11))


def slow_distillation(student: Any, teacher: Any, centre: Any, student_t: float, teacher_t: float) -> float:
    def softmax(values: Any) -> Any:
        raised = np.exp(values - values.max())
        return raised / raised.sum()

    losses = []
    for t in range(len(teacher)):
        for v in range(len(student)):
            if t == v:
                continue
            for b in range(student.shape[1]):
                said = softmax((teacher[t, b] - centre) / teacher_t)
                losses.append(-(said * np.log(softmax(student[v, b] / student_t))).sum())
    return float(np.mean(losses))


@pytest.mark.parametrize(("seen", "known"), [(2, 2), (4, 2), (3, 1)])
def test_distillation_is_its_definition(seen: int, known: int) -> None:
    student, teacher = drawing(1).normal(size=(seen, 5, 6)), drawing(2).normal(size=(known, 5, 6))
    centre = drawing(3).normal(size=6)
    ours = [torch.from_numpy(a) for a in (student, teacher, centre)]
    found = distillation(*ours, student_t=0.5, teacher_t=0.2)
    assert found.item() == pytest.approx(slow_distillation(student, teacher, centre, 0.5, 0.2), rel=1e-10)


def test_no_gradient_goes_to_the_teacher_and_a_view_is_not_its_own_pupil() -> None:
    student = torch.randn(2, 3, 4, requires_grad=True)
    teacher = torch.randn(1, 3, 4, requires_grad=True)
    distillation(student, teacher, torch.zeros(4), student_t=0.1, teacher_t=0.04).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert torch.equal(student.grad[0], torch.zeros(3, 4))
    assert student.grad[1].abs().max() > 0


@pytest.mark.parametrize(("seen", "known"), [(1, 1), (2, 0)])
def test_distillation_refuses_what_has_no_pairs(seen: int, known: int) -> None:
    with pytest.raises(ValueError, match=f"expected two views or more, one of them the teacher's; got {seen}, {known}"):
        distillation(torch.zeros(seen, 3, 4), torch.zeros(known, 3, 4), torch.zeros(4), student_t=0.1, teacher_t=0.04)


# --- the teacher ------------------------------------------------------------------------------------------------


def test_the_teacher_is_the_moving_average_of_its_student() -> None:
    """After steps s1, s2, s3: m³ t + (1 - m)(m² s1 + m s2 + s3); batch statistics stay the teacher's own."""
    m = 0.9
    teacher = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    student = copy.deepcopy(teacher)
    start = [p.detach().clone() for p in teacher.parameters()]
    passed = []
    for _ in range(3):
        with torch.no_grad():
            for p in student.parameters():
                p.copy_(torch.randn_like(p))
            student[1].running_mean.add_(1)
        passed.append([p.detach().clone() for p in student.parameters()])
        follow(teacher, student, m)
    for i, p in enumerate(teacher.parameters()):
        expected = m**3 * start[i] + (1 - m) * (m**2 * passed[0][i] + m * passed[1][i] + passed[2][i])
        torch.testing.assert_close(p.detach(), expected)
    assert torch.equal(teacher[1].running_mean, torch.zeros(2, dtype=torch.float64))


def test_dino_learns_in_the_student_and_the_teacher_follows() -> None:
    torch.manual_seed(0)
    made = methods.method("dino", flips=True)
    assert isinstance(made, methods.DINO)
    before = copy.deepcopy(made.state_dict())
    loss = made(pictures(8), torch.zeros(8, dtype=torch.int64), drawing(), 0.0)
    loss.backward()
    assert all(p.grad is None for p in made.encoder.parameters())
    assert all(p.grad is not None for p in made.student.parameters())
    assert made.student_head.prototypes.grad is None, "frozen at the start"
    made(pictures(8), torch.zeros(8, dtype=torch.int64), drawing(), 0.5).backward()
    assert made.student_head.prototypes.grad is not None
    assert not torch.equal(made.centre, before["centre"])
    torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.1).step()
    made.after(1.0)
    weight = "encoder.stage1.0.first.0.weight"
    assert torch.equal(made.state_dict()[weight], before[weight]), "at the end the momentum is 1"
    made.after(0.0)
    student = made.state_dict()["student" + weight.removeprefix("encoder")]
    torch.testing.assert_close(
        made.state_dict()[weight], methods.DINO.MOMENTUM * before[weight] + (1 - methods.DINO.MOMENTUM) * student
    )


def test_prototypes_are_cosines() -> None:
    head = Prototypes()
    found = head(torch.randn(5, methods.WIDTH) * 100)
    assert found.shape == (5, Prototypes.COUNT)
    assert found.abs().max() <= 1 + 1e-6


# --- the encoder ------------------------------------------------------------------------------------------------


def test_all_methods_of_one_seed_begin_at_one_encoder() -> None:
    def start(name: str) -> dict[str, Any]:
        torch.manual_seed(5)
        return dict(methods.method(name, flips=True).encoder.state_dict())

    labelled = start("supervised")
    for name in ("simclr", "dino"):
        found = start(name)
        assert set(labelled) - set(found) == {"classifier.weight", "classifier.bias"}
        assert all(torch.equal(labelled[key], value) for key, value in found.items())


def test_without_its_head_a_network_gives_its_latent_vector() -> None:
    net = ResNet(10).eval()
    x = pictures()
    with torch.no_grad():
        latent = net.features(x)
        assert torch.equal(methods.headless(net)(x), latent)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="expected supervised, simclr or dino; got 'byol'"):
        plans("byol", flips=True)


def test_neighbours_vote_by_cosine() -> None:
    """Twenty of class 3 point one way and forty of class 7 another; the length of a vector does not count."""
    known = torch.cat(
        [torch.tensor([[1.0, 0.1]]) * torch.rand(20, 1).add(0.1), torch.tensor([[0.1, 9.0]]).repeat(40, 1)]
    )
    labels = torch.tensor([3] * 20 + [7] * 40)
    asked = torch.tensor([[5.0, 0.0], [0.0, 0.01], [2.0, 1.0]])
    assert neighbours(known, labels, asked).tolist() == [3, 7, 3]


def test_near_neighbours_have_more_votes() -> None:
    """Eight at a cosine of 1 outvote twelve at a cosine of 0."""
    known = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(8, 1), torch.tensor([[0.0, 1.0]]).repeat(12, 1)])
    assert neighbours(known, torch.tensor([2] * 8 + [1] * 12), torch.tensor([[1.0, 0.0]])).tolist() == [2]


# --- trials -----------------------------------------------------------------------------------------------------


def test_the_trials_come_seed_by_seed_and_have_names_for_folders() -> None:
    for fast in (True, False):
        found = train.trials(fast)
        assert [(t.method, t.recipe.seed) for t in found] == [(m, s) for s in range(3) for m in NAMES]
        assert len({t.folder for t in found}) == len(found)
        assert all(t.recipe.steps % t.recipe.every == 0 for t in found)
    assert found[3].folder == "self_supervision/simclr-noflip-0"


class Stopped(Exception):
    """The machine went down."""


needs_data = pytest.mark.skipif(not (SHARED / "data/cifar10").is_dir(), reason="needs CIFAR-10 in ../shared")


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_trial_that_is_resumed_ends_at_the_same_weights(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps, killed at the third: weights, teacher, centre, optimiser are those of four in one go, bit by bit."""
    monkeypatch.setattr(train, "KNOWN", 100)  # judged in less time; nothing is learned from it
    monkeypatch.setattr(train.Encoder, "export", lambda self, path, facts: path.write_bytes(b"x"))
    trial = Encoding(name, Recipe(seed=1, steps=4, every=2, batch=16))
    run(trial, SHARED, tmp_path / "whole")
    learn = train.Encoder.learn

    def breaks(self: train.Encoder, step: int) -> float:
        if step == 3:
            raise Stopped
        return learn(self, step)

    monkeypatch.setattr(train.Encoder, "learn", breaks)
    with pytest.raises(Stopped):
        run(trial, SHARED, tmp_path / "broken")
    monkeypatch.setattr(train.Encoder, "learn", learn)
    run(trial, SHARED, tmp_path / "broken")
    one, two = (
        torch.load(tmp_path / where / "models" / trial.folder / "state.pt", weights_only=True)["parts"]
        for where in ("whole", "broken")
    )
    assert one["method"].keys() == two["method"].keys()
    for key, value in one["method"].items():
        assert value.numpy().tobytes() == two["method"][key].numpy().tobytes(), key
    for index, state in one["optimiser"]["state"].items():
        for key, value in state.items():
            assert value.numpy().tobytes() == two["optimiser"]["state"][index][key].numpy().tobytes(), (index, key)
    start = Encoding(name, replace(trial.recipe, steps=0))
    run(start, SHARED, tmp_path / "start")
    before = torch.load(tmp_path / "start" / "models" / start.folder / "state.pt", weights_only=True)["parts"]["method"]
    assert any(not torch.equal(before[key], one["method"][key]) for key in before), "it learned nothing"


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["supervised", "dino"])
def test_the_file_holds_the_encoder(name: Any, tmp_path: Path) -> None:
    """Stages, latent vector, and scores where there are labels; DINO gives its teacher."""
    import onnxruntime

    torch.manual_seed(0)
    learner = Encoding(name, Recipe(seed=0, steps=4, every=4, batch=8)).learner(SHARED, tmp_path, "cpu")
    learner.learn(0)
    learner.export(tmp_path / "net.onnx", {"step": 1})
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    outputs = [o.name for o in session.get_outputs()]
    assert {"stage1", "stage2", "stage3", "latent"} <= set(outputs)
    assert ("scores" in outputs) == (name == "supervised")
    x = pictures(3)
    with torch.no_grad():
        expected = learner.method.encoder.eval().features(x).numpy()
    found = session.run(["latent"], {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
