"""`geed-onnx compare`."""
