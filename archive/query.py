"""SQL over the tables: DuckDB views media, results, detections and runs.

connect(tables) -> DuckDB connection; `detections` is flat: one row a detection and file (two files
with the same bytes both have it), with the box also as fractions of the image.
"""

from __future__ import annotations

import itertools

import duckdb
import pyarrow as pa

from archive.schemas import TABLES
from archive.tables import Tables
from model_store.errors import BadRequest

_VIEWS = """
create view media as
    select * replace (captured_at_local::timestamp as captured_at_local) from media_table;
create view results as select * from results_table;
create view runs as
    select * exclude (event),
        if(state = 'running' and event_at < now() - interval 5 minutes, 'interrupted', state) as state_now
    from runs_table
    qualify row_number() over (partition by run_id order by event desc) = 1;
create view detections as
    with flat as (
        select inference_key, media_sha256, run_id, model_name, model_version, weights_sha256,
            width_px, height_px, unnest(detections) as d
        from results_table
    )
    select m.source_root, m.path, m.camera_id, m.captured_at_local, m.captured_at_utc,
        f.media_sha256, f.inference_key, f.model_name, f.model_version, f.weights_sha256, f.run_id,
        f.d.rank, f.d.label, f.d.class_id, f.d.score,
        f.d.x1_px, f.d.y1_px, f.d.x2_px, f.d.y2_px,
        f.d.x1_px / f.width_px as x_frac, f.d.y1_px / f.height_px as y_frac,
        (f.d.x2_px - f.d.x1_px) / f.width_px as w_frac,
        (f.d.y2_px - f.d.y1_px) / f.height_px as h_frac,
        f.d.mask_area_px, f.d.mask_rle
    from flat f join media m using (media_sha256);
"""


def connect(tables: Tables) -> duckdb.DuckDBPyConnection:
    """A fresh in-memory database over the newest snapshots; nothing in it can change the tables."""
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    for name, schema in TABLES.items():
        table = tables.existing(name)
        rows = schema.empty_table() if table is None else table.to_pyarrow_dataset(schema=schema)
        connection.register(f"{name}_table", rows)
    connection.execute(_VIEWS)
    return connection


def query(tables: Tables, sql: str) -> pa.Table:
    """Rows of one statement. Raises BadRequest with DuckDB's words when it is wrong."""
    try:
        found = connect(tables).sql(sql)
        if found is None:
            raise BadRequest("the statement gives no rows; write for example: select * from media")
        rows = found.to_arrow_table()
    except duckdb.Error as error:
        raise BadRequest(str(error)) from error
    return rows.rename_columns(_distinct(rows.column_names))


def archives(tables: Tables) -> dict[str, int]:
    """Every archive root that was ingested, with the number of its files that are there."""
    found = query(
        tables,
        "select source_root, count(*) filter (missing_since is null) as files from media "
        "group by all order by all",
    )
    return {row["source_root"]: row["files"] for row in found.to_pylist()}


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
