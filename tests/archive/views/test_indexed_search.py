"""A search with the file of an index gives the pages of a search without it, also when the tables are ahead."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.annotations.assertions import append
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS
from archive.views import indexed_search
from archive.views.image_index import ImageIndex
from archive.views.indexed_search import IndexedSearch
from archive.views.search import ImageSearch, find
from archive.views.views import Views
from model_store.errors import BadRequest
from tests.archive.resolve_worlds import person
from tests.archive.views.test_search import START, VIEW, put, world

FILTERS: list[dict[str, Any]] = [
    {},
    {"camera": "north"},
    {"label": "fox", "min_score": 0.7},
    {"status": "missing", "until": START + timedelta(minutes=30)},
    {"status": "failed"},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("indexed")
    tables, images = Tables(str(place / "tables")), world(images=100)
    put(tables, images[:60])
    Views(tables.url).publish(VIEW, after=0)
    ImageIndex(tables, place / "index").refresh()
    return place


def walk(tables: Tables, folder: Path, wanted: dict[str, Any], limit: int = 7) -> list[dict[str, Any]]:
    found, after = [], ""
    while True:
        page = IndexedSearch(folder=str(folder), limit=limit, after=after, **wanted).answer(tables, 60)
        assert len(page.images) == limit or not page.next
        found += page.images
        if not page.next:
            return found
        after = page.next


def compare(place: Path, limit: int = 7) -> None:
    tables = Tables(str(place / "tables"))
    for wanted in FILTERS:
        expected = find(tables, ImageSearch(limit=1000, **wanted), 60).images
        assert expected
        assert walk(tables, place / "index", wanted, limit) == expected


def test_pages_are_those_of_the_tables_before_and_after_they_change(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(indexed_search, "find", lambda *_: pytest.fail("the tables were searched"))
        patch.setattr(indexed_search, "matching", lambda *_: pytest.fail("the tables were searched"))
        walk(Tables(str(place / "tables")), place / "index", {})
    compare(place)
    tables, newer = Tables(str(place / "tables")), world(images=100)[60:]
    put(tables, newer)
    indexed = next(one for one in world(images=60) if one["status"] == "ok" and not one["gone"] and one["boxes"])
    append(tables, pa.Table.from_pylist([person("suppress", indexed["media_sha256"])], schema=ASSERTIONS))
    compare(place)
    with monkeypatch.context() as patch:
        patch.setattr(indexed_search, "find", lambda *_: pytest.fail("all rows were searched"))
        walk(tables, place / "index", {"label": "fox"})
    with monkeypatch.context() as patch:
        patch.setattr(indexed_search, "MOST_COMMITS", 0)
        patch.setattr(indexed_search, "_in_file", lambda *_: pytest.fail("a file with too few rows was read"))
        compare(place, limit=50)  # each page is one of `find`, whose pages test_search.py has


def test_names_that_the_archive_lacks_are_refused(place: Path) -> None:
    search = IndexedSearch(folder=str(place / "index"), camera="nroth")
    with pytest.raises(BadRequest, match="unknown camera 'nroth'; did you mean 'north'"):
        search.answer(Tables(str(place / "tables")), 60)
    with pytest.raises(BadRequest, match="invalid name of a view"):
        IndexedSearch(folder=str(place / "index"), view="../other").answer(Tables(str(place / "tables")), 60)


@pytest.mark.parametrize("damage", [b"", b"x" * 4096])
def test_without_a_file_that_can_be_read_the_tables_answer(place: Path, tmp_path: Path, damage: bytes) -> None:
    tables, folder = Tables(str(place / "tables")), tmp_path / "production"
    expected = find(tables, ImageSearch(), 60)
    assert IndexedSearch(folder=str(tmp_path)).answer(tables, 60) == expected
    folder.mkdir()
    (file,) = (place / "index" / "production").glob("*.duckdb")
    (folder / file.name).write_bytes(damage or file.read_bytes()[: 64 * 1024])
    assert IndexedSearch(folder=str(tmp_path)).answer(tables, 60) == expected
