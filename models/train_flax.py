"""Makes `models/shipped/digits-cnn-flax.onnx`, the six-block digits CNN written in Flax (nnx), and its card.

    pip install "geed-onnx[jax,train]"
    python models/train_flax.py --out models/shipped

The network, the data, the batches and the recipe are those of `train_pytorch.py`; Flax's own initial weights are drawn.
It is exported in Flax's layout, NHWC, with its blocks, latent vector and class scores as named outputs. The same
machine and versions give the same bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

# one device computes the same sums everywhere, and no GPU memory is taken for a network this small
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from cards import CNN_ARCHITECTURE, CNN_OUTPUTS, Facts, model_card, training_paragraph, versions
from digits import CLASSES, ENOUGH, SIZE, Accuracy, Array, Digits, Floats, Recipe, accuracy, batches, digits, one_cycle
from digits import rotated as turned
from flax import nnx

from geed_exporters import write
from geed_exporters.jax import export_jax, prepared

WIDTHS = (16, 16, 32, 32, 64, 64)
SMOOTHING = 0.02
TAPS = ("block?", "latent", "scores")
OPSET = 20
TOLERANCE = 1e-5  # ONNX Runtime against Flax, relative to a tap's largest value
#: What an image is before it meets the network: grey, 0 is background and 1 is ink.
INPUT = {"size": (SIZE, SIZE), "channels": 1, "colour": "grey", "range": (0.0, 1.0), "mean": (0.0,), "std": (1.0,)}


# ------------------------------------------------------------------------------------------------------- the network


class Block(nnx.Module):
    """3x3 convolution, batch norm, ReLU and, where a padding is given, 3x3 average pooling of stride 2."""

    def __init__(self, inputs: int, outputs: int, pool_padding: int | None = None, *, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(inputs, outputs, (3, 3), padding=1, rngs=rngs)
        # what PyTorch calls momentum 0.1
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.pool_padding = pool_padding

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(B, H', W', outputs)` for `(B, H, W, inputs)`."""
        x = nnx.relu(self.norm(self.conv(x)))
        if self.pool_padding is None:
            return x
        side = (self.pool_padding, self.pool_padding)
        # zeros of the padding count in the mean, as in PyTorch's AvgPool2d(3, 2, padding)
        return nnx.avg_pool(x, window_shape=(3, 3), strides=(2, 2), padding=(side, side), count_include_pad=True)


class PixelMean(nnx.Module):
    """The mean over pixels."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(B, C)` for `(B, H, W, C)`."""
        return x.mean((1, 2))


class Softmax(nnx.Module):
    """Class probabilities."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(B, N)` for logits `(B, N)`."""
        return nnx.softmax(x)


class DigitsCNN(nnx.Module):
    """Six blocks (29, 15, 15, 7, 7, 7 pixels wide), the mean over pixels as latent vector, a linear classifier."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        a, b, c, d, e, f = WIDTHS
        self.block1 = Block(1, a, rngs=rngs)
        self.block2 = Block(a, b, pool_padding=1, rngs=rngs)  # 29 -> 15
        self.block3 = Block(b, c, rngs=rngs)
        self.block4 = Block(c, d, pool_padding=0, rngs=rngs)  # 15 -> 7
        self.block5 = Block(d, e, rngs=rngs)
        self.block6 = Block(e, f, rngs=rngs)
        self.latent = PixelMean()
        self.classifier = nnx.Linear(f, CLASSES, rngs=rngs)
        self.scores = Softmax()

    def logits(self, x: jax.Array) -> jax.Array:
        """Return logits `(B, 9)` of images `(B, 29, 29, 1)` in 0..1."""
        for block in (self.block1, self.block2, self.block3, self.block4, self.block5, self.block6):
            x = block(x)
        return self.classifier(self.latent(x))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return class probabilities `(B, 9)` of images `(B, 29, 29, 1)` in 0..1."""
        return self.scores(self.logits(x))


def nhwc(images: Floats) -> Floats:
    """Return `(B, 29, 29, 1)` for the `(B, 1, 29, 29)` of `digits`."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


# ------------------------------------------------------------------------------------------------------ the training


def train(net: DigitsCNN, training: Digits, recipe: Recipe) -> None:
    """Train `net` in place on images turned by angles drawn anew at every step."""
    rates = jnp.asarray([one_cycle(step, recipe) for step in range(recipe.steps)], jnp.float32)
    optimiser = nnx.Optimizer(
        net, optax.adamw(lambda step: rates[step], weight_decay=recipe.weight_decay), wrt=nnx.Param
    )
    net.train()

    @nnx.jit
    def learn(net: DigitsCNN, optimiser: nnx.Optimizer, x: jax.Array, labels: jax.Array) -> jax.Array:
        def loss_of(net: DigitsCNN) -> jax.Array:
            wanted = optax.smooth_labels(jax.nn.one_hot(labels, CLASSES), SMOOTHING)
            return optax.softmax_cross_entropy(net.logits(x), wanted).mean()

        loss, gradient = nnx.value_and_grad(loss_of)(net)
        optimiser.update(net, gradient)
        return loss

    for step, (images, labels) in enumerate(batches(training, recipe), start=1):
        loss = learn(net, optimiser, jnp.asarray(nhwc(images)), jnp.asarray(labels.astype(np.int32)))
        if step % 250 == 0:
            print(f"step {step:5d} of {recipe.steps}   loss {float(loss):.4f}", file=sys.stderr)


def judged(net: DigitsCNN, data: Digits) -> Accuracy:
    """Return the accuracy on upright images, and its mean over the eight turns by multiples of 45 degrees."""
    net.eval()

    def predict(images: Floats) -> Array:
        return np.asarray(net(jnp.asarray(nhwc(images))))

    return accuracy(predict, data)


# -------------------------------------------------------------------------------------------------------- the export


def exported(net: DigitsCNN, path: Path, weights: dict[str, object], data: Digits) -> float:
    """Write the network with its taps, verified on turned digits; return the largest relative difference."""
    loaded = prepared((net, INPUT), name="DigitsCNN", weights=weights)
    export = export_jax(loaded, taps=TAPS, opset=OPSET)
    images, _ = data.batch()
    probe = replace(export, probe=lambda batch: nhwc(turned(images[:batch], np.linspace(0, 1, batch))))
    written = write(probe, path, tolerance=TOLERANCE)
    assert written.agreement is not None
    return written.agreement.difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "shipped", help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)

    recipe = Recipe(asked.seed, asked.steps)
    training, test = digits(recipe.seed)
    net = DigitsCNN(rngs=nnx.Rngs(recipe.seed))
    train(net, training, recipe)
    upright, over_turns = judgement = judged(net, test)
    if min(judgement) <= ENOUGH:
        sys.exit(f"accuracy {upright:.1%} upright, {over_turns:.1%} rotated; over {ENOUGH:.0%} is wanted: more --steps")
    weights = {
        "seed": recipe.seed,
        "steps": recipe.steps,
        "upright": round(upright, 4),
        "rotated": round(over_turns, 4),
        "batch": recipe.batch,
        "rotations": "uniform over the circle",
        "images": len(training.rows),
    }
    path = asked.out / "digits-cnn-flax.onnx"
    difference = exported(net, path, weights, test)
    facts = Facts(
        path=path,
        title="A six-block convolutional classifier of handwritten digits 0 to 8, written in Flax: trained on digits"
        " turned by any angle",
        framework="Flax",
        exporter="`geed_exporters.jax` (jax2onnx)",
        opset=OPSET,
        outputs=CNN_OUTPUTS.replace("at the end of each block", "at the end of each block, `(batch, H, W, C)`"),
        architecture=CNN_ARCHITECTURE,
        training=training_paragraph(recipe, len(training.rows), loss=f"label smoothing {SMOOTHING:g}"),
        upright=upright,
        rotated=over_turns,
        test_images=len(test.rows),
        parameters=sum(int(a.size) for a in jax.tree.leaves(nnx.state(net, nnx.Param))),
        seed=recipe.seed,
        difference=difference,
        difference_is="relative",
        versions=versions("jax", "flax", "optax", "jax2onnx"),
        input="`image`, float32 `(batch, 29, 29, 1)`: grey, 0 is background and 1 is ink, no further normalisation.",
    )
    path.with_suffix(".md").write_text(model_card(facts), encoding="utf-8")
    print(f"{path}: upright {upright:.2%}, rotated {over_turns:.2%}, differs by {difference:.1e}")


if __name__ == "__main__":
    main()
