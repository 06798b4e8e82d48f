"""Test rates and log lines of a run, with a fake clock."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from batch.planning.passes import DetectPass
from batch.runs.accounting import Counts
from batch.runs.progress import Progress

WORK = DetectPass(None)  # type: ignore[arg-type]  # its names only


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr("batch.runs.progress.time.monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(clock: Clock, arrivals: list[tuple[float, int]], every_s: float = 1e9) -> Progress:
    """Return progress after arrivals of (seconds since the start, images in all)."""
    total = arrivals[-1][1] if arrivals else 0
    progress = Progress("r", Counts(requested=total), every_s, WORK)
    started_s = clock.now_s
    for at_s, images in arrivals:
        clock.now_s = started_s + at_s
        progress.arrived(Counts(requested=total, ok=images))
    return progress


@pytest.mark.parametrize(("arrivals", "rate"), [([], 0.0), ([(5, 8), (7, 28)], 4.0)])
def test_the_rate_is_of_all_images_since_the_start(
    clock: Clock, arrivals: list[tuple[float, int]], rate: float
) -> None:
    assert run(clock, arrivals).rate() == pytest.approx(rate)


def test_the_rate_counts_from_when_the_pipeline_began(clock: Clock) -> None:
    """A run of two chunks that arrive one right after the other is not reported as fast."""
    progress = Progress("r", Counts(requested=198), 1e9, WORK)
    clock.now_s += 30  # planning, loading
    progress.begin()
    assert progress.rate() == 0.0
    for wait_s, images in ((9, 128), (0.25, 198)):
        clock.now_s += wait_s
        progress.arrived(Counts(requested=198, ok=images))
    assert progress.rate() == pytest.approx(198 / 9.25)
    clock.now_s += 60
    assert progress.rate() == pytest.approx(198 / 9.25)
    assert progress.elapsed_s() == pytest.approx(99.25)


def test_what_comes_at_the_very_moment_has_no_rate(clock: Clock) -> None:
    progress = Progress("r", Counts(requested=8), 1e9, WORK)
    progress.begin()
    progress.arrived(Counts(requested=8, ok=8))
    assert progress.rate() == 0.0


def test_the_steady_rate_leaves_out_start_and_drain(clock: Clock) -> None:
    steady = [(10 + i, 100 + 100 * i) for i in range(9)]
    progress = run(clock, [(9, 1), *steady, (1000, 1000)])
    assert progress.steady_rate() == pytest.approx(100)
    assert progress.rate() < 2


@pytest.mark.parametrize("arrivals", [[], [(i, 10 * i) for i in range(9)], [(5, 100)] * 20])
def test_a_run_too_short_to_tell_has_no_steady_rate(clock: Clock, arrivals: list[tuple[float, int]]) -> None:
    assert run(clock, arrivals).steady_rate() is None


def test_a_line_is_written_every_interval_and_says_what_is_left(clock: Clock) -> None:
    with capture_logs() as lines:
        run(clock, [(1, 10), (4, 40), (6, 60), (7, 70), (11, 100)], every_s=5)
    assert [line["ok"] for line in lines] == [60, 100]
    assert lines[0].items() >= {"images_per_s": 10.0, "eta_s": 4, "run_id": "r"}.items()
