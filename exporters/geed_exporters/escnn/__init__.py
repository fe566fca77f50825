"""escnn: `load` a steerable network by name, look at its `candidates`, `export_escnn` it with actions declared."""

from geed_exporters.escnn.conversion import candidates, export_escnn
from geed_exporters.escnn.loading import described, load, load_steerable
from geed_exporters.loaded import Loaded

__all__ = ["Loaded", "candidates", "described", "export_escnn", "load", "load_steerable"]
