"""The page of uploads: what it offers, what it refuses, and the form that works without scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from archive.delta.tables import Tables
from pages.context import Context
from pages.html import STATIC
from pages.http_app import build_pages_app
from serve.auth.guard import Access
from serve.auth.scopes import Identity, TokenScope
from tests.batch.filters.scene import box, publish, put
from tests.support.html_form import Page

HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture
def archive(tables: Tables, context: Context) -> Tables:
    """One hostile camera, and two models of which the second is published."""
    tables.snapshot("media")
    put(tables, {1: (HOSTILE, 0.0, [box(0, 1, 1, 20.0)])})
    publish(tables, model_name="second")
    for name in ("first", "second"):
        folder = Path(context.store.url) / name / "1"
        folder.mkdir(parents=True)
        (folder / "READY").touch()
    return tables


def test_the_published_model_and_the_known_cameras_are_offered(
    client: TestClient, archive: Tables
) -> None:
    text = client.get("/ui/upload").text
    page = Page(text, "filters")
    assert page.sent == [("camera", ""), ("model", "second")]
    options = [attributes["value"] for tag, attributes, _ in page.elements if tag == "option"]
    assert options == [HOSTILE, "first", "second"]
    assert "<script>alert" not in text


def test_without_scripts_a_form_sends_the_files_to_the_detectors(
    client: TestClient, archive: Tables
) -> None:
    page = Page(client.get("/ui/upload?camera=north+1&model=first@1").text)
    _, form, _ = page.with_id("send")
    assert (form["method"], form["enctype"]) == ("post", "multipart/form-data")
    assert form["action"] == "/v1/images?model=first%401&camera=north+1"
    assert [each["name"] for each in page.named("image")] == ["image"]


@pytest.mark.parametrize("query", ["camera=a/b", "camera=%3Dcmd", "model=A+B", "colour=red"])
def test_an_invalid_choice_is_an_error(client: TestClient, query: str) -> None:
    assert client.get(f"/ui/upload?{query}").status_code == 400


def test_an_archive_without_models_says_so(client: TestClient) -> None:
    text = client.get("/ui/upload").text
    assert "resight models add" in text
    assert "multipart" not in text


@pytest.fixture
def reader(context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A visitor who may look, and nothing else."""

    async def check(*_: object) -> Identity:
        return Identity("kim", frozenset({TokenScope.detect}))

    monkeypatch.setattr(Access, "check", check)
    app = build_pages_app(context, Access())
    with TestClient(app, base_url="http://127.0.0.1:8000", root_path="/ui") as client:
        yield client


def test_a_visitor_without_the_scope_is_told_so(reader: TestClient, archive: Tables) -> None:
    for path, words in (
        ("/ui/upload", "the session needs the scope upload"),
        ("/ui/layers", "the session needs the scope admin"),
        ("/ui/filters/events", "the session needs the scope admin"),
    ):
        text = reader.get(path).text
        assert words in text, path
        assert "<button" not in text, path


def test_the_script_uses_the_places_of_the_page(client: TestClient, archive: Tables) -> None:
    script = (STATIC / "upload.js").read_text()
    page = Page(client.get("/ui/upload").text)
    there = {attributes["id"] for _, attributes, _ in page.elements if "id" in attributes}
    assert set(re.findall(r'\bat\("(\w+)"\)', script)) <= there
