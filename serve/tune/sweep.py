"""Run a sweep: which points are measured, in which order, and which of them is best.

current settings -> batch x threads x workers -> wait -> replicas -> scaled decoding -> the best points again.
The current settings are measured again between two kinds of processes, which shows whether the machine is steady.
The best points are confirmed in turn with them, because the best of many noisy figures is partly luck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from itertools import product
from statistics import median

from model_store.errors import ResightError
from serve.tune.bench import Bench
from serve.tune.plan import CONFIRM_ROUNDS, TuningPlan, first_points
from serve.tune.results import MeasuredPoint, Point, Round, TuningResult, choose

MARGIN, MAX_MARGIN = 0.03, 0.15
"""Shares by which equal throughputs differ at most: on a quiet machine, and on any."""
CONFIRM_ATTEMPTS = 2

Report = Callable[[MeasuredPoint], None]


def run(plan: TuningPlan, report: Report) -> TuningResult:
    """Measure the plan in replica processes; `report` gets each figure.

    Raises ModelError if the version does not load or cannot be measured with its current settings.
    """
    with closing(Bench(plan)) as bench:
        batch, device = bench.current()
        current = plan.current(batch.max, batch.wait_ms)
        return Sweep(plan, current, bench.measure, report).run(device)


class Sweep:
    """One sweep; pure, except for `measure` and `report`."""

    def __init__(self, plan: TuningPlan, current: Point, measure: Callable[[Point], Round], report: Report) -> None:
        self._plan, self._current = plan, current
        self._measure, self._report = measure, report
        self._measured: dict[Point, MeasuredPoint] = {}

    def run(self, device: str) -> TuningResult:
        """Measure all stages and choose. Raises ResightError if the current settings cannot be measured."""
        space, cores = self._plan.space, self._plan.setup.machine.cores
        self._round(self._current)
        self._stage(first_points(self._current, cores, space))
        waits = product(self._leaders(min_batch=2), space.waits_ms)
        self._stage(point.replace(wait_ms=wait_ms) for point, wait_ms in waits)
        best = self._leaders()[0]
        workers = best.workers * best.replicas
        counts = [count for count in sorted(space.replicas) if workers % count == 0]
        self._stage(best.replace(replicas=count, workers=workers // count) for count in counts)
        shrunk: list[Point] = []
        if self._plan.shrink:
            shrunk = [self._leaders()[0].replace(jpeg_shrink=self._plan.shrink)]
            self._stage(shrunk)
        return self._result(self._confirm(shrunk), device)

    def _stage(self, points: Iterable[Point]) -> None:
        """Measure the points that are new."""
        for point in points:
            if point not in self._measured:
                if point.hardware != next(reversed(self._measured)).hardware:
                    self._round(self._current)
                self._round(point)

    def _confirm(self, shrunk: Sequence[Point]) -> list[MeasuredPoint]:
        """Measure the best points again, in turn with the current settings, and return those.

        If they turn out to be worse than another one, that one is confirmed too.
        """
        confirmed = [self._current]
        for attempt in range(CONFIRM_ATTEMPTS):
            leaders = [point for point in self._leaders() if point not in confirmed]
            if attempt and not leaders:
                break
            for point in CONFIRM_ROUNDS * [self._current, *leaders, *shrunk]:
                self._round(point)
            confirmed += leaders
        return [self._measured[point] for point in confirmed]

    def _round(self, point: Point) -> None:
        """Measure a point once more, unless it has failed. Raises ResightError for the current settings only."""
        measured = self._measured.get(point, MeasuredPoint(point=point))
        if measured.failed:
            return
        try:
            measured = MeasuredPoint(point=point, rounds=(*measured.rounds, self._measure(point)))
        except ResightError as error:
            if point == self._current:
                raise
            measured = MeasuredPoint(point=point, failed=f"{type(error).__name__}: {error}")
        self._measured[point] = measured
        self._report(measured)

    def _leaders(self, min_batch: int = 1) -> list[Point]:
        """Return the best point with the current inference key, and the best applicable one."""
        every = [m for m in self._measured.values() if m.rounds and m.point.batch >= min_batch]
        own = [m for m in every if m.point.same_key(self._current)]
        applicable = [m for m in own if m.point.applicable(self._current)]
        leaders: list[Point] = []
        for pool in filter(None, (own, applicable)):
            nearest = min(pool, key=lambda measured: measured.p99_ms)
            leaders.append(self._choose(pool) or nearest.point)
        return list(dict.fromkeys(leaders))

    def _choose(self, points: Sequence[MeasuredPoint], margin: float = MARGIN) -> Point | None:
        return choose(points, self._plan.setup.objective_p99_ms, self._current, margin)

    def _result(self, final: Sequence[MeasuredPoint], device: str) -> TuningResult:
        rates = [r.images_per_s for r in self._measured[self._current].rounds]
        unsteady = (max(rates) - min(rates)) / median(rates)
        margin = min(MAX_MARGIN, max(MARGIN, unsteady / 2))
        applicable = [m for m in final if m.point.applicable(self._current)]
        return TuningResult(
            **dict(self._plan.setup),
            device=device,
            current=self._current,
            points=tuple(self._measured.values()),
            margin=round(margin, 4),
            unsteady=round(unsteady, 4),
            best=self._choose(final, margin),
            applies=self._choose(applicable, margin),
        )
