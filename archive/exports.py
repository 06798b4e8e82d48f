"""Write a relation to a file others open: Parquet or CSV by the file's extension, and keep a record of it.

relation --copy--> .NAME.part --rename--> NAME, then a row in `exports`: inference keys that files hold elsewhere
are never pruned here.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

from archive.dataset import dataset, partition_keys
from archive.query import RELATIONS, connect
from archive.schemas import EXPORTS
from archive.tables import Tables
from archive.views import View, Views
from model_store.errors import BadRequest

_FORMATS = {".parquet": "format parquet, compression zstd", ".csv": "format csv, header"}
OF_VIEW, OF_ALL = ("results", "detections"), ("all_results", "all_detections")


def export(tables: Tables, relation: str, out: Path, view: View | None = None) -> int:
    """Rows written, of `view` as in `archive/query.py`. The file appears whole or not at all.

    Raises BadRequest; TableConflict or StorageUnreachable when the file is there and its record is not.
    """
    if relation not in RELATIONS:
        raise BadRequest(f"no relation '{relation}'; there is: {', '.join(RELATIONS)}")
    if out.suffix.lower() not in _FORMATS:
        raise BadRequest(f"{out}: write to a name that ends in .parquet or .csv")
    view = view or Views(tables.url).current()
    rows = _copy(connect(tables, view), relation, out)
    record = {
        "exported_at": datetime.now(UTC),
        "relation": relation,
        "inference_keys": _keys(tables, relation, view) if rows else [],
        "view": _words(view) if view and relation in OF_VIEW else None,
        "rows": rows,
        "file": str(out.resolve()),
    }
    recorded = pa.Table.from_pylist([record], schema=EXPORTS)
    tables.append("exports", recorded, "exports", _not_recorded)
    return rows


def _copy(connection: duckdb.DuckDBPyConnection, relation: str, out: Path) -> int:
    part = out.with_name(f".{out.name}.part")
    target = str(part).replace("'", "''")
    copy = f"copy {relation} to '{target}' ({_FORMATS[out.suffix.lower()]})"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        written = connection.execute(copy).fetchall()
        part.replace(out)
    except (OSError, duckdb.IOException) as error:
        raise BadRequest(f"cannot write {out}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return int(written[0][0])


def _keys(tables: Tables, relation: str, view: View | None) -> list[str]:
    if relation in OF_VIEW:
        return [view.inference_key] if view else []
    if relation in OF_ALL:
        return partition_keys(tables.existing("results"))
    return partition_keys(tables.existing("snips")) if relation == "snips" else []


def _words(view: View) -> str:
    return f"{view.name} {view.serial}" if view.serial else f"run {view.run_id}"


def _not_recorded(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
    """The record is absent unless its own commit was acknowledged too late."""
    (record,) = rows.select(["exported_at", "file"]).to_pylist()
    same = (ds.field("exported_at") == record["exported_at"]) & (ds.field("file") == record["file"])
    return rows.slice(0, 0) if dataset(snapshot, EXPORTS).count_rows(filter=same) else rows
