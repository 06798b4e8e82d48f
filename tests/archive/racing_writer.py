"""A writer for tests that race processes; here, because spawned processes import it by name."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.tables import Tables
from tests.fixtures_local import result_rows


def absent(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
    """Rows whose image has no row yet."""
    there = snapshot.to_pyarrow_dataset().to_table(columns=["media_sha256"])["media_sha256"]
    return rows.filter(pc.invert(pc.is_in(rows["media_sha256"], there.combine_chunks())))


def write_commits(url: str, writer: str, name: str, commits: int) -> None:
    """`commits` commits of one row of its own each, and of one that every writer writes."""
    tables = Tables(url)
    for i in range(commits):
        tables.append("results", result_rows([f"{name}-{i}", f"shared-{i}"]), writer, absent)
