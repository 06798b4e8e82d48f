"""/ui/exports: the images of a filter as a file, its SQL, and the exports so far.

POST /ui/v1/exports answers the file; GET /ui/v1/exports lists the exports so far.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from archive.delta.sql_literal import literal
from archive.views.exports import export, remove_record
from archive.views.image_filter import FILTERED, ImageFilter, condition, statement
from archive.views.query import query
from archive.views.search import view_shown
from archive.views.views import PRODUCTION
from model_store.frozen import Frozen
from pages.context import Context
from pages.html import identity_of, page
from pages.routes.images import FormFilter, filter_of
from serve.api.bodies import SmallBodyRoute
from serve.api.limits import PIECE_BYTES
from serve.inference.admission import Room

MAX_EXPORTS, MEMORY_MIB = 2, 1024
"""Exports that are written concurrently, and the memory of each; more data spills to TMPDIR, where the file is too."""
TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


class ExportBody(Frozen):
    """The rows of the images that match; of `detections` only those with the label and score."""

    relation: Literal["detections", "results"]
    format: Literal["csv", "parquet"]
    filter: ImageFilter = ImageFilter()


class Download(StreamingResponse):
    """Send a file that has no name any more. If the client leaves before its end, `cancelled` is called."""

    def __init__(self, file: IO[bytes], cancelled: Callable[[], None], **more: Any) -> None:
        super().__init__(self._chunks(), **more)
        self._file, self._cancelled, self._is_sent = file, cancelled, False

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._file.read(PIECE_BYTES):
            yield chunk
        self._is_sent = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()
            if not self._is_sent:
                await asyncio.shield(asyncio.to_thread(self._cancelled))


def router(context: Context) -> APIRouter:
    routes, tables = APIRouter(route_class=SmallBodyRoute, tags=["exports"]), context.tables
    writing = Room(MAX_EXPORTS, "exports are being written")

    @routes.get("/exports", include_in_schema=False)
    def exports(request: Request, wanted: Annotated[FormFilter, Query()]) -> HTMLResponse:
        asked = filter_of(wanted)
        view = f"--view {wanted.view} " if wanted.view != PRODUCTION else ""
        texts = {name: shlex.quote(statement(name, asked)) for name in FILTERED}
        return page(
            request,
            "exports.html",
            wanted=wanted,
            review=None,
            types=list(TYPES),
            count=context.index.count(asked),
            commands={name: f"resight sql {view}{text}" for name, text in texts.items()},
            query=asked.model_dump(mode="json", exclude_defaults=True),
            past=past(50),
            **context.filter_choices(wanted.view),
        )

    @routes.get("/v1/exports")
    def past(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> list[dict[str, Any]]:
        """Return the newest rows of the table `exports`."""
        if tables.existing("exports") is None:
            return []
        return query(tables, f"from exports order by exported_at desc limit {limit}").to_pylist()

    @routes.post(
        "/v1/exports",
        response_class=StreamingResponse,
        responses={200: {"content": {kind: {} for kind in TYPES.values()}}},
    )
    async def download(request: Request, body: ExportBody) -> StreamingResponse:
        """Return the file. Unless it is cancelled, it is recorded in the table `exports`, as by `resight export`."""
        name = f"{body.relation}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.{body.format}"
        record = f"{name} ({identity_of(request).name})"
        with writing.place():
            file, size = await run_in_threadpool(_written, context, body, name, record)
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Length": str(size),
            "Cache-Control": "no-store",
        }
        return Download(file, lambda: _forget(context, record), headers=headers, media_type=TYPES[body.format])

    return routes


def _written(context: Context, body: ExportBody, name: str, record: str) -> tuple[IO[bytes], int]:
    """Write an export; return it as an open file without a name, which ends with the response, and its size."""
    view = view_shown(context.tables, body.filter.view)
    folder = Path(tempfile.mkdtemp(prefix="resight-export-"))
    try:
        where = condition(body.relation, body.filter)
        file = folder / name
        export(context.tables, body.relation, file, view, MEMORY_MIB, where=where, name=record)
        return file.open("rb"), file.stat().st_size
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _forget(context: Context, record: str) -> None:
    """Remove the record of an export that was not received, so that it keeps no results."""
    for row in query(context.tables, f"from exports where file = {literal(record)}").to_pylist():
        remove_record(context.tables, row)
