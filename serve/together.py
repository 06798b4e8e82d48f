"""Many futures of worker threads waited for as one: the event loop is woken once, when the last has ended.

asyncio.wrap_future wakes it for each, which costs a run a fifth of a millisecond an image.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TypeVar

R = TypeVar("R")


async def all_ended(futures: Sequence[Future[R]]) -> list[R | BaseException]:
    """Results or errors, in order. Who is cancelled while waiting cancels them all."""
    loop = asyncio.get_running_loop()
    everything: asyncio.Future[None] = loop.create_future()
    ended = itertools.count(1)  # next() is one step of the interpreter: threads need no lock

    def finish() -> None:
        if not everything.done():
            everything.set_result(None)

    def one_ended(_: Future[R]) -> None:
        if next(ended) == len(futures):
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish)

    for future in futures:
        future.add_done_callback(one_ended)
    if not futures:
        return []
    try:
        await everything
    except asyncio.CancelledError:
        for future in futures:
            future.cancel()
        raise
    return [_outcome(future) for future in futures]


def _outcome(future: Future[R]) -> R | BaseException:
    if future.cancelled():
        return asyncio.CancelledError()
    error = future.exception()
    return future.result() if error is None else error
