"""New, changed, unchanged, missing and restored files, compared with dicts for random listings and tables."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import boto3
import pyarrow as pa
import pytest
from deltalake import DeltaTable

import archive.catalogue.diff
from archive.catalogue.diff import Difference, FileToRead, Todo
from archive.catalogue.listing import FILES, ArchiveFile
from archive.delta.compact import compact
from archive.delta.replace import replace_many
from archive.delta.scratch_db import scratch
from archive.delta.tables import Tables
from tests.archive.media_rows import LONG_AGO, ROOT, WRITER, media_rows, put_media
from tests.fixtures_local import rows_of

NOW = datetime(2025, 3, 4, 5, 6, 7, 890_123, tzinfo=UTC)


@dataclass(frozen=True)
class Known:
    """A row of `media`: its content tag, and whether it is marked missing."""

    tag: str
    missing: bool


Listing = Mapping[str, tuple[int, str]]
"""Path to size and content tag."""


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive.catalogue.diff, "WINDOW_ROWS", 4)


def put_known(tables: Tables, rows: Mapping[str, Known], root: str = ROOT) -> None:
    """Write two commits: rows of present files, and rows marked as missing."""
    for missing in (False, True):
        tags = {path: known.tag for path, known in rows.items() if known.missing is missing}
        if tags:
            put_media(tables, media_rows(tags, root, missing_since=LONG_AGO if missing else None))


def put_listing(into: Difference, files: Listing, parts: int = 1) -> None:
    found = [(path, size, tag) for path, (size, tag) in files.items()]
    for part in range(parts):
        columns = list(zip(*found[part::parts], strict=True)) or [(), (), ()]
        into.list(pa.table([pa.array(c, f.type) for c, f in zip(columns, FILES, strict=True)], FILES))


def due(files: Listing, known: Mapping[str, Known], verify: bool) -> list[FileToRead]:
    """New files first, then those with a row, each in the order of their paths."""
    found = [
        FileToRead(ArchiveFile(path, size, tag), path in known, None)
        for path, (size, tag) in files.items()
        if verify or path not in known or known[path].missing or known[path].tag != tag
    ]
    return sorted(found, key=lambda due: (due.has_row, due.file.path.encode()))


def marks(tables: Tables) -> dict[tuple[str, str], datetime | None]:
    rows = rows_of(tables, "media")
    found = {(row["source_root"], row["path"]): row["missing_since"] for row in rows}
    assert len(found) == len(rows), "a file has two rows"
    return found


def worlds(seed: int) -> tuple[dict[str, tuple[int, str]], dict[str, Known], dict[str, Known]]:
    """Draw a listing, its catalogued rows, and those of another archive with the same paths."""
    lots = random.Random(seed)
    paths = [f"{lots.choice(['a', 'b', 'ü'])}/it's {i}.jpg" for i in range((40, 40, 40, 1, 0)[seed % 5])]
    tag = lambda: lots.choice(["1", "2"])  # noqa: E731
    listed = {p: (lots.randrange(10**10), tag()) for p in lots.sample(paths, len(paths) * 2 // 3)}
    known, others = (
        {p: Known(tag(), lots.random() < 0.3) for p in lots.sample(paths, len(paths) * 2 // 3)} for _ in range(2)
    )
    return listed, known, others


@pytest.mark.parametrize(("seed", "verify"), [(0, False), (1, True), (3, False), (4, True)])
def test_what_is_to_be_read_and_what_is_gone(tables: Tables, seed: int, verify: bool) -> None:
    listed, known, others = worlds(seed)
    put_known(tables, known)
    put_known(tables, others, "/archive/other")
    with scratch("test") as sql:
        found = Difference(sql, ROOT)
        put_listing(found, listed, parts=1 + seed % 3)
        assert found.load_known(tables.snapshot("media")) == len(known)
        wanted = due(listed, known, verify)
        assert found.plan(verify) == Todo(len(wanted), sum(not one.has_row for one in wanted))
        assert list(found.todo()) == wanted
        assert found.gone() == len(known.keys() - listed.keys())
        newly = {p for p, row in known.items() if p not in listed and not row.missing}
        assert found.newly_gone(NOW) == len(newly)


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_rows_whose_file_is_gone_are_marked_and_no_others(tables: Tables, seed: int) -> None:
    listed, known, others = worlds(seed)
    put_known(tables, known)
    put_known(tables, others, "/archive/other")
    if seed % 2:
        compact(tables, "media", min_files=2)  # both archives in one file
    before, rows = marks(tables), {row["path"]: row for row in of_root(tables)}
    newly = {p for p, row in known.items() if p not in listed and not row.missing}
    with scratch("test") as sql:
        found = Difference(sql, ROOT)
        put_listing(found, listed)
        base = tables.snapshot("media")
        found.load_known(base)
        found.newly_gone(NOW)
        windows = list(found.gone_rows(base))
        assert all(0 < len(window) <= 4 for window in windows)
        given = [row for window in windows for row in window.to_pylist()]
        assert sorted(row["path"] for row in given) == sorted(newly)
        assert all(row == rows[row["path"]] | {"missing_since": NOW} for row in given)
        replace_many(tables, "media", WRITER, found.gone_marks())
    assert marks(tables) == before | {(ROOT, path): NOW for path in newly}
    assert {row["path"]: row for row in of_root(tables)} == {
        path: row | ({"missing_since": NOW} if path in newly else {}) for path, row in rows.items()
    }


def of_root(tables: Tables) -> list[dict[str, object]]:
    return [row for row in rows_of(tables, "media") if row["source_root"] == ROOT]


def test_a_mark_that_another_has_made_meanwhile_stays(tables: Tables) -> None:
    put_known(tables, {path: Known("1", False) for path in "abc"})
    with scratch("test") as sql:
        found = Difference(sql, ROOT)
        found.load_known(tables.snapshot("media"))
        found.newly_gone(NOW)
        with scratch("test") as other_sql:
            another = Difference(other_sql, ROOT)
            put_listing(another, {"b": (1, "1"), "c": (1, "1")})
            another.load_known(tables.snapshot("media"))
            another.newly_gone(LONG_AGO)
            replace_many(tables, "media", WRITER, another.gone_marks())
        replace_many(tables, "media", WRITER, found.gone_marks())
    assert marks(tables) == {(ROOT, "a"): LONG_AGO, (ROOT, "b"): NOW, (ROOT, "c"): NOW}


def test_a_tag_that_is_not_known_is_a_change(tables: Tables) -> None:
    put_media(tables, media_rows({"a": "1", "b": "1"}))
    rows = media_rows({"c": "1"})
    place = rows.schema.get_field_index("content_tag")
    put_media(tables, rows.set_column(place, rows.schema.field(place), pa.nulls(1, pa.string())))
    with scratch("test") as sql:
        found = Difference(sql, ROOT)
        put_listing(found, dict.fromkeys("abc", (1, "1")))
        found.load_known(tables.snapshot("media"))
        assert found.plan(verify=False) == Todo(1, 0)
        assert list(found.todo()) == [FileToRead(ArchiveFile("c", 1, "1"), True, None)]


def test_a_table_on_s3_is_known_as_one_on_a_disk(s3_endpoint: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="differing")
    there = Tables("s3://differing/tables")
    listed, known, others = worlds(2)
    assert listed
    assert known
    put_known(there, known)
    put_known(there, others, "/archive/other")
    with scratch("test") as sql:
        found = Difference(sql, ROOT)
        put_listing(found, listed)
        base: DeltaTable = there.snapshot("media")
        assert found.load_known(base) == len(known)
        found.plan(verify=False)
        assert list(found.todo()) == due(listed, known, verify=False)
        found.newly_gone(NOW)
        given = [row["path"] for window in found.gone_rows(base) for row in window.to_pylist()]
    assert sorted(given) == sorted(p for p, row in known.items() if p not in listed and not row.missing)
