"""Load on an engine, from within its own process: what HTTP would bring, without HTTP.

closed_loop: so many clients, each asks again as soon as it is answered -> images in a window
open_loop: Poisson arrivals at a rate; latency counts from when a request was due, so that a stall is charged
for all who would have come meanwhile
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model_store.errors import BadRequest, Overloaded

WARM_SHARE = 0.2
"""Of a closed loop, before its window begins."""
PATIENCE_S = 5.0
"""For the first answer of a closed loop, and after the last arrival of an open one: what has no answer by then
has none."""

Ask = Callable[[bytes], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Seen:
    """`latencies_ms` in the order of the answers; cpu_s of this process, in the window."""

    seconds: float
    latencies_ms: tuple[float, ...]
    unanswered: int
    cpu_s: float


async def closed_loop(ask: Ask, bodies: Sequence[bytes], clients: int, seconds: float) -> Seen:
    """Answers within the window. Raises what `ask` raises, and BadRequest where there is no answer in it."""
    done: list[tuple[float, float]] = []
    turn = itertools.cycle(bodies)

    async def client() -> None:
        while True:
            began = time.perf_counter()
            await ask(next(turn))
            done.append((began, time.perf_counter()))

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    try:
        await _sleep_unless_failed(tasks, WARM_SHARE * seconds)
        opened, spent = time.perf_counter(), time.process_time()
        await _sleep_unless_failed(tasks, (1 - WARM_SHARE) * seconds)
        while not _inside(done, opened) and time.perf_counter() - opened < PATIENCE_S:
            await _sleep_unless_failed(tasks, seconds)  # a slow model: a longer window
        closed, cpu_s = time.perf_counter(), time.process_time() - spent
    finally:
        await _end(tasks)
    inside = _inside([(began, ended) for began, ended in done if ended <= closed], opened)
    if not inside:
        raise BadRequest(
            f"no image was answered in {closed - opened:.1f} s: measure longer, with --seconds"
        )
    latencies = tuple(round((ended - began) * 1e3, 2) for began, ended in inside)
    return Seen(closed - opened, latencies, 0, cpu_s)


async def open_loop(
    ask: Ask, bodies: Sequence[bytes], rate: float, seconds: float, seed: int = 0
) -> Seen:
    """All that was due in so many seconds. Raises what `ask` raises, but Overloaded, which is no answer."""
    random, turn = np.random.default_rng(seed), itertools.cycle(bodies)
    latencies: list[float] = []

    async def one(due: float, body: bytes) -> None:
        with contextlib.suppress(Overloaded):
            await ask(body)
            latencies.append(round((time.perf_counter() - due) * 1e3, 2))

    tasks: list[asyncio.Task[None]] = []
    began, spent = time.perf_counter(), time.process_time()
    due = began + float(random.exponential(1 / rate))
    try:
        while due < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(due, next(turn))))
            due += float(random.exponential(1 / rate))
        if tasks:
            ended, _ = await asyncio.wait(tasks, timeout=PATIENCE_S)
            for task in ended:
                task.result()
    finally:
        await _end(tasks)
    cpu_s = time.process_time() - spent
    unanswered = len(tasks) - len(latencies)
    return Seen(time.perf_counter() - began, tuple(latencies), unanswered, cpu_s)


def _inside(done: Sequence[tuple[float, float]], opened: float) -> list[tuple[float, float]]:
    return [(began, ended) for began, ended in done if ended > opened]


async def _sleep_unless_failed(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Clients end by an error only."""
    failed, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in failed:
        task.result()


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
