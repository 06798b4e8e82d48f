"""Cancel a run: record it as cancelled after its job was stopped, if the run cannot do so itself.

run id --[its job stopped]--> `cancelled` in `runs`, written by the run itself or by `close`
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

from archive.delta.snapshot import dataset
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import RUNS
from batch.runs.listing import find
from model_store.errors import BadRequest, Conflict

OPEN = ("running", "interrupted")


def close(tables: Tables, run_id: str, job: str | None) -> str:
    """Record that a run is cancelled, unless it did so itself; return its state. `job`: the job that was stopped.

    Raises BadRequest if the run is unknown or has ended. Raises Conflict if it is running, but not as a job of this
    machine or its cluster.
    """
    state = _state(tables, run_id)
    if state is None and job is None:
        raise BadRequest(f"unknown run '{run_id}': see resight runs list")
    if state is None:
        return "cancelled before it began"
    if state not in OPEN and job is None:
        raise BadRequest(f"run {run_id} has ended: it is {state}")
    if state == "running" and job is None:
        raise Conflict(
            f"run {run_id} is running, but no job of this machine or its cluster belongs to it: stop it where it was "
            "started; five minutes after its last event it counts as interrupted and can be cancelled"
        )
    if state in OPEN:
        rows = pa.Table.from_pylist([{"run_id": run_id}], schema=RUNS)
        Writer(tables, "runs", run_id).append(rows, _cancelled)
    return str(_state(tables, run_id))


def is_interrupted(tables: Tables, run_id: str) -> bool:
    """Return whether the run is recorded as running, but has written no event for five minutes."""
    return _state(tables, run_id) == "interrupted"


def _state(tables: Tables, run_id: str) -> str | None:
    run = find(tables, run_id)
    return run["state_now"] if run else None


def _cancelled(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
    """Return the event to append, with the fields of the last one; no row if the run has ended by itself."""
    run_id = rows["run_id"][0].as_py()
    events: list[dict[str, Any]] = dataset(snapshot, RUNS).to_table(filter=ds.field("run_id") == run_id).to_pylist()
    last = max(events, key=lambda event: event["event"])
    if last["state"] != "running":
        return rows.slice(0, 0)
    event = last | {
        "event": last["event"] + 1,
        "state": "cancelled",
        "event_at": datetime.now(UTC),
        "message": "cancelled by resight runs cancel",
    }
    return pa.Table.from_pylist([event], schema=RUNS)
