"""Load on something that answers by a rule: what is counted, and what is charged."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from model_store.errors import BadRequest, ImageUnreadable, Overloaded
from serve.tune.load import closed_loop, open_loop

BODIES = (b"one", b"two", b"three")


async def test_each_client_asks_again_and_pictures_take_turns() -> None:
    asked: Counter[bytes] = Counter()
    most, under_way = 0, 0

    async def ask(body: bytes) -> None:
        nonlocal most, under_way
        asked[body] += 1
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        answered.append(body)

    answered: list[bytes] = []
    seen = await closed_loop(ask, BODIES, 4, 0.5)
    assert most == 4
    assert max(asked.values()) - min(asked.values()) <= 1
    assert 0 < len(seen.latencies_ms) < len(answered), "warming up is not counted"
    assert seen.seconds > 0


async def test_nobody_is_left_asking() -> None:
    async def ask(body: bytes) -> None:
        await asyncio.sleep(0.01)

    before = len(asyncio.all_tasks())
    await closed_loop(ask, BODIES, 8, 0.1)
    await open_loop(ask, BODIES, 50, 0.1)
    assert len(asyncio.all_tasks()) == before


async def test_a_slow_model_has_a_longer_window() -> None:
    async def ask(body: bytes) -> None:
        await asyncio.sleep(0.2)

    seen = await closed_loop(ask, BODIES, 2, 0.02)
    assert seen.latencies_ms
    assert seen.seconds > 0.1


async def test_a_window_without_an_answer_is_an_error_that_says_how(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serve.tune.load.PATIENCE_S", 0.05)

    async def ask(body: bytes) -> None:
        await asyncio.sleep(60)

    with pytest.raises(BadRequest, match="--seconds"):
        await closed_loop(ask, BODIES, 2, 0.05)


async def test_what_fails_is_raised() -> None:
    async def ask(body: bytes) -> None:
        raise ImageUnreadable("cut")

    with pytest.raises(ImageUnreadable, match="cut"):
        await closed_loop(ask, BODIES, 2, 30)
    with pytest.raises(ImageUnreadable, match="cut"):
        await open_loop(ask, BODIES, 200, 0.1)


async def test_arrivals_do_not_wait_for_answers_and_a_stall_is_charged() -> None:
    free = asyncio.Event()

    async def ask(body: bytes) -> None:
        await free.wait()

    asyncio.get_running_loop().call_later(0.4, free.set)
    seen = await open_loop(ask, BODIES, 200, 0.3)
    assert len(seen.latencies_ms) > 10, "they came while the first was waiting"
    assert max(seen.latencies_ms) > 200
    later_waited_less_ms = max(seen.latencies_ms) - min(seen.latencies_ms)
    assert later_waited_less_ms > 100, "however late the answers are, arrivals spread over 300 ms"
    assert seen.unanswered == 0


async def test_the_same_seed_gives_the_same_arrivals() -> None:
    counts: list[int] = []
    for seed in (1, 1):
        asked: list[bytes] = []

        async def ask(body: bytes, into: list[bytes] = asked) -> None:
            into.append(body)

        await open_loop(ask, BODIES, 300, 0.2, seed)
        counts.append(len(asked))
    assert counts[0] == counts[1] > 20


async def test_refused_and_late_requests_are_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.tune.load.PATIENCE_S", 0.05)
    turn = 0

    async def ask(body: bytes) -> None:
        nonlocal turn
        turn += 1
        if turn % 3 == 0:
            raise Overloaded("full")
        if turn % 3 == 1:
            await asyncio.sleep(60)

    seen = await open_loop(ask, BODIES, 200, 0.2)
    assert len(seen.latencies_ms) + seen.unanswered == turn
    assert len(seen.latencies_ms) == turn // 3 + (turn % 3 == 2)
