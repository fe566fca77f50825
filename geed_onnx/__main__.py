"""`python -m geed_onnx`."""

from geed_onnx.cli import main

main()
