"""Write a relation to a file others open: Parquet or CSV by the file's extension, and keep a record of it.

relation --copy--> .NAME.part, a row in `exports`, --held against a prune at work, rename--> NAME: inference keys
that files hold elsewhere are never pruned here. Where the last steps fail, the row is taken back.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from archive.dataset import dataset
from archive.prune import lost
from archive.query import RELATIONS, connect, is_of_storage
from archive.schemas import EXPORTS
from archive.tables import MAINTENANCE, Tables, properties_of
from archive.views import View, Views
from model_store.errors import BadRequest, Conflict, StorageUnreachable

_FORMATS = {".parquet": "format parquet, compression zstd", ".csv": "format csv, header"}
_KEYS = "select distinct inference_key from {} order by all"
OF_VIEW = ("results", "detections", "hidden", "events", "occurrences")
OF_ALL = ("all_results", "all_detections")
BESIDE = ("snips", "classifications")
"""Tables that hang on results, by inference key."""


def export(tables: Tables, relation: str, out: Path, view: View | None = None) -> int:
    """Rows written, of `view` as in `archive/query.py`. The file appears whole or not at all.

    Of a process that is killed a record may stay, and no file: too much is kept then, never too little.
    Raises BadRequest, StorageUnreachable, TableConflict, and Conflict when a prune took the rows meanwhile.
    """
    if relation not in RELATIONS:
        raise BadRequest(f"no relation '{relation}'; there is: {', '.join(RELATIONS)}")
    if out.suffix.lower() not in _FORMATS:
        raise BadRequest(f"{out}: write to a name that ends in .parquet or .csv")
    view = view or Views(tables.url).current()
    connection, part = connect(tables, view), out.with_name(f".{out.name}.part")
    try:
        rows = _copy(connection, relation, out, part)
        keys = _keys(connection, relation, view) if rows else []
        record = {
            "exported_at": datetime.now(UTC),
            "relation": relation,
            "inference_keys": keys,
            "view": _words(view) if view and relation in OF_VIEW else None,
            "rows": rows,
            "file": str(out.resolve()),
        }
        recorded = pa.Table.from_pylist([record], schema=EXPORTS)
        tables.append("exports", recorded, "exports", _not_recorded)
        try:
            _require_kept(tables, relation, keys, out)
            part.replace(out)
        except Exception as error:
            _take_back(tables, record)
            if isinstance(error, OSError):
                raise BadRequest(f"cannot write {out}: {error}") from error
            raise
        return rows
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _require_kept(tables: Tables, relation: str, keys: list[str], out: Path) -> None:
    gone = lost(tables, keys, relation if relation in BESIDE else "results")
    if gone:
        raise Conflict(
            f"{out} was not written: results it would hold were pruned at the same moment (inference key "
            f"{', '.join(key[:12] for key in gone)}…); export again"
        )


def _take_back(tables: Tables, record: dict[str, Any]) -> None:
    """The record of a file that is not there. Where that fails it stays: too much is kept, never too little."""
    with contextlib.suppress(StorageUnreachable, DeltaError, OSError):
        table = tables.snapshot("exports")
        file = str(record["file"]).replace("'", "''")
        at = record["exported_at"].isoformat(timespec="microseconds")
        table.delete(
            f"file = '{file}' and exported_at = '{at}'",
            commit_properties=properties_of(table, MAINTENANCE),
        )


def _copy(connection: duckdb.DuckDBPyConnection, relation: str, out: Path, part: Path) -> int:
    target = str(part).replace("'", "''")
    copy = f"copy {relation} to '{target}' ({_FORMATS[out.suffix.lower()]})"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        written = connection.execute(copy).fetchall()
    except OSError as error:
        raise BadRequest(f"cannot write {out}: {error}") from error
    except duckdb.Error as error:
        if part.name in str(error):
            raise BadRequest(f"cannot write {out}: {error}") from error
        if is_of_storage(error):
            raise StorageUnreachable(f"cannot read {relation} for {out}: {error}") from error
        raise
    return int(written[0][0])


def _keys(connection: duckdb.DuckDBPyConnection, relation: str, view: View | None) -> list[str]:
    """Of the very snapshots that were copied."""
    if relation in OF_VIEW:
        return [view.inference_key] if view else []
    if relation not in (*OF_ALL, *BESIDE):
        return []
    table = f"{relation}_table" if relation in BESIDE else "results_table"
    return [row[0] for row in connection.execute(_KEYS.format(table)).fetchall()]


def _words(view: View) -> str:
    return f"{view.name} {view.serial}" if view.serial else f"run {view.run_id}"


def _not_recorded(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
    """The record is absent unless its own commit was acknowledged too late."""
    (record,) = rows.select(["exported_at", "file"]).to_pylist()
    same = (ds.field("exported_at") == record["exported_at"]) & (ds.field("file") == record["file"])
    return rows.slice(0, 0) if dataset(snapshot, EXPORTS).count_rows(filter=same) else rows
