"""An iterator that can be waited for with patience: items as they come, and None while none does.

The iterator is drained by a thread of its own, a few items ahead, so that the consumer can commit meanwhile,
or decide that it has waited long enough.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

AHEAD = 4
T = TypeVar("T")


def arrivals(items: Iterable[T], tick_s: float) -> Generator[T | None]:
    """Items in their order; None after every `tick_s` without one. Raises what the iterator raises.

    The thread ends with the iterator, or, when this one is closed, after the next item.
    """
    arrived: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(AHEAD)
    left = threading.Event()

    def drain() -> None:
        try:
            for item in items:
                _put(arrived, ("item", item), left)
                if left.is_set():
                    return
            _put(arrived, ("end", None), left)
        except BaseException as error:
            _put(arrived, ("error", error), left)

    threading.Thread(target=drain, name="arrivals", daemon=True).start()
    try:
        while True:
            try:
                kind, value = arrived.get(timeout=tick_s)
            except queue.Empty:
                yield None
                continue
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]  # an item
    finally:
        left.set()


def _put(arrived: queue.Queue[T], item: T, left: threading.Event) -> None:
    while not left.is_set():
        try:
            arrived.put(item, timeout=0.2)
            return
        except queue.Full:
            continue
