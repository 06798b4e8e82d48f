"""Test that runs without detections are never published, waited for, or a model's newest run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from archive.schemas import RUNS
from archive.views.publications import last_event
from archive.views.views import Views
from batch.planning.plan import pinned
from batch.publishing.impact.result_sets import side
from batch.publishing.publish import publish, publish_first
from batch.runs.accounting import Counts
from batch.runs.metrics import last_runs
from batch.runs.record import RunLog
from batch.runs.resume import require_same_run
from batch.runs.spec import ClassifySpec, RunSpec
from batch.schedule.archive_state import running_run
from model_store.errors import BadRequest, Conflict
from model_store.store import ModelStore, ModelVersion
from tests.fixtures_local import motion_store, put_results, result_rows, rows_of

NOW = datetime(2026, 5, 14, 12, tzinfo=UTC)
SPEC = RunSpec(run_id="r", model="blobs@1")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"))


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return motion_store(tmp_path / "models", "1")


@pytest.fixture
def model(store: ModelStore) -> ModelVersion:
    return pinned(store, "blobs")


def spec(run_id: str) -> RunSpec:
    return SPEC.model_copy(update={"run_id": run_id})


def ran(tables: Tables, model: ModelVersion, run_id: str, kind: Any, minutes_ago: float) -> None:
    row = {"run_id": run_id, "event": 0, "state": "running", "kind": kind, "model_name": "blobs"}
    row |= {"model_version": run_id, "inference_key": model.info.inference_key}
    row |= {"event_at": NOW - timedelta(minutes=minutes_ago)}
    rows = pa.Table.from_pylist([row], schema=RUNS)
    tables.append("runs", rows, "test", lambda _, wanted: wanted)


def test_an_event_has_the_kind_of_its_run_and_its_metrics(tables: Tables, model: ModelVersion) -> None:
    RunLog(tables, spec("d"), model.info).write("running", Counts())
    log = RunLog(tables, spec("f"), model.info, kind="filter")
    log.write("running", Counts())
    log.write("sealed", Counts(), metrics={"checked": 3, "flagged": 1, "changed": 0})
    found = {(row["run_id"], row["event"]): row for row in rows_of(tables, "runs")}
    kinds = {which: row["kind"] for which, row in found.items()}
    assert kinds == {("d", 0): "detect", ("f", 0): "filter", ("f", 1): "filter"}
    metrics = {which: row["metrics"] for which, row in found.items()}
    assert metrics.pop(("f", 1)) == '{"checked": 3, "flagged": 1, "changed": 0}'
    assert set(metrics.values()) == {None}


@pytest.mark.parametrize("kind", ["classify", "filter"])
def test_it_is_never_published(tables: Tables, store: ModelStore, model: ModelVersion, kind: Any) -> None:
    key = model.info.inference_key
    put_results(tables, result_rows(["a"], key))
    RunLog(tables, spec("x"), model.info, kind=kind).write("sealed", Counts())
    assert publish_first(tables, store, "x") is None
    with pytest.raises(BadRequest, match=f"run x is a {kind} run and has no results"):
        publish(tables, store, "x")
    with pytest.raises(BadRequest, match="no run of blobs@1 is sealed"):
        publish(tables, store, "blobs@1")
    with pytest.raises(BadRequest, match=f"run x is a {kind} run: it has no results that could"):
        side(tables, store, "x")
    assert Views(tables.url).current() is None
    RunLog(tables, spec("d"), model.info).write("sealed", Counts())
    RunLog(tables, spec("y"), model.info, kind=kind).write("sealed", Counts())
    assert publish(tables, store, "blobs@1").run_id == "d"


def test_a_reprocess_does_not_wait_for_it(tables: Tables, model: ModelVersion) -> None:
    key = model.info.inference_key
    for minutes_ago, kind in ((1, "filter"), (2, "classify")):
        ran(tables, model, str(kind), kind, minutes_ago)
        assert running_run(tables, key, NOW) is None
    ran(tables, model, "old", None, 3)
    assert running_run(tables, key, NOW) == "old"


def test_it_is_not_the_newest_run_of_its_model(tables: Tables, model: ModelVersion) -> None:
    assert last_runs(tables, NOW) == []
    ran(tables, model, "filtered", "filter", 1)
    assert last_runs(tables, NOW) == []
    ran(tables, model, "old", None, 9)
    assert [run["version"] for run in last_runs(tables, NOW)] == ["old"]
    ran(tables, model, "new", "detect", 5)
    assert [run["version"] for run in last_runs(tables, NOW)] == ["new"]


def test_a_run_is_not_resumed_as_one_of_another_kind(tables: Tables, store: ModelStore, model: ModelVersion) -> None:
    spec = ClassifySpec(run_id="r", model="blobs@1")
    RunLog(tables, spec, model.info, kind="classify").write("running", Counts())
    require_same_run(tables, spec, model, store)
    with pytest.raises(Conflict, match="run r is a classify run and cannot be resumed as a detection run"):
        require_same_run(tables, SPEC, model, store)
    assert (last_event(tables, "r") or {})["kind"] == "classify"
