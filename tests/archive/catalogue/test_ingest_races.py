"""Two concurrent ingests of one archive: the later reading of a file wins, even if it is committed first."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import archive.catalogue.ingest
from archive.catalogue.ingest import ingest
from archive.catalogue.row_updates import add_files, replace_some
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from model_store.storage import Folder
from tests.archive.media_rows import LONG_AGO, ROOT, media_rows, put_media
from tests.fixtures_local import jpeg, rows_of, write_files

LATER = LONG_AGO.replace(year=2025)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.delta.tables.time.sleep", lambda _: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "archive", {f"{i}.jpg": jpeg(shade=i) for i in range(4)})


def put(root: Path, name: str, shade: int) -> str:
    """Write other bytes with another time; return their digest."""
    data = jpeg(shade=shade)
    write_files(root, {name: data})
    os.utime(root / name, (shade, shade))
    return hashlib.sha256(data).hexdigest()


def media(tables: Tables) -> dict[str, dict[str, Any]]:
    rows = rows_of(tables, "media")
    by_path = {row["path"]: row for row in rows}
    assert len(by_path) == len(rows), "a path has two rows"
    return by_path


def before_listing(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Run `act` once, after the ingest has opened `media`."""
    listed, acts = archive.catalogue.ingest.list_files, [act]

    def list_files(*place: Any) -> Iterator[Any]:
        if acts:
            acts.pop()()
        yield from listed(*place)

    monkeypatch.setattr(archive.catalogue.ingest, "list_files", list_files)


def after_reading(monkeypatch: pytest.MonkeyPatch, path: str, act: Callable[[], None]) -> None:
    """Run `act` once, after this file was read and before its row is written."""
    read, acts = Folder.read, [act]

    def reading(folder: Folder, relative: str) -> bytes:
        data = read(folder, relative)
        if relative == path and acts:
            acts.pop()()
        return data

    monkeypatch.setattr(Folder, "read", reading)


@pytest.mark.parametrize(("many_rows", "is_new"), [(20_000, True), (20_000, False), (0, False)])
def test_an_older_reading_that_is_committed_last_replaces_nothing(
    root: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch, many_rows: int, is_new: bool
) -> None:
    monkeypatch.setattr("archive.catalogue.row_updates.MANY_ROWS", many_rows)
    if not is_new:
        ingest(tables, str(root))
    put(root, "1.jpg", 101)
    second = put(root, "2.jpg", 102)
    newest: list[str] = []

    def another_ingest_of_newer_bytes() -> None:
        newest.append(put(root, "1.jpg", 111))
        ingest(Tables(tables.url), str(root))

    after_reading(monkeypatch, "1.jpg", another_ingest_of_newer_bytes)
    ingest(tables, str(root))
    rows = media(tables)
    assert rows["1.jpg"]["media_sha256"] == newest[0]
    assert rows["2.jpg"]["media_sha256"] == second
    assert ingest(tables, str(root)).bytes_read == 0


def test_a_newer_reading_that_is_committed_last_wins_also_for_a_new_file(
    root: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest: list[str] = []

    def another_ingest_of_older_bytes() -> None:
        ingest(Tables(tables.url), str(root))
        newest.append(put(root, "1.jpg", 111))

    before_listing(monkeypatch, another_ingest_of_older_bytes)
    ingest(tables, str(root))
    rows = media(tables)
    assert sorted(rows) == [f"{i}.jpg" for i in range(4)]
    assert rows["1.jpg"]["media_sha256"] == newest[0]
    assert ingest(tables, str(root)).bytes_read == 0


@pytest.mark.parametrize("many_rows", [20_000, 0])
def test_a_file_that_was_read_since_the_listing_is_not_marked_as_missing(
    root: Path, tmp_path: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch, many_rows: int
) -> None:
    for module in ("ingest", "row_updates"):
        monkeypatch.setattr(f"archive.catalogue.{module}.MANY_ROWS", many_rows)
    ingest(tables, str(root))
    shutil.move(root / "1.jpg", tmp_path / "1.jpg")
    (root / "3.jpg").unlink()
    put(root, "0.jpg", 100)
    newest: list[str] = []

    def back_with_other_bytes() -> None:
        newest.append(put(root, "1.jpg", 111))
        ingest(Tables(tables.url), str(root))

    after_reading(monkeypatch, "0.jpg", back_with_other_bytes)
    ingest(tables, str(root))
    rows = media(tables)
    assert [path for path, row in rows.items() if row["missing_since"]] == ["3.jpg"]
    assert rows["1.jpg"]["media_sha256"] == newest[0]


def at(path: str, tag: str, when: Any, missing: Any = None) -> pa.Table:
    return media_rows({path: tag}, ingested_at=when, missing_since=missing)


@pytest.mark.parametrize(
    ("there", "given", "wins"),
    [
        ((LONG_AGO, None), (LATER, None), True),
        ((LATER, None), (LONG_AGO, None), False),
        ((LONG_AGO, None), (LONG_AGO, LATER), True),
        ((LONG_AGO, LATER), (LONG_AGO, None), False),
        ((None, None), (LONG_AGO, None), True),
    ],
)
def test_of_two_rows_of_one_file_the_later_observation_stays(
    tables: Tables, there: tuple[Any, Any], given: tuple[Any, Any], wins: bool
) -> None:
    """Contents are observed when read, absences when listed."""
    put_media(tables, at("a", "there", *there))
    base = tables.snapshot("media")
    put_media(tables, at("b", "beside", None))
    tables._raced.add(("media", f"media:{ROOT}"))  # so that the writer checks the table again
    replace_some(Writer(tables, "media", ROOT, base), at("a", "given", *given))
    assert media(tables)["a"]["content_tag"] == ("given" if wins else "there")
    assert len(media(tables)) == 2


@pytest.mark.parametrize(
    ("tag", "when", "replaced"), [("other", LATER, True), ("other", None, False), ("same", LATER, False)]
)
def test_an_added_row_replaces_one_that_is_older_and_another(
    tables: Tables, tag: str, when: Any, replaced: bool
) -> None:
    put_media(tables, at("a", "same", LONG_AGO))
    version = tables.snapshot("media").version()
    rows = pa.concat_tables([at("a", tag, when), at("b", "new", LATER)])
    add_files(Writer(tables, "media", ROOT), rows)
    assert media(tables)["a"]["content_tag"] == (tag if replaced else "same")
    assert media(tables)["b"]["content_tag"] == "new"
    assert tables.snapshot("media").version() == version + 1 + replaced
