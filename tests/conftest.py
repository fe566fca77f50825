"""One hypothesis profile: the same examples on every run, and no deadline on a shared machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("geed", deadline=None, derandomize=True, database=None)
settings.load_profile("geed")
