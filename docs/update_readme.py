"""Put the demo's tables into README.md, between their markers: `python docs/update_readme.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DETAILED, SIDE_BY_SIDE = "demo", "demo-side-by-side"


def main() -> None:
    command = [sys.executable, "-m", "geed_onnx", "demo"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    tables = printed.split("\nHow to read it")[0]
    detailed, beside = tables.split("\n\n", 1)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, table in ((DETAILED, detailed), (SIDE_BY_SIDE, beside)):
        text = replaced(text, name, "\n".join(line.rstrip() for line in table.strip().splitlines()))
    readme.write_text(text, encoding="utf-8")


def replaced(text: str, name: str, table: str) -> str:
    """Return the text with a table between the markers `<!-- name:start -->` and `<!-- name:end -->`."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, rest = text.split(start)
    return f"{before}{start}\n\n```text\n{table}\n```\n\n{end}{rest.split(end)[1]}"


if __name__ == "__main__":
    main()
