"""Batch items in two lanes with late binding: a batch is filled when a worker is free to run it.

submit(key, items, lane) -> futures; worker thread: wait -> choose lane -> fill a batch of one key -> run

On a GPU, workers serve both lanes, online first. Bulk gets `bulk_share` of the batches while both have work. Free
places of an online batch are filled with bulk items of the same key. On CPUs the lanes have separate workers
(`separate`), and those of bulk have a lower priority (`os_priority.py`), so the system interrupts a running bulk batch.

Items that are cancelled or past their deadline are dropped before they are run, and a bad item fails without its batch.
Ray's own batcher binds early and has no lanes (docs/decisions/0003).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from model_store.config import Batch
from model_store.errors import SOON_S, DeadlinePassed, ModelNotReady, Overloaded
from serve.inference.os_priority import lower_thread_priority

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Ticket(Generic[T, R]):
    """A waiting item. The result of its future is (result, queue_ms)."""

    item: T
    size_bytes: int = 0
    deadline_s: float | None = None
    future: Future[tuple[R, float]] = field(default_factory=Future)
    enqueued_s: float = field(default_factory=time.perf_counter)

    def fail(self, error: BaseException) -> None:
        """End the future with an error, unless it was cancelled."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def is_due(self) -> bool:
        """Return whether to run the item: not cancelled, and not past its deadline, in which case it is failed."""
        if not self.future.set_running_or_notify_cancel():
            return False
        if self.deadline_s is None or time.perf_counter() <= self.deadline_s:
            return True
        waited_ms = (time.perf_counter() - self.enqueued_s) * 1e3
        self.fail(DeadlinePassed(f"the deadline passed after {waited_ms:.0f} ms in the queue"))
        return False


class FairQueue(Generic[K, T, R]):
    """Waiting tickets of one lane by key, and the choice of the next key. Not thread-safe: its owner must hold a lock.

    Keys share the workers' time, not the number of batches. Each key is charged the seconds of its batches, and the
    one with the lowest charge is next (start-time fair queueing). A key that returns starts level with the others.
    A slow model cannot starve a fast one, and vice versa.
    """

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
        """Return whether any key except these is waiting."""
        return any(key not in keys for key in self._by_key)

    def next_key(self, excluding: Collection[K] = ()) -> K:
        """Return the waiting key with the lowest charge, except `excluding`. Raises ValueError if there is none."""
        waiting = (key for key in self._by_key if key not in excluding)
        key = min(waiting, key=self._charged_s.__getitem__)
        self._level_s = max(self._level_s, self._charged_s[key])
        return key

    def charge(self, key: K, seconds: float) -> None:
        """Charge a key for a batch that took `seconds`."""
        self._charged_s[key] = self._charged_s.get(key, self._level_s) + seconds
        if len(self._charged_s) > 2 * len(self._by_key) + 64:  # drop charges of unused keys
            ahead = {k: s for k, s in self._charged_s.items() if s > self._level_s}
            self._charged_s = ahead | {k: self._charged_s[k] for k in self._by_key}

    def take(self, key: K, max_items: int) -> list[Ticket[T, R]]:
        """Remove and return up to `max_items` tickets of a key, oldest first. Tickets that are not due are dropped."""
        waiting = self._by_key.get(key)
        taken: list[Ticket[T, R]] = []
        while waiting and len(taken) < max_items:
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

    def latest_item(self, key: K) -> T:
        return self._by_key[key][-1].item

    def oldest_s(self, key: K) -> float:
        """Return when the oldest ticket of a key was queued, as time.perf_counter."""
        return self._by_key[key][0].enqueued_s

    def drain(self) -> list[Ticket[T, R]]:
        return [ticket for key in list(self._by_key) for ticket in self.take(key, self.size)]


SHUTTING_DOWN = "this replica is shutting down; send the request again"


class Lane(Enum):
    """Online items are live requests; bulk items are runs and shadows."""

    ONLINE = "online"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class LaneBound:
    """Bound on the items that wait in a lane. An empty lane accepts one submission of any size."""

    items: int
    size_bytes: int


class Batcher(Generic[K, T, R]):
    """Worker threads that run batches of two lanes.

    run(key, items)       returns one result per item; called in `workers` threads, or as many per lane if `separate`
    batch_of(key, newest) returns the limits of a batch, given the newest waiting item
    ran(key, count)       is called after each batch with the number of items that have a result, if any
    """

    def __init__(
        self,
        run: Callable[[K, Sequence[T]], Sequence[R]],
        batch_of: Callable[[K, T], Batch],
        workers: int,
        bulk_share: float,
        bounds: Mapping[Lane, LaneBound],
        bytes_of: Callable[[T], int] = lambda item: 0,
        ran: Callable[[K, int], None] = lambda key, size: None,
        separate: bool = False,
    ) -> None:
        self._run, self._batch_of, self._bytes_of, self._ran = run, batch_of, bytes_of, ran
        self._workers, self._bulk_share, self._bounds = workers, bulk_share, bounds
        self._queues: dict[Lane, FairQueue[K, T, R]] = {lane: FairQueue() for lane in Lane}
        self._lock = threading.Lock()
        shared = threading.Condition(self._lock)
        self._changed = {lane: threading.Condition(self._lock) if separate else shared for lane in Lane}
        self._lingering: dict[Lane, set[K]] = {lane: set() for lane in Lane}
        self._bulk_credit = 0.0
        self._seconds_per_item = 0.05  # a guess until the first batch has run
        self._closed = False
        groups = [[Lane.ONLINE], [Lane.BULK]] if separate else [list(Lane)]
        self._threads = [
            threading.Thread(
                target=self._work, args=(lanes,), name=f"{'-'.join(lane.value for lane in lanes)}-{i}", daemon=True
            )
            for lanes in groups
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, key: K, items: Sequence[T], lane: Lane, deadline_s: float | None = None
    ) -> list[Future[tuple[R, float]]]:
        """Queue items and return a future of (result, ms in the queue) for each; `deadline_s` as time.perf_counter.

        Raises Overloaded if the lane is full, and ModelNotReady if the lanes are closed. A future ends with
        DeadlinePassed if its deadline passes in the queue.
        """
        tickets: list[Ticket[T, R]] = [Ticket(item, self._bytes_of(item), deadline_s) for item in items]
        size_bytes = sum(ticket.size_bytes for ticket in tickets)
        with self._lock:
            if self._closed:
                raise ModelNotReady(SHUTTING_DOWN, SOON_S)
            self._require_room(lane, len(tickets), size_bytes)
            for ticket in tickets:
                self._queues[lane].push(key, ticket)
            self._wake(lane, min(len(tickets), self._workers))
        return [ticket.future for ticket in tickets]

    def depth(self, lane: Lane) -> int:
        return self._queues[lane].size

    def wait_s(self, lane: Lane) -> float:
        """Return an estimate of the seconds that a new item would wait, at least 1."""
        return max(1.0, self._queues[lane].size * self._seconds_per_item / self._workers)

    def close(self) -> None:
        """Reject new items, fail the waiting ones, and wait up to 30 s for running batches."""
        with self._lock:
            self._closed = True
            waiting = [ticket for queue in self._queues.values() for ticket in queue.drain()]
            for changed in self._changed.values():
                changed.notify_all()
        for ticket in waiting:
            ticket.fail(ModelNotReady(SHUTTING_DOWN, SOON_S))
        for thread in self._threads:
            thread.join(timeout=30)

    def _require_room(self, lane: Lane, items: int, size_bytes: int) -> None:
        queue, bound = self._queues[lane], self._bounds[lane]
        too_many = queue.size + items > bound.items
        if queue.size and (too_many or queue.size_bytes + size_bytes > bound.size_bytes):
            raise Overloaded(
                f"{queue.size} images ({queue.size_bytes >> 20} MiB) wait in the {lane.value} lane, "
                f"the bound is {bound.items} images or {bound.size_bytes >> 20} MiB",
                self.wait_s(lane),
            )

    def _work(self, lanes: Sequence[Lane]) -> None:
        if lanes == [Lane.BULK]:
            lower_thread_priority(self._bulk_share)
        changed = self._changed[lanes[0]]
        while True:
            with self._lock:
                while not self._closed and not any(map(self._has_work, lanes)):
                    changed.wait()
                if self._closed:
                    return
                lane, key, tickets = self._next_batch(lanes)
            if tickets:
                self._answer(lane, key, tickets)
            del tickets  # keep no item alive while waiting

    def _next_batch(self, lanes: Sequence[Lane]) -> tuple[Lane, K, list[Ticket[T, R]]]:
        """Choose a key and fill a batch. Call it with the lock held and at least one item waiting."""
        lane = self._choose_lane() if len(lanes) > 1 else lanes[0]
        key = self._queues[lane].next_key(excluding=self._lingering[lane])
        try:
            batch = self._batch_of(key, self._queues[lane].latest_item(key))
        except Exception as error:  # an error of one key must not stop the worker
            for ticket in self._queues[lane].take(key, self._queues[lane].size):
                ticket.fail(error)
            return lane, key, []
        self._linger(lane, key, batch)
        tickets = self._queues[lane].take(key, batch.max)
        if lane is Lane.ONLINE and Lane.BULK in lanes:
            tickets += self._queues[Lane.BULK].take(key, batch.max - len(tickets))
        return lane, key, tickets

    def _has_work(self, lane: Lane) -> bool:
        return self._queues[lane].has_other_than(self._lingering[lane])

    def _choose_lane(self) -> Lane:
        online, bulk = self._has_work(Lane.ONLINE), self._has_work(Lane.BULK)
        if not (online and bulk):
            return Lane.ONLINE if online else Lane.BULK
        self._bulk_credit += self._bulk_share
        if self._bulk_credit < 1.0:
            return Lane.ONLINE
        self._bulk_credit -= 1.0
        return Lane.BULK

    def _linger(self, lane: Lane, key: K, batch: Batch) -> None:
        """Wait until the batch is full or its oldest item has waited `wait_ms`. No other worker takes the key."""
        queue = self._queues[lane]
        self._lingering[lane].add(key)
        while batch.wait_ms and 0 < queue.waiting(key) < batch.max and not self._closed:
            left_s = queue.oldest_s(key) + batch.wait_ms / 1e3 - time.perf_counter()
            if left_s <= 0:
                break
            self._changed[lane].wait(left_s)
        self._lingering[lane].discard(key)
        if queue.waiting(key) > batch.max:
            self._wake(lane, 1)

    def _wake(self, lane: Lane, workers: int) -> None:
        """Wake workers for a lane, and all that linger: these may wake first, without work, and wait again."""
        self._changed[lane].notify(workers + sum(map(len, self._lingering.values())))

    def _answer(self, lane: Lane, key: K, tickets: list[Ticket[T, R]]) -> None:
        started = time.perf_counter()
        outcomes = outcomes_of(self._run, key, [ticket.item for ticket in tickets])
        elapsed = time.perf_counter() - started
        with self._lock:
            self._queues[lane].charge(key, elapsed)
        if done := sum(not isinstance(outcome, BaseException) for outcome in outcomes):
            self._seconds_per_item += 0.1 * (elapsed / len(tickets) - self._seconds_per_item)
            self._ran(key, done)
        _deliver(tickets, outcomes, started)
        del tickets, outcomes  # an error's traceback holds this frame, which would hold the error


def outcomes_of(
    run: Callable[[K, Sequence[T]], Sequence[R]], key: K, items: Sequence[T]
) -> Sequence[R | BaseException]:
    """Return the results of a batch. If it fails, run each item alone, so that only the bad one fails."""
    try:
        results = run(key, items)
        if len(results) != len(items):
            raise RuntimeError(f"{len(items)} images in, {len(results)} results out")
        return results
    except Exception as error:
        if len(items) == 1:
            return [error]
        return [outcomes_of(run, key, [item])[0] for item in items]


def _deliver(tickets: Sequence[Ticket[T, R]], outcomes: Sequence[R | BaseException], started_s: float) -> None:
    for ticket, outcome in zip(tickets, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            ticket.fail(outcome)
        else:
            ticket.future.set_result((outcome, (started_s - ticket.enqueued_s) * 1e3))
