"""Test a prune that was planned before a run begins: the run's rows stay, or the run does not count them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

import archive.retention
from archive.delta.tables import Tables
from archive.retention import other_stores, prune
from archive.schemas import MEDIA, SNIPS
from archive.views.views import View, Views
from batch.filters.prepare import prepare
from batch.filters.run import execute as execute_filter
from batch.filters.run import here
from batch.planning.plan import pinned
from batch.runs.accounting import Counts
from batch.runs.record import RunLog
from batch.runs.run import execute
from batch.runs.spec import RunSpec
from model_store.store import ModelStore, ModelVersion
from tests.fixtures_local import motion_store, put_results, result_rows, rows_of
from tests.support.hosts import HOST

IMAGES = ["a", "b", "c"]
SPEC = RunSpec(run_id="r1", model="blobs@1")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return motion_store(tmp_path / "models", "1")


@pytest.fixture
def model(store: ModelStore) -> ModelVersion:
    return pinned(store, "blobs")


@pytest.fixture
def tables(tmp_path: Path, model: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """Make three images with all their results, which nothing needs; another key is published."""
    monkeypatch.setattr(archive.retention, "WRITTEN", timedelta(days=-1))
    found = Tables(str(tmp_path / "tables"))
    rows = [{"media_sha256": sha, "source_root": "/a", "path": sha} for sha in IMAGES]
    media = pa.Table.from_pylist(rows, schema=MEDIA)
    found.append("media", media, "test", lambda _, wanted: wanted)
    key = model.info.inference_key
    put_results(found, result_rows(IMAGES, key))
    put_results(found, result_rows(IMAGES, "other"))
    snip = {"media_sha256": "a", "inference_key": key, "snips": []}
    snips = pa.Table.from_pylist([snip], schema=SNIPS)
    found.append("snips", snips, "test", lambda _, wanted: wanted)
    view = View(inference_key="other", model_name="m", model_version="1", weights_sha256="w")
    Views(found.url).publish(view, after=0)
    return found


def rows_of_model(tables: Tables, model: ModelVersion, name: str = "results") -> int:
    key = model.info.inference_key
    return sum(row["inference_key"] == key for row in rows_of(tables, name))


def before_delete(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], of: str = "results") -> None:
    """Run `act` once, after the prune was planned and before it deletes from that table."""
    delete, left = archive.retention._delete, [act]

    def late(table: DeltaTable, keys: Any) -> None:
        if left and table.table_uri.rstrip("/").endswith(of):
            left.pop()()
        delete(table, keys)

    monkeypatch.setattr(archive.retention, "_delete", late)


def test_a_run_that_reuses_all_rows_keeps_them(
    tables: Tables, store: ModelStore, model: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[Counts] = []
    before_delete(monkeypatch, lambda: reports.append(execute(SPEC, tables, store, HOST).counts))
    assert prune(tables, []) == []
    assert reports[0].reused == rows_of_model(tables, model) == 3
    assert other_stores(tables.url, "s3://another/store") == [store.url]


def test_without_a_run_the_same_rows_go(tables: Tables, model: ModelVersion) -> None:
    assert [use.inference_key for use in prune(tables, [])] == [model.info.inference_key]
    assert rows_of_model(tables, model) == rows_of_model(tables, model, "snips") == 0


def test_a_filter_run_keeps_the_rows_that_it_judges(
    tables: Tables, model: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scope is a run that is not published and ended long ago."""
    view = Views(tables.url).current()
    assert view
    spec = prepare(tables, "small-size", {})
    info = model.info
    results = {"inference_key": info.inference_key, "model_name": info.name}
    other = spec.view.model_copy(update=results | {"model_version": info.version})
    spec = spec.model_copy(update={"view": other})
    before_delete(monkeypatch, lambda: execute_filter(spec, tables, here))
    assert prune(tables, []) == []
    assert rows_of_model(tables, model) == 3


def test_snips_are_kept_for_a_run_that_begins_after_the_results_are_gone(
    tables: Tables, model: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run infers the images again, and counts the snips that it finds as done."""
    log = RunLog(tables, SPEC, model.info)
    before_delete(monkeypatch, lambda: log.begin(Counts()), of="snips")
    prune(tables, [])
    assert rows_of_model(tables, model) == 0
    assert rows_of_model(tables, model, "snips") == 1
