"""The door: `geed-onnx`, thin over the library. stdout is data, stderr is talk.

Exit codes: 0 ok, 1 error with one clear line, 2 usage, 3 a threshold was crossed, 4 some cells failed.
"""

from geed_onnx.cli.main import main

__all__ = ["main"]
