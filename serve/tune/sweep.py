"""The order in which points are measured. Pure but for `measure`, which is given.

current settings -> batch x threads x workers -> wait -> replicas -> scaled decoding -> the best, again
Between any two processes the current settings are measured again, so that a machine that drifts is seen; what
would be chosen is measured CONFIRMED times more, in turn with them, because the best of many noisy figures is
partly luck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_store.errors import ResightError
from serve.tune.choice import MARGIN, applicable, choose, nearest, with_same_key
from serve.tune.facts import Measured, Round, spread
from serve.tune.point import (
    CONFIRMED,
    Point,
    Wanted,
    first_points,
    replica_points,
    wait_points,
)

MOST_MARGIN = 0.15
ATTEMPTS = 2
Measure = Callable[[Point], Round]
Say = Callable[[Measured], None]


@dataclass(frozen=True, slots=True)
class Swept:
    """All points in the order in which they came first, and what is chosen of them."""

    points: tuple[Measured, ...]
    margin: float
    unsteady: float
    best: Point | None
    applies: Point | None


class Sweep:
    """`shrink` is the jpeg_shrink that is measured beside the version's own, where another one pays."""

    def __init__(
        self,
        measure: Measure,
        current: Point,
        cores: int,
        wanted: Wanted,
        objective_p99_ms: float,
        shrink: int | None = None,
        say: Say = lambda measured: None,
    ) -> None:
        self._measure, self._say = measure, say
        self._current, self._wanted, self._objective = current, wanted, objective_p99_ms
        self._first = first_points(current, cores, wanted)
        self._shrink = shrink
        self._beside: list[Point] = []
        self._seen: dict[Point, Measured] = {}
        self._last = current

    def run(self) -> Swept:
        """Raises ResightError where the current settings cannot be measured."""
        self._seen[self._current] = Measured(point=self._current).again(
            self._measure(self._current)
        )
        self._say(self._seen[self._current])
        self._all(self._first)
        self._all(wait_points(self._leaders(lambda one: one.batch > 1), self._wanted, self._known))
        top = self._best(self._same_key)
        self._all(replica_points(top, self._wanted, self._known))
        if self._shrink is not None:
            top = self._best(self._same_key)
            self._beside = [top.model_copy(update={"jpeg_shrink": self._shrink})]
            self._all(self._beside)
        return self._chosen(self._confirmed())

    @property
    def _known(self) -> list[Point]:
        return list(self._seen)

    @property
    def _same_key(self) -> list[Measured]:
        return with_same_key(self._seen.values(), self._current)

    @property
    def _applicable(self) -> list[Measured]:
        return applicable(self._seen.values(), self._current)

    def _all(self, points: Sequence[Point]) -> None:
        for point in points:
            if point in self._seen:
                continue
            if point.hardware != self._last.hardware:
                self._once(self._current)
            self._once(point)
            self._last = point

    def _once(self, point: Point) -> None:
        """A point that fails is kept with its reason; the current settings must not."""
        known = self._seen.get(point, Measured(point=point))
        if known.failed:
            return
        try:
            known = known.again(self._measure(point))
        except ResightError as error:
            if point == self._current:
                raise
            known = Measured(point=point, failed=f"{type(error).__name__}: {error}")
        self._seen[point] = known
        self._say(known)

    def _leaders(self, wanted: Callable[[Point], bool]) -> list[Point]:
        """The best of all, and of those that can be applied."""
        found = []
        for pool in (self._same_key, self._applicable):
            some = [one for one in pool if wanted(one.point) and one.rounds]
            if some:
                found.append(self._best(some))
        return found

    def _best(self, measured: Sequence[Measured]) -> Point:
        """Within the objective, else nearest to it, else what there is."""
        found = choose(measured, self._objective, self._current) or nearest(measured)
        return found.point if found else measured[0].point

    def _confirmed(self) -> list[Point]:
        """The current settings, and the best of all and of those that can be applied, measured again; where
        none of them holds what it promised, the next ones, once.
        """
        confirmed = [self._current]
        for attempt in range(ATTEMPTS):
            fresh = self._promising(confirmed, attempt > 0)
            for _ in range(CONFIRMED if fresh else 0):
                for point in (self._current, *fresh, *self._beside):
                    self._once(point)
            confirmed += fresh
        return confirmed

    def _promising(self, confirmed: Sequence[Point], only_to_meet: bool) -> list[Point]:
        found: list[Point] = []
        for pool in (self._same_key, self._applicable):
            rest = [one for one in pool if one.point not in confirmed and one.rounds]
            if only_to_meet:
                held = any(one.meets(self._objective) for one in pool if one.point in confirmed)
                rest = [one for one in rest if one.meets(self._objective) and not held]
            if rest:
                found.append(self._best(rest))
        return list(dict.fromkeys(found))

    def _chosen(self, confirmed: Sequence[Point]) -> Swept:
        rates = [one.images_per_s for one in self._seen[self._current].rounds]
        unsteady = spread(rates)
        margin = min(MOST_MARGIN, max(MARGIN, unsteady / 2))
        last = [self._seen[point] for point in confirmed]
        best = choose(last, self._objective, self._current, margin)
        applies = choose(applicable(last, self._current), self._objective, self._current, margin)
        return Swept(
            tuple(self._seen.values()),
            margin,
            unsteady,
            best.point if best else None,
            applies.point if applies else None,
        )
