"""The writer of statements: many people in one commit, acknowledged after it, nothing lost or written twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pages.statements
from archive.annotations.batches import Recorded, StatementBatch, record_all, selected_rows
from archive.delta.tables import Tables
from model_store.errors import BadRequest, Overloaded, StorageUnreachable, TableConflict
from pages.statements import StatementWriter
from tests.archive.annotations.two_images import EMPTY, A, B, key_of, named, put_images
from tests.fixtures_local import rows_of

SOON_S, NEVER_S = 0.02, 1000.0
Commit = Callable[..., list[Any]]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return put_images(Tables(str(tmp_path / "tables")))


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace the commit; return the ids of the batches of each."""
    made: list[list[str]] = []

    def commit(_: Tables, batches: Sequence[StatementBatch], __: set[str]) -> list[Recorded]:
        made.append([batch.batch_id for batch in batches])
        return [Recorded(batch_id=batch.batch_id, added=batch.size) for batch in batches]

    monkeypatch.setattr(pages.statements, "record_all", commit)
    return made


def batch(number: int, statements: int = 1) -> StatementBatch:
    return StatementBatch(key_of(number), "kim", tuple(named(rank=n % 2) for n in range(statements)))


def undo(number: int, of: int) -> StatementBatch:
    return StatementBatch(key_of(number), "kim", of_batch=key_of(of))


async def added(writer: StatementWriter, *batches: StatementBatch) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*map(writer.add, batches), return_exceptions=True), 30)


async def test_batches_of_a_moment_share_a_commit_and_an_invalid_one_fails_alone(tables: Tables) -> None:
    writer = StatementWriter(tables, SOON_S)
    bad = StatementBatch(key_of(7), "lee", (named(rank=9),))
    answers = await added(writer, *map(batch, range(5)), bad)
    assert answers[:5] == [Recorded(batch_id=key_of(n), added=1) for n in range(5)]
    assert isinstance(answers[5], BadRequest)
    assert tables.snapshot("assertions").version() == 1
    assert len(rows_of(tables, "assertions")) == 5
    assert await added(writer, batch(2)) == [Recorded(batch_id=key_of(2), added=1)]


async def test_an_undo_of_a_batch_that_waits_is_committed_after_it(tables: Tables) -> None:
    writer = StatementWriter(tables, SOON_S)
    answers = await added(writer, batch(1), undo(2, of=1))
    assert [answer.added for answer in answers] == [1, 1]


async def test_of_two_selections_of_one_moment_the_second_leaves_what_the_first_decided(tables: Tables) -> None:
    def empty(number: int, actor: str, *images: str) -> StatementBatch:
        rows = selected_rows(tables, pa.table({"media_sha256": images}), "suppress", None, "production")
        return StatementBatch(key_of(number), actor, selected=rows)

    writer = StatementWriter(tables, SOON_S)
    answers = await added(writer, empty(1, "ana", A), empty(2, "lee", EMPTY), empty(3, "lee", A, B))
    assert [(answer.added, answer.left, answer.by) for answer in answers] == [(1, 0, ()), (1, 0, ()), (1, 1, ("ana",))]
    answers = await added(writer, undo(4, of=1), empty(5, "lee", A))
    assert [(answer.added, answer.left) for answer in answers] == [(1, 0), (1, 0)]
    assert tables.snapshot("assertions").version() == 4, "only these waited"


async def test_a_full_commit_does_not_wait(
    tables: Tables, commits: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.statements, "MAX_IN_COMMIT", 4)
    writer = StatementWriter(tables, NEVER_S)
    await added(writer, batch(1, 2), batch(2), batch(3))
    assert commits == [[key_of(1), key_of(2), key_of(3)]]
    await added(writer, batch(4), batch(5, 9))
    assert commits[1:] == [[key_of(4)], [key_of(5)]]


async def test_a_batch_that_waits_is_not_added_again(tables: Tables, commits: list[list[str]]) -> None:
    writer = StatementWriter(tables, SOON_S)
    first, second = await added(writer, batch(1), batch(1))
    assert first is second
    assert commits == [[key_of(1)]]


async def test_the_number_of_waiting_batches_is_bounded(
    tables: Tables, commits: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.statements, "MAX_WAITING", 2)
    writer = StatementWriter(tables, SOON_S)
    answers = await added(writer, batch(1), batch(2), batch(3))
    assert isinstance(answers[2], Overloaded)
    assert await added(writer, batch(3)) == [Recorded(batch_id=key_of(3), added=1)]
    assert commits == [[key_of(1), key_of(2)], [key_of(3)]]


@pytest.mark.parametrize("error", [TableConflict("rejected"), OSError(28, "full")])
async def test_a_storage_error_fails_those_who_wait_and_no_others(
    tables: Tables, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [True]

    def fails_once(*arguments: Any) -> list[Any]:
        if failing.pop() if failing else False:
            raise error
        return record_all(*arguments)

    monkeypatch.setattr(pages.statements, "record_all", fails_once)
    writer = StatementWriter(tables, SOON_S)
    expected = TableConflict if isinstance(error, TableConflict) else StorageUnreachable
    answers = await added(writer, batch(1), batch(2))
    assert [type(answer) for answer in answers] == [expected] * 2
    assert tables.existing("assertions") is None
    assert await added(writer, batch(1)) == [Recorded(batch_id=key_of(1), added=1)]


class Panic(BaseException):
    """As delta-rs raises it: no Exception."""


async def test_a_batch_that_cannot_be_written_fails_alone(
    tables: Tables, commits: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit: Commit = pages.statements.record_all

    def panics(tables: Tables, batches: Sequence[StatementBatch], protected: set[str]) -> list[Any]:
        if key_of(2) in [batch.batch_id for batch in batches]:
            raise Panic("index out of bounds")
        return commit(tables, batches, protected)

    monkeypatch.setattr(pages.statements, "record_all", panics)
    writer = StatementWriter(tables, SOON_S)
    answers = await added(writer, *map(batch, range(5)))
    assert [isinstance(answer, Recorded) for answer in answers] == [True, True, False, True, True]
    assert "index out of bounds" in str(answers[2])


async def test_a_visitor_who_leaves_does_not_take_the_batch_along(tables: Tables, commits: list[list[str]]) -> None:
    writer = StatementWriter(tables, SOON_S)
    gone = asyncio.create_task(writer.add(batch(1)))
    await asyncio.sleep(0)
    gone.cancel()
    await added(writer, batch(2))
    assert commits == [[key_of(1), key_of(2)]]


async def test_small_files_are_merged_while_others_write(
    tables: Tables, commits: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    go_on = threading.Event()

    def waits(*arguments: Any) -> None:
        calls.append(arguments)
        assert go_on.wait(30)
        raise Panic("not now")

    monkeypatch.setattr(pages.statements, "compact", waits)
    monkeypatch.setattr(pages.statements, "COMPACT_EVERY", 2)
    writer = StatementWriter(tables, SOON_S)
    for number in range(5):
        await added(writer, batch(number))
    assert calls == [(tables, "assertions", None, 2)], "one at a time"
    go_on.set()
    assert writer._compaction is not None
    await asyncio.wait([writer._compaction], timeout=30)
    assert len(commits) == 5
