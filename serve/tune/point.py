"""The points of a sweep, in the order in which they are measured. Pure.

current settings, lists of values, cores --first_points--> batch x threads x workers, by replica process
the best of those --wait_points, replica_points--> a few more
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Annotated, NamedTuple

from pydantic import Field

from model_store.config import Batch, Frozen
from model_store.errors import BadRequest
from serve.settings import Pool

MOST_BATCH, MOST_WAIT_MS = 1024, 1000.0
"""Those of `Batch`: what is more could never be written."""
MOST_POINTS = 60
"""Of the first stage: more would take longer than a machine stays the same."""
STARTS_S = 4.0
"""About what a replica process takes to import, load and prove a small model."""
CONFIRMED = 2
"""Rounds in which what was best is measured again, in turn with the current settings."""


class Hardware(NamedTuple):
    """What a replica process is started with, and how many there are; a pool of the application has it."""

    threads: int
    workers: int
    replicas: int

    @classmethod
    def of(cls, pool: Pool) -> Hardware:
        """As this machine runs the pool."""
        return cls(pool.threads, pool.worker_count(), pool.replicas)


class Point(Frozen):
    """One way to run a model. `jpeg_shrink` is that of its preprocess, of which none but its own keeps the key."""

    batch: int = Field(ge=1, le=MOST_BATCH)
    wait_ms: float = Field(default=0.0, ge=0, le=MOST_WAIT_MS)
    threads: int = Field(ge=1)
    workers: int = Field(ge=1)
    replicas: int = Field(default=1, ge=1)
    jpeg_shrink: int = 1

    @property
    def hardware(self) -> Hardware:
        return Hardware(self.threads, self.workers, self.replicas)

    @property
    def filling(self) -> Batch:
        return Batch(max=self.batch, wait_ms=self.wait_ms)

    @property
    def words(self) -> str:
        parts = [f"batch {self.batch}"]
        parts += [f"wait {self.wait_ms:g} ms"] if self.wait_ms else []
        parts += [f"{self.threads} threads x {self.workers} workers"]
        parts += [f"{self.replicas} replicas"] if self.replicas > 1 else []
        parts += [f"jpeg_shrink {self.jpeg_shrink}"] if self.jpeg_shrink > 1 else []
        return ", ".join(parts)


class Wanted(Frozen):
    """Values to try; of what is empty, what suits the cores."""

    batches: tuple[Annotated[int, Field(ge=1, le=MOST_BATCH)], ...] = ()
    waits_ms: tuple[Annotated[float, Field(ge=0, le=MOST_WAIT_MS)], ...] = (0.0, 2.0)
    threads: tuple[Annotated[int, Field(ge=1)], ...] = ()
    workers: tuple[Annotated[int, Field(ge=1)], ...] = ()
    replicas: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2)


def splits(cores: int, wanted: Wanted) -> list[tuple[int, int]]:
    """Threads x workers. Without wishes: as many as there are cores together, and half of that, which leaves
    cores to decoding.
    """
    threads = wanted.threads or tuple(2**i for i in range(cores.bit_length()))
    if wanted.workers:
        return sorted(set(product(threads, wanted.workers)))
    half = {(t, max(1, cores // (2 * t))) for t in threads}
    return sorted(half | {(t, max(1, cores // t)) for t in threads})


def first_points(current: Point, cores: int, wanted: Wanted) -> list[Point]:
    """The current settings first, then those of its replica processes, then those of others one after the other,
    as many processes as now, which share the cores.

    Raises BadRequest for more than MOST_POINTS.
    """
    own = max(1, cores // current.replicas)
    hardware = [
        current.hardware,
        *(Hardware(t, w, current.replicas) for t, w in splits(own, wanted)),
    ]
    found = [current]
    for one, batch in product(dict.fromkeys(hardware), sorted(set(wanted.batches))):
        wait_ms = current.wait_ms if batch > 1 else 0.0
        found.append(
            current.model_copy(update={"batch": batch, "wait_ms": wait_ms, **one._asdict()})
        )
    points = list(dict.fromkeys(found))
    if len(points) > MOST_POINTS:
        raise BadRequest(
            f"these lists make {len(points)} points, {MOST_POINTS} are the most: give shorter lists with --batch, "
            "--threads, --workers"
        )
    return points


def wait_points(best: Iterable[Point], wanted: Wanted, known: Sequence[Point]) -> list[Point]:
    """Of batches over one: a batch of one is full at once."""
    full = [point for point in dict.fromkeys(best) if point.batch > 1]
    tried = [one.model_copy(update={"wait_ms": w}) for one in full for w in wanted.waits_ms]
    return [point for point in dict.fromkeys(tried) if point not in known]


def replica_points(best: Point, wanted: Wanted, known: Sequence[Point]) -> list[Point]:
    """The same workers in all, in so many processes; a number that does not divide them is left out."""
    workers = best.workers * best.replicas
    tried = [
        best.model_copy(update={"replicas": n, "workers": workers // n})
        for n in sorted(set(wanted.replicas))
        if n != best.replicas and workers % n == 0
    ]
    return [point for point in dict.fromkeys(tried) if point not in known]


def most_points(first: Sequence[Point], wanted: Wanted, shrinks: bool) -> int:
    """How many points all stages can have, repeats of the current settings and of the best included."""
    waits = 2 * sum(wait_ms != 0 for wait_ms in set(wanted.waits_ms))
    waits = waits if max(wanted.batches) > 1 else 0
    replicas = len(_others(first, wanted))
    groups = len({point.hardware for point in first})
    repeats = groups + (waits > 0) + replicas + shrinks
    return len(first) + waits + replicas + shrinks + repeats + (3 + shrinks) * CONFIRMED


def about_s(first: Sequence[Point], wanted: Wanted, shrinks: bool, seconds: float) -> float:
    """How long the sweep takes at most, but for models that load for long."""
    groups = len({p.hardware for p in first}) + 3
    starts = groups * first[0].replicas + sum(_others(first, wanted))
    return most_points(first, wanted, shrinks) * seconds + starts * STARTS_S


def _others(first: Sequence[Point], wanted: Wanted) -> set[int]:
    """Numbers of replicas but for the current one."""
    return set(wanted.replicas) - {first[0].replicas}
