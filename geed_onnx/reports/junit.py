"""A verdict as JUnit XML: one suite a model, one test case for every result that was judged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from geed_onnx.gates import Judged, Verdict
from geed_onnx.reports.table import clean
from geed_onnx.results import Result, write_text

if TYPE_CHECKING:
    from junitparser import TestCase

#: How a later junitparser may begin the text.
DECLARED = "<?xml version='1.0' encoding='utf-8'?>"


def junit(verdict: Verdict) -> str:
    """Return the XML: `<failure>` for what the gate is closed to, `<error>` for failed cells without a threshold.

    Control characters, which XML has no form for, are spelled out.
    """
    from junitparser import JUnitXml, TestSuite

    suites: dict[str, list[TestCase]] = {}
    for j in verdict.judged:
        suites.setdefault(j.result.label, []).append(_case(j))
    for result in verdict.failed:
        suites.setdefault(result.label, []).append(_failed(result))
    whole = JUnitXml("geed-onnx gate")
    for label, cases in suites.items():
        suite = TestSuite(clean(label))
        suite.add_testcases(cases)
        whole.add_testsuite(suite)
    whole.update_statistics()  # type: ignore[no-untyped-call]
    text: bytes = whole.tostring()  # type: ignore[no-untyped-call]
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + text.decode("utf-8").removeprefix(DECLARED).lstrip() + "\n"


def write_junit(verdict: Verdict, path: str | os.PathLike[str]) -> None:
    """Write JUnit XML, whole or not at all.

    Raises
    ------
    UsageError
        If it cannot be written there.
    GeedError
        If writing fails on the way.
    """
    write_text(path, junit(verdict))


def _case(j: Judged) -> TestCase:
    from junitparser import Failure, TestCase

    result, threshold = j.result, j.threshold
    name = f"{threshold.text} | {result.tap['name']} | {result.group['name']} | {result.data['uri']}"
    case = TestCase(clean(name), clean(result.label))
    if j.crossed:
        case.result = [Failure(clean(j.message), "not proven" if j.outcome == "undecided" else j.outcome)]
    else:
        case.system_out = clean(j.message)
    return case


def _failed(result: Result) -> TestCase:
    from junitparser import Error, TestCase

    name = f"{result.variant} | {result.tap['name']} | {result.group['name']} | {result.data['uri']}"
    case = TestCase(clean(name), clean(result.label))
    case.result = [Error(clean(result.reason), "not measured")]
    return case
