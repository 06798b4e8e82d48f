"""The event stream: the whole state first, then each change; it ends with its token."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request

from archive.catalogue.ingest import ingest
from model_store.errors import Unauthorized
from pages.context import Context
from pages.routes import stream
from pages.routes.stream import LogTail, State
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


async def events(context: Context, access: Access, log: LogTail | None = None) -> list[str]:
    async def receive() -> dict[str, str]:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "headers": [], "method": "GET", "path": "/"}, receive)
    return [text async for text in stream._events(State(context), request, access, log)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LOOK_S", 0.01)


async def test_the_state_is_sent_once_until_it_changes(
    context: Context, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(context.tables, str(write_files(tmp_path / "a", {"1.jpg": jpeg()})))
    sent = await events(context, Revoked(5))
    assert len(sent) == 1
    number, data = sent[0].split("\n")[:2]
    assert number == "id: 1"
    assert json.loads(data.removeprefix("data: ")) == {
        "runs": [],
        "published": None,
        "index": None,
    }
    states = iter([{"runs": []}, {"runs": [1]}, {"runs": [1]}, {"runs": []}])
    monkeypatch.setattr(State, "_read", lambda self: next(states))
    sent = await events(context, Revoked(4))
    assert [json.loads(text.partition("data: ")[2])["runs"] for text in sent] == [[], [1], []]


async def test_the_log_of_a_run_is_sent_by_its_new_lines(context: Context) -> None:
    jobs = FakeJobs("one", "two")
    tail = LogTail(replace(context, jobs=lambda: jobs), "run")
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


async def test_a_revoked_token_ends_its_stream(context: Context) -> None:
    assert await events(context, Revoked(0)) == []
