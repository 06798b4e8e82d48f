"""Exports by the page: the rows of the filter, as the command writes them, recorded and without a file left."""

from __future__ import annotations

import csv
import io
import shlex
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

import pages.routes.exports
from archive.annotations.corrections import EXPORTED_LABEL
from archive.delta.tables import Tables
from archive.views.exports import export
from archive.views.query import query
from pages.context import Context
from pages.http_app import build_pages_app
from serve.auth.guard import Access
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
    put(
        tables,
        {1: (HOSTILE, 0.0, found), 2: ("north", 5.0, [box(0, 1, 1, 50.0)]), 3: ("north", 9.0, [])},
    )
    publish(tables)
    return tables


def test_a_file_has_the_bytes_that_the_command_writes(
    client: TestClient, archive: Tables, tmp_path: Path
) -> None:
    export(archive, "detections", tmp_path / "all.csv")
    answer = client.get("/ui/v1/exports/detections.csv")
    assert answer.status_code == 200
    assert answer.content == (tmp_path / "all.csv").read_bytes()
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith('attachment; filename="detections-2')
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_filter_narrows_the_rows(client: TestClient, archive: Tables, tmp_path: Path) -> None:
    query_ = {"camera": HOSTILE, "label": "fox"}
    text = client.get("/ui/v1/exports/detections.csv", params=query_).text
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["camera_id"], row["label"], row[EXPORTED_LABEL]) == (HOSTILE, "fox", "fox")
    data = client.get("/ui/v1/exports/results.parquet", params={"camera": "north"}).content
    statuses = pq.read_table(io.BytesIO(data))["status"].to_pylist()
    assert sorted(statuses) == ["empty", "ok"]


def test_an_export_is_recorded_with_its_keys(client: TestClient, archive: Tables) -> None:
    client.get("/ui/v1/exports/results.csv", params={"status": "ok"})
    (record,) = rows_of(archive, "exports")
    assert (record["relation"], record["rows"], record["inference_keys"]) == ("results", 2, [KEY])
    assert record["file"].startswith("results-2")
    page = Page(client.get("/ui/exports").text)
    cells = ["".join(texts) for tag, _, texts in page.elements if tag == "td"]
    assert cells[1:] == ["results", "production 1", "2", record["file"]]


@pytest.mark.parametrize(
    "path", ["media.csv", "detections.xlsx", "detections.csv?colour=red", "results.csv?min_score=2"]
)
def test_what_cannot_be_exported_is_a_problem(
    client: TestClient, archive: Tables, path: str
) -> None:
    answer = client.get(f"/ui/v1/exports/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert archive.existing("exports") is None


def test_more_exports_than_places_are_refused(
    context: Context, archive: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.routes.exports, "MAX_EXPORTS", 0)
    app = build_pages_app(context, Access())
    with TestClient(app, base_url="http://127.0.0.1:8000", root_path="/ui") as client:
        answer = client.get("/ui/v1/exports/results.csv")
    assert answer.status_code == 429
    assert "retry-after" in answer.headers
    assert archive.existing("exports") is None


def test_the_page_links_files_of_its_filter_and_shows_their_sql(
    client: TestClient, archive: Tables
) -> None:
    text = client.get("/ui/exports", params={"camera": HOSTILE, "label": "", "since": ""}).text
    assert "<script>alert" not in text
    assert "1 images match" in text
    page = Page(text)
    links = [attributes["href"] for tag, attributes, _ in page.elements if "download" in attributes]
    assert [link.partition("?")[0] for link in links] == [
        f"/ui/v1/exports/{name}.{kind}"
        for name in ("detections", "results")
        for kind in ("csv", "parquet")
    ]
    assert len(list(csv.reader(io.StringIO(client.get(links[0]).text)))) == 3
    commands = ["".join(texts) for tag, _, texts in page.elements if tag == "pre"]
    program, command, statement = shlex.split(commands[0])
    assert (program, command) == ("resight", "sql")
    assert len(query(archive, statement)) == 2


def test_an_empty_archive_has_no_exports(client: TestClient, tables: Tables) -> None:
    tables.snapshot("media")
    text = client.get("/ui/exports").text
    assert "0 images match" in text
    assert "None yet." in text
