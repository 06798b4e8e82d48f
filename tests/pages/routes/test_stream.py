"""The event stream: the whole state first, then each change; it ends with its token."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request

from archive.catalogue.ingest import ingest
from model_store.errors import Overloaded, Unauthorized
from pages.context import Context
from pages.routes import stream
from pages.routes.stream import RunLogTail, State
from serve.api.base import ENDING
from serve.auth.guard import Access
from tests.fixtures_local import jpeg, write_files
from tests.support.jobs import FakeJobs


class Revoked(Access):
    """Tokens of which the one that is sent is revoked after `checks` looks."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self.checks = checks

    async def check(self, headers: Any, scope: Any) -> Any:
        self.checks -= 1
        if self.checks < 0:
            raise Unauthorized("revoked")
        return await super().check(headers, scope)


async def events(
    context: Context, access: Access, log: RunLogTail | None = None, state: State | None = None, **more: Any
) -> list[str]:
    async def receive() -> dict[str, str]:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "headers": [], "method": "GET", "path": "/", **more}, receive)
    opened = stream._events(state or State(context), request, access, "kim", log)
    return [text async for text in opened]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LOOK_S", 0.0)
    monkeypatch.setattr(stream, "CHECK_S", 0.01)
    monkeypatch.setattr(stream, "WAIT_S", 60.0)


async def test_the_state_is_sent_once_until_it_changes(
    context: Context, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(context.tables, str(write_files(tmp_path / "a", {"1.jpg": jpeg()})))
    sent = await events(context, Revoked(5))
    assert len(sent) == 1
    number, data = sent[0].split("\n")[:2]
    assert number == "id: 1"
    assert json.loads(data.removeprefix("data: ")) == {"runs": [], "published": None, "index": None}
    states = iter([{"runs": []}, {"runs": [1]}, {"runs": [1]}, {"runs": []}])
    monkeypatch.setattr(State, "_read", lambda self: next(states))
    sent = await events(context, Revoked(4))
    assert [json.loads(text.partition("data: ")[2])["runs"] for text in sent] == [[], [1], []]


async def test_the_log_of_a_run_is_sent_by_its_new_lines(context: Context) -> None:
    jobs = FakeJobs("one", "two")
    tail = RunLogTail(replace(context, jobs=lambda: jobs), "run")
    assert tail.read() is None, "it has no job yet"
    jobs.alive = {"run"}
    assert tail.read() == {"text": "one\ntwo\n", "is_first": True}
    assert tail.read() is None
    jobs.lines += ("three",)
    sent = await events(context, Revoked(3), tail)
    logs = [text for text in sent if text.startswith("event: log")]
    assert [json.loads(text.partition("data: ")[2])["text"] for text in logs] == ["three\n"]
    jobs.lines, jobs.prefix = ("again",), "resumed"
    assert tail.read() == {"text": "again\n", "is_first": True}, "the whole log of the new job"


async def test_tables_that_hang_delay_no_check_of_the_token(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(State, "_read", lambda self: {} if go_on.wait(60) else None)
    monkeypatch.setattr(RunLogTail, "read", lambda self: go_on.wait(60) and None)
    monkeypatch.setattr(stream, "WAIT_S", 0.01)
    tail = RunLogTail(context, "run")
    assert await asyncio.wait_for(events(context, Revoked(3), tail), 30) == []
    go_on.set()


async def test_a_person_has_few_streams_and_leaves_places_to_others(context: Context) -> None:
    state = State(context)
    for _ in range(stream.MAX_EACH):
        state.require_place("kim")
        state.open["kim"] += 1
    with pytest.raises(Overloaded, match="6 streams are open, the bound is 6") as refused:
        state.require_place("kim")
    assert refused.value.retry_after_s == stream.PING_S
    state.require_place("lee")
    state.open.update({f"person {n}": 1 for n in range(stream.MAX_STREAMS - stream.MAX_EACH)})
    with pytest.raises(Overloaded, match="the bound is 40"):
        state.require_place("lee")


async def test_a_stream_that_ends_gives_its_place_back(context: Context) -> None:
    state = State(context)
    assert await events(context, Revoked(0), state=state) == []
    assert not state.open
    (ending := asyncio.get_running_loop().create_future()).cancel()
    assert await events(context, Revoked(1), state=state, **{ENDING: ending}) == []
    assert not state.open
    state.open["kim"] = stream.MAX_EACH
    assert await events(context, Access(), state=state) == []
    assert state.open["kim"] == stream.MAX_EACH
