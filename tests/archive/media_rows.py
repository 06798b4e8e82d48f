"""Rows of `media` for tests that are about many of them; here, because spawned processes import them by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from archive.difference import SAME_FILE
from archive.replace import Replacement, replace_many
from archive.schemas import MEDIA
from archive.scratch import scratch
from archive.tables import Tables

ROOT = "/archive"
WRITER = f"media:{ROOT}"
LONG_AGO = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
IN_PLACE = "from affected anti join due using (source_root, path) union all by name from due"


def media_rows(tags: dict[str, str], root: str = ROOT, **more: Any) -> pa.Table:
    """A row a path, with this content tag; the digest is made of both."""
    rows = [
        {"source_root": root, "path": path, "content_tag": tag, "media_sha256": f"{path}:{tag}"}
        for path, tag in tags.items()
    ]
    return pa.Table.from_pylist([row | more for row in rows], schema=MEDIA)


def put_media(tables: Tables, rows: pa.Table) -> DeltaTable:
    """One commit, and so one file."""
    return tables.append("media", rows, "test", lambda _, wanted: wanted)


def with_rows(sql: duckdb.DuckDBPyConnection, rows: pa.Table) -> Replacement:
    """These rows in place of those of the same files."""
    sql.register("given", rows)
    sql.execute("create or replace table new as from given")
    return Replacement(sql, "new", SAME_FILE, IN_PLACE)


def replace_with(tables: Tables, rows: pa.Table, writer: str = WRITER) -> DeltaTable:
    with scratch("test") as sql:
        return replace_many(tables, "media", writer, with_rows(sql, rows))


def replace_and_die(url: str, paths: Sequence[str], after_commit: bool) -> None:
    """kill -9 of a process that replaces rows, just before or just after its commit."""
    commit = DeltaTable.create_write_transaction

    def die(*args: Any, **more: Any) -> None:
        if after_commit:
            commit(*args, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    DeltaTable.create_write_transaction = die  # type: ignore[method-assign]
    replace_with(Tables(url), media_rows(dict.fromkeys(paths, "new")))


def replace_each_round(url: str, paths: Sequence[str], name: str, rounds: int) -> None:
    """All of these rows replaced so many times; the tag says by whom and in which round."""
    for number in range(rounds):
        replace_with(Tables(url), media_rows(dict.fromkeys(paths, f"{name}-{number}")))
