"""The page's application over an archive of the test, without Ray: requests by a client, as from a browser."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from archive.delta.tables import Tables
from batch.jobs.control import jobs_of
from pages.context import Context, IndexFollower
from pages.http_app import build_pages_app
from serve.auth.guard import Access
from serve.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("pages.context.WAIT_S", 60.0)  # a test is not answered with 503
    return Settings()


def context_of(settings: Settings) -> Context:
    return Context.of(settings, lambda: jobs_of(settings, here=True))


def client_of(context: Context) -> TestClient:
    return TestClient(build_pages_app(context, Access()), base_url="http://127.0.0.1:8000", root_path="/ui")


@pytest.fixture
def context(settings: Settings) -> Context:
    return context_of(settings)


@pytest.fixture
def tables(context: Context) -> Tables:
    return context.tables


@pytest.fixture
def client(context: Context) -> Iterator[TestClient]:
    with client_of(context) as client:
        yield client


@contextlib.contextmanager
def lasting_page(place: Path) -> Iterator[tuple[Context, TestClient]]:
    """Yield a context and a client for several tests: an application takes 0.1 s, the first index 0.3 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESIGHT_HOME", str(place / "home"))
        patch.setattr("pages.context.WAIT_S", 60.0)
        context = context_of(Settings())
        with client_of(context) as client:
            yield context, client


@pytest.fixture
def index_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the index of images for the first request that reads it, and do not follow changes, at 0.2 s each."""
    monkeypatch.setattr(IndexFollower, "used", lambda *_, **__: None)
