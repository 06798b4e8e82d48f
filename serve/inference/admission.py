"""All bounds on the requests that a replica answers concurrently. A request above a bound is rejected with Overloaded.

Requests that wait for a sender, another pool or their rows have separate bounds: they cannot block the queue of images.
Blocking calls of requests run in `Threads`, which are bounded too.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from model_store.errors import Overloaded
from serve.settings import Limits

SMALL_BODIES = 16
"""Requests of one route that may wait for a small body. A normal client sends it together with the headers."""
OTHER_REQUESTS = 960
"""Requests of a replica in addition to those admitted for images (`limits.online_queue`)."""
P = ParamSpec("P")
R = TypeVar("R")


class Room:
    """A bounded number of places for requests. Use it on one event loop."""

    def __init__(
        self,
        places: int,
        what: str,
        retry_after_s: Callable[[], float] = lambda: 1.0,
        on_full: Callable[[], None] = lambda: None,
    ) -> None:
        """`what` describes the requests in the plural, for the error; `on_full` is called before it is raised."""
        self._places, self._what = places, what
        self._retry_after_s, self._on_full = retry_after_s, on_full
        self.taken = 0

    @property
    def free(self) -> int:
        return self._places - self.taken

    @property
    def is_full(self) -> bool:
        return self.taken >= self._places

    @contextlib.contextmanager
    def place(self, count: int = 1) -> Iterator[None]:
        """Occupy places in the block. Raises Overloaded if fewer are free."""
        if self.taken + count > self._places:
            self._on_full()
            message = f"{self.taken} {self._what}, the bound is {self._places}"
            raise Overloaded(message, self._retry_after_s())
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count


class Admission:
    """The bounds of one replica. An image occupies a place from before its body is read until it is processed."""

    def __init__(self, limits: Limits, retry_after_s: Callable[[], float], on_full: Callable[[], None]) -> None:
        """`retry_after_s` and `on_full` are those of the bound on images."""
        places = limits.online_queue
        forwarded = "images are being forwarded to other pools"
        small_bodies = "bodies are being read"
        self.requests = Room(max_requests(limits), "requests are being answered")
        self.images = Room(places, "images are being answered", retry_after_s, on_full)
        self.crops = Room(places, "crops are being classified in addition to one of each image")
        self.forms = Room(places, "forms are being read")
        self.forwarded = Room(places, forwarded)
        self.forwarded_uploads = Room(places, forwarded)  # they may wait for their rows
        self.uploads = Room(2 * places, "requests wait for their rows")
        self.index = Room(SMALL_BODIES, small_bodies)
        self.repository = Room(SMALL_BODIES, small_bodies)


def max_requests(limits: Limits) -> int:
    """Return the maximum number of HTTP requests that a replica answers concurrently."""
    return limits.online_queue + OTHER_REQUESTS


class Threads:
    """`count` threads with at most `max_calls` calls that run or wait. `what` describes the calls in the plural.

    The queue of an executor keeps a cancelled call, and with it the body of its request, until a thread takes it; here
    it is released at once.
    """

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
                raise Overloaded(f"{self._held} {self._what}, the bound is {self._max_calls}")
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
