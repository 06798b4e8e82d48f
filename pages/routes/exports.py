"""/ui/exports: the images of a filter as a file, its SQL, and the exports so far. GET /v1/exports/… sends the file."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from archive.views.exports import export
from archive.views.filter_sql import FILTERED, condition, statement
from archive.views.image_index import ImageFilter
from archive.views.query import query
from archive.views.views import PRODUCTION
from pages.context import Context
from pages.html import identity_of, page
from pages.routes.images import FormFilter, filter_of, view_of
from serve.inference.admission import Room

MAX_EXPORTS, MEMORY_MIB = 2, 1024
"""Exports that are written concurrently, and the memory of each; more data spills to TMPDIR, where the file is too."""
CHUNK_BYTES = 1024 * 1024
TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_NEWEST = "from exports order by exported_at desc limit 50"


def router(context: Context) -> APIRouter:
    routes, tables = APIRouter(), context.tables
    writing = Room(MAX_EXPORTS, "exports are being written")

    @routes.get("/exports", include_in_schema=False)
    def exports(request: Request, wanted: Annotated[FormFilter, Query()]) -> HTMLResponse:
        asked, everything = filter_of(wanted), ImageFilter(view=wanted.view)
        view = f"--view {wanted.view} " if wanted.view != PRODUCTION else ""
        texts = {name: shlex.quote(statement(name, asked)) for name in FILTERED}
        values: dict[str, Any] = {
            "wanted": wanted,
            "review": None,
            "relations": FILTERED,
            "types": list(TYPES),
        }
        values |= {
            "cameras": context.index.histogram(everything, "camera"),
            "labels": context.index.histogram(everything, "label"),
            "count": context.index.count(asked),
            "commands": {name: f"resight sql {view}{text}" for name, text in texts.items()},
            "query": asked.model_dump(mode="json", exclude_defaults=True),
            "past": query(tables, _NEWEST).to_pylist() if tables.existing("exports") else [],
        }
        return page(request, "exports.html", **values)

    @routes.get(
        "/v1/exports/{relation}.{suffix}",
        response_class=StreamingResponse,
        responses={200: {"content": {kind: {} for kind in TYPES.values()}}},
    )
    async def download(
        request: Request,
        relation: Literal["detections", "results"],
        suffix: Literal["csv", "parquet"],
        wanted: Annotated[ImageFilter, Query()],
    ) -> StreamingResponse:
        """Return the rows of the images that match, of `detections` only those with the label and score.

        The export is recorded in the table `exports`, as that of `resight export` is.
        """
        name = f"{relation}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{suffix}"
        sender = identity_of(request).name
        with writing.place():
            file, size = await run_in_threadpool(_written, context, relation, wanted, name, sender)
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Length": str(size),
            "Cache-Control": "no-store",
        }
        return StreamingResponse(_chunks(file), media_type=TYPES[suffix], headers=headers)

    return routes


def _written(
    context: Context, relation: str, wanted: ImageFilter, name: str, sender: str
) -> tuple[IO[bytes], int]:
    """Write an export; return it as an open file without a name, which ends with the response, and its size."""
    view = view_of(context, wanted.view)
    folder = Path(tempfile.mkdtemp(prefix="resight-export-"))
    try:
        export(
            context.tables,
            relation,
            folder / name,
            view,
            MEMORY_MIB,
            where=condition(relation, wanted),
            name=f"{name} ({sender})",
        )
        return (folder / name).open("rb"), (folder / name).stat().st_size
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
