"""Writes the page of findings, FINDINGS.md, and its figures.

    python -m experiments.findings.page            # from the results in the repository, into experiments/
    python -m experiments.findings.page --fast     # from what --fast measured, into its folder

Every number on the page is in the results, or is an interval over them by geed-onnx's own estimators.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.findings import digits, robustness, transfer
from experiments.findings.evidence import evidence, said
from experiments.findings.figures import draw_all
from experiments.findings.finding import Finding
from experiments.findings.references import statistics
from experiments.measure import HERE, suites
from experiments.places import parser, work_folder
from experiments.training_facts import read_facts

SECTIONS = (
    ("Do networks trained with augmentation learn equivariant layers? (4.1)", ("C1", "C2", "C3", "C4")),
    ("Does learned invariance hold for out-of-distribution data? (4.2)", ("C5", "C6")),
    ("How does the use of pretrained weights affect invariance? (4.3)", ("C7", "C8")),
    ("The invariance of supervised and self-supervised models (4.4)", ("C9",)),
    ("Is the method robust?", ("R1", "R2", "R3", "R4", "R5", "R6", "R7")),
)
#: Further figures of a finding, under the one that it names.
MORE = {"C6": ("figure-3-sensitivity",), "C7": ("figure-10",), "C9": ("figure-5-stages",)}


def findings(work: Path | None = None) -> list[Finding]:
    """Return every finding, from the results in the repository or those of a work folder.

    Raises
    ------
    DataError
        If a suite was not measured.
    """
    training, final = evidence("augmentation/suite", work), evidence("augmentation/final", work)
    ood, transferred = evidence("out_of_distribution/suite", work), evidence("pretraining/suite", work)
    encoders = evidence("self_supervision/suite", work)
    return [
        digits.c1(final),
        digits.c2(training),
        digits.c3(training, final),
        digits.c4(final),
        digits.c5(ood),
        digits.c6(ood),
        transfer.c7(transferred),
        transfer.c8(transferred),
        transfer.c9(encoders),
        *robustness.findings(work),
    ]


def page(found: Sequence[Finding], references: str, facts: str, figures: str) -> str:
    """Return the page in Markdown.

    Parameters
    ----------
    references, facts
        The paragraphs on how floors and nulls were made, and on the trainings.
    figures
        The folder of figures as the page sees it.
    """
    by_key = {f.key: f for f in found}
    lines = [HEAD, "", references, "", *_summary(found), "", facts]
    for title, keys in SECTIONS:
        lines += ["", f"## {title}"]
        for key in keys:
            lines += _entry(by_key[key], figures)
    return "\n".join(lines) + "\n"


HEAD = """# Findings

What came out when the experiments of Kvinge et al. (NeurIPS 2022) were run with `geed-onnx run`, claim by claim, and
what the paper says of its method without a figure. Written by `python -m experiments.findings.page` from the results in
this folder; [README.md](README.md) says how they are made. C1 to C9 are the orderings that the paper states, R1 to R7
questions about the method. Lower is more invariant, everywhere. Intervals are 95 %, over models unless it is said
otherwise: Student's t, paired by seed for changes within a model, Welch's for two families. "Reproduced" means that
every part of the claim is told from 0 in the paper's direction; "in part", some of them.

The figures of the paper were made with larger networks and with data that cannot be had here (ImageNet, xView):
sections 4.1 and 4.2 are of the paper's size but for the width of the networks, sections 4.3 and 4.4 are small stand-ins,
and the suites for the real networks are written beside them (`pretraining/paper`, `self_supervision/paper`)."""


def _summary(found: Sequence[Finding]) -> list[str]:
    rows = [f"| [{f.key}](#{f.key.lower()}) | {f.title} | {f.verdict} | {said(f.number)} | {f.of} |" for f in found]
    return ["| | question | verdict | number | which is |", "|---|---|---|---|---|", *rows]


def _entry(f: Finding, figures: str) -> list[str]:
    lines = ["", f'<a id="{f.key.lower()}"></a>', "", f"### {f.key}. {f.title}", ""]
    lines += [f"**{'The paper' if f.key.startswith('C') else 'The question'}**: {f.claim}", ""]
    lines += [f"**{f.verdict.capitalize()}.** {f.sentence}", "", f"**{said(f.number)}**: {f.of}.", ""]
    lines += [f"![{f.title}]({figures}/{name}.png)" for name in (f.figure, *MORE.get(f.key, ()))]
    if f.table:
        head, *rows = f.table
        lines += ["", _row(head), _row(["---"] * len(head)), *map(_row, rows)]
    if f.check:
        lines += ["", f"**Why this is not our mistake.** {f.check}"]
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def made(work: Path | None = None) -> str:
    """Return the page from the results in the repository or those of a work folder; raises as `findings` does."""
    return page(findings(work), statistics([evidence(s, work) for s in suites()]), read_facts(work), "figures")


def main() -> None:
    """Write figures and page."""
    asked = parser(__doc__).parse_args()
    work = work_folder(asked) if asked.fast or asked.work else None
    target = HERE if work is None else work
    drawn = draw_all(work, target / "figures")
    (target / "FINDINGS.md").write_text(made(work), encoding="utf-8")
    print(f"{target / 'FINDINGS.md'}, {len(drawn)} figures", file=sys.stderr)


if __name__ == "__main__":
    main()
