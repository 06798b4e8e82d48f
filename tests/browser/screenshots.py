"""Make the pictures of the page in docs/guide: python -m tests.browser.screenshots (needs a browser)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import CHROMIUM, serving
from tests.fixtures_local import ROOT

SHOTS = (
    ("images", "/images", "light"),
    ("review", "/review?status=ok", "dark"),
    ("overview", "/", "light"),
    ("cameras", "/cameras", "light"),
    ("runs", "/runs", "light"),
    ("models", "/models", "light"),
    ("layers", "/layers", "light"),
    ("upload", "/upload", "light"),
    ("exports", "/exports", "light"),
)
SIZE = {"width": 1280, "height": 800}


def main() -> None:
    with tempfile.TemporaryDirectory() as place, serving(Path(place)) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        for name, path, scheme in SHOTS:
            page = browser.new_page(viewport=SIZE, color_scheme=scheme, locale="en-GB")  # type: ignore[arg-type]
            page.goto(served.url + path)
            page.wait_for_load_state("load")
            page.wait_for_timeout(3000)  # thumbnails
            file = ROOT / "docs" / "guide" / f"page-{name}.jpg"
            page.screenshot(path=file, type="jpeg", quality=70)
        browser.close()


if __name__ == "__main__":
    main()
