"""Ingest: one row per file, no file read twice, and no row lost if an archive is unavailable."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import boto3
import pytest

from archive.catalogue.ingest import IngestReport, ingest, retire
from archive.delta.tables import Tables
from archive.views.query import archives, connect
from examples.sample_archive import Summary
from model_store.errors import BadRequest, StorageUnreachable
from model_store.storage import Folder
from tests.fixtures_local import jpeg, rows_of, write_files


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_files(tmp_path / "small", {f"north/{i}.jpg": jpeg(shade=60 + 40 * i) for i in range(3)})


def media(tables: Tables) -> dict[str, dict[str, Any]]:
    rows = rows_of(tables, "media")
    by_path = {row["path"]: row for row in rows}
    assert len(by_path) == len(rows), "a path has two rows"
    return by_path


def counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.new, report.changed, report.unchanged, report.missing


def test_every_file_has_one_row_under_its_path(
    sample: tuple[Path, Summary], ingested: IngestReport, tables: Tables
) -> None:
    root, summary = sample
    rows = media(tables)
    assert counts(ingested) == (summary.files, 0, 0, 0)
    assert {path: row["media_sha256"] for path, row in rows.items()} == {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*")
        if file.is_file()
    }
    assert {row["source_root"] for row in rows.values()} == {str(root)}
    assert ingested.bytes_read == sum(row["size_bytes"] for row in rows.values())
    assert {path for path, row in rows.items() if row["header_error"]} == set(summary.expected_failures)
    assert ingested.unreadable == {}


@pytest.mark.parametrize("below", ["card/", "notes.txt"])
def test_a_first_ingest_that_finds_nothing_is_an_error(tmp_path: Path, tables: Tables, below: str) -> None:
    """Mount points without their disk look like this."""
    root = tmp_path / "empty"
    root.mkdir()
    if below.endswith("/"):
        (root / below).mkdir()
    elif below:
        write_files(root, {below: b"x"})
    with pytest.raises(StorageUnreachable, match=r"no images .* is it mounted"):
        ingest(tables, str(root))
    assert media(tables) == {}


def test_a_second_ingest_reads_nothing_and_commits_nothing(
    small: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(tables, str(small))
    version = tables.snapshot("media").version()

    def no_reading(*_: object) -> bytes:
        raise AssertionError("read again")

    monkeypatch.setattr("archive.catalogue.ingest.media_row", no_reading)
    report = ingest(tables, str(small))
    assert (*counts(report), report.bytes_read) == (0, 0, 3, 0, 0)
    assert tables.snapshot("media").version() == version


def test_a_renamed_file_is_a_new_row_and_the_old_one_is_marked_missing(small: Path, tables: Tables) -> None:
    ingest(tables, str(small))
    (small / "north/1.jpg").rename(small / "north/moved.jpg")
    assert counts(ingest(tables, str(small))) == (1, 0, 2, 1)
    rows = media(tables)
    assert rows["north/moved.jpg"]["media_sha256"] == rows["north/1.jpg"]["media_sha256"]
    gone_since = rows["north/1.jpg"]["missing_since"]
    assert gone_since is not None
    assert [p for p, row in rows.items() if row["missing_since"]] == ["north/1.jpg"]
    ingest(tables, str(small))
    assert media(tables)["north/1.jpg"]["missing_since"] == gone_since


def test_an_archive_that_suddenly_lists_nothing_is_refused_and_nothing_changes(small: Path, tables: Tables) -> None:
    ingest(tables, str(small))
    before, version = media(tables), tables.snapshot("media").version()
    shutil.rmtree(small)
    small.mkdir()
    with pytest.raises(StorageUnreachable, match="mounted"):
        ingest(tables, str(small))
    assert media(tables) == before
    assert tables.snapshot("media").version() == version


def test_a_file_that_cannot_be_read_is_reported_and_tried_again_next_time(
    small: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Folder.read

    def read_all_but_one(folder: Folder, path: str) -> bytes:
        if path == "north/1.jpg":
            raise StorageUnreachable("input/output error")
        return read(folder, path)

    for verify, done, again in ((False, (2, 0, 0, 0), (1, 0, 2, 0)), (True, (0, 0, 2, 0), (0, 1, 2, 0))):
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "read", read_all_but_one)
            report = ingest(tables, str(small), verify=verify)
        assert counts(report) == done
        assert report.unreadable == {"north/1.jpg": "input/output error"}
        assert counts(ingest(tables, str(small))) == again


def test_a_name_that_is_not_utf8_is_reported_and_the_others_are_ingested(small: Path, tables: Tables) -> None:
    name = os.fsencode(small / "north") + b"/B\xe4r.jpg"
    Path(os.fsdecode(name)).write_bytes(jpeg())
    report = ingest(tables, str(small))
    assert counts(report) == (3, 0, 0, 0)
    assert list(report.unreadable) == ["north/B\\udce4r.jpg"]
    assert "not UTF-8" in report.unreadable["north/B\\udce4r.jpg"]


def test_an_archive_above_or_below_another_is_refused_until_that_one_is_retired(
    small: Path, tmp_path: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(tables, str(small))
    link = tmp_path / "link"
    link.symlink_to(small, target_is_directory=True)
    monkeypatch.chdir(small)
    for same in (f"{small}/", str(link), "."):
        assert counts(ingest(tables, same)) == (0, 0, 3, 0)
    for wrong in (f"{link}/north/", "north", ".."):
        with pytest.raises(BadRequest, match="would be counted twice"):
            ingest(tables, wrong)
    assert len(media(tables)) == 3
    retire(tables, str(small))
    assert counts(ingest(tables, "north")) == (3, 0, 0, 0)
    with connect(tables) as sql:
        assert sql.sql("select source_root, count(*) from images group by 1").fetchall() == [(f"{small}/north", 3)]


def test_an_interrupted_ingest_of_changes_goes_on_where_it_stopped(
    small: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archive.catalogue.ingest.COMMIT_ROWS", 1)
    monkeypatch.setattr("archive.catalogue.row_updates.PATIENCE", 0)
    ingest(tables, str(small))
    for i in range(3):
        write_files(small, {f"north/{i}.jpg": jpeg(shade=200 + i)})
        os.utime(small / f"north/{i}.jpg", (5, 5))

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(tables, str(small), progress=stop)
    assert counts(ingest(tables, str(small))) == (0, 1, 2, 0)
    assert {path: row["media_sha256"] for path, row in media(tables).items()} == {
        f"north/{i}.jpg": hashlib.sha256(jpeg(shade=200 + i)).hexdigest() for i in range(3)
    }


def test_however_many_files_are_gone_they_are_marked_in_one_commit(
    small: Path, tmp_path: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archive.catalogue.ingest.MANY_ROWS", 2)
    monkeypatch.setattr("archive.delta.tables.KEYS_PER_COMMIT", 1)
    other = write_files(tmp_path / "other", {"south/9.jpg": jpeg(shade=9)})
    for archive in (small, other):
        ingest(tables, str(archive))
    before, version = media(tables), tables.snapshot("media").version()
    assert retire(tables, str(small)) == 3
    assert tables.snapshot("media").version() == version + 1
    after = media(tables)
    assert {path for path, row in after.items() if row["missing_since"]} == {f"north/{i}.jpg" for i in range(3)}
    assert {path: row | {"missing_since": None} for path, row in after.items()} == before


def test_changed_rows_are_committed_in_few_commits(
    tmp_path: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading takes no time here and never pays for a commit, so all rows are in the last one."""
    monkeypatch.setattr("archive.catalogue.ingest.COMMIT_ROWS", 2)
    monkeypatch.setattr("archive.catalogue.row_updates.PATIENCE", 1e9)
    root = write_files(tmp_path / "own", {f"{i}.jpg": jpeg(shade=i) for i in range(9)})
    ingest(tables, str(root))
    for i in range(9):
        os.utime(root / f"{i}.jpg", (5, 5))
    version = tables.snapshot("media").version()
    assert counts(ingest(tables, str(root))) == (0, 9, 0, 0)
    assert tables.snapshot("media").version() == version + 2
    assert counts(ingest(tables, str(root))) == (0, 0, 9, 0)


def test_a_template_that_matches_no_file_is_refused_and_changes_nothing(small: Path, tables: Tables) -> None:
    ingest(tables, str(small))
    version = tables.snapshot("media").version()
    with pytest.raises(BadRequest, match=r"'foo-\{site\}/\{camera\}/\{rest\}' matches no file, such as .*\.jpg"):
        ingest(tables, str(small), template="foo-{site}/{camera}/{rest}")
    assert tables.snapshot("media").version() == version
    assert counts(ingest(tables, str(small)))[:2] == (0, 0), "the template from before is kept"


def test_the_camera_of_a_card_is_kept_until_a_template_replaces_it(tmp_path: Path, tables: Tables) -> None:
    own = {"DCIM/own.jpg": jpeg(detail={0xA431: "SN1"})}
    root = write_files(tmp_path / "card", {"1.jpg": jpeg(shade=1), "DCIM/2.jpg": jpeg(shade=2)} | own)

    def cameras(*options: str) -> dict[str, str | None]:
        ingest(tables, str(root), *options)
        return {path: row["camera_id"] for path, row in media(tables).items()}

    assert cameras() == {"1.jpg": None, "DCIM/2.jpg": "DCIM", "DCIM/own.jpg": "SN1"}
    north = dict.fromkeys(("1.jpg", "DCIM/2.jpg"), "north (a|b)") | {"DCIM/own.jpg": "SN1"}
    assert cameras("{camera=north (a|b)}") == north
    write_files(root, {"new.jpg": jpeg(shade=3)})
    assert cameras() == north | {"new.jpg": "north (a|b)"}
    for name in ("=cmd", "a/b", " ", "a\nb", ".a", "x" * 101):
        with pytest.raises(BadRequest, match="invalid camera"):
            cameras(f"{{camera={name}}}")
    assert cameras("{camera}/{rest}")["DCIM/2.jpg"] == "DCIM"
    assert cameras()["new.jpg"] is None


def test_another_template_names_the_cameras_anew_without_reading_and_is_kept(
    small: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archive.catalogue.row_updates.MANY_ROWS", 1)
    write_files(small, {"north/own.jpg": jpeg(detail={0xA431: "SN1"}), "top.jpg": jpeg(shade=9)})
    ingest(tables, str(small))
    before = media(tables)
    report = ingest(tables, str(small), template="{site}/{camera}.jpg")
    assert (*counts(report), report.bytes_read) == (0, 3, 2, 0, 0)
    after = media(tables)
    for i in range(3):
        named = {"camera_id": str(i), "camera_source": "path"}
        assert after[f"north/{i}.jpg"] == before[f"north/{i}.jpg"] | named
    assert (after["north/own.jpg"]["camera_id"], after["top.jpg"]["camera_id"]) == ("SN1", None)
    write_files(small, {"north/7.jpg": jpeg(shade=7)})
    assert counts(ingest(tables, str(small))) == (1, 0, 5, 0)
    assert media(tables)["north/7.jpg"]["camera_id"] == "7"
    report = ingest(tables, str(small), template="{camera}.jpg")
    assert counts(report) == (0, 5, 1, 0)
    cameras = {path: (row["camera_id"], row["camera_source"]) for path, row in media(tables).items()}
    assert cameras.pop("north/own.jpg") == ("SN1", "exif_serial")
    assert cameras.pop("top.jpg") == ("top", "path")
    assert set(cameras.values()) == {(None, None)}


def test_names_of_folders_are_cleaned_for_the_camera_and_kept_in_the_path(
    tmp_path: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of an older release, with the names as they are, get the clean ones without reading."""
    folders = {"=cmd|'x'!A0": "cmd|'x'!A0", "north\x1b[2J\x07": "north[2J", "south": "south"}
    root = str(write_files(tmp_path / "card", {f"{name}/1.jpg": jpeg(shade=9) for name in folders}))
    with monkeypatch.context() as older:
        older.setattr("archive.catalogue.media.clean_text", str)
        ingest(tables, root)
    assert {row["camera_id"] for row in media(tables).values()} == set(folders)
    report = ingest(tables, root)
    assert (*counts(report), report.bytes_read) == (0, 2, 1, 0, 0)
    assert {path.partition("/")[0]: row["camera_id"] for path, row in media(tables).items()} == folders
    assert counts(ingest(tables, root)) == (0, 0, 3, 0)
    assert counts(ingest(tables, root, verify=True)) == (0, 0, 3, 0)


def test_a_retired_archive_is_left_out_and_comes_back_when_it_is_ingested_again(small: Path, tables: Tables) -> None:
    ingest(tables, str(small))
    assert retire(tables, str(small)) == 3
    assert all(row["missing_since"] for row in media(tables).values())
    assert archives(tables) == {str(small): 0}
    ingest(tables, str(small))
    assert not any(row["missing_since"] for row in media(tables).values())
    assert archives(tables) == {str(small): 3}
    with pytest.raises(BadRequest, match="no file of .* is catalogued"):
        retire(tables, "/never/ingested")


@pytest.mark.parametrize("many_rows", [20_000, 2])
def test_many_changes_at_once_are_each_in_the_report_and_the_table(
    tmp_path: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch, many_rows: int
) -> None:
    """Ingest new, changed, unchanged, gone, restored and unreadable files at once, in parts of several sizes."""
    for module in ("ingest", "row_updates"):
        monkeypatch.setattr(f"archive.catalogue.{module}.MANY_ROWS", many_rows)
    monkeypatch.setattr("archive.delta.tables.KEYS_PER_COMMIT", 2)
    monkeypatch.setattr("archive.catalogue.diff.WINDOW_ROWS", 3)
    monkeypatch.setattr("archive.catalogue.ingest.COMMIT_ROWS", 5)
    kinds = ["same", "changed", "gone", "back", "long-gone"]
    root = write_files(tmp_path / "many", {f"{k}/{i}.jpg": jpeg(shade=i) for k in kinds for i in range(7)})
    ingest(tables, str(root))
    for kind in ("back", "long-gone"):
        shutil.rmtree(root / kind)
    ingest(tables, str(root), believe=True)
    shutil.rmtree(root / "gone")
    later = {f"{k}/{i}.jpg": jpeg(shade=i + 100) for k in ("changed", "new") for i in range(7)}
    write_files(root, later | {f"back/{i}.jpg": jpeg(shade=i) for i in range(7)})
    for i in range(7):
        os.utime(root / f"changed/{i}.jpg", (5, 5))
    read = Folder.read

    def read_all_but_two(folder: Folder, path: str) -> bytes:
        if path in ("new/3.jpg", "changed/3.jpg"):
            raise StorageUnreachable("input/output error")
        return read(folder, path)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "read", read_all_but_two)
        report = ingest(tables, str(root))
    assert counts(report) == (6, 6 + 7, 7, 7 + 7)
    assert (report.files, set(report.unreadable)) == (28, {"new/3.jpg", "changed/3.jpg"})
    rows = media(tables)
    assert {path.split("/")[0] for path, row in rows.items() if row["missing_since"]} == {"gone", "long-gone"}
    assert len(rows) == 5 * 7 + 6
    for path, data in later.items():
        if path not in report.unreadable:
            assert rows[path]["media_sha256"] == hashlib.sha256(data).hexdigest()
    assert counts(ingest(tables, str(root))) == (1, 1, 26, 14)


def test_a_commit_does_not_look_at_the_table_again_unless_it_lost_a_race(
    tmp_path: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archive.catalogue.ingest.COMMIT_ROWS", 2)
    root = write_files(tmp_path / "own", {f"{i}.jpg": jpeg(shade=i) for i in range(9)})
    opened: list[str] = []
    snapshot = Tables.snapshot
    monkeypatch.setattr(Tables, "snapshot", lambda self, name: opened.append(name) or snapshot(self, name))
    assert counts(ingest(tables, str(root))) == (9, 0, 0, 0)
    assert opened == ["media"]
    assert tables.snapshot("media").version() == 5


def test_an_archive_on_s3_is_catalogued_as_one_on_a_disk(small: Path, tables: Tables, s3_endpoint: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="catalogued")
    for file in small.rglob("*.jpg"):
        client.upload_file(str(file), "catalogued", f"field/{file.relative_to(small)}")
    there = Tables("s3://catalogued/tables")
    assert counts(ingest(there, "s3://catalogued/field")) == (3, 0, 0, 0)
    assert counts(ingest(there, "s3://catalogued/field/")) == (0, 0, 3, 0)
    client.put_object(Bucket="catalogued", Key="field/north/1.jpg", Body=jpeg(shade=8))
    client.delete_object(Bucket="catalogued", Key="field/north/2.jpg")
    assert counts(ingest(there, "s3://catalogued/field")) == (0, 1, 1, 1)
    ingest(tables, str(small))
    here, rows = media(tables), media(there)
    assert rows["north/0.jpg"]["media_sha256"] == here["north/0.jpg"]["media_sha256"]
    assert rows["north/1.jpg"]["media_sha256"] == hashlib.sha256(jpeg(shade=8)).hexdigest()
    assert [path for path, row in rows.items() if row["missing_since"]] == ["north/2.jpg"]
