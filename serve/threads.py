"""Blocking work of requests in a few threads: what waits for one is bounded, and let go when its request is cancelled.

An executor's own queue keeps a cancelled call, and with it the body of the request, until a thread comes by.
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
    """`count` threads, and at most `most` calls that run or wait; `what` they are, in the plural."""

    def __init__(self, count: int, what: str, most: int) -> None:
        self._what, self._most = what, most
        self._executor = ThreadPoolExecutor(count, what)
        self._lock = threading.Lock()
        self._held = 0

    async def run(self, work: Callable[P, R], *args: P.args, **more: P.kwargs) -> R:
        """Return `work(…)`; a call that has begun is ended even if nobody waits. Raises its errors, and Overloaded."""
        calls = [partial(work, *args, **more)]
        del work, args, more  # `calls` alone keeps them, so that they can be let go
        with self._lock:
            if self._held >= self._most:
                raise Overloaded(
                    f"{self._held} {self._what} run or wait, the bound is {self._most}"
                )
            self._held += 1
        future: Future[Any] = self._executor.submit(_begin, calls)
        future.add_done_callback(self._ended)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        finally:  # the traceback of an error holds this frame, and its future would hold the error
            calls.clear()
            del future

    def stop(self) -> None:
        """Let running calls end, and begin no others."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _ended(self, _: Future[Any]) -> None:
        with self._lock:
            self._held -= 1


def _begin(calls: list[Callable[[], Any]]) -> Any:
    try:
        call = calls.pop()
    except IndexError:  # cancelled in the meantime
        return None
    return call()
