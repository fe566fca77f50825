"""Makes the PyTorch networks in `models/shipped`, the 300 test images, and their cards.

    pip install "geed-onnx[pytorch,train]"
    python models/train_pytorch.py --out models/shipped

A six-block CNN learns digits 0 to 8 turned by any angle. Its untrained twin is the same network of the same seed before
the first step. Both are exported with their stage ends, latent vector and class scores as named outputs and described
in a card whose numbers this script has computed; the trained weights are left beside them as safetensors, for other
frameworks to take over. The same machine and versions give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch  # noqa: TID251 (the ban is the library's; this script trains)
import torch.nn.functional as F  # noqa: TID251
from cards import (
    CNN_ARCHITECTURE,
    CNN_OUTPUTS,
    Facts,
    data_card,
    model_card,
    training_paragraph,
    untrained_paragraph,
    versions,
)
from digits import CLASSES, ENOUGH, Digits, Recipe, accuracy, digits, rotated, write_images
from digits_cnn import INPUT, SIZE, DigitsCNN
from safetensors.torch import save_file
from torch import Tensor, nn  # noqa: TID251

from geed_exporters import InputSpec, write
from geed_exporters.pytorch import Loaded, export_pytorch

TAPS = ("block?", "latent", "scores")
OPSET = 20
TOLERANCE = 1e-5  # ONNX Runtime against torch, relative to a tap's largest value


def turned(x: Tensor, radians: Tensor) -> Tensor:
    """Turn each image `(B, 1, H, W)` by its angle `(B,)` about the centre: bilinear, zeros outside the frame."""
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    turn = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    return F.grid_sample(x, F.affine_grid(turn, list(x.shape), align_corners=False), align_corners=False)


def train(net: DigitsCNN, data: Digits, recipe: Recipe) -> None:
    """Train `net` in place on images turned by angles drawn anew at every step."""
    images, labels = (torch.from_numpy(a) for a in data.batch())
    draw = torch.Generator().manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=recipe.steps)
    net.train()
    for step in range(1, recipe.steps + 1):
        rows = torch.randint(len(images), (recipe.batch,), generator=draw)
        batch = turned(images[rows], torch.rand(recipe.batch, generator=draw) * 2 * torch.pi)
        loss = F.cross_entropy(net.logits(batch), labels[rows], label_smoothing=0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 250 == 0:
            print(f"step {step:5d} of {recipe.steps}   loss {loss.item():.4f}", file=sys.stderr)


def judged(net: nn.Module, data: Digits) -> tuple[float, float]:
    """Return the accuracy on upright images, and its mean over the eight turns by multiples of 45 degrees."""
    net.eval()

    @torch.no_grad()
    def predict(x: np.ndarray) -> np.ndarray:
        return net(torch.from_numpy(x)).numpy()

    return accuracy(predict, data)


def exported(net: DigitsCNN, path: Path, weights: dict[str, object], data: Digits) -> float:
    """Write the network with its taps, verified on turned digits; return the largest relative difference."""
    spec = InputSpec(
        name="image",
        shape=(1, SIZE, SIZE),
        layout="NCHW",
        colour=INPUT["colour"],
        range=INPUT["range"],
        mean=INPUT["mean"],
        std=INPUT["std"],
    )
    loaded = Loaded(model=net.eval(), input=spec, weights=weights, name="DigitsCNN", latent="latent", scores="scores")
    export = export_pytorch(loaded, taps=TAPS, opset=OPSET)
    images, _ = data.batch()
    probe = replace(export, probe=lambda batch: rotated(images[:batch], np.linspace(0, 1, batch)))
    written = write(probe, path, tolerance=TOLERANCE)
    assert written.agreement is not None
    return written.agreement.difference


def card(path: Path, net: nn.Module, recipe: Recipe, judgement: tuple[float, float], difference: float) -> Facts:
    """Return what the cards of both networks share; `recipe.steps` is 0 for the untrained one."""
    trained = recipe.steps > 0
    twin = "trained on digits turned by any angle" if trained else "the same network before the first training step"
    return Facts(
        path=path,
        title=f"A six-block convolutional classifier of handwritten digits 0 to 8: {twin}",
        framework="PyTorch",
        exporter="`geed_exporters.pytorch` (`torch.onnx.export(dynamo=True)`)",
        opset=OPSET,
        export_notes="batch norm folded into the convolutions",
        outputs=CNN_OUTPUTS,
        architecture=CNN_ARCHITECTURE,
        training=untrained_paragraph("PyTorch", "digits-cnn.onnx"),
        upright=judgement[0],
        rotated=judgement[1],
        test_images=0,
        parameters=sum(p.numel() for p in net.parameters()),
        seed=recipe.seed,
        difference=difference,
        versions=versions("torch", "safetensors"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "shipped", help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2, help="fixed, since sums depend on it in their last bits")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.use_deterministic_algorithms(True)
    asked.out.mkdir(parents=True, exist_ok=True)

    recipe = Recipe(asked.seed, asked.steps)
    training, test = digits(recipe.seed)
    images = asked.out / "digits-test.parquet"
    write_images(test, images)
    counts = np.bincount(test.labels, minlength=CLASSES).tolist()
    images.with_suffix(".md").write_text(data_card(images, counts, len(training.rows), recipe.seed), encoding="utf-8")

    torch.manual_seed(recipe.seed)
    net = DigitsCNN()
    for name, steps in (("digits-cnn-untrained", 0), ("digits-cnn", recipe.steps)):
        if steps:
            train(net, training, recipe)
        judgement = upright, over_turns = judged(net, test)
        if steps and min(judgement) <= ENOUGH:
            sys.exit(f"accuracy {upright:.1%} upright, {over_turns:.1%} rotated; over {ENOUGH:.0%} is wanted")
        weights = {"seed": recipe.seed, "steps": steps, "upright": round(upright, 4), "rotated": round(over_turns, 4)}
        if steps:
            weights |= {"batch": recipe.batch, "rotations": "uniform over the circle", "images": len(training.rows)}
            save_file(net.state_dict(), asked.out / f"{name}.safetensors")
        path = asked.out / f"{name}.onnx"
        difference = exported(net, path, weights, test)
        facts = card(path, net, replace(recipe, steps=steps), judgement, difference)
        facts = replace(facts, test_images=len(test.rows))
        if steps:
            facts = replace(facts, training=training_paragraph(recipe, len(training.rows), loss="label smoothing 0.02"))
        path.with_suffix(".md").write_text(model_card(facts), encoding="utf-8")
        print(f"{path}: upright {upright:.2%}, rotated {over_turns:.2%}, differs by {difference:.1e}")


if __name__ == "__main__":
    main()
