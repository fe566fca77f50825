"""scikit-learn: a fitted pipeline in, one ONNX tensor a step and a hidden layer out.

    geed-export sklearn digits.skops --size 8x8 -o digits.onnx

A model on flattened pixels gets an image input, flattened inside the file, so that it can be measured under rotation.
"""

from geed_exporters.sklearn.exporting import candidates, export_sklearn, image_input
from geed_exporters.sklearn.loading import Loaded, load

__all__ = ["Loaded", "candidates", "export_sklearn", "image_input", "load"]
