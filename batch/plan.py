"""What a run would do, before it does anything: one anti-join of `media` against `results`.

(tables, model version, scope) -> Plan(todo: one row an image, requested, reused, files, bytes)
Counts are of unique contents: two names of the same bytes are one image. Resume, backfill, delta and
idempotence are all this query.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from archive.schemas import MEDIA, RESULTS
from archive.tables import Tables
from batch.spec import Scope
from model_store.errors import BadRequest
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
        select media_sha256, list({{'source_root': source_root, 'path': path}}
                order by source_root, path) as places,
            any_value(size_bytes) as size_bytes, count(*) as files
        from scoped group by media_sha256),
    done as (
        select media_sha256, status, status = 'failed' and error_code in $tried_again as retry
        from results where inference_key = $key)
    select media_sha256, places[1].source_root as source_root, places[1].path as path,
        places[2:] as elsewhere, size_bytes, files, status,
        status is null or coalesce(retry, false) as due
    from wanted left join done using (media_sha256)
    order by source_root, path
"""


TRIED_AGAIN = ("access", "changed", "model")
"""Failures that the image may have no part in: every later run tries them again."""


@dataclass(frozen=True)
class Plan:
    """`todo` has media_sha256, source_root, path, elsewhere (other places of the same bytes),
    size_bytes, status (null, or of the row it replaces); `base` is the snapshot it holds for.
    """

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
    def again(self) -> pa.Array:
        """Digests of images whose row is replaced."""
        redone = self.todo.filter(pc.is_valid(self.todo["status"]))
        return redone["media_sha256"].combine_chunks()

    @property
    def todo_bytes(self) -> int:
        return sum(self.todo["size_bytes"].to_pylist())


def pinned(store: ModelStore, ref: str) -> ModelVersion:
    """The exact version `ref` means now. Raises BadRequest, ModelNotFound, ModelRefused."""
    return store.describe(store.resolve(parse_ref(ref)))


def make_plan(tables: Tables, model: ModelVersion, scope: Scope, read_only: bool = False) -> Plan:
    """With `read_only`, no table is created.

    Raises StorageUnreachable, and BadRequest when the scope has no image at all: a slip of the
    pen must not look like a run that had nothing to do.
    """
    open_table = tables.existing if read_only else tables.snapshot
    media, results = open_table("media"), open_table("results")
    connection = duckdb.connect()
    connection.register("media", _rows(media, MEDIA))
    connection.register("results", _rows(results, RESULTS))
    parameters: dict[str, object] = {
        "key": model.info.inference_key,
        "tried_again": list(TRIED_AGAIN),
    }
    if scope.camera is not None:
        parameters["camera"] = scope.camera
    sql = _PLAN.format(scope=_SCOPES[scope.kind])
    wanted = connection.sql(sql, params=parameters).to_arrow_table()
    if not len(wanted):
        raise BadRequest(_nothing(connection, tables, scope))
    connection.register("wanted", wanted)
    if scope.status is None:
        todo = connection.sql("from wanted where due").to_arrow_table()
    else:
        chosen = "status = 'failed'" if scope.retries_failed else "status is null"
        wanted = todo = connection.sql(f"from wanted where {chosen}").to_arrow_table()
    return Plan(
        model=model,
        scope=scope,
        requested=wanted["media_sha256"].combine_chunks(),
        todo=todo.drop_columns(["files", "due"]),
        files=sum(wanted["files"].to_pylist()),
        base=results,  # type: ignore[arg-type]  # None only when read_only
    )


def _nothing(connection: duckdb.DuckDBPyConnection, tables: Tables, scope: Scope) -> str:
    """Why a scope is empty, and the way out."""
    known = connection.sql("select distinct camera_id from media where missing_since is null")
    cameras = sorted(str(row[0]) for row in known.fetchall() if row[0] is not None)
    if scope.camera is not None and cameras:
        return f"no image of camera '{scope.camera}'; there is: {', '.join(cameras)}"
    return f"no image is catalogued in {tables.url}; run 'resight ingest URL' first, or set RESIGHT_TABLES"


def _rows(table: DeltaTable | None, schema: pa.Schema) -> object:
    return schema.empty_table() if table is None else table.to_pyarrow_dataset()
