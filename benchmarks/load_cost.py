"""Compare the CPU time of HTTP clients, to choose the one for load generators.

python benchmarks/load_cost.py
An idle server answers a 164 KB JPEG with 3 KB of JSON after 20 ms; 4 clients send 2,000 requests. Each kind of client
runs twice, in a separate process, in turn. Compare the lowest CPU time of each kind, as other load only adds to it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import urlsplit

from harness import PHOTO, arguments_of, facts, keep, table

from benchmarks.raw_http import Pool, request_bytes

ROW = b'{"label":"x","class_id":1,"score":0.5,"box_xyxy_px":[1,2,3,4]},'
JSON = b'{"model":{"name":"m","version":"1"},"detections":[' + ROW * 40 + b"{}]}"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(JSON), JSON)
CLIENTS, THINK_S = 4, 0.02
Asking = Callable[[], Awaitable[object]]


def main() -> None:
    arguments = arguments_of(__doc__)
    count = 300 if arguments.quick else 2000
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    server = context.Process(target=serve, args=(told,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{told.get()}"
    best: dict[str, float] = {}
    for _ in range(2):
        for kind in KINDS:
            client = context.Process(target=measure, args=(kind, url, count, told))
            client.start()
            best[kind] = min(best.get(kind, 1e9), told.get(timeout=300))
            client.join()
    server.terminate()
    table([{"client": kind, "cpu_ms_per_request": ms} for kind, ms in best.items()])
    keep(facts("load_cost", vars(arguments) | {"requests": count}) | {"cpu_ms_per_request": best})


def measure(kind: str, url: str, count: int, told: Any) -> None:
    body = PHOTO.read_bytes()
    KINDS[kind](url, body, 20)  # imports, first connections
    cpu_s = time.process_time()
    KINDS[kind](url, body, count)
    told.put(round((time.process_time() - cpu_s) / count * 1e3, 3))


async def clients(ask: Asking, count: int) -> None:
    left = iter(range(count))

    async def one() -> None:
        for _ in left:
            await ask()

    await asyncio.gather(*(one() for _ in range(CLIENTS)))


async def _raw(url: str, body: bytes, count: int) -> None:
    pool, request = Pool(url), request_bytes(url, "/v1/detect", body)

    async def ask() -> None:
        async with pool.take() as connection:
            await connection.ask(request)

    await clients(ask, count)


def raw_uvloop(url: str, body: bytes, count: int) -> None:
    import uvloop

    uvloop.run(_raw(url, body, count))


def raw_asyncio(url: str, body: bytes, count: int) -> None:
    asyncio.run(_raw(url, body, count))


def threads(url: str, body: bytes, count: int) -> None:
    """Use http.client of the standard library: blocking sockets and a parser."""
    import http.client

    left, place = iter(range(count)), urlsplit(url).netloc
    turn = threading.Lock()

    def one() -> None:
        connection = http.client.HTTPConnection(place)
        while True:
            with turn:
                if next(left, None) is None:
                    return
            connection.request("POST", "/v1/detect", body)
            connection.getresponse().read()

    several = [threading.Thread(target=one) for _ in range(CLIENTS)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()


def aiohttp(url: str, body: bytes, count: int) -> None:
    from aiohttp import ClientSession

    async def run() -> None:
        async with ClientSession() as session:

            async def ask() -> None:
                async with session.post(f"{url}/v1/detect", data=body) as answer:
                    await answer.read()

            await clients(ask, count)

    asyncio.run(run())


def httpx2(url: str, body: bytes, count: int) -> None:
    from httpx2 import AsyncClient

    async def run() -> None:
        async with AsyncClient() as session:
            await clients(lambda: session.post(f"{url}/v1/detect", content=body), count)

    asyncio.run(run())


KINDS: dict[str, Callable[[str, bytes, int], None]] = {
    f.__name__: f for f in (raw_uvloop, raw_asyncio, threads, aiohttp, httpx2)
}


class Nothing(asyncio.Protocol):
    """A server that reads a request by its length and answers later."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._missing = cast(asyncio.Transport, transport), 0

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            head, _, rest = data.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._missing, data = int(length), rest
        self._missing -= len(data)
        if self._missing == 0:
            asyncio.get_running_loop().call_later(THINK_S, self._transport.write, ANSWER)


def serve(told: Any) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Nothing, "127.0.0.1", 0)
        told.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    main()
