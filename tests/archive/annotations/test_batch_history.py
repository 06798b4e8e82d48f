"""The history of batches: of everybody, of a person, of an image; page by page."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.annotations.assertions import append
from archive.annotations.batch_history import BatchSummary, history
from archive.annotations.batches import BatchStatement, StatementBatch, record_all
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS
from model_store.errors import BadRequest
from tests.archive.annotations.two_images import withdraw
from tests.fixtures_local import put_rows

A, B = "a" * 64, "b" * 64


def key_of(number: int) -> str:
    return f"{number:032x}"


def keep(image: str, label: str, left: float = 1.0) -> BatchStatement:
    corners = {"x1_px": left, "y1_px": 1.0, "x2_px": left + 2, "y2_px": 9.0}
    return BatchStatement.model_validate({"action": "keep", "media_sha256": image, "label": label} | corners)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Return a file of lee, a batch of each of kim and lee, and the undo of the first."""
    place: Path = tmp_path_factory.mktemp("history")
    tables = Tables(str(place / "tables"))
    media = [{"media_sha256": sha, "source_root": "/x", "path": sha[:1]} for sha in (A, B)]
    put_rows(tables, "media", *media)
    common: dict[str, Any] = {"layer_id": "human", "method": "human", "actor": "lee"}
    common |= {"action": "suppress", "asserted_at": datetime(2026, 5, 14, tzinfo=UTC)}
    file = [common | {"media_sha256": sha} for sha in (A, B)]
    append(tables, pa.Table.from_pylist(file, schema=ASSERTIONS))
    by_kim = StatementBatch(key_of(1), "kim", (keep(A, "fox"), keep(A, "dog", 9.0), keep(B, "fox")))
    record_all(tables, [by_kim, StatementBatch(key_of(2), "lee", (keep(B, "cat"),))])
    withdraw(tables, key_of(3), key_of(1), "lee")
    return tables


def ids(batches: tuple[BatchSummary, ...]) -> list[int | None]:
    return [int(batch.batch_id, 16) if batch.batch_id else None for batch in batches]


def test_batches_are_listed_newest_first(tables: Tables) -> None:
    page = history(tables)
    assert ids(page.batches) == [3, 2, 1, None]
    assert page.before == ""
    undo, _, first, file = page.batches
    assert (undo.of_batch, undo.actions, undo.statements) == (key_of(1), ("withdraw",), 3)
    expected = {"batch_id": key_of(1), "actor": "kim", "statements": 3, "images": 2}
    expected |= {"media_sha256": A, "actions": ("keep",), "labels": ("dog", "fox")}
    expected |= {"withdrawn": 3, "of_batch": None, "asserted_at": first.asserted_at}
    assert first.model_dump() == expected
    assert (file.actor, file.statements, file.withdrawn) == ("lee", 2, 0)
    assert file.asserted_at == datetime(2026, 5, 14, tzinfo=UTC)


def test_history_is_that_of_a_person_or_of_an_image(tables: Tables) -> None:
    assert ids(history(tables, actor="kim").batches) == [1]
    assert ids(history(tables, actor="lee").batches) == [3, 2, None]
    of_image = history(tables, media=A).batches
    assert ids(of_image) == [3, 1, None]
    assert [batch.images for batch in of_image] == [2, 2, 2], "the whole batch"
    assert history(tables, media="c" * 64).batches == ()


def test_pages_have_every_batch_once(tables: Tables) -> None:
    found, before = list[int | None](), ""
    while True:
        page = history(tables, limit=2, before=before)
        found += ids(page.batches)
        before = page.before
        if not before:
            break
    assert found == [3, 2, 1, None]


def test_an_invalid_cursor_is_refused_and_no_table_is_no_history(tmp_path: Path) -> None:
    nowhere = Tables(str(tmp_path / "none"))
    assert history(nowhere).batches == ()
    assert not (tmp_path / "none").exists()
    for mark in ("x", "AAAA", "bnVsbA=="):
        with pytest.raises(BadRequest, match="invalid cursor"):
            history(nowhere, before=mark)
