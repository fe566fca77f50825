"""Makes `models/shipped/digits-mlp.onnx`: a multi-layer perceptron of scikit-learn on the digits of the other networks.

    pip install "geed-onnx[sklearn,train]"
    python models/train_sklearn.py --out models/shipped

It sees the same images, turned at random, as the convolutional networks, but pixel by pixel: nothing in it knows that
a turned digit is the same digit, so whatever invariance it has it has learnt. The same machine and versions give the
same bytes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import cards
import numpy as np
from digits import CLASSES, SIZE, Array, Digits, Floats, Recipe, accuracy, batches, digits
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from geed_exporters import Facts, write
from geed_exporters.sklearn import export_sklearn

HIDDEN = (128, 64)
OPSET = 20
ENOUGH = 0.85  # accuracy, upright and rotated; a perceptron reaches less than a convolutional network
LARGEST = 1_000_000  # bytes


def trained(data: Digits, recipe: Recipe) -> Pipeline:
    """Return a fitted pipeline of one step, `mlp`, on flattened images `(B, 841)` in 0..1."""
    mlp = MLPClassifier(
        HIDDEN,
        activation="relu",
        alpha=recipe.weight_decay,
        batch_size=recipe.batch,
        learning_rate_init=recipe.learning_rate,
        shuffle=False,  # the batches are drawn at random already
        random_state=recipe.seed,
    )
    for step, (images, labels) in enumerate(batches(data, recipe), start=1):
        # all classes at the first step: a batch need not hold every digit
        mlp.partial_fit(flattened(images), labels, classes=np.arange(CLASSES) if step == 1 else None)
        if step % 1000 == 0:
            print(f"step {step:5d} of {recipe.steps}   loss {mlp.loss_:.4f}", file=sys.stderr)
    return Pipeline([("mlp", mlp)])


def flattened(images: Floats) -> Array:
    """Return `(B, 841)` of images `(B, 1, 29, 29)`."""
    return images.reshape(len(images), -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "shipped", help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6000)
    asked = parser.parse_args()

    recipe = Recipe(asked.seed, asked.steps, learning_rate=1e-3)
    training, test = digits(recipe.seed)
    with threadpool_limits(1):  # sums depend on the number of threads in their last bits
        model = trained(training, recipe)
        upright, turned = accuracy(lambda x: model.predict_proba(flattened(x)), test)
    if min(upright, turned) <= ENOUGH:
        sys.exit(f"accuracy {upright:.1%} upright, {turned:.1%} rotated; over {ENOUGH:.0%} is wanted: more --steps")

    path = asked.out / "digits-mlp.onnx"
    weights = asdict(recipe) | {"upright": round(upright, 4), "rotated": round(turned, 4)}
    weights |= {"rotations": "uniform over the circle", "images": len(training.rows)}
    image = Facts(size=(SIZE, SIZE), range=(0, 1))
    export = export_sklearn(model, image=image, opset=OPSET, name="MLPClassifier", weights=weights)
    written = write(export, path, tolerance=1e-5)
    assert written.agreement is not None
    if path.stat().st_size >= LARGEST:
        sys.exit(f"{path} has {path.stat().st_size} bytes; under {LARGEST} is wanted")

    mlp = model.named_steps["mlp"]
    facts = cards.Facts(
        path=path,
        title="A multi-layer perceptron that classifies handwritten digits 0 to 8, trained on digits turned by any "
        "angle",
        framework="scikit-learn",
        exporter="`geed-export sklearn` (skl2onnx, step by step)",
        opset=OPSET,
        outputs="`probabilities` `(batch, 9)`; `mlp.hidden_1` `(batch, 128)` and `mlp.hidden_2` `(batch, 64)`, the "
        "hidden layers after their ReLU, named after the pipeline's step. `mlp.hidden_2` is what the classifier sees.",
        architecture="The image is flattened to 841 pixels; two hidden layers of 128 and 64 units with ReLU, softmax: "
        "scikit-learn's `MLPClassifier`. No convolution, no pooling: neighbouring pixels are no more to it than "
        "distant ones.",
        training=f"Adam, a constant learning rate of {recipe.learning_rate:g}, {recipe.steps} steps of {recipe.batch} "
        f"images, L2 penalty {recipe.weight_decay:g}. Each image is turned by an angle drawn uniformly from the circle "
        f"(bilinear, zeros outside the frame), anew at every step. {len(training.rows)} training images; the last "
        "step's weights are shipped.",
        upright=upright,
        rotated=turned,
        test_images=len(test.rows),
        parameters=sum(w.size for w in (*mlp.coefs_, *mlp.intercepts_)),
        seed=recipe.seed,
        difference=written.agreement.difference,
        difference_is="relative",
        versions=cards.versions("skl2onnx"),
        limits="It reads fewer digits than the convolutional networks beside it, which see neighbourhoods: it is here "
        "as the network without any built-in notion of an image. " + cards.LIMITS,
    )
    path.with_suffix(".md").write_text(cards.model_card(facts), encoding="utf-8")
    print(f"{path}: upright {upright:.2%}, rotated {turned:.2%}, differs by {written.agreement.difference:.1e}")


if __name__ == "__main__":
    main()
