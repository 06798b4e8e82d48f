"""Those who write at once in tests that race processes; here, because spawned processes import them by name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.compact import compact
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


def append_rows(url: str, writer: str, name: str, commits: int) -> None:
    """`commits` commits of one row each on the snapshot of the one before."""
    tables = Tables(url)
    base = tables.snapshot("results")
    for i in range(commits):
        base = tables.append("results", result_rows([f"{name}-{i}"]), writer, absent, base=base)


def replace_rows(url: str, writer: str, shas: Sequence[str], rounds: int) -> None:
    """Each of the rows replaced so many times; `run_id` says in which round."""
    tables = Tables(url)
    for number in range(rounds):
        for sha in shas:
            rows = result_rows([sha], run_id=f"round-{number}")
            key = ("inference_key", "media_sha256")
            tables.append("results", rows, writer, lambda _, wanted: wanted, replace=key)


def compact_until(url: str, stop: str, name: str = "results") -> None:
    """Compact again and again until there is a file `stop`."""
    while not Path(stop).exists():
        compact(Tables(url), name, min_files=2)
        time.sleep(0.2)  # or those who replace rows never have their turn
