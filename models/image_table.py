"""Images as a Parquet file with an id, a PNG and a label a row, which `datasets` and geed-onnx read."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def write_table(path: Path, names: Sequence[str], pixels: npt.NDArray[np.uint8], labels: npt.NDArray[Any]) -> None:
    """Write images `(N, H, W)` or `(N, H, W, 3)`, their ids and their labels `(N,)`."""

    def png(one: npt.NDArray[np.uint8]) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(one).save(buffer, format="PNG", optimize=True)
        return buffer.getvalue()

    images = [{"bytes": png(one), "path": f"{name}.png"} for name, one in zip(names, pixels, strict=True)]
    features = {
        "id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "label": {"dtype": "int64", "_type": "Value"},
    }
    schema = pa.schema(
        {"id": pa.string(), "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    pq.write_table(pa.table({"id": list(names), "image": images, "label": labels}, schema=schema), path)
