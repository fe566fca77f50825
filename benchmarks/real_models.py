"""Measure every file of a folder of ONNX models with no flag but the data and the group, and print the table.

    python benchmarks/real_models.py ../shared [--samples 20] [--only NAME]

`../shared` holds `models-real/*.onnx` and `data/` (see its MANIFEST files). Each model is given images of the fitting
size and channel count: MNIST, CIFAR-10 or ImageNet samples as arrays in the model's own preprocessing where it is
published, the folder of photographs for other sizes, noise where nothing fits. The group is C4 on square inputs, `flip`
on rectangles. A row shows what `geed-onnx measure FILE --data … --group …` says, or its one line of error.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from geed_onnx.errors import GeedError
from geed_onnx.taps import Graph, Port, image_input, read_graph

#: What the publishers of the files say of their inputs (MANIFEST): (scale, mean, std) on 0..255 pixels, BGR or not.
PUBLISHED: dict[str, tuple[float, tuple[float, ...], tuple[float, ...], bool]] = {
    "mnist_convbn_pytorch2": (1 / 255, (0.1307,), (0.3081,), False),
    "cifar10_cnn_winml_pytorch1.7": (1 / 255, (0.5,), (0.5,), False),
    "imagenet_squeezenet1.x_fp16": (1.0, (104.0, 117.0, 123.0), (1.0,), True),
    "cifar_resnet20_dynamo": (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False),
    "cifar_resnet20_torchscript": (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False),
    "mlperftiny_resnet8_cifar10_tf2onnx": (1.0, (0.0,), (1.0,), False),
    "mlperftiny_resnet8_int8qdq_tf2onnx": (1.0, (128.0,), (1.0,), False),
}


def mnist(shared: Path, n: int) -> np.ndarray:
    raw = gzip.decompress((shared / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28, 1)[:n]


def cifar(shared: Path, n: int) -> np.ndarray:
    pixels = np.asarray(Image.open(shared / "data/cifar10/cifar10_batch_50.png").convert("RGB"))
    return pixels.reshape(-1, 32, 32, 3)[:n]


def photographs(shared: Path, n: int) -> np.ndarray:
    files = sorted((shared / "data/imagenet-samples").rglob("*.jp*g")) + sorted(
        (shared / "data/imagenet-samples").rglob("*.png")
    )
    return np.stack([np.asarray(Image.open(f).convert("RGB").resize((224, 224))) for f in files[:n]])


def fitting(shared: Path, graph: Graph, port: Port, folder: Path, n: int) -> tuple[str, str]:
    """Return (data address, what it is) for a model's input."""
    nhwc = port.layout == "NHWC"
    sizes = [d if isinstance(d, int) else None for d in port.shape[1:]]
    height, width, channels = sizes if nhwc else (*sizes[1:], sizes[0])
    loader = {(28, 28, 1): mnist, (32, 32, 3): cifar, (224, 224, 3): photographs}.get((height, width, channels))
    if loader is not None:
        scale, mean, std, bgr = PUBLISHED.get(graph.path.stem, (1 / 255, (0.0,), (1.0,), False))
        x = loader(shared, n).astype(np.float32)
        x = x[..., ::-1] if bgr else x
        x = (x * scale - np.array(mean)) / np.array(std)
        x = x if nhwc else np.moveaxis(x, -1, 1)
        path = folder / f"{graph.path.stem}.npy"
        np.save(path, np.ascontiguousarray(x).astype(port.dtype))
        return str(path), loader.__name__
    if channels in (1, 3) and port.dtype == "float32" and min(height or 99, width or 99) > 20 and height and width:
        return str(shared / "data/imagenet-samples"), "photographs, resized"
    shape = [d or {0: 3}.get(i, 192 if i == 2 else 48) for i, d in enumerate(sizes)]
    x = np.random.default_rng(0).random((n, *shape))
    path = folder / f"{graph.path.stem}.npy"
    np.save(path, x.astype(port.dtype))
    return str(path), "noise"


def group_of(port: Port, data: str) -> str:
    if data.endswith(".npy"):
        shape = np.load(data, mmap_mode="r").shape[1:]
    else:
        shape = tuple(port.shape[1:])
    height, width = shape[:2] if port.layout == "NHWC" else shape[1:]
    return "C4" if height == width else "flip"


def row(shared: Path, path: Path, folder: Path, samples: int) -> tuple[list[str], int]:
    graph = read_graph(path)
    try:
        port = image_input(graph)
        if len(port.shape) != 4:
            raise GeedError(f"the input {port.name!r} is {list(port.shape)}, no images")
        data, what = fitting(shared, graph, port, folder, samples)
        group = group_of(port, data)
    except GeedError:
        data, what, group = str(shared / "data/imagenet-samples"), "photographs", "C4"
    command = [sys.executable, "-m", "geed_onnx", "measure", str(path), "--data", data, "--group", group, "--json"]
    if what.startswith("photographs,"):
        command += ["--samples", str(samples)]
    elif data.endswith(".npy"):
        command += ["--samples", "all"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:
        return [path.stem, what, group, done.stderr.strip().splitlines()[-1], "", "", f"{seconds:.1f}"], done.returncode

    def shown(r: dict) -> str:
        value = "none" if r["value"] is None else f"{r['value']:.3f}"
        return value + ("" if r["calibrated"] is None else f" ({r['calibrated']:.2f})")

    maps = [r for r in lines if r["variant"] == "channelwise"]
    latent = [r for r in lines if r["variant"] == "latent-l2"]
    soft = [r for r in lines if r["variant"] == "softmax"]
    return [
        path.stem,
        what,
        group,
        f"{len(maps)} maps, last {shown(maps[-1])}" if maps else "no map",
        shown(latent[-1]) if latent else "–",
        shown(soft[-1]) if soft else "–",
        f"{seconds:.1f}",
    ], 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    print(
        "| model | data | group | channelwise (calibrated) | latent ℓ2 | softmax | s |\n|---|---|---|---|---|---|---|"
    )
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((args.shared / "models-real").glob("*.onnx")):
            if args.only in path.stem:
                cells, code = row(args.shared, path, Path(folder), args.samples)
                failed += code != 0
                print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\n{failed} answered by an error line")


if __name__ == "__main__":
    main()
