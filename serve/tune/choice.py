"""Which measured point to take: the frontier, the best within an objective, the nearest to one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from serve.tune.facts import Measured
from serve.tune.point import Point

MARGIN = 0.03
"""Throughputs that differ by less are equal, on the quietest machine."""


def frontier(measured: Iterable[Measured]) -> list[Measured]:
    """Those that no other beats in throughput and p99 at once, by p99; one of several that are alike."""
    known = [(one.p99_ms, one) for one in measured if one.p99_ms is not None]
    kept: list[Measured] = []
    for _, one in sorted(known, key=lambda pair: (pair[0], -pair[1].images_per_s)):
        if not kept or one.images_per_s > kept[-1].images_per_s:
            kept.append(one)
    return kept


def choose(
    measured: Sequence[Measured], objective_p99_ms: float, current: Point, margin: float = MARGIN
) -> Measured | None:
    """The greatest throughput whose p99 is within the objective. Of those as good as it, the current settings,
    else the least p99. None where no point meets the objective.
    """
    meeting = [one for one in measured if one.meets(objective_p99_ms)]
    if not meeting:
        return None
    enough = (1 - margin) * max(one.images_per_s for one in meeting)
    good = [one for one in meeting if one.images_per_s >= enough]
    same = [one for one in good if one.point == current]
    return same[0] if same else min(good, key=lambda one: one.p99_ms or 0.0)


def nearest(measured: Iterable[Measured]) -> Measured | None:
    """The least p99; None where nothing was answered."""
    known = [one for one in measured if one.p99_ms is not None]
    return min(known, key=lambda one: one.p99_ms or 0.0, default=None)


def applicable(measured: Iterable[Measured], current: Point) -> list[Measured]:
    """Those that differ from the current settings in batch and wait alone."""
    return [
        one
        for one in measured
        if one.point.hardware == current.hardware and one.point.jpeg_shrink == current.jpeg_shrink
    ]


def with_same_key(measured: Iterable[Measured], current: Point) -> list[Measured]:
    return [one for one in measured if one.point.jpeg_shrink == current.jpeg_shrink]
