"""Adapt the HTTP endpoint to MLPerf LoadGen as its system under test."""

# pyright: reportMissingImports=false
# (the extra `bench`)

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import mlperf_loadgen as loadgen

from benchmarks.raw_http import Pool


class Endpoint:
    """Pass queries from the threads of LoadGen to an event loop; a sample is one of `requests`."""

    def __init__(self, url: str, requests: Sequence[bytes]) -> None:
        self.requests = requests
        self.statuses: Counter[int] = Counter()
        self._loop = asyncio.new_event_loop()
        self._pool = Pool(url)
        self._free = asyncio.Semaphore(1)
        self._asking: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def begin(self, at_a_time: int) -> None:
        """Set the number of requests in flight before a scenario; others wait here, on the clock of LoadGen."""
        self.statuses, self._free = Counter(), asyncio.Semaphore(at_a_time)

    def issue(self, samples: list[Any]) -> None:
        """Send queries; called by LoadGen and must not block."""
        self._loop.call_soon_threadsafe(self._begin, [(s.id, s.index) for s in samples])

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _begin(self, samples: list[tuple[int, int]]) -> None:
        for sample in samples:
            task = self._loop.create_task(self._ask(*sample))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self, sample_id: int, index: int) -> None:
        status = 0
        try:
            async with self._free, asyncio.timeout(60), self._pool.take() as connection:
                status, _ = await connection.ask(self.requests[index])
        except (OSError, TimeoutError, ValueError):
            status = 0
        self.statuses[status] += 1
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample_id, 0, 0)])
