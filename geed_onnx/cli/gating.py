"""`geed-onnx gate`."""
