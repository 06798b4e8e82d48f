"""Defects of deltalake that archive/delta/compact.py, rewrite.py, replace.py and snapshot.py work around.

Each test states the correct behaviour. When one passes, its workaround can be removed: `strict` makes that a failure
of the suite, with the reason as its text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

ROWS = 12


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return a table of small files."""
    for i in range(ROWS):
        write_deltalake(str(tmp_path / "t"), pa.table({"k": [f"{i:02}"], "v": [i]}), mode="append")
    return str(tmp_path / "t")


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="optimize.compact is safe: archive/delta/compact.py need not rewrite by itself",
)
def test_two_compactions_of_one_snapshot_keep_every_row_once(url: str) -> None:
    first, second = DeltaTable(url), DeltaTable(url)
    first.optimize.compact()
    with contextlib.suppress(CommitFailedError):  # which is correct
        second.optimize.compact()
    assert DeltaTable(url).to_pyarrow_table().num_rows == ROWS


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="optimize keeps app transactions: it can be fenced as other commits are"
)
def test_an_app_transaction_that_is_given_to_optimize_is_kept(url: str) -> None:
    properties = CommitProperties(app_transactions=[Transaction("writer", 7)])
    DeltaTable(url).optimize.compact(commit_properties=properties)
    assert DeltaTable(url).transaction_version("writer") == 7


def _merge(table: DeltaTable) -> Any:
    rows = pa.table({"k": ["03"], "v": [30]})
    return (
        table.merge(rows, "s.k = t.k", source_alias="s", target_alias="t")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


CHANGES: dict[str, Callable[[DeltaTable], Any]] = {
    "merge": _merge,
    "delete": lambda table: table.delete("k = '03' or v = 4"),
    "update": lambda table: table.update(updates={"v": "30"}, predicate="k = '03'"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.xfail(
    strict=True, reason="string_view columns are gone, or pyarrow filters on them: archive/delta/replace.py"
)
def test_rows_can_be_filtered_after_a_change(url: str, change: str) -> None:
    DeltaTable(url).optimize.compact()  # a file with rows that stay
    CHANGES[change](DeltaTable(url))
    files = [uri.removeprefix("file://") for uri in DeltaTable(url).file_uris()]
    found = ds.dataset(files).to_table(filter=ds.field("k") == "07")
    assert found["v"].to_pylist() == [7]
