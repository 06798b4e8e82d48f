"""Plans, rounds and results made up for tests: what a machine would measure is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from model_store.names import version_id
from model_store.store import ModelStore, ModelVersion
from serve.settings import DetectArgs
from serve.tune.plan import SearchSpace, TuningPlan
from serve.tune.results import Machine, MeasuredPoint, Photos, Point, Round, TuningResult, TuningSetup, choose
from tests.fixtures_local import MODELS

NOW = Point(batch=1, threads=1, workers=2)
SETUP = TuningSetup(
    model="deer@3",
    inference_key="0" * 64,
    pool="default",
    at="2026-11-22T08:00:00+00:00",
    objective_p99_ms=100,
    load_share=0.7,
    seconds=6.0,
    machine=Machine(cores=2, cpu="one", system="two", others_frac=0.0, versions={"a": "1"}),
    photos=Photos(source="deer", images=3, mean_bytes=5000, mean_megapixels=0.5),
    entry=None,
)


def at(**fields: object) -> Point:
    """Return the current settings except for these fields."""
    return NOW.model_copy(update=fields)


def shipped() -> ModelVersion:
    return ModelStore(str(MODELS)).describe(version_id("ssdlite-coco", "1"))


def plan(
    space: SearchSpace | None = None,
    shrink: int | None = None,
    version: ModelVersion | None = None,
    args: DetectArgs | None = None,
    photos: tuple[bytes, ...] = (b"x",),
    **fields: object,
) -> TuningPlan:
    """Return a plan for the hardware of NOW; `fields` are those of its setup."""
    version, args = version or shipped(), args or DetectArgs(threads=1, workers=2)
    space = space or SearchSpace(batches=(1, 2, 4))
    return TuningPlan(SETUP.model_copy(update=fields), version, args, photos, space, shrink)


def round_of(per_s: float, p99_ms: float, requests: int = 200) -> Round:
    """Return a round in which half of the requests take half of p99, the others p99."""
    half = [p99_ms / 2] * (requests - requests // 2)
    return Round(
        closed_s=2.0,
        closed_images=round(2 * per_s),
        cpu_s=2.0,
        offered_per_s=0.7 * per_s,
        latencies_ms=(*half, *[p99_ms] * (requests // 2)),
    )


def measured(point: Point, per_s: float, p99_ms: float, rounds: int = 3) -> MeasuredPoint:
    return MeasuredPoint(point=point, rounds=(round_of(per_s, p99_ms),) * rounds)


def result(points: Iterable[MeasuredPoint], objective: float = 100, **fields: object) -> TuningResult:
    points = tuple(points)
    own = [m for m in points if m.point.same_key(NOW)]
    facts = dict(SETUP) | {
        "objective_p99_ms": objective,
        "device": "cpu",
        "current": NOW,
        "points": points,
        "margin": 0.03,
        "unsteady": 0.0,
        "best": choose(own, objective, NOW, 0.03),
        "applies": choose([m for m in own if m.point.applicable(NOW)], objective, NOW, 0.03),
    }
    return TuningResult.model_validate(facts | fields)


class FakeMachine:
    """Measure points by a function, and record them."""

    def __init__(self, performance: Callable[[Point], tuple[float, float]]) -> None:
        self._performance = performance
        self.measured: list[Point] = []

    def __call__(self, point: Point) -> Round:
        self.measured.append(point)
        return round_of(*self._performance(point))
