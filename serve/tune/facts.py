"""What a sweep has measured, frozen; `tune.json` is these. docs/tune.md says what each number means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from model_store.config import Frozen
from serve.tune.point import Point


class Round(Frozen):
    """One measurement of one point: a closed loop for throughput, then an open one for latency."""

    closed_s: float
    closed_images: int
    cpu_s: float
    """Of all replica processes, in the closed loop."""
    offered_per_s: float
    latencies_ms: tuple[float, ...]
    """Of the open loop, in the order of the answers, from when each was due."""
    unanswered: int = 0
    """Of the open loop: refused by the queue's bound, or not answered in time."""

    @property
    def images_per_s(self) -> float:
        return self.closed_images / self.closed_s

    def latency_ms(self, percent: float) -> float | None:
        """By nearest rank; what has no answer counts as slower than all others. None: it is among those, or
        nothing was due in this round.
        """
        rank = math.ceil((len(self.latencies_ms) + self.unanswered) * percent / 100)
        ordered = sorted(self.latencies_ms)
        return ordered[max(rank, 1) - 1] if max(rank, 1) <= len(ordered) else None


class Measured(Frozen):
    """A point and its rounds; medians over them, of p50 and p99 over those in which something was due. Without
    a round it failed, and says why.
    """

    point: Point
    rounds: tuple[Round, ...] = ()
    failed: str = ""

    @property
    def images_per_s(self) -> float:
        return median([one.images_per_s for one in self.rounds]) if self.rounds else 0.0

    @property
    def cpu_ms(self) -> float:
        """CPU time an image, reading and decoding included."""
        spent = [1e3 * r.cpu_s / r.closed_images for r in self.rounds if r.closed_images]
        return median(spent) if spent else 0.0

    @property
    def p50_ms(self) -> float | None:
        return self._median_ms(50)

    @property
    def p99_ms(self) -> float | None:
        return self._median_ms(99)

    @property
    def requests(self) -> int:
        """Of the open loops: over how many p99 was taken."""
        return sum(len(one.latencies_ms) + one.unanswered for one in self.rounds)

    def meets(self, objective_p99_ms: float) -> bool:
        return self.p99_ms is not None and self.p99_ms <= objective_p99_ms

    def again(self, one: Round) -> Measured:
        return self.model_copy(update={"rounds": (*self.rounds, one)})

    def _median_ms(self, percent: float) -> float | None:
        due = [one for one in self.rounds if one.latencies_ms or one.unanswered]
        found = [one.latency_ms(percent) for one in due]
        if not found or any(value is None for value in found):
            return None
        return median([value for value in found if value is not None])


class Machine(Frozen):
    """Where it was measured. `others_frac` of its processor time went to others before it began."""

    cores: int
    cpu: str
    system: str
    others_frac: float
    versions: dict[str, str]


class Photos(Frozen):
    """What was sent: a folder's name, or the version's own probe."""

    source: str
    images: int
    mean_bytes: int
    mean_megapixels: float


class Tuned(Frozen):
    """All of one sweep. `best` is of all points with the version's own preprocess, `applies` of those that only
    deployment.json tells from the current ones; None: no point meets the objective.
    """

    model: str
    inference_key: str
    pool: str
    device: str
    at: str
    objective_p99_ms: float
    load_share: float
    seconds: float
    machine: Machine
    photos: Photos
    entry: dict[str, Any] | None
    """The version's own entry of deployment.json before it was measured; None: it had none."""
    current: Point
    points: tuple[Measured, ...]
    margin: float
    """Points whose throughput differs by less than this share are taken for equal."""
    unsteady: float
    """Greatest less least throughput of the current settings, over their median."""
    best: Point | None
    applies: Point | None

    def of(self, point: Point) -> Measured:
        return next(one for one in self.points if one.point == point)


def spread(values: Sequence[float]) -> float:
    """Greatest less least, over the median; 0 of fewer than two."""
    middle = median(values) if values else 0.0
    return (max(values) - min(values)) / middle if middle else 0.0
