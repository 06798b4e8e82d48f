"""GET /ui/v1/stream: server-sent events about runs, the index and publications, so that pages need not poll.

Each event has the whole state as JSON and a number as its id; a client that comes back gets the newest state at once.
With `run`, events named `log` have the new lines of its log.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from archive.views.views import Views
from batch.jobs.control import ended_here
from batch.runs import listing
from model_store.errors import Overloaded, ResightError
from pages.context import Context
from pages.html import identity_of
from serve.api.base import ENDING
from serve.auth.guard import Access
from serve.auth.scopes import TokenScope

T = TypeVar("T")
LOG_BYTES = 64 * 1024
CHECK_S, LOOK_S, PING_S, MAX_S = 1.0, 2.0, 15.0, 600.0
"""Seconds between checks of the token, looks at the tables and signs of life, and until a client must connect again."""
WAIT_S, READERS = 1.0, 4
"""Maximum wait for a look, so that slow tables delay no check of the token; threads that look."""
MAX_EACH, MAX_STREAMS = 6, 40
"""Maximum number of open streams of one token (without tokens, of a name at an address), and of all together.

Browsers open at most six connections to a server by HTTP/1.1.
"""
RECENT, MAX_RUNS = timedelta(hours=1), 20
"""Age of the last event and number of the runs that the stream describes."""
_SENT = ("run_id", "model_name", "model_version", "counts")


class State:
    """The newest state of the tables, looked at while at least one stream is open."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.number, self.text = 0, ""
        self.open = Counter[object]()
        self._looked_s = -LOOK_S
        self._readers = ThreadPoolExecutor(READERS, "stream")
        self._looking: asyncio.Future[None] | None = None

    def require_place(self, who: object) -> None:
        """Raise Overloaded if too many streams are open, of `who` or of all."""
        for number, most in ((self.open[who], MAX_EACH), (self.open.total(), MAX_STREAMS)):
            if number >= most:
                raise Overloaded(f"{number} streams are open, the bound is {most}", PING_S)

    def read(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Start `work` in one of the threads that look."""
        return asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def look(self) -> None:
        """Look at the tables if the last look is old, and wait for it, at most WAIT_S."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        for ended in (await asyncio.wait([self._looking], timeout=WAIT_S))[0]:
            ended.result()

    async def _look(self) -> None:
        if monotonic() - self._looked_s < LOOK_S:
            return
        text = json.dumps(await self.read(self._read), default=str)
        self._looked_s = monotonic()
        if text != self.text:
            self.number, self.text = self.number + 1, text

    def _read(self) -> dict[str, Any]:
        tables = self._context.tables
        try:
            ended = ended_here(self._context.settings, tables)
            runs = listing.recent(tables, datetime.now(UTC) - RECENT, MAX_RUNS, ended)
            view = Views(tables.url).current()
        except ResightError as error:
            return {"problem": str(error)}
        self._context.follower.used()
        published = {"serial": view.serial, "run_id": view.run_id} if view else None
        return {"runs": list(map(_sent, runs)), "published": published, "index": self._context.follower.building()}


def _sent(run: dict[str, Any]) -> dict[str, Any]:
    """Return what the stream sends of a run."""
    metrics = json.loads(run["metrics"]) if run["metrics"] else None
    more = {"kind": run["kind"] or "detect", "state": run["state_now"], "event_at_s": run["event_at"].timestamp()}
    return {name: run[name] for name in _SENT} | more | {"metrics": metrics}


class RunLogTail:
    """The last lines of the log of a run's newest job, on any host, then its new lines."""

    def __init__(self, context: Context, run_id: str) -> None:
        self._context, self._run_id = context, run_id
        self._job, self._next = "", 0

    def read(self) -> dict[str, Any] | None:
        """Return new lines; `is_first` if they begin the log of another job. None without any."""
        after = self._next if self._job else None
        part = self._context.from_jobs(lambda jobs: jobs.log(self._run_id, after, LOG_BYTES))
        if part is None:
            return None
        is_first, self._job, self._next = part.job != self._job, part.job, part.next
        if is_first and after is not None:
            self._job = ""
            return self.read()
        return {"text": part.text, "is_first": is_first} if part.text or is_first else None


def router(context: Context, access: Access) -> APIRouter:
    routes = APIRouter()
    state = State(context)

    @routes.get("/v1/stream", response_class=StreamingResponse)
    async def stream(
        request: Request,
        run: Annotated[str | None, Query(description="also send new lines of the log of this run")] = None,
    ) -> StreamingResponse:
        """Send the state at once and after each change, for ten minutes or until the token or the server ends."""
        host = request.client and request.client.host
        who = (identity_of(request).name, access.open and host)
        state.require_place(who)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        events = _events(state, request, access, who, RunLogTail(context, run) if run else None)
        return StreamingResponse(events, headers=headers, media_type="text/event-stream")

    return routes


async def _events(
    state: State, request: Request, access: Access, who: object, log: RunLogTail | None
) -> AsyncIterator[str]:
    if state.open[who] >= MAX_EACH:  # others have begun since
        return
    began_s = spoke_s = monotonic()
    sent, tail, ending = 0, None, request.scope.get(ENDING)
    state.open[who] += 1
    try:
        while monotonic() - began_s < MAX_S and not (ending and ending.done()) and not await request.is_disconnected():
            try:
                await access.check(request.headers, TokenScope.detect)
            except ResightError:
                return
            await state.look()
            if state.number != sent:
                sent, spoke_s = state.number, monotonic()
                yield f"id: {sent}\ndata: {state.text}\n\n"
            if log:
                tail = tail or state.read(log.read)
                await asyncio.wait([tail], timeout=WAIT_S)
                part, tail = (tail.result(), None) if tail.done() else (None, tail)
                if part:
                    spoke_s = monotonic()
                    yield f"event: log\ndata: {json.dumps(part)}\n\n"
            if monotonic() - spoke_s > PING_S:
                spoke_s = monotonic()
                yield ": ping\n\n"
            await asyncio.sleep(CHECK_S)
    finally:
        state.open = state.open - Counter([who])
