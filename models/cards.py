"""The cards beside the shipped files, written by `train.py` from what it has computed."""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Facts:
    """What a model card says; accuracies are fractions, `difference` is ONNX Runtime's against torch."""

    path: Path
    steps: int
    batch: int
    seed: int
    learning_rate: float
    training_images: int
    test_images: int
    upright: float
    rotated: float
    parameters: int
    opset: int
    difference: float
    versions: dict[str, str]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model_card(facts: Facts) -> str:
    """Return the Markdown card of one network."""
    trained = facts.steps > 0
    title = "trained on digits turned by any angle" if trained else "the same network before the first training step"
    training = (
        f"AdamW, one cycle to a learning rate of {facts.learning_rate:g}, {facts.steps} steps of {facts.batch} images, "
        f"label smoothing 0.02. Each image is turned by an angle drawn uniformly from the circle (bilinear, zeros "
        f"outside the frame), anew at every step. {facts.training_images} training images; the last step's weights "
        f"are shipped."
        if trained
        else "None: PyTorch's default initialisation of the seed; batch norm has mean 0 and variance 1. It is the "
        f"starting point of `digits-cnn.onnx` and the untrained model to compare it with. Chance is {1 / 9:.3f}."
    )
    training = textwrap.fill(f"**Training** {training}", 118)
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return f"""# {facts.path.name}

A six-block convolutional classifier of handwritten digits 0 to 8: {title}.

| | |
|---|---|
| accuracy, upright | {facts.upright:.4f} of {facts.test_images} test images |
| accuracy, rotated | {facts.rotated:.4f}, the mean over turns by 0, 45, …, 315 degrees of the same images |
| parameters | {facts.parameters:,} |
| seed | {facts.seed} |
| sha256 | `{sha256(facts.path)}` |

**Input** `image`, float32 `(batch, 1, 29, 29)`: grey, 0 is background and 1 is ink, no further normalisation.

**Outputs** `scores` `(batch, 9)`, class probabilities; `block1` to `block6`, the maps at the end of each block;
`latent` `(batch, 64)`, what the classifier sees. Each is named after the module that gives it.

**Architecture** Six blocks of 3×3 convolution, batch norm and ReLU, with 16, 16, 32, 32, 64, 64 channels; blocks 2 and
4 end in 3×3 average pooling of stride 2 (29 → 15 → 7 pixels). Every size is odd and every stride is centred, so a
quarter turn of the input meets the same samples. Then the mean over pixels, a linear layer, softmax.

{training}

**Data** scikit-learn's `load_digits`, see `digits-test.md`; no shipped test image was trained on.

**Export** `torch.onnx.export(dynamo=True)`, opset {facts.opset}, batch norm folded into the convolutions, metadata
`geed.schema`, `geed.input`, `geed.taps`, `geed.source`. Every output agrees with PyTorch's to {facts.difference:.0e}
in batches of 1 and 3. Made with {versions}.

**Limits** An example to measure, not a digit reader: tiny images of 13 writers, whose hands are in the training and the
test images alike. No digit 9.

**Licence** Apache-2.0, like the project; the data it was trained on is under CC BY 4.0.
"""


def data_card(path: Path, counts: list[int], training_images: int, seed: int) -> str:
    """Return the Markdown card of the test images; `counts` has one entry a class."""
    return f"""# {path.name}

{sum(counts)} grey images of handwritten digits 0 to 8, 29×29 pixels, upright. Columns: `id` (the row of `load_digits`),
`image` (PNG, read by `datasets` as an Image), `label` (0 to 8).

```python
datasets.load_dataset("parquet", data_files="{path.name}", split="train")[0]["image"]
```

| | |
|---|---|
| images of 0, 1, …, 8 | {", ".join(map(str, counts))} |
| held out from | {sum(counts) + training_images} images of these classes, split by class with seed {seed} |
| the others | {training_images} images, which `digits-cnn.onnx` was trained on |
| sha256 | `{sha256(path)}` |

**Source** E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits* (1998), UCI Machine Learning
Repository, <https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits>,
<https://doi.org/10.24432/C50P49>. Taken from the copy of its test set (1797 images, 8×8, values 0 to 16, 13 writers) in
scikit-learn (BSD-3-Clause), `sklearn.datasets.load_digits`.

**Changes** The digit 9 is left out (turned over, it is a 6). Each image is enlarged to 21×21 (bicubic, cut to the
range), stored in 8 bits, and given a margin of 4 empty pixels, so that turning it loses no ink.

**Licence** The images are under Creative Commons Attribution 4.0 International (CC BY 4.0),
<https://creativecommons.org/licenses/by/4.0/>, as the original; the attribution is the source above.
"""
