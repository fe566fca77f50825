"""Measures every suite of the experiments with `geed-onnx run`, and keeps the results.

    python -m experiments.measure                       # all of them
    python -m experiments.measure augmentation/final    # one
    python -m experiments.measure --fast

A run that was stopped goes on where it was. The results of full runs are copied into the repository, beside the suite
that made them; those of `--fast` stay in its folder.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from experiments.places import FAST, parser, work_folder
from experiments.training_facts import collect
from geed_onnx.results import DEVIATIONS, JACKKNIFE, RESULTS

HERE = Path(__file__).parent
#: Suites in the order in which they are measured; the folder, then the name.
SUITES = (
    "augmentation/suite",
    "augmentation/final",
    "out_of_distribution/suite",
    "pretraining/suite",
    "self_supervision/suite",
    "self_supervision/final",
)

#: Suites whose tables (deviations of every image and element, and what leaving an image out changes) are kept as well:
#: small ones, of networks at the end of training, which can then be compared image by image.
TABLES = ("self_supervision/final",)


def suites() -> tuple[str, ...]:
    """Return every suite: those above, and what there is in the folder of robustness."""
    folder = HERE / "robustness"
    more = sorted(p.relative_to(HERE).with_suffix("").as_posix() for p in folder.rglob("*.toml"))
    return (*SUITES, *more)


def run_folder(work: Path, suite: str) -> Path:
    """Return where `geed-onnx run` writes the results of a suite."""
    return work / "results" / suite.replace("/", "-")


def kept(suite: str, work: Path | None = None) -> Path:
    """Return the file of a suite's results: the one in the repository, or that of a work folder."""
    if work is not None:
        return run_folder(work, suite) / RESULTS
    folder, _, name = suite.partition("/")
    return HERE / folder / "results" / f"{name.replace('/', '-')}.jsonl"


def measure(suite: str, work: Path) -> None:
    """Run one suite on the models of a work folder.

    Raises
    ------
    subprocess.CalledProcessError
        If a cell failed, or the suite is at fault.
    """
    began = time.perf_counter()
    command = [sys.executable, "-m", "geed_onnx", "run", str(HERE / f"{suite}.toml"), "--root", str(work)]
    # the tables on stdout are for people who look at one suite
    subprocess.run([*command, "-o", str(run_folder(work, suite))], check=True, stdout=subprocess.DEVNULL)
    print(f"{suite}: {time.perf_counter() - began:.0f} s", flush=True)


def keep(suite: str, work: Path) -> None:
    """Copy the results of a suite into the repository, and its tables where they are kept."""
    target = kept(suite)
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(run_folder(work, suite) / RESULTS, target)
    if suite in TABLES:
        for name in (DEVIATIONS, JACKKNIFE):
            shutil.copyfile(run_folder(work, suite) / name, target.with_name(f"{target.stem}.{name}"))


def main() -> None:
    """Measure what the command line asks for."""
    options: argparse.ArgumentParser = parser(__doc__)
    options.add_argument("suites", nargs="*", metavar="FOLDER/NAME", help="all, unless some are named")
    asked = options.parse_args()
    unknown = [s for s in asked.suites if s not in suites()]
    if unknown:
        sys.exit(f"unknown suite {unknown[0]!r}; there are {', '.join(suites())}")
    work = work_folder(asked)
    for suite in asked.suites or suites():
        measure(suite, work)
        if not asked.fast and work != FAST:
            keep(suite, work)
    if not asked.fast and work != FAST:
        collect(work)


if __name__ == "__main__":
    main()
