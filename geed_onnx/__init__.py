"""geed-onnx: how invariant, how equivariant is a trained network?"""
