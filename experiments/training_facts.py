"""What the trainings say of themselves: seeds, recipes, versions and accuracies, kept beside the results."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KEPT = "trainings.jsonl"
SECTIONS = ("augmentation", "pretraining", "self_supervision")
PAPER_ACCURACY = 0.98
WORDS = {
    "accuracy": "test accuracy",
    "train_accuracy": "training accuracy",
    "knn": "k-NN accuracy",
    "spread": "spread of the latent space",
}


def collect(work: Path) -> None:
    """Copy what every finished training of a work folder says into the results of its section."""
    for section in SECTIONS:
        lines = facts_of(work, section)
        if lines:
            target = HERE / section / "results" / KEPT
            target.parent.mkdir(exist_ok=True)
            target.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def facts_of(work: Path, section: str) -> list[dict[str, Any]]:
    """Return a record for each finished training of a section: trial, recipe, versions, and what was judged last."""
    found = []
    for done in sorted((work / "models" / section).glob("*/done.json")):
        last = json.loads((done.parent / "history.jsonl").read_text().splitlines()[-1])
        facts = json.loads(done.read_text())
        found.append({"trial": f"{section}/{done.parent.name}", **facts, "last": last})
    return found


def read_facts(work: Path | None) -> str:
    """Return a paragraph: how many networks of each kind, their accuracies, and the versions that trained them.

    Raises
    ------
    FileNotFoundError
        If nothing is kept of the trainings.
    """
    lines: list[dict[str, Any]] = []
    for section in SECTIONS:
        if work is not None:
            lines += facts_of(work, section)
        else:
            lines += map(json.loads, (HERE / section / "results" / KEPT).read_text(encoding="utf-8").splitlines())
    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        families[line["trial"].rpartition("-")[0]].append(line)
    rows = ["| networks | seeds | iterations | batch | at the end: mean, least, most |", "|---|---|---|---|---|"]
    for family, some in families.items():
        judged = [k for k in some[0]["last"] if k not in ("step", "loss")]
        ends = "; ".join(f"{WORDS.get(k, k)} {_said([s['last'][k] for s in some])}" for k in judged)
        recipe = some[0]["recipe"]
        rows.append(f"| `{family}` | {len(some)} | {recipe['steps']:,} | {recipe['batch']} | {ends} |")
    versions = sorted({f"{k} {v}" for line in lines for k, v in line["versions"].items()})
    devices = ", ".join(sorted({line["device"] for line in lines}))
    return "\n".join(
        [
            "## The networks",
            "",
            *rows,
            "",
            f"{_short_of(families)}Trained on {devices} with {', '.join(versions)}. Seeds, recipes and versions of"
            f" every training are in `{KEPT}` in the folder of results of each section.",
        ]
    )


def _short_of(families: Mapping[str, list[dict[str, Any]]]) -> str:
    """Return what is to be said of digit networks that do not reach the paper's accuracy."""
    digits = {f: min(s["last"]["accuracy"] for s in some) for f, some in families.items() if "augmentation/" in f}
    short = [f"`{f}` ({least:.2%} at least)" for f, least in digits.items() if least <= PAPER_ACCURACY]
    if not short:
        return f"All networks on digits are above the {PAPER_ACCURACY:.0%} of the paper. "
    return f"Not all networks on digits are above the {PAPER_ACCURACY:.0%} of the paper: {', '.join(short)}. "


def _said(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
