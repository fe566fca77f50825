"""Keras, TensorFlow and tf2onnx, imported when they are needed and without their talk."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from geed_exporters.errors import ExportError
from geed_exporters.factories import framework

INSTALL = "pip install 'geed-onnx[keras]'"


def keras() -> Any:
    """Return the module `keras`, running on TensorFlow.

    Raises
    ------
    MissingFramework
        If Keras or TensorFlow is not installed.
    ExportError
        If Keras runs on another backend here.
    """
    tensorflow()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with quiet():
        module = framework("keras", INSTALL)
    backend = module.backend.backend()
    if backend != "tensorflow":
        raise ExportError(
            f"Keras runs on {backend} here (KERAS_BACKEND or ~/.keras/keras.json); the exporter needs the TensorFlow"
            " backend: set KERAS_BACKEND=tensorflow. Weights saved on another backend can be loaded with it"
        )
    return module


def tensorflow(*, cpu: bool = False) -> Any:
    """Return the module `tensorflow`; with `cpu`, hidden from any GPU, whose rounding would pass for a difference.

    Raises
    ------
    MissingFramework
        If it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        module = framework("tensorflow", INSTALL)
        if cpu:
            module.config.set_visible_devices([], "GPU")
        module.zeros(1)  # the first operation starts the runtime, which has its own things to say
    return module


def tf2onnx() -> Any:
    """Return the module `tf2onnx.convert`.

    Raises
    ------
    MissingFramework
        If it is not installed.
    """
    with quiet():
        return framework("tf2onnx.convert", INSTALL)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what is printed off both streams, native code included, and Python's warnings too.

    TensorFlow's C++ parts write to the file descriptors before any log level is read.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = os.dup(1), os.dup(2)
    text = io.StringIO()
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings(), redirect_stdout(text), redirect_stderr(text):
        warnings.simplefilter("ignore")
        try:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            yield
        finally:
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)


@contextmanager
def without_xla() -> Iterator[None]:
    """Let functions that ask for compilation be traced as plain ones, which a converter can look into.

    Keras compiles grouped convolutions on their own.
    """
    module = tensorflow()
    original = module.function

    def plain(*args: Any, jit_compile: bool | None = None, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    module.function = plain
    try:
        yield
    finally:
        module.function = original


def words(error: BaseException, most: int = 300) -> str:
    """Return an exception's message as one short line, without Keras' terminal colours."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    return (text if len(text) <= most else text[:most] + " …") or type(error).__name__
