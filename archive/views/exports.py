"""Export a relation to a Parquet or CSV file (by its extension), and record the export.

relation --copy--> a hidden file and a row in `exports` --block a concurrent prune, rename--> NAME.
The record protects the inference keys in the file from a prune. If the last steps fail, it is removed.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

from archive.annotations.corrections import EXPORTED_LABEL
from archive.defaults import RELATIONS
from archive.delta.replace import Replacement
from archive.delta.scratch_db import scratch
from archive.delta.snapshot import dataset, is_of_storage
from archive.delta.sql_literal import literal
from archive.delta.tables import Tables, table_error
from archive.delta.writer import Writer
from archive.retention import pruned_keys
from archive.schemas import EXPORTS
from archive.views.query import connect, out_of_memory
from archive.views.views import View, Views
from model_store.errors import BadRequest, Conflict, StorageError
from model_store.leftovers import remove, remove_leftovers
from model_store.storage_errors import is_full, storage_error

_FORMATS = {".parquet": "format parquet, compression zstd", ".csv": "format csv, header"}
_KEYS = "select distinct inference_key from {} order by all"
OF_VIEW = ("results", "detections", "hidden", "events", "occurrences", "clips", "individuals", "sightings")
OF_ALL = ("all_results", "all_detections")
_EDITABLE = {
    name: f"(select *, label as {EXPORTED_LABEL} from {name})" for name in ("detections", "hidden", "all_detections")
}
"""Relations with labels that people correct (archive/annotations/corrections.py): a second column keeps the exported
label."""
_RECORD = ("exported_at", "file")
BESIDE = ("snips", "classifications", "embeddings")
"""Tables that depend on results, by inference key."""


def export(
    tables: Tables,
    relation: str,
    out: Path,
    view: View | None = None,
    memory_mib: int | None = None,
    where: str = "",
    name: str = "",
    narrowed_by: Mapping[str, Any] | None = None,
) -> int:
    """Export `relation` to `out` atomically; return the number of rows. `view` and `memory_mib` as in `query.connect`.

    `where` is a condition on its rows (archive/views/image_filter.py). The record has `name`, by default the path, and
    `narrowed_by`: the conditions by their names.

    A process that is killed may leave the hidden file, which a later export removes, and a record, which only keeps
    more results than needed. Raises BadRequest, StorageUnreachable, TableConflict, and Conflict if a concurrent prune
    removed the rows.
    """
    if relation not in RELATIONS:
        raise BadRequest(f"unknown relation '{relation}': use one of {', '.join(RELATIONS)}")
    if out.suffix.lower() not in _FORMATS:
        raise BadRequest(f"unknown file type {out}: use a name that ends in .parquet or .csv")
    if out.is_dir():
        raise BadRequest(f"cannot replace {out}: it is a folder, choose another name")
    view = view or Views(tables.url).current()

    def write(part: Path) -> tuple[int, list[str]]:
        used = f"{relation} {where}"
        with connect(tables, view, memory_mib=memory_mib, statement=used, scans=True) as sql:
            rows = _EDITABLE.get(relation, relation)
            if where:
                rows = f"(select * from {rows} where {where})"
            copy = f"copy {rows} to {literal(str(part))} ({_FORMATS[out.suffix.lower()]})"
            ((count,),) = sql.execute(copy).fetchall()
            return int(count), _keys(sql, relation, view) if count else []

    shown = view if relation in OF_VIEW else None
    return write_recorded(tables, relation, out, write, shown, name, narrowed_by)


def write_recorded(
    tables: Tables,
    relation: str,
    out: Path,
    write: Callable[[Path], tuple[int, list[str]]],
    view: View | None = None,
    name: str = "",
    narrowed_by: Mapping[str, Any] | None = None,
) -> int:
    """Make `out`, a file or a folder, by `write(part)`, and record the export; return its number of rows.

    `write` makes the hidden `part` in the same folder, and returns the number of its rows and the inference keys that
    they have. `relation`: a relation, or the name of a file format. `view` is recorded with its layers and thresholds,
    `name` and `narrowed_by` as by `export`. Raises as `export`.
    """
    if not out.parent.exists():
        raise BadRequest(f"the folder {out.parent} does not exist; is it mounted, is the name right?")
    remove_leftovers(str(out.parent), ".resight-*.part")
    part = out.with_name(f".resight-{secrets.token_hex(8)}.part")  # of this export alone
    try:
        with _export_errors(tables, out, part):
            rows, keys = write(part)
        record = {
            "exported_at": datetime.now(UTC),
            "relation": relation,
            "inference_keys": keys,
            "rows": rows,
            "file": name or str(out.resolve()),
            "filter": json.dumps(narrowed_by or {}, ensure_ascii=False),
            **(_shown_by(view) if view else {}),
        }
        recorded = pa.Table.from_pylist([record], schema=EXPORTS)
        Writer(tables, "exports").append(recorded, _not_recorded)
        try:
            _require_kept(tables, relation, keys, out)
            with _export_errors(tables, out, part):
                _move(part, out)
        except Exception:
            remove_record(tables, record)
            raise
        return rows
    finally:
        remove(part)


@contextlib.contextmanager
def _export_errors(tables: Tables, out: Path, part: Path) -> Iterator[None]:
    """Raise the error of a library as that of the tables, of a place that cannot be written to, or of memory."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise out_of_memory(error) from error
    except (duckdb.Error, OSError) as error:
        if is_full(error):
            raise storage_error(f"write {out}", error) from error
        if isinstance(error, OSError) or part.name in str(error):
            raise BadRequest(f"cannot write {out}: {error}") from error
        if is_of_storage(error):
            raise table_error(f"read {tables.url} for {out}", error) from error
        raise


def is_recorded(tables: Tables, out: Path) -> bool:
    """Return whether a recorded export made this file or folder."""
    table = tables.existing("exports")
    same = ds.field("file") == str(out.resolve())
    return table is not None and bool(dataset(table, EXPORTS).count_rows(filter=same))


def _move(part: Path, out: Path) -> None:
    """Rename `part` to `out`, in place of an earlier one. A folder is moved aside first, and back if that fails."""
    if not out.is_dir():
        part.replace(out)
        return
    aside = out.with_name(f".resight-{secrets.token_hex(8)}.part")
    out.rename(aside)
    try:
        part.rename(out)
    except OSError:
        aside.rename(out)
        raise
    remove(aside)


def _require_kept(tables: Tables, relation: str, keys: list[str], out: Path) -> None:
    pruned = pruned_keys(tables, keys, relation if relation in BESIDE else "results")
    if pruned:
        raise Conflict(
            f"{out} was not written: its results were pruned concurrently (inference key "
            f"{', '.join(key[:12] for key in pruned)}…): export again"
        )


def remove_record(tables: Tables, record: dict[str, Any]) -> None:
    """Remove the record of a file that was not written; if that fails, more results than needed are kept.

    `DeltaTable.delete` would write the other records of the file as string_view, on which no reader can filter.
    """
    with contextlib.suppress(StorageError), scratch("export") as sql:
        keys = pa.Table.from_pylist([record], schema=EXPORTS).select(_RECORD)
        sql.register("record", keys)
        sql.execute("create table removed as from record")
        rest = f"from affected anti join due using ({', '.join(_RECORD)})"
        Writer(tables, "exports").replace(Replacement(sql, "removed", _RECORD, rest))


def _keys(sql: duckdb.DuckDBPyConnection, relation: str, view: View | None) -> list[str]:
    """Return the inference keys of the copied rows, from the same snapshots."""
    if relation in OF_VIEW:
        return [view.inference_key] if view else []
    if relation not in (*OF_ALL, *BESIDE):
        return []
    table = f"{relation}_table" if relation in BESIDE else "results_table"
    return [row[0] for row in sql.execute(_KEYS.format(table)).fetchall()]


def _shown_by(view: View) -> dict[str, Any]:
    thresholds = {"default": view.threshold, "per_label": view.label_thresholds}
    return {
        "view": view_words(view),
        "layers": list(view.layers),
        "thresholds": json.dumps(thresholds, ensure_ascii=False),
        "model": f"{view.model_name}@{view.model_version}",
    }


def view_words(view: View) -> str:
    """Return `production 3` for a publication, `run ID` for the results of a run."""
    return f"{view.name} {view.serial}" if view.serial else f"run {view.run_id}"


def _not_recorded(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
    """Return the record, or nothing if an earlier commit of it lost its acknowledgement."""
    (record,) = rows.select(_RECORD).to_pylist()
    same = (ds.field("exported_at") == record["exported_at"]) & (ds.field("file") == record["file"])
    return rows.slice(0, 0) if dataset(snapshot, EXPORTS).count_rows(filter=same) else rows
