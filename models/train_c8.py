"""Makes the steerable network in `models/shipped`, digits-c8cnn.onnx, and its card.

    pip install "geed-onnx[escnn,train]" and then: pip install --no-deps escnn==1.0.11
    python models/train_c8.py --out models/shipped

A small C8-CNN, equivariant to turns by 45 degrees by construction, learns digits 0 to 8 from the batches that every
network here is trained on (turned by any angle, though it hardly needs it). Its blocks declare in the file how their
channels move, so that geed-onnx measures them as the fields they are. The same machine and versions give the same
bytes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch  # noqa: TID251 (the ban is the library's; this script trains)
import torch.nn.functional as F  # noqa: TID251
from cards import Facts, model_card, training_paragraph, versions
from digits import ENOUGH, Accuracy, Digits, Recipe, accuracy, batches, digits, one_cycle, rotated

from geed_exporters import write
from geed_exporters.escnn import export_escnn, load
from geed_exporters.escnn.stubs import import_escnn

import_escnn()  # with stand-ins for what it needs for rotations of space only

from geed_exporters.escnn.networks import C8CNN, PLANS  # noqa: E402

NAME = "digits-c8cnn"
PLAN = "c8-cnn-small"
TAPS = ("block?", "latent", "scores")
OPSET = 20
TOLERANCE = 1e-5  # ONNX Runtime against escnn, relative to a tap's largest value
LARGEST = 1_000_000  # bytes
ARCHITECTURE = (
    "Six blocks of steerable convolution (kernels of 7, 5, 5, 5, 5, 5 pixels), batch norm and ReLU on {fields} regular "
    "fields of C8, eight channels each; each block first masks its input to the disc. Blocks 2, 4 and 6 are followed "
    "by a Gaussian blur, of stride 2 after blocks 2 and 4 (25 → 13 → 7 pixels), over all that is left after block 6. "
    "Then the maximum over the turns of each field, and two linear layers. The filters are written out in the file. "
    "Every size is odd and every stride is centred: at a quarter turn the blocks are equivariant to rounding; at odd "
    "multiples of 45 degrees, as far as the grid allows."
)
OUTPUTS = (
    "`scores` `(batch, 9)`, class probabilities; `block1` to `block6`, the maps at the end of each block, with the "
    "channel action of their fields declared; `latent` `(batch, 32)`, what the last linear layer sees. Each is named "
    "after the module that gives it."
)


def train(net: torch.nn.Module, data: Digits, recipe: Recipe) -> None:
    """Train `net` in place on the batches that every network meets."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    net.train()
    for step, (images, labels) in enumerate(batches(data, recipe)):
        for group in optimiser.param_groups:
            group["lr"] = one_cycle(step, recipe)
        loss = F.cross_entropy(net.logits(torch.from_numpy(images)), torch.from_numpy(labels), label_smoothing=0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1:5d} of {recipe.steps}   loss {loss.item():.4f}", file=sys.stderr, flush=True)


def judged(net: torch.nn.Module, data: Digits) -> Accuracy:
    """Return the accuracy on upright images, and its mean over the eight turns by multiples of 45 degrees."""
    net.eval()

    @torch.no_grad()
    def predict(x: np.ndarray) -> np.ndarray:
        return net(torch.from_numpy(x)).numpy()

    return accuracy(predict, data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "shipped", help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1, help="fixed, since sums depend on it in their last bits")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.use_deterministic_algorithms(True)
    asked.out.mkdir(parents=True, exist_ok=True)

    recipe = Recipe(asked.seed, asked.steps)
    training, test = digits(recipe.seed)
    loaded = load(f"escnn:{PLAN}")
    torch.manual_seed(recipe.seed)
    net = C8CNN(PLANS[PLAN])
    train(net, training, recipe)
    upright, over_turns = judged(net, test)
    if min(upright, over_turns) <= ENOUGH:
        sys.exit(f"accuracy {upright:.1%} upright, {over_turns:.1%} rotated; over {ENOUGH:.0%} is wanted: more --steps")

    weights = {
        "seed": recipe.seed,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "rotations": "uniform over the circle",
        "images": len(training.rows),
        "upright": round(upright, 4),
        "rotated": round(over_turns, 4),
    }
    export = export_escnn(replace(loaded, model=net, weights=weights), taps=TAPS, opset=OPSET)
    images, _ = test.batch()
    path = asked.out / f"{NAME}.onnx"
    written = write(
        replace(export, probe=lambda batch: rotated(images[:batch], np.linspace(0, 1, batch))),
        path,
        tolerance=TOLERANCE,
    )
    size = path.stat().st_size
    if size >= LARGEST:
        path.unlink()
        sys.exit(f"{path} has {size:,} bytes; under {LARGEST:,} is wanted: fewer fields")
    assert written.agreement is not None
    fields = [getattr(net, f"block{i}").out_type for i in range(1, 7)]
    facts = Facts(
        path=path,
        title="A small C8-steerable classifier of handwritten digits 0 to 8: equivariant to turns by 45 degrees by"
        " construction",
        framework="escnn",
        exporter="`geed_exporters.escnn` (escnn's `export()`, `torch.onnx.export(dynamo=True)`)",
        opset=OPSET,
        export_notes="batch norm folded into the convolutions",
        outputs=OUTPUTS,
        architecture=ARCHITECTURE.format(fields=", ".join(str(len(f)) for f in fields)),
        training=training_paragraph(recipe, len(training.rows), loss="label smoothing 0.02"),
        upright=upright,
        rotated=over_turns,
        test_images=len(test.rows),
        parameters=sum(p.numel() for p in net.parameters() if p.requires_grad),
        seed=recipe.seed,
        difference=written.agreement.difference,
        difference_is="relative",
        versions=versions("torch", "escnn"),
        rows={"fields of C8": ", ".join(str(len(f)) for f in fields)},
    )
    path.with_suffix(".md").write_text(model_card(facts), encoding="utf-8")
    print(
        f"{path}: upright {upright:.2%}, rotated {over_turns:.2%}, {size:,} bytes, {written.agreement.difference:.1e}"
    )


if __name__ == "__main__":
    main()
