"""Work in threads: bounded, and nothing of a cancelled request stays behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import BadRequest, Overloaded
from serve.api import models as routes
from serve.inference.admission import Threads
from serve.inference.batcher import Lane
from serve.inference.engine import MAX_LOOKUPS, Engine
from serve.inference.workers import PendingImage, Workers
from serve.settings import DetectArgs
from tests.serve.http_client import MakeEngine, client


class Body:
    """Something that can be looked for when nobody should hold it any more."""


class Gate:
    """Threads wait in it until it is opened; `entered` says that one has come."""

    def __init__(self) -> None:
        self._open, self.entered = threading.Event(), threading.Event()

    def __call__(self, *_: Any) -> None:
        self.entered.set()
        assert self._open.wait(30)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Turn off the garbage collector: memory must be freed without it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def cancelled(task: asyncio.Task[Any]) -> None:
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


@pytest.mark.usefixtures("no_collections")
async def test_a_call_that_is_cancelled_in_the_queue_keeps_nothing(gate: Gate) -> None:
    threads = Threads(1, "calls", 8)
    first = asyncio.create_task(threads.run(gate))
    await asyncio.to_thread(gate.entered.wait, 10)
    body = Body()
    left = weakref.ref(body)
    waiting = asyncio.create_task(threads.run(id, body))
    del body
    await cancelled(waiting)
    del waiting
    assert left() is None
    gate.open()
    await first
    assert await threads.run(max, 1, 2) == 2


async def test_what_is_cancelled_counts_until_a_thread_has_come_by(gate: Gate) -> None:
    """So that nobody fills the queue by hanging up."""
    threads = Threads(1, "calls of a test run or wait", 3)
    first = asyncio.create_task(threads.run(gate))
    await asyncio.to_thread(gate.entered.wait, 10)
    for _ in range(2):
        await cancelled(asyncio.create_task(threads.run(id, None)))
    with pytest.raises(Overloaded, match="3 calls of a test run or wait, the bound is 3"):
        await threads.run(id, None)
    gate.open()
    await first
    async with asyncio.timeout(10):
        while threads._held:
            await asyncio.sleep(0.001)
    assert await threads.run(max, 1, 2) == 2


@pytest.mark.usefixtures("no_collections")
async def test_an_error_comes_through_and_keeps_nothing() -> None:
    threads, body = Threads(1, "calls", 1), Body()
    left = weakref.ref(body)

    def fail(_: Body) -> None:
        raise BadRequest("wrong")

    for _ in range(3):  # its place is free again
        with pytest.raises(BadRequest, match="wrong"):
            await threads.run(fail, body)
    del body
    assert await threads.run(max, 1, 2) == 2
    assert left() is None


@pytest.mark.usefixtures("no_collections")
async def test_a_picture_whose_request_was_cancelled_is_gone_before_it_is_decoded(
    gate: Gate, blobs: MakeEngine
) -> None:
    """Also where all decoders are busy."""
    engine = await blobs()
    workers = Workers(DetectArgs(workers=1, threads=2), lambda *_: None)  # decodes beside
    model = (await engine.resolver.get("blobs")).detector
    try:
        busy = asyncio.create_task(workers.image(Lane.ONLINE, model, PendingImage(gate, 1)))  # type: ignore[arg-type]
        await asyncio.to_thread(gate.entered.wait, 10)
        picture = PendingImage(lambda: model.read(b"", 1), 1)
        left = weakref.ref(picture)
        waiting = asyncio.create_task(workers.image(Lane.ONLINE, model, picture))
        del picture
        await cancelled(waiting)
        del waiting
        assert left() is None
        await cancelled(busy)
    finally:
        gate.open()
        workers.stop()


async def test_a_flood_of_look_ups_is_refused_and_delays_neither_aliases_nor_detections(
    gate: Gate, blobs: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Engine = await blobs()
    monkeypatch.setattr(routes, "model_statuses", gate)
    async with client(engine, raise_errors=False) as api:
        asked = [asyncio.create_task(api.get("/v1/models")) for _ in range(MAX_LOOKUPS + 40)]
        await asyncio.to_thread(gate.entered.wait, 10)
        async with asyncio.timeout(10):
            while sum(one.done() for one in asked) < 40:
                await asyncio.sleep(0.001)
        refused = [one.result() for one in asked if one.done()]
        assert {one.status_code for one in refused} == {429}
        assert "look-ups in the model store" in refused[0].json()["detail"]
        assert refused[0].headers["retry-after"]
        (tmp_path / "blobs" / "aliases.json").write_text('{"production": "2"}')
        async with asyncio.timeout(10):
            assert await engine.aliases.refresh()
            answer = await engine.resolver.get("blobs")
        assert answer.detector.info.version == "2"
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        gate.open()
