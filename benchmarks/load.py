"""Generate load in a separate process, so that requests do not delay measurements or promotions.

Load(url, path, body, clients=8, seconds=10).run() -> Records      closed loop: a request at a time per client
Load(url, path, body, rate=40).start() -> Running; .stop() -> Records      open loop: Poisson arrivals

In the open loop, latency is measured from the time at which a request was due, not from when it could be sent. A server
that stalls therefore delays all requests due during the stall (no coordinated omission). In the closed loop, clients
wait for their responses, which hides stalls: use it for throughput, and the open loop for latency.

Requests use raw sockets on uvloop (`raw_http.py`), the cheapest client in `load_cost.py`. They are never repeated: a
broken connection is a failure with status 0.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.raw_http import Pool, request_bytes
from benchmarks.records import COLUMNS, Records

VERSION = re.compile(rb'"(?:model_)?version": ?"([^"]+)"')


@dataclass(frozen=True)
class Load:
    """The request, its rate and its duration: until `seconds` or `count`, the first of both; 0 means unlimited."""

    url: str
    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    clients: int = 0
    rate: float = 0.0
    seconds: float = 0.0
    count: int = 0
    timeout_s: float = 60.0
    seed: int = 0

    def start(self) -> Running:
        """Start the load; return when it has begun."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        stopped = context.Event()
        process = context.Process(target=_work, args=(self, theirs, stopped), daemon=True)
        process.start()
        theirs.close()
        ours.recv()
        return Running(process, ours, stopped)

    def run(self) -> Records:
        return self.start().wait()


@dataclass
class Running:
    process: Any
    pipe: Connection
    stopped: Any

    def stop(self) -> Records:
        """Send no more requests, and wait for the pending ones."""
        self.stopped.set()
        return self.wait()

    def wait(self) -> Records:
        records: Records = self.pipe.recv()
        self.process.join()
        return records


def _work(load: Load, pipe: Connection, stopped: Any) -> None:
    os.setsid()  # Linux may schedule processors by session: other load must not delay this process
    with suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    generator = Generator(load, stopped)
    pipe.send("ready")
    cpu_s = time.process_time()
    asyncio.run(generator.run())
    columns = list(zip(*generator.rows, strict=True)) or [()] * len(COLUMNS)
    kinds = (float, float, float, int, str, int, int)
    arrays: list[Any] = [np.array(c, k) for c, k in zip(columns, kinds, strict=True)]
    pipe.send(Records(*arrays, cpu_s=time.process_time() - cpu_s))


class Generator:
    """The load generator in its process."""

    def __init__(self, load: Load, stopped: Any) -> None:
        self._load, self._stopped = load, stopped
        self._pool = Pool(load.url)
        self._bytes = request_bytes(load.url, load.path, load.body, load.headers)
        self._begun, self._began_s, self._over = 0, time.perf_counter(), False
        self.rows: list[tuple[float, float, float, int, str, int, int]] = []

    async def run(self) -> None:
        looking = asyncio.create_task(self._look())
        if self._load.rate:
            await self._open_loop()
        else:
            await asyncio.gather(*(self._client() for _ in range(self._load.clients)))
        looking.cancel()

    async def _look(self) -> None:
        while not self._over:
            self._over = self._stopped.is_set()
            await asyncio.sleep(0.05)

    def _more(self) -> bool:
        load = self._load
        if self._over or (load.count and self._begun >= load.count):
            return False
        return not load.seconds or time.perf_counter() - self._began_s < load.seconds

    async def _client(self) -> None:
        while self._more():
            await self._ask(time.perf_counter())

    async def _open_loop(self) -> None:
        random = np.random.default_rng(self._load.seed)
        asked: set[asyncio.Task[None]] = set()
        due_s = time.perf_counter()
        while True:
            due_s += float(random.exponential(1 / self._load.rate))
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            if not self._more():
                break
            task = asyncio.create_task(self._ask(due_s))
            asked.add(task)
            task.add_done_callback(asked.discard)
        await asyncio.gather(*asked)

    async def _ask(self, due_s: float) -> None:
        self._begun += 1
        sent_s = time.perf_counter()
        status, body = 0, b""
        try:
            async with asyncio.timeout(self._load.timeout_s), self._pool.take() as connection:
                sent_s = time.perf_counter()
                status, body = await connection.ask(self._bytes)
        except (OSError, TimeoutError, ValueError):
            status = 0
        self.rows.append((due_s, sent_s, time.perf_counter(), status, *answer_of(body)))


def answer_of(body: bytes) -> tuple[str, int, int]:
    """Return version, number of detections and digest of the detections in a response, without parsing JSON."""
    version = VERSION.search(body)
    _, _, found = body.partition(b'"detections":')
    found = found.partition(b'"saturated"')[0]
    return version[1].decode() if version else "", found.count(b'"class_id"'), zlib.crc32(found)
