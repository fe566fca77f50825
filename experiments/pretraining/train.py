"""Section 4.3: networks that start from weights trained on other images, against the same networks from scratch.

    python -m experiments.pretraining.train            # five of each, 1,000 iterations, a file every 200
    python -m experiments.pretraining.train --fast     # three of each, 500 smaller iterations, a file every 100

First a ResNet and a small LeViT are trained on 10,000 images of CIFAR-10, once each. Then both are trained to tell
ships from background, five times from those weights and five times from random ones, with one recipe. Ships are seen
from above, at any angle; nothing turns them in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments import images
from experiments.images import Images
from experiments.networks import INPUT, TAPS, ResNet, SmallLeViT, normalised
from experiments.trials import Recipe, descend, drawing, main, rate
from geed_exporters import write

TEST_SHIPS = 200  # of 358: as many as M takes
SPLIT = 0  # the seed of who is a test image, the same for every training
MARGIN = 4  # pixels that a crop of CIFAR-10 may be off
TOLERANCE = 1e-4  # ONNX Runtime against the framework, relative to a tap's largest value
#: Networks trained on CIFAR-10 of each architecture. With one, as in the paper, all trainings of a family start from
#: the same weights; with more, training n starts from weights n modulo this.
SETS = 1
Architecture = Literal["resnet", "levit"]
ARCHITECTURES: tuple[Architecture, ...] = ("resnet", "levit")


@dataclass(frozen=True)
class Pretraining:
    """A network trained on CIFAR-10, ten classes."""

    architecture: Architecture
    recipe: Recipe

    @property
    def folder(self) -> str:
        return f"pretraining/cifar10-{self.architecture}-{self.recipe.seed}"

    def learner(self, shared: Path, work: Path, device: str) -> Classifier:
        train = images.cifar10(shared, images.CIFAR_BATCHES)
        test = images.cifar10(shared, images.CIFAR_TEST)
        facts = {"data": "CIFAR-10"}
        return Classifier(self.recipe, built(self.architecture, 10), train, test, device, facts, moved=True)


@dataclass(frozen=True)
class FineTuning:
    """A network trained to tell ships from background."""

    architecture: Architecture
    recipe: Recipe
    start: Pretraining | None
    """Whose weights it starts from, the classifier's aside; None: random ones."""

    @property
    def folder(self) -> str:
        start = "scratch" if self.start is None else "pretrained"
        return f"pretraining/{self.architecture}-{start}-{self.recipe.seed}"

    def learner(self, shared: Path, work: Path, device: str) -> Classifier:
        net = built(self.architecture, 2)
        facts: dict[str, Any] = {"data": "ship chips of Sentinel-2 scenes", "start": "random weights"}
        if self.start is not None:
            begin(net, work / "models" / self.start.folder)
            facts["start"] = {"data": "CIFAR-10", **asdict(self.start.recipe)}
        return Classifier(self.recipe, net, *split(images.ships(shared)), device, facts)


def built(architecture: Architecture, classes: int) -> nn.Module:
    """Return a network with random weights."""
    return ResNet(classes) if architecture == "resnet" else SmallLeViT(classes)


def begin(net: nn.Module, folder: Path) -> None:
    """Put the last weights of a training that has ended into a network, in place; its classifier stays as it is.

    Raises
    ------
    FileNotFoundError
        If that training has not ended.
    """
    if not (folder / "done.json").exists():
        raise FileNotFoundError(f"{folder}: no training that has ended; it is trained first, so leave --only out")
    kept = torch.load(folder / "state.pt", weights_only=True)["parts"]["net"]
    old = {name: value for name, value in kept.items() if not name.startswith("classifier.")}
    new = {name: value for name, value in net.state_dict().items() if name.startswith("classifier.")}
    net.load_state_dict({**old, **new})


def split(ships: Images) -> tuple[Images, Images]:
    """Return the images to train on, and the 200 to test and to measure on."""
    test = ships.drawn(TEST_SHIPS, SPLIT)
    return ships.only(~np.isin(ships.rows, test.rows)), test


class Classifier:
    """A classifier of images in colour."""

    def __init__(
        self,
        recipe: Recipe,
        net: nn.Module,
        train: Images,
        test: Images,
        device: str,
        facts: Mapping[str, Any],
        moved: bool = False,
    ) -> None:
        self.recipe, self.device, self.facts = recipe, device, facts
        self.train, self.test, self.moved = train, test, moved
        # colours innermost: the same values, and a fifth faster on a CPU
        self.net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def parts(self) -> Mapping[str, Any]:
        return {"net": self.net, "optimiser": self.optimiser}

    def input(self, batch: images.Array) -> Tensor:
        """Return images `(B, 3, 32, 32)` in 0..1 as the network takes them."""
        x = normalised(torch.from_numpy(batch))
        return x.to(self.device, memory_format=torch.channels_last)

    def learn(self, step: int) -> float:
        draw = drawing(self.recipe, step)
        chosen = self.train.only(draw.integers(len(self.train), size=self.recipe.batch))
        x = self.input(moved(chosen.batch(), draw) if self.moved else chosen.batch())
        self.net.train()
        loss = F.cross_entropy(self.net.logits(x), torch.from_numpy(chosen.labels).to(self.device))
        return descend(self.optimiser, loss, rate(step, self.recipe))

    @torch.no_grad()
    def accuracy(self, of: Images) -> float:
        """Return the share of images whose class is found."""
        self.net.eval()
        parts = np.array_split(of.batch(), max(1, len(of) // 250))
        found = [self.net(self.input(x)).argmax(1).cpu().numpy() for x in parts]
        return float((np.concatenate(found) == of.labels).mean())

    def judged(self, last: bool) -> Mapping[str, float]:
        return {
            "accuracy": self.accuracy(self.test),
            "train_accuracy": self.accuracy(self.train.drawn(1000, SPLIT)),
        }

    def export(self, path: Path, facts: Mapping[str, Any]) -> None:
        from geed_exporters.pytorch import Loaded, export_pytorch

        net = self.net.eval().cpu()
        name = f"experiments/networks.py:{type(net).__name__}"
        weights = {**self.facts, **facts}
        loaded = Loaded(model=net, input=INPUT, weights=weights, name=name, latent="latent", scores="scores")
        made = export_pytorch(loaded, taps=TAPS, opset=20)
        probe = normalised(torch.from_numpy(self.test.drawn(8, 1).batch())).numpy()
        write(replace(made, probe=lambda batch: probe[:batch]), path, tolerance=TOLERANCE)
        self.net.to(self.device)


def moved(x: images.Array, draw: np.random.Generator) -> images.Array:
    """Move each image `(B, 3, H, W)` by up to 4 pixels, black beyond the frame, and mirror every other, by chance."""
    count, _, height, width = x.shape
    framed = np.pad(x, ((0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    down, right = draw.integers(0, 2 * MARGIN + 1, (2, count, 1))
    rows, columns = down + np.arange(height), right + np.arange(width)
    mirrored = draw.random(count) < 0.5
    columns[mirrored] = columns[mirrored, ::-1]
    # (B, 1, 1), (B, H, 1), (B, 1, W) beside a slice: the colours come last
    found = framed[np.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return np.ascontiguousarray(found.transpose(0, 3, 1, 2))


def pretrainings(fast: bool) -> list[Pretraining]:
    """Return the trainings on CIFAR-10."""
    steps, every = (400, 400) if fast else (3000, 1000)
    return [Pretraining(a, Recipe(n, steps, every)) for n in range(SETS) for a in ARCHITECTURES]


def trials(fast: bool) -> list[FineTuning]:
    """Return the trainings on ships, seed by seed, so that what there is when time runs out is of every family."""
    seeds, steps, every, batch = (3, 500, 100, 16) if fast else (5, 1000, 200, 32)
    sources = {(p.architecture, p.recipe.seed): p for p in pretrainings(fast)}
    return [
        FineTuning(a, Recipe(seed, steps, every, batch, learning_rate=1e-3), sources[a, seed % SETS] if start else None)
        for seed in range(seeds)
        for a in ARCHITECTURES
        for start in (True, False)
    ]


def prepare(shared: Path, work: Path) -> None:
    """Write the test images that the suite measures on."""
    path = work / "data/ships.parquet"
    if not path.exists():
        images.write_images(split(images.ships(shared))[1], path, "ships")


if __name__ == "__main__":
    main(__doc__, pretrainings, prepare, then=[trials])
