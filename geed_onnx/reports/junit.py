"""A verdict as JUnit XML: one suite a model, one test case for every result that was judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geed_onnx.gates import Judged, Verdict
from geed_onnx.reports.gate import writer
from geed_onnx.reports.table import clean
from geed_onnx.results import Result

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
        suites.setdefault(j.result.label, []).append(_judged(j))
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


write_junit = writer(junit)


def _case(result: Result, subject: str) -> TestCase:
    from junitparser import TestCase

    name = f"{subject} | {result.tap['name']} | {result.group['name']} | {result.data['uri']}"
    return TestCase(clean(name), clean(result.label))


def _judged(j: Judged) -> TestCase:
    from junitparser import Failure

    case = _case(j.result, j.threshold.text)
    if j.crossed:
        case.result = [Failure(clean(j.message), "not proven" if j.outcome == "undecided" else j.outcome)]
    else:
        case.system_out = clean(j.message)
    return case


def _failed(result: Result) -> TestCase:
    from junitparser import Error

    case = _case(result, result.variant)
    case.result = [Error(clean(result.reason), "not measured")]
    return case
