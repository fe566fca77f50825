"""The final networks of section 4.1 at other input sizes, with the same weights.

    python -m experiments.robustness.resize             # after experiments.augmentation.train
    python -m experiments.robustness.resize --fast

Trains nothing. Writes models/robustness/FAMILY-SIZE/SEED.onnx for sizes 27 to 34, and the digits as they come, 28x28;
each file cuts them to its size or puts black around them, so that every size sees the same digits, unscaled.

A layer of kernel k, stride s and padding p takes n pixels to ⌊(n + 2p − k) / s⌋ + 1. Its kernels lie about the centre
of the frame if, and only if, s divides n + 2p − k; else the last rows and columns go unread, and the map's centre is
not the frame's: a network whose filters commute with quarter turns does not commute with them itself, at that size.
Both networks have two layers of stride 2, the first of which needs n odd and the second n ≡ 1 (mod 4).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import nn

from experiments import images
from experiments.augmentation import train
from experiments.augmentation.train import INPUT, TOLERANCE, Digits, Family, steerable
from experiments.places import parser, shared_folder, work_folder
from experiments.trials import Recipe
from geed_exporters import Export, write
from models.digits_cnn import DigitsCNN

SIZES = tuple(range(27, 35))
SEEDS = (0, 1, 2)
DIGIT = 28
COUNT = 2000


class Step(NamedTuple):
    """What a convolution or a pooling does to the size of a square map."""

    kernel: int
    stride: int
    padding: int

    def spare(self, size: int) -> int:
        """Return how many rows of the padded frame no kernel reaches, all at its end; as many columns."""
        return (size + 2 * self.padding - self.kernel) % self.stride

    def after(self, size: int) -> int:
        """Return the size of what it makes of `size` pixels."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1


def steps(net: nn.Module) -> tuple[Step, ...]:
    """Return the convolutions and poolings of a network, in order, up to the pooling that takes in all that is left."""
    return tuple(_steps(net))


def _steps(net: nn.Module) -> Iterator[Step]:
    for i in range(1, 7):
        block = net.get_submodule(f"block{i}")
        yield _step(block.conv)
        # the CNN has its poolings inside its blocks, the C8-CNN between them, the last of which takes in all
        pool = block.pool if isinstance(net, DigitsCNN) else getattr(net, f"pool{i // 2}") if i in (2, 4) else None
        if pool is not None and not isinstance(pool, nn.Identity):
            yield _step(pool)


def _step(layer: Any) -> Step:
    kernel, stride, padding = (
        value[0] if isinstance(value, tuple) else value for value in (layer.kernel_size, layer.stride, layer.padding)
    )
    return Step(int(kernel), int(stride), int(padding))


def left(size: int, way: Sequence[Step]) -> int:
    """Return the size of the last map, before all of it is pooled."""
    for step in way:
        size = step.after(size)
    return size


def keeps_centre(size: int, way: Sequence[Step]) -> bool:
    """Say whether the centre of every map is the centre of the image, so that quarter turns stay exact."""
    for step in way:
        if step.spare(size):
            return False
        size = step.after(size)
    return True


def resized(net: nn.Module, size: int) -> nn.Module:
    """Make a network take images of another size, in place, and return it; its weights stay as they are.

    The CNN takes any size. The C8-CNN gets a mask of that size, and its last pooling, a Gaussian over all that is left
    of the map, gets as many weights as are needed, about the same centre and as wide as before.
    """
    if isinstance(net, DigitsCNN):
        return net
    from escnn import nn as enn

    from geed_exporters.escnn.networks import PLANS

    first, pool = net.get_submodule("block1"), net.get_submodule("pool3")
    mask: Any = first.mask
    first.mask = enn.MaskModule(mask.in_type, size, margin=mask.margin)
    width = left(size, steps(net))
    blur = gaussian(width, PLANS["c8-cnn"].pools[-1].sigma)
    pool.filter = blur.expand(pool.filter.shape[0], 1, width, width).clone()
    pool.kernel_size = (width, width)
    return net


def gaussian(width: int, sigma: float) -> torch.Tensor:
    """Return `(width, width)` weights that add up to 1, about the centre of the frame; `sigma` in pixels."""
    offsets = torch.arange(width) - (width - 1) / 2
    line = torch.exp(-(offsets**2) / (2 * sigma**2))
    return torch.outer(line, line) / line.sum() ** 2


def trained(family: Family, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network at the end of a training, in eval mode, and its recipe.

    Raises
    ------
    FileNotFoundError
        If it was not trained to its end.
    """
    if not (folder / "done.json").exists():
        raise FileNotFoundError(
            f"{folder} holds no training that has ended; run python -m experiments.augmentation.train first"
        )
    kept = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
    net = DigitsCNN() if family == "cnn" else steerable()
    net.load_state_dict(kept["parts"]["net"])
    return net.eval(), dict(kept["recipe"])


def exported(family: Family, net: nn.Module, size: int, facts: Mapping[str, Any]) -> Export:
    """Return the export of a network that takes images of this size; digits of 28x28 are padded or cut, not scaled."""
    spec = replace(INPUT, shape=(1, size, size), fit="crop", resize=DIGIT)
    return train.exported(family, net, {**facts, "size": size}, spec)


def resize(family: Family, seed: int, work: Path, sizes: Sequence[int] = SIZES) -> list[Path]:
    """Write one trained network at every size that is not there yet, and return the files written."""
    folder = work / "models" / Digits(family, Recipe(seed, 0, 1)).folder
    written = []
    for size in sizes:
        path = work / "models/robustness" / f"{family}-{size}" / f"{seed}.onnx"
        state = folder / "state.pt"
        if path.exists() and state.exists() and path.stat().st_mtime >= state.stat().st_mtime:
            continue
        net, recipe = trained(family, folder)
        write(exported(family, resized(net, size), size, recipe), path, tolerance=TOLERANCE)
        written.append(path)
    return written


def prepare(shared: Path, work: Path) -> Path:
    """Write the test digits as they come, with the ids they have in the set of 29x29, and return the file."""
    path = work / f"data/rotated-mnist-{DIGIT}.parquet"
    if not path.exists():
        images.write_images(images.rotated_mnist(shared).drawn(COUNT, 0), path, "rotated-mnist")
    return path


def main() -> None:
    """Write what is not there yet."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, nargs="+", help="of the trainings [0 1 2; with --fast 0]")
    asked = options.parse_args()
    work = work_folder(asked)
    prepare(shared_folder(asked), work)
    for seed in asked.seeds or (SEEDS[:1] if asked.fast else SEEDS):
        for family in get_args(Family):
            try:
                written = resize(family, seed, work)
            except FileNotFoundError as error:
                sys.exit(str(error))
            print(f"{family} {seed}: {len(written)} files", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
