"""The order of measuring, and what is chosen, on a machine whose performance is a function."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from model_store.errors import BadRequest, ModelNotReady
from serve.tune.facts import Measured, Round
from serve.tune.point import CONFIRMED, Point, Wanted, first_points, most_points
from serve.tune.sweep import Sweep, Swept
from tests.serve.tune.performance import NOW, Fake, at, round_of

WANTED = Wanted(batches=(1, 2, 4))


def swept(
    performance: Callable[[Point], tuple[float, float]],
    objective: float = 100,
    wanted: Wanted = WANTED,
    shrink: int | None = None,
) -> tuple[Swept, Fake]:
    machine = Fake(performance)
    return Sweep(machine, NOW, 2, wanted, objective, shrink).run(), machine


def larger_batches_pay(point: Point) -> tuple[float, float]:
    return 50 + 10 * point.batch * point.threads, 20.0 * point.batch


def test_the_best_is_found_and_what_can_be_applied_beside_it() -> None:
    found, _ = swept(larger_batches_pay)
    assert found.best == at(batch=4, threads=2, workers=1)
    assert found.applies == at(batch=4)
    assert found.unsteady == 0.0


def test_the_objective_bounds_the_choice() -> None:
    found, _ = swept(larger_batches_pay, objective=50)
    assert found.best == at(batch=2, threads=2, workers=1)
    assert found.applies == at(batch=2)


def test_current_settings_are_measured_between_processes_and_beside_the_best() -> None:
    _, machine = swept(larger_batches_pay)
    for before, after in itertools.pairwise(machine.asked):
        if after.hardware not in (before.hardware, NOW.hardware):
            assert before == NOW
    finalists = [NOW, at(batch=4, threads=2, workers=1), at(batch=4)]
    assert machine.asked[-3 * CONFIRMED :] == finalists * CONFIRMED


def test_each_point_is_measured_once_before_the_end() -> None:
    found, machine = swept(larger_batches_pay, wanted=WANTED, shrink=2)
    rounds = {one.point: len(one.rounds) for one in found.points}
    assert rounds[at(batch=4)] == 1 + CONFIRMED
    assert rounds[at(batch=2)] == 1
    assert sum(rounds.values()) == len(machine.asked)
    first = first_points(NOW, 2, WANTED)
    assert len(first) < len(machine.asked) <= most_points(first, WANTED, shrinks=True)


def test_waiting_is_swept_only_for_batches_over_one() -> None:
    _, machine = swept(larger_batches_pay)
    assert {p.batch for p in machine.asked if p.wait_ms} == {4}
    _, machine = swept(larger_batches_pay, wanted=Wanted(batches=(1,)))
    assert not [p for p in machine.asked if p.wait_ms]


def test_scaled_decoding_is_measured_and_never_chosen() -> None:
    found, machine = swept(lambda p: (10.0 * p.jpeg_shrink, 20.0), shrink=4)
    assert machine.asked.count(at(jpeg_shrink=4)) == 1 + CONFIRMED, (
        "beside what it is compared with"
    )
    assert found.best == found.applies == NOW


def test_replicas_are_measured_for_the_best_alone() -> None:
    found, machine = swept(lambda p: (50.0 * p.replicas + p.workers, 20.0))
    assert {p.replicas for p in machine.asked} == {1, 2}
    assert found.best == at(replicas=2, workers=1)
    assert found.applies == NOW


def test_replicas_are_of_the_best_hardware_not_of_the_current_one() -> None:
    wanted = Wanted(batches=(1, 2, 4), threads=(1, 2), workers=(2,))
    _, machine = swept(larger_batches_pay, wanted=wanted)
    two = [p for p in machine.asked if p.replicas == 2]
    assert set(map(str, two)) == {str(at(batch=4, threads=2, workers=1, replicas=2))}


def test_an_objective_that_nothing_meets_gives_no_choice() -> None:
    found, _ = swept(larger_batches_pay, objective=5)
    assert found.best is None
    assert found.applies is None


def test_luck_of_one_round_does_not_stand() -> None:
    lucky, times = at(batch=4), itertools.count()

    def performance(point: Point) -> tuple[float, float]:
        return (500.0, 10.0) if point == lucky and next(times) == 0 else (50.0, 20.0)

    found, _ = swept(performance)
    assert found.best == found.applies == NOW


def test_what_does_not_hold_its_promise_gives_way_to_the_next() -> None:
    """The fastest meets the objective in its first round only; another one always does."""
    times = itertools.count()
    liar, honest = at(batch=4), at(batch=2)

    def performance(point: Point) -> tuple[float, float]:
        if point == liar:
            return 90.0, 40.0 if next(times) == 0 else 400.0
        return (60.0, 40.0) if point == honest else (50.0, 400.0)

    found, _ = swept(performance, objective=50)
    assert found.best == found.applies == honest


def test_a_machine_that_is_not_steady_has_a_wider_margin() -> None:
    times = itertools.count()

    def performance(point: Point) -> tuple[float, float]:
        if point == NOW:
            return (100.0, 20.0) if next(times) % 3 else (90.0, 20.0)
        return (104.0, 20.0) if point == at(batch=2) else (10.0, 20.0)

    found, _ = swept(performance)
    assert found.unsteady == pytest.approx(0.1)
    assert found.margin == pytest.approx(0.05)
    assert found.best == NOW


def test_a_point_that_fails_is_kept_with_its_reason() -> None:
    said: list[Measured] = []

    def measure(point: Point) -> Round:
        if point.batch == 4:
            raise ModelNotReady("it took all memory")
        return round_of(50, 20)

    found = Sweep(measure, NOW, 2, WANTED, 100, say=said.append).run()
    failed = {one.point.batch: one.failed for one in found.points if one.failed}
    assert failed == {4: "ModelNotReady: it took all memory"}
    assert found.best == NOW
    assert sum(one.point == at(batch=4) for one in said) == 1, "it is not tried again"


@pytest.mark.parametrize("well", [0, 1, 3])
def test_current_settings_that_cannot_be_measured_end_the_sweep(well: int) -> None:
    times = itertools.count()

    def measure(point: Point) -> Round:
        if point != NOW or next(times) < well:
            return round_of(50, 20)
        raise BadRequest("no image was answered")

    with pytest.raises(BadRequest, match="no image"):
        Sweep(measure, NOW, 2, WANTED, 100).run()
