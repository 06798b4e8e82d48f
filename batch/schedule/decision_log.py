"""Record decisions in table `decisions`: one row per check whether a reprocess is due.

(facts, decision) --keep_decision--> one row; if the decision starts a run that another one has claimed, no row.
If several processes would start a run of one inference key at once, one does. Its row is the claim: the table accepts
only one of two rows that were written on the same snapshot.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import datetime, timedelta

import pyarrow as pa
from deltalake import DeltaTable

from archive.delta.snapshot import recent_rows
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import DECISIONS
from batch.schedule.decide import Decision, DecisionFacts
from model_store.libraries import resight_version

STARTING = timedelta(minutes=5)
"""A decided run without an event for this long was never started: its claim is void."""


def keep_decision(
    tables: Tables,
    facts: DecisionFacts,
    decision: Decision,
    now: datetime,
    acted: bool,
    run_id: str = "",
    decision_id: str = "",
    ended: Collection[str] = (),
) -> str | None:
    """Append one row, by default with a new id. With the `run_id` of a run that it starts, the row is a claim.

    Return the run of an earlier claim, if there is one: nothing was recorded then. `now` has a time zone; `ended` as in
    `started_run`. Raises StorageUnreachable or TableConflict.
    """
    decision_id = decision_id or new_decision_id(now)
    new = _row(facts, decision, now, acted, run_id) | {"decision_id": decision_id}
    key = facts.wanted.inference_key
    others: list[str | None] = []

    def missing(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
        recent = _recent(snapshot, key, now)
        if any(row["decision_id"] == decision_id for row in recent):  # a lost acknowledgement
            return rows.slice(0, 0)
        others.append(_started(tables, recent, key, now, ended) if run_id else None)
        return rows.slice(0, 0) if others[-1] else rows

    rows = pa.Table.from_pylist([new], schema=DECISIONS)
    Writer(tables, "decisions", key).append(rows, missing)
    return others[-1]


def new_decision_id(now: datetime) -> str:
    return f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def started_run(tables: Tables, key: str, now: datetime, ended: Collection[str] = ()) -> str | None:
    """Return a run of this inference key that was decided within STARTING and has not ended, or None.

    `ended`: runs that have ended although their records may still have the state `running`.
    """
    return _started(tables, _recent(tables.existing("decisions"), key, now), key, now, ended)


def _recent(table: DeltaTable | None, key: str, now: datetime) -> list[dict[str, str]]:
    """Return recent decisions on this key, with the runs that they started."""
    return recent_rows(table, "decided_at", now - STARTING, ("decision_id", "run_id"), inference_key=key)


def _started(
    tables: Tables, decided: list[dict[str, str]], key: str, now: datetime, ended: Collection[str]
) -> str | None:
    """Return the first of these runs that has not ended, or None. One may have begun after `running_run` looked."""
    runs = {row["run_id"] for row in decided if row["run_id"]} - {*ended}
    if runs:
        since = now - 2 * STARTING  # clocks of two machines may differ
        columns = ("run_id", "event", "state")
        events = recent_rows(tables.existing("runs"), "event_at", since, columns, inference_key=key)
        last = {row["run_id"]: row["state"] for row in sorted(events, key=lambda row: row["event"])}
        runs -= {run for run, state in last.items() if state != "running"}
    return min(runs, default=None)


def _row(facts: DecisionFacts, decision: Decision, now: datetime, acted: bool, run_id: str) -> dict[str, object]:
    wanted, view = facts.wanted, facts.published
    return {
        "decided_at": now,
        "action": decision.action,
        "acted": acted,
        "model_name": wanted.name,
        "model_version": wanted.version,
        "inference_key": wanted.inference_key,
        "published_key": view.inference_key if view else None,
        "reasons": list(decision.reasons),
        "facts": facts.model_dump_json(),
        "run_id": run_id or None,
        "resight_version": resight_version(),
    }
