"""What every training script shares, and no framework: the digits, their turns, the order of batches, the accuracies.

scikit-learn's handwritten digits 0 to 8 (9 is left out, as in the paper: turned over, it is a 6), enlarged to 29x29.
Everything here is NumPy, so that networks of different frameworks are trained and judged on the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from image_table import write_table
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIZE = 29  # 29 -> 15 -> 7: odd at every stage, and no stride leaves the centre, so quarter turns stay exact
INK = 21  # the digit's own square; its diagonal is 29.7, so no turn pushes ink out of the frame
CLASSES = 9
TEST_IMAGES = 300
ENOUGH = 0.95  # accuracy, upright and rotated, below which a convolutional network is not written
TURNS = 8  # accuracies are means over this many turns

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How a network was trained; all of it goes into the file's `geed.source`."""

    seed: int
    steps: int
    batch: int = 64
    learning_rate: float = 3e-3
    """The largest of the cycle."""
    weight_decay: float = 1e-2


@dataclass(frozen=True)
class Digits:
    """Grey images `(N, 29, 29)` uint8, labels `(N,)` in 0..8, and the row of each in scikit-learn's table."""

    images: npt.NDArray[np.uint8]
    labels: Ints
    rows: Ints

    def batch(self) -> tuple[Floats, Ints]:
        """Return the images as `(N, 1, 29, 29)` float32 in 0..1, and the labels."""
        return self.images[:, None].astype(np.float32) / np.float32(255), self.labels


class Accuracy(NamedTuple):
    """Shares of images whose class was found."""

    upright: float
    rotated: float
    """The mean over turns by 0, 45, …, 315 degrees."""


# ---------------------------------------------------------------------------------------------------------- the data


def digits(seed: int) -> tuple[Digits, Digits]:
    """Return the training images and 300 test images, split by class; both as the 8-bit pixels that are shipped."""
    table = load_digits()
    rows = np.flatnonzero(table.target < CLASSES)
    train, test = train_test_split(rows, test_size=TEST_IMAGES, stratify=table.target[rows], random_state=seed)

    def part(chosen: Array) -> Digits:
        chosen = np.sort(chosen)
        images = np.stack([enlarged(table.images[row]) for row in chosen])
        return Digits(images, table.target[chosen].astype(np.int64), chosen)

    return part(train), part(test)


def enlarged(image: Array) -> npt.NDArray[np.uint8]:
    """Return an 8x8 image of values 0..16 as 29x29 uint8: bicubic to 21x21, in a margin of 4 empty pixels."""
    ink = Image.fromarray((image / 16).astype(np.float32)).resize((INK, INK), Image.Resampling.BICUBIC)
    margin = (SIZE - INK) // 2
    return np.pad(np.rint(np.clip(np.asarray(ink), 0, 1) * 255).astype(np.uint8), margin)


def write_images(test: Digits, path: Path) -> None:
    """Write the test images as a Parquet file that `datasets` reads with an Image column."""
    write_table(path, [f"digits-{row:04d}" for row in test.rows], test.images, test.labels)


# --------------------------------------------------------------------------------------------------------- the turns


def rotated(x: Floats, radians: Array | float) -> Floats:
    """Turn each image `(B, C, H, W)` by its angle, `(B,)` or one for all, about the centre of the frame.

    Counter-clockwise, bilinear, zeros outside the frame: torch's `affine_grid` and `grid_sample` with
    `align_corners=False` on a square, computed in float64.
    """
    batch, channels, height, width = x.shape
    angle = np.broadcast_to(np.asarray(radians, np.float64), (batch,))[:, None]
    rows, cols = np.divmod(np.arange(height * width), width)
    across, down = cols - (width - 1) / 2, rows - (height - 1) / 2
    source_col = np.cos(angle) * across - np.sin(angle) * down + (width - 1) / 2  # (B, H·W)
    source_row = np.sin(angle) * across + np.cos(angle) * down + (height - 1) / 2
    # a quarter turn's cosine is 6e-17: snapped, it is the exact permutation
    source_col, source_row = (np.where(np.abs(s - np.rint(s)) < 1e-9, np.rint(s), s) for s in (source_col, source_row))
    left, top = np.floor(source_col).astype(np.intp), np.floor(source_row).astype(np.intp)
    right_share, low_share = source_col - left, source_row - top
    # two pixels of margin: whatever lies further out is clipped onto a zero
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2))).reshape(batch, channels, -1)
    out = np.zeros((batch, channels, height * width))
    for i, j, weight in (
        (top, left, (1 - low_share) * (1 - right_share)),
        (top, left + 1, (1 - low_share) * right_share),
        (top + 1, left, low_share * (1 - right_share)),
        (top + 1, left + 1, low_share * right_share),
    ):
        place = np.clip(i + 2, 0, height + 3) * (width + 4) + np.clip(j + 2, 0, width + 3)
        out += weight[:, None] * np.take_along_axis(padded, place[:, None], axis=2)
    return out.reshape(x.shape).astype(np.float32)


# ------------------------------------------------------------------------------------------------------ the training


def batches(training: Digits, recipe: Recipe) -> Iterator[tuple[Floats, Ints]]:
    """Yield `recipe.steps` batches: images `(B, 1, 29, 29)`, each turned by an angle of its own, and labels `(B,)`.

    Rows (with replacement) and angles (uniform over the circle) are drawn anew at every step, by a generator of the
    seed: every framework meets the same batches in the same order.
    """
    draw = np.random.default_rng(recipe.seed)
    images, labels = training.batch()
    for _ in range(recipe.steps):
        rows = draw.integers(len(images), size=recipe.batch)
        angles = draw.uniform(0, 2 * np.pi, recipe.batch)
        yield rotated(images[rows], angles), labels[rows]


def one_cycle(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step, counted from 0: what torch's `OneCycleLR` gives with its defaults.

    A cosine from a 25th of the largest up to it over 30 % of the steps, then one down to 1e-4 of where it began.
    `OneCycleLR` cycles Adam's momentum too; this does not.
    """
    largest, start = recipe.learning_rate, recipe.learning_rate / 25
    turn, end = 0.3 * recipe.steps - 1, recipe.steps - 1
    if step <= turn:
        return _cosine(start, largest, step / turn)
    return _cosine(largest, start / 1e4, (step - turn) / (end - turn))


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) / 2 * (1 + float(np.cos(np.pi * share)))


def accuracy(predict: Callable[[Floats], Array], data: Digits) -> Accuracy:
    """Return the accuracy on upright images, and its mean over the eight turns by multiples of 45 degrees.

    `predict` maps images `(B, 1, 29, 29)` in 0..1 to scores `(B, 9)`.
    """
    x, labels = data.batch()
    right = [
        float((np.asarray(predict(rotated(x, k * 2 * np.pi / TURNS))).argmax(1) == labels).mean()) for k in range(TURNS)
    ]
    return Accuracy(right[0], float(np.mean(right)))
