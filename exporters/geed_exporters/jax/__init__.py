"""JAX models, written in Flax: nnx modules and linen modules with their variables.

`load("net.py:build")` runs a factory, `prepared(model_or_tuple, name=…)` takes what is already made, `export_jax` turns
it into an `Export`; the command is `geed-export jax net.py:build -o net.onnx`.
"""

from geed_exporters.jax.exporting import candidates, export_jax
from geed_exporters.jax.loading import load, prepared
from geed_exporters.loaded import Loaded

__all__ = ["Loaded", "candidates", "export_jax", "load", "prepared"]
