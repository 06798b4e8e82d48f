"""Query the tables with SQL: the contents of a published view, and all results.

connect(tables, view) -> DuckDB connection. `results` and `detections` have the view's inference key; `all_results` and
`all_detections` have all keys. Detections are flat: one row per detection of an image (`archive/catalogue/images.py`),
with the box also as fractions of the image.
"""

# pyarrow.compute defines its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import functools
import itertools
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow.dataset import Dataset

from archive.annotations.layers import layers_of
from archive.annotations.resolve import resolve
from archive.catalogue.images import images_of
from archive.delta.scratch_db import half_of_memory_mib, scratch
from archive.delta.snapshot import dataset
from archive.delta.sql_literal import literal
from archive.delta.tables import Tables
from archive.schemas import TABLES
from archive.views.publications import RUNS_NOW, Publications
from archive.views.views import View, Views
from model_store.errors import BadRequest, StorageUnreachable

_THRESHOLDS = pa.schema([("label", pa.string()), ("score", pa.float32())])
_FIRST = ("media", "results", "runs")
"""Tables of which any archive in use has one; read-only commands may create the others."""
_RELATIONS_ONLY = """
set python_enable_replacements = false;
set enable_external_access = false;
set lock_configuration = true;
"""
_PLAIN = """
create view media as
    select * replace (captured_at_local::timestamp as captured_at_local) from media_table;
create view images as from {images};
create view all_results as from results_table;
create view assertions as from assertions_table;
create view decisions as from decisions_table;
create view exports as from exports_table;
create view snips as from snips_table;
create view layers as from layers_table;
create view classifications as from classifications_table;
create view views as from views_table;
create view seen as from results_table where {of_key};
"""
_BOXES = """
create view boxes as
    with flat as (select media_sha256, unnest(detections) as d from seen)
    select media_sha256, d.rank, d.label, d.score, d.x1_px, d.y1_px, d.x2_px, d.y2_px from flat;
create view assertion_rows as from assertions_table;
"""
_FLAT = """
    with flat as (
        select inference_key, media_sha256, run_id, model_name, model_version, weights_sha256,
            width_px, height_px, unnest(detections) as d
        from {rows}
    )
    select m.source_root, m.path, m.camera_id, m.captured_at_local, m.captured_at_utc,
        f.media_sha256, f.inference_key, f.model_name, f.model_version, f.weights_sha256, f.run_id,
        f.d.rank, {label} as label, {class_id} as class_id, {score} as score,
        f.d.x1_px, f.d.y1_px, f.d.x2_px, f.d.y2_px,
        f.d.x1_px / f.width_px as x_frac, f.d.y1_px / f.height_px as y_frac,
        (f.d.x2_px - f.d.x1_px) / f.width_px as w_frac,
        (f.d.y2_px - f.d.y1_px) / f.height_px as h_frac,
        f.d.mask_area_px, f.d.mask_rle {more}
    from flat f join images m using (media_sha256)
"""
_ALL_DETECTIONS = "create view all_detections as" + _FLAT.format(
    rows="results_table",
    label="f.d.label",
    class_id="f.d.class_id",
    score="f.d.score",
    more="",
)
_SAID = _FLAT.format(
    rows="seen",
    label="coalesce(r.label, f.d.label)",
    class_id="if(coalesce(r.label, f.d.label) = f.d.label, f.d.class_id, c.class_id)",
    score="coalesce(r.score, f.d.score)",
    more=""", f.d.label as model_label, f.d.score as model_score, r.score_semantics, r.said_by, r.reason,
        g.event_id, r.occurrence_id, r.slot_id""",
)
_IS_SHOWN = """
    left join thresholds_table t on t.label = coalesce(r.label, {d}.label)
    where not coalesce(r.hidden, false)
        and (coalesce(r.human, false) or coalesce(r.score, {d}.score) >= coalesce(t.score, {{default!r}}::float))
"""
_SHOWN = f"""
create view class_ids as
    with flat as (select unnest(detections) as d from seen)
    select d.label as label, min(d.class_id) as class_id from flat
    where d.label in (select label from assertion_rows where action in ('relabel', 'add')) group by d.label;
create view detections as {{said}}
    left join resolved r on r.media_sha256 = f.media_sha256 and r.rank = f.d.rank
    left join image_groups g on g.media_sha256 = f.media_sha256
    left join class_ids c on c.label = r.label
    {_IS_SHOWN.format(d="f.d")}
    union all by name
    select m.source_root, m.path, m.camera_id, m.captured_at_local, m.captured_at_utc, a.media_sha256,
        a.label, c.class_id, a.x1_px, a.y1_px, a.x2_px, a.y2_px,
        a.x1_px / m.width_px as x_frac, a.y1_px / m.height_px as y_frac,
        (a.x2_px - a.x1_px) / m.width_px as w_frac, (a.y2_px - a.y1_px) / m.height_px as h_frac,
        'human' as score_semantics, 'human' as said_by, a.reason, g.event_id
    from added a join images m using (media_sha256)
    left join image_groups g on g.media_sha256 = a.media_sha256
    left join class_ids c on c.label = a.label;
create view hidden as {{said}}
    join resolved r on r.media_sha256 = f.media_sha256 and r.rank = f.d.rank and r.hidden
    left join image_groups g on g.media_sha256 = f.media_sha256
    left join class_ids c on c.label = r.label;
create view results as
    with shown as (
        select media_sha256 from boxes b left join resolved r using (media_sha256, rank)
        {_IS_SHOWN.format(d="b")}
        union all select media_sha256 from added),
    counts as (select media_sha256, count(*) as n from shown group by media_sha256)
    select s.* replace (
        case when status = 'failed' then status when n > 0 then 'ok' else 'empty' end as status)
    from seen s left join counts c on c.media_sha256 = s.media_sha256;
"""
"""Scores and thresholds are compared as 32-bit numbers, as in `model_store/transform/thresholds.py`, so that a score of
0.7 reaches a threshold of 0.7. A detection that a person keeps is shown with any score. DuckDB omits joins without
selected columns.
"""
_GROUPS = """
create view events as
    with frames as (
        select g.event_id, g.event_note, media_sha256, m.camera_id, m.captured_at_local
        from image_groups g join images m using (media_sha256)),
    counts as (
        select event_id, label, media_sha256, count(*) as n from detections where event_id is not null group by all),
    most as (select event_id, label, max(n) as n from counts group by all),
    max_n as (select event_id, map_from_entries(list((label, n) order by label)) as max_n from most group by event_id)
    select event_id, min(camera_id) as camera_id, min(captured_at_local) as start_local,
        max(captured_at_local) as end_local, count(*) as n_images,
        string_agg(distinct nullif(event_note, ''), '; ') as notes, any_value(max_n) as max_n
    from frames left join max_n using (event_id) group by event_id;
create view occurrences as
    with members as (from detections where occurrence_id is not null),
    votes as (
        select occurrence_id, label, sum(score) as weight, max(score) as best,
            bool_or(coalesce(said_by = 'human', false)) as by_person
        from members group by all)
    select occurrence_id, min(event_id) as event_id, min(camera_id) as camera_id,
        min(captured_at_local) as start_local, max(captured_at_local) as end_local,
        count(*) as n_detections, any_value(v.label) as label, any_value(v.best) as score
    from members join (
        from votes qualify row_number() over (
            partition by occurrence_id order by by_person desc, weight desc, label) = 1) v using (occurrence_id)
    group by occurrence_id;
"""


_SHOWN_WORDS = ("result", "detection", "hidden", "orphaned", "event", "occurrence")
_LISTING_WORDS = ("query", "show", "schema", "table", "view", "pragma", "duckdb_", "pg_", "sqlite")
"""Words of statements that list relations, or can use them without naming them."""


@contextlib.contextmanager
def connect(
    tables: Tables,
    view: View | None = None,
    images: pa.ChunkedArray | None = None,
    memory_mib: int | None = None,
    statement: str = "",
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a scratch database with the relations over the newest snapshots, for one thread at a time.

    `view` defaults to production; if nothing is published, `results` and `detections` are empty. With `images` (a few
    digests), only their rows of `media` and of the view's results are loaded, at once. Data beyond `memory_mib`
    (default: half of the machine or control group) spills to TMPDIR. With a `statement`, only the relations that it
    names are guaranteed, because creating all takes 150 ms.
    Raises StorageUnreachable, also without any table, as on an unmounted disk.
    """
    has = functools.partial(_has, statement.lower())
    view = view or Views(tables.url).current()
    opened = _opened(tables)
    with scratch("sql", memory_mib or half_of_memory_mib()) as sql:
        for name, schema in TABLES.items():
            sql.register(f"{name}_table", _rows(name, opened[name], schema, view, images))
        sql.register("views_table", Publications(Views(tables.url)))
        limits = view.label_thresholds if view else {}
        columns = {"label": list(limits), "score": list(limits.values())}
        sql.register("thresholds_table", pa.table(columns, schema=_THRESHOLDS))
        sql.begin()  # one write to the disk for all relations
        one_key = f"inference_key = {literal(view.inference_key)}" if view else "false"
        sql.execute(RUNS_NOW)
        sql.execute(_PLAIN.format(of_key=one_key, images=images_of("media")))
        if has("all_detections"):
            sql.execute(_ALL_DETECTIONS)
        if has(*_SHOWN_WORDS):
            sql.execute(_BOXES)
            resolve(sql, view.inference_key if view else "", layers_of(tables, view))
            sql.execute(_SHOWN.format(said=_SAID, default=view.threshold if view else 0.0))
        if has("event", "occurrence"):
            sql.execute(_GROUPS)
        sql.commit()
        yield sql


def _has(statement: str, *words: str) -> bool:
    """Return whether a statement, in lower case, may use a relation with one of these words in its name."""
    return not statement or any(word in statement for word in (*words, *_LISTING_WORDS))


def _opened(tables: Tables) -> dict[str, DeltaTable | None]:
    with ThreadPoolExecutor(len(TABLES)) as opening:
        opened = dict(zip(TABLES, opening.map(tables.existing, TABLES), strict=True))
    if all(opened[name] is None for name in _FIRST):
        raise tables.nothing_here()
    return opened


def _rows(
    name: str,
    table: DeltaTable | None,
    schema: pa.Schema,
    view: View | None,
    images: pa.ChunkedArray | None,
) -> pa.Table | Dataset:
    rows = dataset(table, schema)
    if images is None or name not in ("media", "results"):
        return rows
    chosen = pc.field("media_sha256").isin(images.combine_chunks())
    if name == "results":
        chosen = chosen & (pc.field("inference_key") == (view.inference_key if view else ""))
    return rows.to_table(filter=chosen)


def query(
    tables: Tables,
    statement: str,
    view: View | None = None,
    allow_files: bool = False,
    memory_mib: int | None = None,
) -> pa.Table:
    """Return the rows of one statement. Without `allow_files`, it can only access the relations.

    Raises StorageUnreachable, and BadRequest with DuckDB's message for an invalid statement or too little memory.
    """
    try:
        try:
            rows = _rows_of(tables, statement, view, allow_files, memory_mib, statement)
        except duckdb.CatalogException:  # its message suggests relations, so all must exist
            rows = _rows_of(tables, statement, view, allow_files, memory_mib, "")
    except duckdb.PermissionException as error:
        raise BadRequest(
            f"{error}. Statements can only read the relations: use 'resight sql --allow-files' for files"
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise out_of_memory(error) from error
    except duckdb.Error as error:
        if is_of_storage(error):
            raise StorageUnreachable(f"cannot read from {tables.url}: {error}") from error
        raise BadRequest(str(error)) from error
    return rows.rename_columns(_distinct(rows.column_names))


def _rows_of(
    tables: Tables,
    statement: str,
    view: View | None,
    allow_files: bool,
    memory_mib: int | None,
    relations_for: str,
) -> pa.Table:
    with connect(tables, view, memory_mib=memory_mib, statement=relations_for) as sql:
        if not allow_files:
            sql.execute(_RELATIONS_ONLY)
        rows = sql.sql(statement)
        if rows is None:
            raise BadRequest("the statement returns no rows: use for example select * from media")
        return rows.to_arrow_table()


def archives(tables: Tables) -> dict[str, int]:
    """Return the number of files that are not missing, by root of each ingested archive."""
    if tables.existing("media") is None:
        return {}
    rows = query(
        tables,
        "select source_root, count(*) filter (missing_since is null) as files from media "
        "group by all order by all",
    )
    return {row["source_root"]: row["files"] for row in rows.to_pylist()}


def out_of_memory(error: duckdb.OutOfMemoryException) -> BadRequest:
    """Return the error for a query that fits neither into its memory nor into TMPDIR."""
    reason = str(error).splitlines()[0]
    return BadRequest(
        f"{reason}. The query needs more memory, or more room in TMPDIR ({tempfile.gettempdir()}): select fewer "
        "rows or columns, set --memory-mib of 'resight sql' or 'resight export', or set TMPDIR to a larger disk"
    )


def is_of_storage(error: Exception) -> bool:
    """Return whether a library reports a file that is missing, damaged or unreachable, or a full disk."""
    if isinstance(error, duckdb.IOException):
        return True
    if isinstance(error, duckdb.InvalidInputException):
        return any(
            words in str(error)
            for words in ("reading the stream", "exporting a stream", "magic bytes")
        )
    return isinstance(error, DeltaError | pa.ArrowException | FileNotFoundError)


def _distinct(names: list[str]) -> list[str]:
    """Return unique column names: the second `path` of a join becomes `path_1`, so that no column is lost."""
    taken: list[str] = []
    for name in names:
        suffix = itertools.count(1)
        unique = name
        while unique in taken:
            unique = f"{name}_{next(suffix)}"
        taken.append(unique)
    return taken
