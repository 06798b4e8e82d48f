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

from archive.corrections import EXPORTED_LABEL
from archive.dataset import dataset
from archive.defaults import RELATIONS
from archive.literal import literal
from archive.prune import lost
from archive.query import connect, is_of_storage, out_of_memory
from archive.replace import Replacement, replace_many
from archive.schemas import EXPORTS
from archive.scratch import scratch
from archive.tables import Tables
from archive.views import View, Views
from model_store.errors import BadRequest, Conflict, StorageError, StorageUnreachable

_FORMATS = {".parquet": "format parquet, compression zstd", ".csv": "format csv, header"}
_KEYS = "select distinct inference_key from {} order by all"
OF_VIEW = ("results", "detections", "hidden", "events", "occurrences")
OF_ALL = ("all_results", "all_detections")
_EDITABLE = {
    name: f"(select *, label as {EXPORTED_LABEL} from {name})"
    for name in ("detections", "hidden", "all_detections")
}
"""Tables whose labels people correct (archive/corrections.py): a second column keeps what was exported."""
_RECORD = ("exported_at", "file")
BESIDE = ("snips", "classifications")
"""Tables that hang on results, by inference key."""


def export(
    tables: Tables,
    relation: str,
    out: Path,
    view: View | None = None,
    memory_mib: int | None = None,
) -> int:
    """Return the number of rows written; `view` and `memory_mib` as in `archive/query.py`.

    The file appears whole or not at all. A process that is killed may leave a record without a file: too much is
    kept then, never too little. Raises BadRequest, StorageUnreachable, TableConflict, and Conflict if a prune
    took the rows at the same time.
    """
    if relation not in RELATIONS:
        raise BadRequest(f"no relation '{relation}'; there is: {', '.join(RELATIONS)}")
    if out.suffix.lower() not in _FORMATS:
        raise BadRequest(f"{out}: write to a name that ends in .parquet or .csv")
    view = view or Views(tables.url).current()
    part = out.with_name(f".{out.name}.part")
    try:
        with connect(tables, view, memory_mib=memory_mib) as sql:
            rows = _copy(sql, relation, out, part)
            keys = _keys(sql, relation, view) if rows else []
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
    """Remove the record of a file that is not there. If that fails it stays: too much is kept, never too little.

    Not by `DeltaTable.delete`: it writes the other records of the file as string_view, on which no reader can filter.
    """
    with contextlib.suppress(StorageError), scratch("export") as sql:
        keys = pa.Table.from_pylist([record], schema=EXPORTS).select(_RECORD)
        sql.register("record", keys)
        sql.execute("create table taken_back as from record")
        rest = f"from affected anti join due using ({', '.join(_RECORD)})"
        replace_many(tables, "exports", "exports", Replacement(sql, "taken_back", _RECORD, rest))


def _copy(sql: duckdb.DuckDBPyConnection, relation: str, out: Path, part: Path) -> int:
    copy = f"copy {_EDITABLE.get(relation, relation)} to {literal(str(part))} ({_FORMATS[out.suffix.lower()]})"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        written = sql.execute(copy).fetchall()
    except OSError as error:
        raise BadRequest(f"cannot write {out}: {error}") from error
    except duckdb.OutOfMemoryException as error:
        raise out_of_memory(error) from error
    except duckdb.Error as error:
        if part.name in str(error):
            raise BadRequest(f"cannot write {out}: {error}") from error
        if is_of_storage(error):
            raise StorageUnreachable(f"cannot read {relation} for {out}: {error}") from error
        raise
    return int(written[0][0])


def _keys(sql: duckdb.DuckDBPyConnection, relation: str, view: View | None) -> list[str]:
    """Return the inference keys of the rows that were copied, from the same snapshots."""
    if relation in OF_VIEW:
        return [view.inference_key] if view else []
    if relation not in (*OF_ALL, *BESIDE):
        return []
    table = f"{relation}_table" if relation in BESIDE else "results_table"
    return [row[0] for row in sql.execute(_KEYS.format(table)).fetchall()]


def _words(view: View) -> str:
    return f"{view.name} {view.serial}" if view.serial else f"run {view.run_id}"


def _not_recorded(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
    """The record is absent unless its own commit was acknowledged too late."""
    (record,) = rows.select(_RECORD).to_pylist()
    same = (ds.field("exported_at") == record["exported_at"]) & (ds.field("file") == record["file"])
    return rows.slice(0, 0) if dataset(snapshot, EXPORTS).count_rows(filter=same) else rows
