"""A client that leaves while a thread works on its request."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI


async def answer_after_one_has_left(
    monkeypatch: pytest.MonkeyPatch, work: tuple[Any, str], app: FastAPI, root: str, *request: str, json: Any = None
) -> httpx2.Response:
    """Return the answer to a request that repeats one whose client has left, and which still is in `work`."""
    entered, leaves, real = threading.Event(), threading.Event(), getattr(*work)

    def held(*about: Any) -> Any:
        done, is_first = real(*about), not entered.is_set()
        entered.set()
        assert not is_first or leaves.wait(60)
        return done

    monkeypatch.setattr(*work, held)
    transport = httpx2.ASGITransport(app, root_path=root)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        gone = asyncio.create_task(client.request(*request, json=json))
        assert await asyncio.to_thread(entered.wait, 60)
        gone.cancel()
        for _ in range(20):  # until it has given back what it gives back
            await asyncio.sleep(0)
        answer = await client.request(*request, json=json)
        leaves.set()
        await asyncio.wait([gone])
    return answer
