"""The data of a sweep, frozen, and the choice of the best point.

TuningResult is the content of tune.json; docs/operate/tune.md explains its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import Any, NamedTuple

from model_store.frozen import Frozen
from serve.settings import Pool


class Hardware(NamedTuple):
    """Settings of a replica process and the number of processes. A pool has them, for all its models."""

    threads: int
    workers: int
    replicas: int

    @classmethod
    def of(cls, pool: Pool) -> Hardware:
        return cls(pool.threads, pool.worker_count(), pool.replicas)


class Point(Frozen):
    """One combination of settings. Only the version's own `jpeg_shrink` keeps the inference key."""

    batch: int
    wait_ms: float = 0.0
    threads: int
    workers: int
    replicas: int = 1
    jpeg_shrink: int = 1

    def __str__(self) -> str:
        wait = f", wait {self.wait_ms:g} ms" if self.wait_ms else ""
        replicas = f", {self.replicas} replicas" if self.replicas > 1 else ""
        shrink = f", jpeg_shrink {self.jpeg_shrink}" if self.jpeg_shrink > 1 else ""
        return f"batch {self.batch}{wait}, {self.threads} threads x {self.workers} workers{replicas}{shrink}"

    def replace(self, **fields: Any) -> Point:
        return self.model_copy(update=fields)

    @property
    def hardware(self) -> Hardware:
        return Hardware(self.threads, self.workers, self.replicas)

    def same_key(self, current: Point) -> bool:
        return self.jpeg_shrink == current.jpeg_shrink

    def applicable(self, current: Point) -> bool:
        """Return true if deployment.json alone makes the difference."""
        return self.same_key(current) and self.hardware == current.hardware


class Round(Frozen):
    """One measurement of a point: a closed loop for throughput, then an open loop for latency."""

    closed_s: float  # of several processes: that in which together they answer `closed_images`
    closed_images: int
    cpu_s: float  # of all replica processes, in the closed loop
    offered_per_s: float
    latencies_ms: tuple[float, ...]  # in the open loop, from when each request was due
    unanswered: int = 0  # in the open loop: rejected by the queue, or too late

    @property
    def images_per_s(self) -> float:
        return self.closed_images / self.closed_s

    @property
    def requests(self) -> int:
        return len(self.latencies_ms) + self.unanswered

    def latency_ms(self, percent: float) -> float:
        """Return a percentile by nearest rank; unanswered requests are infinitely slow."""
        ordered = [*sorted(self.latencies_ms), *[math.inf] * self.unanswered]
        return ordered[math.ceil(self.requests * percent / 100) - 1]


class MeasuredPoint(Frozen):
    """A point and medians over its rounds. Without a round, `failed` is the reason."""

    point: Point
    rounds: tuple[Round, ...] = ()
    failed: str = ""

    def __str__(self) -> str:
        p99 = "no p99" if math.isinf(self.p99_ms) else f"p99 {self.p99_ms:.0f} ms"
        return f"{self.images_per_s:.1f} images/s, {p99}"

    @property
    def images_per_s(self) -> float:
        return median([r.images_per_s for r in self.rounds] or [0.0])

    @property
    def cpu_ms(self) -> float:
        """CPU time per image, decoding included."""
        return median([1e3 * r.cpu_s / r.closed_images for r in self.rounds] or [0.0])

    @property
    def requests(self) -> int:
        return sum(r.requests for r in self.rounds)

    @property
    def p99_ms(self) -> float:
        return self.latency_ms(99)

    def latency_ms(self, percent: float) -> float:
        """Return the median over rounds with requests; infinite without one, or if one of them is infinite."""
        values = [r.latency_ms(percent) for r in self.rounds if r.requests] or [math.inf]
        return median(values) if max(values) < math.inf else math.inf


class Machine(Frozen):
    """The machine of a sweep. Other programs used `others_frac` of its cores before the sweep."""

    cores: int
    cpu: str
    system: str
    others_frac: float
    versions: dict[str, str]


class Photos(Frozen):
    """The pictures that were sent, from a folder or from the golden probe of the version."""

    source: str
    images: int
    mean_bytes: int
    mean_megapixels: float


class TuningSetup(Frozen):
    """The conditions of a sweep. `entry` is the version's own entry in deployment.json, None without one."""

    model: str
    inference_key: str
    pool: str
    at: str
    objective_p99_ms: float
    load_share: float
    seconds: float
    machine: Machine
    photos: Photos
    entry: dict[str, Any] | None


class TuningResult(TuningSetup):
    """A finished sweep. `best` keeps the inference key, `applies` is the best that --apply can write.

    Either is None if no such point meets the objective. Throughputs within `margin` of each other count as equal;
    `unsteady` is the range of the current settings' throughputs. Both are shares.
    """

    device: str
    current: Point
    points: tuple[MeasuredPoint, ...]
    margin: float
    unsteady: float
    best: Point | None
    applies: Point | None

    def of(self, point: Point) -> MeasuredPoint:
        return next(measured for measured in self.points if measured.point == point)

    @property
    def shrunk(self) -> MeasuredPoint | None:
        """The point with scaled decoding, if one was measured."""
        return next((m for m in self.points if not m.point.same_key(self.current)), None)


def frontier(points: Iterable[MeasuredPoint]) -> list[Point]:
    """Return the points that no other beats in both throughput and p99, by p99."""
    kept: list[MeasuredPoint] = []
    for measured in sorted(points, key=lambda m: (m.p99_ms, -m.images_per_s)):
        if not kept or measured.images_per_s > kept[-1].images_per_s:
            kept.append(measured)
    return [measured.point for measured in kept if measured.p99_ms < math.inf]


def choose(points: Iterable[MeasuredPoint], objective_p99_ms: float, current: Point, margin: float) -> Point | None:
    """Return the point of the greatest throughput that meets the objective, None if no point does.

    Among those within `margin` of it, take the current settings, else the lowest p99.
    """
    meeting = [m for m in points if m.p99_ms <= objective_p99_ms]
    enough = (1 - margin) * max((m.images_per_s for m in meeting), default=0.0)
    equal = {m.point: m.p99_ms for m in meeting if m.images_per_s >= enough}
    return current if current in equal else min(equal, key=equal.__getitem__, default=None)
