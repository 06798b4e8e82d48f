"""Updated rows: collected until a commit pays, then stored once each. The clock is simulated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import archive.catalogue.row_updates
import archive.delta.writer
from archive.catalogue.diff import Difference
from archive.catalogue.row_updates import PATIENCE, Changes, replace_some
from archive.delta.replace import replace_many
from archive.delta.scratch_db import scratch
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import MEDIA, TABLES
from tests.archive.media_rows import ROOT, media_rows, put_media
from tests.fixtures_local import rows_of


class Clock:
    now_s = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("archive.catalogue.row_updates.time.monotonic", lambda: clock.now_s)
    return clock


@pytest.fixture
def changes(tables: Tables, clock: Clock) -> Iterator[Changes]:
    put_media(tables, media_rows(dict.fromkeys("abcdef", "old")))
    with scratch("test") as sql:
        Difference(sql, ROOT)  # creates the tables
        yield Changes(Writer(tables, "media", ROOT), sql)


def taking(clock: Clock, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Make every commit take this long."""
    replace_some = archive.catalogue.row_updates.replace_some

    def slow(*args: object) -> object:
        clock.now_s += seconds
        return replace_some(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(archive.catalogue.row_updates, "replace_some", slow)


def tags(tables: Tables) -> dict[str, str]:
    rows = rows_of(tables, "media")
    assert len({row["path"] for row in rows}) == len(rows), "a file has two rows"
    return {row["path"]: row["content_tag"] for row in rows}


def test_nothing_is_due_where_nothing_has_changed(tables: Tables, changes: Changes) -> None:
    base = tables.snapshot("media")
    assert not changes.due()
    changes.commit()
    assert tables.snapshot("media").version() == base.version()


def test_the_first_rows_are_due_at_once_the_next_when_reading_has_taken_long_enough(
    tables: Tables, changes: Changes, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking(clock, monkeypatch, 3.0)
    changes.add(media_rows({"a": "new"}))
    assert changes.due()
    changes.commit()
    assert not changes.due()
    changes.add(media_rows({"b": "new"}))
    assert not changes.due()
    clock.now_s += 3.0 * PATIENCE - 0.1
    changes.add(media_rows({"c": "new"}))
    assert not changes.due()
    clock.now_s += 0.2
    assert changes.due()
    assert tags(tables) == {**dict.fromkeys("bcdef", "old"), "a": "new"}
    changes.commit()
    assert tags(tables) == {**dict.fromkeys("def", "old"), **dict.fromkeys("abc", "new")}


@pytest.mark.parametrize(("many", "commits"), [(2, 1), (6, 3)])
def test_few_rows_and_many_are_replaced_alike(
    tables: Tables, changes: Changes, monkeypatch: pytest.MonkeyPatch, many: int, commits: int
) -> None:
    """Write six rows in one commit, or in commits of two."""
    monkeypatch.setattr("archive.delta.tables.KEYS_PER_COMMIT", 2)
    monkeypatch.setattr(archive.catalogue.row_updates, "MANY_ROWS", many)
    changes.add(media_rows(dict.fromkeys("bacd", "new")))
    changes.add(media_rows(dict.fromkeys("fg", "new")))
    changes.commit()
    assert tags(tables) == {**dict.fromkeys("abcdfg", "new"), "e": "old"}
    assert tables.snapshot("media").version() == 1 + commits
    replace_some(Writer(tables, "media", ROOT), media_rows({"a": "another's"}))
    changes.add(media_rows({"e": "newer"}))
    changes.commit()
    assert tags(tables) == {**dict.fromkeys("bcdfg", "new"), "a": "another's", "e": "newer"}


def test_an_older_table_gains_the_columns_that_came_later(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    older = MEDIA.remove(MEDIA.get_field_index("camera_serial"))
    with monkeypatch.context() as patch:
        patch.setitem(TABLES, "media", older)
        put_media(tables, media_rows({"a": "old", "b": "old"}).select(older.names))
    monkeypatch.setattr(archive.catalogue.row_updates, "MANY_ROWS", 0)
    called: list[str] = []
    monkeypatch.setattr(
        archive.delta.writer, "replace_many", lambda *args: called.append("many") or replace_many(*args)
    )
    with scratch("test") as sql:
        Difference(sql, ROOT)
        changes = Changes(Writer(tables, "media", ROOT), sql)
        for turn in ("1", "2"):
            changes.add(media_rows({"a": turn}, camera_serial=turn))
            changes.commit()
    assert called == ["many"]
    rows = {row["path"]: row["camera_serial"] for row in rows_of(tables, "media")}
    assert rows == {"a": "2", "b": None}
