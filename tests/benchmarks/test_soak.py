"""Slopes of a soak, and its verdicts, from series that are flat or grow."""

from typing import Any

import numpy as np
import pytest

from benchmarks.soak import WINDOWS, ends, judge, processes, slope_per_hour, windows


def noisy(start: float, per_window: float) -> list[float | None]:
    noise = np.random.default_rng(1).normal(0, 0.002 * start, WINDOWS)
    return [float(v) for v in start + per_window * np.arange(WINDOWS) + noise]


def result(**changes: Any) -> dict[str, Any]:
    process = {"pid": 7, "role": "python", "rss_mib": noisy(300, 0), "fds": [40] * WINDOWS, "threads": [9] * WINDOWS}
    names = {name: changes.pop(name) for name in list(changes) if name in process}
    even = list(range(0, 100_000, 1_000))
    answers = {"requests": 1_000, "failures": 5, "statuses": {"200": 995, "429": 5}}
    flat = {"processes": [process | names], "p99_ms": [50.0] * WINDOWS, "answers": answers}
    return flat | {"log_bytes": even, "disk_bytes": even} | changes


def broken(found: dict[str, Any], hours: float = 2.0) -> list[str]:
    return [name for name, _, _, holds in judge(found, hours) if not holds]


def test_flat_series_hold():
    assert broken(result()) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rss_mib": noisy(300, 300 * 0.05 * 2 / WINDOWS)}, "RSS an hour, python 7"),
        ({"fds": [40 + i for i in range(WINDOWS)]}, "fds, python 7"),
        ({"threads": [9 + i for i in range(WINDOWS)]}, "threads, python 7"),
        ({"log_bytes": list(range(0, 10_000_000, 100_000))}, "log, bytes an answer"),
        ({"disk_bytes": [i**2 for i in range(100)]}, "disk, growth"),
        ({"p99_ms": [50.0 + i for i in range(WINDOWS)]}, "p99, last / second quarter"),
        ({"answers": {"requests": 1_000, "failures": 1, "statuses": {"500": 1}}}, "failed answers"),
        ({"answers": {"requests": 1_000, "failures": 11, "statuses": {"429": 11}}}, "rejected answers (429), share"),
    ],
)
def test_each_growth_is_caught(changes: dict[str, Any], name: str):
    assert broken(result(**changes)) == [name]


def test_growth_before_the_first_quarter_is_not_a_leak():
    warm: list[float | None] = [float(min(i, WINDOWS // 4)) + 300 for i in range(WINDOWS)]
    assert slope_per_hour(warm, 2.0) == pytest.approx((0, 0), abs=1e-9)
    slope, error = slope_per_hour([100.0 + i for i in range(WINDOWS)], WINDOWS / 60)
    assert (slope, error) == pytest.approx((60 / np.mean([100 + i for i in range(WINDOWS // 4, WINDOWS)]), 0), abs=1e-6)


def test_windows_reduce_their_values_and_know_gaps():
    at = np.array([0.0, 0.01, 0.5])
    found = windows(at, np.array([1.0, 3.0, 7.0]), np.max)
    assert (found[0], found[1], found[WINDOWS // 2]) == (3.0, None, 7.0)
    assert ends([1.0] * 10 + [2.0] * 10 + [3.0] * 10 + [None, 5.0]) == (2.0, 5.0)


def test_only_processes_that_live_for_the_whole_time_are_judged():
    series = [(float(s), 1 << 20, 5, 2) for s in range(100)]
    found = processes({(1, "server"): series, (2, "late"): series[50:], (3, "ended"): series[:50]}, 0.0, 100.0)
    assert [one["role"] for one in found] == ["server"]
    assert found[0]["rss_mib"][0] == 1.0
