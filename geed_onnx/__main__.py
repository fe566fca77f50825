"""The command `geed-onnx`, and `python -m geed_onnx`: signals are answered before anything else is imported."""

from geed_onnx.ending import answer_signals, ignore_signals


def main() -> None:
    """Run the command line."""
    answer_signals()
    try:
        from geed_onnx.cli import main as door

        door()
    finally:
        ignore_signals()


if __name__ == "__main__":
    main()
