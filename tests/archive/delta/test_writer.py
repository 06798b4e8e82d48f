"""Writers of a key: the names in the logs of existing tables, and the snapshots that they trust."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from archive.delta.tables import Tables
from archive.delta.writer import Writer
from model_store.errors import TableConflict
from tests.fixtures_local import result_rows


def all_of(_: DeltaTable, wanted: pa.Table) -> pa.Table:
    return wanted


def none_of(_: DeltaTable, wanted: pa.Table) -> pa.Table:
    return wanted.slice(0, 0)


def unasked(_: DeltaTable, __: pa.Table) -> pa.Table:
    raise AssertionError("the base has none of the rows")


@pytest.mark.parametrize(
    ("table", "key", "transaction"),
    [
        ("results", "k" * 64, f"results:{'k' * 64}"),
        ("media", "s3://bucket/archive", "media:s3://bucket/archive"),
        ("assertions", "human", "assertions:human"),
        ("runs", "20260501-1", "run:20260501-1"),
        ("exports", "", "exports"),
        ("layers", "", "layers"),
    ],
)
def test_logs_of_existing_tables_have_these_names(tables: Tables, table: str, key: str, transaction: str) -> None:
    assert Writer(tables, table, key).transaction == transaction


def test_the_snapshot_of_a_commit_is_the_next_base(tables: Tables) -> None:
    writer = Writer(tables, "results", "k", tables.snapshot("results"))
    for name in "ab":
        table = writer.append(result_rows([name]), unasked)
        assert writer.newest() is table
    assert tables.snapshot("results").transaction_version("results:k") == 2


def test_after_a_failure_the_table_is_checked(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tables, "results", "k", tables.snapshot("results"))

    def fails(*_: object) -> DeltaTable:
        raise TableConflict("a lost acknowledgement")

    with monkeypatch.context() as patch:
        patch.setattr(tables, "append", fails)
        with pytest.raises(TableConflict):
            writer.append(result_rows(["a"]), unasked)
    assert writer.append_new(result_rows(["a"]), none_of) == 0


def test_only_missing_rows_are_counted(tables: Tables) -> None:
    rows = result_rows(["a", "b"])
    assert Writer(tables, "results", "k").append_new(rows, all_of) == 2
    assert Writer(tables, "results", "k").append_new(rows, none_of) == 0
