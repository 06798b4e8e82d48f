"""Decisions, kept: table `decisions`, a row each time that somebody asked whether a reprocess is due.

(facts, decision) --keep_decision--> its id, or who was first, where the decision starts a run
Of several that would start a run of one inference key at the same time, one does: its row is the claim, and
the table takes one of two rows that were written on the same snapshot.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
from deltalake import DeltaTable

from archive.recent import recent_rows
from archive.schemas import DECISIONS
from archive.tables import Tables
from batch.decide import Decision, Facts
from model_store.libraries import resight_version

STARTING = timedelta(minutes=5)
"""A run that was decided and wrote no event for so long was never started: its claim is void."""


@dataclass(frozen=True)
class Kept:
    """`claimed_by` is the run of another decision that came first: then nothing was kept."""

    decision_id: str
    claimed_by: str | None = None


def keep_decision(
    tables: Tables, facts: Facts, decision: Decision, now: datetime, acted: bool, run_id: str = ""
) -> Kept:
    """Append one row. `run_id`: of the run that is started because of it; then it is a claim.

    `now` with its time zone. Raises StorageUnreachable, TableConflict.
    """
    row = _row(facts, decision, now, acted, run_id)
    key, decision_id = facts.wanted.inference_key, str(row["decision_id"])
    others: list[str | None] = []

    def missing(snapshot: DeltaTable, rows: pa.Table) -> pa.Table:
        recent = _recent(snapshot, key, now)
        if any(one["decision_id"] == decision_id for one in recent):  # a lost acknowledgement
            return rows.slice(0, 0)
        others.append(_started(tables, recent, key, now) if run_id else None)
        return rows.slice(0, 0) if others[-1] else rows

    rows = pa.Table.from_pylist([row], schema=DECISIONS)
    tables.append("decisions", rows, f"decisions:{key}", missing)
    return Kept(decision_id, others[-1])


def started_run(tables: Tables, key: str, now: datetime) -> str | None:
    """A run of this inference key that was decided minutes ago and has not written an event yet."""
    return _started(tables, _recent(tables.existing("decisions"), key, now), key, now)


def _recent(table: DeltaTable | None, key: str, now: datetime) -> list[dict[str, str]]:
    """Decisions on this key, with what they started."""
    return recent_rows(
        table, "decided_at", now - STARTING, ("decision_id", "run_id"), inference_key=key
    )


def _started(tables: Tables, decided: list[dict[str, str]], key: str, now: datetime) -> str | None:
    """The first of these runs that `runs` knows nothing of."""
    runs = {one["run_id"] for one in decided if one["run_id"]}
    if runs:
        since = now - 2 * STARTING  # clocks of two machines may differ
        events = recent_rows(
            tables.existing("runs"), "event_at", since, ("run_id",), inference_key=key
        )
        runs -= {one["run_id"] for one in events}
    return min(runs, default=None)


def _row(
    facts: Facts, decision: Decision, now: datetime, acted: bool, run_id: str
) -> dict[str, object]:
    wanted, view = facts.wanted, facts.published
    return {
        "decision_id": f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}",
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
