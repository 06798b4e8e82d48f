"""Commands on folders with odd names: they work, or refuse the name and say what to do. Never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archive.catalogue.uploads import keep
from archive.delta.tables import Tables
from model_store.storage import Folder
from serve.settings import Settings
from tests.cli.conftest import Resight
from tests.fixtures_local import jpeg, motion_store, put_results, result_rows, rows_of, write_files

WORKS = ("jörg #1 日本 ~a?b*c {x,y};a&b=c", '-x jo\u0308rg 100% a::b:c it\'s <b> "$HOME `id`"')
"""Each has several characters that something could take for its own."""
REFUSED = {
    "[prod]": "[",
    "per%20cent": "%20",
    "back\\slash": "\\",
    "a|b": "|",
    "a^b": "^",
    "tab\there": "\t",
    "line\nbreak": "\n",
}
"""The name, and what of it is refused."""
ELSEWHERE = ("models", "uploads")


@pytest.mark.parametrize("name", WORKS)
def test_commands_work_twice_in_a_folder_of_any_name(
    resight: Resight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Tables and crops are below a home of the name, models and uploads in folders of the name itself."""
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / name))
    for place in ELSEWHERE:
        monkeypatch.setenv(f"RESIGHT_{place.upper()}", str(tmp_path / place / name))
    settings = Settings()
    motion_store(Path(settings.models_url), "1")
    archive = write_files(tmp_path / "archive" / name, {f"north/{name}.jpg": jpeg()})
    keep(Folder(settings.uploads_url), "south", jpeg(shade=10))
    for url, seen in ((archive, "new"), (archive, "unchanged"), (settings.uploads_url, "new")):
        assert json.loads(resight("ingest", url, "--format", "json").ok())[seen] == 1
    tables = Tables(settings.tables_url)
    (row, _) = rows_of(tables, "media")
    key = json.loads(resight("models", "show", "blobs@1", "--format", "json").ok())["inference_key"]
    seen_rows = result_rows([row["media_sha256"]], key, width_px=48, height_px=32)
    put_results(tables, seen_rows)
    dry = resight("reprocess", "--model", "blobs", "--dry-run", "--snips", "--format", "json").ok()
    assert (json.loads(dry)["requested"], json.loads(dry)["reused"]) == (2, 1)
    out = tmp_path / name / f"{name}.csv"
    resight("export", "all_results", out).ok()
    assert len(out.read_text().splitlines()) == 2
    resight("compact", "media", "--min-files", 2, "--vacuum").ok()
    sql = "select count(*) as n from media"
    assert json.loads(resight("sql", sql, "--format", "json").ok()) == [{"n": 2}]
    resight("metrics").ok()
    resight("models", "verify", "blobs@1").ok()
    Folder(settings.snips_url).write("a/b.jpg", b"x")
    assert Folder(settings.snips_url).names("a") == ["b.jpg"]
    inside = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.*")}
    assert inside <= {name, "archive", *ELSEWHERE}


def test_tables_are_refused_where_their_library_cannot_open_them(
    resight: Resight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, part in REFUSED.items():
        monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / name))
        assert f"with {part!r}" in resight("sql", "select 1").refused(2)
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / (name := "[a%20b|c^")))
    for words in (("ingest", tmp_path), ("sql", "select 1"), ("up",), ("status",), ("metrics",)):
        assert "RESIGHT_TABLES" in resight(*words).refused(2)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("RESIGHT_TABLES", str(tmp_path / "tables"))
    archive = write_files(tmp_path / name / "archive", {f"{name}.jpg": jpeg()})
    motion_store(tmp_path / name / "models", "1")
    for seen in ("new", "unchanged"):
        assert json.loads(resight("ingest", archive, "--format", "json").ok())[seen] == 1
    resight("reprocess", "--model", "blobs", "--dry-run").ok()


def test_tables_are_refused_at_keys_that_a_url_ends_before(
    resight: Resight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`s3://bucket/a#1` would put every table into one folder, `a`."""
    for key in ("a#1", "a?b", "a::b", "[x]", "per%20cent"):
        monkeypatch.setenv("RESIGHT_TABLES", f"s3://bucket/{key}")
        assert "RESIGHT_TABLES" in resight("ingest", tmp_path).refused(2)
