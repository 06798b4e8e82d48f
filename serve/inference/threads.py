"""Run blocking calls of requests in a few threads, with a bounded queue from which cancelled calls are released.

The queue of an executor keeps a cancelled call, and with it the body of the request, until a thread takes it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from model_store.errors import Overloaded

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    """`count` threads with at most `max_calls` calls that run or wait. `what` describes the calls in the plural."""

    def __init__(self, count: int, what: str, max_calls: int) -> None:
        self._what, self._max_calls = what, max_calls
        self._executor = ThreadPoolExecutor(count, what)
        self._lock = threading.Lock()
        self._held = 0

    async def run(self, work: Callable[P, R], *args: P.args, **more: P.kwargs) -> R:
        """Return `work(…)`, completed even if its request is cancelled. Raises Overloaded, and its errors."""
        calls = [partial(work, *args, **more)]
        del work, args, more  # only `calls` refers to them, so that clearing it releases them
        with self._lock:
            if self._held >= self._max_calls:
                raise Overloaded(f"{self._held} {self._what} run or wait, the bound is {self._max_calls}")
            self._held += 1
        future: Future[Any] = self._executor.submit(_run_first, calls)
        future.add_done_callback(self._ended)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        finally:  # break the cycle of error, traceback, this frame and its future
            calls.clear()
            del future

    def stop(self) -> None:
        """Cancel waiting calls; running ones continue."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _ended(self, _: Future[Any]) -> None:
        with self._lock:
            self._held -= 1


def _run_first(calls: list[Callable[[], Any]]) -> Any:
    try:
        call = calls.pop()
    except IndexError:  # the request was cancelled
        return None
    return call()
