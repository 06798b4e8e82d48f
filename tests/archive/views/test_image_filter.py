"""The SQL of a filter selects the images that the index selects, and quotes hostile names."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from archive.annotations.assertions import append
from archive.annotations.import_file import read_assertions
from archive.delta.tables import Tables
from archive.views.image_filter import ImageFilter, statement
from archive.views.image_index import ImageIndex
from archive.views.query import connect, query
from archive.views.views import Views
from model_store.errors import BadRequest
from tests.archive.resolve_worlds import view_of
from tests.archive.views.test_image_index import FILTERS, Halves, halves, write
from tests.batch.filters.scene import box, publish, put, sha, tables_at


@settings(max_examples=5, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(given_=halves(), some=st.lists(FILTERS, min_size=4, max_size=4))
def test_the_statement_selects_the_images_of_the_index(given_: Halves, some: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as place:
        tables = Tables(f"{place}/tables")
        tables.snapshot("media")
        write(tables, given_.first)
        write(tables, given_.then)
        Views(tables.url).publish(view_of(given_.world), after=0)
        index = ImageIndex(tables, Path(place) / "index")
        missing = set(index.select(ImageFilter(status="missing"))["media_sha256"].to_pylist())
        filters = [ImageFilter(**wanted) for wanted in ({}, *some)]
        read = " ".join(statement(name, one) for name in ("results", "detections") for one in filters)
        with connect(tables, statement=read) as sql:
            for wanted in filters:
                matching = set(index.select(wanted)["media_sha256"].to_pylist())
                rows = images(sql, statement("results", wanted))
                assert sorted(rows) == sorted(matching - missing), wanted
                shown = set(images(sql, statement("detections", wanted)))
                assert shown <= matching, wanted
                if wanted.status == "ok":
                    assert shown == matching, wanted


def images(sql: duckdb.DuckDBPyConnection, rows: str) -> list[str]:
    return [digest for (digest,) in sql.sql(f"select media_sha256 from ({rows})").fetchall()]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    place = tmp_path_factory.mktemp("image_filter")
    tables = tables_at(place)
    found = [box(0, 1, 1, 50.0, "it's", 0.7), box(1, 9, 9, 50.0, "deer", 0.9)]
    put(tables, {1: ("o'neill; --", 0.0, found), 2: ("north", 5.0, [])})
    publish(tables)
    file = place / "said.jsonl"
    row = {"actor": "kim", "asserted_at": datetime.now(UTC).isoformat(), "action": "suppress"}
    file.write_text(json.dumps(row | {"media_sha256": sha(2)}))
    append(tables, read_assertions(tables, file).rows)
    return tables


@pytest.mark.parametrize(
    ("wanted", "detections", "results"),
    [
        ({}, [0, 1], [1, 2]),
        ({"camera": "o'neill; --"}, [0, 1], [1]),
        ({"label": "it's"}, [0], [1]),
        ({"label": "it's", "min_score": 0.7}, [0], [1]),
        ({"min_score": 0.8}, [1], [1]),
        ({"path": "north/"}, [], [2]),
        ({"path": "%"}, [], []),
        ({"status": "empty"}, [], [2]),
        ({"until": "2026-05-14T12:00:05"}, [0, 1], [1]),
        ({"reviewed": True}, [], [2]),
        ({"reviewed": False}, [0, 1], [1]),
        ({"event_id": "x' or true"}, [], []),
    ],
    ids=str,
)
def test_names_are_values(tables: Tables, wanted: dict[str, Any], detections: list[int], results: list[int]) -> None:
    asked = ImageFilter.model_validate(wanted)
    ranks = query(tables, statement("detections", asked))["rank"].to_pylist()
    assert sorted(ranks) == detections
    digests = query(tables, statement("results", asked))["media_sha256"].to_pylist()
    assert sorted(digests) == [sha(number) for number in results]


def test_another_relation_is_an_error() -> None:
    with pytest.raises(BadRequest, match="invalid relation 'media'"):
        statement("media", ImageFilter())
