"""Which cells to run: a suite read, every fault of it named at once, and spread out into requests.

::

    suite = load_suite("suite.toml")           # SuiteError names every fault
    for request in suite.jobs(): ...
    suite_toml(suite, folder)                  # as it was resolved; loads back to an equal suite
"""

from geed_onnx.suites.faults import MISSING, Fault, SuiteError
from geed_onnx.suites.loading import load_suite
from geed_onnx.suites.suite import SUITE_SCHEMA, Suite
from geed_onnx.suites.writing import suite_toml

__all__ = [
    "MISSING",
    "SUITE_SCHEMA",
    "Fault",
    "Suite",
    "SuiteError",
    "load_suite",
    "suite_toml",
]
