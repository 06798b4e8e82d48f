"""Concurrent writers for tests that race processes, in a module that spawned processes can import."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.delta.compact import compact
from archive.delta.tables import Tables
from tests.fixtures_local import result_rows


def absent(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
    """Return the rows of images without a stored row."""
    there = snapshot.to_pyarrow_dataset().to_table(columns=["media_sha256"])["media_sha256"]
    return rows.filter(pc.invert(pc.is_in(rows["media_sha256"], there.combine_chunks())))


def write_commits(url: str, writer: str, name: str, commits: int) -> None:
    """Make `commits` commits, each with one row of this writer and one that every writer writes."""
    tables = Tables(url)
    for i in range(commits):
        tables.append("results", result_rows([f"{name}-{i}", f"shared-{i}"]), writer, absent)


def append_rows(url: str, writer: str, name: str, commits: int) -> None:
    """Make `commits` commits of one row, each on the snapshot of the previous one."""
    tables = Tables(url)
    base = tables.snapshot("results")
    for i in range(commits):
        base = tables.append("results", result_rows([f"{name}-{i}"]), writer, absent, base=base)


def replace_rows(url: str, writer: str, shas: Sequence[str], rounds: int) -> None:
    """Replace each row `rounds` times; `run_id` contains the round."""
    tables = Tables(url)
    for number in range(rounds):
        for sha in shas:
            rows = result_rows([sha], run_id=f"round-{number}")
            key = ("inference_key", "media_sha256")
            tables.append("results", rows, writer, lambda _, wanted: wanted, replace=key)


def compact_until(url: str, stop: str, name: str = "results") -> None:
    """Compact repeatedly until the file `stop` exists."""
    while not Path(stop).exists():
        compact(Tables(url), name, min_files=2)
        time.sleep(0.2)  # otherwise the writers that replace rows never succeed
