"""Prune: what it deletes, what it keeps, and what may run concurrently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake

import archive.delta.tables
import archive.retention
from archive.delta.tables import MAINTENANCE, Tables
from archive.retention import KeyUse, block_concurrent_prune, plan_prune, prune
from archive.schemas import SNIPS
from archive.views.exports import export
from archive.views.query import query
from archive.views.views import Views
from model_store.errors import StorageUnreachable, TableConflict
from tests.archive.prunable import KEYS, days_ago, event, keys_of, publish, view
from tests.fixtures_local import put_results, put_rows, result_rows, rows_of
from tests.support.s3_server import new_bucket


def test_the_plan_counts_what_each_key_holds(four: Tables) -> None:
    put_rows(four, "runs", event("b", 5), event("a", 2), event("a", 40, run_id="older"))
    uses = plan_prune(four, [])
    assert [use.inference_key for use in uses] == ["a", "b", "c", "d"]
    held = [(use.rows, use.snips, use.classifications, use.files) for use in uses]
    assert held == [(3, 1, 2, 4), (3, 0, 2, 3), (3, 0, 0, 2), (3, 0, 0, 2)]
    assert [use.model for use in uses] == ["m-a@2", "m-b@2", None, None]
    assert [use.last_run_at for use in uses] == [days_ago(2), days_ago(5), None, None]
    on_disk = {
        key: sum(
            file.stat().st_size
            for name in ("results", "snips", "classifications")
            for file in Path(four.url, name, f"inference_key={key}").glob("*.parquet")
        )
        for key in KEYS
    }
    assert {use.inference_key: use.bytes for use in uses} == on_disk


def test_keys_are_quoted(tables: Tables, old_files: None) -> None:
    keys = {"it's", "a b", "c%20/ü=", "x') or ('1'='1"}
    for key in keys:
        put_results(tables, result_rows(["x"], key=key))
    publish(tables, "a b")
    assert {use.inference_key for use in prune(tables, [])} == keys - {"a b"}
    assert keys_of(tables) == {"a b"}


def test_whole_files_leave_the_table_and_stay_on_disk_for_delta_s_retention(four: Tables) -> None:
    before = four.snapshot("results").version()
    publish(four, "a")
    prune(four, [])
    last = four.snapshot("results").history(1)[0]
    assert last["operationMetrics"]["num_added_files"] == 0
    assert len(list(Path(four.url, "results", "inference_key=b").glob("*.parquet"))) == 2
    old = DeltaTable(f"{four.url}/results", version=before).to_pyarrow_dataset()
    assert old.count_rows() == 12


def during_delete(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], times: int = 1) -> None:
    """Run `act` after the plan and before the first delete."""
    delete, left = archive.retention._delete, [act] * times

    def late(*arguments: Any) -> None:
        if left:
            left.pop()()
        delete(*arguments)

    monkeypatch.setattr(archive.retention, "_delete", late)


def test_rows_that_are_appended_meanwhile_are_kept(four: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(four, "a")
    during_delete(monkeypatch, lambda: put_results(four, result_rows(["a4"], key="a")))
    assert {use.inference_key for use in prune(four, [])} == {"b", "c", "d"}
    assert sorted(row["media_sha256"] for row in rows_of(four, "results")) == ["a1", "a2", "a3", "a4"]


def test_a_key_that_is_published_meanwhile_is_kept(four: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish_and_hold() -> None:
        publish(four, "b")
        block_concurrent_prune(four)

    during_delete(monkeypatch, publish_and_hold)
    assert {use.inference_key for use in prune(four, [])} == {"a", "c", "d"}
    assert keys_of(four) == {"b"}


def test_of_two_prunes_at_once_both_end_well(four: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(four, "a")
    inner: list[list[KeyUse]] = []

    def other() -> None:
        inner.append(prune(four, []))

    during_delete(monkeypatch, other)
    assert prune(four, []) == []
    assert {use.inference_key for use in inner[0]} == {"b", "c", "d"}
    assert keys_of(four) == {"a"}


def test_when_snips_are_refused_what_went_before_is_told_too(four: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process commits to `snips` between its snapshot and its delete, after `results` are deleted."""
    delete, left = archive.retention._delete, [True]

    def late(table: DeltaTable, keys: Any) -> None:
        if table.table_uri.rstrip("/").endswith("snips") and left:
            left.pop()
            snips = four.snapshot("snips")
            guard = archive.retention.properties_of(snips, MAINTENANCE)
            snips.create_write_transaction([], "append", SNIPS, commit_properties=guard)
        delete(table, keys)

    monkeypatch.setattr(archive.retention, "_delete", late)
    assert [use.rows for use in prune(four, [])] == [3, 3, 3, 3]
    assert keys_of(four) == keys_of(four, "snips") == set()


def test_a_prune_that_is_always_refused_gives_up(four: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive.delta.tables, "LOST_RACES", 3)
    during_delete(monkeypatch, lambda: block_concurrent_prune(four), times=100)
    with pytest.raises(TableConflict, match="3 commits rejected, try again later"):
        prune(four, [])
    assert keys_of(four) == set(KEYS)


def test_in_doubt_nothing_goes(four: Tables) -> None:
    publish(four, "a")
    Path(four.url, "views", "production", "00000001.json").write_text("{")
    with pytest.raises(StorageUnreachable):
        prune(four, [])
    assert keys_of(four) == set(KEYS)


def test_a_hold_leaves_an_older_table_as_it_is(tables: Tables) -> None:
    old = result_rows(["a"]).drop_columns(["read_ms", "saturated"])
    write_deltalake(f"{tables.url}/results", old, partition_by=["inference_key"])
    before = tables.snapshot("results").schema()
    block_concurrent_prune(tables)
    after = tables.snapshot("results")
    assert after.schema() == before
    assert after.version() == 1
    put_results(tables, result_rows(["b"], read_ms=1.0))
    assert sorted(row["media_sha256"] for row in rows_of(tables, "results")) == ["a", "b"]


def test_on_s3_it_is_the_same(s3_endpoint: str, old_files: None, tmp_path: Path) -> None:
    tables = Tables(new_bucket(s3_endpoint, "with space/tables"))
    for key in ("a b", "k", "m", "n"):
        put_results(tables, result_rows([f"{key}1", f"{key}2"], key=key))
    publish(tables, "m", "k")
    assert export(tables, "results", tmp_path / "k.csv") == 2
    assert query(tables, "select count(*) as n from all_results").to_pylist() == [{"n": 8}]
    view_of_n = view("n", run_id="r")
    assert export(tables, "results", tmp_path / "n.csv", view_of_n) == 2
    assert [(use.inference_key, use.rows) for use in prune(tables, [])] == [("a b", 2)]
    block_concurrent_prune(tables)
    assert keys_of(tables) == {"k", "m", "n"}
    Views(tables.url).rollback(Views(tables.url).history())
    assert query(tables, "select distinct inference_key as k from results").to_pylist() == [{"k": "m"}]
