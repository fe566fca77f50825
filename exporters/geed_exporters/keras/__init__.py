"""Keras 3 on TensorFlow: functional, Sequential, subclassed and nested models, every layer's output under its path."""

from __future__ import annotations

from geed_exporters.keras.exporting import candidates, export_keras
from geed_exporters.keras.loading import described, load
from geed_exporters.loaded import Loaded

__all__ = ["Loaded", "candidates", "described", "export_keras", "load"]
