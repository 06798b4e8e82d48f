"""Test cancelling: the record of a run that can no longer write it itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from archive.schemas import RUNS
from batch.jobs.control import close
from batch.runs.accounting import Counts
from batch.runs.record import RunLog
from batch.runs.spec import RunSpec
from model_store.errors import BadRequest, Conflict
from tests.fixtures_local import model_info, rows_of

SILENT = 6
"""Minutes after which a run counts as interrupted, and one more."""


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path))


def ran(tables: Tables, *states: str, minutes_ago: float = 0, run_id: str = "r") -> None:
    at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    common = {"run_id": run_id, "event_at": at, "model_name": "m", "inference_key": "k"}
    rows = [
        common | {"event": i, "state": state, "counts": {"ok": i}, "stages": "{}"} for i, state in enumerate(states)
    ]
    for row in rows:
        one = pa.Table.from_pylist([row], schema=RUNS)
        tables.append("runs", one, f"run:{run_id}", lambda _, wanted: wanted)


def events(tables: Tables) -> list[tuple[int, str]]:
    return sorted((row["event"], row["state"]) for row in rows_of(tables, "runs"))


def test_an_interrupted_run_is_cancelled_in_the_record(tables: Tables) -> None:
    ran(tables, "running", "running", minutes_ago=SILENT)
    ran(tables, "running", minutes_ago=SILENT, run_id="other")
    asked = datetime.now(UTC)
    assert close(tables, "r", None) == "cancelled"
    (row,) = [row for row in rows_of(tables, "runs") if row["state"] == "cancelled"]
    assert (row["run_id"], row["event"], row["counts"]["ok"]) == ("r", 2, 1)
    assert (row["model_name"], row["inference_key"]) == ("m", "k")
    assert asked <= row["event_at"] <= datetime.now(UTC)
    assert row["message"] == "cancelled by resight runs cancel"


def test_a_run_whose_job_was_stopped_before_it_could_say_so_is_cancelled(tables: Tables) -> None:
    ran(tables, "running")
    assert close(tables, "r", "resight-r") == "cancelled"
    assert events(tables) == [(0, "running"), (1, "cancelled")]


@pytest.mark.parametrize("state", ["sealed"])
def test_a_run_that_said_so_itself_is_left_as_it_is(tables: Tables, state: str) -> None:
    ran(tables, "running", state)
    assert close(tables, "r", "resight-r") == state
    assert events(tables) == [(0, "running"), (1, state)]


def test_a_job_that_was_stopped_before_its_run_began_is_enough(tables: Tables) -> None:
    assert close(tables, "r", "resight-r") == "cancelled before it began"
    assert tables.existing("runs") is None


@pytest.mark.parametrize(
    ("states", "error", "words"),
    [
        ((), BadRequest, "unknown run 'r'"),
        (("running", "sealed"), BadRequest, "run r has ended: it is sealed"),
        (("running",), Conflict, "is running, but no job of this machine or its cluster belongs to it"),
    ],
)
def test_what_cannot_be_cancelled_is_refused_and_stays(
    tables: Tables, states: tuple[str, ...], error: type[Exception], words: str
) -> None:
    ran(tables, *states)
    ran(tables, "running", run_id="other")
    before = events(tables)
    with pytest.raises(error, match=words):
        close(tables, "r", None)
    assert events(tables) == before


def test_the_run_may_end_by_itself_in_the_same_moment(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(tables, "running", minutes_ago=SILENT)
    append = Tables.append

    def late(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(Tables, "append", append)
        row = {"run_id": "r", "event": 1, "state": "sealed", "event_at": datetime.now(UTC)}
        rows = pa.Table.from_pylist([row], schema=RUNS)
        tables.append("runs", rows, "run:r", lambda _, wanted: wanted)
        return append(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Tables, "append", late)
    assert close(tables, "r", None) == "sealed"
    assert events(tables) == [(0, "running"), (1, "sealed")]


def test_a_cancelled_run_that_is_resumed_goes_on_counting(tables: Tables) -> None:
    spec = RunSpec(run_id="r", model="blobs@1")
    RunLog(tables, spec, model_info()).write("running", Counts())
    close(tables, "r", "resight-r")
    RunLog(tables, spec, model_info()).write("running", Counts())
    assert events(tables) == [(0, "running"), (1, "cancelled"), (2, "running")]
