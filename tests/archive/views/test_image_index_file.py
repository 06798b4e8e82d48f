"""Files of an image index: how they follow the tables, and what happens to damaged, foreign and concurrent ones."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import archive.views.image_index_file as files
from archive.annotations.assertions import append
from archive.delta.compact import compact
from archive.delta.tables import Tables
from archive.delta.writer import add_results
from archive.schemas import ASSERTIONS
from archive.views.image_filter import ImageFilter
from archive.views.image_index import ImageIndex
from archive.views.indexed_search import IndexedSearch
from archive.views.search import ImageSearch, find
from archive.views.views import Views
from model_store.errors import DeadlinePassed, StorageUnreachable
from tests.archive.media_rows import replace_with
from tests.archive.resolve_worlds import person
from tests.archive.views.test_search import VIEW, put, world
from tests.fixtures_local import result_rows, rows_of

EVERYTHING = ImageFilter()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with tables and the index of their view, for copies."""
    place = tmp_path_factory.mktemp("built")
    tables, images = Tables(str(place / "tables")), world(images=40)
    put(tables, images[:20])
    put(tables, images[20:])
    Views(tables.url).publish(VIEW, after=0)
    ImageIndex(tables, place / "index").state()
    return place


@pytest.fixture
def tables(built: Path, tmp_path: Path) -> Tables:
    return Tables(str(shutil.copytree(built / "tables", tmp_path / "tables")))


@pytest.fixture
def folder(built: Path, tables: Tables, tmp_path: Path) -> Path:
    """Return a folder with the index of `tables`, as if it was built there."""
    folder = Path(shutil.copytree(built / "index", tmp_path / "index"))
    with_header(the_file(folder), f"replace(text, '{built}/tables', '{tables.url}')")
    return folder


@pytest.fixture
def index(tables: Tables, folder: Path, written: list[int | None]) -> ImageIndex:
    opened = ImageIndex(tables, folder)
    opened.state()
    assert written == [], "the copy is used"
    return opened


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Record each file that is written: the number of its images that were computed, None for all."""
    counts: list[int | None] = []
    write = files._write

    def counted(source: Any, tables: Any, file: Any, images: Any, *more: Any) -> None:
        counts.append(None if images is None else len(images))
        write(source, tables, file, images, *more)

    monkeypatch.setattr(files, "_write", counted)
    return counts


def listed(index: ImageIndex, **wanted: Any) -> list[tuple[Any, ...]]:
    rows = index.page(ImageFilter(**wanted), 1000).rows
    return [(row["media_sha256"], row["path"], row["status"], row["n_boxes"]) for row in rows]


def searched(tables: Tables) -> list[tuple[Any, ...]]:
    found = find(tables, ImageSearch(limit=1000), 60).images
    names = ("media_sha256", "path", "status")
    return [(*(i[name] for name in names), sum(i["labels"].values())) for i in found]


def rows_of_file(tables: Tables, folder: Path) -> dict[str, pa.Table]:
    """Return the sorted rows of each table of an index that is in the folder or built there."""
    ImageIndex(tables, folder).state()
    with duckdb.connect(the_file(folder), read_only=True) as sql:
        names = [name for (name,) in sql.execute("select table_name from duckdb_tables()").fetchall()]
        return {name: sql.sql(f"from {name} order by all").to_arrow_table() for name in names if name != "about"}


def state_a_fact(tables: Tables, sha: str, **more: Any) -> None:
    append(tables, pa.Table.from_pylist([person("suppress", sha, **more)], schema=ASSERTIONS))


def upload(tables: Tables, digit: str = "f") -> None:
    image = world(images=1)[0] | {"media_sha256": digit * 64, "path": f"{digit}.jpg", "gone": False}
    put(tables, [image | {"status": "ok", "boxes": [("fox", 0.9)]}])


@pytest.mark.parametrize(
    ("change", "images"),
    [
        (upload, 1),
        (lambda tables: state_a_fact(tables, rows_of(tables, "results")[0]["media_sha256"]), 1),
        (lambda tables: add_results(tables, "other", result_rows(["a", "b"], key="other")), 0),
        (lambda tables: compact(tables, "results", min_files=1), 0),
        (lambda tables: Views(tables.url).publish(VIEW, after=1), 0),
        (lambda tables: Views(tables.url).publish(VIEW.model_copy(update={"threshold": 0.9}), 1), None),
    ],
    ids=["upload", "statement", "another key", "compaction", "the same view", "another view"],
)
def test_only_images_of_new_rows_are_computed_again(
    tables: Tables,
    index: ImageIndex,
    folder: Path,
    written: list[int | None],
    change: Callable[[Tables], object],
    images: int | None,
) -> None:
    before = listed(index)
    change(tables)
    assert index.state().behind_s > 0
    assert listed(index) == before
    of_file = IndexedSearch(folder=str(folder), limit=1000).answer(tables, 60)
    assert of_file == find(tables, ImageSearch(limit=1000), 60), "a search has the newer rows too"
    assert index.refresh() is (images != 0)
    assert index.state().behind_s == 0
    assert written == ([] if images == 0 else [images])
    assert listed(index) == searched(tables)
    assert (listed(index) != before) is (images != 0)
    assert index.refresh() is False


def test_an_image_that_a_person_judges_is_reviewed_until_that_is_withdrawn(tables: Tables, index: ImageIndex) -> None:
    sha = next(row["media_sha256"] for row in rows_of(tables, "results") if row["detections"])
    state_a_fact(tables, sha)
    index.refresh()
    assert [image[0] for image in listed(index, reviewed=True)] == [sha]
    assert [image[2] for image in listed(index, reviewed=True)] == ["empty"]
    append(tables, pa.Table.from_pylist([person("withdraw", sha, hour=1)], schema=ASSERTIONS))
    index.refresh()
    assert listed(index, reviewed=True) == []


def test_rewritten_rows_lead_to_a_new_file(tables: Tables, index: ImageIndex, written: list[int | None]) -> None:
    row = next(row for row in rows_of(tables, "media") if row["missing_since"] is None)
    gone = [row | {"missing_since": datetime.now(UTC)}]
    replace_with(tables, pa.Table.from_pylist(gone, schema=files.TABLES["media"]), "media:/archive")
    assert index.refresh() is True
    assert written == [None]
    assert listed(index) == searched(tables)


def test_many_changes_lead_to_a_new_file(
    tables: Tables, index: ImageIndex, written: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_CHANGED", 0)
    upload(tables)
    index.refresh()
    assert written == [None]


def test_a_log_that_is_no_longer_kept_leads_to_a_new_file(
    tables: Tables, index: ImageIndex, written: list[int | None]
) -> None:
    upload(tables)
    compact(tables, "results", min_files=1)
    version = index.state().versions["results"] or 0
    tables.snapshot("results").create_checkpoint()
    Path(f"{tables.url}/results/_delta_log/{version + 1:020}.json").unlink()
    assert index.refresh() is True
    assert written == [None]
    assert listed(index) == searched(tables)


def test_tables_that_were_created_again_are_other_tables(
    tables: Tables, index: ImageIndex, written: list[int | None]
) -> None:
    shutil.rmtree(f"{tables.url}/results")
    add_results(tables, "k", result_rows([rows_of(tables, "media")[0]["media_sha256"]]))
    assert index.refresh() is True
    assert written == [None]
    assert listed(index) == searched(tables)


@pytest.mark.parametrize("uploads", ["e", "de"], ids=["the same version", "newer version"])
def test_tables_that_continue_from_a_backup_are_other_tables(
    tables: Tables, index: ImageIndex, folder: Path, written: list[int | None], tmp_path: Path, uploads: str
) -> None:
    backup = shutil.copytree(tables.url, tmp_path / "backup")
    upload(tables)
    index.refresh()
    shutil.rmtree(tables.url)
    shutil.copytree(backup, tables.url)
    for digit in uploads:
        upload(tables, digit)
    of_file = IndexedSearch(folder=str(folder), limit=1000).answer(tables, 60)
    assert of_file == find(tables, ImageSearch(limit=1000), 60)
    assert index.refresh() is True
    assert written == [1, None]
    assert listed(index) == searched(tables)


def the_file(folder: Path) -> Path:
    (file,) = (folder / "production").glob("*.duckdb")
    return file


def with_header(file: Path, change: str) -> None:
    with duckdb.connect(file) as sql:
        sql.execute(f"update about set text = {change}")


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[: 3 * 4096]),
        lambda file: with_header(file, "'nothing'"),
        lambda file: with_header(file, f"replace(text, '\"file_format\":{files.FORMAT}', '\"file_format\":0')"),
        lambda file: with_header(file, "replace(text, '/tables', '/elsewhere')"),
    ],
    ids=["cut", "text", "format", "tables"],
)
def test_a_damaged_or_foreign_file_is_replaced(
    tables: Tables, folder: Path, written: list[int | None], damage: Callable[[Path], object]
) -> None:
    damage(the_file(folder))
    assert listed(ImageIndex(tables, folder)) == searched(tables)
    assert written == [None]
    the_file(folder)


def test_a_file_with_damaged_rows_is_replaced_when_they_are_read(
    tables: Tables, index: ImageIndex, folder: Path, written: list[int | None], tmp_path: Path
) -> None:
    """Only the header and the origin can be checked when a file is opened."""
    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    data = bytearray(the_file(damaged).read_bytes())
    place = data.index(listed(index)[0][0].encode())
    data[place : place + 4] = b"\0\0\0\0"
    the_file(damaged).write_bytes(data)
    other = ImageIndex(tables, damaged)
    assert listed(other) == searched(tables)
    assert written == [None]


def test_readers_of_an_older_file_go_on_while_another_process_follows(
    tables: Tables, index: ImageIndex, folder: Path, written: list[int | None]
) -> None:
    before, other = listed(index), ImageIndex(tables, folder)
    upload(tables)
    assert other.refresh() is True
    assert listed(index) == before
    assert index.refresh() is True
    assert listed(index) == listed(other) == searched(tables)
    assert written == [1]


def follow(url: str, folder: Path, rounds: int) -> None:
    index = ImageIndex(Tables(url), folder)
    for number in range(rounds):
        state_a_fact(Tables(url), f"{number:064x}", hour=number)
        index.refresh()
        index.count(EVERYTHING)


def test_processes_that_follow_at_once_leave_one_valid_file(tables: Tables, folder: Path) -> None:
    spawned = multiprocessing.get_context("spawn")
    others = [spawned.Process(target=follow, args=(tables.url, folder, 2)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0]
    index = ImageIndex(tables, folder)
    index.refresh()
    assert listed(index) == searched(tables)
    assert {path.name for path in (folder / "production").iterdir()} == {".lock", the_file(folder).name}


def test_pages_are_served_while_a_file_is_built(
    tables: Tables, index: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, began, may_end = files._write, threading.Event(), threading.Event()

    def held(*values: Any) -> None:
        began.set()
        assert may_end.wait(60)
        write(*values)

    monkeypatch.setattr(files, "_write", held)
    before = listed(index)
    upload(tables)
    builder = threading.Thread(target=index.refresh)
    builder.start()
    assert began.wait(60)
    assert listed(index) == before
    may_end.set()
    builder.join()
    assert listed(index) == searched(tables)


def test_a_large_archive_is_written_some_images_at_a_time(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tables have the same rows, with the same numbers; none if no file is present."""
    state_a_fact(tables, rows_of(tables, "results")[0]["media_sha256"])
    expected = rows_of_file(tables, tmp_path / "whole")
    assert min(map(len, expected.values())) > 0
    assert len(expected["cells"]) > 26
    monkeypatch.setattr(files, "MOST_AT_ONCE", 13)
    monkeypatch.setattr("archive.delta.scratch_db.MOST_LISTED", 3)
    index = ImageIndex(tables, tmp_path / "parts")
    index.state()
    done, of_all = index.steps["production"]
    assert 0 < done <= of_all
    assert rows_of_file(tables, tmp_path / "parts") == expected
    gone = Tables(str(tmp_path / "gone"))
    put(gone, [image | {"gone": True} for image in world(images=14)])
    assert ImageIndex(gone, tmp_path / "none").state().images == 0


def test_a_first_publication_during_a_build_is_not_in_the_file(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path / "tables"))
    put(tables, world(images=5))
    source = files.source_of(tables, "production")
    Views(tables.url).publish(VIEW, after=0)
    with files.locked(folder := tmp_path / "index"):
        opened = files.updated(tables, source, folder, None)
    assert opened.sql.execute("select distinct status from cells").fetchall() == [("missing",)]


def test_a_build_that_fails_leaves_the_old_file(
    tables: Tables, index: ImageIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, file = listed(index), the_file(folder)
    upload(tables)
    monkeypatch.setattr(files, "BUILD_S", 0.0)
    with pytest.raises(DeadlinePassed, match="index of view production"):
        index.refresh()
    assert (listed(index), the_file(folder)) == (before, file)
    monkeypatch.undo()
    index.refresh()
    assert listed(index) == searched(tables)


def test_a_folder_that_cannot_be_written_is_an_error(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnreachable, match="index"):
        ImageIndex(tables, tmp_path / "file").state()
