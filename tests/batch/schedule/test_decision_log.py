"""Test that decisions are recorded once, and that only one of two starts a run of one key."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake.exceptions import CommitFailedError

import archive.delta.tables
from archive.delta.tables import Tables
from archive.schemas import RUNS
from batch.schedule.decide import Decision, DecisionFacts, WantedVersion
from batch.schedule.decision_log import STARTING, keep_decision, started_run
from tests.fixtures_local import rows_of

NOW = datetime(2026, 5, 18, 3, 0, tzinfo=UTC)
FULL = Decision("full", ("because", "and because"))
WAIT = Decision("wait", ("not yet",))


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"))


def facts(key: str = "k") -> DecisionFacts:
    wanted = WantedVersion(name="deer", version="2", inference_key=key, numerics=2)
    return DecisionFacts(wanted=wanted, images=10, new_images=4)


def keep(tables: Tables, decision: Decision = FULL, run_id: str = "", **more: Any) -> Any:
    found, now = more.pop("facts", facts()), more.pop("now", NOW)
    return keep_decision(tables, found, decision, now, acted=bool(run_id), run_id=run_id)


def put_event(tables: Tables, run_id: str, state: str, at: datetime, key: str = "k", event: int = 0) -> None:
    row = {"run_id": run_id, "event": event, "state": state, "event_at": at, "inference_key": key}
    rows = pa.Table.from_pylist([row], schema=RUNS)
    tables.append("runs", rows, "test", lambda _, wanted: wanted)


def test_a_decision_is_kept_with_its_reasons_and_facts(tables: Tables) -> None:
    keep(tables, run_id="r1")
    (row,) = rows_of(tables, "decisions")
    assert row["decided_at"] == NOW
    assert row["reasons"] == ["because", "and because"]
    assert json.loads(row["facts"])["new_images"] == 4
    named = ("action", "acted", "model_name", "model_version", "inference_key", "run_id")
    assert [row[name] for name in named] == ["full", True, "deer", "2", "k", "r1"]
    assert (row["published_key"], row["resight_version"] is None) == (None, False)
    assert DecisionFacts.model_validate_json(row["facts"]) == facts()


def test_every_decision_is_kept_the_same_one_too(tables: Tables) -> None:
    for _ in range(3):
        keep(tables, WAIT)
    assert len({row["decision_id"] for row in rows_of(tables, "decisions")}) == 3
    assert {(row["acted"], row["run_id"]) for row in rows_of(tables, "decisions")} == {(False, None)}


def test_while_a_run_starts_no_other_is_started(tables: Tables) -> None:
    assert keep(tables, run_id="r1") is None
    assert started_run(tables, "k", NOW) == "r1"
    assert keep(tables, run_id="r2") == "r1"
    assert [row["run_id"] for row in rows_of(tables, "decisions")] == ["r1"]
    assert keep(tables, WAIT) is None
    assert keep(tables, run_id="r3", facts=facts("another")) is None
    assert started_run(tables, "nobody's", NOW) is None


@pytest.mark.parametrize("states", [["running"], ["running", "failed"], ["failed", "running"]])
def test_a_run_that_has_ended_is_no_longer_starting(tables: Tables, states: list[str]) -> None:
    """A run that is running may have begun since it was looked for."""
    keep(tables, run_id="r1")
    for event, state in enumerate(states):
        put_event(tables, "r1", state, NOW + timedelta(seconds=20), event=event)
    running = "r1" if states[-1] == "running" else None
    assert started_run(tables, "k", NOW + timedelta(seconds=30)) == running
    assert started_run(tables, "k", NOW + timedelta(seconds=30), ended={"r1"}) is None
    assert keep(tables, run_id="r2") == running


def test_a_run_that_was_never_started_holds_nobody_for_long(tables: Tables) -> None:
    keep(tables, run_id="r1")
    assert started_run(tables, "k", NOW + STARTING - timedelta(seconds=1)) == "r1"
    assert started_run(tables, "k", NOW + STARTING) is None
    assert keep(tables, run_id="r2", now=NOW + STARTING) is None


def test_without_a_table_nothing_is_starting_and_none_is_made(tables: Tables) -> None:
    assert started_run(tables, "k", NOW) is None
    assert not Path(tables.url).exists()


def test_of_many_at_once_one_starts_a_run(tables: Tables) -> None:
    tables.snapshot("decisions")
    runs = [f"r{i}" for i in range(6)]
    with ThreadPoolExecutor(len(runs)) as pool:
        claims = list(pool.map(lambda run: keep(Tables(tables.url), run_id=run), runs))
    (row,) = rows_of(tables, "decisions")
    assert claims.count(None) == 1
    assert runs[claims.index(None)] == row["run_id"]
    assert {claim for claim in claims if claim} == {row["run_id"]}


def test_one_that_lost_the_race_after_it_looked_is_told_so(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other commits between this one's check and its commit."""
    commit, first = archive.delta.tables._commit, [True]

    def late(*arguments: Any) -> None:
        if first.pop() if first else False:
            keep(Tables(tables.url), run_id="quicker")
        commit(*arguments)

    monkeypatch.setattr("archive.delta.tables._commit", late)
    assert keep(tables, run_id="slower") == "quicker"
    assert [row["run_id"] for row in rows_of(tables, "decisions")] == ["quicker"]


def test_a_lost_acknowledgement_is_neither_a_second_row_nor_a_lost_claim(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, lost = archive.delta.tables._commit, [True]

    def deaf(*arguments: Any) -> None:
        commit(*arguments)
        if lost:
            lost.clear()
            raise CommitFailedError("the answer did not come")

    monkeypatch.setattr("archive.delta.tables._commit", deaf)
    assert keep(tables, run_id="r1") is None
    assert lost == []
    assert [row["run_id"] for row in rows_of(tables, "decisions")] == ["r1"]
