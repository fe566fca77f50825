"""Thresholds held against results: judged at the end of the interval, so that noise does not flip a release."""

from geed_onnx.gates.threshold import Threshold

__all__ = ["Threshold"]
