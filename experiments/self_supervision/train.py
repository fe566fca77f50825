"""Section 4.4: encoders of one architecture, trained with labels, by SimCLR and by distillation, on CIFAR-10.

    python -m experiments.self_supervision.train            # three of each, 600 iterations
    python -m experiments.self_supervision.train --fast     # three of each, 500 iterations of smaller batches

Two of the methods are there a second time with no reflection among their augmentations: what they lack, the reflection
alone has brought. All methods of one seed begin at the same encoder, step0.onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments import images
from experiments.networks import INPUT, ResNet, normalised
from experiments.self_supervision import methods
from experiments.trials import Recipe, descend, drawing, main, rate
from geed_exporters import Export, write

TOLERANCE = 1e-4  # ONNX Runtime against the framework, relative to a tap's largest value
NEIGHBOURS = 20
SHARPNESS = 0.07  # of the neighbours' votes
KNOWN = 5000  # training images among which neighbours are looked for

Method = Literal["supervised", "supervised-noflip", "simclr", "simclr-noflip", "dino"]


@dataclass(frozen=True)
class Encoding:
    """One encoder, trained once."""

    method: Method
    recipe: Recipe

    @property
    def folder(self) -> str:
        return f"self_supervision/{self.method}-{self.recipe.seed}"

    def learner(self, shared: Path, work: Path, device: str) -> Encoder:
        return Encoder(self, shared, device)


class Encoder:
    """An encoder of small colour images, and the method that trains it."""

    def __init__(self, trial: Encoding, shared: Path, device: str) -> None:
        self.trial, self.device = trial, device
        name, _, control = trial.method.partition("-")
        self.method = methods.method(name, flips=not control).to(device)
        self.images = images.cifar10(shared, images.CIFAR_BATCHES)
        self.test = images.cifar10(shared, images.CIFAR_TEST)
        recipe = trial.recipe
        learned = [p for p in self.method.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(learned, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def parts(self) -> Mapping[str, Any]:
        return {"method": self.method, "optimiser": self.optimiser}

    def learn(self, step: int) -> float:
        recipe = self.trial.recipe
        draw = drawing(recipe, step)
        # no image twice in a batch: SimCLR would hold a second view of it for another image
        chosen = self.images.only(draw.choice(len(self.images), recipe.batch, replace=False))
        x = torch.from_numpy(chosen.batch()).to(self.device)
        self.method.train()
        loss = self.method(x, torch.from_numpy(chosen.labels).to(self.device), draw, step / recipe.steps)
        found = descend(self.optimiser, loss, rate(step, recipe))
        self.method.after(step / recipe.steps)
        return found

    def judged(self, last: bool) -> Mapping[str, float]:
        """Return the accuracy of the neighbours' votes on all test images, and how far apart the latent vectors are.

        `spread` is 1 less the mean cosine of pairs of test images: 0 where an encoder gives one vector for all.
        """
        self.method.eval()
        known = self.images.drawn(KNOWN, 0)
        at, latent = self._latent(known), self._latent(self.test)
        voted = neighbours(at, torch.from_numpy(known.labels), latent)
        unit = F.normalize(latent.double(), dim=1)
        pairs = len(unit) * (len(unit) - 1)
        return {
            "knn": float((voted.numpy() == self.test.labels).mean()),
            "spread": float(1 - (unit.sum(0).square().sum() - len(unit)) / pairs),
        }

    @torch.no_grad()
    def _latent(self, chosen: images.Images) -> Tensor:
        parts = torch.from_numpy(chosen.batch()).split(250)
        return torch.cat([self.method.encoder.features(normalised(x.to(self.device))).cpu() for x in parts])

    def export(self, path: Path, facts: Mapping[str, Any]) -> None:
        probe = normalised(torch.from_numpy(self.test.drawn(8, 1).batch())).numpy()
        encoder = self.method.eval().cpu().encoder
        write(
            replace(exported(encoder, self.trial.method, facts), probe=lambda b: probe[:b]), path, tolerance=TOLERANCE
        )
        self.method.to(self.device)


def neighbours(known: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """Return the class `(M,)` that the nearest of the known latent vectors `(N, D)` vote for, for each of `(M, D)`.

    The 20 with the largest cosine vote, each with the weight exp(cosine / 0.07), as DINO's encoders are judged.
    """
    cosines, who = (F.normalize(asked, dim=1) @ F.normalize(known, dim=1).T).topk(NEIGHBOURS, dim=1)
    votes = torch.zeros(len(asked), methods.CLASSES).scatter_add_(1, labels[who], (cosines / SHARPNESS).exp())
    return votes.argmax(1)


def exported(encoder: ResNet, name: Method, facts: Mapping[str, Any]) -> Export:
    """Return the export of an encoder in eval mode: three stages, the latent vector, and scores where there are any."""
    from geed_exporters.pytorch import Loaded, export_pytorch

    labelled = name.startswith("supervised")
    loaded = Loaded(
        model=encoder,
        input=INPUT,
        weights={**facts, "method": name},
        name="experiments/networks.py:ResNet",
        latent="latent",
        scores="scores" if labelled else "",
    )
    return export_pytorch(loaded, taps=("stage?", "latent", *(["scores"] if labelled else [])), opset=20)


def trials(fast: bool) -> list[Encoding]:
    """Return the trainings, seed by seed, so that what there is when time runs out is of every method."""
    seeds, steps, every, batch = (3, 500, 500, 24) if fast else (3, 600, 150, 128)
    return [Encoding(m, Recipe(seed, steps, every, batch)) for seed in range(seeds) for m in get_args(Method)]


def prepare(shared: Path, work: Path) -> None:
    """Write the test images that the suites measure on."""
    path = work / "data/cifar10-test.parquet"
    if not path.exists():
        images.write_images(images.cifar10(shared, images.CIFAR_TEST), path, "cifar10")


if __name__ == "__main__":
    main(__doc__, trials, prepare)
