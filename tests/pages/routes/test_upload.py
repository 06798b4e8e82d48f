"""The page of uploads: what it offers and refuses, and what it shows of a file before it is sent."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from PIL.ExifTags import IFD
from starlette.testclient import TestClient

from archive.delta.tables import Tables
from pages.context import Context
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


def test_the_published_model_and_the_known_cameras_are_offered(client: TestClient, archive: Tables) -> None:
    text = client.get("/ui/upload").text
    page = Page(text, "filters")
    assert page.sent == [("camera", ""), ("model", "second")]
    options = [attributes["value"] for tag, attributes, _ in page.elements if tag == "option"]
    assert options == [HOSTILE, "first", "second"]
    assert "<script>alert" not in text


def test_camera_time_and_location_are_known_before_a_file_is_sent(client: TestClient, archive: Tables) -> None:
    fact = {"camera_id": "north", "location": "Oak hill", "from_local": "2026-05-01"}
    client.post("/ui/v1/deployments", json=fact)
    path = "/ui/v1/uploads/check"
    taken = picture("2026:05:02 09:30:00")
    answer = client.post(path, params={"camera": "north"}, content=taken[:-99])
    assert answer.json() == {
        "camera_id": "north",
        "captured_at_local": "2026-05-02T09:30:00",
        "timestamp_flags": [],
        "location": "Oak hill",
    }
    early = client.post(path, params={"camera": "north"}, content=picture("2026:04:02 09:30:00"))
    assert early.json()["location"] is None
    nothing = client.post(path, content=picture(None)).json()
    assert nothing.pop("timestamp_flags") == []
    assert set(nothing.values()) == {None}
    refused = client.post(path, content=b"no picture")
    assert (refused.status_code, "supported are jpeg" in refused.text) == (415, True)
    assert client.post(path, params={"camera": "a/b"}, content=taken).status_code == 400
    assert client.post(path, content=b"x" * 300_000).status_code == 413


def picture(taken: str | None) -> bytes:
    """Return a small JPEG with this time in its EXIF data."""
    exif, file = Image.Exif(), io.BytesIO()
    if taken:
        exif.get_ifd(IFD.Exif)[0x9003] = taken
    Image.effect_noise((64, 64), 80).save(file, "jpeg", exif=exif)
    return file.getvalue()


def test_an_invalid_choice_is_an_error(client: TestClient) -> None:
    for query in ("camera=a/b", "camera=%3Dcmd", "model=A+B", "colour=red"):
        assert client.get(f"/ui/upload?{query}").status_code == 400


def test_an_archive_without_models_says_so(client: TestClient) -> None:
    text = client.get("/ui/upload").text
    assert "resight models add" in text
    assert "<form" not in text


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
