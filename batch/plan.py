"""What a run would do, before it does anything: one anti-join of `media` against `results`.

(tables, model version, scope) -> Plan(how many images, how many are due, and those in windows)
Counts are of unique contents: two names of the same bytes are one image. Resume, backfill, delta and
idempotence are all this query. The driver holds counts only; rows are in a scratch database (`archive/scratch.py`).
In it an image is known by 128 bits of a digest of its digest: a quarter of the bytes, and by far enough.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from archive.past import PastTables
from archive.query import is_of_storage
from archive.scan import scan
from archive.schemas import MEDIA, RESULTS
from archive.scratch import LARGE_MIB, Scratch, windows
from archive.tables import Tables
from archive.views import View
from batch.sample import choose_sample
from batch.scope import MediaScope, Scope
from batch.select import keep_latest, select_scope
from model_store.errors import BadRequest, StorageUnreachable
from model_store.names import parse_ref
from model_store.store import ModelStore, ModelVersion

TRIED_AGAIN = ("access", "changed", "model")
"""Failures that the image may have no part in: every later run tries them again."""
_PRESENT = """
    create or replace temp view present as
    select media_sha256, source_root, path, size_bytes, quick_digest, camera_id, captured_at_local,
        coalesce(len(timestamp_flags), 0) > 0 as doubtful
    from media where missing_since is null
"""
_WANTED = """
    create or replace table wanted as
    select md5_number(media_sha256) as id, count(*)::integer as files from scoped group by all
"""
_DONE = """
    create or replace table done as
    select md5_number(media_sha256) as id, status,
        status = 'failed' and error_code in (select unnest($tried_again)) as again
    from results
"""
_DUE = {
    None: "status is null or again",
    "missing": "status is null",
    "failed": "status = 'failed'",
}
_SEVERAL = """
    several as (
        select media_sha256, list({'source_root': source_root, 'path': path}
                order by source_root, path) as places,
            any_value(size_bytes) as size_bytes, any_value(quick_digest) as quick_digest,
            any_value(replaces) as replaces
        from scoped join due on id = md5_number(media_sha256) where files > 1 group by media_sha256)
    select media_sha256, source_root, path, [] as elsewhere, size_bytes, quick_digest, replaces from alone
    union all
    select media_sha256, places[1].source_root, places[1].path, places[2:], size_bytes, quick_digest, replaces
    from several
"""
PLACES_OF_DUE = f"""
    alone as (
        select media_sha256, source_root, path, size_bytes, quick_digest, replaces
        from scoped join due on id = md5_number(media_sha256) where files = 1), {_SEVERAL}
"""
"""Of a relation `due` (id, files, replaces): where its images are, one row an image. To stand after it."""
_ROWS_DUE = """
    create table todo as
    with due as (
        select id, files, status is not null as replaces
        from wanted left join done using (id) where {due}), {places}
"""
_ALL = f"""
    create table todo as
    with due as (select id, files, false as replaces from wanted where files > 1),
    alone as (
        select media_sha256, source_root, path, size_bytes, quick_digest, false as replaces from scoped
        where md5_number(media_sha256) not in (select id from due)), {_SEVERAL}
"""
"""The same where nothing is done yet: without a join of everything with itself."""
_ONLY = "delete from wanted where id not in (select id from wanted left join done using (id) where {due})"
_BEGAN = "create temp table began as from scoped where md5_number(media_sha256) in (select id from wanted)"
_PLACED = """
    create temp table placed as
    select present.* from present where media_sha256 in (select media_sha256 from began)
    union all
    from began where media_sha256 not in (select media_sha256 from present);
    create or replace temp view scoped as from placed;
"""
"""The images of a scope of the past, at their places of today; those without one at their old place."""
_FACTS = """
    select (select count(*) from wanted), (select coalesce(sum(files), 0) from wanted),
        count(*), coalesce(sum(size_bytes), 0) from todo
"""


@dataclass(frozen=True)
class Plan:
    """`requested`, `todo`: images; `files`: places of the requested; `base` is the snapshot of `results` that
    it holds for. `population` is what a sample was drawn from, `population_todo` how many of it are due.
    """

    model: ModelVersion
    scope: Scope
    requested: int
    todo: int
    files: int
    todo_bytes: int
    population: int
    population_todo: int
    base: DeltaTable
    scratch: Scratch = field(repr=False, compare=False)

    @property
    def reused(self) -> int:
        return self.requested - self.todo

    def windows(self, images: int) -> Iterator[pa.Table]:
        """What is to be done, at most so many images at a time: media_sha256, source_root, path, elsewhere
        (other places of the same bytes), size_bytes, quick_digest (null in old catalogues), replaces (there is a
        failed row that it replaces).
        """
        yield from windows(self.scratch.sql, "todo", images)  # and the database lives as long

    def some(self, images: int) -> pa.Table:
        """So many of them, spread over all: the same ones each time."""
        step = max(1, self.todo // max(1, images))
        spread = f"from todo where rowid % {step} = 0 order by rowid limit {images}"
        return self.scratch.sql.sql(spread).to_arrow_table()

    def roots(self) -> list[str]:
        """The archives that it reads from."""
        found = self.scratch.sql.sql("select distinct source_root from todo order by 1")
        return [str(row[0]) for row in found.fetchall()]

    def requested_ids(self) -> pa.Array:
        """media_sha256 of every requested image, sorted: 64 characters each, all in memory."""
        digests = self.scratch.sql.sql(
            "select distinct media_sha256 from scoped where md5_number(media_sha256) in "
            "(select id from wanted) order by 1"
        )
        return digests.to_arrow_table()["media_sha256"].combine_chunks()


def pinned(
    store: ModelStore, ref: str, kind: Literal["detector", "classifier"] = "detector"
) -> ModelVersion:
    """The exact version `ref` means now. Raises BadRequest, also for a model of the other kind, ModelNotFound,
    ModelRefused.
    """
    found = store.describe(store.resolve(parse_ref(ref)))
    if found.config.kind != kind:
        command = "classify" if found.config.kind == "classifier" else "reprocess"
        raise BadRequest(
            f"{found.id} is a {found.config.kind}, and a {kind} is needed here; see: resight {command} --help"
        )
    return found


def scope_images(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    media: DeltaTable | None,
    scope: MediaScope,
    view: View | None = None,
    also: Mapping[str, str] | None = None,
) -> None:
    """Make relations `scoped` (files) and `wanted` (id, files) of all images that meet a scope.

    Raises BadRequest when there is none: a slip of the pen must not look like a run that had nothing to do.
    `view` and `also` as for `select_scope`.
    """
    scan(sql, "media", media, MEDIA)
    sql.execute(_PRESENT)
    select_scope(sql, tables, scope, view, also)
    sql.execute(_WANTED)


def latest_images(sql: duckdb.DuckDBPyConnection, scope: MediaScope) -> None:
    """Leave in `scoped` and `wanted` the newest of each camera, where the scope asks for it."""
    if scope.latest_per_camera:
        keep_latest(sql)
        sql.execute(_WANTED)


def make_plan(
    tables: Tables,
    model: ModelVersion,
    scope: Scope,
    read_only: bool = False,
    past: PastTables | None = None,
) -> Plan:
    """Plan a run. A run that is resumed began on `past`: its scope is that of then, and due is what lacks a result now.

    With `read_only`, no table is created. Raises StorageUnreachable, also where the files of `past` are no longer
    kept, and BadRequest where the scope is empty.
    """
    open_table = tables.existing if read_only else tables.snapshot
    media, results = open_table("media"), open_table("results")
    scratch = Scratch("plan", LARGE_MIB, in_order=False)
    sql = scratch.sql
    key, due = model.info.inference_key, _DUE[scope.status]
    with still_kept(past):
        scope_images(sql, past or tables, past.existing("media") if past else media, scope)
        if scope.status or scope.sample:
            _look(sql, past.existing("results") if past else results, key)
        if scope.status:
            sql.execute(_ONLY.format(due=due))
        latest_images(sql, scope)
        population, population_todo = _count(sql, "wanted"), None
        if scope.sample:
            population_todo = _count(sql, f"wanted left join done using (id) where {due}")
            choose_sample(sql, scope.sample)
        if past:
            place_images(sql, past, media)
    _look(sql, results, key)
    if not (scope.status or scope.sample or _count(sql, "done")):
        sql.execute(_ALL)
    else:
        sql.execute(_ROWS_DUE.format(due=due, places=PLACES_OF_DUE))
    requested, files, todo, todo_bytes = sql.sql(_FACTS).fetchall()[0]
    return Plan(
        model=model,
        scope=scope,
        requested=requested,
        todo=todo,
        files=int(files),
        todo_bytes=int(todo_bytes),
        population=population,
        population_todo=todo if population_todo is None else population_todo,
        base=results,  # type: ignore[arg-type]  # None only when read_only
        scratch=scratch,
    )


def place_images(
    sql: duckdb.DuckDBPyConnection, past: PastTables, media: DeltaTable | None
) -> None:
    """Let `scoped` and `wanted` have the places of today for the images that `wanted` has from `past`."""
    if media is None or media.version() == past.moment["media"]:
        return
    sql.execute(_BEGAN)
    scan(sql, "media", media, MEDIA)
    sql.execute(_PLACED)
    sql.execute(_WANTED)


@contextlib.contextmanager
def still_kept(past: PastTables | None) -> Generator[None]:
    """Name the cause where files of `past` have been removed since."""
    try:
        yield
    except Exception as error:
        if past is None or not is_of_storage(error):
            raise
        raise StorageUnreachable(
            f"the tables as they were when this run began are no longer kept: {error}; leave out --run-id for a "
            "new run: what is done is not done again"
        ) from error


def _look(sql: duckdb.DuckDBPyConnection, results: DeltaTable | None, key: str) -> None:
    """Make the relation `done` of the results of an inference key."""
    scan(sql, "results", results, RESULTS, key)
    sql.execute(_DONE, {"tried_again": list(TRIED_AGAIN)})


def _count(sql: duckdb.DuckDBPyConnection, relation: str) -> int:
    return int(sql.sql(f"select count(*) from {relation}").fetchall()[0][0])
