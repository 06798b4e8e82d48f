"""Resolve --view NAME or --run ID to a `View`, and list all publications as rows.

`archive/views/query.py` applies the inference key and the thresholds of the view.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from archive.delta.relations import Relations
from archive.delta.snapshot import dataset, open_tables, storage_errors
from archive.delta.tables import Tables
from archive.schemas import RUNS, UTC
from archive.views.run_kinds import DETECTS, in_words
from archive.views.views import View, Views
from model_store.errors import BadRequest

PUBLICATIONS = pa.schema(
    [
        ("name", pa.string()),
        ("serial", pa.int64()),
        ("current", pa.bool_()),
        ("inference_key", pa.string()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("weights_sha256", pa.string()),
        ("layers", pa.list_(pa.string())),
        ("threshold", pa.float64()),
        ("label_thresholds", pa.string()),
        ("identity_threshold", pa.float64()),
        ("run_id", pa.string()),
        ("published_at", UTC),
        ("reason", pa.string()),
        ("rolled_back_to", pa.int64()),
    ]
)
VIEWS_SQL, SUN_SQL = (Path(__file__).with_name(name) for name in ("views.sql", "sun.sql"))
_LAST_EVENT = """
    select run_id, state, inference_key, model_name, model_version, weights_sha256, spec, metrics,
        counts.requested as requested, coalesce(kind, 'detect') as kind from runs_table
    where run_id = $run_id order by event desc limit 1
"""
_LAST_SEALED = f"""
    with last as (
        from runs_table where {DETECTS} qualify row_number() over (partition by run_id order by event desc) = 1)
    select run_id from last where state = 'sealed' and ($key is null or inference_key = $key)
    order by event_at desc limit 1
"""


class Publications:
    """Arrow stream (PyCapsule interface) of one row per publication, loaded only if a query scans it.

    On S3 each publication is a request. A scan raises StorageUnreachable.
    """

    def __init__(self, views: Views) -> None:
        self._views = views

    @cached_property
    def rows(self) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for name in self._views.names():
            history = self._views.history(name)
            for view in history:
                labels = json.dumps(view.label_thresholds, ensure_ascii=False)
                is_current = view.serial == history[-1].serial
                rows.append(view.model_dump() | {"current": is_current, "label_thresholds": labels})
        return pa.Table.from_pylist(rows, schema=PUBLICATIONS)

    def __arrow_c_schema__(self) -> object:
        return PUBLICATIONS.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.rows.__arrow_c_stream__(requested_schema)


def view_named(tables: Tables, name: str) -> View:
    """Return the view published under `name`. Raises BadRequest that lists the published names."""
    views = Views(tables.url)
    view = views.current(name)
    if view is None:
        names = ", ".join(views.names())
        hint = f"use one of {names}" if names else "publish a run with resight runs publish RUN"
        raise BadRequest(f"nothing is published as '{name}': {hint}")
    return view


def view_of_run(tables: Tables, run_id: str) -> View:
    """Return a view of all results of the run's inference key, by any run, with every score.

    The rows of the run alone would lack the results that it reused. Raises BadRequest, also for a run of a kind
    without results (`archive/views/run_kinds.py`).
    """
    run = last_event(tables, run_id)
    if run is None:
        raise BadRequest(f"unknown run '{run_id}': see resight runs list")
    if run["kind"] != "detect":
        raise BadRequest(
            f"run {run_id} is {in_words(run['kind'])}, which has no results: see resight runs show {run_id}"
        )
    fields = ("inference_key", "model_name", "model_version", "weights_sha256", "run_id")
    return View.model_validate({field: run[field] for field in fields})


def last_event(tables: Tables, run_id: str) -> dict[str, Any] | None:
    """Return run_id, state, model, spec and metrics (JSON), requested and kind of a run; None if it is unknown.

    Raises StorageUnreachable.
    """
    with storage_errors(tables):
        rows = connect_runs(tables).sql(_LAST_EVENT, params={"run_id": run_id}).to_arrow_table()
    return rows.to_pylist()[0] if len(rows) else None


def last_sealed(tables: Tables, inference_key: str | None = None) -> str | None:
    """Return the id of the detection run that was sealed last, of one key or of any; None without one.

    Raises StorageUnreachable.
    """
    with storage_errors(tables):
        rows = connect_runs(tables).execute(_LAST_SEALED, {"key": inference_key}).fetchall()
    return rows[0][0] if rows else None


def unpublished(tables: Tables) -> str | None:
    """Return a hint if results exist but none is published, else None."""
    results = tables.existing("results")
    if Views(tables.url).current() or results is None or not results.file_uris():
        return None
    run = last_sealed(tables) or "RUN"
    return (
        "nothing is published, so results and detections are empty here: "
        f"run resight runs publish {run}, or query all_results, all_detections or --run RUN"
    )


def connect_runs(tables: Tables) -> duckdb.DuckDBPyConnection:
    """Return a connection with `runs_table` (the events) and `runs`, and no other table."""
    connection = open_tables(tables)
    connection.register("runs_table", dataset(tables.existing("runs"), RUNS))
    Relations(VIEWS_SQL).create(connection, "runs")
    return connection
