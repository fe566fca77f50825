"""`geed-onnx run`."""
