"""A real browser on the page of `resight serve`, over the sample archive with the shipped model.

Each test has a browser context of its own and fails on any console error, page error or answer of 500 and above.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Response, expect, sync_playwright

from examples.sample_archive import build
from tests.fixtures_local import copy_of_models
from tests.support.own_server import OwnServer
from tests.support.processes import command

CHROMIUM = os.environ.get("RESIGHT_CHROMIUM", "/usr/bin/chromium")
IMAGES = 60
expect.set_options(timeout=60_000)  # a guard against hanging: no test expects that something does not come


@pytest.fixture(scope="session", autouse=True)
def chromium() -> None:
    """Skip without a browser; fail instead where RESIGHT_BROWSER=required."""
    if Path(CHROMIUM).exists():
        return
    why = f"no browser at {CHROMIUM}: apt-get install chromium, or set RESIGHT_CHROMIUM"
    if os.environ.get("RESIGHT_BROWSER") == "required":
        pytest.fail(why)
    pytest.skip(why)


@dataclass(frozen=True)
class Served:
    """A server of the page, its home and archive."""

    server: OwnServer
    home: Path
    archive: Path

    @property
    def url(self) -> str:
        return f"{self.server.url}/ui"

    def resight(self, *words: str) -> str:
        """Run a command in this home and return its output."""
        done = command(*words, environment={"RESIGHT_HOME": str(self.home)})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextlib.contextmanager
def serving(place: Path) -> Iterator[Served]:
    """Serve the sample archive after a run and the filter `events`, whose layer is switched on."""
    home, archive = place / "home", place / "archive"
    copy_of_models(home)
    build(archive, IMAGES)
    server = OwnServer(place / "log", {"RESIGHT_HOME": str(home)})
    served = Served(server, home, archive)
    served.resight("reprocess", str(archive), "--model", "ssdlite-coco@1")
    why = "a part of the sample cannot be read, on purpose"
    served.resight("runs", "publish", "ssdlite-coco@1", "--override", why)
    served.resight("filters", "run", "events")
    served.resight("layers", "on", "events")
    with server:
        while httpx2.get(f"{served.url}/v1/images/count", timeout=60).status_code == 503:
            pass  # the index is being built
        yield served


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("browser")) as served:
        yield served


@pytest.fixture(scope="session")
def browser(chromium: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    home = str(tmp_path_factory.mktemp("chromium"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--disable-features=SpareRendererForSitePerProcess"],
            env={**os.environ, "HOME": home, "XDG_CONFIG_HOME": home},
        )
        yield browser
        browser.close()


class Collector:
    """Errors of the pages of a test."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.expected: tuple[int, ...] = ()

    def watch(self, page: Page) -> Page:
        page.on("pageerror", lambda error: self.errors.append(f"page error: {error}"))
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("response", self._response)
        return page

    def _console(self, kind: str, text: str) -> None:
        if kind == "error" and "Failed to load resource" not in text:
            self.errors.append(f"console: {text}")

    def _response(self, response: Response) -> None:
        if response.status >= 500 and response.status not in self.expected:
            self.errors.append(f"{response.status} {response.url}: {response.text()[:500]}")


Visit = Callable[..., Page]


@contextlib.contextmanager
def visits(browser: Browser, served: Served) -> Iterator[Visit]:
    """Yield a function that opens a path of the page in a context of its own: visit("/images", color_scheme="dark").

    With `expected=(503,)`, answers with this status are no errors. Errors are asserted at the end.
    """
    collector, contexts = Collector(), list[BrowserContext]()

    def opened(path: str, expected: tuple[int, ...] = (), **options: object) -> Page:
        collector.expected += expected
        values = {"timezone_id": "America/Los_Angeles", "locale": "en-GB"} | options
        context = browser.new_context(**values)  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = collector.watch(context.new_page())
        page.goto(served.url + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert collector.errors == []


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Visit]:
    with visits(browser, served) as visit:
        yield visit
