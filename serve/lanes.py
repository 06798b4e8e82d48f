"""The late-binding two-lane batcher: nothing is bound to a batch before a worker is free to run it.

submit(key, items, lane) -> futures; worker thread: wait -> choose lane -> fill a batch of one key -> run
Online goes first; while both lanes wait, bulk still gets `bulk_share` of the batches; free places of
an online batch are filled with bulk items of the same key; keys of one lane take turns. Cancelled
items are dropped; an item that fails alone fails alone. (Ray's own batcher binds early and knows no
lanes: docs/decisions/0003.)
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from model_store.config import Batch
from model_store.errors import ModelNotReady, Overloaded

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")


class Lane(Enum):
    ONLINE = "online"
    BULK = "bulk"


@dataclass(slots=True)
class Ticket(Generic[T, R]):
    """One item waiting. The future ends with (result, queue_ms)."""

    item: T
    future: Future[tuple[R, float]] = field(default_factory=Future)
    enqueued_s: float = field(default_factory=time.perf_counter)


class _Queue(Generic[K, T, R]):
    """Tickets of one lane, by key; keys take turns."""

    def __init__(self) -> None:
        self.by_key: OrderedDict[K, deque[Ticket[T, R]]] = OrderedDict()
        self.size = 0

    def push(self, key: K, ticket: Ticket[T, R]) -> None:
        self.by_key.setdefault(key, deque()).append(ticket)
        self.size += 1

    def next_key(self) -> K:
        return next(iter(self.by_key))

    def take(self, key: K, most: int) -> list[Ticket[T, R]]:
        """Up to `most` live tickets of a key, oldest first; the key then waits its next turn."""
        waiting = self.by_key.get(key)
        taken: list[Ticket[T, R]] = []
        while waiting and len(taken) < most:
            ticket = waiting.popleft()
            self.size -= 1
            if ticket.future.set_running_or_notify_cancel():
                taken.append(ticket)
        if waiting:
            self.by_key.move_to_end(key)
        else:
            self.by_key.pop(key, None)
        return taken


class Lanes(Generic[K, T, R]):
    """`run(key, items)` is called in `workers` threads and returns one result per item."""

    def __init__(
        self,
        run: Callable[[K, Sequence[T]], Sequence[R]],
        batch_of: Callable[[K], Batch],
        workers: int,
        bulk_share: float,
        limits: dict[Lane, int],
    ) -> None:
        self._run, self._batch_of = run, batch_of
        self._workers, self._bulk_share, self._limits = workers, bulk_share, limits
        self._queues: dict[Lane, _Queue[K, T, R]] = {lane: _Queue() for lane in Lane}
        self._changed = threading.Condition()
        self._bulk_credit = 0.0
        self._seconds_per_item = 0.05  # a guess until the first batch has run
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"lane-worker-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, key: K, items: Sequence[T], lane: Lane) -> list[Future[tuple[R, float]]]:
        """Queue items. Raises Overloaded when the lane is over its bound, ModelNotReady when closed."""
        tickets: list[Ticket[T, R]] = [Ticket(item) for item in items]
        with self._changed:
            if self._closed:
                raise ModelNotReady("this replica is shutting down; ask again")
            queue = self._queues[lane]
            if queue.size and queue.size + len(tickets) > self._limits[lane]:
                raise Overloaded(
                    f"{queue.size} images wait in the {lane.value} lane, the bound is "
                    f"{self._limits[lane]}",
                    self.wait_s(lane),
                )
            for ticket in tickets:
                queue.push(key, ticket)
            self._changed.notify(min(len(tickets), self._workers))
        return [ticket.future for ticket in tickets]

    def depth(self, lane: Lane) -> int:
        """Items waiting."""
        return self._queues[lane].size

    def wait_s(self, lane: Lane) -> float:
        """About how long a new item of this lane would wait, in seconds, at least one."""
        return max(1.0, self._queues[lane].size * self._seconds_per_item / self._workers)

    def close(self) -> None:
        """Refuse new items, fail the waiting ones, let running batches finish."""
        with self._changed:
            self._closed = True
            waiting = [
                t for q in self._queues.values() for k in list(q.by_key) for t in q.take(k, q.size)
            ]
            self._changed.notify_all()
        for ticket in waiting:
            ticket.future.set_exception(ModelNotReady("this replica is shutting down; ask again"))
        for thread in self._threads:
            thread.join(timeout=30)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not any(q.size for q in self._queues.values()):
                    self._changed.wait()
                if self._closed:
                    return
                key, tickets = self._next_batch()
            if tickets:
                self._answer(key, tickets)

    def _next_batch(self) -> tuple[K, list[Ticket[T, R]]]:
        """Choose and fill a batch; called with the lock held and at least one item waiting."""
        lane = self._choose_lane()
        key = self._queues[lane].next_key()
        try:
            batch = self._batch_of(key)
        except Exception as error:  # its model was released meanwhile; the worker must go on
            for ticket in self._queues[lane].take(key, self._queues[lane].size):
                ticket.future.set_exception(error)
            return key, []
        self._linger(lane, key, batch)
        tickets = self._queues[lane].take(key, batch.max)
        if lane is Lane.ONLINE:
            tickets += self._queues[Lane.BULK].take(key, batch.max - len(tickets))
        return key, tickets

    def _choose_lane(self) -> Lane:
        online, bulk = self._queues[Lane.ONLINE].size, self._queues[Lane.BULK].size
        if not (online and bulk):
            return Lane.ONLINE if online else Lane.BULK
        self._bulk_credit += self._bulk_share
        if self._bulk_credit < 1.0:
            return Lane.ONLINE
        self._bulk_credit -= 1.0
        return Lane.BULK

    def _linger(self, lane: Lane, key: K, batch: Batch) -> None:
        """With wait_ms > 0, give an unfilled batch that long, counted from its oldest item."""
        queue = self._queues[lane].by_key.get(key)
        while batch.wait_ms and queue and len(queue) < batch.max and not self._closed:
            left_s = queue[0].enqueued_s + batch.wait_ms / 1e3 - time.perf_counter()
            if left_s <= 0 or not self._changed.wait(left_s):
                return
            queue = self._queues[lane].by_key.get(key)

    def _answer(self, key: K, tickets: list[Ticket[T, R]]) -> None:
        started = time.perf_counter()
        outcomes = self._outcomes(key, [ticket.item for ticket in tickets])
        elapsed = (time.perf_counter() - started) / len(tickets)
        self._seconds_per_item += 0.1 * (elapsed - self._seconds_per_item)
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                ticket.future.set_exception(outcome)
            else:
                ticket.future.set_result((outcome, (started - ticket.enqueued_s) * 1e3))

    def _outcomes(self, key: K, items: list[T]) -> Sequence[R | BaseException]:
        """Results of a batch; when it fails, each item alone, so that only the bad one fails."""
        try:
            results = self._run(key, items)
            if len(results) != len(items):
                raise RuntimeError(f"{len(items)} images in, {len(results)} results out")
            return results
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [self._outcomes(key, [item])[0] for item in items]
