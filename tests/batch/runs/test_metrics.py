"""Test metrics of runs, archive and stores, read back with Prometheus' own parser."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from archive.delta.tables import Tables
from archive.schemas import MEDIA, RUNS
from archive.views.views import View, Views
from batch.runs.metrics import NAMES, Collected, collect
from model_store.errors import StorageUnreachable
from model_store.store import ModelStore
from tests.fixtures_local import MODELS, ROOT, put_results, result_rows

NOW = datetime(2026, 5, 14, 12, tzinfo=UTC)
MODEL_STORE = ModelStore(str(MODELS))
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Make an archive of 4 images of one camera, all of the last week: two have results, one of them blank."""
    tables = Tables(str(tmp_path / "tables"))
    names = [f"{i}" for i in range(4)]
    rows = [
        {
            "media_sha256": name,
            "source_root": "/a",
            "path": name,
            "camera_id": 'north "1"\n',
            "captured_at_local": (NOW - timedelta(days=1)).replace(tzinfo=None).isoformat(),
            "timestamp_flags": [],
            "ingested_at": NOW,
        }
        for name in names
    ]
    put(tables, "media", pa.Table.from_pylist(rows, schema=MEDIA))
    put_results(tables, result_rows(["0"], max_score=0.9))
    put_results(tables, result_rows(["1"]))
    return tables


def put(tables: Tables, name: str, rows: pa.Table) -> None:
    tables.append(name, rows, "test", lambda _, wanted: wanted)


def put_run(tables: Tables, run_id: str, *events: Mapping[str, Any], **run: Any) -> None:
    """Record events of a run: `ago_s` before NOW, `state`, and counts."""
    rows: list[dict[str, Any]] = []
    for number, event in enumerate(events):
        counts = {name: event.get(name, 0) for name in ("requested", "ok", "empty", "failed")}
        row = {"run_id": run_id, "event": number, "model_name": "deer", "model_version": "1"}
        row |= {"state": event["state"], "event_at": NOW - timedelta(seconds=event["ago_s"])}
        rows.append(row | {"counts": counts | {"reused": event.get("reused", 0)}} | run)
    put(tables, "runs", pa.Table.from_pylist(rows, schema=RUNS))


def event(ago_s: float, state: str, **counts: int) -> dict[str, Any]:
    return {"ago_s": ago_s, "state": state, **counts}


def published(tables: Tables, **more: Any) -> View:
    facts = {"model_name": "deer", "model_version": "1", "weights_sha256": "w", "threshold": 0.4}
    view = View.model_validate({"inference_key": "k", **facts, **more})
    return Views(tables.url).publish(view, after=0)


def samples(collected: Collected) -> Samples:
    text = generate_latest(collected.registry).decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "node_exporter drops the file for a sample that is there twice"
            found[key] = sample.value
    return found


def told(tables: Tables, now: datetime = NOW, **more: Any) -> Samples:
    return samples(collect(tables, MODEL_STORE, now, **more))


def value(found: Samples, name: str, **labels: str) -> float:
    """Return the value of the one sample with at least these labels."""
    (one,) = [v for (n, with_), v in found.items() if n == name and labels.items() <= dict(with_).items()]
    return one


def names(found: Samples) -> set[str]:
    return {name for name, _ in found}


def test_an_archive_without_runs_or_view_is_told_without_them(tables: Tables) -> None:
    found = told(tables)
    assert value(found, "resight_archive_files") == value(found, "resight_archive_images") == 4
    assert value(found, "resight_archive_ingested_timestamp_seconds") == NOW.timestamp()
    assert value(found, "resight_store_up", what="tables") == 1
    assert value(found, "resight_store_up", what="models") == 1
    assert value(found, "resight_camera_images", period="last_7d", camera='north "1"\n') == 4
    assert value(found, "resight_camera_images", period="28d_before") == 0
    assert value(found, "resight_table_files", table="results") == 2
    assert not {n for n in names(found) if n.startswith(("resight_run", "resight_view"))}
    assert "resight_camera_blank_ratio" not in names(found)


def test_the_view_s_backlog_and_blank_images_are_told(tables: Tables) -> None:
    view = published(tables)
    found = told(tables)
    of_view = {"view": "production", "model": "deer", "version": "1"}
    results = {r: value(found, "resight_view_images", **of_view, result=r) for r in ("ok", "failed")}
    assert results == {"ok": 2, "failed": 0}
    assert value(found, "resight_view_images", **of_view, result="none") == 2
    assert view.published_at is not None
    when = value(found, "resight_view_published_timestamp_seconds", **of_view)
    assert when == pytest.approx(view.published_at.timestamp())
    assert value(found, "resight_camera_seen_images", period="last_7d", view="production") == 2
    assert value(found, "resight_camera_blank_ratio", period="last_7d") == 0.5
    before = [k for k in found if k[0] == "resight_camera_blank_ratio"]
    assert len(before) == 1, "nothing was seen in the 28 days before"


def test_a_sealed_run_is_told_with_its_images(tables: Tables) -> None:
    counts = {"requested": 100, "ok": 50, "empty": 20, "failed": 10, "reused": 20}
    put_run(tables, "a", event(900, "running", requested=100), event(600, "sealed", **counts))
    found = told(tables)
    states = {dict(k[1])["state"]: v for k, v in found.items() if k[0] == "resight_run_state"}
    assert states == {"running": 0, "interrupted": 0, "sealed": 1, "failed": 0, "cancelled": 0}
    who = {"model": "deer", "version": "1"}
    for outcome in ("ok", "empty", "failed", "reused"):
        assert value(found, "resight_run_images", **who, outcome=outcome) == counts[outcome]
    assert value(found, "resight_run_requested_images", **who) == 100
    assert value(found, "resight_run_failed_ratio", **who) == pytest.approx(10 / 80)
    sealed = NOW.timestamp() - 600
    assert value(found, "resight_run_last_sealed_timestamp_seconds", model="deer") == sealed
    assert value(found, "resight_run_last_event_timestamp_seconds", **who) == sealed
    assert value(found, "resight_run_stalled", **who) == 0


@pytest.mark.parametrize(("ago_s", "state", "stalled"), [(290, "running", 0), (310, "interrupted", 1)])
def test_a_running_run_that_is_silent_is_stalled(tables: Tables, ago_s: float, state: str, stalled: int) -> None:
    put_run(tables, "a", event(4000, "running"), event(ago_s, "running", requested=5))
    found = told(tables)
    assert value(found, "resight_run_state", state=state) == 1
    assert value(found, "resight_run_stalled") == stalled
    assert "resight_run_failed_ratio" not in names(found), "0 of 0 is no share"
    assert "resight_run_last_sealed_timestamp_seconds" not in names(found)


def test_the_run_that_was_started_last_stands_for_its_model(tables: Tables) -> None:
    put_run(tables, "old", event(9000, "running"), event(10, "running"))
    put_run(tables, "new", event(8000, "running"), event(7000, "failed"), model_version="2")
    put_run(tables, "other", event(8000, "running"), event(5000, "sealed"), model_name="bee")
    put_run(tables, "sealed", event(99000, "running"), event(98000, "sealed"))
    found = told(tables)
    assert value(found, "resight_run_state", model="deer", state="failed", version="2") == 1
    assert value(found, "resight_run_state", model="bee", state="sealed") == 1
    assert not [
        k for k in found if k[0] == "resight_run_state" and ("version", "1") in k[1] and ("model", "deer") in k[1]
    ]
    at = value(found, "resight_run_last_sealed_timestamp_seconds", model="deer")
    assert at == NOW.timestamp() - 98000, "of any run of the model"


def test_stores_that_are_away_are_told_and_the_rest_as_well(tables: Tables, tmp_path: Path) -> None:
    away = collect(Tables(str(tmp_path / "none")), MODEL_STORE, NOW)
    found = samples(away)
    assert value(found, "resight_store_up", what="tables") == 0
    assert value(found, "resight_store_up", what="models") == 1
    assert [type(problem) for problem in away.problems] == [StorageUnreachable]
    assert names(found) == {"resight_store_up", "resight_metrics_duration_seconds"}
    other = collect(tables, ModelStore(str(tmp_path / "none")), NOW)
    found = samples(other)
    assert value(found, "resight_store_up", what="models") == 0
    assert value(found, "resight_archive_files") == 4
    assert len(other.problems) == 1
    assert not (tmp_path / "none").exists()


def test_tables_that_can_be_read_in_part_are_not_told_in_part(tables: Tables) -> None:
    put_run(tables, "a", event(10, "sealed"))
    for part in Path(tables.url, "runs").glob("*.parquet"):
        part.unlink()
    found = told(tables)
    assert value(found, "resight_store_up", what="tables") == 0
    assert "resight_archive_files" not in names(found)


def test_there_is_a_bounded_number_of_series(tables: Tables) -> None:
    rows = [{"media_sha256": f"x{i}", "path": f"x{i}", "camera_id": f"cam{i}", "ingested_at": NOW} for i in range(50)]
    put(tables, "media", pa.Table.from_pylist(rows, schema=MEDIA))
    published(tables)
    few, many = told(tables, max_cameras=3), told(tables)
    assert value(few, "resight_cameras_left_out") == 48
    assert value(few, "resight_camera_undated_files", camera="(others)") == 48
    assert sum(n.startswith("resight_camera_") for n, _ in few) <= 4 * 10
    assert len(many) > len(few)


def test_every_metric_is_named_with_its_unit_and_documented(tables: Tables) -> None:
    published(tables)
    put_run(tables, "a", event(20, "running"), event(10, "sealed", ok=3, requested=3), metrics='{"partly_decoded": 2}')
    found = told(tables)
    assert names(found) == set(NAMES)
    assert value(found, "resight_run_partly_decoded_images") == 2
    page = (ROOT / "docs/reference" / "metrics.md").read_text()
    for name, meaning in NAMES.items():
        assert re.search(r"_(up|version|files|state|stalled|images|ratio|seconds|left_out)$", name)
        assert meaning
        assert f"`{name}`" in page
