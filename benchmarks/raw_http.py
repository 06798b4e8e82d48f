"""Minimal HTTP/1.1 client for load generators: keep-alive connections over asyncio sockets.

`pool = Pool(url); async with pool.take() as connection: status, body = await connection.ask(request)`

A connection has one request at a time. Requests are never repeated: a broken connection
raises ConnectionError, and the caller counts a failure.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

MOST = 512
IDLE_S = 5.0  # well below the idle limits of proxies, so that they do not close a connection in use


def request_bytes(url: str, path: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Return a complete POST request, made once and sent many times."""
    lines = [f"POST {path} HTTP/1.1", f"host: {urlsplit(url).netloc}"]
    lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join((*lines, "", "")).encode() + body


class Pool:
    """Pool of connections; new ones are opened on demand."""

    def __init__(self, url: str, most: int = MOST) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "127.0.0.1", place.port or 80
        self._idle: deque[Socket] = deque()
        self._free = asyncio.Semaphore(most)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Socket]:
        """Yield a connection. Raises OSError if none can be opened."""
        async with self._free:
            socket = self._usable()
            if socket is None:
                loop = asyncio.get_running_loop()
                _, socket = await loop.create_connection(Socket, self._host, self._port)
            try:
                yield socket
            except BaseException:
                socket.close()
                raise
            if not socket.closed:
                socket.idle_since_s = time.monotonic()
                self._idle.append(socket)

    def _usable(self) -> Socket | None:
        while self._idle:
            socket = self._idle.popleft()  # in turn: each connection belongs to one worker of a server
            if not socket.closed and time.monotonic() - socket.idle_since_s < IDLE_S:
                return socket
            socket.close()
        return None


class Socket(asyncio.Protocol):
    """A connection. Responses end at their length, at the last chunk, or at the end of the connection."""

    def __init__(self) -> None:
        self.closed = False
        self.idle_since_s = 0.0
        self._received = bytearray()
        self._head: bytes | None = None
        self._ends_at: int | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return status and body, a chunked body with its chunk sizes. Raises ConnectionError."""
        if self.closed:
            raise ConnectionResetError("closed by the server")
        self._received.clear()
        self._head, self._ends_at = None, None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self.closed = True
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # the type of uvloop is not a subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._head is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(self._received[:end]).lower()
            length = self._field(b"content-length")
            self._ends_at = end + 4 + int(length) if length is not None else None
        chunked = self._ends_at is None and self._field(b"transfer-encoding") == b"chunked"
        if (self._ends_at is not None and len(self._received) >= self._ends_at) or (
            chunked and self._received.endswith(b"0\r\n\r\n")
        ):
            self._done()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is None or self._answer.done():
            return
        if self._head is not None and self._ends_at is None and exc is None:
            self._done()
        else:
            self._answer.set_exception(ConnectionResetError("closed before the answer was whole"))

    def _done(self) -> None:
        if self._answer is None or self._answer.done() or self._head is None:
            return
        if self._field(b"connection") == b"close":
            self.closed = True
        status = int(self._head[9:12])
        body = bytes(self._received[self._received.find(b"\r\n\r\n") + 4 :])
        self._answer.set_result((status, body))

    def _field(self, name: bytes) -> bytes | None:
        _, found, rest = (self._head or b"").partition(b"\r\n" + name + b":")
        return rest.partition(b"\r\n")[0].strip() if found else None
