"""Where things are: the data sets, and the folder that an experiment writes into."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

SHARED = Path("../shared")
WORK = Path("runs/paper")
FAST = Path("runs/paper-fast")


def parser(text: str) -> argparse.ArgumentParser:
    """Return the options that every script here has; `text` is the script's docstring."""
    asked = argparse.ArgumentParser(description=text.splitlines()[0])
    asked.add_argument("--shared", type=Path, default=SHARED, help=f"folder that holds data/ [{SHARED}]")
    asked.add_argument("--fast", action="store_true", help="the small form: three seeds, 500 iterations")
    asked.add_argument("--work", type=Path, help=f"folder for models, images and results [{WORK}; --fast: {FAST}]")
    return asked


def shared_folder(asked: argparse.Namespace) -> Path:
    """Return the folder of data sets, or end the program in words."""
    folder: Path = asked.shared
    if not (folder / "data").is_dir():
        sys.exit(f"{folder / 'data'} is not there: the data sets are read from it; name the folder above it: --shared")
    return folder


def work_folder(asked: argparse.Namespace) -> Path:
    """Return the folder that is written into."""
    return asked.work or (FAST if asked.fast else WORK)
