"""Thresholds held against results: judged at the end of the interval, so that noise does not flip a release.

::

    found = open_results("runs/today")
    verdict = judge(found.results, [parse_threshold("softmax=0.05")], current=found)
    for one in verdict.crossed:
        print(one.result.label, one.message)
"""

from geed_onnx.gates.judging import judge
from geed_onnx.gates.threshold import LIMITS, Threshold, parse_threshold, suite_thresholds
from geed_onnx.gates.verdict import VERDICT_SCHEMA, Judged, Outcome, Verdict

__all__ = [
    "LIMITS",
    "VERDICT_SCHEMA",
    "Judged",
    "Outcome",
    "Threshold",
    "Verdict",
    "judge",
    "parse_threshold",
    "suite_thresholds",
]
