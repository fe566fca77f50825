"""Put the demo's table into README.md, between its markers: `python docs/update_readme.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- demo:start -->", "<!-- demo:end -->"


def main() -> None:
    command = [sys.executable, "-m", "geed_onnx", "demo"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    table = "\n".join(line.rstrip() for line in printed.split("\nHow to read it")[0].splitlines())
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(START)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{START}\n\n```text\n{table.rstrip()}\n```\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
