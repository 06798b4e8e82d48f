"""Filters on a cluster, from the command line and over HTTP: said once, shown or not, and undone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from archive.delta.tables import Tables
from archive.views.query import query
from archive.views.views import Views
from examples.sample_archive import build

pytestmark = pytest.mark.cluster
DONE_S = 120


def rows(done: Any) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def detections(tables: Tables) -> list[tuple[Any, ...]]:
    sql = "select path, rank, label, score from detections order by all"
    return [tuple(row.values()) for row in query(tables, sql).to_pylist()]


def test_layers_over_what_a_model_saw(cluster: Any, tmp_path: Path) -> None:
    build(tmp_path / "cameras", 32, seed=5)
    tables = cluster.tables
    assert cluster.resight("ingest", str(tmp_path / "cameras")).returncode == 0
    told = cluster.reprocess("--model", "ssdlite-coco")
    view = Views(tables.url).current()
    if view is None or view.model_name != "ssdlite-coco":
        why = ("--override", "a tenth of the sample cannot be read, on purpose")
        published = cluster.resight("runs", "publish", "ssdlite-coco@1", *why)
        assert published.returncode == 0, f"{told} {published.stderr}"
    before = detections(tables)
    large = {"min_area_frac": 0.05}

    words = ("filters", "run", "small-size", "--set", "min_area_frac=0.05", "--format", "json")
    dry = rows(cluster.resight(*words, "--dry-run"))[0]
    told = rows(cluster.resight(*words, "--show"))[0]
    figures = ("checked", "flagged", "changed", "added")
    assert [told[name] for name in figures] == [dry[name] for name in figures]
    assert told["flagged"] == told["changed"] == told["added"] > 0
    area = "(x2_px - x1_px) * (y2_px - y1_px) / (width_px * height_px)"
    sql = f"""with flat as (select width_px, height_px, unnest(detections, recursive := true) from results)
        select count(*) as n from flat where {area} < 0.05"""
    assert query(tables, sql).to_pylist() == [{"n": told["flagged"]}]
    assert len(detections(tables)) < len(before)

    url = f"{cluster.url}/runs"
    kinds = httpx2.get(f"{url}/filters", timeout=60).json()
    assert "small-size" in {kind["kind"] for kind in kinds}
    wrong = {"config": large, "scope": {"camera": ["nowhere"]}}
    answer = httpx2.post(f"{url}/filters/small-size", json=wrong, timeout=60)
    assert (answer.status_code, "unknown camera" in answer.json()["detail"]) == (400, True)
    answer = httpx2.post(f"{url}/filters/small-size", json={"config": large}, timeout=60)
    assert answer.status_code == 202, answer.text
    state = ended(f"{url}/{answer.json()['run_id']}")
    assert (state["state"], state["metrics"]["added"]) == ("sealed", 0)
    assert state["metrics"]["flagged"] == told["flagged"]

    assert cluster.resight("layers", "off", "small-size").returncode == 0
    assert detections(tables) == before


def ended(url: str) -> dict[str, Any]:
    """The state of a run that was started over HTTP, when it is no longer at work."""
    deadline = time.monotonic() + DONE_S
    while time.monotonic() < deadline:
        answer = httpx2.get(url, timeout=60)
        if answer.status_code == 200 and answer.json()["state"] != "running":
            return dict(answer.json())
        time.sleep(0.5)
    raise AssertionError(f"{url}: {answer.text}")
