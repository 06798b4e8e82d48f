"""Rounds and sweeps made up for tests: what a machine would measure, known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from serve.tune.choice import choose
from serve.tune.facts import Machine, Measured, Photos, Round, Tuned
from serve.tune.point import Point

NOW = Point(batch=1, threads=1, workers=2)


def at(**fields: object) -> Point:
    """The current settings, but for these fields."""
    return NOW.model_copy(update=fields)


def round_of(per_s: float, p99_ms: float, requests: int = 200) -> Round:
    """Of which p50 is half of p99: half of the requests take so long, the others twice as long."""
    half = [p99_ms / 2] * (requests - requests // 2)
    return Round(
        closed_s=2.0,
        closed_images=round(2 * per_s),
        cpu_s=2.0,
        offered_per_s=0.7 * per_s,
        latencies_ms=(*half, *[p99_ms] * (requests // 2)),
    )


def measured(point: Point, per_s: float, p99_ms: float, rounds: int = 3) -> Measured:
    return Measured(point=point, rounds=(round_of(per_s, p99_ms),) * rounds)


def tuned(points: Iterable[Measured], objective: float = 100, **fields: object) -> Tuned:
    points = tuple(points)
    own = [one for one in points if one.point.jpeg_shrink == 1]
    here = [one for one in own if one.point.hardware == NOW.hardware]
    best, applies = (choose(some, objective, NOW) for some in (own, here))
    facts = {
        "model": "deer@3",
        "inference_key": "0" * 64,
        "pool": "default",
        "device": "cpu",
        "at": "2026-11-22T08:00:00+00:00",
        "objective_p99_ms": objective,
        "load_share": 0.7,
        "seconds": 6.0,
        "machine": Machine(cores=2, cpu="one", system="two", others_frac=0.0, versions={"a": "1"}),
        "photos": Photos(source="deer", images=3, mean_bytes=5000, mean_megapixels=0.5),
        "entry": None,
        "current": NOW,
        "points": points,
        "margin": 0.03,
        "unsteady": 0.0,
        "best": best.point if best else None,
        "applies": applies.point if applies else None,
    }
    return Tuned.model_validate(facts | fields)


class Fake:
    """`measure` of a machine whose performance is a function, with a record of what was asked."""

    def __init__(self, performance: Callable[[Point], tuple[float, float]]) -> None:
        self._performance = performance
        self.asked: list[Point] = []

    def __call__(self, point: Point) -> Round:
        self.asked.append(point)
        return round_of(*self._performance(point))
