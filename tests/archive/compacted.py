"""Helpers for tables of many small files and their compaction."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from archive.delta.compact import CompactReport
from archive.delta.tables import Tables
from tests.fixtures_local import put_results, result_rows, rows_of

WRITER = "results:k"
SAME_RESULT = ("inference_key", "media_sha256")


def put_each(tables: Tables, *shas: str, **more: Any) -> None:
    """Write each row in its own commit, and so in its own file."""
    for sha in shas:
        put_results(tables, result_rows([sha], **more))


def replace(tables: Tables, *shas: str, key: str = "k", run_id: str = "again") -> None:
    rows = result_rows(shas, key=key, run_id=run_id)
    tables.append("results", rows, WRITER, lambda _, wanted: wanted, replace=SAME_RESULT)


def images(tables: Tables, key: str = "k") -> list[str]:
    rows = rows_of(tables, "results")
    return sorted(row["media_sha256"] for row in rows if row["inference_key"] == key)


def files(tables: Tables, name: str = "results") -> list[dict[str, Any]]:
    return list(pa.table(tables.snapshot(name).get_add_actions(flatten=True)).to_pylist())


def outcome(report: CompactReport) -> tuple[int, int, int, int]:
    return report.files_before, report.files_after, report.commits, report.refused
