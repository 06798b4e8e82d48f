"""Medians, percentiles, the frontier and the choice, against plain loops."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from serve.tune.results import MeasuredPoint, Round, choose, frontier
from tests.serve.tune.performance import NOW, at, measured, round_of

CLOUDS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=30).map(
    lambda pairs: [measured(at(batch=i + 1), *pair) for i, pair in enumerate(pairs)]
)


def of(*latencies_ms: float, unanswered: int = 0) -> Round:
    return Round(
        closed_s=2.0, closed_images=50, cpu_s=1.0, offered_per_s=17.5, latencies_ms=latencies_ms, unanswered=unanswered
    )


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=300), st.integers(0, 20))
def test_percentile_counts_unanswered_requests(answered: list[int], lost: int) -> None:
    one, requests = of(*map(float, answered), unanswered=lost), len(answered) + lost
    limit = one.latency_ms(99)
    if math.isinf(limit):
        assert len(answered) < math.ceil(0.99 * requests)
        return
    assert sum(ms <= limit for ms in answered) >= 0.99 * requests
    assert sum(ms < limit for ms in answered) < 0.99 * requests


def test_the_window_gives_throughput_and_cpu_time() -> None:
    one = MeasuredPoint(point=NOW, rounds=(of(1.0),))
    assert (one.images_per_s, one.cpu_ms, one.requests) == (25.0, 20.0, 1)


def test_figures_are_medians_over_rounds() -> None:
    rounds = tuple(round_of(s, ms) for s, ms in [(10, 9), (50, 7), (20, 8)])
    three = MeasuredPoint(point=NOW, rounds=rounds)
    assert (three.images_per_s, three.latency_ms(50), three.p99_ms) == (20.0, 4.0, 8.0)
    assert str(three) == "20.0 images/s, p99 8 ms"


def test_a_round_without_a_percentile_leaves_none_to_the_point() -> None:
    lost = MeasuredPoint(point=NOW, rounds=(of(1.0, 2.0), of(1.0, 2.0), of(1.0, unanswered=1)))
    assert lost.p99_ms == math.inf
    assert lost.latency_ms(50) == 1.0
    assert str(lost) == "25.0 images/s, no p99"


def test_rounds_without_requests_do_not_count_for_latency() -> None:
    quiet = MeasuredPoint(point=NOW, rounds=(of(), of(8.0), of(4.0)))
    assert (quiet.p99_ms, quiet.requests, quiet.images_per_s) == (6.0, 2, 25.0)
    assert MeasuredPoint(point=NOW, rounds=(of(), of())).p99_ms == math.inf


def beats(one: MeasuredPoint, other: MeasuredPoint) -> bool:
    no_worse = one.images_per_s >= other.images_per_s and one.p99_ms <= other.p99_ms
    return no_worse and figures(one) != figures(other)


def figures(one: MeasuredPoint) -> tuple[float, float]:
    return one.images_per_s, one.p99_ms


@given(CLOUDS)
def test_no_point_beats_the_frontier(cloud: list[MeasuredPoint]) -> None:
    kept = [one for point in frontier(cloud) for one in cloud if one.point == point]
    unbeaten = {figures(one) for one in cloud if not any(beats(other, one) for other in cloud)}
    assert {figures(one) for one in kept} == unbeaten
    assert len(kept) == len(unbeaten), "one of several equal points"
    assert [one.p99_ms for one in kept] == sorted(one.p99_ms for one in kept)


@given(CLOUDS, st.integers(1, 30), st.floats(0, 0.2))
def test_the_choice_meets_the_objective_and_is_about_the_fastest(
    cloud: list[MeasuredPoint], objective: int, margin: float
) -> None:
    chosen = choose(cloud, objective, NOW, margin)
    rates = {one.point: one.images_per_s for one in cloud if one.p99_ms <= objective}
    if not rates:
        assert chosen is None
        return
    assert chosen is not None
    assert rates[chosen] >= (1 - margin) * max(rates.values())


def test_an_equal_point_does_not_replace_the_current_settings() -> None:
    other = at(batch=2)
    cloud = [measured(NOW, 100, 50), measured(other, 102, 40)]
    assert choose(cloud, 60, NOW, 0.03) == NOW
    assert choose(cloud, 60, NOW, 0.01) == other
    assert choose(cloud, 45, NOW, 0.03) == other, "the current settings do not meet it"


def test_the_lowest_p99_wins_among_equal_points() -> None:
    cloud = [measured(at(batch=2), 101, 50), measured(at(batch=4), 100, 30)]
    assert choose(cloud, 60, NOW, 0.03) == at(batch=4)


def test_points_without_p99_are_never_chosen() -> None:
    rounds = (round_of(500, 10).model_copy(update={"unanswered": 10}),)
    lost = MeasuredPoint(point=at(batch=2), rounds=rounds)
    assert lost.latency_ms(50) == 10
    for one in (lost, MeasuredPoint(point=at(batch=4), failed="reason")):
        assert choose([one], 1e9, NOW, 0.03) is None
        assert frontier([one]) == []
