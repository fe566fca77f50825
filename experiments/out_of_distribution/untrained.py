"""Section 4.2, a check: the untrained CNNs, given the batch norm statistics that training would have given them.

    python -m experiments.out_of_distribution.untrained            # needs the environment of the escnn exporter

Before its first step a network's batch norms hold mean 0 and variance 1, which fit nothing: its maps shrink from block
to block, and its scores hardly depend on the image. Here the same weights meet 20 batches of turned digits that set the
statistics and nothing else.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from experiments import images
from experiments.augmentation.train import SIZE, TOLERANCE, exported, turned
from experiments.places import parser, shared_folder, work_folder
from geed_exporters import write
from models.digits_cnn import DigitsCNN

SEEDS, FAST_SEEDS = 5, 3
BATCHES, BATCH = 20, 64


def with_statistics(seed: int, digits: images.Images) -> DigitsCNN:
    """Return the CNN of this seed before its first step, in eval mode, batch norms averaged over turned digits."""
    torch.manual_seed(seed)
    net = DigitsCNN()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over batches
    draw = np.random.default_rng(seed)
    net.train()
    with torch.no_grad():
        for _ in range(BATCHES):
            x = torch.from_numpy(digits.only(draw.integers(len(digits), size=BATCH)).batch())
            net(turned(x, torch.from_numpy(draw.uniform(0, 2 * np.pi, BATCH).astype(np.float32))))
    return net.eval()


def write_all(shared: Path, work: Path, seeds: int) -> list[Path]:
    """Write the networks that are not there yet, and return their files."""
    paths = [work / f"models/out_of_distribution/cnn-{seed}/final.onnx" for seed in range(seeds)]
    missing = [(seed, path) for seed, path in enumerate(paths) if not path.exists()]
    if missing:
        digits = images.padded(images.mnist(shared), SIZE)
        probe = images.padded(images.rotated_mnist(shared), SIZE).drawn(8, 1).batch()
    for seed, path in missing:
        net = with_statistics(seed, digits)
        made = exported("cnn", net, {"seed": seed, "steps": 0, "batch_norm": f"{BATCHES} batches of {BATCH}"})
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part.onnx")
        write(replace(made, probe=lambda batch: probe[:batch]), beside, tolerance=TOLERANCE)
        os.replace(beside, path)
    return paths


def main() -> None:
    """Write what is not there yet."""
    asked = parser(__doc__).parse_args()
    for path in write_all(shared_folder(asked), work_folder(asked), FAST_SEEDS if asked.fast else SEEDS):
        print(path)


if __name__ == "__main__":
    main()
