"""The training of section 4.1: resumed = uninterrupted, recipes are kept apart, turns are turns, files are networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from experiments import images
from experiments.augmentation.train import SIZE, Classifier, Digits, trials, turned
from experiments.images import Images
from experiments.trials import Recipe, rate, steps_of, train

TINY = Recipe(0, 4, 2, batch=8)


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits are noise: what is learned does not matter here."""

    def noise(_shared: Path) -> Images:
        draw = np.random.default_rng(0)
        return Images(draw.integers(0, 256, (40, 28, 28), dtype=np.uint8), draw.integers(0, 9, 40), np.arange(40))

    monkeypatch.setattr(images, "mnist", noise)
    monkeypatch.setattr(images, "rotated_mnist", noise)


def weights(folder: Path) -> dict[str, bytes]:
    net = torch.load(folder / "state.pt", weights_only=True)["parts"]["net"]
    return {k: v.numpy().tobytes() for k, v in net.items()}


def steps(folder: Path) -> list[int]:
    return [json.loads(t)["step"] for t in (folder / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("family", ["cnn", "c8-cnn"])
def test_a_training_that_is_killed_and_resumed_ends_with_the_same_weights_and_files(
    family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Digits(family, TINY)
    learn = Classifier.learn

    def killed(self: Classifier, step: int) -> float:
        if step == 3:
            raise Killed
        return learn(self, step)

    train(trial, tmp_path, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "learn", killed)
        with pytest.raises(Killed):
            train(trial, tmp_path, tmp_path / "parts")
    whole, parts = (tmp_path / w / "models" / trial.folder for w in ("whole", "parts"))
    assert steps(parts) == [0, 2]
    assert not (parts / "done.json").exists()
    train(trial, tmp_path, tmp_path / "parts")
    assert weights(parts) == weights(whole)
    assert steps(parts) == steps(whole) == [0, 2, 4]
    assert (parts / "final.onnx").read_bytes() == (parts / "step4.onnx").read_bytes()
    x = np.random.default_rng(1).random((3, 1, SIZE, SIZE), dtype=np.float32)
    found = [onnxruntime.InferenceSession(f / "final.onnx").run(["scores"], {"image": x})[0] for f in (whole, parts)]
    assert np.array_equal(*found)
    assert train(trial, tmp_path, tmp_path / "parts").endswith("done before")
    with pytest.raises(ValueError, match="another recipe"):
        train(replace(trial, recipe=replace(TINY, learning_rate=1.0)), tmp_path, tmp_path / "parts")


def test_a_state_of_another_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "export", lambda _self, path, _facts: path.write_bytes(b"x"))
    trial = Digits("cnn", TINY)
    train(trial, tmp_path, tmp_path)
    (tmp_path / "models" / trial.folder / "done.json").unlink()
    with pytest.raises(ValueError, match="another recipe"):
        train(replace(trial, recipe=replace(TINY, steps=6)), tmp_path, tmp_path)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "export", lambda _self, path, _facts: path.write_bytes(b"x"))
    monkeypatch.setattr(Classifier, "learn", lambda _self, _step: float("nan"))
    with pytest.raises(FloatingPointError, match="augmentation/cnn-0: the loss at step 0 is nan"):
        train(Digits("cnn", TINY), tmp_path, tmp_path)


def test_a_quarter_turn_is_a_permutation_counter_clockwise() -> None:
    x = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    found = turned(x, torch.tensor([torch.pi / 2]))
    assert torch.allclose(found, torch.rot90(x, 1, (2, 3)), atol=1e-5)


@pytest.mark.parametrize("fast", [True, False])
def test_every_seed_is_trained_once_in_both_families(fast: bool) -> None:
    chosen = trials(fast)
    assert len({t.folder for t in chosen}) == len(chosen) == (6 if fast else 20)
    assert {t.recipe.steps for t in chosen} == {500 if fast else 2000}


def test_checkpoints_and_learning_rate() -> None:
    recipe = Recipe(0, 500, 200)
    assert steps_of(recipe) == [0, 200, 400, 500]
    rates = [rate(s, recipe) for s in range(500)]
    assert max(rates) == pytest.approx(recipe.learning_rate)
    assert rates.index(max(rates)) == 49
    assert 0 < rates[-1] < 1e-6
