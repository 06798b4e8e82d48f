"""Runs of other kinds: queries of `runs` in the archive only use detection runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

import archive.retention
from archive.delta.snapshot import recent_rows
from archive.delta.tables import Tables
from archive.retention import plan_prune
from archive.schemas import RUNS
from archive.views.publications import last_event, last_sealed, unpublished, view_of_run
from archive.views.query import query
from model_store.errors import BadRequest
from tests.fixtures_local import put_results, result_rows

NOW = datetime.now(UTC)


def event(run_id: str, ago: timedelta, kind: str | None, **more: Any) -> dict[str, Any]:
    model = {"model_name": "deer", "model_version": "1", "weights_sha256": "w"}
    row = {"run_id": run_id, "event": 0, "state": "sealed", "inference_key": "k", "kind": kind}
    return row | model | {"event_at": NOW - ago} | more


def ran(tables: Tables, *events: dict[str, Any], schema: pa.Schema = RUNS) -> None:
    rows = pa.Table.from_pylist(list(events), schema=schema)
    tables.append("runs", rows, "test", lambda _, wanted: wanted)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


@pytest.fixture
def runs(tables: Tables) -> Tables:
    """Return a detection run of an older release, and newer runs of other kinds with the same inference key."""
    ran(tables, event("old", hours(9), None))
    ran(tables, event("filtered", hours(2), "filter"))
    ran(tables, event("classified", hours(1), "classify"))
    return tables


def test_the_newest_sealed_run_is_one_that_detects(runs: Tables) -> None:
    assert last_sealed(runs) == last_sealed(runs, "k") == "old"
    ran(runs, event("new", hours(5), "detect"))
    assert last_sealed(runs) == last_sealed(runs, "k") == "new"


def test_an_event_says_its_kind_and_an_old_one_is_of_a_detection_run(runs: Tables) -> None:
    kinds = {run: (last_event(runs, run) or {})["kind"] for run in ("old", "filtered")}
    assert kinds == {"old": "detect", "filtered": "filter"}


@pytest.mark.parametrize(("run", "words"), [("filtered", "filter"), ("classified", "classify")])
def test_a_run_that_detects_nothing_has_no_results_to_see(runs: Tables, run: str, words: str) -> None:
    assert view_of_run(runs, "old").inference_key == "k"
    with pytest.raises(BadRequest, match=f"run {run} is a {words} run, which has no results"):
        view_of_run(runs, run)


def test_what_to_publish_is_a_detection_run(runs: Tables) -> None:
    put_results(runs, result_rows(["a"]))
    assert "resight runs publish old," in (unpublished(runs) or "")


def test_prune_says_which_detection_run_was_last_and_waits_for_no_other(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive.retention, "WRITTEN", timedelta(seconds=-1))
    put_results(tables, result_rows(["a"]))
    ran(tables, event("old", timedelta(days=100), None))
    ran(tables, event("filtered", timedelta(days=20), "filter", model_version="x"))
    (use,) = plan_prune(tables, [])
    assert (use.model, use.last_run_at, use.kept) == ("deer@1", NOW - timedelta(days=100), ())
    ran(tables, event("new", timedelta(days=30), "detect"))
    (use,) = plan_prune(tables, [])
    assert (use.last_run_at, len(use.kept)) == (NOW - timedelta(days=30), 1)


def test_who_is_at_work_on_a_key_keeps_it_whatever_the_run_is(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive.retention, "WRITTEN", timedelta(seconds=-1))
    put_results(tables, result_rows(["a"]))
    ran(tables, event("filtered", hours(1), "filter", state="running"))
    (use,) = plan_prune(tables, [])
    assert use.kept[0].startswith("run filtered was active on ")


def test_a_table_without_the_columns_is_one_of_detection_runs(tables: Tables) -> None:
    older = pa.schema([field for field in RUNS if field.name not in ("kind", "metrics")])
    row = event("old", hours(1), None)
    del row["kind"]
    table = pa.Table.from_pylist([row], schema=older)
    write_deltalake(f"{tables.url}/runs", table)
    assert last_sealed(tables) == "old"
    assert view_of_run(tables, "old").inference_key == "k"
    columns = ("run_id", "kind")
    found = recent_rows(tables.existing("runs"), "event_at", NOW - hours(2), columns, inference_key="k")
    assert found == [{"run_id": "old"}]
    assert query(tables, "select kind, metrics from runs").to_pylist() == [{"kind": None, "metrics": None}]
    ran(tables, event("filtered", hours(0.5), "filter", metrics='{"flagged": 3}'))
    assert last_sealed(tables) == "old"
    seen = query(tables, "select run_id, kind, metrics from runs order by run_id").to_pylist()
    assert seen == [
        {"run_id": "filtered", "kind": "filter", "metrics": '{"flagged": 3}'},
        {"run_id": "old", "kind": None, "metrics": None},
    ]
