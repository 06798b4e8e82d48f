"""The frontier, the best within an objective, and the nearest to one, against plain loops."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve.tune.choice import applicable, choose, frontier, nearest, with_same_key
from serve.tune.facts import Measured
from tests.serve.tune.performance import NOW, at, measured

CLOUDS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=30).map(
    lambda pairs: [measured(at(batch=i + 1), *pair) for i, pair in enumerate(pairs)]
)


def beats(one: Measured, other: Measured) -> bool:
    """In one thing, and no worse in the other."""
    assert one.p99_ms is not None
    assert other.p99_ms is not None
    no_worse = one.images_per_s >= other.images_per_s and one.p99_ms <= other.p99_ms
    return no_worse and (one.images_per_s, one.p99_ms) != (other.images_per_s, other.p99_ms)


def looks(one: Measured) -> tuple[float, float | None]:
    return one.images_per_s, one.p99_ms


@given(CLOUDS)
def test_the_frontier_is_what_nothing_beats(cloud: list[Measured]) -> None:
    kept = frontier(cloud)
    unbeaten = {looks(one) for one in cloud if not any(beats(other, one) for other in cloud)}
    assert {looks(one) for one in kept} == unbeaten
    assert len(kept) == len(unbeaten), "one of several that are alike"
    assert [one.p99_ms for one in kept] == sorted(one.p99_ms or 0 for one in kept)


@given(CLOUDS, st.integers(1, 30), st.floats(0, 0.2))
def test_the_choice_meets_the_objective_and_nothing_that_does_is_much_faster(
    cloud: list[Measured], objective: int, margin: float
) -> None:
    found = choose(cloud, objective, NOW, margin)
    meeting = [one for one in cloud if (one.p99_ms or 0) <= objective]
    if not meeting:
        assert found is None
        return
    assert found in meeting
    most = max(one.images_per_s for one in meeting)
    assert found is not None
    assert found.images_per_s >= (1 - margin) * most


def test_what_is_as_good_does_not_replace_the_current_settings() -> None:
    cloud = [measured(NOW, 100, 50), measured(at(batch=2), 102, 40)]
    assert choose(cloud, 60, NOW, 0.03) is cloud[0]
    assert choose(cloud, 60, NOW, 0.01) is cloud[1]
    assert choose(cloud, 45, NOW, 0.03) is cloud[1], "they do not meet it"


def test_of_those_alike_the_quickest_answers() -> None:
    cloud = [measured(at(batch=2), 101, 50), measured(at(batch=4), 100, 30)]
    assert choose(cloud, 60, NOW, 0.03) is cloud[1]


def test_what_was_not_answered_meets_nothing_and_is_not_drawn() -> None:
    silent = Measured(
        point=at(batch=2),
        rounds=(measured(NOW, 500, 10).rounds[0].model_copy(update={"unanswered": 10}),),
    )
    failed = Measured(point=at(batch=4), failed="why")
    assert silent.p50_ms == 10
    assert silent.p99_ms is None
    for lost in (silent, failed):
        assert choose([lost], 1e9, NOW) is None
        assert frontier([lost]) == []
        assert nearest([lost]) is None
    assert nearest([silent, measured(NOW, 1, 9), measured(at(batch=2), 1, 7)]) == measured(
        at(batch=2), 1, 7
    )


def test_only_batch_and_wait_can_be_applied_and_shrinking_is_another_key() -> None:
    batch, wait = at(batch=2), at(batch=2, wait_ms=2.0)
    pool = [at(threads=2), at(workers=1), at(replicas=2)]
    shrunk = at(jpeg_shrink=2)
    cloud = [measured(p, 10, 10) for p in (NOW, batch, wait, *pool, shrunk)]
    assert [one.point for one in applicable(cloud, NOW)] == [NOW, batch, wait]
    assert [one.point for one in with_same_key(cloud, NOW)] == [NOW, batch, wait, *pool]
