"""resight ingest, sql and export: from a folder of files to a table others open."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from archive.delta.tables import Tables
from tests.cli.conftest import Resight
from tests.fixtures_local import jpeg, write_files

FACTS = ("files", "new", "changed", "unchanged", "missing", "others")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    files = {f"cam[{i}]/[/x] {i}.jpg": jpeg(shade=50 + 30 * i) for i in range(3)}
    return write_files(tmp_path / "archive", files | {"notes.txt": b"x", "south/bad.jpg": b""})


def test_ingest_reports_what_happened(resight: Resight, archive: Path) -> None:
    facts = json.loads(resight("ingest", archive, "--format", "json").ok())
    assert {name: facts[name] for name in FACTS} == dict(zip(FACTS, (4, 4, 0, 0, 0, 1), strict=True))
    assert facts["root"] == str(archive)
    facts = json.loads(resight("ingest", archive, "--format", "json").ok())
    assert (facts["unchanged"], facts["bytes_read"]) == (4, 0)
    facts = json.loads(resight("ingest", archive, "--verify", "--format", "json").ok())
    assert facts["bytes_read"] > 0
    assert (facts["without_camera"], "unchanged" in resight("ingest", archive).ok()) == (0, True)
    write_files(archive, {"loose.jpg": jpeg(shade=9)})
    assert "no camera: 1 files, without a serial number" in resight("ingest", archive).err
    done = resight("ingest", archive, "--camera", "north", "--format", "json")
    assert (json.loads(done.ok())["without_camera"], "no camera" in done.err) == (0, False)
    (archive / "loose.jpg").unlink()
    assert "no camera" not in resight("ingest", archive, "--yes").err
    (row,) = csv.DictReader(io.StringIO(resight("ingest", archive, "--format", "csv").ok()))
    assert row["files"] == "4"


def test_a_statement_reads_files_only_where_that_is_asked_for(resight: Resight, archive: Path, tmp_path: Path) -> None:
    resight("ingest", archive).ok()
    out = tmp_path / "copy.csv"
    statement = f"copy (select 1 as a) to '{out}' (format csv)"
    assert "--allow-files" in resight("sql", statement).refused(2)
    assert not out.exists()
    resight("sql", statement, "--allow-files").ok()
    assert out.read_text() == "a\n1\n"


def test_a_query_has_the_memory_that_it_is_given(resight: Resight, archive: Path) -> None:
    resight("ingest", archive).ok()
    limit = "select current_setting('memory_limit') as limit"
    found = resight("sql", limit, "--memory-mib", 64, "--format", "json").ok()
    assert json.loads(found) == [{"limit": "64.0 MiB"}]


def test_ingest_ends_with_1_when_a_file_could_not_be_read(resight: Resight, archive: Path) -> None:
    name = os.fsencode(archive / "south") + b"/B\xe4r[b].jpg"
    Path(os.fsdecode(name)).write_bytes(jpeg())
    done = resight("ingest", archive, "--format", "json")
    assert done.code == 1
    assert json.loads(done.out)["new"] == 4
    assert "unreadable: south/B\\udce4r[b].jpg" in done.err
    assert "unreadable     1\n" in resight("ingest", archive).out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["away"], 7, "does not exist; is it mounted"),
        ([".", "--template", "{rest}"], 2, "must have one {camera}"),
        ([".", "--template", "{camera}/{rest}", "--camera", "a"], 2, "--camera and --template exclude each other"),
        ([".", "--camera", "=a"], 2, "invalid camera '=a'"),
        ([".", "--template", "north"], 2, "the part of a path that names it"),
        ([".", "--template", "{site}/{camera}"], 2, "so each file would be a camera"),
        ([__file__], 2, f"is a file: name its folder, {Path(__file__).parent}"),
        (["ftps-not-known://x"], 7, "ftps-not-known"),
    ],
)
def test_what_cannot_be_ingested_is_refused(resight: Resight, words: list[str], code: int, message: str) -> None:
    assert message in resight("ingest", *words).refused(code)


def test_the_home_of_resight_is_no_archive(resight: Resight, home: Path, archive: Path) -> None:
    resight("ingest", archive).ok()
    for place in (home, home.parent, home / "tables"):
        assert "Resight keeps its own files in" in resight("ingest", place).refused(2)


def test_ingest_ends_with_1_while_a_disk_may_be_away_until_it_is_said_to_be_gone(
    resight: Resight, archive: Path
) -> None:
    write_files(archive, {f"card/{i}.jpg": jpeg(shade=i) for i in range(12)})
    resight("ingest", archive).ok()
    shutil.rmtree(archive / "card")
    done = resight("ingest", archive, "--format", "json")
    assert done.code == 1
    assert json.loads(done.out)["withheld"] == {"card/": 12}
    assert "12 files of card/" in done.err
    assert "--yes" in done.err
    gone = json.loads(resight("ingest", archive, "--yes", "--format", "json").ok())
    assert (gone["missing"], gone["withheld"]) == (12, {})


def test_an_archive_that_went_away_is_refused_and_changes_nothing(resight: Resight, archive: Path) -> None:
    resight("ingest", archive).ok()
    assert f"{archive}/nort does not exist; is it mounted" in resight("ingest", archive / "nort").refused(7)
    archive.rename(archive.with_name("moved"))
    refused = resight("ingest", archive).refused(7)
    assert "is it mounted" in refused
    assert f"--retire {archive}" in refused
    count = "select count(*) as n from media where missing_since is null"
    assert json.loads(resight("sql", count, "--format", "json").ok()) == [{"n": 4}]


SQL = "select path, width_px, header_error is null as sound from media order by path"


def test_sql_answers_in_every_format(resight: Resight, archive: Path) -> None:
    resight("ingest", archive).ok()
    rows = json.loads(resight("sql", SQL, "--format", "json").ok())
    assert [row["sound"] for row in rows] == [True, True, True, False]
    assert rows[0] == {"path": "cam[0]/[/x] 0.jpg", "width_px": 48, "sound": True}
    (header, *lines) = csv.reader(io.StringIO(resight("sql", SQL, "--format", "csv").ok()))
    assert header == ["path", "width_px", "sound"]
    assert lines[3] == ["south/bad.jpg", "", "False"]
    table = resight("sql", SQL).ok().splitlines()
    assert table[0].split() == ["path", "width_px", "sound"]
    assert table[1].split() == ["cam[0]/[/x]", "0.jpg", "48", "True"]
    assert len(table) == 5


def test_sql_over_nothing_has_a_header_and_makes_no_table(resight: Resight, home: Path) -> None:
    Tables(str(home / "tables")).snapshot("media")
    assert resight("sql", SQL, "--format", "csv").ok().split() == ["path,width_px,sound"]
    assert [folder.name for folder in (home / "tables").iterdir()] == ["media"]


def test_wrong_sql_ends_with_2(resight: Resight, home: Path) -> None:
    Tables(str(home / "tables")).snapshot("media")
    for statement in ("", "selec 1", "drop table media", "select 'infinity'::date"):
        resight("sql", statement).refused(2)


def test_export_writes_files_that_others_open(resight: Resight, archive: Path, tmp_path: Path) -> None:
    resight("ingest", archive).ok()
    parquet, text = tmp_path / "media.parquet", tmp_path / "media.csv"
    facts = json.loads(resight("export", "media", parquet, "--format", "json").ok())
    assert facts == {"relation": "media", "rows": 4, "file": str(parquet)}
    assert pq.read_table(parquet).num_rows == 4
    assert "rows      4" in resight("export", "media", text).ok()
    assert len(list(csv.DictReader(text.open(newline="")))) == 4


def test_what_cannot_be_exported_ends_with_2(resight: Resight, tmp_path: Path) -> None:
    for view, name, message in (
        ("deer", "x.csv", "use one of media, images, results, detections, runs"),
        ("media", "x.xlsx", "ends in .parquet or .csv"),
    ):
        assert message in resight("export", view, tmp_path / name).refused(2)
        assert not (tmp_path / name).exists()


def test_no_second_catalogue_is_made_where_a_disk_is_not_mounted(
    resight: Resight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    write_files(tmp_path / "archive", {"north/a.jpg": jpeg()})
    monkeypatch.setenv("RESIGHT_HOME", str(disk / "home"))
    reading = (["sql", "select 1"], ["reprocess", "--model", "x"], ["runs", "list"], ["layers", "list"])
    for words in (["ingest", tmp_path / "archive"], ["up"], *reading):
        assert f"{disk} does not exist; is it mounted?" in resight(*words).refused(7)
    assert not disk.exists()
    disk.mkdir()
    assert "new            1" in resight("ingest", tmp_path / "archive").ok()
    for place in (tmp_path / "mnt", tmp_path / "mnt" / "tables"):
        place.mkdir(parents=True)
        monkeypatch.setenv("RESIGHT_TABLES", str(place))
        done = resight("ingest", tmp_path / "archive")
        assert "new            1" in done.ok()
        assert "; this home has used those in " in done.err
        assert "before" not in resight("ingest", tmp_path / "archive").err
        shutil.rmtree(tmp_path / "mnt")
        (tmp_path / "mnt").mkdir()
        for words in (["ingest", tmp_path / "archive"], ["up"], *reading):
            assert f"nothing at {place}, where the tables of this home were" in resight(*words).refused(7)
        assert not list((tmp_path / "mnt").iterdir())
        (tmp_path / "mnt").rmdir()


def test_ctrl_c_in_an_ingest_says_what_is_kept(
    resight: Resight, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.archive.ingest", interrupted)
    done = resight("ingest", archive)
    assert (done.code, done.err.split(";")[0]) == (130, "interrupted")


def test_a_file_above_the_size_limit_is_named(resight: Resight, archive: Path) -> None:
    with (archive / "ortho.tif").open("wb") as file:
        file.truncate(3 << 20)
    done = resight("ingest", archive, "--max-mib", "2")
    assert done.code == 1
    assert "unreadable: ortho.tif: 3 MiB, over --max-mib 2" in done.err


def test_ingest_does_not_begin_on_a_disk_that_is_almost_full(resight: Resight, archive: Path, home: Path) -> None:
    home.mkdir()
    (home / "policy.toml").write_text(f"[stop]\nfree_mib = {2**40}\n")
    assert "lower free_mib in [stop] of the policy" in resight("ingest", archive).refused(7)
    assert not (home / "tables").exists()
