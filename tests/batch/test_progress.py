"""Rates and lines of a run, with a clock of the test's own."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from batch.accounting import Counts
from batch.progress import Progress


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr("batch.progress.time.monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(clock: Clock, arrivals: list[tuple[float, int]], every_s: float = 1e9) -> Progress:
    """(seconds since the start, images in all) of each arrival."""
    total = arrivals[-1][1] if arrivals else 0
    progress = Progress("r", Counts(requested=total), every_s)
    started_s = clock.now_s
    for at_s, images in arrivals:
        clock.now_s = started_s + at_s
        progress.arrived(Counts(requested=total, ok=images))
    return progress


@pytest.mark.parametrize(
    ("arrivals", "rate"),
    [([], 0.0), ([(5, 8)], 1.6), ([(5, 8), (5, 16)], 3.2), ([(5, 8), (7, 28)], 10.0)],
)
def test_the_rate_counts_from_the_first_results(
    clock: Clock, arrivals: list[tuple[float, int]], rate: float
) -> None:
    assert run(clock, arrivals).rate() == pytest.approx(rate)


def test_the_steady_rate_leaves_out_start_and_drain(clock: Clock) -> None:
    steady = [(10 + i, 100 + 100 * i) for i in range(9)]
    progress = run(clock, [(9, 1), *steady, (1000, 1000)])
    assert progress.steady_rate() == pytest.approx(100)
    assert progress.rate() < 2


@pytest.mark.parametrize("arrivals", [[], [(i, 10 * i) for i in range(9)], [(5, 100)] * 20])
def test_a_run_too_short_to_tell_has_no_steady_rate(
    clock: Clock, arrivals: list[tuple[float, int]]
) -> None:
    assert run(clock, arrivals).steady_rate() is None


def test_a_line_is_written_every_interval_and_says_what_is_left(clock: Clock) -> None:
    with capture_logs() as lines:
        run(clock, [(1, 10), (4, 40), (6, 60), (7, 70), (11, 100)], every_s=5)
    assert [line["ok"] for line in lines] == [60, 100]
    assert lines[0] | {"images_per_s": 10.0, "eta_s": 4, "run_id": "r"} == lines[0]
