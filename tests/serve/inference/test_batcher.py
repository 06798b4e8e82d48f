"""Lanes, with one worker that is held at a gate: what is queued meanwhile shows how batches bind."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

import pytest

from model_store.config import Batch
from model_store.errors import DeadlinePassed, ModelNotReady, Overloaded
from serve.inference.batcher import Batcher, Lane, LaneBound
from serve.inference.os_priority import niceness

TIMEOUT_S = 20
FOREVER_MS = 60_000.0


class Bench:
    """Lanes whose `run` notes every batch. Key `gate` keeps a worker until `open` is called."""

    def __init__(self, workers: int = 1, share: float = 0.2, bound: int = 1000, most: int = 4) -> None:
        self.batches: list[tuple[str, list[str]]] = []
        self.batch_by_key: dict[str, Batch] = {}
        self._most = most
        self._held, self._gate = threading.Event(), threading.Event()
        self.lanes: Batcher[str, str, str] = Batcher(
            run=self._run,
            batch_of=self._batch_of,
            workers=workers,
            bulk_share=share,
            bounds=dict.fromkeys(Lane, LaneBound(bound, 1 << 30)),
        )

    def hold(self) -> Future[tuple[str, float]]:
        """Returns when the worker is busy."""
        (future,) = self.lanes.submit("gate", ["gate"], Lane.ONLINE)
        assert self._held.wait(TIMEOUT_S)
        return future

    def open(self) -> None:
        self._gate.set()

    def run(self, *futures: Future[Any]) -> list[tuple[str, list[str]]]:
        """Open the gate, wait for these futures, and return the batches."""
        self.open()
        assert not wait(futures, TIMEOUT_S).not_done
        return self.batches

    def _batch_of(self, key: str, _: str) -> Batch:
        if key == "released":
            raise ModelNotReady("released")
        return self.batch_by_key.get(key, Batch(max=self._most))

    def _run(self, key: str, items: Sequence[str]) -> list[str]:
        if key == "gate":
            self._held.set()
            assert self._gate.wait(TIMEOUT_S)
            return list(items)
        self.batches.append((key, list(items)))
        if "bad" in items:
            raise ValueError("this one is bad")
        if "lost" in items:
            return []
        return [item.upper() for item in items]


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        made.append(Bench(**options))
        return made[-1]

    yield make
    for one in made:
        one.open()
        one.lanes.close()


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


@pytest.mark.parametrize("count", [0, 9])
def test_every_item_gets_its_own_result_in_order(bench: Callable[..., Bench], count: int) -> None:
    lanes = bench().lanes
    futures = lanes.submit("a", names("x", count), Lane.ONLINE)
    assert [future.result(TIMEOUT_S)[0] for future in futures] == [name.upper() for name in names("x", count)]


def test_online_goes_before_bulk_that_came_first(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.hold()
    bulk = one.lanes.submit("b", ["bulk"], Lane.BULK)
    online = one.lanes.submit("a", ["online"], Lane.ONLINE)
    assert one.run(*bulk, *online) == [("a", ["online"]), ("b", ["bulk"])]


@pytest.mark.parametrize(("share", "bulk_batches"), [(0.2, 10), (0.9, 45)])
def test_bulk_gets_its_share_of_batches_while_online_never_stops(
    bench: Callable[..., Bench], share: float, bulk_batches: int
) -> None:
    one = bench(share=share, most=1)
    one.hold()
    bulk = one.lanes.submit("b", names("b", 50), Lane.BULK)
    online = one.lanes.submit("a", names("a", 50), Lane.ONLINE)
    first_50 = one.run(*bulk, *online)[:50]
    assert abs(sum(key == "b" for key, _ in first_50) - bulk_batches) <= 1


def test_free_places_of_an_online_batch_take_bulk_items_of_the_same_key_only(bench: Callable[..., Bench]) -> None:
    one = bench(most=4)
    one.hold()
    other = one.lanes.submit("b", ["other"], Lane.BULK)
    same = one.lanes.submit("a", names("bulk", 5), Lane.BULK)
    online = one.lanes.submit("a", ["online"], Lane.ONLINE)
    assert one.run(*same, *other, *online)[0] == ("a", ["online", "bulk0", "bulk1", "bulk2"])


def test_no_key_of_a_lane_waits_for_all_of_another(bench: Callable[..., Bench]) -> None:
    one = bench(most=1)
    one.hold()
    a = one.lanes.submit("a", names("a", 30), Lane.BULK)
    b = one.lanes.submit("b", names("b", 2), Lane.BULK)
    order = [key for key, _ in one.run(*a, *b)]
    assert order.index("b") <= 2


def test_an_item_past_its_deadline_is_never_run(bench: Callable[..., Bench]) -> None:
    one = bench(most=4)
    one.hold()
    now = time.perf_counter()
    (late,) = one.lanes.submit("a", ["late"], Lane.ONLINE, deadline_s=now - 1)
    (early,) = one.lanes.submit("a", ["early"], Lane.ONLINE, deadline_s=now + 60)
    assert one.run(late, early) == [("a", ["early"])]
    with pytest.raises(DeadlinePassed, match="ms in the queue"):
        late.result()


def test_a_lane_is_bounded_in_bytes_too() -> None:
    gate = threading.Event()

    def run(key: str, items: Sequence[str]) -> list[str]:
        assert gate.wait(TIMEOUT_S)
        return list(items)

    bounds = dict.fromkeys(Lane, LaneBound(1000, 10))
    lanes: Batcher[str, str, str] = Batcher(run, lambda *_: Batch(max=1), 1, 0.2, bounds, bytes_of=len)
    try:
        lanes.submit("a", ["running"], Lane.ONLINE)
        while lanes.depth(Lane.ONLINE):
            time.sleep(0.001)
        lanes.submit("a", ["x" * 50], Lane.ONLINE)  # alone, however large
        with pytest.raises(Overloaded, match="1 images"):
            lanes.submit("a", ["x"], Lane.ONLINE)
        lanes.submit("a", ["x" * 5], Lane.BULK)
        lanes.submit("a", ["x" * 5], Lane.BULK)
        with pytest.raises(Overloaded, match="2 images"):
            lanes.submit("a", ["x"], Lane.BULK)
    finally:
        gate.set()
        lanes.close()


def test_a_bad_item_fails_alone(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.hold()
    good, bad, fine = one.lanes.submit("a", ["good", "bad", "fine"], Lane.BULK)
    one.run(good, bad, fine)
    assert [good.result()[0], fine.result()[0]] == ["GOOD", "FINE"]
    with pytest.raises(ValueError, match="this one is bad"):
        bad.result()


def test_a_run_that_loses_results_fails_its_items_and_not_the_worker(bench: Callable[..., Bench]) -> None:
    lanes = bench().lanes
    (lost,) = lanes.submit("a", ["lost"], Lane.ONLINE)
    with pytest.raises(RuntimeError, match="1 images in, 0 results out"):
        lost.result(TIMEOUT_S)
    assert lanes.submit("a", ["next"], Lane.ONLINE)[0].result(TIMEOUT_S)[0] == "NEXT"


def test_a_cancelled_item_is_never_run(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.hold()
    first, second, third = one.lanes.submit("a", ["x", "y", "z"], Lane.ONLINE)
    alone = one.lanes.submit("b", ["alone"], Lane.ONLINE)[0]
    assert second.cancel()
    assert alone.cancel()
    after = one.lanes.submit("c", ["after"], Lane.ONLINE)
    assert one.run(first, third, *after) == [("a", ["x", "z"]), ("c", ["after"])]


@pytest.mark.parametrize(("waiting", "more", "refused"), [(1, 1, False), (1, 2, True)])
def test_a_lane_over_its_bound_refuses_all_of_a_submission(
    bench: Callable[..., Bench], waiting: int, more: int, refused: bool
) -> None:
    one = bench(bound=2)
    one.hold()
    one.lanes.submit("a", names("x", waiting), Lane.BULK)
    if refused:
        with pytest.raises(Overloaded, match="the bound is 2") as caught:
            one.lanes.submit("a", names("y", more), Lane.BULK)
        assert caught.value.retry_after_s >= 1
    else:
        one.lanes.submit("a", names("y", more), Lane.BULK)
    assert one.lanes.depth(Lane.BULK) == waiting + (0 if refused else more)


def test_closing_fails_what_waits_finishes_what_runs_and_refuses_more(bench: Callable[..., Bench]) -> None:
    one = bench()
    running = one.hold()
    online = one.lanes.submit("a", ["x"], Lane.ONLINE)
    bulk = one.lanes.submit("b", names("y", 3), Lane.BULK)
    closing = threading.Thread(target=one.lanes.close)
    closing.start()
    for future in (*online, *bulk):
        with pytest.raises(ModelNotReady, match="shutting down") as raised:
            future.result(TIMEOUT_S)
        assert raised.value.retry_after_s == 1
    with pytest.raises(ModelNotReady, match="shutting down") as raised:
        one.lanes.submit("a", ["late"], Lane.ONLINE)
    assert raised.value.retry_after_s == 1
    one.open()
    closing.join(TIMEOUT_S)
    assert running.result(TIMEOUT_S)[0] == "gate"
    assert one.batches == []


def test_a_key_whose_model_was_released_fails_its_items_and_not_the_worker(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.hold()
    gone = one.lanes.submit("released", ["x", "y"], Lane.BULK)
    here = one.lanes.submit("a", ["z"], Lane.BULK)
    one.run(*gone, *here)
    for future in gone:
        with pytest.raises(ModelNotReady, match="released"):
            future.result()
    assert here[0].result()[0] == "Z"


def test_wait_ms_fills_a_batch(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.batch_by_key["a"] = Batch.model_construct(max=3, wait_ms=FOREVER_MS)
    futures = [f for name in names("x", 3) for f in one.lanes.submit("a", [name], Lane.ONLINE)]
    assert one.run(*futures) == [("a", ["x0", "x1", "x2"])]


class Apart:
    """Lanes with workers of their own; bulk batches are held until the gate opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.niceness: dict[str, int] = {}
        bounds = dict.fromkeys(Lane, LaneBound(100, 1 << 30))
        batch = Batch(max=4)
        self.lanes: Batcher[str, str, str] = Batcher(self._run, lambda *_: batch, 2, 0.2, bounds, separate=True)

    def _run(self, key: str, items: Sequence[str]) -> Sequence[str]:
        self.niceness[key] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        assert key == "online" or self.gate.wait(TIMEOUT_S)
        return items


@pytest.fixture
def separate() -> Iterator[Apart]:
    separate = Apart()
    yield separate
    separate.gate.set()
    separate.lanes.close()


def test_bulk_batches_that_run_are_no_obstacle_where_lanes_have_their_own_workers(separate: Apart) -> None:
    bulk = separate.lanes.submit("bulk", ["b"] * 50, Lane.BULK)
    for _ in range(3):
        (online,) = separate.lanes.submit("online", ["o"], Lane.ONLINE)
        assert online.result(TIMEOUT_S)[0] == "o"
    assert not any(future.done() for future in bulk)
    separate.gate.set()
    assert not wait(bulk, TIMEOUT_S).not_done


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own")
def test_and_bulk_gives_way_to_them(separate: Apart) -> None:
    separate.gate.set()
    futures = separate.lanes.submit("bulk", ["b"], Lane.BULK)
    futures += separate.lanes.submit("online", ["o"], Lane.ONLINE)
    assert not wait(futures, TIMEOUT_S).not_done
    here = os.getpriority(os.PRIO_PROCESS, 0)
    assert (separate.niceness["online"], separate.niceness["bulk"]) == (here, min(19, here + 6))


@pytest.mark.parametrize(("share", "nice"), [(0.8, 0), (0.2, 6), (0.01, 19)])
def test_a_share_of_a_processor_is_a_niceness(share: float, nice: int) -> None:
    # kernel/sched/core.c: niceness 0 weighs 1024, 6 weighs 272
    assert niceness(share) == nice


def test_who_lingers_for_one_key_does_not_swallow_the_call_for_another(bench: Callable[..., Bench]) -> None:
    """Two workers: one gives `slow` time to fill, the other one is to take `quick` at once."""
    made = bench(workers=2)
    made.batch_by_key = {"slow": Batch.model_construct(max=4, wait_ms=FOREVER_MS)}
    made.lanes.submit("slow", ["s"], Lane.ONLINE)
    for _ in range(20):
        time.sleep(0.005)  # until the other one waits again
        (quick,) = made.lanes.submit("quick", ["q"], Lane.ONLINE)
        assert quick.result(TIMEOUT_S)[0] == "Q"


@pytest.mark.parametrize("lane", list(Lane))
def test_nor_the_call_for_the_rest_of_a_key(bench: Callable[..., Bench], lane: Lane) -> None:
    """Both lanes share their workers, and a wake-up can reach any of them."""
    lanes, woken = bench(workers=0).lanes, list[int]()
    lanes._changed[Lane.ONLINE].notify = lambda n=1: woken.append(n)  # type: ignore[method-assign]
    lanes._lingering[lane].add("slow")
    lanes.submit("quick", names("q", 6), Lane.ONLINE)
    with lanes._lock:
        assert len(lanes._next_batch([Lane.ONLINE])[2]) == 4
    assert woken == [1, 2], "one for who lingers, and one more for the rest"


def test_batches_are_counted_by_what_has_a_result() -> None:
    ran: list[int] = []

    def run(_: str, items: Sequence[str]) -> Sequence[str]:
        if "bad" in items:
            raise ValueError("bad")
        return items

    lanes: Batcher[str, str, str] = Batcher(
        run,
        lambda key, newest: Batch(max=4),
        workers=1,
        bulk_share=0.2,
        bounds=dict.fromkeys(Lane, LaneBound(9, 1 << 30)),
        ran=lambda key, size: ran.append(size),
    )
    try:
        for items in (["x", "bad", "y", "z"], ["bad"], ["x"]):
            wait(lanes.submit("a", items, Lane.ONLINE), timeout=20)
    finally:
        lanes.close()
    assert ran == [3, 1]


def test_the_wait_to_expect_grows_with_what_waits(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.hold()
    assert one.lanes.wait_s(Lane.BULK) == 1.0
    one.lanes.submit("a", names("x", 500), Lane.BULK)
    assert one.lanes.wait_s(Lane.BULK) > 1.0
