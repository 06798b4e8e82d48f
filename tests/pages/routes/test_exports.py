"""Exports by the page: the rows of the filter, as the command writes them, recorded and without a file left."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import re
import shlex
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from httpx2 import Response
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from starlette.types import Message

from archive.annotations.corrections import EXPORTED_LABEL
from archive.delta.tables import Tables
from archive.formats.export_file import export_file
from archive.formats.file_formats import FORMATS
from archive.formats.placed import EXAMPLE
from archive.views.exports import export
from archive.views.query import query
from cli.main import app
from pages.context import Context
from pages.http_app import build_pages_app
from pages.routes import exports
from serve.auth.guard import Access, scope_of
from serve.auth.scopes import TokenScope
from tests.archive.formats.small_archive import media_row, put_media, small_archive
from tests.batch.filters.scene import KEY, box, publish, put
from tests.fixtures_local import rows_of
from tests.pages.conftest import lasting_page
from tests.pages.routes.test_cameras import deployed
from tests.pages.routes.test_cameras import put as put_facts
from tests.support.html_form import Page
from tests.support.left_clients import answer_after_one_has_left

HOSTILE = "o'neill\"><script>alert(1)</script>"


def fill(tables: Tables) -> Tables:
    """Add two cameras, one of them hostile, with three detections."""
    tables.snapshot("media")
    found = [box(0, 1, 1, 50.0, "fox", 0.7), box(1, 9, 9, 50.0, "deer", 0.9)]
    put(tables, {1: (HOSTILE, 0.0, found), 2: ("north", 5.0, [box(0, 1, 1, 50.0)]), 3: ("north", 9.0, [])})
    publish(tables)
    return tables


@pytest.fixture
def archive(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """Files are written to a folder of the test."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return fill(tables)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Tables]]:
    """A page over such an archive, for tests that add nothing except records of exports."""
    with lasting_page(tmp_path_factory.mktemp("exports")) as (context, client):
        yield client, fill(context.tables)


def posted(client: TestClient, relation: str, format_: str, **wanted: str) -> bytes:
    body = {"relation": relation, "format": format_, "filter": wanted}
    answer = client.post("/ui/v1/exports", json=body)
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_file_has_the_bytes_that_the_command_writes(client: TestClient, archive: Tables, tmp_path: Path) -> None:
    export(archive, "detections", tmp_path / "all.csv")
    answer = client.post("/ui/v1/exports", json={"relation": "detections", "format": "csv"})
    assert answer.status_code == 200
    assert answer.content == (tmp_path / "all.csv").read_bytes()
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith('attachment; filename="detections-2')
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_filter_narrows_the_rows(lasting: tuple[TestClient, Tables]) -> None:
    client, _ = lasting
    text = posted(client, "detections", "csv", camera=HOSTILE, label="fox").decode()
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["camera_id"], row["label"], row[EXPORTED_LABEL]) == (HOSTILE, "fox", "fox")
    data = posted(client, "results", "parquet", camera="north")
    statuses = pq.read_table(io.BytesIO(data))["status"].to_pylist()
    assert sorted(statuses) == ["empty", "ok"]


def test_an_export_is_recorded_with_its_keys(client: TestClient, archive: Tables) -> None:
    posted(client, "results", "csv", status="ok", reviewed="false")
    (record,) = rows_of(archive, "exports")
    assert (record["relation"], record["rows"], record["inference_keys"]) == ("results", 2, [KEY])
    assert record["file"].startswith("results-2")
    page = Page(client.get("/ui/exports").text)
    cells = ["".join(texts) for tag, _, texts in page.elements if tag == "td"]
    assert cells[1:] == ["results", "production 1", "status ok, not reviewed", "2", record["file"]]
    assert json.loads(record["filter"]) == {"status": "ok", "reviewed": False}
    (row,) = client.get("/ui/v1/exports").json()
    assert (row["file"], row["inference_keys"]) == (record["file"], [KEY])


def test_what_cannot_be_exported_is_a_problem(client: TestClient, archive: Tables) -> None:
    for wrong in (
        {"format": "xlsx"},
        {"filter": {"colour": "red"}},
        {"filter": {"min_score": 2}},
        {"filter": {"view": "none"}},
    ):
        answer = client.post("/ui/v1/exports", json={"relation": "results", "format": "csv"} | wrong)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert archive.existing("exports") is None


@pytest.mark.parametrize("chunks", [0, 1, 2])
async def test_a_cancelled_download_leaves_nothing(
    archive: Tables, tmp_path: Path, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has two chunks; after both, the client has it."""
    forgotten = list[str]()
    (tmp_path / "file").write_bytes(b"12")
    monkeypatch.setattr(exports, "PIECE_BYTES", 1)
    with (tmp_path / "file").open("rb") as file:
        answer = exports.Download(file, lambda: forgotten.append("record"))
        sent = list[bytes]()

        async def send(message: Message) -> None:
            if message.get("body"):
                if len(sent) == chunks:
                    raise OSError("the client is gone")
                sent.append(message["body"])

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
        with contextlib.suppress(ClientDisconnect):
            await answer(scope, receive, send)
        assert file.closed
    assert forgotten == ([] if chunks == 2 else ["record"])


def test_the_record_of_a_cancelled_download_is_removed(context: Context, client: TestClient, archive: Tables) -> None:
    for relation in ("results", "detections"):
        posted(client, relation, "csv")
    files = {row["relation"]: row["file"] for row in rows_of(archive, "exports")}
    exports._forget(context, files["results"])
    (left,) = rows_of(archive, "exports")
    assert left["relation"] == "detections"
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


async def test_an_export_whose_client_has_left_keeps_its_place_and_no_record(
    context: Context, archive: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "MAX_EXPORTS", 1)
    work, request, body = (exports, "_written"), ("POST", "/ui/v1/exports"), {"relation": "results", "format": "csv"}
    app = build_pages_app(context, Access())
    answer = await answer_after_one_has_left(monkeypatch, work, app, "/ui", *request, json=body)
    assert answer.status_code == 429
    assert "retry-after" in answer.headers
    assert rows_of(archive, "exports") == []
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def commands_of(text: str) -> list[str]:
    return ["".join(texts) for tag, _, texts in Page(text).elements if tag == "pre"]


def test_the_page_offers_files_of_its_filter_and_commands_that_write_them(lasting: tuple[TestClient, Tables]) -> None:
    client, archive = lasting
    text = client.get("/ui/exports", params={"camera": HOSTILE, "label": "", "since": "", "until": "2026-05-31"}).text
    assert "<script>alert" not in text
    assert "1 images match" in text
    page = Page(text)
    assert {field["value"] for field in page.named("filter.camera")} == {HOSTILE}
    assert [field["value"] for field in page.named("until")] == ["2026-05-31"]
    assert [field["value"] for field in page.named("relation")] == ["detections", "results"]
    downloads = {*FORMATS, "csv", "parquet"} - {"yolo"}
    assert {field["value"] for field in page.named("format")} == downloads, "links cannot be sent"
    for name in ("options.package", "options.time_zone", "options.leave_out", "options.licence"):
        assert page.named(name), name
    assert json.loads(commands_of(text)[4]) == json.loads(EXAMPLE), "the package has an example"
    helps = dict(re.findall(r'id="(camtrap-dp|darwin-core)-package-help">(.*?)</p>', text))
    assert [("required" in words, "may be empty" in words) for words in helps.values()] == [
        (True, False),
        (False, True),
    ]
    assert page.named("folder") == [], "there is one archive"
    program, command, statement, *rest = shlex.split(commands_of(text)[0])
    assert (program, command, rest) == ("resight", "sql", ["--format", "csv", ">", "detections.csv"])
    assert len(query(archive, statement)) == 2
    linked = client.get("/ui/exports", params={"reviewed": "true", "flagged": "false"}).text
    assert 'href="/ui/images?reviewed=true&amp;flagged=false"' in linked, "as scripts of the grid read it"


def test_a_command_as_pasted_writes_the_images_that_are_downloaded(
    lasting: tuple[TestClient, Tables], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = lasting
    scope = {"camera": HOSTILE, "label": "fox", "min_score": "0.5", "path": "o'n"}
    wishes: list[dict[str, str]] = [
        {},
        scope | {"until": "2026-05-14", "since": "2020-01-01"},
        {"status": "empty"},
        {"reviewed": "false", "camera": "north"},
    ]
    for number, wanted in enumerate(wishes):
        page = client.get("/ui/exports", params=wanted).text
        (text,) = [text for text in commands_of(page) if " coco-results" in text]
        (tmp_path / str(number)).mkdir()
        monkeypatch.chdir(tmp_path / str(number))
        for line in text.splitlines():
            words, _, file = line.partition(" > ")
            with Path(file or "none").open("w") as out, contextlib.redirect_stdout(out):
                app(shlex.split(words)[1:], standalone_mode=False)
        expected = json.loads(Path("coco-results.json").read_bytes())
        answer = client.post("/ui/v1/exports", json={"format": "coco-results", "filter": wanted})
        assert answer.json() == expected, wanted


def test_an_export_changes_a_table_and_needs_the_scope_of_reviewers() -> None:
    assert scope_of("POST", "/ui/v1/exports") is TokenScope.review
    assert scope_of("GET", "/ui/v1/exports") is TokenScope.detect


@pytest.fixture
def small(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return small_archive(tables.url)


def files_of(answer: Response, name: str) -> dict[str, bytes]:
    """Return the content of a download by file, "" for one that is no folder."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="{name}-2')
    if answer.headers["content-type"] != "application/zip":
        return {"": answer.content}
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        return {member: found.read(member) for member in found.namelist() if member[-1] != "/"}


def test_a_format_has_the_bytes_that_the_command_writes(client: TestClient, small: Tables, tmp_path: Path) -> None:
    """A JSON file, a CSV file and a folder; the page passes the name of the format on."""
    for name in ("megadetector", "timelapse", "csv"):
        fmt, out = FORMATS[name], tmp_path / f"{name}{FORMATS[name].suffix}"
        export_file(small, fmt, out, floor=0.3)
        files = {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}
        answer = client.post("/ui/v1/exports", json={"format": name, "floor": 0.3})
        assert files_of(answer, name) == (files or {"": out.read_bytes()})
        record = max(rows_of(small, "exports"), key=lambda row: row["exported_at"])
        assert (record["relation"], record["rows"], record["view"]) == (name, 6, "production 1")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_filter_and_an_archive_narrow_the_images_of_a_format(client: TestClient, small: Tables) -> None:
    put_media(small, media_row("a", "west/a.jpg", source_root="/other"))
    body = {"format": "megadetector"}
    assert "several archives" in client.post("/ui/v1/exports", json=body).json()["detail"]
    page = Page(client.get("/ui/exports").text)
    assert [attributes["value"] for tag, attributes, _ in page.elements if tag == "option"].count("/other") == 9
    assert "/other" not in client.get("/ui/exports", params={"camera": "south"}).text, "it has no such image"
    for more, words in (
        ({"folder": "/other", "filter": {"camera": "south"}}, "no image of the archive /other matches"),
        ({"filter": {"camera": "nowhere"}}, "no image matches the filter"),
    ):
        answer = client.post("/ui/v1/exports", json=body | more)
        assert (answer.status_code, words in answer.text) == (400, True), answer.text
    assert small.existing("exports") is None
    for more, names in (
        ({"folder": "/other"}, ["west/a.jpg"]),
        ({"folder": "/data/deer", "filter": {"camera": "north"}}, ["north/a.jpg", "north/b.jpg"]),
        ({"filter": {"status": "failed"}}, ["south/c.jpg"]),
    ):
        images = client.post("/ui/v1/exports", json=body | more).json()["images"]
        assert [image["file"] for image in images] == names


def test_facts_of_a_package_are_sent_as_its_content(client: TestClient, small: Tables) -> None:
    put_facts(small, deployed(latitude=52.5, longitude=13.4))
    body: dict[str, Any] = {"format": "camtrap-dp", "options": {"time_zone": None, "leave_out": True}}
    assert "requires contributors" in client.post("/ui/v1/exports", json=body).json()["detail"]
    body["options"] |= {"package": json.loads(EXAMPLE)}
    assert "nothing was written" in client.post("/ui/v1/exports", json=body).json()["detail"]
    body["options"] |= {"time_zone": "Europe/Berlin"}
    files = files_of(client.post("/ui/v1/exports", json=body), "camtrap-dp")
    assert sorted(files) == ["datapackage.json", "deployments.csv", "media.csv", "observations.csv"]
    assert json.loads(files["datapackage.json"])["contributors"][0]["title"] == "Kim Doe"
    body["options"] |= {"package": "/etc/hostname"}
    refused = client.post("/ui/v1/exports", json=body)
    assert (refused.status_code, "not the name of a file" in refused.text) == (400, True)


def test_what_is_no_download_names_the_way(client: TestClient, small: Tables) -> None:
    for body, words in (
        ({"format": "yolo"}, "use resight export yolo FOLDER"),
        ({"format": "parquet"}, "use one of megadetector"),
        ({"format": "coco", "options": {"colour": "red"}}, "its options: licence"),
        ({"format": "csv", "relation": "results", "floor": 0.5}, "apply to formats"),
    ):
        answer = client.post("/ui/v1/exports", json=body)
        assert (answer.status_code, words in answer.text) == (400, True), answer.text
    assert small.existing("exports") is None
