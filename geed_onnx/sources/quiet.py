"""`datasets` without its progress bars, log lines and warnings: stdout is data and stderr is ours."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_TALKERS = ("datasets", "huggingface_hub", "fsspec", "filelock", "urllib3", "httpx")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence `datasets` and what it stands on, and leave everything as it was found.

    What goes wrong arrives as an exception, so nothing is lost.
    """
    import datasets
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    loggers = [logging.getLogger(name) for name in _TALKERS]
    levels = [logger.level for logger in loggers]
    datasets_bars, hub_bars = datasets.is_progress_bar_enabled(), not are_progress_bars_disabled()
    # an environment variable can forbid changing the bars; the libraries then warn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets.disable_progress_bars()
        disable_progress_bars()
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if datasets_bars:
                datasets.enable_progress_bars()
            if hub_bars:
                enable_progress_bars()
