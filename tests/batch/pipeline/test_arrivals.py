"""Test the order of items, errors, None for a wait without an item, and the end of the thread."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from batch.pipeline.drain import AHEAD, arrivals

NEVER_S, AT_ONCE_S, WAIT_S = 60.0, 0.001, 30.0


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "arrivals"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threads():
        thread.join(WAIT_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("n", [0, 3 * AHEAD + 1])
def test_items_come_in_their_order(n: int) -> None:
    assert list(arrivals(range(n), NEVER_S)) == list(range(n))


def test_none_comes_while_no_item_does() -> None:
    asked = threading.Event()

    def late() -> Iterator[str]:
        yield "first"
        assert asked.wait(WAIT_S)
        yield "second"

    arrived = arrivals(late(), AT_ONCE_S)
    seen: list[str | None] = []
    for item in arrived:
        seen.append(item)
        if seen.count(None) >= 3:
            asked.set()
    assert [item for item in seen if item] == ["first", "second"]
    assert seen.count(None) >= 3


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(3)])
def test_an_error_comes_after_the_items_before_it_and_is_itself(error: BaseException) -> None:
    def failing() -> Iterator[int]:
        yield from range(AHEAD * 2)
        raise error

    arrived = arrivals(failing(), WAIT_S)
    assert list(itertools.islice(arrived, AHEAD * 2)) == list(range(AHEAD * 2))
    with pytest.raises(type(error)) as raised:
        next(arrived)
    assert raised.value is error


def test_only_a_few_items_are_made_ahead() -> None:
    made: list[int] = []
    more = threading.Event()

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            if i == AHEAD + 1:
                more.set()
            yield i

    arrived = arrivals(items(), NEVER_S)
    assert next(arrived) == 0
    assert more.wait(WAIT_S), "it is to work ahead"
    assert len(made) == AHEAD + 2  # one taken, AHEAD in the queue, and one that waits for room
    assert list(arrived) == list(range(1, 100))


def test_closed_while_it_waits_it_ends_with_the_next_item() -> None:
    go = threading.Event()

    def waiting() -> Iterator[int]:
        yield 1
        assert go.wait(WAIT_S)
        yield 2
        raise AssertionError("no consumer")

    arrived = arrivals(waiting(), AT_ONCE_S)
    assert next(arrived) == 1
    assert next(arrived) is None
    arrived.close()  # type: ignore[attr-defined]
    go.set()
    for thread in threads():
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_a_source_is_closed_even_if_something_refers_to_it() -> None:
    """The traceback of the error that ends a run refers to it, and closing it ends the processes of the run."""
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            ended.set()

    source = endless()
    arrived = arrivals(source, WAIT_S)
    assert next(arrived) == 0
    arrived.close()
    assert ended.wait(WAIT_S)
    assert list(source) == []
