"""PyTorch: `load` a model by name, look at its `candidates`, `export_pytorch` it with named taps."""

from geed_exporters.loaded import Loaded
from geed_exporters.pytorch.checkpoints import load_state
from geed_exporters.pytorch.conversion import candidates, export_pytorch
from geed_exporters.pytorch.loading import from_factory, load

__all__ = ["Loaded", "candidates", "export_pytorch", "from_factory", "load", "load_state"]
