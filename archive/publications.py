"""Which view a query is about, and every publication as rows.

--view NAME or --run ID -> View, whose inference key and thresholds `archive/query.py` applies.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa

from archive.dataset import dataset
from archive.run_kinds import DETECTS, in_words
from archive.schemas import RUNS, UTC
from archive.tables import Tables
from archive.views import View, Views
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
        ("run_id", pa.string()),
        ("published_at", UTC),
        ("reason", pa.string()),
        ("rolled_back_to", pa.int64()),
    ]
)
RUNS_NOW = """
create view runs as
    select * exclude (event),
        min(event_at) over (partition by run_id) as started_at,
        if(state = 'running' and event_at < now() - interval 5 minutes, 'interrupted', state) as state_now
    from runs_table
    qualify row_number() over (partition by run_id order by event desc) = 1;
"""
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
    """Every publication, one row each, for DuckDB: read when a query reads the relation, and not before.

    Arrow's PyCapsule interface; on S3 each publication is a request. A scan raises StorageUnreachable.
    """

    def __init__(self, views: Views) -> None:
        self._views = views

    @cached_property
    def rows(self) -> pa.Table:
        found: list[dict[str, Any]] = []
        for name in self._views.names():
            past = self._views.history(name)
            found += [_row(view, view.serial == past[-1].serial) for view in past]
        return pa.Table.from_pylist(found, schema=PUBLICATIONS)

    def __arrow_c_schema__(self) -> object:
        return PUBLICATIONS.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.rows.__arrow_c_stream__(requested_schema)


def _row(view: View, current: bool) -> dict[str, Any]:
    labels = json.dumps(view.label_thresholds, ensure_ascii=False)
    return view.model_dump() | {"current": current, "label_thresholds": labels}


def view_named(tables: Tables, name: str) -> View:
    """What is published under the name. Raises BadRequest that lists the names there are."""
    views = Views(tables.url)
    found = views.current(name)
    if found is None:
        names = ", ".join(views.names()) or "none: resight runs publish RUN"
        raise BadRequest(f"nothing is published as '{name}'; there is: {names}")
    return found


def view_of_run(tables: Tables, run_id: str) -> View:
    """All that the run's inference key has said, whichever run wrote it, with every score.

    What a run reused it does not write again, so its own rows would be a part only. Raises BadRequest, also for
    a run that detects nothing (`archive/run_kinds.py`).
    """
    run = last_event(tables, run_id)
    if run is None:
        raise BadRequest(f"no run '{run_id}'; see: resight runs list")
    if run["kind"] != "detect":
        raise BadRequest(
            f"run {run_id} is {in_words(run['kind'])}: it has no results of its own. What it did: resight runs "
            f"show {run_id}"
        )
    fields = ("inference_key", "model_name", "model_version", "weights_sha256", "run_id")
    return View.model_validate({field: run[field] for field in fields})


def last_event(tables: Tables, run_id: str) -> dict[str, Any] | None:
    """run_id, state, identity of the model, spec and metrics (JSON), requested, kind; None: there is no such run."""
    found = connect_runs(tables).sql(_LAST_EVENT, params={"run_id": run_id}).to_arrow_table()
    return found.to_pylist()[0] if len(found) else None


def last_sealed(tables: Tables, inference_key: str | None = None) -> str | None:
    """The detection run that was sealed last, of one key or of any."""
    found = connect_runs(tables).execute(_LAST_SEALED, {"key": inference_key}).fetchall()
    return found[0][0] if found else None


def unpublished(tables: Tables) -> str | None:
    """What to do where results are and none of them is published; None where all is well."""
    results = tables.existing("results")
    if Views(tables.url).current() or results is None or not results.file_uris():
        return None
    run = last_sealed(tables) or "RUN"
    return (
        "nothing is published, so results and detections are empty here: "
        f"resight runs publish {run}; or ask all_results, all_detections or --run RUN"
    )


def connect_runs(tables: Tables) -> duckdb.DuckDBPyConnection:
    """Open `runs_table`, the events, and `runs`; unlike `archive/query.py`, no other table."""
    connection = duckdb.connect()
    table = tables.existing("runs")
    events = RUNS.empty_table() if table is None else dataset(table, RUNS)
    connection.register("runs_table", events)
    connection.execute(f"set timezone = 'UTC'; {RUNS_NOW}")
    return connection
