"""What waits in one lane: tickets by key, and which key is next.

Keys share the workers' time, not their batches: each is charged the seconds its batches took, and the one
charged least goes next (start-time fair queueing: a key that has been away starts level with the others,
so that it can neither hoard nor lose). A slow model cannot starve a fast one, nor the other way round.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Hashable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from model_store.errors import DeadlinePassed

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Ticket(Generic[T, R]):
    """One item waiting. The future ends with (result, queue_ms)."""

    item: T
    size_bytes: int = 0
    deadline_s: float | None = None
    future: Future[tuple[R, float]] = field(default_factory=Future)
    enqueued_s: float = field(default_factory=time.perf_counter)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):  # cancelled meanwhile
            self.future.set_exception(error)

    def is_due(self) -> bool:
        """Whether it should still run: not cancelled, and not past its deadline (it is then failed)."""
        if not self.future.set_running_or_notify_cancel():
            return False
        if self.deadline_s is None or time.perf_counter() <= self.deadline_s:
            return True
        waited_ms = (time.perf_counter() - self.enqueued_s) * 1e3
        self.fail(DeadlinePassed(f"the deadline passed after {waited_ms:.0f} ms in the queue"))
        return False


class FairQueue(Generic[K, T, R]):
    """Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._by_key: dict[K, deque[Ticket[T, R]]] = {}
        self._charged_s: dict[K, float] = {}
        self._level_s = 0.0
        self.size = 0
        self.size_bytes = 0

    def push(self, key: K, ticket: Ticket[T, R]) -> None:
        if key not in self._by_key:
            self._by_key[key] = deque()
            self._charged_s[key] = max(self._charged_s.get(key, 0.0), self._level_s)
        self._by_key[key].append(ticket)
        self.size += 1
        self.size_bytes += ticket.size_bytes

    def has_other_than(self, keys: Collection[K]) -> bool:
        return any(key not in keys for key in self._by_key)

    def next_key(self, but: Collection[K] = ()) -> K:
        """The waiting key that has had the least time, but none of these. Raises ValueError when there is none."""
        waiting = (key for key in self._by_key if key not in but)
        key = min(waiting, key=self._charged_s.__getitem__)
        self._level_s = max(self._level_s, self._charged_s[key])
        return key

    def charge(self, key: K, seconds: float) -> None:
        """A batch of this key took so long."""
        self._charged_s[key] = self._charged_s.get(key, self._level_s) + seconds
        if len(self._charged_s) > 2 * len(self._by_key) + 64:  # keys come and go for ever
            kept = {k: s for k, s in self._charged_s.items() if s > self._level_s}
            self._charged_s = kept | {k: self._charged_s[k] for k in self._by_key}

    def take(self, key: K, most: int) -> list[Ticket[T, R]]:
        """Up to `most` tickets of a key that are to run, oldest first."""
        waiting = self._by_key.get(key)
        taken: list[Ticket[T, R]] = []
        while waiting and len(taken) < most:
            ticket = waiting.popleft()
            self.size -= 1
            self.size_bytes -= ticket.size_bytes
            if ticket.is_due():
                taken.append(ticket)
        if not waiting:
            self._by_key.pop(key, None)
        return taken

    def waiting(self, key: K) -> int:
        return len(self._by_key.get(key, ()))

    def newest(self, key: K) -> T:
        return self._by_key[key][-1].item

    def oldest_s(self, key: K) -> float:
        return self._by_key[key][0].enqueued_s

    def drain(self) -> list[Ticket[T, R]]:
        """All that wait, taken out."""
        return [ticket for key in list(self._by_key) for ticket in self.take(key, self.size)]
