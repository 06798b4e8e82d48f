"""What a run would do, before it does anything: one anti-join of `media` against `results`.

(tables, model version, scope) -> Plan(todo: one row an image, requested, reused, files, bytes)
Counts are of unique contents: two names of the same bytes are one image. Resume, backfill, delta and
idempotence are all this query.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from archive.schemas import MEDIA, RESULTS
from archive.tables import Tables
from batch.spec import Scope
from model_store.names import parse_ref
from model_store.store import ModelStore, ModelVersion

_SCOPES = {
    "all": "select * from present",
    "latest-per-camera": """
        select * from present qualify row_number() over (
            partition by camera_id order by captured_at_local desc nulls last, path desc) = 1""",
    "camera": "select * from present where camera_id = $camera",
    "status": "select * from present",
}
_PLAN = """
    with present as (select * from media where missing_since is null),
    scoped as ({scope}),
    wanted as (
        select media_sha256, min(source_root || chr(0) || path) as place,
            any_value(size_bytes) as size_bytes, count(*) as files
        from scoped group by media_sha256),
    done as (select media_sha256, status from results where inference_key = $key)
    select media_sha256, split_part(place, chr(0), 1) as source_root,
        split_part(place, chr(0), 2) as path, size_bytes, files, status
    from wanted left join done using (media_sha256)
    order by source_root, path
"""


@dataclass(frozen=True)
class Plan:
    """`todo` has media_sha256, source_root, path, size_bytes; `base` is the snapshot it holds for."""

    model: ModelVersion
    scope: Scope
    requested: pa.Array
    todo: pa.Table
    files: int
    base: DeltaTable

    @property
    def reused(self) -> int:
        return len(self.requested) - len(self.todo)

    @property
    def todo_bytes(self) -> int:
        return sum(self.todo["size_bytes"].to_pylist())


def pinned(store: ModelStore, ref: str) -> ModelVersion:
    """The exact version `ref` means now. Raises BadRequest, ModelNotFound, ModelRefused."""
    return store.describe(store.resolve(parse_ref(ref)))


def make_plan(tables: Tables, model: ModelVersion, scope: Scope, read_only: bool = False) -> Plan:
    """With `read_only`, no table is created. Raises StorageUnreachable."""
    open_table = tables.existing if read_only else tables.snapshot
    media, results = open_table("media"), open_table("results")
    connection = duckdb.connect()
    connection.register("media", _rows(media, MEDIA))
    connection.register("results", _rows(results, RESULTS))
    parameters = {"key": model.info.inference_key}
    if scope.camera is not None:
        parameters["camera"] = scope.camera
    sql = _PLAN.format(scope=_SCOPES[scope.kind])
    wanted = connection.sql(sql, params=parameters).to_arrow_table()
    connection.register("wanted", wanted)
    if scope.retries_failed:
        wanted = connection.sql("from wanted where status = 'failed'").to_arrow_table()
        todo = wanted
    elif scope.status == "missing":
        wanted = todo = connection.sql("from wanted where status is null").to_arrow_table()
    else:
        todo = connection.sql("from wanted where status is null").to_arrow_table()
    return Plan(
        model=model,
        scope=scope,
        requested=wanted["media_sha256"].combine_chunks(),
        todo=todo.select(["media_sha256", "source_root", "path", "size_bytes"]),
        files=sum(wanted["files"].to_pylist()),
        base=results,  # type: ignore[arg-type]  # None only when read_only
    )


def _rows(table: DeltaTable | None, schema: pa.Schema) -> object:
    return schema.empty_table() if table is None else table.to_pyarrow_dataset()
