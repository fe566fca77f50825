"""One hypothesis profile: the same examples on every run, and no deadline on a shared machine."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("geed", deadline=None, derandomize=True, database=None)
settings.load_profile("geed")


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they are where nobody says how wide: pytest-xdist says it to its workers."""
    monkeypatch.delenv("COLUMNS", raising=False)
