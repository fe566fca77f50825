"""Section 4.1: conventional CNNs and C8-CNNs, six blocks each, on rotated MNIST; a file every 200 iterations.

    python -m experiments.augmentation.train            # ten of each, 2,000 iterations
    python -m experiments.augmentation.train --fast     # three of each, 500 iterations

Classes 0 to 8, every training image turned by an angle drawn anew. The untrained networks of section 4.2 are the
conventional CNNs before their first step, step0.onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments import images
from experiments.trials import Recipe, descend, drawing, main, rate
from geed_exporters import Export, InputSpec, write
from models.digits_cnn import DigitsCNN

SIZE = 29
#: Regular fields of each block of the C8-CNN, eight channels a field: widths like those of the CNN.
C8_FIELDS = (3, 4, 4, 5, 6, 9)
TAPS = ("block?", "latent", "scores")
TOLERANCE = 1e-4  # ONNX Runtime against the framework, relative to a tap's largest value
TEST = 1000  # images that accuracies on the way are of
INPUT = InputSpec("image", (1, SIZE, SIZE), "NCHW", colour="grey", range=(0.0, 1.0), mean=(0.0,), std=(1.0,))
Family = Literal["cnn", "c8-cnn"]


@dataclass(frozen=True)
class Digits:
    """One network, trained once."""

    family: Family
    recipe: Recipe

    @property
    def folder(self) -> str:
        return f"augmentation/{self.family}-{self.recipe.seed}"

    def learner(self, shared: Path, work: Path, device: str) -> Classifier:
        net = DigitsCNN() if self.family == "cnn" else steerable()
        return Classifier(self, net.to(device), shared, device)


def steerable() -> nn.Module:
    """Return the C8-CNN."""
    from geed_exporters.escnn.stubs import import_escnn

    import_escnn()
    from geed_exporters.escnn.networks import C8CNN, PLANS

    net: nn.Module = C8CNN(replace(PLANS["c8-cnn"], fields=C8_FIELDS))
    return net


class Classifier:
    """A classifier of digits that are turned by any angle."""

    def __init__(self, trial: Digits, net: nn.Module, shared: Path, device: str) -> None:
        self.trial, self.net, self.device = trial, net, device
        self.images = images.padded(images.mnist(shared), SIZE)
        self.test = images.padded(images.rotated_mnist(shared), SIZE)
        recipe = trial.recipe
        self.optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def parts(self) -> Mapping[str, Any]:
        return {"net": self.net, "optimiser": self.optimiser}

    def learn(self, step: int) -> float:
        recipe = self.trial.recipe
        draw = drawing(recipe, step)
        chosen = self.images.only(draw.integers(len(self.images), size=recipe.batch))
        angles = torch.from_numpy(draw.uniform(0, 2 * np.pi, recipe.batch).astype(np.float32))
        x = turned(torch.from_numpy(chosen.batch()), angles).to(self.device)
        labels = torch.from_numpy(chosen.labels).to(self.device)
        self.net.train()
        loss = F.cross_entropy(self.net.logits(x), labels)  # type: ignore[operator]
        return descend(self.optimiser, loss, rate(step, recipe))

    @torch.no_grad()
    def judged(self, last: bool) -> Mapping[str, float]:
        test = self.test if last else self.test.drawn(TEST, 0)
        self.net.eval()
        found = [
            self.net(torch.from_numpy(x).to(self.device)).argmax(1).cpu().numpy()
            for x in np.array_split(test.batch(), max(1, len(test) // 250))
        ]
        return {"accuracy": float((np.concatenate(found) == test.labels).mean())}

    def export(self, path: Path, facts: Mapping[str, Any]) -> None:
        probe = self.test.drawn(8, 1).batch()
        made = exported(self.trial.family, self.net.eval().cpu(), facts)
        write(replace(made, probe=lambda batch: probe[:batch]), path, tolerance=TOLERANCE)
        self.net.to(self.device)


def turned(x: Tensor, radians: Tensor) -> Tensor:
    """Turn each image `(B, 1, H, W)` by its angle `(B,)` about the centre: bilinear, zeros outside the frame."""
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    turn = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    return F.grid_sample(x, F.affine_grid(turn, list(x.shape), align_corners=False), align_corners=False)


def exported(family: Family, net: nn.Module, facts: Mapping[str, Any], image: InputSpec = INPUT) -> Export:
    """Return the export of a network in eval mode; the C8-CNN's blocks declare how their channels move."""
    from geed_exporters.pytorch import Loaded

    name = "models/digits_cnn.py:DigitsCNN" if family == "cnn" else "escnn:c8-cnn"
    loaded = Loaded(model=net, input=image, weights=dict(facts), name=name, latent="latent", scores="scores")
    if family == "cnn":
        from geed_exporters.pytorch import export_pytorch

        return export_pytorch(loaded, taps=TAPS, opset=20)
    from geed_exporters.escnn import export_escnn

    return export_escnn(loaded, taps=TAPS, opset=20)


def trials(fast: bool) -> list[Digits]:
    """Return the trainings, seed by seed, so that what there is when time runs out is of every family."""
    seeds, steps, every = (3, 500, 100) if fast else (10, 2000, 200)
    families: tuple[Family, ...] = ("c8-cnn", "cnn")
    return [Digits(f, Recipe(seed, steps, every)) for seed in range(seeds) for f in families]


def prepare(shared: Path, work: Path) -> None:
    """Write the test images that the suite measures on."""
    path = work / "data/rotated-mnist.parquet"
    if not path.exists():
        test = images.padded(images.rotated_mnist(shared), SIZE).drawn(2000, 0)
        images.write_images(test, path, "rotated-mnist")


if __name__ == "__main__":
    main(__doc__, trials, prepare)
