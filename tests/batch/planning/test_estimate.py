"""Test estimates of the time of a run, from records of earlier runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

import batch.planning.dry_run
from archive.delta.tables import Tables
from archive.schemas import RUNS
from batch.planning.dry_run import START_S, Estimate, estimate
from batch.planning.plan import Plan
from model_store.store import ModelStore
from tests.fixtures_local import model_info

OWN = model_info().inference_key
DAY = datetime(2026, 5, 14, 3, 15, tzinfo=UTC)
STORE = ModelStore("/nowhere")


def plan(todo: int) -> Plan:
    return cast(Plan, SimpleNamespace(todo=todo, model=SimpleNamespace(info=model_info())))


def recorded(
    tables: Tables,
    images: int,
    seconds: float,
    steady: float | None,
    launch_s: float = 4,
    key: str = OWN,
    days: int = 0,
    resumed_s: float = 0,
    snips_s: float = 0,
) -> None:
    submitted = DAY + timedelta(days=days)
    began = submitted + timedelta(seconds=launch_s)
    ended = began + timedelta(seconds=seconds + snips_s + resumed_s)
    run = {"run_id": f"{submitted:%Y%m%dT%H%M%S}-9f2c1a", "inference_key": key, "kind": "detect"}
    counts = {"requested": images, "ok": images, "empty": 0, "failed": 0, "reused": 0}
    timing = {"seconds": seconds + snips_s, "images_per_s": 9.0, "steady_images_per_s": steady}
    measured = {"metrics": json.dumps(timing), "stages": json.dumps({"wall_s": seconds}) if snips_s else None}
    events: list[dict[str, Any]] = [
        {"event": 0, "state": "running", "event_at": began},
        {"event": 1, "state": "sealed", "event_at": ended, "counts": counts} | measured,
    ]
    table = pa.Table.from_pylist([run | event for event in events], schema=RUNS)
    tables.append("runs", table, str(run["run_id"]), lambda _, wanted: wanted)


@pytest.fixture
def tables(tmp_path: Any) -> Tables:
    return Tables(str(tmp_path))


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch.planning.dry_run, "_measured", lambda *_: 0.02)


def test_a_small_run_takes_its_start_where_none_was_recorded(tables: Tables) -> None:
    """44 images took 13.5 s."""
    found = estimate(tables, plan(44), STORE, measure=True)
    assert found.seconds == pytest.approx(START_S + 0.88)
    assert 13.5 / 2 < found.seconds < 2 * 13.5


def test_starts_and_rates_are_those_of_earlier_runs(tables: Tables) -> None:
    recorded(tables, images=1000, seconds=56, steady=20)  # start 4 + 6
    recorded(tables, images=40, seconds=8, steady=None, days=1)  # 4 + 8 - 2
    recorded(tables, images=100, seconds=9, steady=100, key="another", days=2)  # 4 + 8
    assert estimate(tables, plan(2000), STORE, measure=True) == Estimate(110.0, "earlier runs of the model")


@pytest.mark.parametrize("snips_s", [0, 600])
def test_the_newest_runs_decide(tables: Tables, snips_s: float) -> None:
    """The time of their snips does not count."""
    for day in range(9):
        recorded(tables, images=100, seconds=20 if day < 4 else 12, steady=10, days=day, snips_s=snips_s)
    assert estimate(tables, plan(10), STORE, measure=True).seconds == pytest.approx(4 + 2 + 1)


def test_a_run_that_was_resumed_tells_no_start(tables: Tables) -> None:
    recorded(tables, images=1000, seconds=6, steady=20, resumed_s=3600)
    found = estimate(tables, plan(44), STORE, measure=True)
    assert found.seconds == pytest.approx(START_S + 0.88)


def test_what_is_not_known_is_not_said(tables: Tables) -> None:
    recorded(tables, images=100, seconds=9, steady=100, key="another")
    found = estimate(tables, plan(44), STORE, measure=False)
    assert (found.seconds, found.basis) == (None, "no earlier run of the model to compare with")
    assert estimate(tables, plan(0), STORE, measure=False).seconds == 0.0
