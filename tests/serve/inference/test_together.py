"""Futures of threads, waited for together on an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from serve.inference.workers import gather_futures


async def test_results_and_errors_come_in_order_whichever_ends_first() -> None:
    futures: list[Future[int]] = [Future() for _ in range(4)]
    waiting = asyncio.create_task(gather_futures(futures))
    await asyncio.sleep(0)
    for i in (3, 1, 0):
        futures[i].set_result(i)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    futures[2].set_exception(ValueError("third"))
    first, second, third, fourth = await waiting
    assert (first, second, fourth) == (0, 1, 3)
    assert isinstance(third, ValueError)


async def test_nothing_and_what_has_ended_already() -> None:
    done: Future[str] = Future()
    done.set_result("there")
    assert await gather_futures([]) == []
    assert await gather_futures([done]) == ["there"]


async def test_the_loop_is_woken_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, woken = asyncio.get_running_loop(), list[Callable[..., Any]]()
    wake = loop.call_soon_threadsafe

    def counted(callback: Callable[..., Any], *arguments: Any) -> Any:
        woken.append(callback)
        return wake(callback, *arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    futures: list[Future[int]] = [Future() for _ in range(500)]
    waiting = asyncio.create_task(gather_futures(futures))
    await asyncio.sleep(0)
    with ThreadPoolExecutor(8) as pool:
        for i, future in enumerate(futures):
            pool.submit(future.set_result, i)
    assert await waiting == list(range(500))
    assert len(woken) == 1


async def test_who_is_cancelled_cancels_what_has_not_begun() -> None:
    begun, waits = Future[int](), Future[int]()
    begun.set_running_or_notify_cancel()
    waiting = asyncio.create_task(gather_futures([begun, waits]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert waits.cancelled()
    assert begun.running()


def test_a_loop_that_is_gone_is_no_error_of_the_worker() -> None:
    future: Future[int] = Future()

    async def leave() -> None:
        asyncio.get_running_loop().create_task(gather_futures([future]))
        await asyncio.sleep(0)

    asyncio.run(leave())
    worker = threading.Thread(target=lambda: future.cancelled() or future.set_result(1))
    worker.start()
    worker.join()
    time.sleep(0)
    assert future.done()
