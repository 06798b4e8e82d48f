"""Cancel a run: its job is stopped, and the record says so also where the run no longer can.

run id --[Ray job stopped]--> `cancelled` in `runs`, by the run itself or by `close`
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

from archive.dataset import dataset
from archive.query import query
from archive.schemas import RUNS
from archive.tables import Tables
from model_store.errors import BadRequest, Conflict

OPEN = ("running", "interrupted")


def close(tables: Tables, run_id: str, job: str | None) -> str:
    """Record that a run is cancelled, unless it did so itself; its state then. `job`: what was stopped.

    Raises BadRequest when there is no such run or it has ended, and Conflict when it is at work but not in a
    job of this cluster.
    """
    state = _state(tables, run_id)
    if state is None and job is None:
        raise BadRequest(f"no run '{run_id}'; see: resight runs list")
    if state is None:
        return "cancelled before it began"
    if state not in OPEN and job is None:
        raise BadRequest(f"run {run_id} has ended: it is {state}")
    if state == "running" and job is None:
        raise Conflict(
            f"run {run_id} is at work, but not as a job that can be found here: stop it where it was "
            "started; five minutes after its last sign it counts as interrupted, and can be cancelled"
        )
    if state in OPEN:
        rows = pa.Table.from_pylist([{"run_id": run_id}], schema=RUNS)
        tables.append("runs", rows, f"run:{run_id}", _cancelled)
    return str(_state(tables, run_id))


def is_interrupted(tables: Tables, run_id: str) -> bool:
    """It was at work, and gave no sign for five minutes."""
    return _state(tables, run_id) == "interrupted"


def _state(tables: Tables, run_id: str) -> str | None:
    if tables.existing("runs") is None:
        return None
    states = query(tables, "select run_id, state_now from runs").to_pylist()
    return {row["run_id"]: row["state_now"] for row in states}.get(run_id)


def _cancelled(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
    """The event after the run's last, with what that says of the run; none when it has ended by itself."""
    run_id = rows["run_id"][0].as_py()
    events: list[dict[str, Any]] = (
        dataset(snapshot, RUNS).to_table(filter=ds.field("run_id") == run_id).to_pylist()
    )
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
