"""The late-binding two-lane batcher: nothing is bound to a batch before a worker is free to run it.

submit(key, items, lane) -> futures; worker thread: wait -> choose lane -> fill a batch of one key -> run
On a GPU, workers take either lane: online first; while both wait, bulk still gets `bulk_share` of the batches;
free places of an online batch are filled with bulk items of the same key. On processors the lanes have workers
`apart`, and those of bulk give way (`priority.py`): a batch that runs is no obstacle, the system interrupts it.
Keys of a lane share the workers' time (`queues.py`).
Cancelled items and those past their deadline are dropped before they cost anything; an item that fails alone
fails alone. (Ray's own batcher binds early and knows no lanes: docs/decisions/0003.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from model_store.config import Batch
from model_store.errors import ModelNotReady, Overloaded
from serve.priority import give_way
from serve.queues import FairQueue, Ticket

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")


class Lane(Enum):
    ONLINE = "online"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class Bound:
    """What may wait in a lane. One submission is taken whatever its size, when nothing waits."""

    items: int
    size_bytes: int


class Lanes(Generic[K, T, R]):
    """`run(key, items)` is called in `workers` threads, of each lane where they are `apart`, and returns one
    result per item. `batch_of(key, newest item)` says how a batch is filled; `ran(key, items)` hears of each, and
    of how many of its items have a result, unless none has.
    """

    def __init__(
        self,
        run: Callable[[K, Sequence[T]], Sequence[R]],
        batch_of: Callable[[K, T], Batch],
        workers: int,
        bulk_share: float,
        bounds: Mapping[Lane, Bound],
        bytes_of: Callable[[T], int] = lambda item: 0,
        ran: Callable[[K, int], None] = lambda key, size: None,
        apart: bool = False,
    ) -> None:
        self._run, self._batch_of, self._bytes_of, self._ran = run, batch_of, bytes_of, ran
        self._workers, self._bulk_share, self._bounds = workers, bulk_share, bounds
        self._queues: dict[Lane, FairQueue[K, T, R]] = {lane: FairQueue() for lane in Lane}
        self._lock = threading.Lock()
        together = threading.Condition(self._lock)
        self._changed = {
            lane: threading.Condition(self._lock) if apart else together for lane in Lane
        }
        self._lingering: dict[Lane, set[K]] = {lane: set() for lane in Lane}
        self._bulk_credit = 0.0
        self._seconds_per_item = 0.05  # a guess until the first batch has run
        self._closed = False
        kinds = [[Lane.ONLINE], [Lane.BULK]] if apart else [list(Lane)]
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(lanes,),
                name=f"{'-'.join(lane.value for lane in lanes)}-{i}",
                daemon=True,
            )
            for lanes in kinds
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, key: K, items: Sequence[T], lane: Lane, deadline_s: float | None = None
    ) -> list[Future[tuple[R, float]]]:
        """Queue items; `deadline_s` on time.perf_counter's clock.

        Raises Overloaded when the lane is over its bound, ModelNotReady when closed. A future whose
        deadline passes in the queue ends with DeadlinePassed.
        """
        tickets: list[Ticket[T, R]] = [
            Ticket(item, self._bytes_of(item), deadline_s) for item in items
        ]
        size_bytes = sum(ticket.size_bytes for ticket in tickets)
        with self._lock:
            if self._closed:
                raise ModelNotReady("this replica is shutting down; ask again")
            self._require_room(lane, len(tickets), size_bytes)
            for ticket in tickets:
                self._queues[lane].push(key, ticket)
            lingering = len(self._lingering[lane])  # they may be woken for nothing, and wait on
            self._changed[lane].notify(min(len(tickets), self._workers) + lingering)
        return [ticket.future for ticket in tickets]

    def depth(self, lane: Lane) -> int:
        """Items waiting."""
        return self._queues[lane].size

    def wait_s(self, lane: Lane) -> float:
        """About how long a new item of this lane would wait, in seconds, at least one."""
        return max(1.0, self._queues[lane].size * self._seconds_per_item / self._workers)

    def close(self) -> None:
        """Refuse new items, fail the waiting ones, let running batches finish."""
        with self._lock:
            self._closed = True
            waiting = [ticket for queue in self._queues.values() for ticket in queue.drain()]
            for changed in self._changed.values():
                changed.notify_all()
        for ticket in waiting:
            ticket.fail(ModelNotReady("this replica is shutting down; ask again"))
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
            give_way(self._bulk_share)
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
            del tickets  # nothing is kept alive while there is nothing to do

    def _next_batch(self, lanes: Sequence[Lane]) -> tuple[Lane, K, list[Ticket[T, R]]]:
        """Choose and fill a batch; called with the lock held and at least one item waiting."""
        lane = self._choose_lane() if len(lanes) > 1 else lanes[0]
        key = self._queues[lane].next_key(but=self._lingering[lane])
        try:
            batch = self._batch_of(key, self._queues[lane].newest(key))
        except Exception as error:  # whatever is wrong with this key, the worker must go on
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
        """With wait_ms > 0, give an unfilled batch that long, counted from its oldest item; meanwhile the key is
        this worker's own.
        """
        queue = self._queues[lane]
        self._lingering[lane].add(key)
        while batch.wait_ms and 0 < queue.waiting(key) < batch.max and not self._closed:
            left_s = queue.oldest_s(key) + batch.wait_ms / 1e3 - time.perf_counter()
            if left_s <= 0:
                break
            self._changed[lane].wait(left_s)
        self._lingering[lane].discard(key)
        if queue.waiting(key) > batch.max:
            self._changed[lane].notify()

    def _answer(self, lane: Lane, key: K, tickets: list[Ticket[T, R]]) -> None:
        started = time.perf_counter()
        outcomes = self._outcomes(key, [ticket.item for ticket in tickets])
        elapsed = time.perf_counter() - started
        with self._lock:
            self._queues[lane].charge(key, elapsed)
        if done := sum(not isinstance(outcome, BaseException) for outcome in outcomes):
            self._seconds_per_item += 0.1 * (elapsed / len(tickets) - self._seconds_per_item)
            self._ran(key, done)
        _deliver(tickets, outcomes, started)
        del tickets, outcomes  # an error's traceback holds this frame, which would hold the error

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


def _deliver(
    tickets: Sequence[Ticket[T, R]], outcomes: Sequence[R | BaseException], started_s: float
) -> None:
    for ticket, outcome in zip(tickets, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            ticket.fail(outcome)
        else:
            ticket.future.set_result((outcome, (started_s - ticket.enqueued_s) * 1e3))
