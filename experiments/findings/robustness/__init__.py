"""Robustness of the method, R1 to R7: what the paper says of G-EED without a figure, or leaves open."""

from __future__ import annotations

from pathlib import Path

from experiments.findings.evidence import evidence
from experiments.findings.finding import Finding
from experiments.findings.robustness.draws import r1, r2
from experiments.findings.robustness.grid import r6, r7
from experiments.findings.robustness.settings import r3, r4, r5

__all__ = ["INTERPOLATIONS", "SPREAD", "findings", "r1", "r2", "r3", "r4", "r5", "r6", "r7"]

SPREAD = (10, 20, 50, 100, 200, 500, 1000)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def findings(work: Path | None = None) -> list[Finding]:
    """Return R1 to R7, from the results in the repository or those of a work folder.

    Raises
    ------
    DataError
        If a suite was not measured, or a result lacks what a finding needs.
    """
    by = {name: evidence(f"robustness/interpolation/{name}", work) for name in INTERPOLATIONS}
    sizes = evidence("robustness/sizes", work)
    return [
        r1(evidence("robustness/images", work)),
        r2({n: evidence(f"robustness/spread/{n}", work) for n in SPREAD}),
        r3(by),
        r4(by["bilinear"], evidence("robustness/mask/disc", work)),
        r5(sizes),
        r6(by["bilinear"]),
        r7(by["bilinear"], sizes),
    ]
