"""Makes everything in `models/shipped`: two small networks on handwritten digits, 300 test images, and their cards.

    pip install "geed-onnx[train]"
    python models/train.py --out models/shipped

A six-block CNN learns digits 0 to 8 turned by any angle (9 is left out, as in the paper: turned over, it is a 6). Its
untrained twin is the same network of the same seed before the first step. Both are exported with their stage ends,
latent vector and class scores as named outputs, checked against ONNX Runtime, and described in a card whose numbers
this script has computed. The same machine and versions give the same bytes.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn
import torch  # noqa: TID251 (the ban is the library's; this script trains)
import torch.nn.functional as F  # noqa: TID251
from cards import Facts, data_card, model_card
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn  # noqa: TID251

SIZE = 29  # 29 -> 15 -> 7: odd at every stage, and no stride leaves the centre, so quarter turns stay exact
INK = 21  # the digit's own square; its diagonal is 29.7, so no turn pushes ink out of the frame
CLASSES = 9
TEST_IMAGES = 300
ENOUGH = 0.95  # accuracy, upright and rotated, below which nothing is written
WIDTHS = (16, 16, 32, 32, 64, 64)
TAPS = {f"block{i}": "map" for i in range(1, 7)} | {"latent": "vector"}  # beside the scores; each a module's name
OPSET = 20
SCOPES = "pkg.torch.onnx.name_scopes"
TOLERANCE = 1e-5  # ONNX Runtime against torch, every output, absolute


@dataclass(frozen=True)
class Recipe:
    """How the network was trained; all of it goes into the file's `geed.source`."""

    seed: int
    steps: int
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2


@dataclass(frozen=True)
class Digits:
    """Grey images `(N, 29, 29)` uint8, labels `(N,)` in 0..8, and the row of each in scikit-learn's table."""

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return the images as `(N, 1, 29, 29)` float32 in 0..1, and the labels."""
        return torch.from_numpy(self.images).float().div(255).unsqueeze(1), torch.from_numpy(self.labels)


# ---------------------------------------------------------------------------------------------------------- the data


def digits(seed: int) -> tuple[Digits, Digits]:
    """Return the training images and 300 test images, split by class; both as the 8-bit pixels that are shipped."""
    table = load_digits()
    rows = np.flatnonzero(table.target < CLASSES)
    train, test = train_test_split(rows, test_size=TEST_IMAGES, stratify=table.target[rows], random_state=seed)

    def part(chosen: np.ndarray) -> Digits:
        chosen = np.sort(chosen)
        images = np.stack([enlarged(table.images[row]) for row in chosen])
        return Digits(images, table.target[chosen].astype(np.int64), chosen)

    return part(train), part(test)


def enlarged(image: np.ndarray) -> np.ndarray:
    """Return an 8x8 image of values 0..16 as 29x29 uint8: bicubic to 21x21, in a margin of 4 empty pixels."""
    ink = Image.fromarray((image / 16).astype(np.float32), mode="F").resize((INK, INK), Image.Resampling.BICUBIC)
    margin = (SIZE - INK) // 2
    return np.pad(np.rint(np.clip(np.asarray(ink), 0, 1) * 255).astype(np.uint8), margin)


def write_images(test: Digits, path: Path) -> None:
    """Write the test images as a Parquet file that `datasets` reads with an Image column."""

    def png(pixels: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
        return buffer.getvalue()

    names = [f"digits-{row:04d}" for row in test.rows]
    images = [{"bytes": png(pixels), "path": f"{name}.png"} for name, pixels in zip(names, test.images, strict=True)]
    features = {
        "id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "label": {"dtype": "int64", "_type": "Value"},
    }
    schema = pa.schema(
        {"id": pa.string(), "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    pq.write_table(pa.table({"id": names, "image": images, "label": test.labels}, schema=schema), path)


# ------------------------------------------------------------------------------------------------------- the network


class Block(nn.Module):
    """3x3 convolution, batch norm, ReLU and, where a padding is given, 3x3 average pooling of stride 2."""

    def __init__(self, inputs: int, outputs: int, pool_padding: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.pool = nn.Identity() if pool_padding is None else nn.AvgPool2d(3, 2, pool_padding)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, outputs, H', W')` for `(B, inputs, H, W)`."""
        return self.pool(self.relu(self.norm(self.conv(x))))


class DigitsCNN(nn.Module):
    """Six blocks (29, 15, 15, 7, 7, 7 pixels wide), the mean over pixels as latent vector, a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, e, f = WIDTHS
        self.block1 = Block(1, a)
        self.block2 = Block(a, b, pool_padding=1)  # 29 -> 15
        self.block3 = Block(b, c)
        self.block4 = Block(c, d, pool_padding=0)  # 15 -> 7
        self.block5 = Block(d, e)
        self.block6 = Block(e, f)
        self.latent = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(f, CLASSES)
        self.scores = nn.Softmax(1)

    def logits(self, x: Tensor) -> Tensor:
        """Return logits `(B, 9)` of images `(B, 1, 29, 29)` in 0..1."""
        for block in (self.block1, self.block2, self.block3, self.block4, self.block5, self.block6):
            x = block(x)
        return self.classifier(self.latent(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return class probabilities `(B, 9)` of images `(B, 1, 29, 29)` in 0..1."""
        return self.scores(self.logits(x))


# ------------------------------------------------------------------------------------------------------ the training


def rotated(x: Tensor, radians: Tensor) -> Tensor:
    """Turn each image `(B, 1, H, W)` by its angle `(B,)` about the centre: bilinear, zeros outside the frame."""
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    turn = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    return F.grid_sample(x, F.affine_grid(turn, list(x.shape), align_corners=False), align_corners=False)


def train(net: DigitsCNN, data: Digits, recipe: Recipe) -> None:
    """Train `net` in place on images turned by angles drawn anew at every step."""
    images, labels = data.batch()
    draw = torch.Generator().manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=recipe.steps)
    net.train()
    for step in range(1, recipe.steps + 1):
        rows = torch.randint(len(images), (recipe.batch,), generator=draw)
        turned = rotated(images[rows], torch.rand(recipe.batch, generator=draw) * 2 * torch.pi)
        loss = F.cross_entropy(net.logits(turned), labels[rows], label_smoothing=0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 250 == 0:
            print(f"step {step:5d} of {recipe.steps}   loss {loss.item():.4f}", file=sys.stderr)


@torch.no_grad()
def accuracy(net: nn.Module, data: Digits) -> tuple[float, float]:
    """Return the accuracy on upright images, and its mean over the eight turns by multiples of 45 degrees."""
    images, labels = data.batch()
    net.eval()
    turns = [torch.full((len(images),), k * torch.pi / 4) for k in range(8)]
    right = [(net(rotated(images, turn)).argmax(1) == labels).double().mean().item() for turn in turns]
    return (net(images).argmax(1) == labels).double().mean().item(), float(np.mean(right))


# -------------------------------------------------------------------------------------------------------- the export


class Tapped(nn.Module):
    """The network returning its class probabilities, then each tap, caught by forward hooks."""

    def __init__(self, net: DigitsCNN) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return `(scores, block1, …, block6, latent)` of images `(B, 1, 29, 29)`."""
        caught: dict[str, Tensor] = {}

        def catcher(name: str) -> Callable[[nn.Module, object, Tensor], None]:
            def catch(module: nn.Module, inputs: object, output: Tensor) -> None:
                # a clone: a later in-place operation would rewrite the caught tensor, in torch and in ONNX alike
                caught[name] = output.clone()

            return catch

        hooks = [self.net.get_submodule(name).register_forward_hook(catcher(name)) for name in TAPS]
        scores = self.net(image)
        for hook in hooks:
            hook.remove()
        return (scores, *(caught[name] for name in TAPS))


def exported(net: DigitsCNN, source: dict[str, object]) -> onnx.ModelProto:
    """Return the ONNX model with named taps and `geed.*` metadata, free of paths of the machine that exported it."""
    program = torch.onnx.export(
        Tapped(net).eval(),
        (torch.zeros(2, 1, SIZE, SIZE),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["scores", *TAPS],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    model = program.model_proto
    strip(model)
    kinds = {**TAPS, "scores": "probability"}
    entries = {
        "geed.schema": "1",
        "geed.input": {
            "layout": "NCHW",
            "size": [SIZE, SIZE],
            "channels": 1,
            "colour": "grey",
            "range": [0, 1],
            "mean": [0.0],
            "std": [1.0],
        },
        "geed.taps": [
            {"name": name, "kind": kind, "layout": "NCHW" if kind == "map" else None, "module": name}
            for name, kind in kinds.items()
        ],
        "geed.source": source,
    }
    del model.metadata_props[:]
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(model, full_check=True)
    return model


def strip(model: onnx.ModelProto) -> None:
    """Keep of the exporter's notes the module path of each node only; stack traces hold paths of this machine."""
    graph = model.graph
    model.doc_string, graph.name = "", "digits-cnn"
    for item in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        item.doc_string = ""
        scopes = [p.value for p in item.metadata_props if p.key == SCOPES] if isinstance(item, onnx.NodeProto) else []
        del item.metadata_props[:]
        for value in scopes:
            # the wrapper that catches the taps is no part of the network's own module paths
            inner = [path.removeprefix("net.") for path in ast.literal_eval(value) if path != "net"]
            item.metadata_props.add(key=SCOPES, value=repr(inner))
    for weight in graph.initializer:
        weight.name = weight.name.removeprefix("net.")
    for node in graph.node:
        node.input[:] = [name.removeprefix("net.") for name in node.input]
    infos = [info for info in graph.value_info if not info.name.startswith("net.")]
    del graph.value_info[:]
    graph.value_info.extend(infos)


@torch.no_grad()
def verify(net: DigitsCNN, model: onnx.ModelProto, data: Digits) -> float:
    """Return the largest difference of any output between ONNX Runtime and torch; exit where it passes 1e-5."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    worst = 0.0
    for batch in (1, 3):
        x = rotated(data.batch()[0][:batch], torch.linspace(0, 1, batch))
        ours = Tapped(net).eval()(x)
        for name, there, here in zip(names, session.run(names, {"image": x.numpy()}), ours, strict=True):
            if there.shape != tuple(here.shape):
                sys.exit(f"output {name!r}: ONNX Runtime gives shape {there.shape}, torch {tuple(here.shape)}")
            worst = max(worst, float(np.abs(there - here.numpy()).max()))
            if not worst <= TOLERANCE:
                sys.exit(f"output {name!r}, batch {batch}: ONNX Runtime differs from torch by {worst:.2e}; not written")
    return worst


# --------------------------------------------------------------------------------------------------------- the whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "shipped", help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2, help="fixed, since sums depend on it in their last bits")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.use_deterministic_algorithms(True)

    recipe = Recipe(asked.seed, asked.steps)
    training, test = digits(recipe.seed)
    torch.manual_seed(recipe.seed)
    net = DigitsCNN()
    asked.out.mkdir(parents=True, exist_ok=True)
    versions = {
        "Python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "onnx": onnx.__version__,
        "ONNX Runtime": onnxruntime.__version__,
        "scikit-learn": sklearn.__version__,
    }
    images = asked.out / "digits-test.parquet"
    write_images(test, images)
    counts = np.bincount(test.labels, minlength=CLASSES).tolist()
    images.with_suffix(".md").write_text(data_card(images, counts, len(training.rows), recipe.seed), encoding="utf-8")

    for name, steps in (("digits-cnn-untrained", 0), ("digits-cnn", recipe.steps)):
        if steps:
            train(net, training, recipe)
        upright, turned = accuracy(net, test)
        if steps and min(upright, turned) <= ENOUGH:
            sys.exit(f"accuracy {upright:.1%} upright, {turned:.1%} rotated; over {ENOUGH:.0%} is wanted: more --steps")
        weights = {"seed": recipe.seed, "steps": steps, "upright": round(upright, 4), "rotated": round(turned, 4)}
        if steps:
            weights |= {"batch": recipe.batch, "rotations": "uniform over the circle", "images": len(training.rows)}
        source = {"framework": "torch", "version": versions["torch"], "model": "DigitsCNN", "weights": weights}
        model = exported(net, source)
        worst = verify(net, model, test)
        path = asked.out / f"{name}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        facts = Facts(
            path=path,
            steps=steps,
            batch=recipe.batch,
            seed=recipe.seed,
            learning_rate=recipe.learning_rate,
            training_images=len(training.rows),
            test_images=len(test.rows),
            upright=upright,
            rotated=turned,
            parameters=sum(p.numel() for p in net.parameters()),
            opset=OPSET,
            difference=worst,
            versions=versions,
        )
        path.with_suffix(".md").write_text(model_card(facts), encoding="utf-8")
        print(f"{path}: upright {upright:.2%}, rotated {turned:.2%}, differs by {worst:.1e}")


if __name__ == "__main__":
    main()
