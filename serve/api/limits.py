"""Middlewares that bound an application: concurrent requests, and the bytes and seconds of large answers.

A server buffers an answer of any size, so an answer that the client does not read would stay in memory. Here a piece is
sent only after the client has received the pieces before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import Annotated

import structlog
from fastapi import Depends
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_store.errors import Overloaded
from serve.api.problems import of_error
from serve.inference.admission import Room

ALIVE = ("/healthz", "/v2/health/live", "/antenna/livez")
"""Paths that are answered without waiting, so never rejected."""


class MaxRequests:
    """Middleware that answers 429 over the bound, without reading a body. Ray would queue even health checks."""

    def __init__(self, app: ASGIApp, room: Room) -> None:
        self.app, self._room = app, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALIVE:
            await self.app(scope, receive, send)
            return
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._room.place())
            except Overloaded as error:
                await of_error(error, scope["path"])(scope, receive, send)
            else:
                await self.app(scope, receive, send)


PIECE_BYTES = 64 * 1024
"""Maximum size of an answer that is sent as one piece: each connection has buffers of this size anyway."""
log = structlog.get_logger("resight.serve")


async def held() -> AsyncIterator[contextlib.ExitStack]:
    """Provide a stack of contexts to a route (FastAPI dependency)."""
    with contextlib.ExitStack() as stack:
        yield stack


HeldUntilSent = Annotated[contextlib.ExitStack, Depends(held)]
"""Stack of contexts that are exited once the answer has been sent, or sending has ended with an error."""


class _Ended(Exception):
    """The answer was refused or cut off, so the application need not continue it."""


class PacedAnswers:
    """Middleware that limits answers over PIECE_BYTES to `max_bytes` in total; a single one may be larger.

    An answer above that limit is replaced by 429. One that the client does not receive within `within_s` is cut off,
    which closes its connection.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, within_s: float) -> None:
        self.app = app
        self._max_bytes, self._within_s = max_bytes, within_s
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start: list[Message] = []

        async def send_paced(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)  # sent with the body, which may be replaced by 429
                return
            try:
                with self._room(len(message.get("body", b""))):
                    async with asyncio.timeout(self._within_s):
                        for piece in chain(start, _pieces(message)):
                            await send(piece)
                start.clear()
            except Overloaded as error:
                if start:
                    await of_error(error, scope["path"])(scope, receive, send)
                raise _Ended from None
            except TimeoutError:
                log.info("answer_not_read", path=scope["path"][:200], within_s=self._within_s)
                raise _Ended from None

        with contextlib.suppress(_Ended):
            await self.app(scope, receive, send_paced)

    @contextlib.contextmanager
    def _room(self, size_bytes: int) -> Iterator[None]:
        """Occupy memory for an answer in the block. Raises Overloaded."""
        if size_bytes <= PIECE_BYTES:
            yield
            return
        if self._under_way and self._under_way + size_bytes > self._max_bytes:
            raise Overloaded(
                f"{self._under_way >> 20} MiB of answers are being sent, the bound is {self._max_bytes >> 20} MiB"
            )
        self._under_way += size_bytes
        try:
            yield
        finally:
            self._under_way -= size_bytes


def _pieces(message: Message) -> Iterator[Message]:
    """Split a body. The last piece is empty, so that sending it waits until the client has received the others."""
    body = memoryview(message.get("body", b""))
    if len(body) <= PIECE_BYTES:
        yield message
        return
    for at in range(0, len(body), PIECE_BYTES):
        piece = bytes(body[at : at + PIECE_BYTES])
        yield {"type": message["type"], "body": piece, "more_body": True}
    yield {**message, "body": b""}
