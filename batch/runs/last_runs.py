"""Find the newest detection run of each model, for alerts (batch/runs/metrics.py).

`runs` -> LastRun by model: the run that was started last, with its last event. Older runs are ignored: a run that
failed yesterday and succeeded today is not a problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from archive.delta.snapshot import open_tables
from archive.delta.tables import Tables
from archive.views.run_kinds import DETECTS
from batch.schedule.archive_state import SILENT
from model_store.errors import StorageUnreachable


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run of a model. `state` is `interrupted` if it is recorded as running, but silent. `sealed_at` is when
    any run of the model was last sealed. `counts` are those of schemas.COUNTS; `partly_decoded` is None before the run
    is sealed.
    """

    model: str
    version: str
    state: str
    event_at: datetime
    sealed_at: datetime | None
    counts: Mapping[str, int]
    partly_decoded: int | None

    @property
    def stalled(self) -> bool:
        return self.state == "interrupted"


_LAST_RUNS = f"""
    with events as (
        select *, event_at::timestamp as moment, min(event_at) over (partition by run_id) as began,
            max(event_at::timestamp) filter (state = 'sealed') over (partition by model_name) as sealed_at
        from runs where {DETECTS})
    select model_name, model_version, state, moment, sealed_at, counts,
        (metrics->>'partly_decoded')::bigint from events
    qualify row_number() over (partition by model_name order by began desc, run_id desc, event desc) = 1
    order by model_name
"""


def last_runs(tables: Tables, now: datetime) -> list[LastRun]:
    """Return the newest detection run of each model that has one. Raises StorageUnreachable."""
    try:
        with open_tables(tables, "runs") as sql:
            return [_last_run(row, now) for row in sql.execute(_LAST_RUNS).fetchall()]
    except (duckdb.Error, OSError) as error:
        raise StorageUnreachable(f"cannot read the runs in {tables.url}: {error}") from error


def _last_run(row: tuple[Any, ...], now: datetime) -> LastRun:
    model, version, state, event_at, sealed_at, counts, partly = row
    event_at = event_at.replace(tzinfo=UTC)
    silent = state == "running" and now - event_at > SILENT
    return LastRun(
        model=model,
        version=version,
        state="interrupted" if silent else state,
        event_at=event_at,
        sealed_at=sealed_at and sealed_at.replace(tzinfo=UTC),
        counts={name: int(count or 0) for name, count in (counts or {}).items()},
        partly_decoded=partly,
    )
