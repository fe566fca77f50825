"""Makes the Keras networks in `models/shipped`, and their cards.

    pip install "geed-onnx[keras,train]"
    python models/train_keras.py --out models/shipped
    python models/train_keras.py --out models/shipped --copy models/shipped/digits-cnn.safetensors

The first line trains the six-block CNN in Keras by the recipe that the PyTorch network was trained by: the same images,
optimiser and number of steps, Keras' own initial weights. The second trains nothing: it puts PyTorch's trained weights
into the Keras network, which must then give the same values. The same machine and versions give the same
weights; the bytes may differ, since the converter numbers its tensors anew each time.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf  # noqa: TID251 (the ban is the library's; this script trains)
from cards import CNN_ARCHITECTURE, CNN_OUTPUTS, Facts, model_card, sha256, training_paragraph, versions
from digits import ENOUGH, Accuracy, Digits, Floats, Recipe, accuracy, batches, digits, one_cycle, rotated
from digits_cnn_keras import INPUT, SIZE, copy_weights, network
from safetensors.numpy import load_file

from geed_exporters import InputSpec, write
from geed_exporters.keras import Loaded, export_keras

TAPS = ("block?", "latent", "scores")
OPSET = 18
TOLERANCE = 1e-5  # ONNX Runtime against Keras, relative to a tap's largest value


def train(net: Any, data: Digits, recipe: Recipe) -> None:
    """Train `net` in place on images turned by angles drawn anew at every step."""
    logits = keras.Model(net.input, net.get_layer("classifier").output)
    optimiser = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay, epsilon=1e-8)
    optimiser.build(net.trainable_variables)
    measure = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.02)

    @tf.function(autograph=False)
    def step(x: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = measure(targets, logits(x, training=True))
        optimiser.apply(tape.gradient(loss, net.trainable_variables), net.trainable_variables)
        return loss

    classes = np.eye(net.output_shape[-1], dtype=np.float32)
    for number, (x, labels) in enumerate(batches(data, recipe)):
        optimiser.learning_rate.assign(one_cycle(number, recipe))
        loss = step(tf.constant(channels_last(x)), tf.constant(classes[labels]))
        if (number + 1) % 250 == 0:
            print(f"step {number + 1:5d} of {recipe.steps}   loss {float(loss):.4f}", file=sys.stderr)


def channels_last(x: Floats) -> Floats:
    """Return `(B, H, W, C)` for `(B, C, H, W)`."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def judged(net: Any, data: Digits) -> Accuracy:
    """Return the accuracy on upright images, and its mean over the eight turns by multiples of 45 degrees."""
    return accuracy(lambda x: np.asarray(net(channels_last(x), training=False)), data)


def exported(net: Any, path: Path, weights: Mapping[str, Any], data: Digits) -> float:
    """Write the network with its taps, verified on turned digits; return the largest relative difference."""
    spec = InputSpec(name="image", shape=(SIZE, SIZE, 1), layout="NHWC", **INPUT)
    export = export_keras(Loaded(net, spec, dict(weights), "digits_cnn"), taps=TAPS, opset=OPSET)
    images, _ = data.batch()
    probe = replace(export, probe=lambda n: channels_last(rotated(images[:n], np.linspace(0, 1, n))))
    written = write(probe, path, tolerance=TOLERANCE)
    assert written.agreement is not None
    return written.agreement.difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "shipped", help="folder to write into")
    parser.add_argument("--copy", type=Path, metavar="FILE", help="PyTorch's weights (safetensors); nothing is trained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2, help="fixed, since sums depend on it in their last bits")
    asked = parser.parse_args()
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(asked.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(asked.seed)
    asked.out.mkdir(parents=True, exist_ok=True)

    recipe = Recipe(asked.seed, asked.steps)
    training, test = digits(recipe.seed)
    net = network()
    if asked.copy:
        copy_weights(net, load_file(asked.copy))
    else:
        train(net, training, recipe)
    judgement = judged(net, test)
    if min(judgement) <= ENOUGH:
        sys.exit(
            f"accuracy {judgement.upright:.1%} upright, {judgement.rotated:.1%} rotated; over {ENOUGH:.0%} is wanted"
        )
    said: dict[str, Any] = {"upright": round(judgement.upright, 4), "rotated": round(judgement.rotated, 4)}
    if asked.copy:
        path = asked.out / "digits-cnn-keras-copied.onnx"
        said |= {"file": asked.copy.name, "sha256": sha256(asked.copy)}
        title = "the weights that PyTorch has trained (`digits-cnn.onnx`), in Keras"
        how = (
            f"None here: the weights are those of `{asked.copy.name}`, which `train_pytorch.py` trained, with their "
            "axes in Keras' order. Every value that `geed-onnx` measures must be that of `digits-cnn.onnx`."
        )
    else:
        path = asked.out / "digits-cnn-keras.onnx"
        said |= {"seed": recipe.seed, "steps": recipe.steps, "batch": recipe.batch}
        said |= {"rotations": "uniform over the circle", "images": len(training.rows)}
        title = "trained in Keras on digits turned by any angle"
        how = training_paragraph(recipe, len(training.rows), loss="label smoothing 0.02, Keras' own initial weights")
    difference = exported(net, path, said, test)
    facts = Facts(
        path=path,
        title=f"A six-block convolutional classifier of handwritten digits 0 to 8: {title}",
        framework="Keras",
        exporter="`geed_exporters.keras` (tf2onnx)",
        opset=OPSET,
        outputs=f"{CNN_OUTPUTS} Maps are channels last, as in Keras.",
        architecture=CNN_ARCHITECTURE,
        training=how,
        upright=judgement.upright,
        rotated=judgement.rotated,
        test_images=len(test.rows),
        parameters=sum(int(np.prod(v.shape)) for v in net.trainable_variables),
        seed=recipe.seed,
        difference=difference,
        difference_is="relative",
        versions=versions("keras", "tensorflow", "tf2onnx"),
        input="`image`, float32 `(batch, 29, 29, 1)`: grey, 0 is background and 1 is ink, no further normalisation.",
    )
    path.with_suffix(".md").write_text(model_card(facts), encoding="utf-8")
    print(f"{path}: upright {judgement.upright:.2%}, rotated {judgement.rotated:.2%}, differs by {difference:.1e}")


if __name__ == "__main__":
    main()
