"""Medians and percentiles of raw samples."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.tune.facts import Measured, Round, Tuned, spread
from tests.serve.tune.performance import NOW, measured, round_of, tuned


def of(*latencies_ms: float, unanswered: int = 0) -> Round:
    return Round(
        closed_s=2.0,
        closed_images=50,
        cpu_s=1.0,
        offered_per_s=17.5,
        latencies_ms=latencies_ms,
        unanswered=unanswered,
    )


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=300), st.integers(0, 20))
def test_at_least_so_many_were_answered_within_a_percentile(found: list[int], lost: int) -> None:
    one, everyone = of(*map(float, found), unanswered=lost), len(found) + lost
    limit = one.latency_ms(99)
    if limit is None:
        assert len(found) < math.ceil(0.99 * everyone)
        return
    assert sum(ms <= limit for ms in found) >= 0.99 * everyone
    assert sum(ms < limit for ms in found) < 0.99 * everyone


def test_the_window_gives_throughput_and_cpu_time() -> None:
    one = Measured(point=NOW, rounds=(of(1.0),))
    assert (one.images_per_s, one.cpu_ms, one.requests) == (25.0, 20.0, 1)


def test_rounds_are_summed_up_by_their_median() -> None:
    three = Measured(
        point=NOW, rounds=tuple(round_of(s, ms) for s, ms in [(10, 9), (50, 7), (20, 8)])
    )
    assert (three.images_per_s, three.p50_ms, three.p99_ms) == (20.0, 4.0, 8.0)


def test_a_round_without_a_percentile_leaves_none_to_all() -> None:
    lost = Measured(point=NOW, rounds=(of(1.0, 2.0), of(1.0, unanswered=1)))
    assert lost.p99_ms is None
    assert lost.p50_ms == 1.0


def test_a_round_in_which_nothing_was_due_says_nothing_of_latency() -> None:
    quiet = Measured(point=NOW, rounds=(of(), of(8.0), of(4.0)))
    assert (quiet.p99_ms, quiet.requests) == (6.0, 2)
    assert quiet.images_per_s == 25.0, "its throughput counts"
    assert Measured(point=NOW, rounds=(of(), of())).p99_ms is None


def test_without_a_round_there_is_nothing_to_say() -> None:
    empty = Measured(point=NOW, failed="it ended")
    assert (empty.images_per_s, empty.cpu_ms, empty.p50_ms, empty.requests) == (0, 0, None, 0)


@pytest.mark.parametrize(
    ("values", "found"), [([], 0.0), ([3.0], 0.0), ([9.0, 10.0, 12.0], 0.3), ([0.0, 0.0], 0.0)]
)
def test_the_spread_is_in_parts_of_the_median(values: list[float], found: float) -> None:
    assert spread(values) == pytest.approx(found)


def test_all_of_it_goes_through_json() -> None:
    facts = tuned([measured(NOW, 50, 20)])
    assert Tuned.model_validate_json(facts.model_dump_json()) == facts
