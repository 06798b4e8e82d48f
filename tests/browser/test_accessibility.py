"""Each page satisfies axe's rules for WCAG 2.2 AA in both themes, languages and widths, and fits a telephone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.browser.conftest import Served, Visit, visits

PAGES = (
    "/",
    "/images",
    "/review",
    "/cameras",
    "/map",
    "/upload",
    "/runs",
    "/runs/compare?old=ssdlite-coco@1&new=published",
    "/models",
    "/models/ssdlite-coco",
    "/models/ssdlite-coco/change?do=promote&version=1",
    "/layers",
    "/filters/rank-rollup",
    "/exports",
    "/session",
)
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
PHONE = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def desktop(browser: Browser, served: Served) -> Iterator[Page]:
    """A page that goes from path to path: a new context for each would start a process and read all scripts again."""
    with visits(browser, served) as visit:
        yield visit("/session", color_scheme="light", bypass_csp=True)  # axe is a script


@pytest.fixture(scope="module")
def phone(browser: Browser, served: Served) -> Iterator[Page]:
    """Like `desktop`, in the other language, theme and width."""
    with visits(browser, served) as visit:
        yield visit("/session", color_scheme="dark", locale="de-DE", viewport=PHONE, bypass_csp=True)


@pytest.mark.parametrize("path", PAGES)
def test_pages_have_no_fault_that_axe_finds(desktop: Page, served: Served, path: str) -> None:
    desktop.goto(served.url + path)
    check(desktop)


@pytest.mark.parametrize("path", PAGES)
def test_pages_fit_a_telephone_in_the_other_language_and_theme(phone: Page, served: Served, path: str) -> None:
    phone.goto(served.url + path)
    check(phone)
    width = phone.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"], f"{path} is {width} px wide"


def check(page: Page) -> None:
    page.wait_for_load_state("load")
    found = Axe().run(page, options=RULES)
    assert found.violations_count == 0, found.generate_report()


def test_all_of_a_page_is_reached_by_keyboard(visit: Visit) -> None:
    page = visit("/images")
    page.wait_for_selector("#grid a")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    reached: list[str] = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.closest('#grid, form, #days, .tools')?.id || document.activeElement.name"
            )
        )
    assert "grid" in reached
    assert "camera" in reached
    page.locator("#grid a").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    first = page.evaluate("document.querySelector('#grid a') === document.activeElement")
    assert first
    page.keyboard.press(" ")
    assert page.locator("#selected").inner_text() == "1 selected"
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/images/*")
