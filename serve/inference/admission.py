"""All bounds on the requests that a replica answers concurrently. A request above a bound is rejected with Overloaded.

Requests that wait for a sender, another pool or their rows have separate bounds: they cannot block the queue of images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from model_store.errors import Overloaded
from serve.settings import Limits

SMALL_BODIES = 16
"""Requests of one route that may wait for a small body. A normal client sends it together with the headers."""
OTHER_REQUESTS = 960
"""Requests of a replica in addition to those admitted for images (`limits.online_queue`)."""


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
    """The bounds of one replica. An image occupies a place from before its body is read until the end."""

    def __init__(self, limits: Limits, retry_after_s: Callable[[], float], on_full: Callable[[], None]) -> None:
        """`retry_after_s` and `on_full` are those of the bound on images."""
        places = limits.online_queue
        forwarded = "images are being forwarded to other pools"
        small_bodies = "bodies are being read"
        self.requests = Room(max_requests(limits), "requests are being answered")
        self.images = Room(places, "images are being answered", retry_after_s, on_full)
        self.forms = Room(places, "forms are being read")
        self.forwarded = Room(places, forwarded)
        self.forwarded_uploads = Room(places, forwarded)  # they may wait for their rows
        self.uploads = Room(2 * places, "requests wait for their rows")
        self.index = Room(SMALL_BODIES, small_bodies)
        self.repository = Room(SMALL_BODIES, small_bodies)


def max_requests(limits: Limits) -> int:
    """Return the maximum number of HTTP requests that a replica answers concurrently."""
    return limits.online_queue + OTHER_REQUESTS
