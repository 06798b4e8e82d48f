"""Plan a pass before it starts: one anti-join of what its scope wants against the rows of its table.

spec --pass_of--> the pass of exactly one model version, and of one view if it reads crops
(tables, Pass, scope) --plan_pass--> Plan(number of units, number due, and the images to read in windows)
Counts are of unique contents: two names of the same bytes are one image. Resume, backfill, delta and
idempotence are all this query. The driver keeps only counts; rows are in a scratch database
(`archive/delta/scratch_db.py`), where 128 bits of a digest of its digest identify an image: a quarter of the bytes, and
more than enough.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from archive.catalogue.images import PRESENT
from archive.delta.scratch_db import LARGE_MIB, Scratch, scratch, windows
from archive.delta.snapshot import is_of_storage, scan
from archive.delta.sql_literal import literal
from archive.delta.tables import Tables
from archive.schemas import MEDIA, TABLES
from archive.views.clocks import with_deployments
from archive.views.past import PastTables
from archive.views.views import View
from batch.planning.passes import TRIED_AGAIN, DetectPass, Pass
from batch.planning.sample import choose_sample
from batch.planning.select import select_scope
from batch.runs.resume import tables_of_unsealed
from batch.runs.scope import MediaScope, Scope
from batch.runs.spec import ClassifySpec, EmbedSpec, PassSpec, RunSpec
from model_store.config import ModelConfig, with_article
from model_store.errors import BadRequest, StorageError, StorageUnreachable
from model_store.lazy_imports import lazy_imports
from model_store.names import parse_ref
from model_store.store import ModelStore, ModelVersion, in_words

with lazy_imports():
    from batch.classify.plan import classify_pass
    from batch.embed.plan import embed_pass

Kind = Literal["detector", "classifier", "embedder"]
_COMMANDS: dict[str, str] = {"detector": "reprocess", "classifier": "classify", "embedder": "embed"}
_PRESENT = """
    create or replace temp view present as
    select media_sha256, source_root, path, size_bytes, quick_digest, camera_id, captured_at_corrected, deployment_id,
        location, coalesce(len(timestamp_flags), 0) > 0 as doubtful
    from {media} where {is_present}
"""
_WANTED = """
    create or replace table wanted as
    select md5_number(media_sha256) as id, count(*)::integer as files from scoped group by all
"""
_LATEST = """
    create temp table latest as
    from scoped where md5_number(media_sha256) in (select id from wanted)
    qualify row_number() over (
        partition by camera_id
        order by doubtful, captured_at_corrected desc nulls last, path desc, source_root desc) = 1;
    create or replace temp view scoped as from latest;
"""
"""Newest file of each camera, of the files of images in `wanted`."""
_DONE = """
    create or replace table {done} as
    select md5_number(media_sha256) as {ids}, status, status = 'failed' and error_code in {tried_again} as again,
        status = 'failed' and error_code = 'too_large' as too_large
    from {table} where {same}
"""
_STATUS = {"missing": "status is null", "failed": "status = 'failed'"}
_ONLY = """
    delete from {wanted} where rowid not in (
        select w.rowid from {wanted} w left join {done} using ({ids}) where {is_due})
"""
_IN = "delete from {relation} where id not in (select id from {other})"
_BEGAN = "create temp table began as from scoped where md5_number(media_sha256) in (select id from wanted)"
_PLACED = """
    create temp table placed as
    select present.* from present where media_sha256 in (select media_sha256 from began)
    union all
    from began where media_sha256 not in (select media_sha256 from present);
    create or replace temp view scoped as from placed;
"""
"""Images of a past scope, at their current places; those without one at their old place."""
_FILES = "select media_sha256, source_root, path from scoped where md5_number(media_sha256) in (select id from wanted)"
_FACTS = """
    select (select {counted} from {wanted}), (select {counted} from {due}),
        (select coalesce(sum(files), 0) from wanted), (select count(*) from {due}),
        count(*), coalesce(sum(size_bytes), 0) from {todo}
"""
"""Counts of a Plan, in the order of its fields from `requested`."""


@dataclass(frozen=True)
class Plan:
    """The work of a pass. `requested`, `todo`: its units; `files`: places of the images of the scope; `rows`: rows of
    the relation `due`; `images`, `todo_bytes`: what is to be read; `base`: the snapshot of its table that the plan is
    based on. `population`: images that a sample was drawn from; `population_todo`: units of them that are due.
    """

    work: Pass
    scope: Scope
    requested: int
    todo: int
    files: int
    rows: int
    images: int
    todo_bytes: int
    base: DeltaTable
    scratch: Scratch = field(repr=False, compare=False)
    population: int = 0
    population_todo: int = 0

    @property
    def model(self) -> ModelVersion:
        return self.work.model

    @property
    def reused(self) -> int:
        return self.requested - self.todo

    def windows(self, images: int) -> Iterator[pa.Table]:
        """Yield what is to be done, at most `images` rows at a time: media_sha256, source_root, path, elsewhere
        (other places of the same bytes), size_bytes, quick_digest (null in old catalogues), replaces (there is a
        failed row to replace), and for boxes the columns of `BoxPass`.
        """
        yield from windows(self.scratch.sql, self.work.todo, images)  # keeps the database open

    def some(self, images: int) -> pa.Table:
        """Return up to `images` rows of what is to be done, spread over all of it: the same ones each time."""
        step = max(1, self.images // max(1, images))
        spread = f"from {self.work.todo} where rowid % {step} = 0 order by rowid limit {images}"
        return self.scratch.sql.sql(spread).to_arrow_table()

    def roots(self) -> list[str]:
        """Return the archives to read from."""
        roots = f"select distinct source_root from {self.work.todo} order by 1"
        return [str(row[0]) for row in self.scratch.sql.execute(roots).fetchall()]

    def requested_ids(self) -> pa.Array:
        """Return media_sha256 of every image of the scope, sorted: 64 characters each, all in memory."""
        digests = self.scratch.sql.sql(
            "select distinct media_sha256 from scoped where md5_number(media_sha256) in "
            "(select id from wanted) order by 1"
        )
        return digests.to_arrow_table()["media_sha256"].combine_chunks()


def pinned(store: ModelStore, ref: str, kind: Kind = "detector") -> ModelVersion:
    """Return the exact version that `ref` refers to now.

    Raises BadRequest, also for a model of another kind. Raises ModelNotFound or ModelRefused.
    """
    version = store.describe(store.resolve(parse_ref(ref)))
    if version.config.kind != kind:
        command = _COMMANDS[version.config.kind]
        raise BadRequest(
            f"{version.id} is {in_words(version.config)}, and {with_article(kind)} is needed here; see: resight "
            f"{command} --help"
        )
    if isinstance(version.config, ModelConfig) and version.config.is_external:
        raise BadRequest(
            f"{version.id} has imported results and cannot be run: import another file, or run a model of the store"
        )
    return version


def pass_of(spec: PassSpec, tables: Tables, store: ModelStore) -> Pass:
    """Return the pass of a spec. Raises BadRequest, ModelError or StorageError."""
    if isinstance(spec, ClassifySpec):
        return classify_pass(tables, store, spec, pinned(store, spec.model, "classifier"))
    if isinstance(spec, EmbedSpec):
        return embed_pass(tables, store, spec, pinned(store, spec.model, "embedder"))
    return DetectPass(pinned(store, spec.model))


def following(spec: PassSpec, tables: Tables, store: ModelStore) -> ClassifySpec | None:
    """Return the spec of the run that follows in the same job, or None. Raises as `pass_of` if it cannot run."""
    if not (isinstance(spec, RunSpec) and spec.then):
        return None
    next_spec = spec.classify_spec(str(pinned(store, spec.model).id))
    pass_of(next_spec, tables, store)
    return next_spec


def plan_ahead(spec: PassSpec, work: Pass, tables: Tables) -> Plan:
    """Plan a run before it starts; nothing is written. Raises as `plan_pass`."""
    past = tables_of_unsealed(tables, spec.run_id)
    return plan_pass(tables, work, spec.scope, read_only=True, past=past)


def scope_images(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    media: DeltaTable | None,
    scope: MediaScope,
    view: View | None = None,
    also: Mapping[str, str] | None = None,
) -> None:
    """Make relations `scoped` (files) and `wanted` (id, files) of all images that match a scope.

    Raises BadRequest if there are none: a typing error must not look like a run that had nothing to do.
    `view` and `also` as for `select_scope`.
    """
    scan(sql, "media", media, MEDIA)
    sql.execute(_PRESENT.format(media=with_deployments(sql, tables, "media"), is_present=PRESENT))
    select_scope(sql, tables, scope, view, also)
    sql.execute(_WANTED)


def latest_images(sql: duckdb.DuckDBPyConnection, scope: MediaScope) -> None:
    """Keep only the newest image of each camera in `scoped` and `wanted`, if the scope requires it."""
    if scope.latest_per_camera:
        sql.execute(_LATEST)
        sql.execute(_WANTED)


def scope_files(tables: Tables, scope: MediaScope, view: View | None = None) -> pa.Table:
    """Return media_sha256, source_root and path of the files of a scope, in memory; its labels are those of `view`.

    Raises as `scope_images`.
    """
    with scratch("scope") as sql:
        scope_images(sql, tables, tables.existing("media"), scope, view)
        latest_images(sql, scope)
        if scope.sample:
            choose_sample(sql, tables, scope.sample)
        return sql.sql(_FILES).to_arrow_table()


def plan_pass(
    tables: Tables, work: Pass, scope: Scope, read_only: bool = False, past: PastTables | None = None
) -> Plan:
    """Plan a pass. For a resumed run, the scope is selected from `past`, and units without a row now are due.

    With `read_only`, no table is created. Raises BadRequest if the scope is empty. Raises StorageUnreachable, also if
    the files of `past` are no longer kept.
    """
    open_table = tables.existing if read_only else tables.snapshot
    media, rows = open_table("media"), open_table(work.table)
    scratch = Scratch("plan", LARGE_MIB, in_order=False)
    sql, due = scratch.sql, _STATUS[scope.status] if scope.status else work.is_due()
    with still_kept(past):
        scope_images(sql, past or tables, past.existing("media") if past else media, scope)
        work.want(sql, past or tables)
        if scope.status or scope.sample:
            _mark_done(sql, work, past.existing(work.table) if past else rows)
        if scope.status:
            sql.execute(_ONLY.format(**_relations(work), is_due=due))
        if work.wanted != "wanted":
            sql.execute(_IN.format(relation="wanted", other=work.wanted))
        latest_images(sql, scope)
        population, population_todo = _count(sql, "wanted"), None
        if scope.sample:
            units = "{wanted} left join {done} using ({ids}) where".format(**_relations(work))
            population_todo = _count(sql, f"{units} {due}")
            choose_sample(sql, past or tables, scope.sample)
        if work.wanted != "wanted":
            sql.execute(_IN.format(relation=work.wanted, other="wanted"))
        if past:
            place_images(sql, past, media)
    plan = _planned(work, scope, rows, scratch, due)
    todo = plan.todo if population_todo is None else population_todo
    return replace(plan, population=population, population_todo=todo)


def plan_more(tables: Tables, work: Pass, plan: Plan, read_only: bool = False) -> Plan:
    """Plan another pass over the images of `plan`, in its scratch database; call it after they have results.

    With `read_only`, no table is created. Raises StorageUnreachable.
    """
    rows = (tables.existing if read_only else tables.snapshot)(work.table)
    work.want(plan.scratch.sql, tables)
    return _planned(work, plan.scope, rows, plan.scratch, work.is_due())


def _planned(work: Pass, scope: Scope, rows: DeltaTable | None, scratch: Scratch, due: str) -> Plan:
    sql = scratch.sql
    _mark_done(sql, work, rows)
    whole = not (scope.status or scope.sample or _count(sql, work.done))
    work.make_todo(sql, due, whole)
    facts = map(int, sql.execute(_FACTS.format(**_relations(work))).fetchall()[0])
    base: Any = rows  # None only when read_only
    return Plan(work, scope, *facts, base=base, scratch=scratch)


def place_images(sql: duckdb.DuckDBPyConnection, past: PastTables, media: DeltaTable | None) -> None:
    """Give `scoped` and `wanted` the current places of the images that `wanted` has from `past`."""
    if media is None or media.version() == past.moment["media"]:
        return
    sql.execute(_BEGAN)
    scan(sql, "media", media, MEDIA)
    sql.execute(_PLACED)
    sql.execute(_WANTED)


@contextlib.contextmanager
def still_kept(past: PastTables | None) -> Generator[None]:
    """Raise StorageUnreachable with the cause, and the way out if files of `past` have been removed since."""
    try:
        yield
    except Exception as error:
        if past is None or not (is_of_storage(error) or isinstance(error, StorageError)):
            raise
        raise StorageUnreachable(
            f"cannot read the tables as they were when this run began: {error}; if old files are no longer kept, leave "
            "out --run-id for a new run: finished images are not repeated"
        ) from error


def _mark_done(sql: duckdb.DuckDBPyConnection, work: Pass, rows: DeltaTable | None) -> None:
    """Make the relation `done` of the pass from the rows of its table."""
    scan(sql, work.table, rows, TABLES[work.table], work.key["inference_key"])
    sql.execute(_DONE.format(**_relations(work), tried_again=TRIED_AGAIN, same=same_key(work)))


def same_key(work: Pass) -> str:
    """Return the SQL condition on a row of a scan of an inference key that it has the key of the pass."""
    others = {name: value for name, value in work.key.items() if name != "inference_key"}
    return " and ".join(f"{name} = {literal(value)}" for name, value in others.items()) or "true"


def _relations(work: Pass) -> dict[str, str]:
    names = ("table", "wanted", "due", "done", "todo", "ids", "counted")
    return {name: getattr(work, name) for name in names}


def _count(sql: duckdb.DuckDBPyConnection, relation: str) -> int:
    return int(sql.execute(f"select count(*) from {relation}").fetchall()[0][0])
