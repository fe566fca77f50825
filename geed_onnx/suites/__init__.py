"""Which cells to run: a suite read, every fault of it named at once, and spread out into jobs."""

from geed_onnx.suites.suite import SUITE_SCHEMA, DataEntry, Job, MeasureEntry, ModelEntry, Suite

__all__ = ["SUITE_SCHEMA", "DataEntry", "Job", "MeasureEntry", "ModelEntry", "Suite"]
