"""Draw docs/page.png, a part of the demo's page, after `make demo`: `python docs/make_page.py` (needs Chromium)."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        # tall enough that nothing is scrolled: what sticks to the top would cover a chart
        page = browser.new_page(viewport={"width": 1240, "height": 6000})
        page.goto((ROOT / "runs" / "demo" / "report.html").as_uri())
        page.wait_for_selector("#profile-chart svg")
        page.wait_for_timeout(1000)
        top = page.locator("#depth-chart").bounding_box()
        bottom = page.locator("#profile-chart").bounding_box()
        assert top is not None
        assert bottom is not None
        start, end = top["y"] - 170, bottom["y"] + bottom["height"]
        picture = ROOT / "docs" / "page.png"
        clip = {"x": 0, "y": start, "width": 1240, "height": end - start}
        page.screenshot(path=str(picture), clip=clip)  # type: ignore[arg-type]
        browser.close()
    with Image.open(picture) as drawn:
        drawn.convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(picture, optimize=True)


if __name__ == "__main__":
    main()
