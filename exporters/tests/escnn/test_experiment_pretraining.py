"""Section 4.3's training: the networks, crops, the split, weights that are passed on, and trials that are resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from experiments import images, trials
from experiments.images import Images
from experiments.networks import SIZE, Attention, ResNet, SmallLeViT, normalised, offsets
from experiments.pretraining import train
from experiments.pretraining.train import Classifier, FineTuning, Pretraining, moved
from experiments.trials import Recipe
from experiments.trials import train as run

SHARED = Path(__file__).resolve().parents[4] / "shared"
shared = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the data sets are not there")
TINY = Recipe(seed=3, steps=4, every=2, batch=8, learning_rate=1e-3)


def pictures(count: int, seed: int = 0) -> Images:
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return Images(pixels, draw.integers(0, 2, count), np.arange(count))


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "state.pt", weights_only=True)["parts"]["net"]  # type: ignore[no-any-return]


# --- networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("net", "sides"), [(ResNet(3), (16, 8, 4)), (SmallLeViT(3), (8, 4, 4))])
def test_stages_are_maps_the_latent_a_vector_the_output_probabilities(net: Any, sides: tuple[int, ...]) -> None:
    seen: dict[str, torch.Tensor] = {}
    for name in ("stage1", "stage2", "stage3", "latent", "scores"):
        getattr(net, name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    net.eval()
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = net(x)
        assert torch.equal(out, net.logits(x).softmax(1))
        assert torch.equal(seen["latent"], net.features(x))
    assert [seen[f"stage{i}"].shape[2:] for i in (1, 2, 3)] == [(s, s) for s in sides]
    assert seen["latent"].shape == (2, 64)
    assert torch.allclose(seen["latent"], seen["stage3"].mean((2, 3)), atol=1e-6)
    assert out.shape == (2, 3)
    assert torch.equal(out, seen["scores"])


@pytest.mark.parametrize("stride", [1, 2])
def test_attention_against_a_loop_over_pixels(stride: int) -> None:
    """Each pixel that asks: the values of all pixels, weighed by softmax(q·k / 4 + the bias of |dy|, |dx|)."""
    side, heads, ratio = 4, 2, 3
    torch.manual_seed(0)
    attention = Attention(5, 7, heads, side, stride, ratio).double().eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 5, side, side, dtype=torch.float64)
    with torch.no_grad():
        found = attention(x)
        read = attention.read(x)[0].unflatten(0, (heads, -1))
        expected = torch.zeros(1, heads, 16 * ratio, side // stride, side // stride, dtype=torch.float64)
        for h in range(heads):
            for i in range(0, side, stride):
                for j in range(0, side, stride):
                    scores = torch.stack(
                        [
                            read[h, :16, i, j] @ read[h, 16:32, a, b] / 4
                            + attention.bias[h, abs(i - a) * side + abs(j - b)]
                            for a in range(side)
                            for b in range(side)
                        ]
                    )
                    values = read[h, 32:].flatten(1)
                    expected[0, h, :, i // stride, j // stride] = values @ scores.softmax(0)
        expected = attention.out(torch.nn.functional.hardswish(expected.flatten(1, 2)))
    assert found.shape == (1, 7, side // stride, side // stride)
    assert torch.allclose(found, expected, atol=1e-10)


def test_the_bias_of_a_pair_does_not_change_when_the_grid_is_turned_or_mirrored() -> None:
    grid = torch.arange(16).view(4, 4)
    table = offsets(4)
    for same in (grid.flip(1), grid.flip(0)):
        assert torch.equal(table[same.flatten()][:, same.flatten()], table)
    across = grid.T.flatten()
    assert torch.equal(table[across][:, across], table % 4 * 4 + table // 4)  # dx in place of dy


def test_normalised_is_what_the_files_input_says() -> None:
    x = torch.rand(2, 3, 4, 4)
    from experiments.networks import INPUT

    expected = [(x[:, c] - INPUT.mean[c]) / INPUT.std[c] for c in range(3)]  # type: ignore[index]
    assert torch.allclose(normalised(x), torch.stack(expected, 1), atol=1e-6)


# --- images -----------------------------------------------------------------------------------------------------


def test_moved_is_a_shift_and_at_times_a_mirror_image_of_each_image() -> None:
    x = pictures(40).batch() + 1  # no pixel is 0 but what comes from beyond the frame
    got = moved(x, np.random.default_rng(5))
    framed = np.pad(x, ((0, 0), (0, 0), (4, 4), (4, 4)))
    places = []
    for before, after in zip(framed, got, strict=True):
        crops = {
            (i, j, mirrored): before[:, i : i + SIZE, j : j + SIZE][:, :, :: -1 if mirrored else 1]
            for i in range(9)
            for j in range(9)
            for mirrored in (False, True)
        }
        places.append(*[place for place, crop in crops.items() if np.array_equal(crop, after)])
    assert {m for *_, m in places} == {False, True}
    assert {i for i, *_ in places} | {j for _, j, _ in places} == set(range(9))
    assert len({(i, j) for i, j, _ in places}) > 20  # each image has a place of its own


@shared
def test_split_keeps_test_images_out_of_training() -> None:
    ships = images.ships(SHARED)
    own, test = train.split(ships)
    assert (len(own), len(test)) == (158, 200)
    assert set(own.rows) | set(test.rows) == set(range(358))
    assert 0.4 < own.labels.mean() < 0.6
    assert 0.4 < test.labels.mean() < 0.6


# --- trials -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [False, True])
def test_every_family_has_its_seeds_and_starts_from_a_pretraining_that_is_listed(fast: bool) -> None:
    before, after = train.pretrainings(fast), train.trials(fast)
    folders = [t.folder for t in (*before, *after)]
    assert len(set(folders)) == len(folders)
    seeds = 3 if fast else 5
    starts = ("pretrained", "scratch")
    expected = {f"pretraining/{a}-{s}-{n}" for a in ("resnet", "levit") for s in starts for n in range(seeds)}
    assert {t.folder for t in after} == expected
    for trial in after:
        assert (trial.start is None) == ("scratch" in trial.folder)
        assert trial.start is None or (trial.start in before and trial.start.architecture == trial.architecture)
    assert len({(r.steps, r.every, r.batch, r.learning_rate) for r in (t.recipe for t in after)}) == 1


def test_fine_tuning_begins_when_pretraining_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command trains the two lists one after the other, and `--only` chooses from both."""
    asked: list[list[str]] = []

    def keep(chosen: Any, *_: Any) -> None:
        asked.append([t.folder for t in chosen])

    monkeypatch.setattr(trials, "train_all", keep)
    (tmp_path / "data").mkdir()
    words = ["train", "--fast", "--shared", str(tmp_path), "--work", str(tmp_path / "work")]
    monkeypatch.setattr("sys.argv", words)
    trials.main(train.__doc__ or "", train.pretrainings, lambda *_: None, then=[train.trials])
    assert asked == [[t.folder for t in train.pretrainings(True)], [t.folder for t in train.trials(True)]]
    asked.clear()
    monkeypatch.setattr("sys.argv", [*words, "--only", "pretraining/levit"])
    trials.main(train.__doc__ or "", train.pretrainings, lambda *_: None, then=[train.trials])
    assert [len(chosen) for chosen in asked] == [0, 6]


@pytest.mark.parametrize("architecture", train.ARCHITECTURES)
def test_a_start_gives_all_but_the_classifier(
    architecture: train.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "cifar10", lambda *_: pictures(16))
    monkeypatch.setattr(images, "ships", lambda *_: pictures(358))
    monkeypatch.setattr(Classifier, "export", lambda _self, path, _facts: path.write_bytes(b"x"))
    before = Pretraining(architecture, TINY)
    after = FineTuning(architecture, replace(TINY, seed=1), before)
    with pytest.raises(FileNotFoundError, match=r"no training that has ended; it is trained first"):
        after.learner(tmp_path, tmp_path, "cpu")
    run(before, tmp_path, tmp_path)
    given, got = weights(tmp_path / "models" / before.folder), after.learner(tmp_path, tmp_path, "cpu").net.state_dict()
    for name, value in got.items():
        if name.startswith("classifier."):
            assert len(value.shape) < 2 or len(value) == 2
        else:
            assert torch.equal(value, given[name]), name
    fresh = train.built(architecture, 2).state_dict()
    assert any(not torch.equal(fresh[name], got[name]) for name in fresh if not name.startswith("classifier."))


class Killed(Exception):
    pass


@shared
@pytest.mark.parametrize("architecture", train.ARCHITECTURES)
def test_a_trial_that_is_killed_and_resumed_ends_with_the_same_weights(
    architecture: train.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; and pretraining, whose crops are drawn, as well as fine-tuning."""
    monkeypatch.setattr(Classifier, "export", lambda _self, path, _facts: path.write_bytes(b"x"))
    monkeypatch.setattr(images, "cifar10", lambda *_: pictures(64))
    learn = Classifier.learn

    def killed(self: Classifier, step: int) -> float:
        if step == 3:
            raise Killed
        return learn(self, step)

    before = Pretraining(architecture, TINY)
    for trial in (before, FineTuning(architecture, TINY, None), FineTuning(architecture, TINY, before)):
        run(trial, SHARED, tmp_path / "whole")
        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "learn", killed)
            with pytest.raises(Killed):
                run(trial, SHARED, tmp_path / "parts")
        folder = tmp_path / "parts/models" / trial.folder
        assert json.loads((folder / "history.jsonl").read_text().splitlines()[-1])["step"] == 2
        run(trial, SHARED, tmp_path / "parts")
        whole, parts = weights(tmp_path / "whole/models" / trial.folder), weights(folder)
        assert {k: v.numpy().tobytes() for k, v in whole.items()} == {k: v.numpy().tobytes() for k, v in parts.items()}
        assert [json.loads(t)["step"] for t in (folder / "history.jsonl").read_text().splitlines()] == [0, 2, 4]


@shared
@pytest.mark.slow
@pytest.mark.parametrize("architecture", train.ARCHITECTURES)
def test_the_file_computes_what_the_network_computes(architecture: train.Architecture, tmp_path: Path) -> None:
    """And says what the network is, what it started from, and which outputs it has."""
    import onnxruntime

    made = FineTuning(architecture, TINY, None).learner(SHARED, tmp_path, "cpu")
    for step in range(3):
        made.learn(step)
    made.export(tmp_path / "x.onnx", {"step": 3})
    declared = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert [t["name"] for t in declared["geed.taps"]] == ["stage1", "stage2", "stage3", "latent", "scores"]
    assert [t["kind"] for t in declared["geed.taps"]] == ["map", "map", "map", "vector", "probability"]
    assert declared["geed.source"]["weights"]["start"] == "random weights"
    assert declared["geed.source"]["weights"]["step"] == 3
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    x = made.test.batch()[:5]
    latent, scores = session.run(["latent", "scores"], {"image": normalised(torch.from_numpy(x)).numpy()})
    net = made.net.eval()
    with torch.no_grad():
        assert torch.allclose(net.features(made.input(x)), torch.from_numpy(latent), atol=1e-4)
        assert torch.allclose(net(made.input(x)), torch.from_numpy(scores), atol=1e-5)
