"""The dataset, compared with that of delta-rs, which has the same rows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyarrow.fs import FileSystem, PyFileSystem, S3FileSystem, SubTreeFileSystem

from archive.annotations.assertions import ANNOTATIONS
from archive.delta import snapshot
from archive.delta.snapshot import dataset, memory_database, partition_keys, read_only_files
from archive.delta.tables import Tables
from archive.schemas import RESULTS
from tests.fixtures_local import put_results, result_rows

KEYS = ("k", "a b", "it's", "c%20/ü=", "0" * 64)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "with a space"))


@pytest.mark.parametrize("keys", [(), KEYS])
def test_it_has_the_rows_of_delta_rs(tables: Tables, keys: tuple[str, ...]) -> None:
    for i, key in enumerate(keys):
        put_results(tables, result_rows([f"{i}-a", f"{i}-b"], key=key, max_score=i / 10))
    table = tables.snapshot("results")
    ours = dataset(table, RESULTS).to_table().sort_by("media_sha256")
    assert ours.schema == RESULTS
    assert ours == table.to_pyarrow_dataset(schema=RESULTS).to_table().sort_by("media_sha256")
    assert partition_keys(table) == sorted(keys)


def test_its_files_are_opened_without_python(tables: Tables) -> None:
    """`Scanner.to_reader`, which DuckDB calls, keeps Python's lock, for which a file system in Python would wait."""
    put_results(tables, result_rows(["a"]))
    assert not isinstance(_base(dataset(tables.snapshot("results"), RESULTS)), PyFileSystem)
    store = read_only_files("s3://bucket/my%20tables/results")
    assert isinstance(store, SubTreeFileSystem)
    assert (store.base_path, type(store.base_fs)) == ("bucket/my tables/results/", S3FileSystem)


def _base(files: ds.FileSystemDataset) -> FileSystem:
    store = files.filesystem
    return store.base_fs if isinstance(store, SubTreeFileSystem) else store


@pytest.mark.parametrize("key", KEYS[2:4])
def test_a_filter_on_the_partition_opens_no_other_file(tables: Tables, key: str) -> None:
    for one in KEYS:
        put_results(tables, result_rows([one], key=one))
    files = dataset(tables.snapshot("results"), RESULTS)
    opened = list(files.get_fragments(filter=ds.field("inference_key") == key))
    assert len(opened) == 1
    found = files.to_table(filter=ds.field("inference_key") == key)
    assert found["media_sha256"].to_pylist() == [key]


def test_log_files_are_read_concurrently(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """On S3 each is a round trip, and an index may be a thousand commits behind."""
    for name in ("a", "b", "c"):
        put_results(tables, result_rows([name]))
    read, both = snapshot._log, threading.Barrier(2, timeout=5)

    def waiting(*of: Any) -> list[dict[str, Any]]:
        both.wait()
        return read(*of)

    monkeypatch.setattr(snapshot, "_log", waiting)
    table = tables.snapshot("results")
    added = snapshot.added_since(table, RESULTS, None, table.version() - 2).to_table()
    assert added["media_sha256"].to_pylist() == ["b", "c"]


def test_a_table_that_is_not_there_has_no_keys() -> None:
    assert partition_keys(None) == []


def test_connections_to_the_database_in_memory_share_no_relation() -> None:
    """Threads create the same names at once; what each reads is its own."""

    def total(number: int) -> int:
        with memory_database() as sql:
            sql.register("boxes", pa.table({"inference_key": ["k"] * number}))
            sql.register("assertion_rows", pa.table({"n": [number]}))
            ANNOTATIONS.create(sql, "iou", "is_same_box")
            sql.execute("create or replace temp table counted as select count(*) as n from boxes")
            return int(sql.sql("select sum(n) from counted").fetchall()[0][0])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(total, range(1, 21))) == list(range(1, 21))
    with memory_database() as sql:
        for name in ("from boxes", "from counted", "select is_same_box(0.7)"):
            with pytest.raises(duckdb.CatalogException):
                sql.sql(name)
        assert sql.sql("select current_setting('timezone')").fetchall() == [("UTC",)]
