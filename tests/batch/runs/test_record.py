"""Test the record of a run: the number of events only grows, also over a resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import archive.delta.tables
from archive.delta.tables import Tables
from archive.views.query import query
from batch.runs.accounting import Counts
from batch.runs.record import RunLog, recorded
from batch.runs.spec import RunSpec
from model_store.errors import BadRequest, StorageUnreachable
from model_store.libraries import resight_version
from tests.fixtures_local import model_info, rows_of

SPEC = RunSpec(run_id="r", model="blobs@1")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path))


def events(tables: Tables) -> list[tuple[str, int, str]]:
    return sorted((row["run_id"], row["event"], row["state"]) for row in rows_of(tables, "runs"))


def test_an_event_says_what_runs_with_which_model(tables: Tables) -> None:
    RunLog(tables, SPEC, model_info()).write("running", Counts(requested=3, reused=1), "m" * 3000)
    (row,) = rows_of(tables, "runs")
    assert (row["run_id"], row["event"], row["state"]) == ("r", 0, "running")
    assert (row["model_name"], row["model_version"], row["inference_key"]) == ("blobs", "1", "k")
    assert RunSpec.model_validate_json(row["spec"]) == SPEC
    assert (row["counts"]["requested"], row["counts"]["reused"]) == (3, 1)
    assert len(row["message"]) == 2000
    assert row["resight_version"] == resight_version()
    assert json.loads(row["library_versions"])["numpy"] == np.__version__


def test_a_run_that_is_resumed_under_its_id_goes_on_counting(tables: Tables) -> None:
    killed = RunLog(tables, SPEC, model_info())
    killed.write("running", Counts())
    killed.write("running", Counts())
    resumed = RunLog(tables, SPEC, model_info())
    resumed.write("running", Counts())
    resumed.write("sealed", Counts())
    assert [event for _, event, _ in events(tables)] == [0, 1, 2, 3]
    assert query(tables, "select state from runs").to_pylist() == [{"state": "sealed"}]


def test_an_event_whose_answer_was_lost_is_there_once(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(tables, SPEC, model_info())
    log.write("running", Counts())
    commit = archive.delta.tables._commit

    def commit_and_lose_the_answer(*args: object) -> None:
        commit(*args)
        raise OSError("reset by peer")

    monkeypatch.setattr("archive.delta.tables.time.sleep", lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr("archive.delta.tables._commit", commit_and_lose_the_answer)
        log.write("running", Counts())
    log.write("sealed", Counts())
    assert [state for _, _, state in events(tables)] == ["running", "running", "sealed"]


def test_of_two_drivers_of_one_run_no_event_is_lost(tables: Tables) -> None:
    one, two = (RunLog(tables, SPEC, model_info()) for _ in range(2))
    for _ in range(3):
        one.write("running", Counts())
    two.write("sealed", Counts())
    assert [event for _, event, _ in events(tables)] == [0, 1, 2, 3]
    assert query(tables, "select state from runs").to_pylist() == [{"state": "sealed"}]


def test_a_table_that_cannot_be_read_leaves_the_first_error_of_the_run(tables: Tables, tmp_path: Path) -> None:
    log = RunLog(tables, SPEC, model_info())
    log.write("running", Counts())
    for file in (tmp_path / "runs").glob("*.parquet"):
        file.write_bytes(b"not a table")
    with pytest.raises(StorageUnreachable, match="cannot read from"):
        log.is_sealed()
    first = BadRequest("the first error")
    assert recorded(log, Counts(), first) is first
