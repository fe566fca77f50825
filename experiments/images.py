"""The images of every experiment: read from the folder of data sets, brought to one size, written for geed-onnx.

No framework here, and nothing random but what a seed is given for. Grey images are ink on black, 0 is background.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.image_table import write_table

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

DIGIT_CLASSES = 9  # 0 to 8: turned over, a 9 is a 6
CIFAR_BATCHES = tuple(range(10))
CIFAR_TEST = (50,)


@dataclass(frozen=True)
class Images:
    """Images `(N, H, W)` or `(N, H, W, 3)` uint8, labels `(N,)`, and the row of each in its source."""

    pixels: Bytes
    labels: Ints
    rows: Ints

    def __len__(self) -> int:
        return len(self.pixels)

    def only(self, chosen: Array) -> Images:
        """Return the images at these places (indices, or a mask)."""
        return Images(self.pixels[chosen], self.labels[chosen], self.rows[chosen])

    def drawn(self, count: int, seed: int) -> Images:
        """Return `count` images drawn with the seed, in the order of their source; all where there are no more."""
        if count >= len(self):
            return self
        return self.only(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))

    def batch(self) -> npt.NDArray[np.float32]:
        """Return the images as `(N, C, H, W)` float32 in 0..1."""
        x = self.pixels[:, None] if self.pixels.ndim == 3 else self.pixels.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(x, np.float32) / np.float32(255)


def _of(pixels: Array, labels: Array) -> Images:
    return Images(np.asarray(pixels, np.uint8), np.asarray(labels, np.int64), np.arange(len(pixels)))


def _idx(path: Path) -> Bytes:
    """Return the array of an IDX file of bytes, gzipped."""
    raw = gzip.decompress(path.read_bytes())
    if raw[2] != 8:
        raise ValueError(f"{path}: expected an IDX file of bytes (type 8), got type {raw[2]}")
    sides = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sides)


def digits(images: Images) -> Images:
    """Return the digits 0 to 8."""
    return images.only(images.labels < DIGIT_CLASSES)


def mnist(shared: Path, part: str = "train") -> Images:
    """Return MNIST's `train` (60,000) or `t10k` (10,000), 28x28, classes 0 to 8 only."""
    return digits(_idx_pair(shared / "data/mnist", part))


def _idx_pair(folder: Path, part: str) -> Images:
    return _of(_idx(folder / f"{part}-images-idx3-ubyte.gz"), _idx(folder / f"{part}-labels-idx1-ubyte.gz"))


def rotated_mnist(shared: Path) -> Images:
    """Return MNIST's test digits 0 to 8, each turned by a random angle, 28x28."""
    with np.load(shared / "data/rotated-mnist/MNIST_RR_test.npz") as found:
        return digits(_of(found["x"], found["y"]))


def fashion(shared: Path) -> Images:
    """Return the 10,000 test images of Fashion-MNIST, 28x28."""
    return _idx_pair(shared / "data/fashion-mnist", "t10k")


def notmnist(shared: Path) -> Images:
    """Return the 10,000 letters A to J of notMNIST, 28x28."""
    return _idx_pair(shared / "data/notmnist", "t10k")


def omniglot(shared: Path, size: int = 28) -> Images:
    """Return the handwritten characters of Omniglot's two small background sets, white on black, `size` square.

    They are 105x105, black on white; the label is the alphabet.
    """
    pixels, alphabets = [], []
    for part in (1, 2):
        with zipfile.ZipFile(shared / f"data/omniglot/images_background_small{part}.zip") as archive:
            for name in sorted(n for n in archive.namelist() if n.endswith(".png")):
                ink = 255 - np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("L"))
                # the mean over each new pixel's area: thin strokes become grey, none is lost
                pixels.append(np.asarray(Image.fromarray(ink).resize((size, size), Image.Resampling.BOX)))
                alphabets.append(name.split("/")[1])
    names = sorted(set(alphabets))
    return _of(np.stack(pixels), np.array([names.index(a) for a in alphabets]))


def cifar10(shared: Path, batches: Sequence[int]) -> Images:
    """Return CIFAR-10 images 32x32 RGB: batches 0 to 9 are training images, 50 is test; 1,000 each."""
    folder = shared / "data/cifar10"
    labels = np.array(re.findall(r"\d+", (folder / "cifar10_labels.js").read_text()), dtype=np.int64)
    pixels = [
        np.asarray(Image.open(folder / f"cifar10_batch_{b}.png").convert("RGB")).reshape(1000, 32, 32, 3)
        for b in batches
    ]
    rows = np.concatenate([np.arange(1000) + 1000 * b for b in batches])
    return Images(np.concatenate(pixels), labels[rows], rows)


def ships(shared: Path) -> Images:
    """Return 358 chips of Sentinel-2 harbour scenes, 32x32 RGB: 1 is a ship, 0 is background."""
    with np.load(shared / "data/overhead-sen2ships/ship_chips32.npz") as found:
        return _of(found["x"], found["y"])


# ------------------------------------------------------------------------------------------------------ what is done


def padded(images: Images, size: int) -> Images:
    """Return grey images in a larger black frame, one more row below and to the right where the margin is odd."""
    height, width = images.pixels.shape[1:3]
    before = ((size - height) // 2, (size - width) // 2)
    margins = [(0, 0), *((b, size - s - b) for b, s in zip(before, (height, width), strict=True))]
    return Images(np.pad(images.pixels, margins), images.labels, images.rows)


def turned(images: Images, seed: int) -> Images:
    """Return every grey image turned by a random angle of its own, bilinear, black outside the frame."""
    degrees = np.random.default_rng(seed).uniform(0, 360, len(images))
    pixels = [
        np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
        for image, angle in zip(images.pixels, degrees, strict=True)
    ]
    return Images(np.stack(pixels), images.labels, images.rows)


def write_images(images: Images, path: Path, prefix: str) -> None:
    """Write images as a Parquet file with an id, a PNG and a label a row, which `datasets` and geed-onnx read.

    The id is the prefix and the image's row in its source, so it stays the same whatever else is in the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, [f"{prefix}-{row:05d}" for row in images.rows], images.pixels, images.labels)
