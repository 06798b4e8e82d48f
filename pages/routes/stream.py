"""GET /ui/v1/stream: server-sent events about runs, the index and publications, so that pages need not poll.

Each event has the whole state as JSON and a number as its id; a client that comes back gets the newest state at once.
With `run`, events named `log` have the new lines of its log.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from time import monotonic
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from archive.views.publications import connect_runs
from archive.views.views import Views
from model_store.errors import Overloaded, ResightError
from pages.context import Context
from serve.auth.guard import Access
from serve.auth.scopes import TokenScope

LOG_BYTES = 64 * 1024
LOOK_S, PING_S, MAX_S, MAX_STREAMS = 2.0, 15.0, 600.0, 40
"""Seconds between looks at the tables, between signs of life, and until a client must connect again."""
_RUNS = """
    select run_id, coalesce(kind, 'detect') as kind, state_now as state, model_name, model_version, counts, metrics,
        epoch(event_at) as event_at_s
    from runs where state_now = 'running' or event_at > now() - interval 1 hour order by event_at desc limit 20
"""


class State:
    """The newest state of the tables, looked at while at least one stream is open."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.number, self.text, self.open = 0, "", 0
        self._looked_s = -LOOK_S
        self._looking = asyncio.Lock()

    async def look(self) -> None:
        async with self._looking:
            if monotonic() - self._looked_s < LOOK_S:
                return
            text = json.dumps(await asyncio.to_thread(self._read), default=str)
            self._looked_s = monotonic()
            if text != self.text:
                self.number, self.text = self.number + 1, text

    def _read(self) -> dict[str, Any]:
        tables = self._context.tables
        try:
            runs = connect_runs(tables).sql(_RUNS).to_arrow_table().to_pylist()
            view = Views(tables.url).current()
        except ResightError as error:
            return {"problem": str(error)}
        self._context.follower.used()
        for run in runs:
            run["metrics"] = json.loads(run["metrics"]) if run["metrics"] else None
        published = {"serial": view.serial, "run_id": view.run_id} if view else None
        return {"runs": runs, "published": published, "index": self._context.follower.building()}


class LogTail:
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
        run: Annotated[
            str | None, Query(description="also send new lines of the log of this run")
        ] = None,
    ) -> StreamingResponse:
        """Send the state at once and after each change, for ten minutes or until the token is revoked."""
        if state.open >= MAX_STREAMS:
            raise Overloaded(f"{state.open} streams are open", PING_S)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        events = _events(state, request, access, LogTail(context, run) if run else None)
        return StreamingResponse(events, headers=headers, media_type="text/event-stream")

    return routes


async def _events(
    state: State, request: Request, access: Access, log: LogTail | None = None
) -> AsyncIterator[str]:
    began_s = spoke_s = monotonic()
    sent = -1
    state.open += 1
    try:
        while monotonic() - began_s < MAX_S and not await request.is_disconnected():
            try:
                await access.check(request.headers, TokenScope.detect)
            except ResightError:
                return
            await state.look()
            if state.number != sent:
                sent, spoke_s = state.number, monotonic()
                yield f"id: {sent}\ndata: {state.text}\n\n"
            if log and (part := await asyncio.to_thread(log.read)):
                spoke_s = monotonic()
                yield f"event: log\ndata: {json.dumps(part)}\n\n"
            if monotonic() - spoke_s > PING_S:
                spoke_s = monotonic()
                yield ": ping\n\n"
            await asyncio.sleep(LOOK_S)
    finally:
        state.open -= 1
