"""Bounds for requests that hold no place among the images, so that those which do are always answered.

Room         how many requests may wait for their sender, or for their rows
MaxRequests  middleware: how many requests an application answers at a time, whatever they wait for
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from starlette.types import ASGIApp, Receive, Scope, Send

from model_store.errors import Overloaded
from serve.settings import Limits
from serve.v2.errors import refusal

SMALL_BODIES = 16
"""Requests of one route that wait for a small body; an honest one arrives with its headers."""
OTHER_REQUESTS = 960
"""Requests of a replica beside those that hold one of its places (`limits.online_queue`)."""
ALIVE = ("/healthz", "/v2/health/live")
"""Answered without waiting for anything, so never refused."""


class Room:
    """Places for requests that wait for something; use it on one event loop."""

    def __init__(self, places: int, what: str) -> None:
        """`what` names the requests in the plural, for the refusal."""
        self._places, self._what, self._taken = places, what, 0

    @property
    def is_full(self) -> bool:
        return self._taken >= self._places

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place. Raises Overloaded if none is free."""
        if self.is_full:
            raise Overloaded(f"{self._taken} {self._what}, the bound is {self._places}")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


def max_requests(limits: Limits) -> int:
    """Return how many HTTP requests a replica answers at a time."""
    return limits.online_queue + OTHER_REQUESTS


class MaxRequests:
    """Middleware that answers 429 at once to a request over the bound, without reading its body.

    Ray would let such requests wait, the health checks of load balancers among them.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self._room = Room(most, "requests are being answered")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALIVE:
            await self.app(scope, receive, send)
            return
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._room.place())
            except Overloaded as error:
                await refusal(error, scope["path"])(scope, receive, send)
            else:
                await self.app(scope, receive, send)
