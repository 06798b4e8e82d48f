"""Exports by the page: the rows of the filter, as the command writes them, recorded and without a file left."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import shlex
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from starlette.types import Message

from archive.annotations.corrections import EXPORTED_LABEL
from archive.delta.tables import Tables
from archive.views.exports import export
from archive.views.query import query
from pages.context import Context
from pages.http_app import build_pages_app
from pages.routes import exports
from serve.auth.guard import Access, scope_of
from serve.auth.scopes import TokenScope
from tests.batch.filters.scene import KEY, box, publish, put
from tests.fixtures_local import rows_of
from tests.support.html_form import Page

HOSTILE = "o'neill\"><script>alert(1)</script>"


@pytest.fixture
def archive(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """Two cameras, one of them hostile, with three detections; files are written to a folder of the test."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    tables.snapshot("media")
    found = [box(0, 1, 1, 50.0, "fox", 0.7), box(1, 9, 9, 50.0, "deer", 0.9)]
    put(tables, {1: (HOSTILE, 0.0, found), 2: ("north", 5.0, [box(0, 1, 1, 50.0)]), 3: ("north", 9.0, [])})
    publish(tables)
    return tables


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


def test_a_filter_narrows_the_rows(client: TestClient, archive: Tables, tmp_path: Path) -> None:
    text = posted(client, "detections", "csv", camera=HOSTILE, label="fox").decode()
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["camera_id"], row["label"], row[EXPORTED_LABEL]) == (HOSTILE, "fox", "fox")
    data = posted(client, "results", "parquet", camera="north")
    statuses = pq.read_table(io.BytesIO(data))["status"].to_pylist()
    assert sorted(statuses) == ["empty", "ok"]


def test_an_export_is_recorded_with_its_keys(client: TestClient, archive: Tables) -> None:
    posted(client, "results", "csv", status="ok")
    (record,) = rows_of(archive, "exports")
    assert (record["relation"], record["rows"], record["inference_keys"]) == ("results", 2, [KEY])
    assert record["file"].startswith("results-2")
    page = Page(client.get("/ui/exports").text)
    cells = ["".join(texts) for tag, _, texts in page.elements if tag == "td"]
    assert cells[1:] == ["results", "production 1", "2", record["file"]]
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


def test_more_exports_than_places_are_refused(
    context: Context, archive: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "MAX_EXPORTS", 0)
    app = build_pages_app(context, Access())
    with TestClient(app, base_url="http://127.0.0.1:8000", root_path="/ui") as client:
        answer = client.post("/ui/v1/exports", json={"relation": "results", "format": "csv"})
    assert answer.status_code == 429
    assert "retry-after" in answer.headers
    assert archive.existing("exports") is None


def test_the_page_links_files_of_its_filter_and_shows_their_sql(client: TestClient, archive: Tables) -> None:
    text = client.get("/ui/exports", params={"camera": HOSTILE, "label": "", "since": "", "until": "2026-05-31"}).text
    assert "<script>alert" not in text
    assert "1 images match" in text
    page = Page(text)
    assert [field["value"] for field in page.named("filter.camera")] == [HOSTILE] * 2
    assert [field["value"] for field in page.named("until")] == ["2026-05-31"]
    assert [field["value"] for field in page.named("relation")] == ["detections", "results"]
    assert {field["value"] for field in page.named("format")} == {"csv", "parquet"}
    commands = ["".join(texts) for tag, _, texts in page.elements if tag == "pre"]
    program, command, statement = shlex.split(commands[0])
    assert (program, command) == ("resight", "sql")
    assert len(query(archive, statement)) == 2


def test_an_export_changes_a_table_and_needs_the_scope_of_reviewers() -> None:
    assert scope_of("POST", "/ui/v1/exports") is TokenScope.review
    assert scope_of("GET", "/ui/v1/exports") is TokenScope.detect
