"""Makes `models/shipped/digits-cnn-int8.onnx`: the PyTorch network in 8-bit integers, as it would run on a device.

    pip install "geed-onnx[train]"
    python models/quantise.py --out models/shipped

Static quantisation by ONNX Runtime in QDQ form: weights in 8 bits with a scale a channel, activations in 8 bits with
ranges seen on training images turned at random. Blocks, latent vector and scores stay outputs, so that the two files
can be measured side by side. The same versions give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cards
import numpy as np
import onnx
import onnxruntime
from digits import ENOUGH, Array, Digits, Floats, Recipe, accuracy, batches, digits
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from geed_exporters import Export, InputSpec, Source, TapEntry, write

CALIBRATION = Recipe(seed=0, steps=16, batch=64)  # 1024 turned training images
LARGEST_DIFFERENCE = 0.15  # of any tap, over its largest value; rounding alone moves a map by a few percent
LARGEST_LOSS = 0.01  # of accuracy


class Turned(CalibrationDataReader):  # type: ignore[misc]
    """Training images turned at random, batch by batch, as the calibration asks for them."""

    def __init__(self, name: str, training: Digits) -> None:
        self.feeds: Iterator[dict[str, Floats]] = ({name: x} for x, _ in batches(training, CALIBRATION))

    def get_next(self) -> dict[str, Floats] | None:
        """Return the next feed, or None at the end."""
        return next(self.feeds, None)


def quantised(path: Path, name: str, training: Digits) -> onnx.ModelProto:
    """Return the network of a file in QDQ form."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "int8.onnx"
        quantize_static(
            str(path),
            str(draft),
            Turned(name, training),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # probabilities rounded to 1/255 no longer sum to 1, and would be taken for logits
            nodes_to_exclude=[node.name for node in onnx.load(str(path)).graph.node if node.op_type == "Softmax"],
        )
        return onnx.load(str(draft))


def declared(model: onnx.ModelProto, key: str) -> Any:
    """Return the JSON value of one `geed.*` property."""
    return json.loads(next(p.value for p in model.metadata_props if p.key == key))


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a session as a device would run it: optimised, on the CPU."""
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def main() -> None:
    shipped = Path(__file__).parent / "shipped"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=shipped / "digits-cnn.onnx", help="file to quantise")
    parser.add_argument("--out", type=Path, default=shipped, help="folder to write into")
    asked = parser.parse_args()
    # ONNX Runtime advises to fold and infer shapes first: the exporter has done both
    logging.getLogger().setLevel(logging.ERROR)

    original = onnx.load(str(asked.model))
    name = original.graph.input[0].name
    stated = declared(original, "geed.input")
    taps = tuple(
        TapEntry(t["name"], t["kind"], t["layout"], t["module"], t.get("role")) for t in declared(original, "geed.taps")
    )
    scores = next(tap.name for tap in taps if tap.kind == "probability")
    training, test = digits(CALIBRATION.seed)
    model = quantised(asked.model, name, training)
    before, after = session(original), session(model)

    def predict(run: onnxruntime.InferenceSession, x: Floats) -> Array:
        return np.asarray(run.run([scores], {name: x})[0])

    old, new = (accuracy(partial(predict, run), test) for run in (before, after))
    if min(new) <= ENOUGH or max(old.upright - new.upright, old.rotated - new.rotated) > LARGEST_LOSS:
        sys.exit(
            f"accuracy {new.upright:.1%} upright, {new.rotated:.1%} rotated, from {old.upright:.1%}: too much lost"
        )

    names = [tap.name for tap in taps]
    digest = cards.sha256(asked.model)
    weights = {
        "quantised_from": {"file": asked.model.name, "sha256": digest},
        "form": "QDQ: int8 weights with a scale a channel, int8 activations, softmax in float32",
        "calibration": {"images": CALIBRATION.steps * CALIBRATION.batch, "rotations": "uniform over the circle"},
        "upright": round(new.upright, 4),
        "rotated": round(new.rotated, 4),
    }
    export = Export(
        model=model,
        input=InputSpec(
            name,
            tuple(d.dim_value for d in original.graph.input[0].type.tensor_type.shape.dim[1:]),
            layout=stated["layout"],
            colour=stated["colour"],
            range=tuple(stated["range"]),
            mean=tuple(stated["mean"]),
            std=tuple(stated["std"]),
        ),
        taps=taps,
        source=Source("onnxruntime.quantization", onnxruntime.__version__, asked.model.name, weights),
        reference=lambda x: dict(zip(names, before.run(names, {name: x}), strict=True)),
        probe=lambda batch: next(batches(test, Recipe(seed=batch, steps=1, batch=batch)))[0],
    )
    path = asked.out / "digits-cnn-int8.onnx"
    written = write(export, path, tolerance=LARGEST_DIFFERENCE)
    assert written.agreement is not None

    x = test.batch()[0]
    gap = float(np.abs(predict(before, x) - predict(after, x)).max())
    facts = cards.Facts(
        path=path,
        title=f"A six-block convolutional classifier of handwritten digits 0 to 8, in 8-bit integers: "
        f"`{asked.model.name}` quantised",
        framework="PyTorch, quantised by ONNX Runtime",
        exporter="`onnxruntime.quantization.quantize_static`, QDQ form",
        opset=model.opset_import[0].version,
        outputs=f"{cards.CNN_OUTPUTS} Maps and latent hold the values that went through 8 bits, as float32.",
        architecture=cards.CNN_ARCHITECTURE,
        training=f"None here: the weights of `{asked.model.name}` rounded to 8 bits with a scale a channel. The ranges "
        "of the activations are the smallest and largest values seen on "
        f"{CALIBRATION.steps * CALIBRATION.batch} training images turned at random. The softmax stays in float32.",
        upright=new.upright,
        rotated=new.rotated,
        test_images=len(test.rows),
        parameters=parameters(original),
        seed=CALIBRATION.seed,
        difference=written.agreement.difference,
        agreement=f"It is not meant to equal the float network: on the upright test images scores differ by at most "
        f"{gap:.3f}, and on a few turned ones the worst tap, `{written.agreement.tap}`, by "
        f"{written.agreement.difference:.1%} of its largest value.",
        rows={
            "the same, before": f"{old.upright:.4f} upright, {old.rotated:.4f} rotated, in float32",
            "largest difference of scores": f"{gap:.4f}, over the upright test images",
            "quantised from": f"`{asked.model.name}`, sha256 `{digest}`",
        },
        versions=cards.versions(),
    )
    path.with_suffix(".md").write_text(cards.model_card(facts), encoding="utf-8")
    print(f"{path}: upright {new.upright:.2%}, rotated {new.rotated:.2%}; scores differ by at most {gap:.3f}")


def parameters(model: onnx.ModelProto) -> int:
    """Return how many floating-point weights a network has."""
    floats = [w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT]
    return sum(int(np.prod(w.dims)) for w in floats)


if __name__ == "__main__":
    main()
