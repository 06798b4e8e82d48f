"""Requests of one process are cancelled with their client, and only then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serve.embedded.server import cancelled_with_client

SCOPE = {"type": "http", "path": "/v1/detect"}
PART = {"type": "http.request", "body": b"x", "more_body": True}
REST = {"type": "http.request", "body": b"y"}
GONE = {"type": "http.disconnect"}
ANSWER = ({"type": "http.response.start", "status": 200}, {"type": "http.response.body"})


class Client:
    """Sends these messages, then nothing until it is `gone`."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages, self.gone = list(messages), asyncio.Event()
        self.received: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self.messages:
            return self.messages.pop(0)
        await self.gone.wait()
        return GONE

    async def send(self, message: dict[str, Any]) -> None:
        self.received.append(message)
        if message["type"] == "http.response.body":
            self.gone.set()  # as uvicorn does after an answer


async def body_of(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            return body


async def test_a_request_is_cancelled_with_its_client() -> None:
    client, began, ended = Client(PART, REST), asyncio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await body_of(receive) == b"xy"
        began.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    request = asyncio.create_task(cancelled_with_client(app)(SCOPE, client.receive, client.send))
    await began.wait()
    client.gone.set()
    async with asyncio.timeout(60):
        await request
    assert ended == ["cancelled"]


async def test_what_follows_an_answer_is_not_cancelled() -> None:
    client, ended = Client(REST), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await body_of(receive)
        for message in ANSWER:
            await send(message)
        assert await receive() == GONE
        ended.append("recorded")

    await cancelled_with_client(app)(SCOPE, client.receive, client.send)
    assert client.received == list(ANSWER)
    assert ended == ["recorded"]


async def test_the_end_of_the_server_is_passed_on() -> None:
    client, began = Client(REST), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await body_of(receive)
        began.set()
        await asyncio.sleep(600)

    request = asyncio.create_task(cancelled_with_client(app)(SCOPE, client.receive, client.send))
    await began.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
