"""The SQL of a filter quotes hostile names; `test_image_index.py` compares its rows with those of an index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest

from archive.annotations.assertions import append
from archive.annotations.import_file import read_assertions
from archive.views.image_filter import ImageFilter, statement
from archive.views.query import connect
from model_store.errors import BadRequest
from tests.batch.filters.scene import box, publish, put, sha, tables_at


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield the relations over two images; the first has two detections, the second a statement of a person."""
    place = tmp_path_factory.mktemp("image_filter")
    tables = tables_at(place)
    found = [box(0, 1, 1, 50.0, "it's", 0.7), box(1, 9, 9, 50.0, "deer", 0.9)]
    put(tables, {1: ("o'neill; --", 0.0, found), 2: ("north", 5.0, [])})
    publish(tables)
    file = place / "said.jsonl"
    row = {"actor": "kim", "asserted_at": datetime.now(UTC).isoformat(), "action": "suppress"}
    file.write_text(json.dumps(row | {"media_sha256": sha(2)}))
    append(tables, read_assertions(tables, file).rows)
    with connect(tables) as relations:
        yield relations


@pytest.mark.parametrize(
    ("wanted", "detections", "results"),
    [
        ({}, [0, 1], [1, 2]),
        ({"camera": "o'neill; --"}, [0, 1], [1]),
        ({"label": "it's", "min_score": 0.7}, [0], [1]),
        ({"min_score": 0.8}, [1], [1]),
        ({"path": "%"}, [], []),
        ({"status": "empty"}, [], [2]),
        ({"until": "2026-05-14T12:00:05"}, [0, 1], [1]),
        ({"since": "2026-05-14", "until": "2026-05-14"}, [0, 1], [1, 2]),
        ({"until": "2026-05-13"}, [], []),
        ({"reviewed": True}, [], [2]),
        ({"event_id": "x' or true"}, [], []),
    ],
    ids=str,
)
def test_names_are_values(
    sql: duckdb.DuckDBPyConnection, wanted: dict[str, Any], detections: list[int], results: list[int]
) -> None:
    asked = ImageFilter.model_validate(wanted)
    ranks = sql.sql(f"select rank from ({statement('detections', asked)}) order by 1").fetchall()
    assert [rank for (rank,) in ranks] == detections
    digests = sql.sql(f"select media_sha256 from ({statement('results', asked)}) order by 1").fetchall()
    assert [digest for (digest,) in digests] == [sha(number) for number in results]


def test_another_relation_is_an_error() -> None:
    with pytest.raises(BadRequest, match="invalid relation 'media'"):
        statement("media", ImageFilter())
