"""Compaction: fewer files, the same rows, through every reader."""

from __future__ import annotations

import os
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

import archive.delta.compact
from archive.delta.compact import compact, tidy
from archive.delta.scratch_db import scratch
from archive.delta.tables import Tables
from archive.schemas import EMBEDDINGS, PARTITIONS, RESULTS, RUNS, TABLES
from model_store.errors import StorageUnreachable
from tests.archive.compacted import files, images, outcome, put_each
from tests.fixtures_local import put_results, result_rows, rows_of


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.delta.compact.time.sleep", lambda _: None)


def test_small_files_become_one_with_the_same_rows(tables: Tables) -> None:
    put_each(tables, *"cabed")
    before = sorted(rows_of(tables, "results"), key=lambda row: row["media_sha256"])
    report = compact(tables, "results", min_files=2)
    assert outcome(report) == (5, 1, 1, 0)
    assert (report.rows, report.table, report.partition) == (5, "results", None)
    assert report.bytes_after < report.bytes_before
    assert rows_of(tables, "results") == before  # sorted by media_sha256, too


@pytest.mark.parametrize(("there", "least", "after"), [(0, 2, 0), (1, 1, 1), (3, 4, 3)])
def test_fewer_files_than_asked_for_are_left(tables: Tables, there: int, least: int, after: int) -> None:
    assert outcome(compact(tables, "results", min_files=least)) == (0, 0, 0, 0)
    assert tables.existing("results") is None
    put_each(tables, *"abcd"[:there])
    assert outcome(compact(tables, "results", min_files=least))[:2] == (there, after)
    assert images(tables) == list("abcd"[:there])


def test_each_partition_is_on_its_own(tables: Tables) -> None:
    for key in ("k", "l", "m"):
        put_each(tables, *"ab", key=key)
    put_each(tables, "c", key="m")
    assert outcome(compact(tables, "results", "l", min_files=2)) == (2, 1, 1, 0)
    assert outcome(compact(tables, "results", "nobody", min_files=2)) == (0, 0, 0, 0)
    assert outcome(compact(tables, "results", min_files=3)) == (6, 4, 1, 0)
    assert [images(tables, key) for key in ("k", "l", "m")] == [["a", "b"], ["a", "b"], list("abc")]


@pytest.mark.parametrize("key", ["50%/ü=1", "it's a+b&c#d?e"])
def test_a_partition_may_have_any_name(tables: Tables, key: str) -> None:
    put_each(tables, *"ab", key=key)
    put_each(tables, *"ab", key="other")
    assert outcome(compact(tables, "results", key, min_files=2)) == (2, 1, 1, 0)
    assert images(tables, key) == images(tables, "other") == ["a", "b"]
    assert {file["partition.inference_key"] for file in files(tables)} == {key, "other"}


def test_large_files_are_left_and_no_new_one_is_larger(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive.delta.compact, "TARGET_ROWS", 10)
    put_results(tables, result_rows([f"large-{i}" for i in range(6)]))
    shas = [f"{i * 37 % 100:02d}" for i in range(100)]
    for start in range(0, 100, 4):
        put_results(tables, result_rows(shas[start : start + 4]))
    assert outcome(compact(tables, "results", min_files=2)) == (26, 14, 12, 0)
    assert Counter(images(tables)) == Counter([*shas, *(f"large-{i}" for i in range(6))])
    groups = sorted((f["min.media_sha256"], f["max.media_sha256"]) for f in files(tables))
    assert len(groups) == 14
    assert compact(tables, "results", min_files=2).commits == 0


def test_vectors_need_no_more_memory_for_more_files(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes and memory are those of a real compaction, divided by 50."""
    monkeypatch.setattr(archive.delta.compact, "TARGET_BYTES", archive.delta.compact.TARGET_BYTES // 50)
    monkeypatch.setattr("archive.delta.rewrite.scratch", lambda purpose: scratch(purpose, memory_mib=20))
    draw = np.random.default_rng(1)
    for i in range(8):
        vectors = list(draw.standard_normal((1000, 512)).astype(np.float16).astype(np.float32))
        rows = {"inference_key": ["k"] * 1000, "media_sha256": [f"{i} {j}" for j in range(1000)], "vector": vectors}
        columns = [
            pa.array(rows[field.name], field.type) if field.name in rows else pa.nulls(1000, field.type)
            for field in EMBEDDINGS
        ]
        tables.append("embeddings", pa.table(columns, schema=EMBEDDINGS), "w", lambda _, wanted: wanted)
    assert outcome(compact(tables, "embeddings", min_files=2)) == (8, 4, 4, 0)


@pytest.mark.parametrize("name", ["assertions", "classifications", "runs"])
def test_every_kind_of_column_can_be_compacted(tables: Tables, name: str) -> None:
    for i in range(3):
        row = filled(TABLES[name], i) | ({"inference_key": "k"} if name in PARTITIONS else {})
        rows = pa.Table.from_pylist([row], schema=TABLES[name])
        tables.append(name, rows, "w", lambda _, wanted: wanted)
    before = sorted(map(repr, rows_of(tables, name)))
    assert outcome(compact(tables, name, min_files=2)) == (3, 1, 1, 0)
    assert sorted(map(repr, rows_of(tables, name))) == before


def filled(schema: pa.Schema, i: int) -> dict[str, Any]:
    return {field.name: value_of(field.type, i) for field in schema}


def value_of(kind: pa.DataType, i: int) -> Any:
    """Return a value of this type; some are null."""
    if pa.types.is_struct(kind):
        return {field.name: value_of(field.type, i) for field in kind}
    if pa.types.is_list(kind):
        return [value_of(kind.value_type, i + j) for j in range(i)]
    if pa.types.is_timestamp(kind):
        return datetime(2025, 3, 4, 5, 6, 7, 890_123 + i, tzinfo=UTC)
    if pa.types.is_boolean(kind):
        return i % 2 == 0
    if pa.types.is_floating(kind):
        return None if i == 1 else 0.1 * i - 0.1
    return i - 1 if pa.types.is_integer(kind) else f"é{i}" * 30


def test_filters_find_the_same_rows_through_every_reader(tables: Tables) -> None:
    """Minimum and maximum values of only some columns would make pyarrow skip rows."""
    rows = [filled(RESULTS, i) | {"inference_key": "k", "decode_note": None} for i in range(6)]
    rows[3]["error_detail"] = "x" * 5000  # too long for a footer: such a file has no values at all
    for part in (rows[:2], rows[2:3], rows[3:4], rows[4:5]):
        put_results(tables, pa.Table.from_pylist(part, schema=RESULTS))
    for group in (2, 2):  # one file of the first two, one of the others but the last
        compact(tables, "results", min_files=group)
    put_results(tables, pa.Table.from_pylist(rows[5:], schema=RESULTS))
    snapshot = tables.snapshot("results")
    assert len(snapshot.file_uris()) == 2
    dataset = snapshot.to_pyarrow_dataset()
    sql = duckdb.connect()
    sql.execute("set timezone = 'UTC'")
    sql.register("through_pyarrow", dataset)
    sql.execute(f"create view itself as from read_parquet({snapshot.file_uris()})")
    for field in RESULTS:
        if pa.types.is_nested(field.type) or field.name == "inference_key":
            continue
        stored = pa.Table.from_pylist(rows, schema=RESULTS)
        for row in stored.select([field.name]).to_pylist():
            value, column = row[field.name], pc.field(field.name)
            wanted = sorted(r["media_sha256"] for r in stored.to_pylist() if r[field.name] == value)
            test = column.is_null() if value is None else column == pa.scalar(value, field.type)
            found = dataset.to_table(columns=["media_sha256"], filter=test)
            assert sorted(found["media_sha256"].to_pylist()) == wanted, field.name
            typed = f"$value::{'float' if pa.types.is_float32(field.type) else 'varchar'}"
            typed = "$value" if not pa.types.is_float32(field.type) else typed
            for relation in ("through_pyarrow", "itself"):
                statement = f"select media_sha256 from {relation} where {field.name} is not distinct from {typed}"
                answer = sql.execute(statement, {"value": value}).fetchall()
                assert sorted(r[0] for r in answer) == wanted, (relation, field.name)


def test_files_that_are_older_than_a_column_have_null_there(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    older = RUNS.remove(RUNS.get_field_index("stages"))
    with monkeypatch.context() as patch:
        patch.setitem(TABLES, "runs", older)
        for i in range(2):
            rows = pa.Table.from_pylist([filled(older, i)], schema=older)
            tables.append("runs", rows, "w", lambda _, wanted: wanted)
    rows = pa.Table.from_pylist([filled(RUNS, 2)], schema=RUNS)
    tables.append("runs", rows, "w", lambda _, wanted: wanted)
    assert outcome(compact(tables, "runs", min_files=2)) == (3, 1, 1, 0)
    found = {row["run_id"]: row["stages"] for row in rows_of(tables, "runs")}
    assert list(found.values()).count(None) == 2
    dataset = tables.snapshot("runs").to_pyarrow_dataset()
    assert dataset.to_table(filter=pc.field("stages").is_null()).num_rows == 2
    assert dataset.to_table(filter=pc.field("stages").is_valid()).num_rows == 1
    assert dataset.to_table(filter=pc.field("event") == 0).num_rows == 1


def test_a_table_that_refuses_is_left_as_it_is(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    put_each(tables, *"abc")
    commits: list[object] = []

    def refuse(table: object, *_: object, **__: object) -> None:
        commits.append(table)
        raise CommitFailedError("always another")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", refuse)
    assert outcome(compact(tables, "results", min_files=2)) == (3, 3, 0, archive.delta.compact.REFUSALS)
    assert images(tables) == list("abc")
    assert len(commits) == archive.delta.compact.REFUSALS**2


def test_a_lost_file_is_an_error_and_nothing_changes(tables: Tables) -> None:
    put_each(tables, *"abc")
    snapshot = tables.snapshot("results")
    Path(snapshot.file_uris()[0]).unlink()
    with pytest.raises(StorageUnreachable, match="cannot compact"):
        compact(tables, "results", min_files=2)
    assert tables.snapshot("results").version() == snapshot.version()


def test_a_file_with_other_rows_than_the_log_says_is_an_error(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    put_each(tables, *"abc")
    rewrite = archive.delta.compact.rewrite
    monkeypatch.setattr(
        archive.delta.compact,
        "rewrite",
        lambda table, name, paths, *more: rewrite(table, name, set(list(paths)[:2]), *more),
    )
    with pytest.raises(StorageUnreachable, match="hold 2 rows, but the log lists 3"):
        compact(tables, "results", min_files=2)
    assert images(tables) == list("abc")


def test_vacuum_removes_what_no_snapshot_of_the_last_week_needs(tables: Tables) -> None:
    put_each(tables, *"abc")
    old = [Path(file) for file in tables.snapshot("results").file_uris()]
    in_vain = old[0].with_name("part-00000-never-committed.parquet")
    just_now = old[0].with_name("part-00000-being-written.parquet")
    for file in (in_vain, just_now):
        file.write_bytes(b"x")
    long_ago = time.time() - timedelta(days=8).total_seconds()
    os.utime(in_vain, (long_ago, long_ago))
    compact(tables, "results", min_files=2)
    log = Path(tables.url, "results", "_delta_log")
    assert tidy(tables, "results") == 0
    assert list(log.glob("*.checkpoint.parquet"))
    assert in_vain.exists()
    assert tidy(tables, "results", vacuum=True) == 1
    assert not in_vain.exists()
    assert just_now.exists()
    assert all(file.exists() for file in old)  # running queries may still read them
    assert images(tables) == list("abc")
    assert tidy(tables, "media", vacuum=True) == 0
