"""Test which rows are dropped because other writers have committed them since the plan."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.delta.compact import compact
from archive.delta.tables import Tables
from batch.pipeline.commit import ConcurrentRows
from tests.fixtures_local import put_results, result_rows

NOW = datetime(2026, 5, 1, tzinfo=UTC)
KEY = {"inference_key": "k"}


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path))


def rows(images: str, status: str = "ok", run_id: str = "r1", **more: Any) -> pa.Table:
    return result_rows(list(images), status=status, run_id=run_id, **({"finished_at": NOW} | more))


def put(tables: Tables, images: str, status: str = "ok", run_id: str = "r2", **more: Any) -> None:
    put_results(tables, rows(images, status, run_id, **more))


def names(found: pa.Table) -> str:
    return "".join(sorted(found["media_sha256"].to_pylist()))


def concurrent(tables: Tables, run_id: str = "r1") -> ConcurrentRows:
    return ConcurrentRows(tables.snapshot("results"), KEY, run_id)


def held(rows: ConcurrentRows) -> int:
    """Number of rows in memory."""
    return sum(map(len, rows._rows))


def test_rows_of_the_plan_s_own_snapshot_are_not_looked_at(tables: Tables) -> None:
    """The plan has left them out, except a failed one that is replaced."""
    put(tables, "ab", "failed", "r0")
    asked = concurrent(tables)
    assert names(asked.without(tables.snapshot("results"), rows("abc"), True)) == "abc"


def test_rows_of_an_earlier_look_still_count(tables: Tables) -> None:
    """Two runs process the same images, each in its own order."""
    asked = concurrent(tables)
    put(tables, "xy")
    assert names(asked.without(tables.snapshot("results"), rows("ab"), False)) == "ab"
    put(tables, "z")
    assert names(asked.without(tables.snapshot("results"), rows("xc"), False)) == "c"
    assert names(asked.without(tables.snapshot("results"), rows("yzd"), True)) == "d"


def test_each_file_is_read_once(tables: Tables) -> None:
    asked = concurrent(tables)
    put(tables, "b")
    asked.without(tables.snapshot("results"), rows("ab"), False)
    (first,) = Path(tables.url).rglob("*.parquet")
    put(tables, "c")
    first.unlink()  # who reads it again does not find it
    assert names(asked.without(tables.snapshot("results"), rows("abcd"), False)) == "ad"


@pytest.mark.parametrize(
    ("status", "replace", "left"), [("ok", True, ""), ("failed", True, "a"), ("failed", False, "")]
)
def test_to_who_replaces_failed_rows_a_failed_one_is_none(
    tables: Tables, status: str, replace: bool, left: str
) -> None:
    asked = concurrent(tables)
    put(tables, "a", status, "r2")
    assert names(asked.without(tables.snapshot("results"), rows("a"), replace)) == left


def test_a_failed_row_of_its_own_whose_answer_was_lost_is_there(tables: Tables) -> None:
    asked = concurrent(tables)
    own = rows("ab", "failed")
    put_results(tables, own)
    assert names(asked.without(tables.snapshot("results"), own, True)) == ""


def test_an_older_failed_row_of_the_same_run_is_replaced(tables: Tables) -> None:
    """The run was resumed by its id; another writer's commit has moved its old row to a new file."""
    asked = concurrent(tables)
    put(tables, "a", "failed", "r1", finished_at=NOW - timedelta(hours=1))
    put(tables, "b", "failed", "r2")
    now = rows("ab", "failed")
    assert names(asked.without(tables.snapshot("results"), now, True)) == "ab"


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.text("abcdef", max_size=4), st.sampled_from(["ok", "failed"])), max_size=4), st.booleans())
def test_left_is_what_no_rival_has(theirs: Sequence[tuple[str, str]], replace: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(folder)
        asked = concurrent(tables)
        for images, status in theirs:
            put(tables, images, status)
        found = asked.without(tables.snapshot("results"), rows("abcdef"), replace)
    there = {image for images, status in theirs for image in images if not replace or status != "failed"}
    assert names(found) == "".join(sorted(set("abcdef") - there))


def test_a_compaction_brings_no_row_of_its_own_back(tables: Tables) -> None:
    """Another writer's row was read, then this run commits, and any process compacts the files."""
    asked = concurrent(tables)
    put(tables, "a")
    assert names(asked.without(tables.snapshot("results"), rows("ab"), False)) == "b"
    for own in "bcd":
        put(tables, own, run_id="r1")
        asked.skip_to(tables.snapshot("results"))
    compact(tables, "results", "k", 2)
    assert names(asked.without(tables.snapshot("results"), rows("ae"), False)) == "e"
    assert held(asked) == 1


def test_a_rival_s_row_is_seen_also_where_its_file_was_compacted_at_once(tables: Tables) -> None:
    asked = concurrent(tables)
    put(tables, "b", run_id="r1")
    asked.skip_to(tables.snapshot("results"))
    put(tables, "c")
    compact(tables, "results", "k", 2)
    put(tables, "d")
    compact(tables, "results", "k", 2)
    assert names(asked.without(tables.snapshot("results"), rows("cde"), False)) == "e"
    assert held(asked) == 2


def test_rows_of_rivals_are_seen_on_s3(s3_endpoint: str) -> None:
    bucket = f"concurrent-{uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    tables = Tables(f"s3://{bucket}/tables")
    asked = concurrent(tables)
    put(tables, "b")
    assert names(asked.without(tables.snapshot("results"), rows("ab"), False)) == "a"
