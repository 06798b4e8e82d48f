"""What each version has answered and where the time went, in the terms of Triton's statistics.

requests --Statistics.succeeded, .failed--> counters by version --Statistics.of--> $model_stat
The parts of a request are those of its slowest image, so that together they are about its duration.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, fields
from typing import Any

from model_store.names import VersionId


@dataclass(frozen=True, slots=True)
class Spent:
    """Nanoseconds of one request; `success` is from its body to its answer."""

    success: int
    queue: int = 0
    compute_input: int = 0
    compute_infer: int = 0
    compute_output: int = 0


@dataclass(slots=True)
class Duration:
    """How often, and how long all together."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class _Counters:
    last_inference_ms: int = 0
    inferences: int = 0
    executions: int = 0
    durations: dict[str, Duration] = field(
        default_factory=lambda: {name: Duration() for name in NAMES}
    )


NAMES = ("fail", *(part.name for part in fields(Spent)))


class Statistics:
    """Counters since the replica was born; safe to call from any thread."""

    def __init__(self) -> None:
        self._counters: dict[VersionId, _Counters] = {}
        self._lock = threading.Lock()

    def succeeded(
        self, version: VersionId, inferences: int, spent: Spent, executions: int = 1
    ) -> None:
        """A request of so many images or tensor rows was answered."""
        with self._lock:
            counters = self._counters.setdefault(version, _Counters())
            counters.inferences += inferences
            counters.executions += executions
            counters.last_inference_ms = time.time_ns() // 1_000_000
            for part in fields(Spent):
                counters.durations[part.name].add(getattr(spent, part.name))

    def failed(self, version: VersionId, ns: int) -> None:
        """A request was not answered, after so long."""
        with self._lock:
            self._counters.setdefault(version, _Counters()).durations["fail"].add(ns)

    def of(self, version: VersionId) -> dict[str, Any]:
        """Triton's $model_stat; zeros for a version that nobody has asked."""
        with self._lock:
            counters = self._counters.get(version) or _Counters()
            stats = {name: {"count": d.count, "ns": d.ns} for name, d in counters.durations.items()}
            return {
                "name": version.name,
                "version": version.version,
                "last_inference": counters.last_inference_ms,
                "inference_count": counters.inferences,
                "execution_count": counters.executions,
                "inference_stats": stats,
                "batch_stats": [],
            }
