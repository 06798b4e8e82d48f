"""The pace of a running run, from its events; the list is tested over HTTP (tests/batch/api/test_runs.py)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from batch.runs.listing import Pace, counts_of, pace

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def event(ago_s: float, done: int, requested: int = 1000, state: str = "running") -> dict[str, Any]:
    counts = {"requested": requested, "ok": done, "empty": 0, "failed": 0, "reused": 100}
    return {"state": state, "event_at": NOW - timedelta(seconds=ago_s), "counts": counts}


def test_it_is_the_rate_of_the_last_five_minutes() -> None:
    """An hour at 1 image per second, then five minutes at 0.5."""
    slow = [event(30 * i, 600 - 15 * i) for i in range(11)]
    fast = [event(300 + 30 * i, 450 - 30 * i) for i in range(1, 5)]
    assert pace([*slow, *fast], NOW) == Pace(0.5, 600)


def test_a_run_that_is_silent_becomes_slower() -> None:
    events = [event(200, 400), event(230, 300), event(260, 200)]
    assert pace(events, NOW).per_s == pytest.approx(200 / 260, abs=0.01)


def test_the_time_since_the_last_beat_is_part_of_the_estimate() -> None:
    assert pace([event(20, 400), event(50, 100)], NOW) == Pace(10.0, 30)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [event(0, 10)],
        [event(0, 10), event(30, 10)],
        [event(0, 10), event(30, 0, requested=0)],
        [event(0, 10), event(30, 5, state="failed")],
        [event(0, 10), event(30, 500)],
    ],
    ids=["none", "one", "no progress", "planning", "another attempt", "a killed attempt"],
)
def test_without_two_events_of_an_attempt_it_is_unknown(events: list[dict[str, Any]]) -> None:
    assert pace(events, NOW) == Pace()


def test_a_run_that_is_planned_has_no_counts() -> None:
    young = event(0, 0, requested=0)
    assert counts_of(young) is None
    assert counts_of(young | {"state_now": "interrupted"}) is None
    assert counts_of(young | {"state_now": "sealed"}) is not None
