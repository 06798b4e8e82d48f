"""The page's application over an archive of the test, without Ray: requests by a client, as from a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from archive.delta.tables import Tables
from batch.jobs.control import jobs_of
from pages.context import Context
from pages.http_app import build_pages_app
from serve.auth.guard import Access
from serve.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("pages.context.WAIT_S", 60.0)  # a test is not answered with 503
    return Settings()


@pytest.fixture
def context(settings: Settings) -> Context:
    return Context.of(settings, lambda: jobs_of(settings, here=True))


@pytest.fixture
def tables(context: Context) -> Tables:
    return context.tables


@pytest.fixture
def client(context: Context) -> Iterator[TestClient]:
    app = build_pages_app(context, Access())
    with TestClient(app, base_url="http://127.0.0.1:8000", root_path="/ui") as client:
        yield client
