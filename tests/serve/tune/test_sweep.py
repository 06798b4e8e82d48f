"""The order of measuring, and what is chosen, on a machine with a given performance."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from model_store.errors import BadRequest, ModelNotReady
from serve.tune.bench import Sweep
from serve.tune.plan import CONFIRM_ROUNDS, SearchSpace
from serve.tune.results import MeasuredPoint, Point, Round, TuningResult
from tests.serve.tune.performance import NOW, FakeMachine, at, plan, round_of

SPACE = SearchSpace(batches=(1, 2, 4))


def swept(
    performance: Callable[[Point], tuple[float, float]],
    objective: float = 100,
    space: SearchSpace = SPACE,
    shrink: int | None = None,
) -> tuple[TuningResult, FakeMachine]:
    machine = FakeMachine(performance)
    sweep = Sweep(plan(space, shrink, objective_p99_ms=objective), NOW, machine, print)
    return sweep.run("cpu"), machine


def larger_batches_pay(point: Point) -> tuple[float, float]:
    return 50 + 10 * point.batch * point.threads, 20.0 * point.batch


def test_the_best_point_and_the_best_applicable_one_are_chosen() -> None:
    found, _ = swept(larger_batches_pay)
    assert found.best == at(batch=4, threads=2, workers=1)
    assert found.applies == at(batch=4)
    assert found.unsteady == 0.0


def test_current_settings_are_measured_between_processes_and_with_the_best() -> None:
    _, machine = swept(larger_batches_pay)
    for before, after in itertools.pairwise(machine.measured):
        if after.hardware not in (before.hardware, NOW.hardware):
            assert before == NOW
    finalists = [NOW, at(batch=4, threads=2, workers=1), at(batch=4)]
    assert machine.measured[-3 * CONFIRM_ROUNDS :] == finalists * CONFIRM_ROUNDS


def test_each_point_is_measured_once_before_the_end() -> None:
    found, machine = swept(larger_batches_pay, space=SPACE, shrink=2)
    rounds = {one.point: len(one.rounds) for one in found.points}
    assert rounds[at(batch=4)] == 1 + CONFIRM_ROUNDS
    assert rounds[at(batch=2)] == 1
    assert sum(rounds.values()) == len(machine.measured)
    estimated, _ = plan(SPACE, shrink=2).estimate()
    assert 0.5 * estimated < len(machine.measured) <= estimated


def test_waits_are_measured_for_batches_over_one_only() -> None:
    _, machine = swept(larger_batches_pay)
    assert {p.batch for p in machine.measured if p.wait_ms} == {4}
    _, machine = swept(larger_batches_pay, space=SearchSpace(batches=(1,)))
    assert not [p for p in machine.measured if p.wait_ms]


def test_scaled_decoding_is_measured_and_never_chosen() -> None:
    found, machine = swept(lambda p: (10.0 * p.jpeg_shrink, 20.0), shrink=4)
    assert machine.measured.count(at(jpeg_shrink=4)) == 1 + CONFIRM_ROUNDS, (
        "in turn with the point that it is compared with"
    )
    assert found.best == found.applies == NOW


def test_one_lucky_round_is_not_chosen() -> None:
    lucky, times = at(batch=4), itertools.count()

    def performance(point: Point) -> tuple[float, float]:
        return (500.0, 10.0) if point == lucky and next(times) == 0 else (50.0, 20.0)

    found, _ = swept(performance)
    assert found.best == found.applies == NOW


def test_a_best_point_that_is_not_confirmed_is_replaced_by_the_next() -> None:
    """The fastest meets the objective in its first round only; another one always does."""
    times = itertools.count()
    liar, honest = at(batch=4), at(batch=2)

    def performance(point: Point) -> tuple[float, float]:
        if point == liar:
            return 90.0, 40.0 if next(times) == 0 else 400.0
        return (60.0, 40.0) if point == honest else (50.0, 400.0)

    found, _ = swept(performance, objective=50)
    assert found.best == found.applies == honest


def test_an_unsteady_machine_has_a_wider_margin() -> None:
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
    reported: list[MeasuredPoint] = []

    def measure(point: Point) -> Round:
        if point.batch == 4:
            raise ModelNotReady("it took all memory")
        return round_of(50, 20)

    found = Sweep(plan(SPACE), NOW, measure, reported.append).run("cpu")
    failed = {one.point.batch: one.failed for one in found.points if one.failed}
    assert failed == {4: "ModelNotReady: it took all memory"}
    assert found.best == NOW
    assert sum(one.point == at(batch=4) for one in reported) == 1, "it is not measured again"


def test_current_settings_that_cannot_be_measured_end_the_sweep() -> None:
    times = itertools.count()

    def measure(point: Point) -> Round:
        if point != NOW or next(times) < 3:
            return round_of(50, 20)
        raise BadRequest("no image was answered")

    with pytest.raises(BadRequest, match="no image"):
        Sweep(plan(SPACE), NOW, measure, print).run("cpu")


def test_replicas_have_the_best_hardware_not_the_current_one() -> None:
    space = SearchSpace(batches=(1, 2, 4), threads=(1, 2), workers=(2,))
    _, machine = swept(larger_batches_pay, space=space)
    two = [p for p in machine.measured if p.replicas == 2]
    assert set(map(str, two)) == {str(at(batch=4, threads=2, workers=1, replicas=2))}
