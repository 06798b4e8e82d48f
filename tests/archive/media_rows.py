"""Rows of `media` for tests with many of them, in a module that spawned processes can import."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from archive.catalogue.diff import SAME_FILE
from archive.delta.replace import Replacement, replace_many
from archive.delta.scratch_db import scratch
from archive.delta.tables import Tables
from archive.schemas import MEDIA

ROOT = "/archive"
WRITER = f"media:{ROOT}"
LONG_AGO = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
IN_PLACE = "from affected anti join due using (source_root, path) union all by name from due"


def media_rows(tags: dict[str, str], root: str = ROOT, **more: Any) -> pa.Table:
    """Return one row per path with its content tag; the digest is derived from both."""
    rows = [
        {"source_root": root, "path": path, "content_tag": tag, "media_sha256": f"{path}:{tag}"}
        for path, tag in tags.items()
    ]
    return pa.Table.from_pylist([row | more for row in rows], schema=MEDIA)


def put_media(tables: Tables, rows: pa.Table) -> DeltaTable:
    """Write the rows in one commit, and so in one file."""
    return tables.append("media", rows, "test", lambda _, wanted: wanted)


def with_rows(sql: duckdb.DuckDBPyConnection, rows: pa.Table) -> Replacement:
    """Return a replacement of the rows of the same files by these."""
    sql.register("given", rows)
    sql.execute("create or replace table new as from given")
    return Replacement(sql, "new", SAME_FILE, IN_PLACE)


def replace_with(tables: Tables, rows: pa.Table, writer: str = WRITER) -> DeltaTable:
    with scratch("test") as sql:
        return replace_many(tables, "media", writer, with_rows(sql, rows))


def replace_and_die(url: str, paths: Sequence[str], after_commit: bool) -> None:
    """Replace rows and kill this process (SIGKILL), just before or just after its commit."""
    commit = DeltaTable.create_write_transaction

    def die(*args: Any, **more: Any) -> None:
        if after_commit:
            commit(*args, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    DeltaTable.create_write_transaction = die  # type: ignore[method-assign]
    replace_with(Tables(url), media_rows(dict.fromkeys(paths, "new")))


def replace_each_round(url: str, paths: Sequence[str], name: str, rounds: int) -> None:
    """Replace all these rows `rounds` times; the tag contains the name and the round."""
    for number in range(rounds):
        replace_with(Tables(url), media_rows(dict.fromkeys(paths, f"{name}-{number}")))
