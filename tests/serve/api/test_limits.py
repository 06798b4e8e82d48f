"""Requests without a place among the images cannot take a replica from those that have one."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from archive.views.search import P, Search
from model_store.errors import Overloaded
from serve.api.app import build_http_api
from serve.api.limits import MaxRequests
from serve.app import build
from serve.inference.admission import OTHER_REQUESTS, SMALL_BODIES, Room, max_requests
from serve.inference.engine import Engine
from serve.settings import DetectArgs, Limits
from serve.uploads.uploads import Upload, Uploads
from tests.serve.hostile import CANARY, CAT, DETECT, PLACES, TIMEOUT_S, Live, engine_in, serving, status_of
from tests.serve.http_client import MakeEngine, has_room

SENDERS = 60
FORM = "content-type: multipart/form-data; boundary=b"
SLOW = {"index": ("/v2/repository/index", SMALL_BODIES), "control": (CANARY, SMALL_BODIES), "form": (DETECT, PLACES)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = engine_in(tmp_path_factory.mktemp("bounds"))
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def live(engine: Engine) -> Iterator[Live]:
    yield from serving(engine)


@pytest.mark.parametrize("case", SLOW)
def test_few_slow_bodies_wait_and_the_others_are_refused_at_once(live: Live, case: str) -> None:
    path, places = SLOW[case]
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{FORM if 'form' in case else 'a: b'}"
    with contextlib.ExitStack() as opened:
        senders = [opened.enter_context(live.connect()) for _ in range(SENDERS)]
        for sender in senders:
            sender.sendall(f"{head}\r\ncontent-length: 1000\r\n\r\n--b".encode())
        refused = answered(senders, SENDERS - places)
        assert [status_of(sender) for sender in refused] == [429] * len(refused)
        assert live.says(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n") == 200
        assert detects(live) == 200
        if case == "index":  # what a reader sends does not keep an admin out
            command = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}" % CANARY.encode()
            assert live.says(command) == 400
        waiting = [sender for sender in senders if sender not in refused]
        assert len(waiting) == places
        assert select.select(waiting, [], [], 0)[0] == []
    assert gives_back(live, head)


def answered(senders: list[socket.socket], count: int) -> list[socket.socket]:
    """Return those with an answer, once there are so many."""
    ends = time.monotonic() + TIMEOUT_S
    while len(ready := select.select(senders, [], [], 0)[0]) < count:
        assert time.monotonic() < ends, f"{len(ready)} of {count} were answered"
        time.sleep(0.01)
    return ready


def detects(live: Live) -> int | None:
    head = f"POST {DETECT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(CAT)}\r\n\r\n"
    return live.says(head.encode(), CAT)


def gives_back(live: Live, head: str) -> bool:
    """Return whether, soon after the senders are gone, a body is read again."""
    ends = time.monotonic() + TIMEOUT_S
    while live.says(f"{head}\r\ncontent-length: 2\r\n\r\nno".encode()) == 429:
        assert time.monotonic() < ends
        time.sleep(0.01)
    return True


class Unrecorded:
    """Tables that never finish a row."""

    begun = 0

    async def record(self, upload: Upload) -> None:
        self.begun += 1
        await asyncio.Event().wait()

    async def find(self, wanted: Search[P]) -> P:
        raise AssertionError


@pytest.mark.parametrize("form", [False, True])
async def test_few_uploads_wait_for_their_rows_and_the_others_are_answered(
    blobs: MakeEngine, tmp_path: Path, form: bool
) -> None:
    engine = await blobs(limits=Limits(online_queue=1))
    tables = Unrecorded()
    uploads = Uploads(str(tmp_path / "uploads"), tables, engine.metrics.uploaded)
    transport = httpx2.ASGITransport(build_http_api(engine, uploads=uploads))
    sent = {"files": [("image", CAT)]} if form else {"content": CAT}
    query = {"model": "blobs", "wait_s": "30"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as client:
        waiting: list[asyncio.Task[httpx2.Response]] = []
        for count in (1, 2):
            request = client.post("/v1/images", params=query, **sent)  # type: ignore[arg-type]
            waiting.append(asyncio.create_task(request))
            while tables.begun < count or not has_room(engine):
                await asyncio.sleep(0.01)
        last = client.post("/v1/images", params=query, **sent)  # type: ignore[arg-type]
        assert (await asyncio.wait_for(last, TIMEOUT_S)).is_success
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_over_its_bound_a_replica_refuses_and_stays_alive() -> None:
    opened = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/healthz":
            await opened.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    bounded = MaxRequests(app, Room(3, "requests are being answered"))
    transport = httpx2.ASGITransport(bounded)  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as client:
        held = [asyncio.create_task(client.get("/v1/models")) for _ in range(3)]
        while not bounded._room.is_full:
            await asyncio.sleep(0)
        refused = await client.post("/v1/detect", content=CAT)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["type"] == "urn:resight:overloaded"
        assert "error" in (await client.get("/v2/models/stats")).json()
        assert (await client.get("/healthz")).status_code == 200
        opened.set()
        assert [one.status_code for one in await asyncio.gather(*held)] == [200] * 3
        assert (await client.get("/v1/models")).status_code == 200


def test_rays_bound_is_above_all_of_ours() -> None:
    args = DetectArgs(workers=1, limits=Limits(online_queue=7, bulk_queue=11))
    rays = build(args)._bound_deployment.max_ongoing_requests  # type: ignore[attr-defined]
    assert max_requests(args.limits) == 7 + OTHER_REQUESTS
    assert rays == max_requests(args.limits) + 11


def test_a_place_comes_back_whatever_ends_its_request() -> None:
    room = Room(1, "things wait")
    with contextlib.suppress(ZeroDivisionError), room.place():
        with pytest.raises(Overloaded, match="1 things wait, the bound is 1"), room.place():
            pass
        assert room.is_full, "the one that was refused had none to give back"
        _ = 1 / 0
    assert not room.is_full
