"""Answers on their way to their readers: in pieces, bounded in bytes and in seconds.

A server takes what an app sends into a buffer, however large, so an answer that nobody reads would stay in memory. A
piece is sent only once the reader has taken those before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain
from typing import Annotated

import structlog
from fastapi import Depends
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_store.errors import Overloaded
from serve.v2.errors import refusal

PIECE_BYTES = 64 * 1024
"""An answer up to this goes as it is: as much waits in the buffers of each connection anyway."""
log = structlog.get_logger("resight.serve")


async def held() -> AsyncIterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


HeldUntilSent = Annotated[contextlib.ExitStack, Depends(held)]
"""Contexts that are left once the answer has been sent, or its sending has ended."""


class Sending:
    """Middleware. Answers over PIECE_BYTES share `most_bytes`; one is sent whatever its size, when no other is.

    An answer that finds no room is replaced by 429. One that is not taken within `within_s` is cut, which ends its
    connection.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, within_s: float) -> None:
        self.app = app
        self._most_bytes, self._within_s = most_bytes, within_s
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start: list[Message] = []
        ended = False

        async def paced(message: Message) -> None:
            nonlocal ended
            if ended:
                return
            if message["type"] == "http.response.start":
                start.append(message)  # sent with the body, which may find no room
                return
            try:
                with self._room(len(message.get("body", b""))):
                    await self._send(chain(start, _pieces(message)), send)
                start.clear()
            except Overloaded as error:
                ended = True
                await refusal(error, scope["path"])(scope, receive, send)
            except TimeoutError:
                ended = True
                log.info("answer_not_read", path=scope["path"][:200], within_s=self._within_s)

        await self.app(scope, receive, paced)

    async def _send(self, messages: Iterable[Message], send: Send) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(self._within_s):
            for message in messages:
                await send(message)

    @contextlib.contextmanager
    def _room(self, size_bytes: int) -> Iterator[None]:
        """Raises Overloaded."""
        if size_bytes <= PIECE_BYTES:
            yield
            return
        if self._under_way and self._under_way + size_bytes > self._most_bytes:
            raise Overloaded(
                f"{self._under_way >> 20} MiB of answers are being sent, the bound is {self._most_bytes >> 20} MiB"
            )
        self._under_way += size_bytes
        try:
            yield
        finally:
            self._under_way -= size_bytes


def _pieces(message: Message) -> Iterator[Message]:
    """Cut a body. A last, empty piece is sent only when the reader has taken the others."""
    body = memoryview(message.get("body", b""))
    if len(body) <= PIECE_BYTES:
        yield message
        return
    for at in range(0, len(body), PIECE_BYTES):
        piece = bytes(body[at : at + PIECE_BYTES])
        yield {"type": message["type"], "body": piece, "more_body": True}
    yield {**message, "body": b""}
