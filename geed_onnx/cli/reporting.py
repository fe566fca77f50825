"""`geed-onnx report`."""
