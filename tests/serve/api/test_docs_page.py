"""/docs: every request and object of the schema, as HTML that needs no other host and no script."""

from __future__ import annotations

import base64
import hashlib
import re
from html import unescape
from typing import Annotated, Literal

import pytest
from fastapi import Query
from fastapi.testclient import TestClient
from pydantic import BaseModel

from serve.api.base import base_api


class Deer(BaseModel):
    """A <deer>."""

    points: list[int] = []
    herd: dict[str, float] | None = None


def make_client(root_path: str = "") -> TestClient:
    api = base_api("Deer & co", "Counts deer")

    @api.get("/deer/{name}")
    def count(  # pyright: ignore[reportUnusedFunction]
        name: Literal["north", "south"], most: Annotated[int, Query(ge=1, le=9, description="how <many>")] = 3
    ) -> Deer:
        """Count the deer."""
        return Deer()

    return TestClient(api, root_path=root_path)


@pytest.fixture(scope="module")
def client() -> TestClient:
    return make_client()


def words(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", html))


def test_the_page_shows_requests_parameters_and_objects(client: TestClient) -> None:
    text = client.get("/docs").text
    assert "<title>Deer &amp; co</title>" in text
    for shown in (
        "GET /deer/{name} Count the deer.",
        "name (path, required)north or south",
        "most (query)integer 1…9; default 3; how <many>",
        "A <deer>.",
        "pointslist of integer",
        "herdobject or null",
    ):
        assert shown in words(text), shown
    assert '<a href="#Deer">Deer</a>' in text
    assert '<p id="Deer">' in text


def test_the_page_refers_to_no_other_host_and_runs_no_script(client: TestClient) -> None:
    answer = client.get("/docs")
    assert not re.search(r"https?:|//|<script|<link|<img|@import|url\(", answer.text)
    assert re.findall(r'href="([^#][^"]*)"', answer.text) == ["openapi.json"]
    (style,) = re.findall("<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("root_path", ["", "/runs"])
def test_schema_and_page_name_the_paths_that_a_client_asks(root_path: str) -> None:
    client = make_client(root_path)
    assert client.get(f"{root_path}/openapi.json").json()["servers"] == [{"url": root_path or "/"}]
    assert f"GET {root_path}/deer/{{name}}" in words(client.get(f"{root_path}/docs").text)
