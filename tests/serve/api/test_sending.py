"""Answers that nobody reads: bounded in memory, in places and in time, on a real server too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_store.adding.add import add_version
from model_store.names import version_id
from model_store.store import ModelStore
from serve.api.limits import PIECE_BYTES, PacedAnswers
from serve.inference.engine import Engine
from serve.settings import DetectArgs, Limits
from tests.graphs import constant_graph
from tests.serve.api.v2.server import labelled
from tests.serve.hostile import PLACES, TIMEOUT_S, Live, rest, serving, unread

MIB = 1 << 20
LARGE = 64 * MIB
ROWS = 3
SIDE = 64


class Reader:
    """The server's end of a connection: it takes messages until `stops` bytes lie in its buffer."""

    def __init__(self, stops: float = float("inf")) -> None:
        self.status, self.taken, self.ended, self._stops = 0, 0, False, stops
        self.headers: dict[str, str] = {}
        self._reads, self.arrived = asyncio.Event(), asyncio.Event()

    async def send(self, message: Message) -> None:
        if self.taken >= self._stops:
            await self._reads.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        self.taken += len(message.get("body", b""))
        self.ended = not message.get("more_body", False)
        self.arrived.set()

    def read_on(self) -> None:
        self._reads.set()

    def asks(self, app: ASGIApp, path: str = "/large") -> asyncio.Task[None]:
        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        scope: Scope = {"type": "http", "path": path, "method": "GET", "headers": []}
        return asyncio.create_task(app(scope, receive, self.send))  # type: ignore[arg-type]


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the number of bytes in the path; /large is LARGE."""
    size = LARGE if scope["path"] == "/large" else int(scope["path"][1:])
    await Response(b"x" * size)(scope, receive, send)


@pytest.mark.parametrize("size", [0, PIECE_BYTES, PIECE_BYTES + 1, 5 * MIB + 7])
async def test_an_answer_arrives_whole(size: int) -> None:
    reader = Reader()
    await reader.asks(PacedAnswers(answers, LARGE, 60), f"/{size}")
    assert (reader.status, reader.taken, reader.ended) == (200, size, True)
    assert reader.headers["content-length"] == str(size)


async def test_no_piece_is_sent_before_the_last_one_was_taken() -> None:
    reader = Reader(stops=MIB)
    task = reader.asks(PacedAnswers(answers, LARGE, 60))
    await reader.arrived.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert reader.taken <= MIB + PIECE_BYTES
    assert not task.done()
    reader.read_on()
    await task
    assert (reader.taken, reader.ended) == (LARGE, True)


async def test_answers_over_the_bound_are_refused_and_small_ones_are_not() -> None:
    sending = PacedAnswers(answers, 2 * LARGE, 60)
    slow = [Reader(stops=1) for _ in range(2)]
    tasks = [reader.asks(sending) for reader in slow]
    for reader in slow:
        await reader.arrived.wait()
    refused, small = Reader(), Reader()
    await refused.asks(sending)
    await small.asks(sending, f"/{PIECE_BYTES}")
    assert (refused.status, small.status) == (429, 200)
    assert refused.ended
    assert refused.headers["retry-after"]
    assert refused.taken < 1000
    slow[0].read_on()
    await tasks[0]
    again = Reader()
    await again.asks(sending)
    assert (again.status, again.taken) == (200, LARGE)
    tasks[1].cancel()  # it hangs up
    await asyncio.wait(tasks)
    assert sending._under_way == 0


@pytest.mark.parametrize("path", ["/large", f"/{PIECE_BYTES}"])
async def test_an_answer_that_nobody_reads_is_cut_at_its_deadline(path: str) -> None:
    """Also a small one, behind another that fills the connection."""
    sending, reader = PacedAnswers(answers, LARGE, 0.05), Reader(stops=1 if path == "/large" else 0)
    await reader.asks(sending, path)
    assert not reader.ended
    assert sending._under_way == 0


@pytest.mark.parametrize("others", [0, LARGE])
async def test_an_answer_in_pieces_ends_where_one_is_not_read_or_has_no_room(others: int) -> None:
    """Its application, which may have more of them, does not continue."""
    made = 0

    async def pieces(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal made
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            made += 1
            await send({"type": "http.response.body", "body": b"x" * made * PIECE_BYTES, "more_body": True})

    sending, reader = PacedAnswers(pieces, LARGE, 0.05), Reader(stops=LARGE if others else PIECE_BYTES)
    sending._under_way = others
    await reader.asks(sending)
    assert (reader.status, reader.ended, made) == (200, False, 2)
    assert sending._under_way == others


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """With a model whose raw outputs are 4 MB an image."""
    place = tmp_path_factory.mktemp("unread")
    outputs = {
        name: np.pad(values, [(0, 0), (0, 499 * values.shape[1]), *[(0, 0)] * (values.ndim - 2)])
        for name, values in labelled(ROWS + 1).items()
    }
    weights = constant_graph(outputs, SIDE, {"names": "['deer', 'fox', 'hare']"})
    store = ModelStore(str(place))
    add_version(store, version_id("large", "1"), weights, {}, {})
    store.set_alias("large", "production", "1")
    return store


def tensor_request() -> bytes:
    data = np.zeros((ROWS, 3, SIDE, SIDE), "<f4").tobytes()
    text = (
        f'{{"parameters": {{"binary_data_output": true}}, "inputs": [{{"name": "images", '
        f'"shape": [{ROWS}, 3, {SIDE}, {SIDE}], "datatype": "FP32", '
        f'"parameters": {{"binary_data_size": {len(data)}}}}}]}}'
    ).encode()
    head = (
        "POST /v2/models/large/infer HTTP/1.1\r\nhost: x\r\n"
        f"inference-header-content-length: {len(text)}\r\ncontent-length: {len(text) + len(data)}\r\n\r\n"
    )
    return head.encode() + text + data


def live_over(store: ModelStore, **limits: Any) -> Iterator[Live]:
    given = Limits.model_validate({"online_queue": PLACES, **limits})
    engine = Engine(DetectArgs(models=store.url, workers=1, limits=given))
    asyncio.run(engine.aliases.refresh())
    try:
        yield from serving(engine)
    finally:
        engine.stop()


def test_raw_outputs_hold_their_places_until_they_are_read(store: ModelStore) -> None:
    for live in live_over(store):
        with unread(live.port, tensor_request()) as connection:
            assert live.free() == PLACES - ROWS
            connection.recv(MIB)
            assert live.free() == PLACES - ROWS
            while live.free() < PLACES:
                assert connection.recv(MIB)
        with unread(live.port, tensor_request()):
            assert live.free() == PLACES - ROWS
        live.becomes_free(PLACES)  # it has hung up


def test_raw_outputs_that_nobody_reads_give_up_their_places(store: ModelStore) -> None:
    for live in live_over(store, answer_s=1):
        with unread(live.port, tensor_request()) as connection:
            live.becomes_free(PLACES)
            whole = httpx2.get(f"http://127.0.0.1:{live.port}/healthz", timeout=TIMEOUT_S)
            assert whole.status_code == 200
            assert rest(connection) > 0  # and then it is closed


async def test_one_answer_is_sent_whatever_its_size() -> None:
    reader = Reader()
    await reader.asks(PacedAnswers(answers, 1, 60))
    assert (reader.status, reader.taken) == (200, LARGE)
