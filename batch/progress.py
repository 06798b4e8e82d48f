"""How a run gets on: one JSON line per commit interval for people and programs that follow it.

The rate is of all images, over the time since the pipeline began to work: planning and the loading of the model are
none of it, the start of its processes is. `steady` is that between the first and the last tenth of the images: start-up
and drain left out. Of a long run not every arrival is kept, but enough for that: `thinned`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise

import structlog

from batch.accounting import Counts

log = structlog.get_logger("resight.run")

POINTS = 16_384
"""Arrivals that are kept: 2 MiB at most. A run has one for each chunk, 10^9 images 10^7 and more."""
Arrival = tuple[float, int]
"""Seconds since the start of the run, images in all."""


class Progress:
    """Counts only grow, in `unit`; times are seconds since it was made, at the start of the run."""

    def __init__(self, run_id: str, counts: Counts, every_s: float, unit: str = "images") -> None:
        self.counts, self._unit = counts, unit
        self._run_id, self._every_s = run_id, every_s
        self._started_s = time.monotonic()
        self._began_s = 0.0
        self._said_s = 0.0
        self._arrivals: list[Arrival] = []

    def begin(self) -> None:
        """From now on the pipeline is at work, and its rate is counted."""
        self._began_s = self.elapsed_s()

    def arrived(self, counts: Counts) -> None:
        self.counts = counts
        now_s = self.elapsed_s()
        self._arrivals.append((now_s, counts.inferred))
        if len(self._arrivals) > POINTS:
            self._arrivals = thinned(self._arrivals, POINTS // 8)
        if now_s - self._said_s >= self._every_s:
            self._said_s = now_s
            self.say()

    def say(self) -> None:
        rate = self.rate()
        todo = self.counts.requested - self.counts.reused - self.counts.inferred
        log.info(
            "progress",
            run_id=self._run_id,
            **asdict(self.counts),
            **{f"{self._unit}_per_s": round(rate, 2)},
            eta_s=round(todo / rate) if rate else None,
        )

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def rate(self) -> float:
        """Per second, from the pipeline's beginning to the last results that came; 0 before any have."""
        last_s, last = self._arrivals[-1] if self._arrivals else (0.0, 0)
        worked_s = last_s - self._began_s
        return last / worked_s if worked_s > 0 else 0.0

    def steady_rate(self) -> float | None:
        """Per second, between 10 % and 90 % of the images; None for a run too short to tell."""
        if len(self._arrivals) < 10:
            return None
        total = self._arrivals[-1][1]
        inside = [(s, n) for s, n in self._arrivals if 0.1 * total <= n <= 0.9 * total]
        if len(inside) < 2 or inside[-1][0] <= inside[0][0]:
            return None
        return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


def thinned(arrivals: Sequence[Arrival], parts: int) -> list[Arrival]:
    """The first, the last, and of the others as few as leave no gap that was not there before, but for gaps below
    1/parts of all the time and 1/parts of all images. At most 4 x parts + 2.
    """
    (first_s, first), (last_s, last) = arrivals[0], arrivals[-1]
    gap_s, gap = (last_s - first_s) / parts, (last - first) / parts
    kept = [arrivals[0]]
    for one, following in pairwise(arrivals[1:]):
        if following[0] - kept[-1][0] > gap_s or following[1] - kept[-1][1] > gap:
            kept.append(one)
    return [*kept, arrivals[-1]]
