"""Which points a sweep has, and what it tells of its length beforehand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_store.config import Batch
from model_store.errors import BadRequest
from serve.settings import DetectArgs
from serve.tune.point import (
    MOST_BATCH,
    MOST_POINTS,
    MOST_WAIT_MS,
    Hardware,
    Wanted,
    about_s,
    first_points,
    most_points,
    replica_points,
    splits,
    wait_points,
)
from tests.serve.tune.performance import NOW, at

SOME = Wanted(batches=(1, 2, 4))


@pytest.mark.parametrize(
    ("cores", "found"),
    [
        (1, [(1, 1)]),
        (2, [(1, 1), (1, 2), (2, 1)]),
        (4, [(1, 2), (1, 4), (2, 1), (2, 2), (4, 1)]),
        (8, [(1, 4), (1, 8), (2, 2), (2, 4), (4, 1), (4, 2), (8, 1)]),
    ],
)
def test_without_wishes_all_cores_or_half_of_them_work(
    cores: int, found: list[tuple[int, int]]
) -> None:
    assert splits(cores, Wanted()) == found


def test_what_is_named_is_tried_in_every_combination() -> None:
    assert splits(2, Wanted(threads=(1, 4), workers=(3, 1))) == [(1, 1), (1, 3), (4, 1), (4, 3)]
    assert splits(8, Wanted(threads=(2,))) == [(2, 2), (2, 4)]


def test_the_current_settings_come_first_then_one_process_after_the_other() -> None:
    points = first_points(at(batch=3, wait_ms=5.0), 2, SOME)
    assert points[0] == at(batch=3, wait_ms=5.0)
    assert len(points) == len(set(points)) == 1 + 3 * 3
    changes = sum(a.hardware != b.hardware for a, b in itertools.pairwise(points))
    assert changes == 2
    assert {(p.threads, p.workers) for p in points} == {(1, 1), (1, 2), (2, 1)}
    assert {p.wait_ms for p in points if p.batch == 1} == {0.0}, "a batch of one never waits"


def test_too_many_points_are_refused_with_the_options_to_shorten() -> None:
    wanted = Wanted(batches=tuple(range(1, MOST_POINTS)), threads=(1, 2), workers=(1,))
    with pytest.raises(BadRequest, match="--batch"):
        first_points(NOW, 2, wanted)


def test_waiting_is_tried_only_where_a_batch_can_be_unfilled() -> None:
    wanted = Wanted(batches=(1, 4), waits_ms=(0.0, 2.0, 8.0))
    best = [at(batch=4), NOW, at(batch=4)]
    tried = wait_points(best, wanted, [at(batch=4)])
    assert tried == [at(batch=4, wait_ms=2.0), at(batch=4, wait_ms=8.0)]


def test_replicas_share_the_workers() -> None:
    assert replica_points(at(workers=4), Wanted(replicas=(1, 2, 4)), []) == [
        at(workers=2, replicas=2),
        at(workers=1, replicas=4),
    ]
    assert replica_points(NOW, Wanted(replicas=(1,)), []) == []


def test_processes_that_would_change_how_many_work_are_left_out() -> None:
    assert replica_points(at(workers=1), Wanted(replicas=(1, 2)), []) == []
    assert replica_points(at(workers=3), Wanted(replicas=(2, 3)), []) == [at(workers=1, replicas=3)]
    three = at(workers=2, replicas=3)
    assert replica_points(three, Wanted(replicas=(1, 2, 3, 4)), []) == [
        at(workers=6, replicas=1),
        at(workers=3, replicas=2),
    ]


def test_the_processes_of_a_pool_share_the_cores() -> None:
    pool = DetectArgs(threads=2, workers=1, replicas=2)
    assert Hardware.of(pool) == Hardware(threads=2, workers=1, replicas=2)
    points = first_points(at(**Hardware.of(pool)._asdict()), 4, Wanted(batches=(1,)))
    assert {p.replicas for p in points} == {2}
    assert {(p.threads, p.workers) for p in points} == {(1, 1), (1, 2), (2, 1)}, "of two cores each"
    one = first_points(at(threads=2, workers=1), 2, Wanted(batches=(1,)))
    assert len(one) == len(points)
    assert about_s(points, SOME, False, 1) > about_s(one, SOME, False, 1), "more to start"


@pytest.mark.parametrize(("field", "most"), [("max", MOST_BATCH), ("wait_ms", MOST_WAIT_MS)])
def test_what_is_tried_could_be_written(field: str, most: float) -> None:
    Batch.model_validate({field: most})
    with pytest.raises(ValidationError):
        Batch.model_validate({field: most + 1})
    mine = {"max": "batches", "wait_ms": "waits_ms"}[field]
    Wanted.model_validate({mine: (most,)})
    with pytest.raises(ValidationError, match=mine):
        Wanted.model_validate({mine: (most + 1,)})


@given(
    st.integers(1, 16),
    st.lists(st.integers(1, 64), min_size=1, max_size=4),
    st.floats(0.5, 60),
    st.booleans(),
)
def test_the_time_told_grows_with_each_round(
    cores: int, batches: list[int], seconds: float, shrinks: bool
) -> None:
    wanted = Wanted(batches=tuple(batches))
    first = first_points(NOW, cores, wanted)
    rounds = most_points(first, wanted, shrinks)
    assert rounds > len(first)
    assert about_s(first, wanted, shrinks, seconds) >= rounds * seconds
    assert about_s(first, wanted, shrinks, 2 * seconds) > about_s(first, wanted, shrinks, seconds)
