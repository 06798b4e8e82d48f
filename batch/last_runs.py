"""The newest detection run of each model, from its events; what alerts are about (batch/run_metrics.py).

`runs` -> LastRun by model: the run that was started last, as its last event has it. Older ones are history: a run
that failed yesterday and went well today is no trouble.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from archive.dataset import dataset
from archive.run_kinds import DETECTS
from archive.schemas import RUNS
from archive.tables import Tables
from batch.facts import SILENT
from model_store.errors import StorageUnreachable


@dataclass(frozen=True, slots=True)
class LastRun:
    """`state` is `interrupted` for one that is running by its record but silent; `sealed_at` is the last time that
    any run of the model was sealed; `counts` are those of schemas.COUNTS.
    """

    model: str
    version: str
    state: str
    event_at: datetime
    sealed_at: datetime | None
    counts: Mapping[str, int]

    @property
    def stalled(self) -> bool:
        return self.state == "interrupted"


_LAST_RUNS = f"""
    with said as (
        select *, event_at::timestamp as said_at, min(event_at) over (partition by run_id) as began,
            max(event_at::timestamp) filter (state = 'sealed') over (partition by model_name) as sealed_at
        from runs where {DETECTS})
    select model_name, model_version, state, said_at, sealed_at, counts from said
    qualify row_number() over (partition by model_name order by began desc, run_id desc, event desc) = 1
    order by model_name
"""


def last_runs(tables: Tables, now: datetime) -> list[LastRun]:
    """Of each model that has run, the detection run that was started last. Raises StorageUnreachable."""
    table = tables.existing("runs")
    try:
        with duckdb.connect() as sql:
            sql.execute("set timezone = 'UTC'")
            sql.register("runs", RUNS.empty_table() if table is None else dataset(table, RUNS))
            return [_last_run(row, now) for row in sql.execute(_LAST_RUNS).fetchall()]
    except (duckdb.Error, OSError) as error:
        raise StorageUnreachable(f"cannot read the runs in {tables.url}: {error}") from error


def _last_run(row: tuple[Any, ...], now: datetime) -> LastRun:
    model, version, state, said_at, sealed_at, counts = row
    said_at = said_at.replace(tzinfo=UTC)
    silent = state == "running" and now - said_at > SILENT
    return LastRun(
        model=model,
        version=version,
        state="interrupted" if silent else state,
        event_at=said_at,
        sealed_at=sealed_at and sealed_at.replace(tzinfo=UTC),
        counts={name: int(count or 0) for name, count in (counts or {}).items()},
    )
