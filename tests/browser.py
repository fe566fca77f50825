"""A headless Chromium for pages that open from disk, with everything that it says or asks for kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def chromium() -> str:
    """The browser's path; a test without one is skipped."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(NAMES)})")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=QUIET)
        try:
            yield running
        finally:
            running.close()


@dataclass
class Opened:
    """A page, and what it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def settle(self, condition: str, patience: float = 60) -> None:
        """Wait until a JavaScript expression is true; the page's policy forbids playwright's own way."""
        for _ in range(int(patience / 0.05)):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true: {condition}")

    def clean(self, path: Path) -> None:
        """Assert that nothing was complained of, and that the page asked for itself only."""
        assert self.said == []
        assert [r for r in self.requests if not r.startswith(("data:", "blob:"))] == [path.as_uri()]


def dismissed(dialog: Any, found: Opened) -> None:
    found.said.append(f"dialog: {dialog.message}")
    dialog.dismiss()


@contextmanager
def opened(running: Any, path: Path, **context: Any) -> Iterator[Opened]:
    """Open a file; `context` as `new_context` takes it (viewport, color_scheme, …)."""
    surroundings = running.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    page = surroundings.new_page()
    found = Opened(page)
    page.on("console", lambda m: found.said.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.said.append(f"uncaught: {error}"))
    page.on("dialog", lambda dialog: dismissed(dialog, found))
    surroundings.on("request", lambda r: found.requests.append(r.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", timeout=60000)
    try:
        yield found
    finally:
        surroundings.close()
