"""The cards beside the shipped files, written by the training scripts from what they have computed."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import onnx
import onnxruntime
import sklearn
from digits import CLASSES, Recipe

#: For the six-block CNN, whatever framework it is written in.
CNN_ARCHITECTURE = (
    "Six blocks of 3×3 convolution, batch norm and ReLU, with 16, 16, 32, 32, 64, 64 channels; blocks 2 and 4 end in "
    "3×3 average pooling of stride 2 (29 → 15 → 7 pixels). Every size is odd and every stride is centred, so a quarter "
    "turn of the input meets the same samples. Then the mean over pixels, a linear layer, softmax."
)
CNN_OUTPUTS = (
    "`scores` `(batch, 9)`, class probabilities; `block1` to `block6`, the maps at the end of each block; `latent` "
    "`(batch, 64)`, what the classifier sees. Each is named after the module that gives it."
)
IMAGE_INPUT = "`image`, float32 `(batch, 1, 29, 29)`: grey, 0 is background and 1 is ink, no further normalisation."
LIMITS = (
    "An example to measure, not a digit reader: tiny images of 13 writers, whose hands are in the training and the "
    "test images alike. No digit 9."
)


@dataclass(frozen=True)
class Facts:
    """What a model card says.

    Attributes
    ----------
    title : str
        One sentence without its full stop: what the network is.
    training : str or None
        A paragraph; None for a network that was not trained, which the card then says.
    upright, rotated : float
        Accuracies, as fractions.
    difference : float
        The largest of ONNX Runtime's outputs against the framework's.
    rows : Mapping
        Further lines of the table, `{what: value}`.
    """

    path: Path
    title: str
    framework: str
    exporter: str
    opset: int
    outputs: str
    architecture: str
    training: str | None
    upright: float
    rotated: float
    test_images: int
    parameters: int
    seed: int
    difference: float
    versions: Mapping[str, str]
    input: str = IMAGE_INPUT
    limits: str = LIMITS
    difference_is: str = "absolute"
    """Or relative: over the largest value of the output."""
    agreement: str = ""
    """Said instead of the sentence on `difference`, where the file is not meant to equal its framework."""
    export_notes: str = ""
    """Said between the opset and the metadata: `batch norm folded into the convolutions`."""
    rows: Mapping[str, str] = field(default_factory=dict)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Return `{name: version}` of Python, `packages` and what every card tells; build tags (`+cpu`) are left out."""
    # ONNX Runtime is `onnxruntime` or `onnxruntime-gpu` to pip, by platform; the module has one name
    said = {name: version(name) for name in packages} | {"onnx": onnx.__version__}
    said |= {"ONNX Runtime": onnxruntime.__version__, "scikit-learn": sklearn.__version__}
    return {"Python": python_version()} | {name: number.split("+")[0] for name, number in said.items()}


def training_paragraph(recipe: Recipe, training_images: int, optimiser: str = "AdamW", loss: str = "") -> str:
    """Return how a network was trained by `digits.batches` and `digits.one_cycle`; `loss` is a further remark."""
    return (
        f"{optimiser}, one cycle to a learning rate of {recipe.learning_rate:g}, {recipe.steps} steps of "
        f"{recipe.batch} images{f', {loss}' if loss else ''}. Each image is turned by an angle drawn uniformly "
        f"from the circle (bilinear, zeros outside the frame), anew at every step. {training_images} training images; "
        "the last step's weights are shipped."
    )


def untrained_paragraph(framework: str, twin: str) -> str:
    """Return what to say of a network of initial weights; `twin` is the file that was trained from them."""
    return (
        f"None: {framework}'s default initialisation of the seed; batch norm has mean 0 and variance 1. It is the "
        f"starting point of `{twin}` and the untrained model to compare it with. Chance is {1 / CLASSES:.3f}."
    )


def model_card(facts: Facts) -> str:
    """Return the Markdown card of one network."""
    made = ", ".join(f"{name} {number}" for name, number in facts.versions.items())
    notes = f"{facts.export_notes}, " if facts.export_notes else ""
    agreement = facts.agreement or (
        f"Every output agrees with {facts.framework}'s to {facts.difference:.0e} ({facts.difference_is}) in batches of "
        "1 and 3."
    )
    table = {
        "accuracy, upright": f"{facts.upright:.4f} of {facts.test_images} test images",
        "accuracy, rotated": f"{facts.rotated:.4f}, the mean over turns by 0, 45, …, 315 degrees of the same images",
        "parameters": f"{facts.parameters:,}",
        "framework": facts.framework,
        "seed": str(facts.seed),
        **facts.rows,
        "sha256": f"`{sha256(facts.path)}`",
    }
    paragraphs = {
        "Input": facts.input,
        "Outputs": facts.outputs,
        "Architecture": facts.architecture,
        "Training": facts.training or "None.",
        "Data": "scikit-learn's `load_digits`, see `digits-test.md`; no shipped test image was trained on.",
        "Export": f"{facts.exporter}, opset {facts.opset}, {notes}metadata `geed.schema`, `geed.input`, `geed.taps`, "
        f"`geed.source`. {agreement} Made with {made}.",
        "Limits": facts.limits,
        "Licence": "Apache-2.0, like the project; the data it was trained on is under CC BY 4.0.",
    }
    rows = "\n".join(f"| {what} | {value} |" for what, value in table.items())
    body = "\n\n".join(filled(f"**{head}** {text}") for head, text in paragraphs.items())
    return f"# {facts.path.name}\n\n{filled(facts.title)}.\n\n| | |\n|---|---|\n{rows}\n\n{body}\n"


def filled(paragraph: str) -> str:
    """Return a paragraph in lines of at most 118 characters, words and file names whole."""
    return textwrap.fill(paragraph, 118, break_on_hyphens=False, break_long_words=False)


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
| the others | {training_images} images, which the networks beside it were trained on |
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
