"""Section 4.2: images unlike those that the networks of section 4.1 were trained on.

    python -m experiments.out_of_distribution.prepare

Trains nothing. Other images: Fashion-MNIST, letters (notMNIST) and handwritten characters (Omniglot), each turned by a
random angle as the digits are. The same digits, spoilt: noise, blur, occlusion and lost contrast, each at two
strengths. All of the size and the value range that the networks were trained on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from experiments import images
from experiments.images import Images
from experiments.places import parser, shared_folder, work_folder

SIZE = 29
COUNT = 1000
Floats = npt.NDArray[np.float64]


def noise(x: Floats, strength: float, draw: np.random.Generator) -> Floats:
    """Add normal noise of this standard deviation."""
    return x + draw.normal(0, strength, x.shape)


def blur(x: Floats, strength: float, draw: np.random.Generator) -> Floats:
    """Blur by a Gaussian of this standard deviation in pixels."""
    return np.asarray(ndimage.gaussian_filter(x, (0, strength, strength)))


def occlusion(x: Floats, strength: float, draw: np.random.Generator) -> Floats:
    """Blacken a square of this side in pixels, somewhere within the middle 21x21 pixels of each image."""
    side, height, width = int(strength), *x.shape[1:]
    top, left = (draw.integers(4, s - 4 - side + 1, len(x)) for s in (height, width))
    rows, cols = np.arange(height)[None, :, None], np.arange(width)[None, None, :]
    within_rows = (rows >= top[:, None, None]) & (rows < top[:, None, None] + side)
    within_cols = (cols >= left[:, None, None]) & (cols < left[:, None, None] + side)
    return np.where(within_rows & within_cols, 0.0, x)


def contrast(x: Floats, strength: float, draw: np.random.Generator) -> Floats:
    """Multiply by this factor: ink grows faint, the background stays black."""
    return x * strength


Corruption = Callable[[Floats, float, np.random.Generator], Floats]
CORRUPTIONS: tuple[tuple[Corruption, float, float], ...] = (
    (noise, 0.15, 0.4),
    (blur, 1.0, 2.0),
    (occlusion, 7, 11),
    (contrast, 0.5, 0.2),
)


def corrupted(given: Images, corruption: Corruption, strength: float, seed: int) -> Images:
    """Return the images spoilt at this strength, values cut to 0..255 and rounded."""
    x = corruption(given.pixels / 255.0, strength, np.random.default_rng(seed))
    pixels = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
    return Images(pixels, given.labels, given.rows)


def data_sets(shared: Path) -> dict[str, Images]:
    """Return every data set by its name, 1,000 images of 29x29 each."""
    digits = images.padded(images.rotated_mnist(shared), SIZE).drawn(COUNT, 0)
    found = {"rotated-mnist-1000": digits}
    for name, read in (
        ("rotated-fashion", images.fashion),
        ("rotated-notmnist", images.notmnist),
        ("rotated-omniglot", images.omniglot),
    ):
        found[name] = images.padded(images.turned(read(shared).drawn(COUNT, 0), 0), SIZE)
    for corruption, weak, strong in CORRUPTIONS:
        for word, strength in (("weak", weak), ("strong", strong)):
            found[f"mnist-{corruption.__name__}-{word}"] = corrupted(digits, corruption, strength, 0)
    return found


def main() -> None:
    """Write the data sets that are not there yet."""
    asked = parser(__doc__).parse_args()
    folder = work_folder(asked) / "data"
    for name, found in data_sets(shared_folder(asked)).items():
        path = folder / f"{name}.parquet"
        if not path.exists():
            images.write_images(found, path, name)
            print(f"{path}: {len(found)} images", file=sys.stderr)


if __name__ == "__main__":
    main()
