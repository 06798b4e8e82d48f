"""Filters on both hosts, from the command line and over HTTP: said once, shown or not, and undone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from archive.delta.tables import Tables
from archive.views.query import query
from examples.sample_archive import Summary
from tests.cluster.hosts import Host

pytestmark = pytest.mark.cluster
DONE_S = 120


def rows(done: Any) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def detections(tables: Tables) -> list[tuple[Any, ...]]:
    sql = "select path, rank, label, score from detections order by all"
    return [tuple(row.values()) for row in query(tables, sql).to_pylist()]


def test_layers_over_what_a_model_saw(host: Host, archive: tuple[Path, Summary]) -> None:
    host.finished(archive[0])
    tables = host.tables
    before = detections(tables)
    area = "(x2_px - x1_px) * (y2_px - y1_px) / (width_px * height_px)"
    sql = f"select median({area}) as frac from detections join results using (media_sha256)"
    (median,) = query(tables, sql).to_pylist()
    large = {"min_area_frac": round(median["frac"], 3)}

    setting = f"min_area_frac={large['min_area_frac']}"
    words = ("filters", "run", "small-size", "--set", setting, "--format", "json")
    dry = rows(host.resight(*words, "--dry-run"))[0]
    told = rows(host.resight(*words, "--show"))[0]
    figures = ("checked", "flagged", "changed", "added")
    assert [told[name] for name in figures] == [dry[name] for name in figures]
    assert told["flagged"] == told["changed"] == told["added"] > 0
    sql = f"""with flat as (select width_px, height_px, unnest(detections, recursive := true) from results)
        select count(*) as n from flat where {area} < {large["min_area_frac"]}"""
    assert query(tables, sql).to_pylist() == [{"n": told["flagged"]}]
    assert len(detections(tables)) < len(before)

    url = f"{host.url}/runs"
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

    host.done("layers", "off", "small-size")
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
