"""SQL over the tables: what a published view shows, and next to it everything there is.

connect(tables, view) -> DuckDB connection. `results` and `detections` are of one inference key, that of the
view; `all_results` and `all_detections` of all. Detections are flat: one row a detection and file (two
files with the same bytes both have it), with the box also as fractions of the image.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from archive.dataset import dataset
from archive.publications import publications
from archive.schemas import TABLES
from archive.tables import Tables
from archive.views import View, Views
from model_store.errors import BadRequest, StorageUnreachable

_THRESHOLDS = pa.schema([("label", pa.string()), ("score", pa.float32())])
RELATIONS = (
    *("media", "results", "detections", "runs", "all_results", "all_detections"),
    *("assertions", "decisions", "exports", "snips", "views"),
)
_FIRST = ("media", "results", "runs")
"""Of which one is there wherever anything was done; the others are made by commands that only look, too."""
_PLAIN = """
create view media as
    select * replace (captured_at_local::timestamp as captured_at_local) from media_table;
create view runs as
    select * exclude (event),
        min(event_at) over (partition by run_id) as started_at,
        if(state = 'running' and event_at < now() - interval 5 minutes, 'interrupted', state) as state_now
    from runs_table
    qualify row_number() over (partition by run_id order by event desc) = 1;
create view all_results as from results_table;
create view assertions as from assertions_table;
create view decisions as from decisions_table;
create view exports as from exports_table;
create view snips as from snips_table;
create view views as from views_table;
create view results as from results_table where {shown};
"""
_OVER_THRESHOLD = """
    left join thresholds_table t on t.label = f.d.label
    where f.d.score >= coalesce(t.score, {default!r}::float)
"""
"""Both 32-bit, as in `model_store/shown.py`: a score of 0.7 is shown from a threshold of 0.7 up."""
_DETECTIONS = """
create view {name} as
    with flat as (
        select inference_key, media_sha256, run_id, model_name, model_version, weights_sha256,
            width_px, height_px, unnest(detections) as d
        from {rows}
    )
    select m.source_root, m.path, m.camera_id, m.captured_at_local, m.captured_at_utc,
        f.media_sha256, f.inference_key, f.model_name, f.model_version, f.weights_sha256, f.run_id,
        f.d.rank, f.d.label, f.d.class_id, f.d.score,
        f.d.x1_px, f.d.y1_px, f.d.x2_px, f.d.y2_px,
        f.d.x1_px / f.width_px as x_frac, f.d.y1_px / f.height_px as y_frac,
        (f.d.x2_px - f.d.x1_px) / f.width_px as w_frac,
        (f.d.y2_px - f.d.y1_px) / f.height_px as h_frac,
        f.d.mask_area_px, f.d.mask_rle
    from flat f join media m using (media_sha256) {shown};
"""


def connect(tables: Tables, view: View | None = None) -> duckdb.DuckDBPyConnection:
    """A fresh in-memory database over the newest snapshots; nothing in it can change the tables.

    `view` None is what is published as production; where nothing is, `results` and `detections` are empty.
    Raises StorageUnreachable, also where no table is: that is most often a place that is not mounted.
    """
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    view = view or Views(tables.url).current()
    with ThreadPoolExecutor(len(TABLES)) as opening:
        opened = dict(zip(TABLES, opening.map(tables.existing, TABLES), strict=True))
    if all(opened[name] is None for name in _FIRST):
        raise StorageUnreachable(
            f"no table is in {tables.url}; run 'resight ingest' first, or is it mounted?"
        )
    for name, schema in TABLES.items():
        table = opened[name]
        rows = schema.empty_table() if table is None else dataset(table, schema)
        connection.register(f"{name}_table", rows)
    past = publications(Views(tables.url))
    connection.register("views_table", past)
    least = view.label_thresholds if view else {}
    connection.register(
        "thresholds_table",
        pa.table({"label": list(least), "score": list(least.values())}, schema=_THRESHOLDS),
    )
    one_key = f"inference_key = {_quoted(view.inference_key)}" if view else "false"
    over = _OVER_THRESHOLD.format(default=view.threshold if view else 0.0)
    connection.execute(_PLAIN.format(shown=one_key))
    connection.execute(_DETECTIONS.format(name="all_detections", rows="results_table", shown=""))
    connection.execute(_DETECTIONS.format(name="detections", rows="results", shown=over))
    return connection


def query(tables: Tables, sql: str, view: View | None = None) -> pa.Table:
    """Rows of one statement. Raises BadRequest with DuckDB's words when it is wrong, StorageUnreachable."""
    try:
        found = connect(tables, view).sql(sql)
        if found is None:
            raise BadRequest("the statement gives no rows; write for example: select * from media")
        rows = found.to_arrow_table()
    except duckdb.Error as error:
        if is_of_storage(error):
            raise StorageUnreachable(f"cannot read from {tables.url}: {error}") from error
        raise BadRequest(str(error)) from error
    return rows.rename_columns(_distinct(rows.column_names))


def archives(tables: Tables) -> dict[str, int]:
    """Every archive root that was ingested, with the number of its files that are there."""
    if tables.existing("media") is None:
        return {}
    found = query(
        tables,
        "select source_root, count(*) filter (missing_since is null) as files from media "
        "group by all order by all",
    )
    return {row["source_root"]: row["files"] for row in found.to_pylist()}


def is_of_storage(error: Exception) -> bool:
    """A library's word that a file is missing, damaged or out of reach, or that memory or disk is full."""
    if isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException):
        return True
    if isinstance(error, duckdb.InvalidInputException):
        return any(words in str(error) for words in ("reading the stream", "magic bytes"))
    return isinstance(error, DeltaError | pa.ArrowException | FileNotFoundError)


def _distinct(names: list[str]) -> list[str]:
    """A join repeats names; the second `path` becomes `path_1`, so that no column is lost."""
    taken: list[str] = []
    for name in names:
        again = itertools.count(1)
        unique = name
        while unique in taken:
            unique = f"{name}_{next(again)}"
        taken.append(unique)
    return taken


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
