"""When a run gives up: too large a share of its images failed, or nothing has come back for too long.

An unmounted archive or a model that fails on every image would otherwise be a whole archive of failed rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from batch.accounting import Counts
from batch.policy import Stop
from model_store.errors import RunStalled, TooManyFailed


class Patience:
    """Of one run; `now_s` is a clock that only grows, `table` the one that failed rows are in."""

    def __init__(
        self, stop: Stop, now_s: Callable[[], float] = time.monotonic, table: str = "results"
    ) -> None:
        self._stop, self._now_s, self._table = stop, now_s, table
        self._arrived_s = now_s()

    def require(self, counts: Counts, arrived: bool) -> None:
        """Raises TooManyFailed, or RunStalled. `arrived`: results have come since it was asked last."""
        now_s = self._now_s()
        if arrived:
            self._arrived_s = now_s
        tried, limit = counts.inferred, self._stop.failed_frac
        if tried >= self._stop.failed_after and counts.failed > limit * tried:
            raise TooManyFailed(
                f"{counts.failed} of the first {tried} images failed, over the limit of {limit:.0%}; what was "
                f"done is kept. See error_code in {self._table}, mend the cause and run again, or raise "
                "--stop-failed-frac"
            )
        if now_s - self._arrived_s > self._stop.stall_s:
            raise RunStalled(
                f"no result for {now_s - self._arrived_s:.0f} s, after {tried} images; what was done is kept. "
                "See 'resight status' and the replicas' logs, then run again, or raise --stall-s"
            )
