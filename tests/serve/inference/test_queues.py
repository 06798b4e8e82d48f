"""Keys of a lane share the workers' time, however long their batches take."""

from __future__ import annotations

from collections import Counter

import pytest

from serve.inference.batcher import FairQueue, Ticket


def push(queue: FairQueue[str, int, int], key: str, count: int) -> None:
    for item in range(count):
        queue.push(key, Ticket(item))


def served(queue: FairQueue[str, int, int], seconds: dict[str, float], turns: int) -> list[str]:
    """Which key had each turn, one item a batch, when its batches take so long."""
    order = []
    for _ in range(turns):
        key = queue.next_key()
        assert len(queue.take(key, 1)) == 1
        queue.charge(key, seconds[key])
        order.append(key)
    return order


def test_time_is_shared_not_turns() -> None:
    queue: FairQueue[str, int, int] = FairQueue()
    push(queue, "slow", 100)
    push(queue, "fast", 100)
    turns = Counter(served(queue, {"slow": 0.1, "fast": 0.01}, 55))
    assert turns["slow"] == pytest.approx(5, abs=1)
    assert turns["fast"] == pytest.approx(50, abs=1)


def test_a_key_that_was_away_has_not_saved_up_time() -> None:
    queue: FairQueue[str, int, int] = FairQueue()
    push(queue, "old", 100)
    served(queue, {"old": 1.0}, 50)
    push(queue, "new", 50)
    order = served(queue, {"old": 1.0, "new": 1.0}, 20)
    assert Counter(order) == {"old": 10, "new": 10}


def test_keys_that_come_and_go_leave_nothing_behind() -> None:
    queue: FairQueue[str, int, int] = FairQueue()
    for i in range(1000):
        queue.push(f"model{i}", Ticket(i))
        served(queue, {f"model{i}": 0.0}, 1)
    assert len(queue._charged_s) < 200


def test_a_key_that_had_much_and_comes_back_waits_for_the_others_to_level() -> None:
    queue: FairQueue[str, int, int] = FairQueue()
    push(queue, "heavy", 1)
    served(queue, {"heavy": 5.0}, 1)
    push(queue, "light", 100)
    push(queue, "heavy", 1)
    order = served(queue, {"heavy": 1.0, "light": 1.0}, 7)
    assert order.index("heavy") >= 5


def test_sizes_are_those_of_what_waits() -> None:
    queue: FairQueue[str, int, int] = FairQueue()
    for size in (3, 4, 5):
        queue.push("a", Ticket(size, size_bytes=size))
    assert (queue.size, queue.size_bytes, queue.waiting("a")) == (3, 12, 3)
    queue.take("a", 2)
    assert (queue.size, queue.size_bytes) == (1, 5)
    assert [ticket.item for ticket in queue.drain()] == [5]
    assert (queue.size, queue.size_bytes, queue.waiting("a")) == (0, 0, 0)
